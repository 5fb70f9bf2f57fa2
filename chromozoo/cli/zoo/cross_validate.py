"""``chromozoo zoo cross-validate``: train a config on each fold, and test every cell once.

The command can be stopped and called again; folds may be called one by one
(:mod:`chromozoo.benchmark.cross_validation`).
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chromozoo.benchmark.cross_validation import (
    all_folds,
    fold_folder,
    measure_fold,
    read_changes,
)
from chromozoo.benchmark.publish import KINDS, add_rows, update_tables
from chromozoo.benchmark.repository import (
    LEADERBOARD,
    require_checkout,
    require_config_of_repository,
)
from chromozoo.data.splits import FOLDS
from chromozoo.training.recipe import read_recipe

SHOWN = ("accuracy", "assigned_accuracy", "cells_without_error", "ece")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="config of a classifier, <model>_<tag>.yaml")
    parser.add_argument(
        "--folds", type=int, nargs="+", default=list(range(FOLDS)), choices=range(FOLDS)
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="changes to the config, such as trainer.max_epochs=12; {fold} in a value is the "
        "number of the fold",
    )
    parser.add_argument("--training", default="", help="machine and time, for the record")
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="CSV file in place of the repository's"
    )
    parser.add_argument("--dry-run", action="store_true", help="only list what would change")


def run(arguments: argparse.Namespace) -> int:
    recipe = read_recipe(arguments.config)
    changes = read_changes(arguments.changes)
    kind = KINDS["classification"]
    path: Path = arguments.output or kind.path
    publishes = path.resolve() == kind.path.resolve()
    if publishes:
        require_checkout()
        require_config_of_repository(recipe.path, "--output FILE.csv keeps the rows")
    print(f"{path}: rows of {len(arguments.folds)} folds of {recipe.stem}")
    if publishes:
        print(f"{LEADERBOARD}: tables {', '.join(kind.tables)}")
    if arguments.dry_run:
        return 0
    for fold in arguments.folds:
        row = measure_fold(recipe, fold, changes, arguments.root, arguments.training)
        add_rows(kind, path, [row])
        _show(row)
    missing = [k for k in range(FOLDS) if not (fold_folder(recipe, k) / "row.json").exists()]
    if missing:
        print(f"folds {', '.join(map(str, missing))} are not measured yet")
        return 0
    row = all_folds(recipe)
    add_rows(kind, path, [row])
    _show(row)
    if publishes:
        update_tables([kind])
    return 0


def _show(row: Mapping[str, Any]) -> None:
    figures = ", ".join(
        f"{name} {100 * row[name]:.2f} [{row[f'{name}_low']}, {row[f'{name}_high']}]"
        for name in SHOWN
        if row.get(name) is not None
    )
    print(f"{row['model']}, {row['split']}, {row['n_cells']} cells: {figures}", flush=True)
