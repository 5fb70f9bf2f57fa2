"""Entry point of the command ``chromozoo``.

Each sub-command is a module of this package, or of ``zoo``, with ``add_arguments(parser)`` and
``run(arguments)``. Only the called sub-command is imported, so that ``chromozoo --help`` is fast.
"""

import argparse
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from chromozoo import __version__
from chromozoo.batch.signals import Stopped
from chromozoo.errors import ChromozooError

COMMANDS: dict[str, str] = {
    "karyotype": "karyotype metaphases: karyogram, overlay and ISCN of each image",
    "classify": "classify images of one chromosome each, alone or as one cell",
    "segment": "segment the chromosomes in metaphases: masks as COCO JSON",
    "models": "list the models and their weights",
    "data": "list, describe, verify, extract, compose and simulate data sets",
    "fit": "train a model from a config",
    "validate": "run the validation of a config",
    "test": "run the test of a config",
    "predict": "write the predictions of a config",
    "benchmark": "evaluate weights on a data set",
    "aneuploidy": "evaluate the detection of gained and lost chromosomes",
    "calibrate": "calibrate the prediction sets of a classifier",
    "feature-matching": "evaluate classification by label feature vectors against softmax",
    "figures": "draw confusion, ROC, calibration, features, Grad-CAM and errors of a classifier",
    "env": "print the versions for a bug report",
    "zoo": "maintain the repository: train, package, measure and publish its weights",
}
TRAINER_COMMANDS = frozenset({"fit", "validate", "test", "predict"})
ZOO_COMMANDS: dict[str, str] = {
    "train": "train and package the configs of the zoo within a time budget",
    "package": "convert a trained checkpoint into a weights file",
    "publish": "add measured rows to the results, and update entries, cards and tables",
    "calibrate": "store the thresholds of prediction sets with packaged weights",
    "ablate": "compare trainings with and without one component of a model",
    "cross-validate": "train a config on each fold and test every cell once",
    "cards": "regenerate the model cards",
    "tables": "regenerate the tables of the leaderboards",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: success; 1: some images or files failed; 2: error; 128 + n: stopped by signal n.
    """
    # A file name that the terminal cannot encode must not end the run.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in TRAINER_COMMANDS:
        return _report_errors(lambda: import_module("chromozoo.training.command").run(words))
    parser = argparse.ArgumentParser(
        prog="chromozoo",
        description="A model zoo for human karyotyping. Research use only, not for diagnosis.",
        epilog="`chromozoo COMMAND --help` explains one command.",
    )
    parser.add_argument("--version", action="version", version=f"chromozoo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    module: Any = None
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=_sentence(text))
        # The other commands need a help line alone.
        if not words or words[0] != name:
            continue
        if name == "zoo":
            module = _add_zoo_commands(command, words[1:])
        else:
            module = import_module(f"chromozoo.cli.{_module_name(name)}")
            module.add_arguments(command)
    parsed = parser.parse_args(words)
    return _report_errors(lambda: module.run(parsed))


def _add_zoo_commands(parser: argparse.ArgumentParser, words: Sequence[str]) -> Any:
    """Add the maintainers' commands and return the module of the called one."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    module = None
    for name, text in ZOO_COMMANDS.items():
        action = actions.add_parser(name, help=text, description=_sentence(text))
        if words and words[0] == name:
            module = import_module(f"chromozoo.cli.zoo.{_module_name(name)}")
            module.add_arguments(action)
    return module


def _module_name(command: str) -> str:
    return command.replace("-", "_")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _report_errors(run: Callable[[], int]) -> int:
    """Call a function and turn its exceptions into messages and exit statuses."""
    try:
        status = run()
        sys.stdout.flush()
    except ChromozooError as error:
        return _fail(2, f"error: {error}")
    except Stopped as stopped:
        return _fail(
            128 + stopped.number,
            f"stopped by {signal.Signals(stopped.number).name}; call the same again to go on",
        )
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    except BrokenPipeError:
        # The reader of the output, such as `head`, has ended; the rest is discarded.
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        path = error.filename or "the output"
        return _fail(2, f"error: {path}: cannot be written ({error.strerror}); free space")
    return status


def _fail(status: int, message: str) -> int:
    """Print an error message after the rest of the output, and return the status."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    print(f"chromozoo: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
