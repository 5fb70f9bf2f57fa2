"""TODO docstring."""

import argparse
import math
from pathlib import Path
from typing import Any

from chromozoo.errors import ChromozooError

# Seconds after which an image is given up. Large ones take less than one minute on slow machines.
TIMEOUT = 600.0


def add_arguments(parser: argparse.ArgumentParser, *, many: bool = True) -> None:
    """Adds what the commands over images have in common.

    Args:
        parser: Of the command.
        many: Whether each image has results of its own, and several processes can share the work.
    """
    parser.add_argument(
        "--page", type=int, metavar="N", help="of files with several: this page alone, from 1"
    )
    parser.add_argument(
        "--channel", type=int, metavar="N", help="of files with several: this channel, from 1"
    )
    parser.add_argument(
        "--projection",
        choices=("max", "min"),
        help="of a stack of planes: the brightest (max) or the darkest (min) of each pixel",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help="give an image up that takes longer; 0: never (default: %(default)g)",
    )
    if many:
        parser.add_argument(
            "--processes", type=int, default=1, help="processes, or GPUs (default: %(default)s)"
        )
        parser.add_argument(
            "--again", action="store_true", help="also do images again that are done already"
        )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the results (default: chromozoo-results/<name of the first path>)",
    )


def check_arguments(arguments: argparse.Namespace) -> None:
    """Checks what :func:`add_arguments` added.

    Raises:
        ChromozooError: A value is out of its range.
    """
    for name in ("processes", "nodes", "page", "channel"):
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            raise ChromozooError(f"--{name} {value}: give 1 or more")
    if not 0 <= arguments.timeout < math.inf:
        raise ChromozooError(f"--timeout {arguments.timeout}: give seconds, or 0 for no limit")
    score = getattr(arguments, "score", None)
    if score is not None and not 0 <= score <= 1:
        raise ChromozooError(f"--score {score}: give a number from 0 to 1")


def check_model(name: str, weights: str, task: str) -> None:
    """Checks the name of a model and its weights, before anything heavy is loaded.

    Raises:
        UnknownNameError: One of them is not known, or the model is of another task.
        WeightsError: The model has no weights.
    """
    from chromozoo.errors import UnknownNameError
    from chromozoo.models.registry import get_weight, is_path, list_models, model_info

    if model_info(name).task != task:
        does = {"segmentation": "finds no chromosomes in metaphases"}
        raise UnknownNameError(
            f"{name} {does.get(task, 'names no chromosomes')}; use one of "
            f"{', '.join(list_models(task=task))}"
        )
    if not is_path(weights):
        get_weight(name, weights)


def settings_of(arguments: argparse.Namespace, folder: Path, *names: str) -> dict[str, Any]:
    """What the processes must know: the arguments of these names, and how images are read."""
    from chromozoo.models.registry import registered_elsewhere

    return {
        **{name: getattr(arguments, name) for name in names},
        "reading": {name: getattr(arguments, name) for name in ("page", "channel", "projection")},
        "folder": str(folder),
        "modules": registered_elsewhere(),
    }
