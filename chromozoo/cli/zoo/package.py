"""``chromozoo zoo package``: make weights of a trained checkpoint.

Everything is chosen on the validation cells: the checkpoint, and the temperature that calibrates
the probabilities of a classifier. Then the stored file is measured, once, on the test cells. With
``--output`` the weights are the user's own: a file in that folder, and the repository stays as it
is.
"""

import argparse
from pathlib import Path

from chromozoo.benchmark.packaging import choose, entry_of, package, store
from chromozoo.benchmark.publish import kind_of_task
from chromozoo.benchmark.repository import LEADERBOARD, WEIGHTS, require_checkout
from chromozoo.errors import WeightsError
from chromozoo.training.recipe import RUNS, read_recipe


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
    parser.add_argument("--dry-run", action="store_true", help="only list what would change")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for a weights file of your own; the repository stays as it is",
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
        choice, data = choose(recipe, candidates, arguments.root)
        entry = entry_of(recipe, choice, data.split, arguments.training)
        file, _ = store(recipe, choice, entry, arguments.output, arguments.storage)
        print(f"{file}: your own weights; load them with --weights {file}")
        return 0
    require_checkout()
    if arguments.dry_run:
        name = f"{recipe.model}_{recipe.tag}"
        kind = kind_of_task(recipe.dataset.task)
        print(
            f"{WEIGHTS / name}-HASH.safetensors: new weights of {', '.join(map(str, candidates))}"
        )
        print(f"entry {name}.json, card {recipe.model}.md")
        print(f"{kind.path}: rows of validation and test")
        print(f"{LEADERBOARD}: tables {', '.join(kind.tables)}")
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
