"""TODO docstring."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from chromozoo.structures.arrays import FloatArray, IntArray
from chromozoo.structures.karyotyped_cell import Instances

MIN_IOU = 0.5


# A prediction covers a chromosome, and a fragment lies in it, from this share of the pixels on.
MIN_COVER = 0.5


EDITS = ("relabel", "split", "merge", "delete", "add")


EDIT_METRICS = ("edits", *(f"edits_{kind}" for kind in EDITS))


@dataclass(frozen=True, eq=False)
class _Overlap:
    """Who covers whom in one image: areas in pixels of P predictions and T true chromosomes."""

    by_masks: bool
    found: FloatArray  # (P,)
    true: FloatArray  # (T,)
    shared: FloatArray  # (P, T)
    among_found: FloatArray  # (P, P)

    @classmethod
    def of(cls, found: Instances, true: Instances) -> "_Overlap":
        by_masks = found.crops is not None and true.crops is not None
        share = _shared_pixels if by_masks else _shared_box_areas
        return cls(
            by_masks=by_masks,
            found=_areas(found, by_masks),
            true=_areas(true, by_masks),
            shared=share(found, true),
            among_found=share(found, found),
        )

    def iou(self) -> FloatArray:
        """``(P, T)``, 0..1."""
        return _ratio(self.shared, self.found[:, None] + self.true - self.shared)


def _areas(outlines: Instances, by_masks: bool) -> FloatArray:
    if by_masks:
        assert outlines.crops is not None
        return np.array([crop.sum() for crop in outlines.crops], np.float64)
    boxes = np.asarray(outlines.boxes, np.float64)
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1))


def _shared_box_areas(a: Instances, b: Instances) -> FloatArray:
    return _shared(np.asarray(a.boxes, np.float64), np.asarray(b.boxes, np.float64))


def _shared(a: FloatArray, b: FloatArray) -> FloatArray:
    """Areas ``(A, B)`` that boxes xyxy share."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray((high - low).clip(min=0).prod(axis=2))


def _shared_pixels(a: Instances, b: Instances) -> FloatArray:
    """Numbers of pixels ``(A, B)`` that masks share."""
    sides = []
    for outlines in (a, b):
        assert outlines.crops is not None and outlines.corners is not None
        sizes = np.array([crop.shape for crop in outlines.crops]).reshape(-1, 2)
        sides.append(np.hstack([outlines.corners, outlines.corners + sizes]))
    shared = _shared(*(side.astype(np.float64) for side in sides))
    for i, j in np.argwhere(shared > 0):
        top, left = np.maximum(sides[0][i, :2], sides[1][j, :2])
        bottom, right = np.minimum(sides[0][i, 2:], sides[1][j, 2:])
        one, other = (
            outlines.crops[k][
                top - side[k, 0] : bottom - side[k, 0], left - side[k, 1] : right - side[k, 1]
            ]
            for outlines, side, k in ((a, sides[0], i), (b, sides[1], j))
            if outlines.crops is not None
        )
        shared[i, j] = np.count_nonzero(one & other)
    return shared


def _match(iou: FloatArray) -> IntArray:
    """The true chromosome of each prediction ``(P,)``, -1 for none; see the rule of matching."""
    weights = np.where(iou >= MIN_IOU, iou, 0)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    matched: IntArray = np.full(len(iou), -1, np.int64)
    is_pair = weights[rows, columns] > 0
    matched[rows[is_pair]] = columns[is_pair]
    return matched


def _edits(overlap: _Overlap, matched: IntArray) -> dict[str, int]:
    """Edits of the outlines, by the rules 1 to 4 of :func:`evaluate_karyotyping`."""
    cover = _ratio(overlap.shared, overlap.true)
    # A predicted box may be without area.
    inside = np.nan_to_num(_ratio(overlap.shared, overlap.found[:, None]))
    lost = set(range(len(overlap.true))) - set(matched.tolist())
    spare = set(np.flatnonzero(matched < 0).tolist())
    edits = dict.fromkeys(EDITS, 0)

    members: dict[int, list[int]] = {}
    for chromosome in sorted(lost) if len(matched) else ():
        host = int(cover[:, chromosome].argmax())
        if cover[host, chromosome] >= MIN_COVER:
            members.setdefault(host, []).append(chromosome)
    cut = set()
    for host, chromosomes in members.items():
        parts = len(chromosomes) + (host not in spare)
        if parts > 1:
            edits["split"] += parts - 1
            spare.discard(host)
            cut |= set(chromosomes)
    lost -= cut

    pieces: dict[int, list[int]] = {
        int(chromosome): [prediction]
        for prediction, chromosome in enumerate(matched)
        if chromosome >= 0
    }
    # The largest piece of a chromosome first.
    for prediction in sorted(spare, key=lambda index: -overlap.found[index]):
        if not inside.shape[1] or inside[prediction].max() < MIN_COVER:
            continue
        chromosome = int(inside[prediction].argmax())
        others = pieces.setdefault(chromosome, [])
        in_others = overlap.among_found[prediction, others] / overlap.found[prediction]
        if chromosome not in cut and (in_others < MIN_COVER).all():
            others.append(prediction)
    for chromosome, parts_of_one in pieces.items():
        is_whole = cover[parts_of_one, chromosome].sum() >= MIN_COVER
        if len(parts_of_one) > 1 and (chromosome not in lost or is_whole):
            edits["merge"] += len(parts_of_one) - 1
            spare -= set(parts_of_one)
            lost.discard(chromosome)

    edits["delete"], edits["add"] = len(spare), len(lost)
    return edits


def _ratio(numerator: FloatArray, denominator: FloatArray | IntArray) -> FloatArray:
    """Numerator / denominator, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(numerator / denominator)
