"""Options of the commands that process images, and their checks."""

import argparse
import math
from pathlib import Path
from typing import Any

from chromozoo.errors import ChromozooError

# Time limit of one image in seconds. Large images take less than a minute on slow machines.
TIMEOUT = 600.0


def add_image_options(parser: argparse.ArgumentParser, *, results_per_image: bool = True) -> None:
    """Add the options that the commands share.

    Args:
        parser: Parser of the command.
        results_per_image: Whether each image has separate results, so that several processes can
            share the work and results can be reused.
    """
    parser.add_argument(
        "--page", type=int, metavar="N", help="read this page of multi-page files, from 1"
    )
    parser.add_argument(
        "--channel", type=int, metavar="N", help="read this channel of multi-channel files, from 1"
    )
    parser.add_argument(
        "--projection",
        choices=("max", "min"),
        help="project a stack of planes: brightest (max) or darkest (min) value of each pixel",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help="time limit for each image; 0: no limit (default: %(default)g)",
    )
    if results_per_image:
        parser.add_argument(
            "--processes",
            type=int,
            default=1,
            metavar="N",
            help="number of worker processes, or of GPUs (default: %(default)s)",
        )
        parser.add_argument(
            "--again", action="store_true", help="process images again that are done already"
        )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: chromozoo-results/<name of the first path>)",
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--device``."""
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu or cuda; auto uses a GPU if there is one (default: %(default)s)",
    )


def check_image_options(arguments: argparse.Namespace) -> None:
    """Check the values of the shared options.

    Raises:
        ChromozooError: A value is out of range.
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
    """Check the name, task and weights of a model before any heavy import.

    Raises:
        UnknownNameError: The model or its weights are unknown, or the model is for another task.
        WeightsError: The model has no weights.
    """
    from chromozoo.errors import UnknownNameError
    from chromozoo.models.registry import get_weight, is_path, list_models, model_info

    if model_info(name).task != task:
        role = {"segmentation": "segmenter", "classification": "classifier"}[task]
        raise UnknownNameError(
            f"{name} is not a {role}; use one of {', '.join(list_models(task=task))}"
        )
    if not is_path(weights):
        get_weight(name, weights)


def task_settings(arguments: argparse.Namespace, folder: Path, *names: str) -> dict[str, Any]:
    """Return the settings of a task for the worker processes.

    Args:
        arguments: Parsed arguments.
        folder: Folder of the results.
        *names: Names of the arguments that become settings.
    """
    from chromozoo.models.registry import registered_elsewhere

    return {
        **{name: getattr(arguments, name) for name in names},
        "reading": {name: getattr(arguments, name) for name in ("page", "channel", "projection")},
        "folder": str(folder),
        "modules": registered_elsewhere(),
    }
