"""Straightening along a smooth medial axis."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

from chromozoo.images.rotate_crop import RIM
from chromozoo.images.straighten.curves import (
    MARGIN,
    middle_of_outline,
    resample_curve,
    unit_vectors,
)
from chromozoo.structures.arrays import FloatArray

ROUNDS = 2
# Bends shorter than about twice the width (2 pi * 0.3) are smoothed away.
STIFFNESS = 0.3
# The axis is undefined in the rounded ends, which are this many widths long.
TIP = 0.5


def smooth_axis(mask: NDArray[np.bool_]) -> FloatArray | None:
    """Return the smooth medial axis of an elongated component, from its upper to its lower end.

    The outline gives a first guess (:func:`~chromozoo.images.straighten.curves.middle_of_outline`).
    The line is then moved to the middle of the mask, row by row of a grid across the line, and
    smoothed. Its ends are extended straight to both tips.

    Args:
        mask: ``(H, W)`` bool, one connected component.

    Returns:
        Points (x, y) one pixel apart, ``(N, 2)``; None for a component that is too round or too
        coiled to have an axis.
    """
    guess = middle_of_outline(mask)
    if guess is None:
        return None
    line, width = guess
    inside = np.asarray(np.pad(mask, 1), np.float32)
    offsets = np.arange(-np.ceil(0.9 * width), np.ceil(0.9 * width) + 1)
    line = resample_curve(line + 1)
    if len(line) < 3:
        return None
    line = _smooth_curve(line, np.ones(len(line)), width)
    for remaining in range(ROUNDS, -1, -1):
        line = resample_curve(_extend_curve(line, 1.5 * width))
        x, y, normals = _curve_grid(line, offsets)
        rows = np.asarray(cv2.remap(inside, x, y, cv2.INTER_LINEAR), np.float64)
        area = rows.sum(axis=1)
        # A hooked end may point at the rest of the chromosome: keep the connected rows only.
        middle = len(line) // 2
        empty = np.flatnonzero(area < 0.5)
        low = int(empty[empty <= middle].max(initial=-1)) + 1
        high = int(empty[empty >= middle].min(initial=len(line)))
        if high - low < 3:
            return None
        if not remaining:
            break
        centre = (rows @ offsets) / np.maximum(area, 1e-6)
        place = np.arange(len(line))
        between = (place >= low + TIP * width) & (place < high - TIP * width)
        weights = between * np.minimum(area / width, 1.0)
        if np.count_nonzero(weights) < 3:
            return None
        line = _smooth_curve(line + centre[:, None] * normals, weights, width)[low:high]
    line = line[low:high] - 1
    return line if line[0, 1] <= line[-1, 1] else line[::-1]


def along_axis(
    signal: NDArray[np.float32], mask: NDArray[np.bool_], axis: FloatArray
) -> NDArray[np.float32]:
    """Resample a signal image on a grid along an axis, with rows one pixel apart across it.

    Args:
        signal: Signal image ``(H, W)``.
        mask: Mask ``(H, W)`` of the chromosome; pixels beyond its blurred rim are cleared.
        axis: Points (x, y) one pixel apart, ``(N, 2)``.

    Returns:
        ``(h, w)`` float32, cut to the chromosome with a margin of one pixel.
    """
    reach = np.count_nonzero(mask) / len(axis)
    offsets = np.arange(-np.ceil(reach), np.ceil(reach) + 1)
    x, y, _ = _curve_grid(resample_curve(_extend_curve(axis, RIM + MARGIN)), offsets)
    inside = np.asarray(cv2.remap(mask.astype(np.float32), x, y, cv2.INTER_LINEAR)) >= 0.5
    # Across a sharp bend the grid meets the other arm again, so the largest component is kept.
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=4)
    inside = labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
    near = cv2.dilate(inside.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8))
    straight = cv2.remap(signal, x, y, cv2.INTER_LINEAR) * near
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = tuple(
        slice(max(places[0] - MARGIN, 0), places[-1] + MARGIN + 1) for places in (rows, columns)
    )
    return np.asarray(straight, np.float32)[box]


def _extend_curve(line: FloatArray, by: float) -> FloatArray:
    """Extend a curve ``(N, 2)`` by a straight segment of ``by`` pixels at each end."""
    first, last = unit_vectors(line[[0, -1]] - line[[1, -2]]) * by
    return np.vstack([line[0] + first, line, line[-1] + last])


def _curve_grid(
    line: FloatArray, offsets: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32], FloatArray]:
    """Return x and y ``(N, offsets)`` of a grid along a curve, and the normals ``(N, 2)``.

    The normals of a downward curve point right in the image (x, y), so that the grid does not
    mirror the image.
    """
    tangents = unit_vectors(np.gradient(line, axis=0))
    normals = np.stack([tangents[:, 1], -tangents[:, 0]], axis=1)
    x, y = ((line[:, k, None] + normals[:, k, None] * offsets).astype(np.float32) for k in (0, 1))
    return x, y, normals


def _smooth_curve(line: FloatArray, weights: FloatArray, width: float) -> FloatArray:
    """Smooth a curve by Whittaker's smoother (Eilers 2003), which penalises second differences.

    Args:
        line: Points ``(N, 2)``, 3 or more.
        weights: ``(N,)``; the curve is extrapolated straight where the weight is 0.
        width: Width of the chromosome in pixels, the unit of the stiffness.
    """
    count = len(line)
    weights = weights + 1e-6  # keeps the equations solvable for all weights
    # Band matrix of the squared second differences.
    bands = np.zeros((3, count))
    for first, factor in ((0, 1.0), (1, -2.0), (2, 1.0)):
        for second, other in ((0, 1.0), (1, -2.0), (2, 1.0)):
            if second >= first:
                bands[2 - (second - first), second : count - 2 + second] += factor * other
    bands *= (STIFFNESS * width) ** 4
    bands[2] += weights
    smooth: FloatArray = solveh_banded(bands, line * weights[:, None], check_finite=False)
    return smooth
