"""Metaphases with the outlines of their chromosomes.

Coordinates are continuous pixels with the origin at the outer corner of the top left pixel, as in
COCO: pixel (row i, column j) covers [j, j + 1) x [i, i + 1). Outlines are amodal: chromosomes that
cross share the pixels of the crossing.
"""

from typing import Any

import cv2
import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from chromozoo.errors import DatasetError
from chromozoo.strict_json import shown, whole

# Annotation tools let a stroke end half a pixel beyond the edge.
OUTSIDE_TOLERANCE = 1.0
# In pixels. COCO's rule walks along an outline, so its length bounds time and memory; that of a
# chromosome is below 10,000 even in the largest images.
MAX_OUTLINE_LENGTH = 1_000_000
# In one image; a metaphase has 46, and a field of view may show several.
MAX_OUTLINES = 2000
# A mask of more pieces and holes is noise.
MAX_RINGS = 1000


def polygon_mask(polygon: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels of an outline by COCO's own rule, which trainings and evaluations share.

    Args:
        polygon: ``(K, 2)`` xy; it may reach out of the image.
        height: Of the image.
        width: Of the image.

    Returns:
        ``(height, width)`` bool.
    """
    mask = np.zeros((height, width), np.bool_)
    # Beyond the outline all is empty; decoding that would take most of the time.
    right, bottom = np.ceil(polygon.max(axis=0)) + 2
    rows, columns = (
        int(min(max(end, 1), side)) for end, side in ((bottom, height), (right, width))
    )
    runs = coco_mask.frPyObjects([polygon.astype(np.float64).ravel().tolist()], rows, columns)
    mask[:rows, :columns] = coco_mask.decode(runs)[..., 0]
    return mask


def mask_polygon(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Outline of a mask along the edges of its pixels: the inverse of :func:`polygon_mask`.

    Args:
        mask: ``(H, W)`` with one piece whose pixels touch by their sides; holes are filled.

    Returns:
        ``(K, 2)`` float64 xy.

    Raises:
        ValueError: The mask is empty or in several pieces.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("an empty mask has no outline")
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    # At twice the size the contour runs through the quarters of the pixels: each side of a pixel,
    # even of one alone, has its own.
    double = np.repeat(np.repeat(window, 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(double, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if len(contours) != 1:
        raise ValueError(f"a mask of {len(contours)} pieces has no single outline")
    corner = np.array([columns[0], rows[0]])
    points = corner + np.round((np.asarray(contours[0])[:, 0] + 0.5) / 2)
    polygon: NDArray[np.float64] = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    return polygon


def mask_outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Outline of any mask, of several pieces and with holes, as one polygon.

    :func:`polygon_mask` makes exactly the mask of it: what an outline goes round twice is outside,
    and the seams from piece to piece and to the holes are gone along twice, there and back.

    Args:
        mask: ``(H, W)``.

    Returns:
        ``(K, 2)`` float64 xy; K is 0 for an empty mask.

    Raises:
        ValueError: It is of more than 1,000 pieces and holes.
    """
    rings: list[NDArray[np.float64]] = []
    rest, is_hole = mask.copy(), False
    while rest.any():
        # First the pieces, then the holes in them, then what lies in the holes, ...
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            rest.astype(np.uint8), connectivity=4
        )
        if len(rings) + count - 1 > MAX_RINGS:
            raise ValueError(f"the mask is of more than {MAX_RINGS:,} pieces and holes")
        for number in range(1, count):
            left, top, width, height = stats[number, :4].tolist()
            window = np.s_[top : top + height, left : left + width]
            ring = mask_polygon(labels[window] == number)
            rest[window] ^= polygon_mask(ring, height, width)
            # Holes run the other way round, so that their area is subtracted.
            rings.append((ring[::-1] if is_hole else ring) + (left, top))
        is_hole = not is_hole
    if not rings:
        return np.zeros((0, 2))
    there = [point for ring in rings for point in (ring, ring[:1])]
    back = [ring[:1] for ring in rings[-2::-1]]
    return np.concatenate([*there, *back]) if len(rings) > 1 else rings[0]


def polygon_area(polygon: NDArray[np.float64]) -> float:
    """Area of an outline ``(K, 2)`` in square pixels; what crosses itself counts less."""
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def mask_box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Tight box ``(4,)`` xyxy of a mask ``(H, W)``; x1 and y1 are one beyond the last pixel.

    Raises:
        ValueError: The mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("an empty mask has no box")
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def check_size(
    width: Any, height: Any, shape: tuple[int, ...], source: str, annotation: str
) -> None:
    """Compares the size of an image ``(H, W)`` with what its annotation says, in numbers or text.

    Args:
        width: As the annotation has it; None where it says neither width nor height.
        height: The same.
        shape: Of the image as it is read, upright as its EXIF data say.
        source: Of the image, for the error.
        annotation: Who says it, for the error.

    Raises:
        DatasetError: They differ.
    """
    if width is None and height is None:
        return
    try:
        told: tuple[int | str, ...] = whole(height), whole(width)
    except ValueError:
        told = shown(height), shown(width)
    if told != shape:
        turned = " turned upright, as its EXIF data say," if told == shape[::-1] else ""
        raise DatasetError(
            f"{source}: {annotation} says that it is {told[1]}x{told[0]}, but it is{turned} "
            f"{shape[1]}x{shape[0]}; put back the image that was annotated, or annotate this one"
        )


def read_polygon(points: Any, name: str) -> NDArray[np.float64]:
    """Points of a file ``[[x, y], ...]`` as ``(K, 2)``; K may be too small (:func:`faults`).

    Raises:
        DatasetError: These are no finite numbers in pairs, or the outline is far longer than that
            of any chromosome; the message begins with the name.
    """
    try:
        polygon = np.asarray(points, np.float64) if len(points) else np.zeros((0, 2))
        if polygon.shape != (len(points), 2):
            raise ValueError(f"of shape {polygon.shape}")
        if not np.isfinite(polygon).all():
            raise ValueError("NaN or infinite")
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{name} is no list of points x, y ({error}); draw it again or remove it"
        ) from error
    steps = np.abs(polygon - np.roll(polygon, 1, axis=0))
    length = float(steps.max(axis=1).sum()) if len(polygon) else 0.0
    reach = max(length, float(np.abs(polygon).max(initial=0)))
    if reach > MAX_OUTLINE_LENGTH:
        raise DatasetError(
            f"{name} goes over {reach:.3g} pixels, no outline of a chromosome; draw it again or "
            "remove it"
        )
    return polygon
