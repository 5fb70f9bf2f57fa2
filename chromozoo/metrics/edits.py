"""Edits that correct a predicted segmentation: split, merge, delete and add chromosomes."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from chromozoo.metrics.bootstrap import divide
from chromozoo.structures.arrays import FloatArray, IntArray
from chromozoo.structures.karyotyped_cell import Instances

MIN_IOU = 0.5
# Share of the pixels from which a prediction covers a chromosome, or a fragment lies in one.
MIN_COVER = 0.5
EDITS = ("relabel", "split", "merge", "delete", "add")
EDIT_METRICS = ("edits", *(f"edits_{kind}" for kind in EDITS))


@dataclass(frozen=True, eq=False)
class Overlap:
    """Areas and shared areas of the P predictions and T true chromosomes of one image, in pixels.

    Attributes:
        by_masks: Whether areas are those of masks; otherwise of boxes.
        predicted: ``(P,)`` areas of the predictions.
        true: ``(T,)`` areas of the true chromosomes.
        shared: ``(P, T)`` areas shared by predictions and true chromosomes.
        shared_by_predictions: ``(P, P)`` areas shared by two predictions.
    """

    by_masks: bool
    predicted: FloatArray
    true: FloatArray
    shared: FloatArray
    shared_by_predictions: FloatArray

    @classmethod
    def of(cls, predicted: Instances, true: Instances) -> "Overlap":
        """Measure masks if both sides have them, boxes otherwise."""
        by_masks = predicted.crops is not None and true.crops is not None
        shared_areas = shared_mask_areas if by_masks else _shared_box_areas
        return cls(
            by_masks=by_masks,
            predicted=_areas(predicted, by_masks),
            true=_areas(true, by_masks),
            shared=shared_areas(predicted, true),
            shared_by_predictions=shared_areas(predicted, predicted),
        )

    def iou(self) -> FloatArray:
        """Return the IoU of predictions and true chromosomes, ``(P, T)`` in 0..1."""
        return divide(self.shared, self.predicted[:, None] + self.true - self.shared)


def match_chromosomes(iou: FloatArray) -> IntArray:
    """Match predictions and true chromosomes one to one, with the highest sum of IoU.

    Args:
        iou: ``(P, T)``; pairs below :data:`MIN_IOU` are not matched.

    Returns:
        ``(P,)`` index of the true chromosome of each prediction, -1 without a match.
    """
    weights = np.where(iou >= MIN_IOU, iou, 0)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    matched: IntArray = np.full(len(iou), -1, np.int64)
    is_pair = weights[rows, columns] > 0
    matched[rows[is_pair]] = columns[is_pair]
    return matched


def count_edits(overlap: Overlap, matched: IntArray) -> dict[str, int]:
    """Count the edits of the segmentation by rules 1 to 4 of :func:`evaluate_karyotyping`.

    Args:
        overlap: Areas of predictions and true chromosomes.
        matched: ``(P,)``, see :func:`match_chromosomes`.

    Returns:
        Number of edits of each of :data:`EDITS`; ``"relabel"`` is 0.
    """
    edits = dict.fromkeys(EDITS, 0)
    missed = set(range(len(overlap.true))) - set(matched.tolist())
    spare = set(np.flatnonzero(matched < 0).tolist())
    edits["split"], separated = _count_splits(overlap, missed, spare)
    edits["merge"] = _count_merges(overlap, matched, missed, spare, separated)
    edits["delete"], edits["add"] = len(spare), len(missed)
    return edits


def _count_splits(overlap: Overlap, missed: set[int], spare: set[int]) -> tuple[int, set[int]]:
    """Split predictions that cover several chromosomes (rule 1).

    Args:
        overlap: Areas of predictions and true chromosomes.
        missed: True chromosomes without a match; those that a split separates are removed.
        spare: Predictions without a match; those that are split are removed.

    Returns:
        The number of splits, and the missed chromosomes that they separate.
    """
    cover = divide(overlap.shared, overlap.true)
    covered_by: dict[int, list[int]] = {}
    for chromosome in sorted(missed) if len(overlap.predicted) else ():
        prediction = int(cover[:, chromosome].argmax())
        if cover[prediction, chromosome] >= MIN_COVER:
            covered_by.setdefault(prediction, []).append(chromosome)
    n_splits = 0
    separated: set[int] = set()
    for prediction, chromosomes in covered_by.items():
        n_parts = len(chromosomes) + (prediction not in spare)
        if n_parts > 1:
            n_splits += n_parts - 1
            spare.discard(prediction)
            separated |= set(chromosomes)
    missed -= separated
    return n_splits, separated


def _count_merges(
    overlap: Overlap, matched: IntArray, missed: set[int], spare: set[int], separated: set[int]
) -> int:
    """Merge the fragments of one chromosome (rule 2), and return the number of merges.

    Args:
        overlap: Areas of predictions and true chromosomes.
        matched: ``(P,)``, see :func:`match_chromosomes`.
        missed: True chromosomes without a match; those that a merge completes are removed.
        spare: Predictions without a match; those that are merged are removed.
        separated: True chromosomes that rule 1 has dealt with.
    """
    cover = divide(overlap.shared, overlap.true)
    # A predicted box may have no area.
    inside = divide(overlap.shared, overlap.predicted[:, None], undefined=0.0)
    fragments_of: dict[int, list[int]] = {
        int(chromosome): [prediction]
        for prediction, chromosome in enumerate(matched)
        if chromosome >= 0
    }
    # The largest fragment of a chromosome first.
    for prediction in sorted(spare, key=lambda index: -overlap.predicted[index]):
        if not inside.shape[1] or inside[prediction].max() < MIN_COVER:
            continue
        chromosome = int(inside[prediction].argmax())
        larger = fragments_of.setdefault(chromosome, [])
        shared = overlap.shared_by_predictions[prediction, larger]
        in_larger = shared / overlap.predicted[prediction]
        if chromosome not in separated and (in_larger < MIN_COVER).all():
            larger.append(prediction)
    n_merges = 0
    for chromosome, fragments in fragments_of.items():
        is_complete = cover[fragments, chromosome].sum() >= MIN_COVER
        if len(fragments) > 1 and (chromosome not in missed or is_complete):
            n_merges += len(fragments) - 1
            spare -= set(fragments)
            missed.discard(chromosome)
    return n_merges


def _areas(outlines: Instances, by_masks: bool) -> FloatArray:
    if by_masks:
        assert outlines.crops is not None
        return np.array([crop.sum() for crop in outlines.crops], np.float64)
    boxes = np.asarray(outlines.boxes, np.float64)
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1))


def _shared_box_areas(a: Instances, b: Instances) -> FloatArray:
    return _intersections(np.asarray(a.boxes, np.float64), np.asarray(b.boxes, np.float64))


def _intersections(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the areas ``(A, B)`` that boxes xyxy share."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray((high - low).clip(min=0).prod(axis=2))


def shared_mask_areas(a: Instances, b: Instances) -> FloatArray:
    """Return the numbers of pixels ``(A, B)`` that masks share."""
    windows = []  # rows and columns of each crop: (N, 4), top, left, bottom, right
    for outlines in (a, b):
        assert outlines.crops is not None and outlines.corners is not None
        sizes = np.array([crop.shape for crop in outlines.crops]).reshape(-1, 2)
        windows.append(np.hstack([outlines.corners, outlines.corners + sizes]))
    shared = _intersections(*(window.astype(np.float64) for window in windows))
    for i, j in np.argwhere(shared > 0):
        top, left = np.maximum(windows[0][i, :2], windows[1][j, :2])
        bottom, right = np.minimum(windows[0][i, 2:], windows[1][j, 2:])
        first, second = (
            outlines.crops[k][
                top - window[k, 0] : bottom - window[k, 0],
                left - window[k, 1] : right - window[k, 1],
            ]
            for outlines, window, k in ((a, windows[0], i), (b, windows[1], j))
            if outlines.crops is not None
        )
        shared[i, j] = np.count_nonzero(first & second)
    return shared
