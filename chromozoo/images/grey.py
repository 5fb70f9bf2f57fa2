"""Conversion of decoded images to one grey plane of float32."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Integers up to this one are exact in float32.
MAX_EXACT_INTEGER = 2**24
# Pixels converted at a time: all colours of a slide as float32 would fill the memory.
BLOCK_PIXELS = 2**22


def to_grey(array: NDArray[Any]) -> NDArray[np.float32]:
    """Convert an image to its luminance; transparent pixels take the level of the background.

    Args:
        array: ``(H, W)``, or ``(H, W, C)`` with 1, 3 or 4 channels.

    Returns:
        ``(H, W)`` float32 in the units of the array, less an offset if float32 needs one.
    """
    if array.ndim == 2 or array.shape[2] == 1:
        plane = array if array.ndim == 2 else array[..., 0]
        return _as_float32(plane, _find_offset(plane))
    colour = array[..., :3]
    offset = _find_offset(colour)
    grey = np.empty(array.shape[:2], np.float32)
    rows = max(BLOCK_PIXELS // array.shape[1], 1)
    for top in range(0, array.shape[0], rows):
        block = slice(top, top + rows)
        grey[block] = cv2.cvtColor(_as_float32(colour[block], offset), cv2.COLOR_RGB2GRAY)
    if array.shape[2] == 4 and (opaque := array[..., 3] > 0).any() and not opaque.all():
        near_transparent = cv2.dilate((~opaque).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        rim = grey[opaque & near_transparent]
        # The rim fades from the chromosome into the background, so the values of the rim that are
        # furthest from the chromosome come nearest to the background.
        is_bright = np.median(grey[opaque]) >= np.median(rim)
        grey[~opaque] = np.percentile(rim, 5 if is_bright else 95)
    return grey


def _find_offset(array: NDArray[Any]) -> int | float | None:
    """Return the offset whose subtraction keeps differences exact in float32; None as a rule."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "iu" and size >= 4:
        low, high = int(array.min()), int(array.max())
        return low if low and max(abs(low), abs(high)) > MAX_EXACT_INTEGER else None
    if kind == "f" and size > 4:
        start, end = float(array.min()), float(array.max())
        return start if end > start and max(abs(start), abs(end)) > 256 * (end - start) else None
    return None


def _as_float32(array: NDArray[Any], offset: int | float | None) -> NDArray[np.float32]:
    if isinstance(offset, int):
        # Unsigned differences are right even where signed ones would overflow.
        array = array.astype(np.uint64) - np.uint64(offset % 2**64)
    elif offset is not None:
        array = array - offset
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
