"""Where the field of view lies in an image.

A screen shot has a frame, and the round field of a microscope a screen around it. Both are uniform,
reach the border of the image, end sharply, and leave one convex field. Where the frame is of the
other grey than the background, it is it that would give background, stain and contrast.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# The field is looked for in a copy whose longer side has this many pixels.
LOOK = 400
# A frame has one level, within this share of the image's range.
TOLERANCE = 0.03
# A level is that of a frame, perhaps, where this share of the border has it.
MIN_BORDER = 0.04
# Shares of the image: smaller ones are no frame, smaller fields show no cell; and a field that is
# no rectangle is round, and larger.
MIN_FRAME, MIN_FIELD, MIN_ROUND_FIELD = 0.004, 0.12, 0.2
# How much of the field's convex hull the frame may cover, and how much of the frame may lie in it:
# letters, and what JPEG leaves of an edge.
MAX_COVERED, MAX_INSIDE = 0.04, 0.2
# The share of its convex hull that the field fills.
MIN_SOLID = 0.93
# A rectangle fills this share of its bounding box.
MIN_RECTANGLE = 0.97
# The edge of the field is this many tolerances away from the frame, along this share of it.
MIN_JUMP, MIN_SHARP = 2.0, 0.85
# What lies in the field departs from it by this share of its distance from the frame, in this many
# pieces, and in this many for each piece outside: of a round field, and of a rectangle.
MIN_CONTRAST = {False: (0.05, 1.0), True: (0.03, 0.2)}
MIN_PIECES = 3
# The edge of a field is this many pixels of the copy wide, and more where it is out of focus: until
# three pixels further in there is less than this share of a difference. What never comes to that is
# the haze around a cell.
SHARP_EDGE, MAX_EDGE, FADED = 2, 10, 0.02
# Where chromosomes depart from the field as the field does from what is around it, that is haze, or
# does no harm: a round field stands out by at least this share of the contrast.
MIN_STEP = 0.3
# An edge of fewer pixels says nothing.
MIN_EDGE = 4


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame or screen around the field of view.

    Attributes:
        field: ``(H, W)`` bool, the pixels of the field.
        share: Of the image that is cut off, 0..1.
        level: Grey level of the frame.
        shape: ``"frame"`` around a rectangle, or ``"screen"`` around a round field.
        colour: ``"black"``, ``"white"`` or ``"grey"``.
    """

    field: NDArray[np.bool_]
    share: float
    level: float
    shape: str
    colour: str

    def words(self) -> str:
        """What was cut off."""
        return f"a {self.colour} {self.shape} of {self.share:.0%} of the image was cut off"


def find_frame(grey: NDArray[np.float32], small: NDArray[np.float32] | None = None) -> Frame | None:
    """The frame or screen around the field of view; None where there is none, as a rule.

    Args:
        grey: ``(H, W)`` in any units.
        small: The image :func:`reduced`, where it is at hand.
    """
    height, width = grey.shape
    small = reduced(grey) if small is None else small
    if min(small.shape) < MAX_EDGE:
        return None
    low, high = (float(value) for value in np.percentile(small, (0.5, 99.5)))
    full = high - low
    if full <= 0:
        return None
    for level in _border_levels(small, low, high):
        found = _around(small, level, TOLERANCE * full, full)
        if found is None:
            continue
        field, is_rectangle = found
        share = 1 - float(field.mean())
        whole = cv2.resize(field.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        place = (level - low) / full
        colour = "black" if place < 0.1 else "white" if place > 0.9 else "grey"
        return Frame(
            np.asarray(whole) > 0,
            share,
            level,
            "frame" if is_rectangle else "screen",
            colour,
        )
    return None


def _border_levels(small: NDArray[np.float32], low: float, high: float) -> list[float]:
    """The levels that much of the border has, the most frequent first."""
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


def _around(
    small: NDArray[np.float32], level: float, tolerance: float, full: float
) -> tuple[NDArray[np.bool_], bool] | None:
    """The field that a frame of that level leaves, and whether it is a rectangle."""
    flat = (np.abs(small - level) <= tolerance).astype(np.uint8)
    _, labels = cv2.connectedComponents(flat, connectivity=4)
    touching = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    sizes = np.bincount(labels.ravel())
    large = [k for k in touching if k and sizes[k] >= MIN_FRAME * small.size]
    if not large:
        return None
    is_large = np.zeros(len(sizes), bool)
    is_large[large] = True
    frame = is_large[labels]
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(
        (~frame).astype(np.uint8), connectivity=4
    )
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    area = int(stats[largest, cv2.CC_STAT_AREA])
    if area < MIN_FIELD * small.size:
        return None
    outlines, _ = cv2.findContours(
        (pieces == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    hull = np.zeros(small.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(max(outlines, key=cv2.contourArea)), 1)
    inside = hull > 0
    covered = int((frame & inside).sum())
    if covered > MAX_COVERED * inside.sum() or covered > MAX_INSIDE * frame.sum():
        return None
    if area < MIN_SOLID * inside.sum():
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0])
    is_rectangle = bool(inside.sum() >= MIN_RECTANGLE * box)
    if not is_rectangle and inside.sum() < MIN_ROUND_FIELD * small.size:
        return None
    # Just inside of its edge the field has its own level; where it ends at the border of the
    # image, there is no edge.
    is_field = (~frame | inside).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(is_field, cv2.DIST_L2, 5), np.float32)
    departure = np.abs(small - level)
    width = _edge_width(distance, departure, inside)
    if width is None:
        return None
    inner = inside & (distance > width)
    edge = departure[inner & (distance <= width + 2)]
    if edge.size < MIN_EDGE or float((edge > MIN_JUMP * tolerance).mean()) < MIN_SHARP:
        return None
    if not _shows_a_cell(small, inner, inside, level, is_rectangle):
        return None
    return inner, is_rectangle


def _edge_width(
    distance: NDArray[np.float32], departure: NDArray[np.float32], inside: NDArray[np.bool_]
) -> int | None:
    """Pixels over which the frame fades into the field; None where it fades over many.

    Args:
        distance: ``(h, w)`` from the frame.
        departure: ``(h, w)`` from the level of the frame.
        inside: ``(h, w)``, the field.
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


def _shows_a_cell(
    small: NDArray[np.float32],
    inner: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    level: float,
    is_rectangle: bool,
) -> bool:
    """Whether there is a cell to see inside: a nucleus is no field, nor is a white bar.

    Outside there may be letters; around a rectangle, which no nucleus is, even many.
    """
    own = float(np.median(small[inner]))
    departure = np.abs(small - own)
    contrast = float(np.percentile(departure[inner], 99.0))
    least, many = MIN_CONTRAST[is_rectangle]
    if contrast < least * abs(own - level):
        return False
    low, high = (float(value) - own for value in np.percentile(small[inner], (1, 99)))
    is_further = (high > -low) == (own > level)
    if not is_rectangle and is_further and abs(own - level) < MIN_STEP * contrast:
        return False
    within = inner & (departure > 0.4 * contrast)
    outside = ~inside & (np.abs(small - level) > 0.4 * contrast)
    return _count(within) >= max(many * _count(outside), MIN_PIECES)


def _count(mask: NDArray[np.bool_]) -> int:
    """Number of pieces of a few pixels or more."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return int((stats[1:, cv2.CC_STAT_AREA] >= 6).sum())


def reduced(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy ``(h, w)`` of an image ``(H, W)`` with at most 400 pixels on its longer side."""
    height, width = grey.shape
    factor = LOOK / max(height, width)
    if factor >= 1:
        return grey
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
