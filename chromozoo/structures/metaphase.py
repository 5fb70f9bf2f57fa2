"""Annotated metaphases, and checks of their annotations."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import DatasetError
from chromozoo.structures.polygons import (
    MAX_POLYGONS,
    OUTSIDE_TOLERANCE,
    polygon_area,
    polygon_mask,
)

# Limit for all masks of an image in bytes: 46 chromosomes in the largest sensible image.
MAX_MASK_BYTES = 4_000_000_000


@dataclass(frozen=True, eq=False)
class Metaphase:
    """One annotated image.

    Attributes:
        key: Name of the image in the split lists, such as ``"24a"``.
        image: ``(H, W)`` float32, grey values in the units of the file.
        polygons: Amodal outline ``(K, 2)`` float64 xy of each chromosome.
        labels: Label of each chromosome, as in the file.
        source: File name, for error messages.
        shapes: Name of each polygon in the file, for error messages: ``"shape 3"``.
        boxes_only: The polygons are axis-aligned boxes, because the data set has no outlines.
    """

    key: str
    image: NDArray[np.float32]
    polygons: list[NDArray[np.float64]]
    labels: list[str]
    source: str
    shapes: list[str]
    boxes_only: bool = False

    def masks(self) -> NDArray[np.bool_]:
        """Return the amodal masks ``(N, H, W)`` in the order of the polygons.

        Raises:
            DatasetError: The masks would need more than 4 GB.
        """
        height, width = self.image.shape
        if len(self.polygons) * height * width > MAX_MASK_BYTES:
            raise DatasetError(
                f"{self.source}: {len(self.polygons)} outlines in an image of {width}x{height} are "
                "too many to be masks; cut the cell out, or divide the image"
            )
        masks = np.zeros((len(self.polygons), height, width), np.bool_)
        for mask, polygon in zip(masks, self.polygons, strict=True):
            mask[:] = polygon_mask(polygon, height, width)
        return masks


class MetaphaseFiles(Protocol):
    """A set of metaphases on disk, decoded one at a time."""

    def keys(self) -> list[str]:
        """Return the names of the metaphases in natural order."""

    def read(self, key: str) -> Metaphase:
        """Decode one image and its annotation.

        Raises:
            DatasetError: The file is damaged; the message names it.
        """


def find_faults(metaphase: Metaphase) -> list[str]:
    """Return the faults of an annotation; each message names the file, the shape and the remedy."""
    height, width = metaphase.image.shape
    faults = []
    seen: dict[bytes, str] = {}
    if len(metaphase.polygons) > MAX_POLYGONS:
        faults.append(
            f"{metaphase.source}: the image has {len(metaphase.polygons)} outlines, more than any "
            f"metaphase ({MAX_POLYGONS}); divide it or annotate it again"
        )
        return faults
    if not metaphase.polygons:
        faults.append(
            f"{metaphase.source}: the image has no polygon; outline its chromosomes or remove it"
        )
    for polygon, shape in zip(metaphase.polygons, metaphase.shapes, strict=True):
        name = f"{metaphase.source}: {shape}"
        if len(polygon) < 3:
            faults.append(
                f"{name} has {len(polygon)} points, a polygon has 3 or more; draw it again as a "
                "polygon or remove it"
            )
            continue
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        if (low < -OUTSIDE_TOLERANCE).any() or (
            high > np.array([width, height]) + OUTSIDE_TOLERANCE
        ).any():
            faults.append(
                f"{name} reaches from {low[0]:g}, {low[1]:g} to {high[0]:g}, {high[1]:g}, out of "
                f"the image of {width}x{height}; move its points into the image"
            )
        elif (area := polygon_area(polygon)) < 1e-6 or (
            # Rasterising is slow, and only a small polygon can have no pixel.
            area < 4 and not polygon_mask(polygon, height, width).any()
        ):
            faults.append(f"{name} has no area; draw it again or remove it")
        elif (twin := seen.setdefault(polygon.tobytes(), shape)) != shape:
            faults.append(f"{name} is the same polygon as {twin}; remove one of them")
    return faults


def check_metaphase(metaphase: Metaphase) -> Metaphase:
    """Return the metaphase itself if its annotation has no faults.

    Raises:
        DatasetError: The annotation has faults; the message lists all of them.
    """
    if faults := find_faults(metaphase):
        raise DatasetError("\n".join(faults))
    return metaphase
