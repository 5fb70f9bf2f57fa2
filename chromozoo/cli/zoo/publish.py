"""``chromozoo zoo publish``: add measured rows to the repository's results.

Entries, cards and tables follow. Rows that were not measured on packaged weights are refused.
"""

import argparse
from pathlib import Path

from chromozoo.benchmark.publish import kind_of_file, publish_rows, require_packaged
from chromozoo.benchmark.repository import require_checkout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="CSV file that `--output` of `benchmark`, `aneuploidy`, `calibrate` or "
        "`feature-matching` wrote",
    )
    parser.add_argument("--dry-run", action="store_true", help="only list what would change")


def run(arguments: argparse.Namespace) -> int:
    require_checkout()
    measured = [kind_of_file(path) for path in arguments.files]
    for kind, rows in measured:  # all are checked before anything changes
        require_packaged(kind, rows)
    for kind, rows in measured:
        for change in publish_rows(kind, rows, dry_run=arguments.dry_run):
            print(change)
    return 0
