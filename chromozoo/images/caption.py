"""Captions and scale bars that are burnt into an image.

Letters have one level, the highest that stands out, and stand beside each other in a line, which
chromosomes do not. A scale bar is a thin rectangle of that level.
"""

import numpy as np
from numpy.typing import NDArray

from chromozoo.structures.arrays import FloatArray

# Letters and bars have one level, within this share of the highest.
PLATEAU = 0.06
# So many letters, alike in height within these factors, stand on one line, within this share of
# their height; gaps between them are up to so many heights wide.
MIN_LETTERS, LIKE_HEIGHT, ON_LINE, MAX_GAP = 5, (0.6, 1.7), 0.12, 2.5
# Their strokes are as thin as this share of their height: solid chromosomes that lie in a line are
# thicker. Of letters a few pixels high, this many pixels.
MAX_STROKE, MIN_STROKE = 0.28, 3.0
# Letters are lower than this share of the image.
MAX_HEIGHT = 0.12
# A bar is this many times as long as thick, and fills this share of its box: more than the rounded
# ends of a straight, upright chromosome leave. One that is longer than any chromosome, or stands
# beside letters, may have rounded ends.
BAR_LENGTH, BAR_FILL = 10.0, 0.985
LONG_BAR, BAR_BESIDE_LETTERS, ROUNDED_FILL = 15.0, 6.0, 0.9
# More pieces than this of one level are no caption.
MAX_PIECES = 600
# Pixels by which letters may stand off their line in any case.
MIN_SHIFT = 2.0


def find_caption(
    boxes: FloatArray,
    areas: FloatArray,
    widths: FloatArray,
    levels: FloatArray,
    highest: float,
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Which pieces of an image belong to a caption or a scale bar.

    Args:
        boxes: ``(N, 4)``, left, top, width and height in pixels.
        areas: ``(N,)`` in pixels.
        widths: ``(N,)`` of the widest place, in pixels.
        levels: ``(N,)``, how far each stands out.
        highest: Level of what stands out most.
        shape: ``(H, W)`` of the image.

    Returns:
        ``(N,)``; as a rule, none.
    """
    found = np.zeros(len(boxes), bool)
    flat = np.flatnonzero(levels >= (1 - PLATEAU) * highest)
    if not 0 < len(flat) <= MAX_PIECES:
        return found
    across, down = boxes[flat], boxes[flat][:, [1, 0, 3, 2]]
    letters = _lines(across, widths[flat], shape[0]) | _lines(down, widths[flat], shape[1])
    thick, long = np.sort(boxes[flat][:, 2:], axis=1).T
    slenderness, fill = long / np.maximum(thick, 1), areas[flat] / (thick * long)
    rounded = BAR_BESIDE_LETTERS if letters.any() else LONG_BAR
    bars = (thick >= 2) & (
        ((slenderness >= BAR_LENGTH) & (fill >= BAR_FILL))
        | ((slenderness >= rounded) & (fill >= ROUNDED_FILL))
    )
    found[flat] = letters | bars
    return found


def _lines(boxes: FloatArray, strokes: FloatArray, side: int) -> NDArray[np.bool_]:
    """Which pieces ``(N,)`` stand in a line; ``boxes`` are left, top, width, height."""
    left, top, width, height = boxes.T
    bottom = top + height
    found = np.zeros(len(boxes), bool)
    small = height <= MAX_HEIGHT * side
    for one in np.flatnonzero(small):
        if found[one]:
            continue
        shift = max(ON_LINE * height[one], MIN_SHIFT)
        alike = small & (np.abs(bottom - bottom[one]) <= shift)
        alike &= (height >= LIKE_HEIGHT[0] * height[one]) & (height <= LIKE_HEIGHT[1] * height[one])
        line = np.flatnonzero(alike)
        if len(line) < MIN_LETTERS:
            continue
        line = line[np.argsort(left[line], kind="stable")]
        gaps = left[line][1:] - (left + width)[line][:-1]
        groups = np.split(line, 1 + np.flatnonzero(gaps > MAX_GAP * height[one]))
        for group in groups:
            if one not in group or len(group) < MIN_LETTERS:
                continue
            if float(np.median(strokes[group])) > max(MAX_STROKE * height[one], MIN_STROKE):
                continue
            reach = MAX_GAP * height[one]
            start, end = left[group].min() - reach, (left + width)[group].max() + reach
            # Accents, hooks, points and letters that hang below the line belong to it.
            found |= (
                (left >= start)
                & (left + width <= end)
                & (top >= top[group].min() - 0.5 * height[one])
                & (bottom <= bottom[group].max() + 0.5 * height[one])
            )
    return found
