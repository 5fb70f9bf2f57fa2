"""``chromozoo karyotype``: karyogram, overlay and ISCN of metaphase images."""

import argparse
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chromozoo.batch.identity import identity_for_stain
from chromozoo.batch.images import printable_path
from chromozoo.batch.results import FAILED, add_output_hint
from chromozoo.batch.run import Batch, BatchSummary
from chromozoo.batch.signals import watch_signals
from chromozoo.batch.worker import Message
from chromozoo.cli.options import (
    add_device_option,
    add_image_options,
    check_image_options,
    check_model,
    task_settings,
)
from chromozoo.errors import OutputError
from chromozoo.files import DISCLAIMER
from chromozoo.visualization.page import PAGE, page_cell, write_page

TASK = "chromozoo.batch.karyotype_task:KaryotypeTask"
# Time limit for reading the results for the page after the run was stopped by a signal.
PAGE_SECONDS = 0.7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, help="metaphase images, or folders of them")
    parser.add_argument(
        "--segmenter",
        default="chr_fast",
        metavar="MODEL",
        help="see `chromozoo models` (default: %(default)s)",
    )
    parser.add_argument(
        "--segmenter-weights", default="DEFAULT", metavar="WEIGHTS", help="tag or path"
    )
    parser.add_argument(
        "--classifier",
        default="chrnet4",
        metavar="MODEL",
        help="see `chromozoo models` (default: %(default)s)",
    )
    parser.add_argument(
        "--classifier-weights", default="DEFAULT", metavar="WEIGHTS", help="tag or path"
    )
    parser.add_argument(
        "--stain",
        choices=("auto", "q", "g"),
        default="auto",
        help="g: G-band; q: Q-band or DAPI; auto: from the image. It selects the default weights "
        "of the segmenter (default: %(default)s)",
    )
    parser.add_argument(
        "--assignment",
        choices=("cell", "none"),
        default="cell",
        help="classify the chromosomes of a cell together, or each alone (default: %(default)s)",
    )
    parser.add_argument(
        "--score", type=float, help="minimum score of a detected chromosome, 0 to 1"
    )
    add_device_option(parser)
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="number of machines, see Lightning's manual; with several, --timeout has no effect",
    )
    add_image_options(parser)


def run(arguments: argparse.Namespace) -> int:
    check_image_options(arguments)
    check_model(arguments.segmenter, arguments.segmenter_weights, "segmentation")
    check_model(arguments.classifier, arguments.classifier_weights, "classification")
    with watch_signals() as watch:
        batch = Batch("karyotype", "", arguments, _expected_identity, [PAGE])
        settings = task_settings(
            arguments,
            batch.results.folder,
            *("segmenter", "segmenter_weights", "classifier", "classifier_weights"),
            *("stain", "assignment", "score", "device"),
        )
        cells: dict[str, dict[str, Any]] = {}

        def read_cell(name: str) -> None:
            if cell := page_cell(batch.results.folder, name):
                cells[name] = cell

        if arguments.nodes > 1:
            summary = batch.run_on_nodes(TASK, settings)
            if summary is None:
                return 0
        else:
            summary = batch.run(TASK, settings, watch, read_cell)
        is_stopped = summary.stop_signal is not None
        deadline = time.monotonic() + PAGE_SECONDS if is_stopped else math.inf
        for name in summary.done:
            if name not in cells and time.monotonic() < deadline:
                read_cell(name)
        try:
            _write_page(batch, summary, cells)
        except OutputError as error:
            summary.disk_error = summary.disk_error or add_output_hint(error)
        _print_summary(batch, summary, cells)
        return summary.exit_status()


def _expected_identity(identity: Message, document: Mapping[str, Any]) -> Mapping[str, Any]:
    return identity_for_stain(identity, document.get("stain"))


def _write_page(
    batch: Batch, summary: BatchSummary, cells: Mapping[str, Mapping[str, Any]]
) -> None:
    results = batch.results
    write_page(
        results.folder,
        summary.done,
        list(summary.failed.values()),
        printable_path(batch.title),
        earlier=batch.list_earlier(),
        failed_earlier=[results.read_failure(name) for name in batch.list_earlier(FAILED)],
        cells=cells,
        seconds=None if summary.stop_signal is None else PAGE_SECONDS,
    )


def _print_summary(
    batch: Batch, summary: BatchSummary, cells: Mapping[str, Mapping[str, Any]]
) -> None:
    n_chromosomes = n_review = n_flagged = n_unreliable = 0
    for name in summary.done:
        cell = cells.get(name)
        if cell is None:  # removed by someone else, or not read before the deadline
            continue
        n_chromosomes += cell["count"]
        n_review += cell["needs_review"]
        n_flagged += bool(cell["flags"])
        n_unreliable += bool(cell["alarms"])
        image = batch.describe_image(name, cell["part"])
        print(f"{image}: {cell['iscn'] or 'no chromosomes'}")
        for line in (*cell["alarms"], *cell["flags"]):
            print(f"  {line}")
    unreliable = f", {n_unreliable} unreliable" if n_unreliable else ""
    print(
        f"\n{len(summary.done)} metaphases{summary.describe_reused()}, {n_flagged} flagged"
        f"{unreliable}; {n_review} of {n_chromosomes} chromosomes need review\n{DISCLAIMER}\n"
        f"Written: karyograms, overlays and JSON in {printable_path(batch.results.folder)}; see "
        f"{printable_path(batch.results.folder / PAGE)}"
    )
    for line in (*batch.notes, *summary.summary_lines()):
        print(line)
