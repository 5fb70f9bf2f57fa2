"""Result files and the tables that the README shows of them.

``benchmarks/results/classification.csv`` holds what ``chromozoo benchmark`` measured, one row for
each (model, weights, data set, split, test-time averaging), and nothing else writes it.
``benchmarks/results/published.csv`` holds, typed in by hand, what others published about their
own systems. A table in the README is generated from both, never edited.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chromozoo.benchmark.results_file import (
    ResultsError,
    ResultsFile,
    Row,
    as_text,
    interval_columns,
)
from chromozoo.files import replace_file
from chromozoo.metrics.classification import METRICS

METRIC_COLUMNS = interval_columns(METRICS)
INTERVAL_COLUMNS = tuple(column for column in METRIC_COLUMNS if column not in METRICS)
RESULT_COLUMNS = (
    "task",
    "model",
    "weights",  # the tag, e.g. bioimlab
    "weights_sha256",  # first 12 hex digits
    "dataset",  # e.g. bioimlab
    "split",  # e.g. bioimlab_v1/test, bioimlab_v1/fold0, bioimlab_v1/folds for all of them
    "split_sha256",  # first 12 hex digits of the split file
    "n_chromosomes",
    "n_cells",
    *METRIC_COLUMNS,  # fractions, 0..1
    "tta",  # test-time averaging in a word, 'none' without
    "input_size",  # height x width in pixels, e.g. 128x64
    "parameters",
    "ms_per_image",
    "device",
    "seed",
    "config",
    "precision",
    "training",  # in words, e.g. 'cpu 2 cores, 40 min'
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "chromozoo",
    "commit",
    "date",
    "source",  # measured | paper
    "note",
)
# A data set without cells has no assignment, one cell has no interval, few models and sets know of
# polarity, and weights given by path have no config. Everything else is needed to know what a row
# means and to measure it again.
OPTIONAL_COLUMNS = frozenset(
    {
        *INTERVAL_COLUMNS,
        *(metric for metric in METRICS if metric.startswith("assigned_")),
        "polarity_accuracy",
        *("ms_per_image", "seed", "config", "training", "torchvision", "timm", "lightning"),
        *("commit", "note"),
    }
)
# Ends what is said of the averaging of models that see all chromosomes of a cell together.
WHOLE_CELLS = "whole cells"
# A second measurement of the same thing replaces the first.
KEY_COLUMNS = ("model", "weights_sha256", "dataset", "split_sha256", "split", "tta")
SOURCES = ("measured", "paper")
WHOLE_NUMBERS = ("n_chromosomes", "n_cells", "n_images", "parameters", "max_detections")
CITATION = "citation"  # only in published.csv: where the figure stands

NOT_KNOWN = "–"


@dataclass(frozen=True)
class ResultTable:
    """What the rows of one task's result file are.

    Attributes:
        columns: All that a row has, in the order of the file.
        key: Columns that say what was measured; a second measurement replaces the first.
        optional: Columns that may be empty.
        fractions: Columns that hold values of 0..1.
    """

    columns: tuple[str, ...]
    key: tuple[str, ...]
    optional: Collection[str]
    fractions: Collection[str]

    def append(self, csv_path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
        """Adds one measurement to a result file; one of the same key is replaced in its place.

        Args:
            csv_path: Created where there is none.
            row: Values by column; optional ones may be missing, None or NaN.

        Raises:
            ResultsError: Unknown or missing columns, values out of range (all of them are named),
                or a file on disk that is no such result file.
        """
        # The published figures have a citation, which this would lose: they are refused.
        file = ResultsFile(Path(csv_path), self.columns, self.key, "benchmark")
        file.add([checked_row(row, file, self.optional, self.fractions)])

    def read(self, csv_path: str | os.PathLike[str]) -> list[Row]:
        """Rows of a result file, or of published figures, as text; none where there is no file.

        Raises:
            ResultsError: Unknown or doubled columns, or a row that is too long or short.
        """
        columns = (*self.columns, CITATION)
        return ResultsFile(Path(csv_path), columns, self.key, "benchmark").read()


def append_row(csv_path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Adds one measurement to a result file, which is created where there is none.

    A row with the same :data:`KEY_COLUMNS` REPLACES the earlier one, in its place: measuring
    again never doubles.

    Args:
        csv_path: e.g. ``benchmarks/results/classification.csv``.
        row: values for :data:`RESULT_COLUMNS`; those in :data:`OPTIONAL_COLUMNS` may be missing,
            None or NaN. Metrics are fractions, 0..1.

    Raises:
        ResultsError: unknown or missing columns, values out of range (all of them are named), or
            a file on disk that is no result file.
    """
    _TABLE.append(csv_path, row)


def checked_row(
    row: Mapping[str, Any],
    file: ResultsFile,
    optional: Collection[str],
    fractions: Collection[str],
) -> Row:
    """A row as text in the order of the columns.

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


def read_results(csv_path: str | os.PathLike[str]) -> list[Row]:
    """Reads a result file, or the published figures, as text.

    Args:
        csv_path: a CSV file whose columns are among :data:`RESULT_COLUMNS` and ``citation``.

    Returns:
        One dict per row that has every one of :data:`RESULT_COLUMNS` and ``citation``, with
        ``''`` where the file says nothing.

    Raises:
        ResultsError: no such file, unknown or doubled columns, or a row that is too long or short.
    """
    path = Path(csv_path)
    if not path.is_file():
        raise ResultsError(f"{path}: no such file; `chromozoo benchmark` writes it.")
    return _TABLE.read(path)


_TABLE = ResultTable(RESULT_COLUMNS, KEY_COLUMNS, OPTIONAL_COLUMNS, METRIC_COLUMNS)


def leaderboard_markdown(rows: Iterable[Mapping[str, str]], *, split: str) -> str:
    """The README's table of one split, best first.

    Rows are sorted by accuracy with cell assignment (by accuracy per chromosome where there is no
    other), then by accuracy per chromosome. Published figures of the same data set stand among
    them in italics and without a rank: their authors split the data in their own way.

    Args:
        rows: of :func:`read_results`, measured and published together.
        split: which measured rows to show, e.g. ``'bioimlab_v1/test'``.

    Returns:
        Markdown that ends with a line break.

    Raises:
        ResultsError: nothing was measured on ``split``, or the rows were measured on different
            versions of the split file.
    """
    measured, published = rows_of_split(rows, split)
    lines = [
        (
            "| rank | model | weights | parameters (M) | input | accuracy (%) "
            "| with cell assignment (%) | cells without error (%) | ECE | source |"
        ),
        "|---:|---|---|---:|---|---|---|---|---|---|",
        *ranked_lines(sorted(measured + published, key=_order), _cells),
        "",
        _caption(measured, published, split),
    ]
    return "\n".join(lines) + "\n"


def rows_of_split(
    rows: Iterable[Mapping[str, str]], split: str
) -> tuple[list[Mapping[str, str]], list[Mapping[str, str]]]:
    """The rows measured on a split, and those published of the same data sets.

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
    """Lines of a Markdown table: rank, the cells of each row, and where its figures come from.

    Published rows are in italics and have no rank.

    Args:
        rows: Best first.
        cells: Makes the texts of a row; empty ones are shown as not known.
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


def update_readme(readme_path: str | os.PathLike[str], marker_name: str, table: str) -> None:
    """Replaces what stands between the markers of one leaderboard.

    The markers are ``<!-- leaderboard:NAME:begin -->`` and ``<!-- leaderboard:NAME:end -->``.

    Raises:
        ResultsError: the file or its pair of markers is missing, or a marker stands there twice.
    """
    path = Path(readme_path)
    before, _, after = _split_readme(path, marker_name)
    replace_file(path, f"{before}\n{table.strip()}\n{after}".encode())


def readme_is_current(readme_path: str | os.PathLike[str], marker_name: str, table: str) -> bool:
    """Whether the README shows exactly ``table`` between the markers of that leaderboard.

    Raises:
        ResultsError: as :func:`update_readme`.
    """
    _, shown, _ = _split_readme(Path(readme_path), marker_name)
    return shown.strip() == table.strip()


def _what_is_expected(name: str, value: str, fraction: bool) -> str | None:
    """None where the value fits its column, else what would."""
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


def _order(row: Mapping[str, str]) -> tuple[float, float, str]:
    accuracy = float(row["accuracy"] or 0)
    return -float(row["assigned_accuracy"] or accuracy), -accuracy, row["model"]


def _cells(row: Mapping[str, str]) -> list[str]:
    input_size = row["input_size"]
    if input_size and row["tta"] != "none":
        input_size += f", {row['tta']}"
    is_measured = row["source"] == "measured"
    # Such as "not shipped": without it a reader would look for the file. What follows a semicolon,
    # such as the changes of a fold's config, is told by the CSV.
    note = row["note"].partition(";")[0]
    weights = f"{row['weights']} ({note})" if is_measured and note else row["weights"]
    return [
        row["model"],
        weights,
        f"{int(row['parameters']) / 1e6:.2f}" if row["parameters"] else "",
        input_size,
        percent(row, "accuracy"),
        percent(row, "assigned_accuracy"),
        # Without assignment, the cells without error are those of the plain labels.
        percent(row, "assigned_cells_without_error") or percent(row, "cells_without_error"),
        f"{float(row['ece']):.3f}" if row["ece"] else "",
    ]


def percent(row: Mapping[str, str], metric: str) -> str:
    """'97.52 [96.12, 98.60]', '97.52', or '' where nothing is known."""
    if not row[metric]:
        return ""
    figure = f"{float(row[metric]):.2%}"[:-1]
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    if low and high:
        return f"{figure} [{float(low) * 100:.1f}, {float(high) * 100:.1f}]"
    return figure


def percent_alone(row: Mapping[str, str], metric: str) -> str:
    """Without its interval, which stands in the CSV: '97.52', or '' where nothing is known."""
    return f"{100 * float(row[metric]):.2f}" if row[metric] else ""


def _caption(
    measured: Sequence[Mapping[str, str]], published: Sequence[Mapping[str, str]], split: str
) -> str:
    sizes = {(row["n_chromosomes"], row["n_cells"]) for row in measured}
    size = ", ".join(f"{n} chromosomes of {cells} cells" for n, cells in sorted(sizes))
    caption = (
        f"Split `{split}`: {size}; in brackets the 95 % bootstrap interval over cells. Cells "
        "without error: after cell assignment, where there is one."
    )
    if any(row["tta"].endswith(WHOLE_CELLS) for row in measured):
        caption += (
            f" *{WHOLE_CELLS}*: the model names a chromosome knowing the others of its cell, also "
            "before any assignment."
        )
    if split.endswith("/folds"):
        caption += (
            " Each cell is named by weights that were trained without it, one set for each fold "
            "(`chromozoo cross-validate`)."
        )
    if published:
        caption += (
            " *Italics*: as published by the authors on their own split of the same data, so not "
            "directly comparable."
        )
    return caption


def _split_readme(path: Path, marker_name: str) -> tuple[str, str, str]:
    """The text up to and with the begin marker, what is between, and the rest."""
    if not path.is_file():
        raise ResultsError(f"{path}: no such file.")
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
