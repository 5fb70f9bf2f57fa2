"""TODO docstring."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chromozoo.structures.arrays import BoolArray, IntArray


class Outlines(Protocol):
    """Where chromosomes lie in an image, such as a ``Segmentation``; or :class:`Boxes`."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)`` of the image."""
        ...

    @property
    def boxes(self) -> NDArray[np.floating[Any]]:
        """``(N, 4)`` xyxy in pixels."""
        ...

    @property
    def crops(self) -> tuple[BoolArray, ...] | None:
        """One mask ``(h, w)`` for each, amodal; None where there are boxes alone."""
        ...

    @property
    def corners(self) -> IntArray | None:
        """``(N, 2)``, row and column of each crop's upper left pixel."""
        ...


@dataclass(frozen=True, eq=False)
class Boxes:
    """Chromosomes of a data set or a detector that has no masks; see :class:`Outlines`."""

    shape: tuple[int, int]
    boxes: NDArray[np.floating[Any]]
    crops: None = None
    corners: None = None


@dataclass(frozen=True, eq=False)
class TrueCell:
    """A metaphase whose chromosomes are known.

    Attributes:
        name: Of the image.
        outlines: ``N`` chromosomes.
        classes: ``(N,)`` int, index into ``CLASSES``, -1 where no class is certain.
    """

    name: str
    outlines: Outlines
    classes: NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class FoundCell:
    """What a karyotyper made of one metaphase.

    Attributes:
        name: Of the image.
        outlines: ``N`` chromosomes.
        classes: ``(N,)`` int, index into ``CLASSES``: the final names.
        unassigned_classes: ``(N,)`` int, the names without the cell assignment; None where there was
            none.
        needs_review: ``(N,)`` bool, True where a human should look; None where nothing is flagged.
    """

    name: str
    outlines: Outlines
    classes: NDArray[np.integer[Any]]
    unassigned_classes: NDArray[np.integer[Any]] | None = None
    needs_review: BoolArray | None = None
