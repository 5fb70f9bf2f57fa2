"""TODO docstring."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import DatasetError
from chromozoo.structures.polygons import (
    MAX_OUTLINES,
    OUTSIDE_TOLERANCE,
    polygon_area,
    polygon_mask,
)

# Of all masks of an image, in bytes: 46 chromosomes in the largest image that is sensible.
MAX_MASK_BYTES = 4_000_000_000


@dataclass(frozen=True, eq=False)
class Metaphase:
    """One annotated image.

    Attributes:
        key: Its name in the split lists, such as ``"24a"``.
        image: ``(H, W)`` float32 grey in the units of the file.
        polygons: Outline ``(K, 2)`` float64 xy of each chromosome.
        labels: Of the chromosomes, as the file has them.
        source: File name, for errors.
        shapes: What the file calls each polygon, for errors: ``"shape 3"``.
        boxes_only: The polygons are upright boxes: of the outlines no more is known.
    """

    key: str
    image: NDArray[np.float32]
    polygons: list[NDArray[np.float64]]
    labels: list[str]
    source: str
    shapes: list[str]
    boxes_only: bool = False

    def masks(self) -> NDArray[np.bool_]:
        """``(N, H, W)``, amodal, in the order of the polygons.

        Raises:
            DatasetError: They would take more than 4 GB.
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
    """A set of metaphases on disk; nothing is decoded before it is read."""

    def keys(self) -> list[str]:
        """Names of the metaphases, in natural order."""

    def read(self, key: str) -> Metaphase:
        """Decodes one image and its outlines.

        Raises:
            DatasetError: The file is damaged; the message names it.
        """


def faults(metaphase: Metaphase) -> list[str]:
    """What is wrong with the outlines, each naming the file, the shape and the remedy."""
    height, width = metaphase.image.shape
    found = []
    seen: dict[bytes, str] = {}
    if len(metaphase.polygons) > MAX_OUTLINES:
        found.append(
            f"{metaphase.source}: the image has {len(metaphase.polygons)} outlines, more than any "
            f"metaphase ({MAX_OUTLINES}); divide it or annotate it again"
        )
        return found
    if not metaphase.polygons:
        found.append(
            f"{metaphase.source}: the image has no polygon; outline its chromosomes or remove it"
        )
    for polygon, shape in zip(metaphase.polygons, metaphase.shapes, strict=True):
        name = f"{metaphase.source}: {shape}"
        if len(polygon) < 3:
            found.append(
                f"{name} has {len(polygon)} points, a polygon has 3 or more; draw it again as a "
                "polygon or remove it"
            )
            continue
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        if (low < -OUTSIDE_TOLERANCE).any() or (
            high > np.array([width, height]) + OUTSIDE_TOLERANCE
        ).any():
            found.append(
                f"{name} reaches from {low[0]:g}, {low[1]:g} to {high[0]:g}, {high[1]:g}, out of "
                f"the image of {width}x{height}; move its points into the image"
            )
        elif (area := polygon_area(polygon)) < 1e-6 or (
            # Rasterising is slow, and only a sliver can be without a pixel.
            area < 4 and not polygon_mask(polygon, height, width).any()
        ):
            found.append(f"{name} has no area; draw it again or remove it")
        elif (twin := seen.setdefault(polygon.tobytes(), shape)) != shape:
            found.append(f"{name} is the same polygon as {twin}; remove one of them")
    return found


def check(metaphase: Metaphase) -> Metaphase:
    """The metaphase itself where nothing is wrong with it.

    Raises:
        DatasetError: Names all that is wrong.
    """
    if found := faults(metaphase):
        raise DatasetError("\n".join(found))
    return metaphase
