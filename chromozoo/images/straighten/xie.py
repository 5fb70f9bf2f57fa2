"""Straightening by Xie et al. 2019: one cut at the bend, and both halves turned upright.

N. Xie et al., "Statistical Karyotype Analysis Using CNN and Geometric Optimization", IEEE Access 7,
2019, section IV-C.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import Delaunay, QhullError

from chromozoo.images.straighten.curves import (
    MARGIN,
    arc_length,
    middle_of_outline,
    resample_curve,
    trace_outline,
    unit_vectors,
)
from chromozoo.structures.arrays import FloatArray

# Distance of the outline's samples in pixels, and minimum bend of the axis relative to its length.
# Xie et al. give neither.
SAMPLE_DISTANCE = 5.0
MIN_BEND = 0.10


def straighten_xie(
    signal: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    """Straighten a chromosome at its bend.

    Args:
        signal: Signal image ``(H, W)`` of the chromosome alone.
        mask: Mask ``(H, W)`` of the chromosome.

    Returns:
        ``(h, w)`` float32; None for a chromosome that is not bent or cannot be cut.
    """
    axis = delaunay_axis(mask) if middle_of_outline(mask) is not None else None
    if axis is None:
        return None
    first, last = axis[0], axis[-1]
    ends = unit_vectors(last - first)
    distances = np.abs(ends[0] * (axis[:, 1] - first[1]) - ends[1] * (axis[:, 0] - first[0]))
    bend = axis[np.argmax(distances)]
    if distances.max() < MIN_BEND * arc_length(axis)[-1]:
        return None
    # The paper describes neither the direction of the cut nor how the halves meet. Here the cut
    # halves the angle, and both halves keep the bend point. They then overlap outside the bend, and
    # leave a gap inside it.
    normal = unit_vectors(unit_vectors(bend - first) + unit_vectors(last - bend))
    side = (np.stack(np.meshgrid(*map(np.arange, mask.shape[::-1])), axis=-1) - bend) @ normal
    halves = [side < 0, side >= 0]
    pixels = [_mask_points(mask & half) - bend for half in halves]
    on_cut = _mask_points(mask & (np.abs(side) < 1)) - bend
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
        turned_signal, turned_half, turned_mask = (
            np.asarray(cv2.warpAffine(np.asarray(plane, np.float32), place, size))
            for plane in (signal, half, mask & half)
        )
        # With a threshold of 0.5, rounding would leave a seam.
        straight = np.maximum(straight, turned_signal * (turned_half >= 0.4))
        chromosome |= turned_mask >= 0.4
    inmost = on_cut[np.argmin(on_cut @ (bend - (first + last) / 2))]
    gap = np.zeros(chromosome.shape, np.uint8)
    corners = np.array([[0.0, 0.0], turns[0] @ inmost, turns[1] @ inmost]) - low
    cv2.fillConvexPoly(gap, np.rint(corners).astype(np.int32), 1)
    # Equation 2: missing pixels of a row become the mean of its other pixels.
    means = (straight * chromosome).sum(axis=1) / np.maximum(chromosome.sum(axis=1), 1)
    filled = np.where((gap > 0) & ~chromosome, means[:, None], straight)
    return np.asarray(filled, np.float32)


def delaunay_axis(mask: NDArray[np.bool_]) -> FloatArray | None:
    """Return the medial axis of Xie et al.: centres of the Delaunay triangles in the outline.

    The outline is sampled every 5 pixels. Where triangles branch off, the axis is the longest path
    through them, which is not in the paper.

    Args:
        mask: ``(H, W)`` bool, one connected component.

    Returns:
        Points (x, y) from the upper to the lower end, ``(N, 2)``; None for fewer than 3 points.
    """
    outline = trace_outline(mask)
    closed = np.vstack([outline, outline[:1]])
    samples = resample_curve(closed, max(round(arc_length(closed)[-1] / SAMPLE_DISTANCE), 6) + 1)[
        :-1
    ]
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
    # The centres alternate between left and right, so the axis runs midway between them. This step
    # is not in the paper.
    axis = (path[1:] + path[:-1]) / 2
    return axis if axis[0, 1] <= axis[-1, 1] else axis[::-1]


def longest_path(points: FloatArray, pairs: NDArray[np.int64]) -> FloatArray:
    """Return the longest of all shortest paths of a graph, by two sweeps (exact for trees).

    Args:
        points: ``(N, 2)`` x and y of the nodes.
        pairs: ``(E, 2)`` indices of connected nodes, each pair in both orders.

    Returns:
        Points along the path, ``(M, 2)``.
    """
    lengths = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    graph = csr_array((lengths, (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2)
    # A waist narrower than the samples splits the graph; its larger component is used.
    labels = connected_components(graph)[1]
    start = int(np.argmax(labels == np.bincount(labels).argmax()))
    for _ in range(2):
        distance, before = dijkstra(graph, indices=[start], return_predecessors=True)
        end, start = start, int(np.argmax(np.where(np.isfinite(distance[0]), distance[0], -1)))
    node, path = start, [start]
    while node != end:
        node = int(before[0, node])
        path.append(node)
    return points[path]


def _mask_points(mask: NDArray[np.bool_]) -> FloatArray:
    """Return the pixels (x, y) of a mask, ``(N, 2)``."""
    return np.argwhere(mask)[:, ::-1].astype(np.float64)


def _turn_to_vertical(points: FloatArray, direction: FloatArray) -> FloatArray:
    """Return the rotation ``(2, 2)`` that turns a half upright, with ``direction`` pointing down.

    The side of the smallest enclosing box that is nearest to ``direction`` becomes vertical; it is
    the long side of all but the shortest halves.
    """
    corners = np.asarray(cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32))), np.float64)
    sides = [corners[1] - corners[0], corners[2] - corners[1]]
    # The box of a line has one side of length 0, and that of a pixel two.
    longer = max(sides, key=np.linalg.norm)
    x, y = unit_vectors(longer if longer.any() else direction)
    options = np.array([[x, y], [-y, x], [-x, -y], [y, -x]])
    x, y = options[np.argmax(options @ direction)]
    return np.array([[y, -x], [x, y]])
