"""``chromozoo zoo train``: train the configs in turn within a time budget, and package them.

It can be stopped at any time and called again, see :mod:`chromozoo.benchmark.zoo_training`.
"""

import argparse
import math
import time

from chromozoo.benchmark.packaging import package
from chromozoo.benchmark.repository import require_checkout
from chromozoo.benchmark.zoo_training import SECONDS_TO_STOP, TrainingRecord, find_recipes, fit
from chromozoo.errors import ChromozooError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget", type=float, required=True, metavar="MINUTES", help="time for all together"
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="NAME", help="configs or models, * allowed"
    )
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be done")


def run(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.budget < math.inf:
        raise ChromozooError(f"--budget {arguments.budget}: give minutes, more than 0")
    require_checkout()
    recipes = find_recipes(arguments.only)
    end = time.monotonic() + 60 * arguments.budget
    for recipe in recipes:
        record = TrainingRecord(recipe)
        if record.packaged:
            print(f"{recipe.stem}: done")
            continue
        print(f"{recipe.stem}: {record.state}", flush=True)
        if arguments.dry_run:
            continue
        left = end - time.monotonic()
        if left < SECONDS_TO_STOP:
            print("budget spent; call the same command again to go on")
            return 1
        if not record.trained and not fit(recipe, record, left, arguments.root):
            print(f"{recipe.stem}: budget spent; call the same command again to go on")
            return 1
        entry = package(
            recipe,
            sorted(record.folder.glob("*.ckpt")),
            training=record.described,
            root=arguments.root,
        )
        record.update(packaged=entry.file)
    return 0
