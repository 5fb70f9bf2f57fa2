"""TODO docstring."""

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
    """The chromosomes that a segmenter finds in one metaphase.

    A mask is *amodal*: where chromosomes cross, the shared pixels belong to each of them. Masks are
    kept as crops, so a thousand of them in a large image need little memory; :attr:`masks` lays
    them out.

    Attributes:
        shape: ``(H, W)`` of the image.
        crops: One bool array ``(h, w)`` for each chromosome.
        corners: ``(N, 2)`` int64, row and column of each crop's upper left pixel.
        boxes: ``(N, 4)`` float32 xyxy in pixels of the image; the outer corner of the upper left
            pixel is (0, 0), so a box of one pixel is ``(j, i, j + 1, i + 1)``.
        scores: ``(N,)`` float32, 0..1, descending.
        labels: ``(N,)`` int64, index into the model's ``categories``.
        names: ``(N, categories)`` float32, probability of each category; None where the model tells
            none apart. ``scores`` says only whether there is a chromosome.
        warnings: What a user should know of the image; empty as a rule.
    """

    shape: tuple[int, int]
    crops: tuple[NDArray[np.bool_], ...]
    corners: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    warnings: tuple[str, ...] = field(default=())
    names: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.crops)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """``(N, H, W)`` bool."""
        masks = np.zeros((len(self), *self.shape), bool)
        for mask, crop, (row, column) in zip(masks, self.crops, self.corners, strict=True):
            mask[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
        return masks

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> "Segmentation":
        """Only these chromosomes, in this order."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            crops=tuple(self.crops[index] for index in chosen),
            corners=self.corners[chosen],
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            names=None if self.names is None else self.names[chosen],
        )

    def above(self, score: float) -> "Segmentation":
        """Only what has at least that score."""
        return self.select(np.flatnonzero(self.scores >= score))

    def instances(self, categories: Sequence[str] = CATEGORIES) -> list[dict[str, Any]]:
        """The chromosomes as plain values, as JSON takes them.

        Args:
            categories: Name of each label.

        Returns:
            For each: ``number`` from 1, ``category``, ``bbox`` [x, y, w, h], ``score``, ``area`` in
            pixels, and ``segmentation``, COCO's run lengths of the mask (RLE).
        """
        from faster_coco_eval.core import mask as coco_mask

        listed = []
        for index, (crop, (row, column)) in enumerate(zip(self.crops, self.corners, strict=True)):
            # One at a time: all masks of a large image would not fit into memory.
            mask = np.zeros(self.shape, np.uint8, order="F")
            mask[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
            run = coco_mask.encode(mask)
            x0, y0, x1, y1 = (float(value) for value in self.boxes[index])
            listed.append(
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
        return listed

    @classmethod
    def from_masks(
        cls,
        masks: NDArray[np.bool_],
        scores: Sequence[float] | NDArray[np.floating[Any]] | None = None,
        labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        warnings: Sequence[str] = (),
    ) -> "Segmentation":
        """From whole masks ``(N, H, W)``; boxes are their tight boxes, empty masks are left out.

        Args:
            masks: ``(N, H, W)`` bool.
            scores: ``(N,)``; 1 where None.
            labels: ``(N,)``; 0 where None.
            warnings: See the class.
        """
        scores = np.ones(len(masks)) if scores is None else np.asarray(scores)
        labels = np.zeros(len(masks), int) if labels is None else np.asarray(labels)
        pieces = [
            Instance(mask, (0, 0), None, float(score), int(label))
            for mask, score, label in zip(masks, scores, labels, strict=True)
        ]
        height, width = masks.shape[1:]
        return merge_instances(pieces, (int(height), int(width)), warnings)

    @classmethod
    def empty(cls, shape: tuple[int, int], warnings: Sequence[str] = ()) -> "Segmentation":
        """Nothing found in an image ``(H, W)``."""
        return merge_instances([], shape, warnings)


def merge_instances(
    pieces: Sequence[Instance], shape: tuple[int, int], warnings: Sequence[str] = ()
) -> Segmentation:
    """Cuts crops to the image and their pixels, boxes to the image; sorts by score, drops empty."""
    kept = [cut for piece in pieces if (cut := crop_to_mask(piece, shape)) is not None]
    kept.sort(key=lambda piece: -piece.score)
    names = [piece.names for piece in kept if piece.names is not None]
    return Segmentation(
        shape=shape,
        crops=tuple(piece.crop for piece in kept),
        corners=np.array([piece.corner for piece in kept], np.int64).reshape(-1, 2),
        boxes=np.array([piece.box for piece in kept], np.float32).reshape(-1, 4),
        scores=np.array([piece.score for piece in kept], np.float32),
        labels=np.array([piece.label for piece in kept], np.int64),
        warnings=tuple(warnings),
        names=np.stack(names) if names else None,
    )
