"""Detection of the field of view in an image.

A screen shot has a frame, and the round field of a microscope has a screen around it. Both are
uniform, reach the border of the image, end sharply and leave one convex field. If a frame differs
from the background, it would spoil the measurement of background, stain and contrast.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# The field is detected in a copy whose longer side has at most this many pixels.
SEARCH_SIDE = 400
# Tolerance of a frame's level, relative to the image's range.
TOLERANCE = 0.03
# A level may be that of a frame if this share of the image's border has it.
MIN_BORDER = 0.04
# Minimum areas of a frame, a rectangular field and a round field, relative to the image.
MIN_FRAME, MIN_FIELD, MIN_ROUND_FIELD = 0.004, 0.12, 0.2
# Maximum share of the field's convex hull that the frame covers, and of the frame that lies in the
# hull, because of letters and JPEG artefacts.
MAX_COVERED, MAX_INSIDE = 0.04, 0.2
# Minimum share of its convex hull that the field fills.
MIN_SOLIDITY = 0.93
# A rectangle fills this share of its bounding box.
MIN_RECTANGLE = 0.97
# The edge of the field differs from the frame by MIN_JUMP tolerances along MIN_SHARP of its length.
MIN_JUMP, MIN_SHARP = 2.0, 0.85
# Minimum contrast in the field, relative to the difference between field and frame, and minimum
# number of objects inside for each object outside, by whether the field is a rectangle.
MIN_CONTRAST = {False: (0.05, 1.0), True: (0.03, 0.2)}
MIN_OBJECTS = 3
# Width of the edge in pixels of the copy: the level changes by less than FADED over the next three
# pixels. Edges out of focus are wider, and a wider edge than MAX_EDGE is the haze around a cell.
SHARP_EDGE, MAX_EDGE, FADED = 2, 10, 0.02
# Minimum difference between a round field and its frame, relative to the contrast in the field, if
# chromosomes and field depart in the same direction: a smaller one is haze, or harmless.
MIN_STEP = 0.3
# Minimum number of pixels of an edge.
MIN_EDGE_PIXELS = 4


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame or screen around the field of view.

    Attributes:
        field: ``(H, W)`` bool, pixels of the field.
        share: Share of the image outside the field, 0..1.
        level: Grey level of the frame.
        shape: ``"frame"`` around a rectangle, or ``"screen"`` around a round field.
        colour: ``"black"``, ``"white"`` or ``"grey"``.
    """

    field: NDArray[np.bool_]
    share: float
    level: float
    shape: str
    colour: str

    def describe(self) -> str:
        """Return a sentence for the user."""
        return f"a {self.colour} {self.shape} of {self.share:.0%} of the image was cut off"


def find_frame(grey: NDArray[np.float32], small: NDArray[np.float32] | None = None) -> Frame | None:
    """Find the frame or screen around the field of view.

    Args:
        grey: ``(H, W)`` in any units.
        small: Output of :func:`downscale`, if it has been computed already.

    Returns:
        The frame; None as a rule.
    """
    height, width = grey.shape
    small = downscale(grey) if small is None else small
    if min(small.shape) < MAX_EDGE:
        return None
    low, high = (float(value) for value in np.percentile(small, (0.5, 99.5)))
    value_range = high - low
    if value_range <= 0:
        return None
    for level in _border_levels(small, low, high):
        result = _find_field(small, level, TOLERANCE * value_range)
        if result is None:
            continue
        field, is_rectangle = result
        share = 1 - float(field.mean())
        full_size = cv2.resize(
            field.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )
        place = (level - low) / value_range
        colour = "black" if place < 0.1 else "white" if place > 0.9 else "grey"
        return Frame(
            np.asarray(full_size) > 0,
            share,
            level,
            "frame" if is_rectangle else "screen",
            colour,
        )
    return None


def _border_levels(small: NDArray[np.float32], low: float, high: float) -> list[float]:
    """Return the levels of large parts of the border, the most frequent first."""
    border = np.concatenate(
        [small[:2].ravel(), small[-2:].ravel(), small[:, :2].ravel(), small[:, -2:].ravel()]
    )
    bins = 24
    step = (high - low) / bins
    index = np.clip(np.rint((border - low) / step), 0, bins).astype(np.int64)
    counts = np.bincount(index, minlength=bins + 1)
    return [
        float(np.median(border[index == k]))
        for k in np.argsort(-counts, kind="stable")
        if counts[k] >= MIN_BORDER * border.size
    ]


def _find_field(
    small: NDArray[np.float32], level: float, tolerance: float
) -> tuple[NDArray[np.bool_], bool] | None:
    """Return the field ``(h, w)`` in a frame of this level, and whether it is a rectangle."""
    is_level = (np.abs(small - level) <= tolerance).astype(np.uint8)
    _, labels = cv2.connectedComponents(is_level, connectivity=4)
    touching = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    sizes = np.bincount(labels.ravel())
    large = [k for k in touching if k and sizes[k] >= MIN_FRAME * small.size]
    if not large:
        return None
    is_large = np.zeros(len(sizes), bool)
    is_large[large] = True
    frame = is_large[labels]
    count, regions, stats, _ = cv2.connectedComponentsWithStats(
        (~frame).astype(np.uint8), connectivity=4
    )
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    area = int(stats[largest, cv2.CC_STAT_AREA])
    if area < MIN_FIELD * small.size:
        return None
    outlines, _ = cv2.findContours(
        (regions == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    hull = np.zeros(small.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(max(outlines, key=cv2.contourArea)), 1)
    inside = hull > 0
    covered = int((frame & inside).sum())
    if covered > MAX_COVERED * inside.sum() or covered > MAX_INSIDE * frame.sum():
        return None
    if area < MIN_SOLIDITY * inside.sum():
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0])
    is_rectangle = bool(inside.sum() >= MIN_RECTANGLE * box)
    if not is_rectangle and inside.sum() < MIN_ROUND_FIELD * small.size:
        return None
    # Distances are measured from the frame, so the border of the image is not an edge.
    is_field = (~frame | inside).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(is_field, cv2.DIST_L2, 5), np.float32)
    departure = np.abs(small - level)
    width = _measure_edge_width(distance, departure, inside)
    if width is None:
        return None
    inner = inside & (distance > width)
    edge = departure[inner & (distance <= width + 2)]
    if edge.size < MIN_EDGE_PIXELS or float((edge > MIN_JUMP * tolerance).mean()) < MIN_SHARP:
        return None
    if not _shows_cell(small, inner, inside, level, is_rectangle):
        return None
    return inner, is_rectangle


def _measure_edge_width(
    distance: NDArray[np.float32], departure: NDArray[np.float32], inside: NDArray[np.bool_]
) -> int | None:
    """Return the width in pixels of the edge between frame and field; None if it is too wide.

    Args:
        distance: ``(h, w)``, distance from the frame.
        departure: ``(h, w)``, departure from the level of the frame.
        inside: ``(h, w)``, mask of the field.
    """
    steps = np.rint(distance[inside]).astype(np.int64)
    levels = departure[inside]
    medians = [
        float(np.median(levels[steps == step])) if (steps == step).any() else 0.0
        for step in range(MAX_EDGE + 4)
    ]
    for width in range(SHARP_EDGE, MAX_EDGE):
        if abs(medians[width + 3] - medians[width]) <= FADED * medians[width + 3]:
            return width
    return None


def _shows_cell(
    small: NDArray[np.float32],
    inner: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    level: float,
    is_rectangle: bool,
) -> bool:
    """Return whether a cell lies inside, in contrast to a nucleus or a white bar.

    Letters may lie outside, and many of them around a rectangle, which cannot be a nucleus.
    """
    field_level = float(np.median(small[inner]))
    departure = np.abs(small - field_level)
    contrast = float(np.percentile(departure[inner], 99.0))
    min_contrast, min_ratio = MIN_CONTRAST[is_rectangle]
    if contrast < min_contrast * abs(field_level - level):
        return False
    low, high = (float(value) - field_level for value in np.percentile(small[inner], (1, 99)))
    is_further = (high > -low) == (field_level > level)
    if not is_rectangle and is_further and abs(field_level - level) < MIN_STEP * contrast:
        return False
    within = inner & (departure > 0.4 * contrast)
    outside = ~inside & (np.abs(small - level) > 0.4 * contrast)
    return _count_objects(within) >= max(min_ratio * _count_objects(outside), MIN_OBJECTS)


def _count_objects(mask: NDArray[np.bool_]) -> int:
    """Return the number of components of six pixels or more."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return int((stats[1:, cv2.CC_STAT_AREA] >= 6).sum())


def downscale(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a copy ``(h, w)`` of an image ``(H, W)`` whose longer side has at most 400 pixels."""
    height, width = grey.shape
    factor = SEARCH_SIDE / max(height, width)
    if factor >= 1:
        return grey
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
