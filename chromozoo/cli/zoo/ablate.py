"""``chromozoo zoo ablate``: train with and without one part of a system, and compare.

What an ablation is: :mod:`chromozoo.benchmark.ablation`. The command can be stopped and called
again.
"""

import argparse
from pathlib import Path

from chromozoo.benchmark.ablation import (
    ABLATIONS,
    METRICS,
    measure_variant,
    read_ablation,
    read_rows,
    results_file,
    table,
)
from chromozoo.benchmark.publish import KINDS, update_tables
from chromozoo.benchmark.repository import LEADERBOARD, require_checkout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(path.stem for path in sorted(ABLATIONS.glob("*.yaml")))
    parser.add_argument("names", nargs="+", metavar="ABLATION", help=known)
    parser.add_argument("--epochs", type=int, help="epochs of each variant; default: the file's")
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="CSV file in place of the repository's"
    )
    parser.add_argument("--dry-run", action="store_true", help="only list what would change")


def run(arguments: argparse.Namespace) -> int:
    require_checkout()
    own = KINDS["ablations"].path
    path: Path = arguments.output or own
    for ablation in [read_ablation(name) for name in arguments.names]:
        epochs = arguments.epochs or ablation.epochs
        variants = (*ablation.variants, *ablation.reused)
        print(f"{path}: rows of {ablation.name}: {', '.join(variants)}; {epochs} epochs each")
        if arguments.dry_run:
            continue
        for seed in ablation.seeds:
            for variant in variants:
                for row in measure_variant(ablation, variant, seed, epochs, arguments.root):
                    results_file(path).add([row])
                    figures = ", ".join(
                        f"{METRICS[name]} {100 * row[name]:.2f}" for name in METRICS if name in row
                    )
                    where = f"{ablation.name}, {variant}, seed {seed}, {row['split']}"
                    print(f"{where}: {figures}", flush=True)
        print(table(read_rows(path), ablation.name))
    if path.resolve() == own.resolve():
        print(f"{LEADERBOARD}: table ablations")
        if not arguments.dry_run:
            update_tables([KINDS["ablations"]])
    return 0
