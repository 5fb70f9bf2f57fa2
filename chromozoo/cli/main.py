"""The command ``chromozoo``: finds the sub-command and runs it.

A sub-command is a module of this folder, or of ``zoo/``, with ``add_arguments(parser)`` and
``run(arguments)``. It is imported only when it is called, so ``chromozoo --help`` answers at once.
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
    "segment": "find the chromosomes in metaphases: masks as COCO JSON",
    "models": "list the models and their weights",
    "data": "list, describe, check, cut out and simulate data",
    "fit": "train a model from a config",
    "validate": "run the validation of a config",
    "test": "run the test of a config",
    "predict": "write the predictions of a config",
    "benchmark": "evaluate weights on a data set",
    "aneuploidy": "evaluate the detection of gained and lost chromosomes",
    "calibrate": "calibrate the prediction sets of a classifier",
    "feature-matching": "classify by label feature vectors, beside softmax",
    "figures": "draw confusion, ROC, calibration, features, Grad-CAM and errors of a classifier",
    "env": "print the versions for a bug report",
    "zoo": "maintain the repository: train, package, measure and publish its weights",
}
TRAINER_COMMANDS = frozenset({"fit", "validate", "test", "predict"})
ZOO_COMMANDS: dict[str, str] = {
    "train": "train and package the configs of the zoo within a time budget",
    "package": "make weights of a trained checkpoint",
    "publish": "add measured rows to the results; entries, cards and tables follow",
    "calibrate": "store the thresholds of prediction sets with packaged weights",
    "ablate": "train with and without one part of a system, and compare",
    "cross-validate": "train a config on each fold, and test every cell once",
    "cards": "generate the model cards anew",
    "tables": "generate the tables of the leaderboards anew",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 is good, 1 good in part, 2 an error; 130, 143 and so on: ended by a signal, as shells say it.
    """
    # A name that a terminal or a log file cannot show costs neither the name nor the run.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in TRAINER_COMMANDS:
        return _reporting_errors(lambda: import_module("chromozoo.training.command").run(words))
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
        # Only the called command is imported; the help line is enough for all others.
        if not words or words[0] != name:
            continue
        if name == "zoo":
            module = _add_zoo_commands(command, words[1:])
        else:
            module = import_module(f"chromozoo.cli.{_module_name(name)}")
            module.add_arguments(command)
    parsed = parser.parse_args(words)
    return _reporting_errors(lambda: module.run(parsed))


def _add_zoo_commands(parser: argparse.ArgumentParser, words: Sequence[str]) -> Any:
    """Add the maintainers' commands; returns the module of the called one."""
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


def _reporting_errors(run: Callable[[], int]) -> int:
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
        # Who reads the output has had enough, as `head` has. What is left goes nowhere.
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        place = error.filename or "the output"
        return _fail(2, f"error: {place}: cannot be written ({error.strerror}); free space")
    return status


def _fail(status: int, words: str) -> int:
    """Says why, after all that was printed."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    print(f"chromozoo: {words}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
