"""Result files of segmenters, and the table that the README shows of them.

``benchmarks/results/segmentation.csv`` holds what ``chromozoo benchmark`` measured, one row for
each (model, weights, data set, split), and nothing else writes it. In
``benchmarks/results/published_segmentation.csv`` stands, typed in by hand, what others published.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chromozoo.leaderboard import CITATION, NOT_KNOWN, checked_row, percent
from chromozoo.results import ResultsError, ResultsFile, Row
from chromozoo.segmentation_metrics import METRICS, PRECISION_METRICS

RESULT_COLUMNS = (
    "model",
    "weights",  # the tag, e.g. bioimlab
    "weights_sha256",  # first 12 hex digits
    "dataset",  # e.g. bioimlab-segmentation
    "split",  # e.g. bioimlab_segmentation_v1/test
    "split_sha256",  # first 12 hex digits of the split file
    "n_images",
    "n_chromosomes",
    # Fractions, 0..1; average_error may be larger, count_error and count_bias are chromosomes.
    *(f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")),
    "score_threshold",  # of whole_correct and the following
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
        *(f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")),
        *("seed", "config", "training", "torchvision", "timm", "lightning", "commit", "note"),
    }
)
FRACTIONS = frozenset(
    f"{metric}{end}"
    for metric in (*PRECISION_METRICS, "whole_correct")
    for end in ("", "_low", "_high")
)
# A second measurement of the same thing replaces the first.
KEY_COLUMNS = ("model", "weights_sha256", "dataset", "split_sha256", "split")


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
    """The README's table of one split, by average precision of the boxes, best first.

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
    rows = list(rows)
    measured = [row for row in rows if row["source"] == "measured" and row["split"] == split]
    if not measured:
        raise ResultsError(f"No result for split {split!r}: run `chromozoo benchmark MODEL`.")
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
            "| rank | model | weights | parameters (M) | s per image | box AP (%) | AP50 | AP75 "
            "| mask AP (%) | AP50 | AP75 | of overlapping | images without error | source |"
        ),
        "|---:|---|---|---:|---:|---|---|---|---|---|---|---|---|---|",
    ]
    rank = 0
    for row in sorted(measured + published, key=lambda r: (-float(r["box_ap"] or 0), r["model"])):
        is_measured = row["source"] == "measured"
        rank += is_measured
        lines.append(_table_line(row, str(rank) if is_measured else NOT_KNOWN))
    lines += ["", _caption(measured, published, split)]
    return "\n".join(lines) + "\n"


def _table_line(row: Mapping[str, str], rank: str) -> str:
    is_paper = row["source"] == "paper"
    cells = [
        row["model"],
        row["weights"],
        f"{int(row['parameters']) / 1e6:.2f}" if row["parameters"] else "",
        row["seconds_per_image"],
        percent(row, "box_ap"),
        _short(row, "box_ap50"),
        _short(row, "box_ap75"),
        percent(row, "mask_ap"),
        _short(row, "mask_ap50"),
        _short(row, "mask_ap75"),
        _short(row, "mask_ap_overlap"),
        _short(row, "whole_correct"),
        row[CITATION] if is_paper else "measured",
    ]
    shown = [cell.replace("|", "\\|") for cell in cells]
    if is_paper:
        shown = [f"*{cell}*" if cell else "" for cell in shown]
    return "| " + " | ".join([rank, *(cell or NOT_KNOWN for cell in shown)]) + " |"


def _short(row: Mapping[str, str], metric: str) -> str:
    """Without its interval, which stands in the CSV."""
    return f"{100 * float(row[metric]):.2f}" if row[metric] else ""


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
