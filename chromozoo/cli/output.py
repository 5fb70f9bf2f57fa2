"""Option ``--output`` of the measuring commands: a CSV file of result rows."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chromozoo.benchmark.publish import ResultKind, add_rows
from chromozoo.benchmark.results_file import as_text
from chromozoo.errors import ChromozooError


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--output FILE``."""
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="CSV file that the rows are added to; `chromozoo zoo publish FILE` publishes rows of "
        "packaged weights",
    )


def check_output(path: Path | None) -> None:
    """Check the path of the CSV file before the measurement.

    Raises:
        ChromozooError: The folder does not exist, or the path is a folder.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ChromozooError(
            f"{path}: is not a file in an existing folder; name another with --output"
        )


def write_rows(
    kind: ResultKind,
    rows: Sequence[Mapping[str, Any]],
    path: Path | None,
    table: Callable[[Sequence[dict[str, str]]], str] | None = None,
) -> None:
    """Print rows as a table and add them to a CSV file.

    Args:
        kind: Kind of the rows.
        rows: Result rows.
        path: CSV file, or None for no file.
        table: Renders the rows as a table, or None for no table.
    """
    if table is not None:
        print(table([{name: as_text(row.get(name)) for name in kind.columns} for row in rows]))
    if path is not None:
        add_rows(kind, path, rows)
        print(f"{path}: {len(rows)} rows added")
