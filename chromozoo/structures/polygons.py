"""Conversion between polygons and masks, and checks of polygons that files hold.

Coordinates are continuous pixels with the origin at the outer corner of the top left pixel, as in
COCO: pixel (row i, column j) covers [j, j + 1) x [i, i + 1). Polygons are amodal: crossing
chromosomes share the pixels of the crossing.
"""

from typing import Any

import cv2
import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from chromozoo.errors import DatasetError
from chromozoo.strict_json import parse_int, short_repr

# Pixels by which a polygon may leave the image: annotation tools end strokes beyond the edge.
OUTSIDE_TOLERANCE = 1.0
# Perimeter in pixels. The time and memory of COCO's rasteriser grow with it; the perimeter of a
# chromosome is below 10,000 even in the largest images.
MAX_PERIMETER = 1_000_000
# Polygons of one image: a metaphase has 46, and a field of view may show several.
MAX_POLYGONS = 2000
# Components and holes of one mask; a mask with more is noise.
MAX_RINGS = 1000


def polygon_mask(polygon: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Rasterise a polygon by COCO's rule, which trainings and evaluations share.

    Args:
        polygon: ``(K, 2)`` xy; it may reach out of the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Mask ``(height, width)`` bool.
    """
    mask = np.zeros((height, width), np.bool_)
    # Decoding only the polygon's part of the image saves most of the time.
    right, bottom = np.ceil(polygon.max(axis=0)) + 2
    rows, columns = (
        int(min(max(end, 1), side)) for end, side in ((bottom, height), (right, width))
    )
    runs = coco_mask.frPyObjects([polygon.astype(np.float64).ravel().tolist()], rows, columns)
    mask[:rows, :columns] = coco_mask.decode(runs)[..., 0]
    return mask


def mask_polygon(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the polygon along the pixel edges of a mask: the inverse of :func:`polygon_mask`.

    Args:
        mask: ``(H, W)`` with one 4-connected component; holes are filled.

    Returns:
        ``(K, 2)`` float64 xy.

    Raises:
        ValueError: The mask is empty or has several components.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("an empty mask has no outline")
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    # At twice the size the contour runs through the quarters of the pixels, so that each side of a
    # pixel, even of a single one, has its own points.
    double = np.repeat(np.repeat(window, 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(double, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if len(contours) != 1:
        raise ValueError(f"a mask of {len(contours)} components has no single outline")
    corner = np.array([columns[0], rows[0]])
    points = corner + np.round((np.asarray(contours[0])[:, 0] + 0.5) / 2)
    polygon: NDArray[np.float64] = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    return polygon


def mask_outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return one polygon of a mask with any number of components and holes.

    :func:`polygon_mask` restores exactly this mask: by its even-odd rule, a hole that the polygon
    winds around twice is outside, and the seams between components cancel out because the polygon
    runs along each of them there and back.

    Args:
        mask: ``(H, W)``.

    Returns:
        ``(K, 2)`` float64 xy; K is 0 for an empty mask.

    Raises:
        ValueError: The mask has more than 1,000 components and holes.
    """
    rings: list[NDArray[np.float64]] = []
    rest, is_hole = mask.copy(), False
    while rest.any():
        # First the components, then their holes, then the components in the holes, and so on.
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            rest.astype(np.uint8), connectivity=4
        )
        if len(rings) + count - 1 > MAX_RINGS:
            raise ValueError(f"the mask has more than {MAX_RINGS:,} components and holes")
        for number in range(1, count):
            left, top, width, height = stats[number, :4].tolist()
            window = np.s_[top : top + height, left : left + width]
            ring = mask_polygon(labels[window] == number)
            rest[window] ^= polygon_mask(ring, height, width)
            # Holes run in the opposite direction, so that their area is subtracted.
            rings.append((ring[::-1] if is_hole else ring) + (left, top))
        is_hole = not is_hole
    if not rings:
        return np.zeros((0, 2))
    forth = [point for ring in rings for point in (ring, ring[:1])]
    back = [ring[:1] for ring in rings[-2::-1]]
    return np.concatenate([*forth, *back]) if len(rings) > 1 else rings[0]


def polygon_area(polygon: NDArray[np.float64]) -> float:
    """Return the area of a polygon ``(K, 2)`` in square pixels; self-intersections reduce it."""
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def mask_box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the tight box ``(4,)`` xyxy of a mask ``(H, W)``; x1, y1 lie beyond the last pixel.

    Raises:
        ValueError: The mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("an empty mask has no box")
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def check_annotated_size(
    width: Any, height: Any, shape: tuple[int, ...], source: str, annotation: str
) -> None:
    """Compare the size of an image with the size in its annotation.

    Args:
        width: Width in the annotation, a number or text; None if the annotation has no size.
        height: Height in the annotation, likewise.
        shape: ``(H, W)`` of the image as it is read, upright according to its EXIF data.
        source: Name of the image, for the error.
        annotation: Name of the annotation, for the error.

    Raises:
        DatasetError: The sizes differ.
    """
    if width is None and height is None:
        return
    try:
        stated: tuple[int | str, ...] = parse_int(height), parse_int(width)
    except ValueError:
        stated = short_repr(height), short_repr(width)
    if stated != shape:
        turned = " turned upright, as its EXIF data say," if stated == shape[::-1] else ""
        raise DatasetError(
            f"{source}: {annotation} says that it is {stated[1]}x{stated[0]}, but it is{turned} "
            f"{shape[1]}x{shape[0]}; put back the image that was annotated, or annotate this one"
        )


def read_polygon(points: Any, name: str) -> NDArray[np.float64]:
    """Convert the points of a file ``[[x, y], ...]`` to a polygon ``(K, 2)``.

    K may be too small for a polygon; :func:`chromozoo.structures.metaphase.find_faults` reports it.

    Args:
        points: The points as parsed from the file.
        name: Name of the polygon in error messages.

    Raises:
        DatasetError: The points are not pairs of finite numbers, or the perimeter is far longer
            than that of any chromosome; the message begins with the name.
    """
    try:
        polygon = np.asarray(points, np.float64) if len(points) else np.zeros((0, 2))
        if polygon.shape != (len(points), 2):
            raise ValueError(f"of shape {polygon.shape}")
        if not np.isfinite(polygon).all():
            raise ValueError("NaN or infinite")
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{name} is not a list of points x, y ({error}); draw it again or remove it"
        ) from error
    steps = np.abs(polygon - np.roll(polygon, 1, axis=0))
    length = float(steps.max(axis=1).sum()) if len(polygon) else 0.0
    reach = max(length, float(np.abs(polygon).max(initial=0)))
    if reach > MAX_PERIMETER:
        raise DatasetError(
            f"{name} extends over {reach:.3g} pixels, too far for a chromosome; draw it again or "
            "remove it"
        )
    return polygon
