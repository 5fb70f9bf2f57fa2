"""``chromozoo karyotype``: from images of metaphases to karyograms."""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.batch.images import INTENDED_USE, shown
from chromozoo.batch.results import FAILED, with_option
from chromozoo.batch.run import Batch, Outcome
from chromozoo.batch.signals import watching
from chromozoo.batch.worker import ImageTask, Message, device_of
from chromozoo.cli import options as options_cli
from chromozoo.errors import OutputError
from chromozoo.visualization.page import PAGE, page_cell, write_page

if TYPE_CHECKING:
    from chromozoo.images.reading import ImagePage

TASK = "chromozoo.cli.karyotype:KaryotypeTask"
NODES_HELP = (
    "machines, see Lightning's manual; with several, an image that never ends ends no process"
)
# Seconds for reading what was done by this run, and by earlier ones, once it was told to stop.
PAGE_SECONDS = 0.7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, help="images of metaphases, or folders")
    parser.add_argument("--segmenter", default="chr_fast", help="see `chromozoo models`")
    parser.add_argument("--segmenter-weights", default="DEFAULT", help="tag or path")
    parser.add_argument("--classifier", default="chrnet4", help="see `chromozoo models`")
    parser.add_argument(
        "--classifier-weights", default="DEFAULT", help="the same of the classifier"
    )
    parser.add_argument(
        "--stain",
        choices=("auto", "q", "g"),
        default="auto",
        help="g: G-band; q: Q-band, DAPI; it chooses the weights (default: as the image looks)",
    )
    parser.add_argument(
        "--assignment",
        choices=("cell", "none"),
        default="cell",
        help="name all chromosomes of a cell together, or each alone (default: %(default)s)",
    )
    parser.add_argument(
        "--score", type=float, help="leave out what the segmenter is less sure of, 0 to 1"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--nodes", type=int, default=1, help=NODES_HELP)
    options_cli.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    options_cli.check_arguments(arguments)
    options_cli.check_model(arguments.segmenter, arguments.segmenter_weights, "segmentation")
    options_cli.check_model(arguments.classifier, arguments.classifier_weights, "classification")
    with watching() as watch:
        work = Batch("karyotype", "", arguments, _expected, [PAGE])
        settings = options_cli.settings_of(
            arguments,
            work.results.folder,
            *("segmenter", "segmenter_weights", "classifier", "classifier_weights"),
            *("stain", "assignment", "score", "device"),
        )
        cells: dict[str, dict[str, Any]] = {}

        def read(name: str) -> None:
            if cell := page_cell(work.results.folder, name):
                cells[name] = cell

        if arguments.nodes > 1:
            outcome = work.run_on_nodes(TASK, settings)
            if outcome is None:
                return 0
        else:
            outcome = work.run(TASK, settings, watch, read)
        until = math.inf if outcome.signal is None else time.monotonic() + PAGE_SECONDS
        for name in outcome.done:
            if name not in cells and time.monotonic() < until:
                read(name)
        try:
            _write_page(work, outcome, cells)
        except OutputError as error:
            outcome.full = outcome.full or with_option(error)
        _summarise(work, outcome, cells)
        return outcome.status()


def _expected(about: Message, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the result of an image must say; the stain of the image chose the weights."""
    models = about["models"].get("g" if document.get("stain") == "g" else "q")
    return {"models": models, "options": about["options"], "software": about["software"]}


def _write_page(work: Batch, outcome: Outcome, cells: Mapping[str, Mapping[str, Any]]) -> None:
    results = work.results
    write_page(
        results.folder,
        outcome.done,
        list(outcome.failed.values()),
        shown(work.title),
        earlier=work.earlier(),
        failed_earlier=[results.failure(name) for name in work.earlier(FAILED)],
        cells=cells,
        seconds=None if outcome.signal is None else PAGE_SECONDS,
    )


def _summarise(work: Batch, outcome: Outcome, cells: Mapping[str, Mapping[str, Any]]) -> None:
    total = review = flagged = unnamed = 0
    for name in outcome.done:
        cell = cells.get(name)
        if cell is None:  # somebody removed it meanwhile, or there was no time to read it
            continue
        total += cell["count"]
        review += cell["needs_review"]
        flagged += bool(cell["flags"])
        unnamed += bool(cell["alarms"])
        print(f"{work.shown(name, cell['part'])}: {cell['iscn'] or 'no chromosomes'}")
        for words in (*cell["alarms"], *cell["flags"]):
            print(f"  {words}")
    before = f" ({outcome.before} were done before)" if outcome.before else ""
    cannot = f", {unnamed} cannot be named" if unnamed else ""
    folder = shown(work.results.folder)
    print(
        f"\n{len(outcome.done)} metaphases{before}, {flagged} flagged{cannot}; "
        f"{review} of {total} chromosomes to look at again\n{INTENDED_USE}\n"
        f"Written: karyograms, overlays and JSON in {folder}; see "
        f"{shown(work.results.folder / PAGE)}"
    )
    for line in (*work.notes, *outcome.summary()):
        print(line)


class KaryotypeTask(ImageTask):
    """Karyotypes the images of a file and writes the results of each."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        from chromozoo.models.karyotyper import get_karyotyper

        weights = settings["segmenter_weights"], settings["classifier_weights"]
        self.karyotyper = get_karyotyper(
            settings["segmenter"],
            settings["classifier"],
            settings["assignment"],
            segmenter_weights=weights[0],
            classifier_weights=weights[1],
            stain=settings["stain"],
            score=settings["score"],
        )
        self.karyotyper.to(device_of(settings))
        self.given: Sequence[str] = weights

    def about(self) -> Message:
        """Models by stain, options, and the version of the software."""
        from chromozoo.batch.identity import OPTIONS, software, weights_of

        made = self.karyotyper
        models = {
            stain: [
                weights_of(model, given)
                for model, given in zip(
                    (made.segmenter_for(stain), made.classifier), self.given, strict=True
                )
            ]
            for stain in ("q", "g")
        }
        options = {name: getattr(made, name) for name in OPTIONS} | self.reading
        return {"models": models, "options": options, "software": software()}

    def write(self, image: "Path | ImagePage", name: str, source: Message) -> None:
        """Writes karyogram, overlay and, last, JSON."""
        from chromozoo.visualization.report import write_cell

        found = self.karyotyper.karyotype(image, source["shown"])
        about = self.about()
        identity = {"content": source["content"], **_expected(about, {"stain": found.stain})}
        write_cell(
            self.folder, name, found, self.karyotyper, identity=identity, path=source["path"]
        )
