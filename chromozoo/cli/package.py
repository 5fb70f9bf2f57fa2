"""``chromozoo package``: turns a trained checkpoint into published weights.

Everything is chosen on the validation cells: the checkpoint, and the temperature that calibrates
the probabilities of a classifier. Then the file that will be shipped is measured, once, on the test
cells. With ``--output`` the weights are the user's own: a file in that folder, and the repository
stays as it is.
"""

import argparse
from pathlib import Path

from chromozoo.benchmark.packaging import _chosen, _store, entry_of, package
from chromozoo.benchmark.recipe import RUNS, read_recipe
from chromozoo.errors import WeightsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="config of the training, <model>_<tag>.yaml")
    parser.add_argument(
        "--checkpoint", type=Path, help="default: the best of runs/<config's name>/ on validation"
    )
    parser.add_argument(
        "--storage",
        choices=("fp32", "fp16", "int8"),
        help="default: fp16, or int8 where that would be too large a file",
    )
    parser.add_argument("--training", default="", help="machine and time, for the record")
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument(
        "--replace", action="store_true", help="replace weights that are as good on validation"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for a weights file of your own; nothing is published",
    )


def run(arguments: argparse.Namespace) -> int:
    recipe = read_recipe(arguments.config)
    folder = RUNS / recipe.stem
    candidates = [arguments.checkpoint] if arguments.checkpoint else sorted(folder.glob("*.ckpt"))
    if not candidates:
        raise WeightsError(
            f"{folder}: no checkpoint; train first: chromozoo fit --config {arguments.config}"
        )
    if arguments.output is not None:
        choice, data = _chosen(recipe, candidates, arguments.root)
        entry = entry_of(recipe, choice, data.split, arguments.training)
        file, _ = _store(recipe, choice, entry, arguments.output, arguments.storage)
        print(f"{file}: your own weights; load them with --weights {file}")
        return 0
    package(
        recipe,
        candidates,
        storage=arguments.storage,
        training=arguments.training,
        root=arguments.root,
        replace=arguments.replace,
    )
    return 0
