"""``chromozoo segment``: masks of the chromosomes in metaphase images."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chromozoo.batch.coco import COCO_FILE, to_coco
from chromozoo.batch.images import printable_path
from chromozoo.batch.results import SEGMENT_ENDING, add_output_hint, image_content, write_json
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

TASK = "chromozoo.batch.segment_task:SegmentTask"
# After a stop signal there is no time to read more results than this for the COCO file.
MAX_RESULTS_AFTER_STOP = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, help="metaphase images, or folders of them")
    parser.add_argument(
        "--model", default="chr_fast", help="see `chromozoo models` (default: %(default)s)"
    )
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        help="minimum score of a detected chromosome, 0 to 1 (default: %(default)s)",
    )
    add_device_option(parser)
    add_image_options(parser)


def run(arguments: argparse.Namespace) -> int:
    check_image_options(arguments)
    check_model(arguments.model, arguments.weights, "segmentation")
    with watch_signals() as watch:
        batch = Batch("segment", SEGMENT_ENDING, arguments, _expected_identity, [COCO_FILE])
        folder = batch.results.folder
        settings = task_settings(arguments, folder, "model", "weights", "score", "device")
        summary = batch.run(TASK, settings, watch)
        earlier_names = batch.list_earlier()
        n_results = len(summary.done) + len(earlier_names)
        if summary.stop_signal is not None and n_results > MAX_RESULTS_AFTER_STOP:
            batch.notes.append(f"{COCO_FILE} stays as it was, until the same is called again")
            summary.done, earlier_names = [], []
        documents = {name: batch.results.read_document(name) for name in summary.done}
        earlier = [batch.results.read_document(name) for name in earlier_names]
        # The COCO file holds the results of earlier runs on other images, too.
        segmented = [item for item in (*documents.values(), *earlier) if "instances" in item]
        try:
            if segmented or summary.stop_signal is None:
                write_json(folder / COCO_FILE, to_coco(segmented))
        except OutputError as error:
            summary.disk_error = summary.disk_error or add_output_hint(error)
        _print_summary(batch, summary, documents, len(earlier))
        return summary.exit_status()


def _expected_identity(identity: Message, document: Mapping[str, Any]) -> Mapping[str, Any]:
    return identity


def _print_summary(
    batch: Batch,
    summary: BatchSummary,
    documents: Mapping[str, Mapping[str, Any]],
    n_earlier: int,
) -> None:
    for name, document in documents.items():
        if document:
            image = batch.describe_image(name, image_content(document).get("part"))
            print(f"{image}: {document['count']} chromosomes")
            for warning in document["warnings"]:
                print(f"  {warning}")
    n_chromosomes = sum(document.get("count", 0) for document in documents.values())
    folder = batch.results.folder
    print(
        f"\n{n_chromosomes} chromosomes in {len(documents)} images{summary.describe_reused()}\n"
        f"{DISCLAIMER}\nWritten: overlays and masks in {printable_path(folder)}, all masks in "
        f"{printable_path(folder / COCO_FILE)}"
    )
    if n_earlier:
        print(f"{COCO_FILE} also holds {n_earlier} results of earlier runs on other images")
    for line in (*batch.notes, *summary.summary_lines()):
        print(line)
