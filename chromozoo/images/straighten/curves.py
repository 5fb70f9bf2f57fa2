"""Geometry of curves and outlines for both methods of straightening."""

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.structures.arrays import FloatArray

# Background pixels around a straightened chromosome.
MARGIN = 1

# A chromosome shorter than this many of its widths (chromosome 21, a blob) has no bend to undo.
MIN_ELONGATION = 2.5
# Points that sample the outline, and pairs of opposite points among them.
OUTLINE_POINTS = 64
PAIRS = 12


def middle_of_outline(mask: NDArray[np.bool_]) -> tuple[FloatArray, float] | None:
    """Return a first guess of the medial axis: the line between the two sides of the outline.

    Of all divisions of the outline into two sides of about equal length, the one whose sides are
    closest together is used.

    Args:
        mask: ``(H, W)`` bool, one connected component.

    Returns:
        Points (x, y) of the line ``(PAIRS, 2)``, and the width across it; None for a component that
        is too short for its width.
    """
    outline = trace_outline(mask)
    if len(outline) < 8:
        return None
    points = resample_curve(np.vstack([outline, outline[:1]]), OUTLINE_POINTS + 1)[:-1]
    # Complex numbers index x and y together.
    plane = points[:, 0] + 1j * points[:, 1]
    one, other = plane[_ONE_SIDE], plane[_OTHER_SIDE]
    across = one - other
    distances = (across.real**2 + across.imag**2).mean(axis=-1)
    best = np.unravel_index(np.argmin(distances), distances.shape)
    middle = (one[best] + other[best]) / 2
    # The two sides of the outline of a line one pixel wide coincide.
    width = max(float(np.sqrt(distances[best])), 1.0)
    if np.count_nonzero(mask) < MIN_ELONGATION * width**2:
        return None
    return np.stack([middle.real, middle.imag], axis=1), width


def _pair_outline_points() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return indices of opposite points for all pairs of tips, each ``(start, length, PAIRS)``.

    The tips are the points ``start`` and ``start + length``. A bend makes one side longer, so
    several lengths are tried.
    """
    start = np.arange(OUTLINE_POINTS)[:, None, None]
    length = np.arange(OUTLINE_POINTS // 3, OUTLINE_POINTS // 2 + 1)[:, None]
    # The sides meet at the tips, wherever these are, so points near the tips are left out.
    share = np.linspace(0.12, 0.88, PAIRS)
    one = start + np.rint(length * share).astype(int)
    other = start - np.rint((OUTLINE_POINTS - length) * share).astype(int)
    return one % OUTLINE_POINTS, other % OUTLINE_POINTS


_ONE_SIDE, _OTHER_SIDE = _pair_outline_points()


def trace_outline(mask: NDArray[np.bool_]) -> FloatArray:
    """Return the points (x, y) of the longest outer contour of a mask, ``(N, 2)``."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(max(contours, key=len)[:, 0], np.float64)


def arc_length(line: FloatArray) -> FloatArray:
    """Return the distance of each point ``(N, 2)`` from the first along the curve, ``(N,)``."""
    steps = np.diff(line, axis=0)
    return np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])


def resample_curve(line: FloatArray, count: int | None = None) -> FloatArray:
    """Resample a curve ``(N, 2)`` at ``count`` equidistant points, or points one pixel apart."""
    along = arc_length(line)
    if count is None:
        count = int(along[-1]) + 1
        # Both ends share the remainder, so that an image upside down gives the same points.
        places = (along[-1] - (count - 1)) / 2 + np.arange(count)
    else:
        places = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(places, along, line[:, k]) for k in (0, 1)], axis=1)


def unit_vectors(vectors: FloatArray) -> FloatArray:
    """Normalise vectors ``(..., 2)`` to length 1."""
    scaled: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return scaled
