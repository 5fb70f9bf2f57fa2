"""Straightening: a bent chromosome becomes a straight one.

Two methods. ``"axis"`` (ours, the default) finds a smooth medial axis and reads the image along
it, so length, width and bands stay. ``"xie"`` follows N. Xie et al., "Statistical Karyotype
Analysis Using CNN and Geometric Optimization", IEEE Access 7, 2019, section IV-C: it cuts the
chromosome once, at its bend, turns both halves upright and fills the gap between them.

Which end is up does not change: the upper end of the image's chromosome is the upper one of the
result. Polarity is as open as before.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import Delaunay, QhullError

from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.images.rotate_crop import RIM, RotateCrop
from chromozoo.images.signal import foreground
from chromozoo.structures.arrays import FloatArray

StraightenMethod = Literal["axis", "xie"]

MARGIN = 1
FRAME = 8

# What is shorter than this many of its widths (chromosome 21, a blob) shows no bend to undo.
MIN_ELONGATION = 2.5
# The first guess: the outline as this many points, paired across at this many places.
OUTLINE_POINTS = 64
PAIRS = 12
ROUNDS = 2
# Bends shorter than about twice the width are smoothed away: 2 pi * 0.3.
STIFFNESS = 0.3
# The rounded ends of this many widths do not tell where the axis runs.
TIP = 0.5

# Xie et al. give neither the distance of the samples (in pixels) nor when to leave it.
XIE_SAMPLE_DISTANCE = 5.0
XIE_MIN_BEND = 0.10


def straighten(
    signal: NDArray[np.float32], method: StraightenMethod = "axis"
) -> NDArray[np.float32]:
    """Straightens the chromosome of a signal image.

    Args:
        signal: Signal image ``(H, W)`` float32 0..1, background 0; best an upright one (the output
            of :class:`chromozoo.images.rotate_crop.RotateCrop`), so that up stays up.
        method: ``"axis"`` or ``"xie"``.

    Returns:
        ``(h, w)`` float32 0..1, long axis vertical, pixels of the same size, cut to the chromosome
        with a margin of one pixel. A chromosome with no bend to find is turned upright only.

    Raises:
        ImageError: The signal image is empty.
        UnknownNameError: No such method.
    """
    if method not in ("axis", "xie"):
        raise UnknownNameError(f"unknown method {method!r}; use axis or xie")
    # A tight crop has too little background for Otsu's threshold, and would lose its blurred ends.
    signal = np.pad(signal, FRAME)
    mask = foreground(signal)
    if not mask.any():
        raise ImageError(
            "the signal image is all background, there is no chromosome; make it with "
            "signal_image, which checks this"
        )
    rim = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8))
    alone = np.asarray(signal * rim, np.float32)
    straight = None
    if method == "xie":
        straight = _straighten_xie(alone, mask)
    elif (axis := smooth_axis(mask)) is not None:
        straight = along_axis(alone, mask, axis)
    return RotateCrop(margin=MARGIN)(signal) if straight is None else straight


def smooth_axis(mask: NDArray[np.bool_]) -> FloatArray | None:
    """The medial axis of an elongated piece as a smooth line, from its upper to its lower end.

    The outline gives a first guess: of all ways to part it into two sides of about equal length,
    the one whose sides lie closest together, and the line between them. Then the line is moved to
    the middle of the mask, row by row of a grid that stands on it, and smoothed. Its ends run on
    straight to both tips.

    Args:
        mask: ``(H, W)`` bool, one connected piece.

    Returns:
        Points (x, y) one pixel apart, ``(N, 2)``; None where the piece is so short and round, or
        so coiled, that no axis can be told.
    """
    guess = _middle_of_outline(mask)
    if guess is None:
        return None
    line, width = guess
    inside = np.asarray(np.pad(mask, 1), np.float32)
    offsets = np.arange(-np.ceil(0.9 * width), np.ceil(0.9 * width) + 1)
    line = _evenly(line + 1)
    if len(line) < 3:
        return None
    line = _smooth(line, np.ones(len(line)), width)
    for remaining in range(ROUNDS, -1, -1):
        line = _evenly(_prolonged(line, 1.5 * width))
        x, y, normals = _grid(line, offsets)
        rows = np.asarray(cv2.remap(inside, x, y, cv2.INTER_LINEAR), np.float64)
        area = rows.sum(axis=1)
        # A hooked end may point at the rest of the chromosome: take what hangs together.
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
        line = _smooth(line + centre[:, None] * normals, weights, width)[low:high]
    line = line[low:high] - 1
    return line if line[0, 1] <= line[-1, 1] else line[::-1]


def along_axis(
    signal: NDArray[np.float32], mask: NDArray[np.bool_], axis: FloatArray
) -> NDArray[np.float32]:
    """Reads a signal image on a grid that stands on an axis: rows across it, one pixel apart.

    Args:
        signal: Signal image ``(H, W)``.
        mask: The chromosome's pixels ``(H, W)``; what lies further from them than their blurred
            rim is left out.
        axis: Points (x, y) one pixel apart, ``(N, 2)``.

    Returns:
        ``(h, w)`` float32, cut to the chromosome with a margin of one pixel.
    """
    reach = np.count_nonzero(mask) / len(axis)
    offsets = np.arange(-np.ceil(reach), np.ceil(reach) + 1)
    x, y, _ = _grid(_evenly(_prolonged(axis, RIM + MARGIN)), offsets)
    inside = np.asarray(cv2.remap(mask.astype(np.float32), x, y, cv2.INTER_LINEAR)) >= 0.5
    # Across a sharp bend the grid meets the other arm once more.
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=4)
    inside = pieces == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
    near = cv2.dilate(inside.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8))
    straight = cv2.remap(signal, x, y, cv2.INTER_LINEAR) * near
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = tuple(
        slice(max(places[0] - MARGIN, 0), places[-1] + MARGIN + 1) for places in (rows, columns)
    )
    return np.asarray(straight, np.float32)[box]


def _middle_of_outline(mask: NDArray[np.bool_]) -> tuple[FloatArray, float] | None:
    """The line between the two sides of the outline, ``(PAIRS, 2)``, and the width across it.

    None where the piece is too short for its width.
    """
    outline = _outline(mask)
    if len(outline) < 8:
        return None
    points = _evenly(np.vstack([outline, outline[:1]]), OUTLINE_POINTS + 1)[:-1]
    # As complex numbers, one look-up serves x and y.
    plane = points[:, 0] + 1j * points[:, 1]
    one, other = plane[_ONE_SIDE], plane[_OTHER_SIDE]
    across = one - other
    apart = (across.real**2 + across.imag**2).mean(axis=-1)
    best = np.unravel_index(np.argmin(apart), apart.shape)
    middle = (one[best] + other[best]) / 2
    # A line one pixel wide has an outline that goes there and back.
    width = max(float(np.sqrt(apart[best])), 1.0)
    if np.count_nonzero(mask) < MIN_ELONGATION * width**2:
        return None
    return np.stack([middle.real, middle.imag], axis=1), width


def _sides_of_outline() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Points of both sides for all tips, each ``(start, length, PAIRS)``.

    The tips are the points ``start`` and ``start + length``: a bend makes one side longer.
    """
    start = np.arange(OUTLINE_POINTS)[:, None, None]
    length = np.arange(OUTLINE_POINTS // 3, OUTLINE_POINTS // 2 + 1)[:, None]
    # At the tips themselves the sides meet wherever one puts the tips.
    share = np.linspace(0.12, 0.88, PAIRS)
    one = start + np.rint(length * share).astype(int)
    other = start - np.rint((OUTLINE_POINTS - length) * share).astype(int)
    return one % OUTLINE_POINTS, other % OUTLINE_POINTS


_ONE_SIDE, _OTHER_SIDE = _sides_of_outline()


def _outline(mask: NDArray[np.bool_]) -> FloatArray:
    """Points (x, y) of the longest outer contour, ``(N, 2)``."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(max(contours, key=len)[:, 0], np.float64)


def _arc_length(line: FloatArray) -> FloatArray:
    """Distance of each point from the first, along the line."""
    steps = np.diff(line, axis=0)
    return np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])


def _evenly(line: FloatArray, count: int | None = None) -> FloatArray:
    """The same line as ``count`` equidistant points, or points one pixel apart."""
    along = _arc_length(line)
    if count is None:
        count = int(along[-1]) + 1
        # What is left over is shared by both ends: an image upside down gives the same points.
        places = (along[-1] - (count - 1)) / 2 + np.arange(count)
    else:
        places = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(places, along, line[:, k]) for k in (0, 1)], axis=1)


def _prolonged(line: FloatArray, by: float) -> FloatArray:
    """The line with a straight piece of ``by`` pixels at each end."""
    first, last = _unit(line[[0, -1]] - line[[1, -2]]) * by
    return np.vstack([line[0] + first, line, line[-1] + last])


def _unit(vectors: FloatArray) -> FloatArray:
    scaled: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return scaled


def _grid(
    line: FloatArray, offsets: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32], FloatArray]:
    """X and y ``(N, offsets)`` of a grid that stands on a line, and the normals ``(N, 2)``.

    The normals point to the right of one that goes down. So a line that goes down gets the grid of
    the image itself, not its mirror image.
    """
    tangents = _unit(np.gradient(line, axis=0))
    normals = np.stack([tangents[:, 1], -tangents[:, 0]], axis=1)
    x, y = ((line[:, k, None] + normals[:, k, None] * offsets).astype(np.float32) for k in (0, 1))
    return x, y, normals


def _smooth(line: FloatArray, weights: FloatArray, width: float) -> FloatArray:
    """Whittaker's smoother (Eilers 2003): close to the points, small second differences.

    Where the weight is 0 the line runs on straight. It must have 3 points or more.
    """
    count = len(line)
    weights = weights + 1e-6  # the equations have one solution whatever the weights are
    # The band matrix of the squared second differences.
    bands = np.zeros((3, count))
    for first, factor in ((0, 1.0), (1, -2.0), (2, 1.0)):
        for second, other in ((0, 1.0), (1, -2.0), (2, 1.0)):
            if second >= first:
                bands[2 - (second - first), second : count - 2 + second] += factor * other
    bands *= (STIFFNESS * width) ** 4
    bands[2] += weights
    smooth: FloatArray = solveh_banded(bands, line * weights[:, None], check_finite=False)
    return smooth


# Xie et al. 2019


def _straighten_xie(
    signal: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    axis = delaunay_axis(mask) if _middle_of_outline(mask) is not None else None
    if axis is None:
        return None
    first, last = axis[0], axis[-1]
    ends = _unit(last - first)
    apart = np.abs(ends[0] * (axis[:, 1] - first[1]) - ends[1] * (axis[:, 0] - first[0]))
    bend = axis[np.argmax(apart)]
    if apart.max() < XIE_MIN_BEND * _arc_length(axis)[-1]:
        return None
    # Neither how the cut runs nor how the halves meet is in the paper. Ours: it halves the angle,
    # and the bend point stays one point. The halves then overlap outside of the bend, and gape
    # inside of it.
    normal = _unit(_unit(bend - first) + _unit(last - bend))
    side = (np.stack(np.meshgrid(*map(np.arange, mask.shape[::-1])), axis=-1) - bend) @ normal
    halves = [side < 0, side >= 0]
    pixels = [_points(mask & half) - bend for half in halves]
    on_cut = _points(mask & (np.abs(side) < 1)) - bend
    if not all(len(points) for points in (*pixels, on_cut)):  # folded back upon itself
        return None
    turns = [
        _turn_to_vertical(points, direction)
        for points, direction in zip(pixels, (bend - first, last - bend), strict=True)
    ]
    turned = np.vstack([points @ turn.T for points, turn in zip(pixels, turns, strict=True)])
    low = np.floor(turned.min(axis=0)) - MARGIN
    size = tuple(int(length) for length in np.ceil(turned.max(axis=0)) + MARGIN - low + 1)
    straight = np.zeros(size[::-1], np.float32)
    chromosome = np.zeros(size[::-1], bool)
    for half, turn in zip(halves, turns, strict=True):
        place = np.hstack([turn, (-turn @ bend - low)[:, None]])
        seen, of_half, inside = (
            np.asarray(cv2.warpAffine(np.asarray(plane, np.float32), place, size))
            for plane in (signal, half, mask & half)
        )
        # Less than a half of a pixel: else rounding leaves a seam.
        straight = np.maximum(straight, seen * (of_half >= 0.4))
        chromosome |= inside >= 0.4
    inmost = on_cut[np.argmin(on_cut @ (bend - (first + last) / 2))]
    gap = np.zeros(chromosome.shape, np.uint8)
    corners = np.array([[0.0, 0.0], turns[0] @ inmost, turns[1] @ inmost]) - low
    cv2.fillConvexPoly(gap, np.rint(corners).astype(np.int32), 1)
    # Equation 2: what is missing of a row becomes the mean of what is there.
    means = (straight * chromosome).sum(axis=1) / np.maximum(chromosome.sum(axis=1), 1)
    filled = np.where((gap > 0) & ~chromosome, means[:, None], straight)
    return np.asarray(filled, np.float32)


def delaunay_axis(mask: NDArray[np.bool_]) -> FloatArray | None:
    """The medial axis of Xie et al.: centres of the Delaunay triangles within the outline.

    The outline is sampled every 5 pixels. Where triangles branch off, the longest way through
    them is the axis (ours).

    Returns:
        Points (x, y) from the upper to the lower end, ``(N, 2)``; None for fewer than 3 of them.
    """
    outline = _outline(mask)
    closed = np.vstack([outline, outline[:1]])
    samples = _evenly(closed, max(round(_arc_length(closed)[-1] / XIE_SAMPLE_DISTANCE), 6) + 1)[:-1]
    try:
        mesh = Delaunay(samples)
    except QhullError:  # all on one line
        return None
    centres = samples[mesh.simplices].mean(axis=1)
    polygon = outline.astype(np.float32)
    inside = np.array([cv2.pointPolygonTest(polygon, c.tolist(), False) >= 0 for c in centres])
    pairs = np.array(
        [
            (triangle, neighbour)
            for triangle, neighbours in enumerate(mesh.neighbors)
            for neighbour in neighbours
            if neighbour >= 0 and inside[triangle] and inside[neighbour]
        ]
    )
    if len(pairs) == 0:
        return None
    path = longest_path(centres, pairs)
    if len(path) < 4:
        return None
    # The centres lie left and right in turn; what they mean is the line between them (ours).
    axis = (path[1:] + path[:-1]) / 2
    return axis if axis[0, 1] <= axis[-1, 1] else axis[::-1]


def longest_path(points: FloatArray, pairs: NDArray[np.int64]) -> FloatArray:
    """The longest of all shortest ways through a graph, by two sweeps (exact for trees).

    Args:
        points: ``(N, 2)`` x and y of the nodes.
        pairs: ``(E, 2)`` nodes that are joined, each pair in both orders.

    Returns:
        The points along the way, ``(M, 2)``.
    """
    lengths = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    graph = csr_array((lengths, (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2)
    # A waist narrower than the samples parts the graph: the larger piece counts.
    pieces = connected_components(graph)[1]
    start = int(np.argmax(pieces == np.bincount(pieces).argmax()))
    for _ in range(2):
        distance, before = dijkstra(graph, indices=[start], return_predecessors=True)
        end, start = start, int(np.argmax(np.where(np.isfinite(distance[0]), distance[0], -1)))
    node, path = start, [start]
    while node != end:
        node = int(before[0, node])
        path.append(node)
    return points[path]


def _points(mask: NDArray[np.bool_]) -> FloatArray:
    """Pixels (x, y) of a mask, ``(N, 2)``."""
    return np.argwhere(mask)[:, ::-1].astype(np.float64)


def _turn_to_vertical(points: FloatArray, direction: FloatArray) -> FloatArray:
    """Turn ``(2, 2)`` that makes the smallest box of a part upright, ``direction`` pointing down.

    Of the box's two directions it is the one nearest to ``direction``: the long one of all but
    the shortest parts.
    """
    corners = np.asarray(cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32))), np.float64)
    sides = [corners[1] - corners[0], corners[2] - corners[1]]
    # A line has one side, a pixel none.
    longer = max(sides, key=np.linalg.norm)
    x, y = _unit(longer if longer.any() else direction)
    options = np.array([[x, y], [-y, x], [-x, -y], [y, -x]])
    x, y = options[np.argmax(options @ direction)]
    return np.array([[y, -x], [x, y]])
