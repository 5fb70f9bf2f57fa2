"""Detection of captions and scale bars that are drawn into an image.

Letters have one level, the strongest of the image, and stand in a line, which chromosomes do not. A
scale bar is a thin rectangle of that level.
"""

import numpy as np
from numpy.typing import NDArray

from chromozoo.structures.arrays import FloatArray

# Maximum deviation of letters and bars from the highest level, relative to it.
PLATEAU = 0.06
# A line has at least MIN_LETTERS letters. Their heights differ by factors within HEIGHT_RATIOS,
# their lower edges by BASELINE_SHARE of the height, or MIN_SHIFT pixels; the gaps between them are
# at most MAX_GAP heights wide.
MIN_LETTERS, HEIGHT_RATIOS, BASELINE_SHARE, MAX_GAP = 5, (0.6, 1.7), 0.12, 2.5
MIN_SHIFT = 2.0
# Maximum stroke width of letters, relative to their height, or in pixels for small letters. Solid
# chromosomes in a line are thicker.
MAX_STROKE, MAX_STROKE_PIXELS = 0.28, 3.0
# Maximum height of letters, relative to the image.
MAX_HEIGHT = 0.12
# A bar is at least BAR_LENGTH times as long as thick and fills BAR_FILL of its box; a straight,
# upright chromosome with its rounded ends fills less. A bar that is longer than any chromosome, or
# stands near letters, may have rounded ends.
BAR_LENGTH, BAR_FILL = 10.0, 0.985
LONG_BAR, BAR_NEAR_LETTERS, ROUNDED_FILL = 15.0, 6.0, 0.9
# More objects of one level are not a caption.
MAX_OBJECTS = 600


def find_caption(
    boxes: FloatArray,
    areas: FloatArray,
    widths: FloatArray,
    levels: FloatArray,
    highest: float,
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Find the objects of an image that belong to a caption or a scale bar.

    Args:
        boxes: ``(N, 4)``, left, top, width and height of each object in pixels.
        areas: ``(N,)`` in pixels.
        widths: ``(N,)``, width of the widest place, in pixels.
        levels: ``(N,)``, departure of each object from the background.
        highest: Largest departure of a pixel.
        shape: ``(H, W)`` of the image.

    Returns:
        ``(N,)`` bool; all False as a rule.
    """
    found = np.zeros(len(boxes), bool)
    flat = np.flatnonzero(levels >= (1 - PLATEAU) * highest)
    if not 0 < len(flat) <= MAX_OBJECTS:
        return found
    across, down = boxes[flat], boxes[flat][:, [1, 0, 3, 2]]
    letters = _find_lines(across, widths[flat], shape[0]) | _find_lines(
        down, widths[flat], shape[1]
    )
    thick, long = np.sort(boxes[flat][:, 2:], axis=1).T
    slenderness, fill = long / np.maximum(thick, 1), areas[flat] / (thick * long)
    rounded = BAR_NEAR_LETTERS if letters.any() else LONG_BAR
    bars = (thick >= 2) & (
        ((slenderness >= BAR_LENGTH) & (fill >= BAR_FILL))
        | ((slenderness >= rounded) & (fill >= ROUNDED_FILL))
    )
    found[flat] = letters | bars
    return found


def _find_lines(boxes: FloatArray, strokes: FloatArray, side: int) -> NDArray[np.bool_]:
    """Return the objects ``(N,)`` that stand in a line; ``boxes`` as in :func:`find_caption`."""
    left, top, width, height = boxes.T
    bottom = top + height
    found = np.zeros(len(boxes), bool)
    small = height <= MAX_HEIGHT * side
    for one in np.flatnonzero(small):
        if found[one]:
            continue
        shift = max(BASELINE_SHARE * height[one], MIN_SHIFT)
        similar = small & (np.abs(bottom - bottom[one]) <= shift)
        similar &= (height >= HEIGHT_RATIOS[0] * height[one]) & (
            height <= HEIGHT_RATIOS[1] * height[one]
        )
        line = np.flatnonzero(similar)
        if len(line) < MIN_LETTERS:
            continue
        line = line[np.argsort(left[line], kind="stable")]
        gaps = left[line][1:] - (left + width)[line][:-1]
        groups = np.split(line, 1 + np.flatnonzero(gaps > MAX_GAP * height[one]))
        for group in groups:
            if one not in group or len(group) < MIN_LETTERS:
                continue
            if float(np.median(strokes[group])) > max(MAX_STROKE * height[one], MAX_STROKE_PIXELS):
                continue
            reach = MAX_GAP * height[one]
            start, end = left[group].min() - reach, (left + width)[group].max() + reach
            # Include accents, dots, hooks and the descenders of letters.
            found |= (
                (left >= start)
                & (left + width <= end)
                & (top >= top[group].min() - 0.5 * height[one])
                & (bottom <= bottom[group].max() + 0.5 * height[one])
            )
    return found
