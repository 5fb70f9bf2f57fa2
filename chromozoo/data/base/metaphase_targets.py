"""Training targets of metaphases: masks, boxes and labels of the visible instances."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chromozoo.structures.polygons import mask_box, polygon_area, polygon_mask

# Instances with a smaller visible fraction, or with fewer visible pixels, are dropped.
MIN_VISIBLE_FRACTION = 0.25
MIN_VISIBLE_PIXELS = 12
# Label of an instance whose class is not learnt.
CHROMOSOME = 1


def make_targets(
    polygons: Sequence[NDArray[np.float64]],
    height: int,
    width: int,
    min_visible_fraction: float = MIN_VISIBLE_FRACTION,
    min_visible_pixels: int = MIN_VISIBLE_PIXELS,
    labels: NDArray[np.int64] | None = None,
) -> dict[str, Tensor]:
    """Make the masks and boxes of the instances that an image shows.

    Args:
        polygons: Outlines ``(K, 2)`` of the instances, inside or outside of the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        min_visible_fraction: Instances with a smaller visible fraction of their area are dropped.
        min_visible_pixels: Instances with fewer visible pixels are dropped.
        labels: ``(N,)`` of the instances; all 1 where None.

    Returns:
        ``boxes`` (N, 4) float32 xyxy, ``labels`` (N,) int64, ``masks`` (N, height, width) uint8;
        N may be 0.
    """
    masks: list[NDArray[np.bool_]] = []
    visible_labels: list[int] = []
    for number, polygon in enumerate(polygons):
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        if (high <= 0).any() or (low >= (width, height)).any():
            continue
        mask = polygon_mask(polygon, height, width)
        if np.count_nonzero(mask) >= max(
            min_visible_pixels, min_visible_fraction * polygon_area(polygon)
        ):
            masks.append(mask)
            visible_labels.append(CHROMOSOME if labels is None else int(labels[number]))
    stacked = np.stack(masks) if masks else np.zeros((0, height, width), np.bool_)
    boxes = np.stack([mask_box(mask) for mask in masks]) if masks else np.zeros((0, 4), np.float32)
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.tensor(visible_labels, dtype=torch.int64),
        "masks": torch.from_numpy(stacked.view(np.uint8)),
    }


def collate_metaphases(items: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """Collate images of any sizes into a batch.

    Returns:
        ``image``: list of (1, h, w); ``target``: list of ``{boxes, labels, masks}``, without masks
        where only boxes are known; ``index`` (B,) int64.
    """
    return {
        "image": [item["image"] for item in items],
        "target": [
            {name: item[name] for name in ("boxes", "labels", "masks") if name in item}
            for item in items
        ],
        "index": torch.stack([item["index"] for item in items]),
    }


def drop_unknown_masks(target: dict[str, Tensor], boxes_only: bool) -> dict[str, Tensor]:
    """Remove the masks of a target where they are only filled boxes."""
    return {name: target[name] for name in target if not (boxes_only and name == "masks")}
