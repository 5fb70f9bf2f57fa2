"""Result files of whole-cell karyotyping, and their leaderboard.

``benchmarks/results/karyotyping.csv`` holds what ``chromozoo benchmark`` measured, one row for each
(segmenter, classifier, weights of both, assignment, data set, split), and nothing else writes it.
In ``benchmarks/results/published_karyotyping.csv`` stands, typed in by hand, what others published.
"""

from collections.abc import Iterable, Mapping, Sequence

from chromozoo.benchmark.results_file import interval_columns
from chromozoo.benchmark.tables.markdown import (
    ResultTable,
    percent,
    percent_value,
    ranked_lines,
    rows_of_split,
)
from chromozoo.metrics.karyotyping import CASES, METRICS

METRIC_COLUMNS = interval_columns(METRICS)
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
# unassigned_ needs an assignment, review_ needs flags. A metric that the images do not define is
# empty.
OPTIONAL_COLUMNS = frozenset(
    {*METRIC_COLUMNS, "precision", "torchvision", "timm", "lightning", "commit", "note"}
)
FRACTIONS = frozenset(
    column for column in METRIC_COLUMNS if not column.startswith(("edits", "count_"))
)
# A second measurement with the same key replaces the first.
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


_TABLE = ResultTable(RESULT_COLUMNS, KEY_COLUMNS, OPTIONAL_COLUMNS, FRACTIONS)
append_row = _TABLE.append
read_results = _TABLE.read


def leaderboard_markdown(rows: Iterable[Mapping[str, str]], *, split: str) -> str:
    """Return the leaderboard of one split, by full karyotyping accuracy, best first.

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
    measured, published = rows_of_split(rows, split)
    lines = [
        (
            "| rank | segmenter | classifier | assignment | s per image | FKA (%) "
            "| without assignment (%) | OCA (%) | precision (%) | recall (%) "
            "| cells without error (%) | edits a cell | flagged (%) | errors flagged (%) "
            "| source |"
        ),
        "|---:|---|---|---|---:|---|---|---|---|---|---|---|---|---|---|",
        *ranked_lines(sorted(measured + published, key=_order), _cells),
        "",
        _caption(measured, published, split),
    ]
    return "\n".join(lines) + "\n"


def _order(row: Mapping[str, str]) -> tuple[float, str, str]:
    return -float(row["fka"] or 0), row["segmenter"], row["classifier"]


def _cells(row: Mapping[str, str]) -> list[str]:
    return [
        named(row, "segmenter"),
        named(row, "classifier"),
        row["assignment"],
        row["seconds_per_image"],
        percent(row, "fka"),
        percent_value(row, "unassigned_fka"),
        percent(row, "oca"),
        # Counted as in the paper, see `evaluate_karyotyping`.
        percent(row, "macro_precision_found"),
        percent_value(row, "macro_recall"),
        percent_value(row, "exact_match_rate"),
        f"{float(row['edits']):.1f}" if row["edits"] else "",
        percent_value(row, "review_share"),
        percent_value(row, "review_recall"),
    ]


def named(row: Mapping[str, str], model: str) -> str:
    """Return the model and the tag of its weights, if it has one."""
    weights = row[f"{model}_weights"]
    return f"{row[model]} ({weights})" if weights else row[model]


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
