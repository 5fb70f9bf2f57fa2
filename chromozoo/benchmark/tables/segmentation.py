"""Result files of segmenters, and their leaderboard.

``benchmarks/results/segmentation.csv`` holds what ``chromozoo benchmark`` measured, one row for
each (model, weights, data set, split), and nothing else writes it. In
``benchmarks/results/published_segmentation.csv`` stands, typed in by hand, what others published.
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
from chromozoo.metrics.segmentation import METRICS, PRECISION_METRICS

RESULT_COLUMNS = (
    "model",
    "weights",  # the tag, e.g. bioimlab
    "weights_sha256",  # first 12 hex digits
    "dataset",  # e.g. bioimlab-segmentation
    "split",  # e.g. bioimlab_segmentation_v1/test
    "split_sha256",  # first 12 hex digits of the split file
    "n_images",
    "n_chromosomes",
    # Fractions, 0..1; relative_count_error may be larger; count_error and count_bias count
    # chromosomes.
    *interval_columns(METRICS),
    "score_threshold",  # of exact_match_rate and the following
    "image_scale",  # width x height of the images: APs and APm depend on it
    "max_detections",  # of one image that AP looks at
    "backend",  # with its version
    "parameters",
    "seconds_per_image",
    "device",
    "threads",
    "seed",
    "config",
    "precision",
    "training",  # in words
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
# A metric is empty where the images do not define it, such as AP of medium-sized chromosomes.
OPTIONAL_COLUMNS = frozenset(
    {
        *interval_columns(METRICS),
        *("seed", "config", "training", "torchvision", "timm", "lightning", "commit", "note"),
    }
)
FRACTIONS = frozenset(interval_columns((*PRECISION_METRICS, "exact_match_rate")))
# A second measurement with the same key replaces the first.
KEY_COLUMNS = ("model", "weights_sha256", "dataset", "split_sha256", "split")


_TABLE = ResultTable(RESULT_COLUMNS, KEY_COLUMNS, OPTIONAL_COLUMNS, FRACTIONS)
append_row = _TABLE.append
read_results = _TABLE.read


def leaderboard_markdown(rows: Iterable[Mapping[str, str]], *, split: str) -> str:
    """Return the leaderboard of one split, by average precision of the boxes, best first.

    Published figures of the same data set stand among the measured ones in italics and without a
    rank. They have no masks: nobody published these.

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
            "| rank | model | weights | parameters (M) | s per image | box AP (%) | AP50 | AP75 "
            "| mask AP (%) | AP50 | AP75 | of overlapping | images without error | source |"
        ),
        "|---:|---|---|---:|---:|---|---|---|---|---|---|---|---|---|",
        *ranked_lines(sorted(measured + published, key=_order), _cells),
        "",
        _caption(measured, published, split),
    ]
    return "\n".join(lines) + "\n"


def _order(row: Mapping[str, str]) -> tuple[float, str]:
    return -float(row["box_ap"] or 0), row["model"]


def _cells(row: Mapping[str, str]) -> list[str]:
    return [
        row["model"],
        row["weights"],
        f"{int(row['parameters']) / 1e6:.2f}" if row["parameters"] else "",
        row["seconds_per_image"],
        percent(row, "box_ap"),
        percent_value(row, "box_ap50"),
        percent_value(row, "box_ap75"),
        percent(row, "mask_ap"),
        percent_value(row, "mask_ap50"),
        percent_value(row, "mask_ap75"),
        percent_value(row, "mask_ap_overlap"),
        percent_value(row, "exact_match_rate"),
    ]


def _caption(
    measured: Sequence[Mapping[str, str]], published: Sequence[Mapping[str, str]], split: str
) -> str:
    def said(column: str) -> str:
        return ", ".join(sorted({row[column] for row in measured}))

    caption = (
        f"Split `{split}`: {said('n_chromosomes')} chromosomes in {said('n_images')} whole images "
        f"of {said('image_scale')} pixels; in brackets the 95 % bootstrap interval over images. "
        "AP: COCO's average precision over IoU .50:.05:.95, at most "
        f"{said('max_detections')} detections an image. Of overlapping: mask AP of chromosomes "
        "that share at least 1 % of their pixels with another one. Images without error: every "
        f"chromosome found once at mask IoU 0.5, score {said('score_threshold')}, and nothing "
        f"else. Seconds: {said('device')}, {said('threads')} threads."
    )
    if published:
        caption += (
            " *Italics*: as published by the authors for the same images; they give no mask AP."
        )
    return caption
