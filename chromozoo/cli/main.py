"""The command ``chromozoo``: finds the sub-command and runs it.

A sub-command is a module of this folder with ``add_arguments(parser)`` and ``run(arguments)``; it
is imported only when it is called, so ``chromozoo --help`` answers at once.
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

from chromozoo import __version__
from chromozoo.batch.signals import Stopped
from chromozoo.errors import ChromozooError

COMMANDS: dict[str, str] = {
    "karyotype": "from images of metaphases to karyograms",
    "classify": "name the chromosomes in images, one by one or all of a cell together",
    "segment": "outline the chromosomes in metaphases",
    "models": "list the models and their weights",
    "data": "list, describe and check the data sets",
    "synthesize": "draw simulated chromosomes of known class",
    "fit": "train a model from a config",
    "validate": "run a config's validation",
    "test": "run a config's test",
    "predict": "write a config's predictions",
    "benchmark": "measure weights on a data set and add the row to the leaderboard",
    "match": "name chromosomes by label feature vectors, and compare with softmax and assignment",
    "abnormal": "measure how well gained and lost chromosomes are found and named",
    "doubt": "find and measure the sets of classes that hold the right one",
    "figures": "draw confusion, ROC, calibration, features, Grad-CAM and errors of a classifier",
    "package": "turn a trained checkpoint into published weights",
    "ablate": "train with and without a part of a system, and compare",
    "cross-validate": "train on each fold of a data set, and measure every cell once",
    "train-zoo": "train and package the whole zoo within a time budget",
    "env": "print the versions that matter in a bug report",
}
TRAINER_COMMANDS = frozenset({"fit", "validate", "test", "predict"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    0 is good, 1 good in part, 2 an error; 130, 143 and so on: ended by a signal, as shells say it.
    """
    # A name that a terminal or a log file cannot show costs neither the name nor the run.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in TRAINER_COMMANDS:
        return _reporting_errors(lambda: import_module("chromozoo.cli.train").run(words))
    parser = argparse.ArgumentParser(
        prog="chromozoo",
        description="A model zoo for human karyotyping. Research use only, not for diagnosis.",
        epilog="`chromozoo COMMAND --help` explains one command.",
    )
    parser.add_argument("--version", action="version", version=f"chromozoo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        # Only the called one is imported, for all others the help line is enough.
        if words and words[0] == name:
            module = import_module(f"chromozoo.cli.{name.replace('-', '_')}")
            module.add_arguments(command)
    parsed = parser.parse_args(words)
    return _reporting_errors(lambda: module.run(parsed))


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
