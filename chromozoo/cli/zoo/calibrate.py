"""``chromozoo zoo calibrate``: store the thresholds of prediction sets with packaged weights."""

import argparse

from chromozoo.benchmark.calibration import calibrate, table
from chromozoo.benchmark.provenance import is_packaged
from chromozoo.benchmark.publish import KINDS, publish_rows, require_packaged
from chromozoo.benchmark.repository import require_checkout
from chromozoo.cli.output import write_rows
from chromozoo.errors import ChromozooError
from chromozoo.models.weights.index import write_entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a classifier, see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag of packaged weights")
    parser.add_argument("--stage", default="test", choices=("val", "test"))
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--dry-run", action="store_true", help="measure, and list what would change"
    )


def run(arguments: argparse.Namespace) -> int:
    require_checkout()
    kind = KINDS["calibration"]
    found = calibrate(
        arguments.model,
        arguments.weights,
        None,
        arguments.stage,
        root=arguments.root,
        device=arguments.device,
    )
    entry = found.entry
    if not is_packaged(entry.model, entry.tag, entry.sha256):
        raise ChromozooError(
            f"{arguments.weights}: are not packaged weights; `chromozoo calibrate --output DIR` "
            "writes a copy of your own weights with the thresholds"
        )
    require_packaged(kind, found.rows)
    write_rows(kind, found.rows, None, table)
    print(f"entry {entry.model}_{entry.tag}.json: thresholds")
    if not arguments.dry_run:
        write_entry(entry)
    for change in publish_rows(kind, found.rows, dry_run=arguments.dry_run):
        print(change)
    return 0
