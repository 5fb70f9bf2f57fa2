"""Markdown tables of result rows, and the markers that enclose them in a file."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chromozoo.benchmark.results_file import ResultsError, ResultsFile, Row, as_text
from chromozoo.files import replace_file

SOURCES = ("measured", "paper")


WHOLE_NUMBERS = ("n_chromosomes", "n_cells", "n_images", "parameters", "max_detections")


CITATION = "citation"  # only in published.csv: where the figure stands


NOT_KNOWN = "–"


@dataclass(frozen=True)
class ResultTable:
    """Columns of the result file of one task.

    Attributes:
        columns: All columns of a row, in the order of the file.
        key: Columns that identify a measurement; a second one replaces the first.
        optional: Columns that may be empty.
        fractions: Columns that hold values of 0..1.
    """

    columns: tuple[str, ...]
    key: tuple[str, ...]
    optional: Collection[str]
    fractions: Collection[str]

    def append(self, csv_path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
        """Add one measurement to a result file; a row of the same key is replaced.

        Args:
            csv_path: Created if it does not exist.
            row: Values by column; optional ones may be missing, None or NaN.

        Raises:
            ResultsError: Unknown or missing columns, values out of range (all of them are named),
                or a file on disk with other columns.
        """
        # Published figures have a citation, a column that this would drop: they are refused.
        file = ResultsFile(Path(csv_path), self.columns, self.key, "benchmark")
        file.add([checked_row(row, file, self.optional, self.fractions)])

    def read(self, csv_path: str | os.PathLike[str]) -> list[Row]:
        """Read the rows of a result file, or of published figures, as text.

        Raises:
            ResultsError: Unknown or repeated columns, or a row of another length.
        """
        columns = (*self.columns, CITATION)
        return ResultsFile(Path(csv_path), columns, self.key, "benchmark").read()


def checked_row(
    row: Mapping[str, Any],
    file: ResultsFile,
    optional: Collection[str],
    fractions: Collection[str],
) -> Row:
    """Check a row, and return it as text in the order of the columns.

    Args:
        row: Values by column.
        file: Where it belongs.
        optional: Columns that may be empty.
        fractions: Columns that hold values of 0..1.

    Raises:
        ResultsError: Names everything that is wrong with the row.
    """
    text = {name: as_text(value) for name, value in row.items()}
    values = {name: text.get(name, "") for name in file.columns}

    problems = []
    if unknown := sorted(set(row) - set(file.columns)):
        problems.append(f"unknown columns {', '.join(unknown)}")
    required = [name for name in file.columns if name not in optional]
    if missing := [name for name in required if not values[name]]:
        problems.append(f"no value for {', '.join(missing)}")
    for name, value in values.items():
        if value and (expected := _what_is_expected(name, value, name in fractions)):
            problems.append(f"{name} is {value!r} and must be {expected}")
    if problems:
        raise ResultsError(f"{file.path}: the row is refused: {'; '.join(problems)}.")
    return values


def rows_of_split(
    rows: Iterable[Mapping[str, str]], split: str
) -> tuple[list[Mapping[str, str]], list[Mapping[str, str]]]:
    """Return the rows measured on a split, and those published for the same data sets.

    Raises:
        ResultsError: Nothing was measured on ``split``, or the rows were measured on different
            versions of the split file.
    """
    rows = list(rows)
    measured = [row for row in rows if row["source"] == "measured" and row["split"] == split]
    if not measured:
        known = sorted({row["split"] for row in rows if row["source"] == "measured"})
        raise ResultsError(
            f"No result for split {split!r}; there are results for: {', '.join(known) or 'none'}. "
            "`chromozoo benchmark` measures."
        )
    versions = sorted({row["split_sha256"] for row in measured})
    if len(versions) > 1:
        raise ResultsError(
            f"The results for split {split!r} belong to different split files "
            f"({', '.join(versions)}) and cannot be ranked together: run `chromozoo benchmark` "
            "again for the old ones and remove their rows."
        )
    datasets = {row["dataset"] for row in measured}
    return measured, [
        row for row in rows if row["source"] == "paper" and row["dataset"] in datasets
    ]


def ranked_lines(
    rows: Iterable[Mapping[str, str]], cells: Callable[[Mapping[str, str]], Sequence[str]]
) -> list[str]:
    """Return the lines of a Markdown table: rank, cells and source of each row.

    Published rows are in italics and have no rank.

    Args:
        rows: Best first.
        cells: Returns the texts of a row; empty ones are shown as unknown.
    """
    lines = []
    rank = 0
    for row in rows:
        is_measured = row["source"] == "measured"
        rank += is_measured
        texts = [*cells(row), "measured" if is_measured else row[CITATION]]
        shown = [text.replace("|", "\\|") for text in texts]
        if not is_measured:
            shown = [f"*{text}*" if text else "" for text in shown]
        first = str(rank) if is_measured else NOT_KNOWN
        lines.append("| " + " | ".join([first, *(text or NOT_KNOWN for text in shown)]) + " |")
    return lines


def replace_table(readme_path: str | os.PathLike[str], marker_name: str, table: str) -> None:
    """Replace the text between the markers of a table.

    The markers are ``<!-- leaderboard:NAME:begin -->`` and ``<!-- leaderboard:NAME:end -->``.

    Raises:
        ResultsError: the file or its pair of markers is missing, or a marker stands there twice.
    """
    path = Path(readme_path)
    before, _, after = _split_readme(path, marker_name)
    replace_file(path, f"{before}\n{table.strip()}\n{after}".encode())


def table_is_current(readme_path: str | os.PathLike[str], marker_name: str, table: str) -> bool:
    """Whether a file shows exactly ``table`` between the markers of that name.

    Raises:
        ResultsError: as :func:`replace_table`.
    """
    _, shown, _ = _split_readme(Path(readme_path), marker_name)
    return shown.strip() == table.strip()


def _what_is_expected(name: str, value: str, fraction: bool) -> str | None:
    """Return None if a value fits its column, else what would fit."""
    if fraction and not _is_fraction(value):
        return "a fraction, 0..1 (not percent)"
    if name in WHOLE_NUMBERS and not value.isdecimal():
        return "a whole number"
    if name.endswith("_sha256") and not re.fullmatch("[0-9a-f]{12}", value):
        return "the first 12 hex digits of a sha256"
    if name == "source" and value not in SOURCES:
        return f"one of {', '.join(SOURCES)}"
    if "\n" in value or "\r" in value:
        return "one line"
    return None


def _is_fraction(value: str) -> bool:
    try:
        return 0 <= float(value) <= 1
    except ValueError:
        return False


def percent(row: Mapping[str, str], metric: str) -> str:
    """Return per cent with interval: '97.52 [96.1, 98.6]', '97.52', or '' if unknown."""
    if not row[metric]:
        return ""
    figure = f"{float(row[metric]):.2%}"[:-1]
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    if low and high:
        return f"{figure} [{float(low) * 100:.1f}, {float(high) * 100:.1f}]"
    return figure


def percent_value(row: Mapping[str, str], metric: str) -> str:
    """Return per cent without interval: '97.52', or '' if unknown."""
    return f"{100 * float(row[metric]):.2f}" if row[metric] else ""


def _split_readme(path: Path, marker_name: str) -> tuple[str, str, str]:
    """Return the text up to the begin marker, the text between the markers, and the rest."""
    if not path.is_file():
        raise ResultsError(f"{path}: no such file; restore it from git")
    text = path.read_text(encoding="utf-8")
    begin, end = (f"<!-- leaderboard:{marker_name}:{side} -->" for side in ("begin", "end"))
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ResultsError(
            f"{path}: write the lines {begin} and {end} once each, in this order, where the table "
            "belongs."
        )
    before, _, rest = text.partition(begin)
    shown, _, after = rest.partition(end)
    return before + begin, shown, end + after
