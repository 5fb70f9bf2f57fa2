"""Segmentation of a metaphase: amodal masks, boxes, scores and class probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.structures.instance import Instance, crop_to_mask

CATEGORIES = ("chromosome",)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Chromosomes that a segmenter detects in one metaphase.

    Masks are *amodal*: the pixels of a crossing belong to both chromosomes. They are stored as
    crops, so that a thousand masks of a large image need little memory; :attr:`masks` expands them.

    Attributes:
        shape: ``(H, W)`` of the image.
        crops: Mask ``(h, w)`` bool of each chromosome.
        corners: ``(N, 2)`` int64, row and column of each crop's upper left pixel.
        boxes: ``(N, 4)`` float32 xyxy in pixels of the image; the outer corner of the upper left
            pixel is (0, 0), so a box of one pixel is ``(j, i, j + 1, i + 1)``.
        scores: ``(N,)`` float32, 0..1, descending: probability that this is a chromosome.
        labels: ``(N,)`` int64, index into the model's ``categories``.
        warnings: Warnings about the image; empty as a rule.
        class_probabilities: ``(N, categories)`` float32; None for a model with a single category.
    """

    shape: tuple[int, int]
    crops: tuple[NDArray[np.bool_], ...]
    corners: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    warnings: tuple[str, ...] = field(default=())
    class_probabilities: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.crops)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """All masks in full size, ``(N, H, W)`` bool."""
        masks = np.zeros((len(self), *self.shape), bool)
        for mask, crop, (row, column) in zip(masks, self.crops, self.corners, strict=True):
            mask[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
        return masks

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> "Segmentation":
        """Return the segmentation of these chromosomes only, in this order."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            crops=tuple(self.crops[index] for index in chosen),
            corners=self.corners[chosen],
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            class_probabilities=None
            if self.class_probabilities is None
            else self.class_probabilities[chosen],
        )

    def filter_by_score(self, min_score: float) -> "Segmentation":
        """Return the segmentation of the chromosomes with at least this score."""
        return self.select(np.flatnonzero(self.scores >= min_score))

    def to_records(self, categories: Sequence[str] = CATEGORIES) -> list[dict[str, Any]]:
        """Return the chromosomes as values that JSON can hold.

        Args:
            categories: Name of each label.

        Returns:
            For each chromosome: ``number`` from 1, ``category``, ``bbox`` [x, y, w, h], ``score``,
            ``area`` in pixels, and ``segmentation``, the mask as COCO run lengths (RLE).
        """
        from faster_coco_eval.core import mask as coco_mask

        records = []
        for index, (crop, (row, column)) in enumerate(zip(self.crops, self.corners, strict=True)):
            # One mask at a time, because all masks of a large image may not fit into memory.
            mask = np.zeros(self.shape, np.uint8, order="F")
            mask[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
            run = coco_mask.encode(mask)
            x0, y0, x1, y1 = (float(value) for value in self.boxes[index])
            records.append(
                {
                    "number": index + 1,
                    "category": categories[int(self.labels[index])],
                    "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
                    "score": round(float(self.scores[index]), 4),
                    "area": int(crop.sum()),
                    "segmentation": {
                        "size": [int(side) for side in run["size"]],
                        "counts": run["counts"].decode(),
                    },
                }
            )
        return records

    @classmethod
    def from_masks(
        cls,
        masks: NDArray[np.bool_],
        scores: Sequence[float] | NDArray[np.floating[Any]] | None = None,
        labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        warnings: Sequence[str] = (),
    ) -> "Segmentation":
        """Return the segmentation of full-size masks, with their tight boxes.

        Args:
            masks: ``(N, H, W)`` bool; empty masks are dropped.
            scores: ``(N,)``; 1 by default.
            labels: ``(N,)``; 0 by default.
            warnings: Warnings about the image.
        """
        scores = np.ones(len(masks)) if scores is None else np.asarray(scores)
        labels = np.zeros(len(masks), int) if labels is None else np.asarray(labels)
        instances = [
            Instance(mask, (0, 0), None, float(score), int(label))
            for mask, score, label in zip(masks, scores, labels, strict=True)
        ]
        height, width = masks.shape[1:]
        return merge_instances(instances, (int(height), int(width)), warnings)

    @classmethod
    def empty(cls, shape: tuple[int, int], warnings: Sequence[str] = ()) -> "Segmentation":
        """Return the segmentation of an image ``(H, W)`` without chromosomes."""
        return merge_instances([], shape, warnings)


def merge_instances(
    instances: Sequence[Instance], shape: tuple[int, int], warnings: Sequence[str] = ()
) -> Segmentation:
    """Merge instances into a segmentation: cut to masks and image, sorted by descending score.

    Args:
        instances: Instances of one image; those without a pixel in the image are dropped.
        shape: ``(H, W)`` of the image.
        warnings: Warnings about the image.
    """
    kept = [cut for one in instances if (cut := crop_to_mask(one, shape)) is not None]
    kept.sort(key=lambda instance: -instance.score)
    probabilities = [
        instance.class_probabilities
        for instance in kept
        if instance.class_probabilities is not None
    ]
    return Segmentation(
        shape=shape,
        crops=tuple(instance.crop for instance in kept),
        corners=np.array([instance.corner for instance in kept], np.int64).reshape(-1, 2),
        boxes=np.array([instance.box for instance in kept], np.float32).reshape(-1, 4),
        scores=np.array([instance.score for instance in kept], np.float32),
        labels=np.array([instance.label for instance in kept], np.int64),
        warnings=tuple(warnings),
        class_probabilities=np.stack(probabilities) if probabilities else None,
    )
