"""Single detections on their way to a segmentation: cutting to size, overlap, suppression."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Instance:
    """One detection on the way to a :class:`Segmentation`.

    Attributes:
        crop: bool ``(h, w)``.
        corner: Row and column of its upper left pixel.
        box: ``(4,)`` xyxy in pixels, or None: the tight box of the mask.
        score: 0..1.
        label: Index into the categories.
        strip: Of a network that names what is left after suppression: what it looks at for that.
        names: Probability of each category, ``(categories,)``; None where there is one alone.
    """

    crop: NDArray[np.bool_]
    corner: tuple[int, int]
    box: NDArray[np.float32] | None
    score: float
    label: int = 0
    strip: NDArray[np.float32] | None = None
    names: NDArray[np.float32] | None = None


def crop_to_mask(piece: Instance, shape: tuple[int, int]) -> Instance | None:
    """Crop cut to the image ``(H, W)`` and to its pixels, box cut to the image; None if empty."""
    row, column = piece.corner
    top, left = max(-row, 0), max(-column, 0)
    crop = piece.crop[top : max(shape[0] - row, 0), left : max(shape[1] - column, 0)]
    rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
    if not len(rows):
        return None
    crop = crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    row, column = row + top + int(rows[0]), column + left + int(columns[0])
    box = piece.box
    if box is None:
        box = np.array([column, row, column + crop.shape[1], row + crop.shape[0]], np.float32)
    else:
        box = np.clip(box, 0, np.array([shape[1], shape[0]] * 2, np.float32))
    return replace(piece, crop=np.ascontiguousarray(crop), corner=(row, column), box=box)


def mask_nms(pieces: Sequence[Instance], nms_iou_threshold: float) -> list[Instance]:
    """Greedy non-maximum suppression by the IoU of MASKS.

    The boxes of two chromosomes that cross cover each other almost wholly while their masks share
    a few pixels, so suppression by boxes, as published systems do it, deletes one of the two.

    Args:
        pieces: Detections, tight.
        nms_iou_threshold: A piece whose mask has more IoU than this with a better one is left out.
    """
    kept: list[Instance] = []
    for piece in sorted(pieces, key=lambda piece: -piece.score):
        if all(mask_iou(piece, better) <= nms_iou_threshold for better in kept):
            kept.append(piece)
    return kept


def mask_iou(a: Instance, b: Instance) -> float:
    """Intersection over union of two masks, 0..1."""
    top, left = max(a.corner[0], b.corner[0]), max(a.corner[1], b.corner[1])
    bottom = min(a.corner[0] + a.crop.shape[0], b.corner[0] + b.crop.shape[0])
    right = min(a.corner[1] + a.crop.shape[1], b.corner[1] + b.crop.shape[1])
    if bottom <= top or right <= left:
        return 0.0
    common = [
        piece.crop[
            top - piece.corner[0] : bottom - piece.corner[0],
            left - piece.corner[1] : right - piece.corner[1],
        ]
        for piece in (a, b)
    ]
    shared = int((common[0] & common[1]).sum())
    return shared / (int(a.crop.sum()) + int(b.crop.sum()) - shared)
