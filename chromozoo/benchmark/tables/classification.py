"""Result files of classifiers, and their leaderboard.

``benchmarks/results/classification.csv`` holds what ``chromozoo benchmark`` measured, one row for
each (model, weights, data set, split, test-time averaging), and nothing else writes it.
``benchmarks/results/published.csv`` holds, typed in by hand, what others published about their
own systems. A table in the README is generated from both, never edited.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chromozoo.benchmark.results_file import (
    ResultsError,
    Row,
    interval_columns,
)
from chromozoo.benchmark.tables.markdown import ResultTable, percent, ranked_lines, rows_of_split
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
# A second measurement with the same key replaces the first.
KEY_COLUMNS = ("model", "weights_sha256", "dataset", "split_sha256", "split", "tta")


def append_row(csv_path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Add one measurement to a result file, which is created if it does not exist.

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


def read_results(csv_path: str | os.PathLike[str]) -> list[Row]:
    """Reads a result file, or the published figures, as text.

    Args:
        csv_path: a CSV file whose columns are among :data:`RESULT_COLUMNS` and ``citation``.

    Returns:
        One dict per row that has every one of :data:`RESULT_COLUMNS` and ``citation``, with
        ``''`` where the file says nothing.

    Raises:
        ResultsError: The file is missing, or has unknown or repeated columns or incomplete rows.
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


def _order(row: Mapping[str, str]) -> tuple[float, float, str]:
    accuracy = float(row["accuracy"] or 0)
    return -float(row["assigned_accuracy"] or accuracy), -accuracy, row["model"]


def _cells(row: Mapping[str, str]) -> list[str]:
    input_size = row["input_size"]
    if input_size and row["tta"] != "none":
        input_size += f", {row['tta']}"
    is_measured = row["source"] == "measured"
    # Such as "not shipped": without it a reader would look for the file. What follows a semicolon,
    # such as the changes of a fold's config, is in the CSV file.
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
            "(`chromozoo zoo cross-validate`)."
        )
    if published:
        caption += (
            " *Italics*: as published by the authors on their own split of the same data, so not "
            "directly comparable."
        )
    return caption
