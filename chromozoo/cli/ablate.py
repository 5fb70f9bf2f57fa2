"""``chromozoo ablate``: what one part of a system brings, by training with and without it.

An ablation is a file in ``configs/ablations``: a base config, a number of epochs, seeds, and the
changes that each variant makes to the base. Every variant is trained with the same budget and
measured on the validation cells or images; those of the test are never touched. It can be stopped
and called again.

- ``also: [cil54816-crops]``, names of data sets, measures every variant on the validation part of
  these too, prepared as the model's own images are: what is left on images of another
  laboratory.
- A variant that says ``weights_of: NAME`` is not trained: the weights of the variant NAME are
  measured with other attributes of the model, ``judge: {flip_average: false}``.
"""

import argparse
from pathlib import Path

from chromozoo.benchmark.ablation import (
    ABLATIONS,
    METRICS,
    RESULTS,
    _measure,
    read_ablation,
    read_rows,
    results_file,
    table,
    update_tables,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(path.stem for path in sorted(ABLATIONS.glob("*.yaml")))
    parser.add_argument("names", nargs="+", metavar="ABLATION", help=known)
    parser.add_argument("--epochs", type=int, help="of each variant; default: the file's")
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV of the rows")


def run(arguments: argparse.Namespace) -> int:
    for ablation in [read_ablation(name) for name in arguments.names]:
        epochs = arguments.epochs or ablation.epochs
        for seed in ablation.seeds:
            for variant in (*ablation.variants, *ablation.judged):
                for row in _measure(ablation, variant, seed, epochs, arguments.root):
                    results_file(arguments.results).add([row])
                    figures = ", ".join(
                        f"{METRICS[name]} {100 * row[name]:.2f}" for name in METRICS if name in row
                    )
                    where = f"{ablation.name}, {variant}, seed {seed}, {row['split']}"
                    print(f"{where}: {figures}", flush=True)
        print(table(read_rows(arguments.results), ablation.name))
    if arguments.results.resolve() == RESULTS.resolve():
        update_tables()
    return 0
