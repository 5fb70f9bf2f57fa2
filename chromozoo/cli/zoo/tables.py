"""``chromozoo zoo tables``: generate the tables of the leaderboards anew from the CSV files."""

import argparse

from chromozoo.benchmark.publish import KINDS, update_tables
from chromozoo.benchmark.repository import LEADERBOARD, require_checkout
from chromozoo.benchmark.tables.markdown import table_is_current


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only list what would change")


def run(arguments: argparse.Namespace) -> int:
    require_checkout()
    for kind in KINDS.values():
        for name, table in kind.tables.items():
            if not table_is_current(LEADERBOARD, name, table()):
                print(f"{LEADERBOARD}: {name}")
    if not arguments.dry_run:
        update_tables()
    return 0
