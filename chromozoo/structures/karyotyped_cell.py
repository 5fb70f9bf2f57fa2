"""Metaphases with classified chromosomes: the ground truth and a karyotyper's predictions."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chromozoo.structures.arrays import BoolArray, IntArray


class Instances(Protocol):
    """Places of the chromosomes of an image: a ``Segmentation`` or :class:`Boxes`."""

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
        """Amodal mask ``(h, w)`` of each instance; None if only boxes are known."""
        ...

    @property
    def corners(self) -> IntArray | None:
        """``(N, 2)``, row and column of each crop's upper left pixel; None without masks."""
        ...


@dataclass(frozen=True, eq=False)
class Boxes:
    """Chromosomes of a data set or a detector without masks; see :class:`Instances`."""

    shape: tuple[int, int]
    boxes: NDArray[np.floating[Any]]
    crops: None = None
    corners: None = None


@dataclass(frozen=True, eq=False)
class TrueCell:
    """Ground truth of a metaphase.

    Attributes:
        name: Name of the image.
        instances: The ``N`` annotated chromosomes.
        classes: ``(N,)`` int, index into ``CLASSES``; -1 where no class is certain.
    """

    name: str
    instances: Instances
    classes: NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class PredictedCell:
    """Prediction of a karyotyper for a metaphase.

    Attributes:
        name: Name of the image.
        instances: The ``N`` detected chromosomes.
        classes: ``(N,)`` int, index into ``CLASSES``: the final classes.
        unassigned_classes: ``(N,)`` int, the classes before the cell assignment; None without one.
        needs_review: ``(N,)`` bool, True where a human should look; None if nothing is flagged.
    """

    name: str
    instances: Instances
    classes: NDArray[np.integer[Any]]
    unassigned_classes: NDArray[np.integer[Any]] | None = None
    needs_review: BoolArray | None = None
