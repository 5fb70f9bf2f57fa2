"""``chromozoo segment``: outlines the chromosomes in metaphases."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo import __version__
from chromozoo.batch.images import COCO_NAME, INTENDED_USE, shown
from chromozoo.batch.results import Results, content_of, with_option
from chromozoo.batch.run import Batch
from chromozoo.batch.signals import watching
from chromozoo.batch.worker import ImageTask, Message, device_of
from chromozoo.cli import options as options_cli
from chromozoo.errors import OutputError
from chromozoo.files import replace_file, write_image
from chromozoo.visualization.page import JSON, OVERLAY

if TYPE_CHECKING:
    from chromozoo.images.reading import ImagePage
    from chromozoo.structures.segmentation import Segmentation

TASK = "chromozoo.cli.segment:SegmentTask"
# Behind the name of an image in those of its results: `karyotype` may write into the same folder.
ENDING = ".segment"
FORMAT = 3
# So many results are read for the file about all, once the run has been told to stop.
MAX_AT_ONCE = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, help="images of metaphases, or folders")
    parser.add_argument("--model", default="chr_fast", help="see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        help="leave out what the model is less sure of, 0 to 1 (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options_cli.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    options_cli.check_arguments(arguments)
    options_cli.check_model(arguments.model, arguments.weights, "segmentation")
    with watching() as watch:
        work = Batch("segment", ENDING, arguments, _expected, [COCO_NAME])
        results = work.results
        settings = options_cli.settings_of(
            arguments, results.folder, "model", "weights", "score", "device"
        )
        outcome = work.run(TASK, settings, watch)
        names = work.earlier()
        if outcome.signal is not None and len(outcome.done) + len(names) > MAX_AT_ONCE:
            # Reading them all would take longer than there is time.
            work.notes.append(f"{COCO_NAME} stays as it was, until the same is called again")
            outcome.done, names = [], []
        documents = {name: results.document(name) for name in outcome.done}
        earlier = [results.document(name) for name in names]
        try:
            # What lies in the folder of other images stays in the file about all of them.
            listed = [item for item in (*documents.values(), *earlier) if "instances" in item]
            if listed or outcome.signal is None:
                _write_json(results.folder / COCO_NAME, coco_document(listed))
        except OutputError as error:
            outcome.full = outcome.full or with_option(error)
        for name, document in documents.items():
            if document:
                part = content_of(document).get("part")
                print(f"{work.shown(name, part)}: {document['count']} chromosomes")
                for warning in document["warnings"]:
                    print(f"  {warning}")
        total = sum(document.get("count", 0) for document in documents.values())
        before = f" ({outcome.before} were done before)" if outcome.before else ""
        folder = shown(results.folder)
        print(
            f"\n{total} chromosomes in {len(documents)} images{before}\n{INTENDED_USE}\n"
            f"Written: overlays and outlines in {folder}, all together in "
            f"{shown(results.folder / COCO_NAME)}"
        )
        if earlier:
            print(f"The last holds {len(earlier)} results of earlier runs on other images, too")
        for line in (*work.notes, *outcome.summary()):
            print(line)
        return outcome.status()


def _expected(about: Message, document: Mapping[str, Any]) -> Mapping[str, Any]:
    return about


def coco_document(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The results of all images as a COCO instance file; masks are run lengths (RLE)."""
    # Those of several models may tell different classes apart.
    names = dict.fromkeys(name for document in documents for name in document["categories"])
    ids = {name: number for number, name in enumerate(names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, document in enumerate(documents, start=1):
        images.append(
            {
                "id": image_id,
                "file_name": document["image"],
                "width": document["width"],
                "height": document["height"],
                # By these chromozoo.data.io.coco finds the image again, and knows it.
                "path": document.get("path"),
                "content": document.get("identity", {}).get("content"),
            }
        )
        for instance in document["instances"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[instance["category"]],
                    **{key: instance[key] for key in ("bbox", "score", "area", "segmentation")},
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": f"ChromoZoo {__version__}. {INTENDED_USE}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }


class SegmentTask(ImageTask):
    """Outlines the chromosomes of the images of a file and writes the results of each."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        from chromozoo.models.registry import get_model

        self.score = float(settings["score"])
        self.given = str(settings["weights"])
        model: Any = get_model(settings["model"], weights=self.given)
        self.model = model.to(device_of(settings))
        self.results = Results(self.folder, "segment", ENDING)

    def about(self) -> Message:
        """Model, options, and the version of the software."""
        from chromozoo.batch.identity import weights_of

        return {
            "models": [weights_of(self.model, self.given)],
            "options": {"score": self.score, **self.reading},
            "software": {"chromozoo": __version__, "format": FORMAT},
        }

    def write(self, image: "Path | ImagePage", name: str, source: Message) -> None:
        """Writes the overlay and, last, JSON."""
        from PIL import Image

        from chromozoo.images.reading import read_grey
        from chromozoo.visualization.overlay import draw_overlay

        grey = read_grey(image, source["shown"])
        found = self.model.segment(grey, source["shown"]).filter_by_score(self.score)
        self.results.remove(name, JSON)
        overlay = Image.fromarray(draw_overlay(grey, found))
        write_image(self.results.path(name, OVERLAY), overlay)
        document = self._document(found, source)
        _write_json(self.results.path(name, JSON), document)

    def _document(self, found: "Segmentation", source: Message) -> dict[str, Any]:
        entry = self.model.weights_entry
        height, width = found.shape
        return {
            "format": FORMAT,
            "chromozoo": __version__,
            "intended_use": INTENDED_USE,
            "image": source["shown"],
            "path": source["path"],
            "identity": {"content": source["content"], **self.about()},
            "width": width,
            "height": height,
            "model": entry.model if entry else type(self.model).__name__,
            "weights": {"file": entry.file, "sha256": entry.sha256} if entry else None,
            "min_score": self.score,
            "categories": list(self.model.categories),
            "count": len(found),
            "warnings": list(found.warnings),
            "instances": found.to_records(self.model.categories),
        }


def _write_json(path: Path, document: dict[str, Any]) -> None:
    replace_file(path, json.dumps(document, indent=1).encode())
