"""Objects of a foreground: sizes, grey levels, and which of them may be chromosomes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Minimum area, and minimum and maximum width of a chromosome, in pixels.
MIN_AREA, MIN_WIDTH, MAX_WIDTH = 40, 3.0, 60.0
# Minimum ratio of area to squared width of a rod or a cluster of rods; that of a disc is 0.8.
MIN_LENGTH = 1.7
# Minimum number of objects that represent the chromosomes.
MIN_TYPICAL = 5
# Fraction of an object's pixels below the object's level.
LEVEL_FRACTION = 0.9


@dataclass(frozen=True, eq=False)
class Objects:
    """Connected components of a foreground, measured in a copy of lower resolution.

    Attributes:
        labels: ``(h, w)`` int32 in pixels of the copy, 0 background, else 1 + index of the object.
        boxes: ``(N, 4)``, left, top, width and height in pixels of the image.
        areas: ``(N,)`` in pixels of the image.
        widths: ``(N,)``, width of the widest place, in pixels of the image.
        levels: ``(N,)``, departure from the background.
        departures: ``(P,)``, departures of all pixels of all objects.
        owners: ``(P,)``, index of the object of each pixel.
    """

    labels: NDArray[np.int32]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    widths: NDArray[np.float64]
    levels: NDArray[np.float64]
    departures: NDArray[np.float32]
    owners: NDArray[np.int64]

    @property
    def plausible(self) -> NDArray[np.bool_]:
        """``(N,)`` bool, objects that may be chromosomes by area and width."""
        return (self.areas >= MIN_AREA) & (self.widths >= MIN_WIDTH) & (self.widths <= MAX_WIDTH)

    @property
    def long(self) -> NDArray[np.bool_]:
        """``(N,)`` bool, plausible objects that are rods or clusters of rods."""
        return self.plausible & (self.areas >= MIN_LENGTH * np.maximum(self.widths, 1) ** 2)

    @property
    def typical(self) -> NDArray[np.bool_]:
        """``(N,)`` bool, objects that represent the chromosomes; all False if too few do."""
        for candidates in (self.long, self.plausible):
            if int(candidates.sum()) >= MIN_TYPICAL:
                return candidates
        return np.zeros(len(self.areas), bool)

    @property
    def typical_level(self) -> float:
        """Level of the median chromosome; 0 if no object represents the chromosomes."""
        typical = self.typical
        return float(np.median(self.levels[typical])) if typical.any() else 0.0


def measure_objects(
    foreground: NDArray[np.bool_], departure: NDArray[np.float32], step: int
) -> Objects:
    """Measure the objects of a foreground.

    Args:
        foreground: ``(h, w)`` bool, every ``step``-th row and column of the image.
        departure: ``(h, w)``, departure from the background.
        step: Pixels of the image per pixel of the copy.
    """
    mask = foreground.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    distance = cv2.distanceTransform(np.pad(mask, 1, mode="edge"), cv2.DIST_L2, 3)[1:-1, 1:-1]
    owners = labels[foreground].astype(np.int64) - 1
    departures = departure[foreground]
    half_widths = np.zeros(count - 1)
    np.maximum.at(half_widths, owners, distance[foreground])
    areas = stats[1:, cv2.CC_STAT_AREA].astype(np.float64)
    # Once the pixels are sorted by object and departure, a percentile is a place in the order.
    order = np.lexsort((departures, owners))
    starts = np.concatenate([[0], np.cumsum(areas)[:-1]])
    places = (starts + LEVEL_FRACTION * (areas - 1)).astype(np.int64)
    levels = departures[order][places].astype(np.float64)
    return Objects(
        np.asarray(labels, np.int32),
        stats[1:, : cv2.CC_STAT_HEIGHT + 1].astype(np.float64) * step,
        areas * step**2,
        (2 * half_widths - 1) * step,
        levels,
        departures,
        owners,
    )
