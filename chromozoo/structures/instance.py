"""Single detected instances: cropping to the mask, mask IoU and mask NMS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Instance:
    """One detected chromosome, before all of an image become a ``Segmentation``.

    Attributes:
        crop: Mask ``(h, w)`` bool.
        corner: Row and column of the crop's upper left pixel in the image.
        box: ``(4,)`` xyxy in pixels; None for the tight box of the mask.
        score: Detection score, 0..1.
        label: Index into the categories.
        strip: Samples along the chromosome's axis, the input of a class head that runs after NMS;
            None without such a head.
        class_probabilities: ``(categories,)``; None with a single category.
    """

    crop: NDArray[np.bool_]
    corner: tuple[int, int]
    box: NDArray[np.float32] | None
    score: float
    label: int = 0
    strip: NDArray[np.float32] | None = None
    class_probabilities: NDArray[np.float32] | None = None


def crop_to_mask(instance: Instance, shape: tuple[int, int]) -> Instance | None:
    """Return the instance with its crop cut to the mask's pixels, and crop and box to the image.

    Args:
        instance: An instance whose crop may have empty margins or reach out of the image.
        shape: ``(H, W)`` of the image.

    Returns:
        The instance; None if no pixel of its mask lies in the image.
    """
    row, column = instance.corner
    top, left = max(-row, 0), max(-column, 0)
    crop = instance.crop[top : max(shape[0] - row, 0), left : max(shape[1] - column, 0)]
    rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
    if not len(rows):
        return None
    crop = crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    row, column = row + top + int(rows[0]), column + left + int(columns[0])
    box = instance.box
    if box is None:
        box = np.array([column, row, column + crop.shape[1], row + crop.shape[0]], np.float32)
    else:
        box = np.clip(box, 0, np.array([shape[1], shape[0]] * 2, np.float32))
    return replace(instance, crop=np.ascontiguousarray(crop), corner=(row, column), box=box)


def mask_nms(instances: Sequence[Instance], nms_iou_threshold: float) -> list[Instance]:
    """Return the instances that greedy non-maximum suppression by mask IoU keeps, best first.

    The boxes of two crossing chromosomes overlap almost entirely, while their masks share a few
    pixels. NMS by boxes, as in published systems, would delete one of the two.

    Args:
        instances: Instances cropped to their masks.
        nms_iou_threshold: An instance is dropped if its mask IoU with a better one is higher.
    """
    kept: list[Instance] = []
    for instance in sorted(instances, key=lambda instance: -instance.score):
        if all(mask_iou(instance, better) <= nms_iou_threshold for better in kept):
            kept.append(instance)
    return kept


def mask_iou(a: Instance, b: Instance) -> float:
    """Return the mask IoU of two instances, 0..1."""
    top, left = max(a.corner[0], b.corner[0]), max(a.corner[1], b.corner[1])
    bottom = min(a.corner[0] + a.crop.shape[0], b.corner[0] + b.crop.shape[0])
    right = min(a.corner[1] + a.crop.shape[1], b.corner[1] + b.crop.shape[1])
    if bottom <= top or right <= left:
        return 0.0
    common = [
        instance.crop[
            top - instance.corner[0] : bottom - instance.corner[0],
            left - instance.corner[1] : right - instance.corner[1],
        ]
        for instance in (a, b)
    ]
    intersection = int((common[0] & common[1]).sum())
    return intersection / (int(a.crop.sum()) + int(b.crop.sum()) - intersection)
