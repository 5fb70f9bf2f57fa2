"""Result files of whole-cell karyotyping, and the table that the README shows of them.

``benchmarks/results/karyotyping.csv`` holds what ``chromozoo benchmark`` measured, one row for each
(segmenter, classifier, weights of both, assignment, data set, split), and nothing else writes it.
In ``benchmarks/results/published_karyotyping.csv`` stands, typed in by hand, what others published.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chromozoo.karyotyping_metrics import CASES, METRICS
from chromozoo.leaderboard import CITATION, NOT_KNOWN, checked_row, percent
from chromozoo.results import ResultsError, ResultsFile, Row

METRIC_COLUMNS = tuple(f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high"))
RESULT_COLUMNS = (
    "segmenter",
    "segmenter_weights",  # the tag, e.g. bioimlab
    "segmenter_sha256",  # of its weights, first 12 hex digits
    "classifier",
    "classifier_weights",
    "classifier_sha256",
    "assignment",  # how the names of a cell are given together, 'none' without
    "dataset",  # e.g. bioimlab-segmentation
    "split",  # e.g. bioimlab_segmentation_v1/test
    "split_sha256",  # first 12 hex digits of the split file
    "n_images",
    "n_named_images",  # whose names count
    "n_chromosomes",
    "n_certain",  # chromosomes whose names count
    "geometry",  # what was matched: mask | box
    # Fractions, 0..1; edits, count_error and count_bias are numbers for one image.
    *METRIC_COLUMNS,
    *CASES,  # numbers of cells
    "parameters",  # of both models
    "seconds_per_image",
    "device",
    "threads",
    "precision",
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
# Without assignment there is no alone_, without flags no review_, and a figure that the images do
# not define is empty.
OPTIONAL_COLUMNS = frozenset(
    {*METRIC_COLUMNS, "precision", "torchvision", "timm", "lightning", "commit", "note"}
)
FRACTIONS = frozenset(
    column for column in METRIC_COLUMNS if not column.startswith(("edits", "count_"))
)
# A second measurement of the same thing replaces the first.
KEY_COLUMNS = (
    "segmenter",
    "segmenter_sha256",
    "classifier",
    "classifier_sha256",
    "assignment",
    "dataset",
    "split_sha256",
    "split",
)


def append_row(csv_path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Adds one measurement to a result file; one of the same :data:`KEY_COLUMNS` is replaced.

    Raises:
        ResultsError: Unknown or missing columns, values out of range (all of them are named), or
            a file on disk that is no such result file.
    """
    file = ResultsFile(Path(csv_path), RESULT_COLUMNS, KEY_COLUMNS, "benchmark")
    file.add([checked_row(row, file, OPTIONAL_COLUMNS, FRACTIONS)])


def read_results(csv_path: str | os.PathLike[str]) -> list[Row]:
    """Rows of a result file, or the published figures, as text; none where there is no file.

    Raises:
        ResultsError: Unknown or doubled columns, or a row that is too long or short.
    """
    columns = (*RESULT_COLUMNS, CITATION)
    return ResultsFile(Path(csv_path), columns, KEY_COLUMNS, "benchmark").read()


def leaderboard_markdown(rows: Iterable[Mapping[str, str]], *, split: str) -> str:
    """The README's table of one split, by full karyotyping accuracy, best first.

    Published figures of the same data set stand among the measured ones in italics and without a
    rank.

    Args:
        rows: Measured and published, of :func:`read_results`.
        split: Which measured rows to show, e.g. ``'bioimlab_segmentation_v1/test'``.

    Returns:
        Markdown that ends with a line break.

    Raises:
        ResultsError: Nothing was measured on ``split``, or the rows were measured on different
            versions of the split file.
    """
    rows = list(rows)
    measured = [row for row in rows if row["source"] == "measured" and row["split"] == split]
    if not measured:
        raise ResultsError(
            f"No karyotyping result for split {split!r}: run `chromozoo benchmark` on a karyotyper."
        )
    versions = sorted({row["split_sha256"] for row in measured})
    if len(versions) > 1:
        raise ResultsError(
            f"The results for split {split!r} belong to different split files "
            f"({', '.join(versions)}) and cannot be ranked together: run `chromozoo benchmark` "
            "again for the old ones and remove their rows."
        )
    datasets = {row["dataset"] for row in measured}
    published = [row for row in rows if row["source"] == "paper" and row["dataset"] in datasets]

    lines = [
        (
            "| rank | segmenter | classifier | assignment | s per image | FKA (%) "
            "| without assignment (%) | OCA (%) | precision (%) | recall (%) "
            "| cells without error (%) | edits a cell | flagged (%) | errors flagged (%) "
            "| source |"
        ),
        "|---:|---|---|---|---:|---|---|---|---|---|---|---|---|---|---|",
    ]
    rank = 0
    for row in sorted(measured + published, key=_order):
        is_measured = row["source"] == "measured"
        rank += is_measured
        lines.append(_table_line(row, str(rank) if is_measured else NOT_KNOWN))
    lines += ["", _caption(measured, published, split)]
    return "\n".join(lines) + "\n"


def _order(row: Mapping[str, str]) -> tuple[float, str, str]:
    return -float(row["fka"] or 0), row["segmenter"], row["classifier"]


def _table_line(row: Mapping[str, str], rank: str) -> str:
    is_paper = row["source"] == "paper"
    cells = [
        _named(row, "segmenter"),
        _named(row, "classifier"),
        row["assignment"],
        row["seconds_per_image"],
        percent(row, "fka"),
        _short(row, "alone_fka"),
        percent(row, "oca"),
        # As the paper counts it: see `evaluate_karyotyping`.
        percent(row, "macro_precision_found"),
        _short(row, "macro_recall"),
        _short(row, "whole_correct"),
        f"{float(row['edits']):.1f}" if row["edits"] else "",
        _short(row, "review_share"),
        _short(row, "review_recall"),
        row[CITATION] if is_paper else "measured",
    ]
    shown = [cell.replace("|", "\\|") for cell in cells]
    if is_paper:
        shown = [f"*{cell}*" if cell else "" for cell in shown]
    return "| " + " | ".join([rank, *(cell or NOT_KNOWN for cell in shown)]) + " |"


def _named(row: Mapping[str, str], model: str) -> str:
    """The model and, where it has one, the tag of its weights."""
    weights = row[f"{model}_weights"]
    return f"{row[model]} ({weights})" if weights else row[model]


def _short(row: Mapping[str, str], metric: str) -> str:
    """Without its interval, which stands in the CSV."""
    return f"{100 * float(row[metric]):.2f}" if row[metric] else ""


def _caption(
    measured: Sequence[Mapping[str, str]], published: Sequence[Mapping[str, str]], split: str
) -> str:
    def said(column: str) -> str:
        return ", ".join(sorted({row[column] for row in measured}))

    caption = (
        f"Split `{split}`: {said('n_certain')} chromosomes with a certain class in "
        f"{said('n_named_images')} of {said('n_images')} images; in brackets the 95 % bootstrap "
        f"interval over images. Found is what is matched at {said('geometry')} IoU 0.5. FKA: found "
        "and rightly named / true chromosomes. OCA: the same / predictions. Precision and recall: "
        "mean over the classes, of the names of what was found and of all chromosomes. Edits: "
        "relabel, split, merge, delete, add. Errors flagged: share of the wrong names and false "
        f"detections that are marked for review. Seconds: {said('device')}, {said('threads')} "
        "threads."
    )
    if published:
        caption += (
            " *Italics*: as published by the authors, who had the same images judged by hand, each "
            "as a cell of 46 chromosomes."
        )
    return caption
