"""Ink of a scanned karyogram: its density, colour, and connected components.

The first step of :mod:`chromozoo.images.karyogram_extract`. Text, rulers, brackets and frames are
thinner than chromosomes and are removed here.
"""

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from chromozoo.errors import ImageError

# Smallest density of ink, as a fraction of the image's contrast: the palest bands are above it.
INK_DENSITY = 0.12
# Smallest contrast of an image, as a fraction of its largest grey value.
MIN_CONTRAST = 0.05
# Smallest spread of the RGB values of a coloured pixel, as a fraction of the brightest value. Where
# less than half of the ink is coloured, the colour is an annotation and not a stain.
MIN_COLOUR_SPREAD = 0.15
# Largest area of a pale band, as a fraction of the area that encloses it. Larger holes are the
# insides of letters and frames.
MAX_HOLE_AREA = 0.05
# Smallest thickness of a chromosome, as a fraction of the median thickness in the image.
MIN_THICKNESS = 0.4
# Largest width and height of a chromosome, as fractions of the image's. Dark rims of a scan are
# larger.
MAX_SIDE = 0.35
# Smallest ratio of width to height of a ruler.
RULER_ASPECT = 3
# Limits that refuse noise, on which the work would grow with the square of the number: specks of
# ink, and components as thick as a chromosome. A page with rulers, numbers and a title has about
# 100 components.
MAX_SPECKS = 50_000
MAX_COMPONENTS = 1000


@dataclass(frozen=True)
class Component:
    """A connected component of the ink.

    Attributes:
        number: Its label in the label image.
        left, top, width, height: Its box in pixels.
        area: In pixels.
    """

    number: int
    left: int
    top: int
    width: int
    height: int
    area: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def centre(self) -> float:
        """The column of its middle."""
        return self.left + self.width / 2


def list_components(labels: NDArray[np.int32], top: int = 0) -> list[Component]:
    """List the components of a label image from left to right.

    Args:
        labels: ``(H, W)``, 0 for the background.
        top: Row of the image at which the label image begins.
    """
    areas = np.bincount(labels.ravel())
    found = [
        Component(
            number=number,
            left=box[1].start,
            top=top + box[0].start,
            width=box[1].stop - box[1].start,
            height=box[0].stop - box[0].start,
            area=int(areas[number]),
        )
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None
    ]
    return sorted(found, key=lambda component: component.centre)


def noise_error(name: str, content: str) -> ImageError:
    """Return the error for an image of noise."""
    return ImageError(
        f"{name}: shows {content}, which is noise and no karyogram; scan or export it again"
    )


def measure_density(grey: NDArray[np.float32], paper: float, name: str) -> NDArray[np.float32]:
    """Measure how far each pixel departs from the paper, as a fraction of the image's contrast.

    Args:
        grey: ``(H, W)`` in any units.
        paper: Grey value of the paper, lighter or darker than the ink.
        name: Name of the image in errors.

    Raises:
        ImageError: The image is almost uniform.
    """
    departure = grey - np.float32(paper)
    if -departure.min() > departure.max():
        departure = -departure
    smooth = np.asarray(cv2.GaussianBlur(departure, (3, 3), 0), np.float32)
    contrast = np.percentile(smooth, 99.5)
    if contrast <= MIN_CONTRAST * max(float(np.abs(grey).max()), 1e-12):
        raise ImageError(
            f"{name}: no chromosomes found, the image is almost uniform (near {paper:g}); is it "
            "a karyogram?"
        )
    return smooth / np.float32(contrast)


def find_annotations(image: NDArray[np.generic], ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find coloured annotations, with their rim, which fades into grey.

    Args:
        image: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.
        ink: ``(H, W)`` of all ink.

    Returns:
        ``(H, W)``; all False for a grey image and for a coloured stain.
    """
    if image.ndim == 2 or image.shape[2] < 3:
        return np.zeros_like(ink)
    red, green, blue = (image[..., k].astype(np.float32) for k in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    spread = brightest - np.minimum(np.minimum(red, green), blue)
    coloured = spread > MIN_COLOUR_SPREAD * max(float(brightest.max()), 1e-12)
    if (coloured & ink).sum() > 0.5 * ink.sum():
        return np.zeros_like(ink)
    return cv2.dilate(coloured.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def check_specks(ink: NDArray[np.bool_], name: str) -> None:
    """Refuse an image of noise.

    Raises:
        ImageError: The ink has more than 50,000 components.
    """
    specks = cv2.connectedComponents(ink.astype(np.uint8))[0] - 1
    if specks > MAX_SPECKS:
        raise noise_error(name, f"{specks:,} specks of ink")


def fill_holes(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill pale bands within chromosomes, but not the inside of letters and frames."""
    filled = ink.astype(np.uint8)
    outlines, parents = cv2.findContours(filled.copy(), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    area = [cv2.contourArea(outline) for outline in outlines]
    for hole, (_, _, _, parent) in enumerate(parents[0].tolist() if outlines else []):
        if parent >= 0 and area[hole] < MAX_HOLE_AREA * area[parent]:
            # One outline at a time: OpenCV would convert all outlines for every hole.
            cv2.drawContours(filled, [outlines[hole]], 0, 1, cv2.FILLED)
    return filled > 0


def label_thick_components(ink: NDArray[np.bool_], name: str) -> tuple[NDArray[np.int32], float]:
    """Label the components that are as thick as a chromosome.

    Args:
        ink: ``(H, W)``.
        name: Name of the image in errors.

    Returns:
        Label image ``(H, W)``, 0 for the background, and the median half thickness of the
        chromosomes in pixels.

    Raises:
        ImageError: There is no ink away from the edge, or the image shows noise.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(ink.astype(np.uint8))
    height, width = ink.shape
    depth = cv2.distanceTransform(ink.astype(np.uint8), cv2.DIST_L2, 5)
    half_thickness = _measure_depths(depth, labels, count)
    box, area = stats[1:, :4], stats[1:, cv2.CC_STAT_AREA].astype(float)
    at_rim = (box[:, :2].min(axis=1) == 0) | (box[:, 0] + box[:, 2] == width)
    at_rim |= box[:, 1] + box[:, 3] == height
    area[at_rim] = 0
    if not area.any():
        raise ImageError(f"{name}: no chromosomes found; is it a karyogram?")
    # Most ink of a karyogram belongs to chromosomes: the median is weighted by area.
    order = np.argsort(half_thickness)
    total = np.cumsum(area[order])
    thickness = float(half_thickness[order][np.searchsorted(total, total[-1] / 2)])

    radius = max(1, round(MIN_THICKNESS * thickness))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = cv2.morphologyEx(ink.astype(np.uint8), cv2.MORPH_OPEN, disc)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    sides = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    is_chromosome = (sides < MAX_SIDE * np.array([width, height])).all(axis=1)
    # Thick rulers are told from chromosomes by their shape.
    is_chromosome &= sides[:, 0] < RULER_ASPECT * sides[:, 1]
    if (number := np.count_nonzero(is_chromosome)) > MAX_COMPONENTS:
        raise noise_error(name, f"{number:,} components as thick as a chromosome")
    numbers = np.zeros(count, np.int32)
    numbers[1:][is_chromosome] = np.arange(1, number + 1)
    return numbers[labels], thickness


def _measure_depths(depth: NDArray[Any], labels: NDArray[Any], count: int) -> NDArray[np.float32]:
    """Return the greatest depth within each of the labels 1 to ``count - 1``."""
    greatest = np.zeros(count, np.float32)
    inside = labels > 0
    np.maximum.at(greatest, labels[inside], depth[inside])
    return greatest[1:]


def join_arms(labels: NDArray[np.int32], top: int, thickness: float) -> list[Component]:
    """Join arms that stand one above the other into one chromosome, in place.

    A narrow centromere or a pale band parted them. Components below the line on which the
    chromosomes stand, such as numbers, are left out.

    Args:
        labels: ``(H, W)`` of one row of the karyogram; changed in place.
        top: Row of the image at which the label image begins.
        thickness: Median half thickness of the chromosomes in pixels.

    Returns:
        The chromosomes from left to right.
    """
    found = list_components(labels, top)
    if not found:
        return []
    order = sorted(found, key=lambda component: component.bottom)
    total = np.cumsum([component.area for component in order])
    base = order[int(np.searchsorted(total, total[-1] / 2))].bottom
    found = [one for one in found if one.top < base - MIN_THICKNESS * thickness]
    reach = round(thickness)
    bridge = np.ones((2 * reach + 1, 1), np.uint8)
    while True:
        pairs = [
            (lower.top - upper.bottom, upper.number, lower.number)
            for upper, lower in permutations(found, 2)
            if min(upper.right, lower.right) - max(upper.left, lower.left)
            > 0.5 * min(upper.width, lower.width)
            and lower.top - upper.bottom > -0.3 * min(upper.height, lower.height)
        ]
        if not pairs or min(pairs)[0] > 2 * thickness:
            return found
        _, number, other = min(pairs)
        arms = [one for one in found if one.number in (number, other)]
        left, right = min(arm.left for arm in arms), max(arm.right for arm in arms)
        first = max(0, min(arm.top for arm in arms) - top - 2 * reach)
        last = max(arm.bottom for arm in arms) - top + 2 * reach
        window = labels[first:last, left:right]
        both = np.isin(window, (number, other))
        closed = cv2.morphologyEx(both.astype(np.uint8), cv2.MORPH_CLOSE, bridge) > 0
        window[both | (closed & (window == 0))] = number
        own = np.where(window == number, number, 0).astype(np.int32)
        (joined,) = list_components(own, top + first)
        found = [one for one in found if one not in arms]
        found.append(replace(joined, left=joined.left + left))
        found.sort(key=lambda component: component.centre)
