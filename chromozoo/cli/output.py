"""The option ``--output`` of the commands that measure: a CSV file of result rows."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chromozoo.benchmark.publish import ResultKind, add_rows
from chromozoo.benchmark.results_file import as_text
from chromozoo.errors import ChromozooError


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``--output FILE``."""
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="CSV file that the rows are added to; `chromozoo zoo publish FILE` publishes rows of "
        "packaged weights",
    )


def check_output(path: Path | None) -> None:
    """Check the folder of a file before anything is measured.

    Raises:
        ChromozooError: The folder does not exist, or the path is a folder.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ChromozooError(
            f"{path}: is no file in an existing folder; name another with --output"
        )


def write_rows(
    kind: ResultKind,
    rows: Sequence[Mapping[str, Any]],
    path: Path | None,
    table: Callable[[Sequence[dict[str, str]]], str] | None = None,
) -> None:
    """Print rows as a table, if there is one, and add them to a file, if one was asked for."""
    if table is not None:
        print(table([{name: as_text(row.get(name)) for name in kind.columns} for row in rows]))
    if path is not None:
        add_rows(kind, path, rows)
        print(f"{path}: {len(rows)} rows added")
