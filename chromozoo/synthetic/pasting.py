"""Placing and pasting of single chromosomes for cut-and-paste synthesis."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.structures.polygons import polygon_mask

# Pixels by which the light of a chromosome extends beyond its outline, and margin of a patch.
RIM = 3
MARGIN = 2 * RIM
BLENDINGS = ("gaussian", "motion", "box")
# Attempts to place a chromosome.
TRIES = 12
# Flags of occupied pixels.
CHROMOSOME, GROUND = np.uint8(1), np.uint8(2)


@dataclass(frozen=True, eq=False)
class CutChromosome:
    """A chromosome cut out of a metaphase, or drawn.

    Attributes:
        signal: ``(h, w)`` uint8 signal image, with a margin.
        polygon: Outline ``(K, 2)`` in pixels of ``signal``.
        cell: Number of the metaphase that it comes from; the chromosomes of one cell are similar
            in contraction and stain.
        level: Median signal of the cell's free chromosomes, 0..255.
    """

    signal: NDArray[np.uint8]
    polygon: NDArray[np.float64]
    cell: int = 0
    level: float = 128.0


class Patch:
    """A transformed chromosome and its place in an image.

    Attributes:
        light: ``(h, w)`` float32 signal.
        alpha: ``(h, w)`` float32 in 0..1, with a soft edge.
        mask: ``(h, w)`` bool.
        near: ``(h, w)`` bool, the mask dilated by 2 pixels.
        polygon: Outline ``(K, 2)`` in pixels of the patch.
        area: Pixels of the mask.
        corner: ``(x, y)`` of the upper left pixel in the image.
        number: Index of the chromosome among the source chromosomes; -1 if unknown.
    """

    def __init__(
        self,
        light: NDArray[np.float32],
        alpha: NDArray[np.float32],
        mask: NDArray[np.bool_],
        polygon: NDArray[np.float64],
    ) -> None:
        self.light = light
        self.alpha = alpha
        self.mask = mask
        self.near = cv2.dilate(mask.astype(np.uint8), disc(2)) > 0
        self.polygon = polygon
        self.area = int(mask.sum())
        self.corner = np.zeros(2, np.int64)
        self.number = -1

    def move_to(self, middle: NDArray[np.float64]) -> None:
        """Move the middle of the patch to ``(x, y)``."""
        self.corner = np.round(middle - np.array(self.mask.shape[::-1]) / 2).astype(np.int64)

    def random_pixel(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a random pixel ``(x, y)`` of the mask, in pixels of the patch."""
        pixels = np.flatnonzero(self.mask)
        row, column = divmod(int(rng.choice(pixels)), self.mask.shape[1])
        return np.array([column, row])

    def is_inside(self, height: int, width: int) -> bool:
        """Return whether the whole outline lies in the image."""
        outline = self.polygon + self.corner
        return bool(outline.min() >= 0 and (outline.max(axis=0) <= (width, height)).all())

    def overlap_slices(
        self, height: int, width: int
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of the image that the patch covers, and the same part of the patch."""
        (left, top), (h, w) = self.corner.tolist(), self.mask.shape
        rows = slice(min(max(top, 0), height), min(max(top + h, 0), height))
        columns = slice(min(max(left, 0), width), min(max(left + w, 0), width))
        return (rows, columns), (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )


def transform_chromosome(
    rng: np.random.Generator, cut: CutChromosome, scale: float, level: float, hides: bool = False
) -> Patch:
    """Rotate, scale, shear and mirror a chromosome at random, and adjust its brightness.

    Args:
        rng: Source of randomness.
        cut: The chromosome.
        scale: Magnification of the cell.
        level: Median signal of the target cell, 0..255.
        hides: Whether the chromosome will hide what it covers; then its haze is left out.
    """
    angle = rng.uniform(0, 2 * np.pi)
    stretch = scale * rng.uniform(0.95, 1.05, size=2)
    shear = rng.normal(0, 0.04)
    flip = rng.choice((-1.0, 1.0))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = (
        np.array([[cos, -sin], [sin, cos]])
        @ np.array([[1, shear], [0, 1]])
        @ np.diag(stretch * (flip, 1.0))
    )
    polygon = cut.polygon @ matrix.T
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    margin = int(np.ceil(MARGIN * scale))
    shift = margin - np.floor(low)
    width, height = (int(v) for v in np.ceil(high) - np.floor(low) + 2 * margin)
    warp = np.hstack([matrix, shift[:, None]])
    # The origin of OpenCV is the middle of the first pixel.
    warp[:, 2] += matrix @ (0.5, 0.5) - 0.5
    signal = cv2.warpAffine(cut.signal, warp, (width, height), flags=cv2.INTER_LINEAR)
    polygon = polygon + shift
    mask = polygon_mask(polygon, height, width)
    core = mask.astype(np.float32)
    if not hides:
        # The haze is part of the chromosome's light. If the chromosome hides others, the haze would
        # cut a dark seam into them.
        core = np.asarray(cv2.dilate(core, disc(RIM - 1)), np.float32)
    alpha = _blend_seam(rng, core)
    gain = np.float32(level / max(cut.level, 1.0) * rng.uniform(0.9, 1.1))
    return Patch(signal.astype(np.float32) * gain, alpha, mask, polygon)


def _blend_seam(rng: np.random.Generator, core: NDArray[np.float32]) -> NDArray[np.float32]:
    """Soften the edge of a mask ``(h, w)`` by one of the three filters of Xie et al."""
    kind = BLENDINGS[rng.integers(len(BLENDINGS))]
    if kind == "gaussian":
        return np.asarray(cv2.GaussianBlur(core, (5, 5), 1.2), np.float32)
    if kind == "box":
        return np.asarray(cv2.blur(core, (3, 3)), np.float32)
    line = np.zeros((5, 5), np.float32)
    ends = ((0, 2), (4, 2)), ((2, 0), (2, 4)), ((0, 0), (4, 4)), ((0, 4), (4, 0))
    start, end = ends[rng.integers(len(ends))]
    cv2.line(line, start, end, 1.0)
    return np.asarray(cv2.filter2D(core, -1, line / line.sum()), np.float32)


def place_touching(
    rng: np.random.Generator,
    patch: Patch,
    placed: Sequence[Patch],
    occupied: NDArray[np.uint8],
    place: NDArray[np.float64],
    whole: bool,
) -> bool:
    """Place a patch across the nearest chromosome, or in contact with it.

    Args:
        rng: Source of randomness.
        patch: The patch, which is moved.
        placed: Patches that are already in the image.
        occupied: ``(H, W)`` flags of occupied pixels.
        place: Target ``(x, y)`` of the middle of the patch.
        whole: Whether the outline has to lie in the image.

    Returns:
        Whether a place was found.
    """
    distances = [
        np.abs(other.corner + other.polygon.mean(axis=0) - place).max() for other in placed
    ]
    other = placed[int(np.argmin(distances))]
    middle = np.array(patch.mask.shape[::-1]) / 2
    for _ in range(TRIES):
        target = other.corner + other.random_pixel(rng)
        if rng.random() < 0.5:
            patch.move_to(target - patch.random_pixel(rng) + middle)
            # With more overlap nobody could separate the two chromosomes.
            if _fits(patch, occupied, 0.03, 0.45, whole, other.area):
                return True
        else:
            angle = rng.uniform(0, 2 * np.pi)
            way = np.array([np.cos(angle), np.sin(angle)])
            for distance in np.arange(0, 2 * middle.max() + max(other.mask.shape), 2):
                patch.move_to(target + way * distance)
                if _count_covered(patch, occupied, patch.mask, CHROMOSOME) <= 0.03 * patch.area:
                    break
            if _count_covered(patch, occupied, patch.near, CHROMOSOME) and _fits(
                patch, occupied, 0, 0.03, whole
            ):
                return True
    return False


def place_free(
    rng: np.random.Generator,
    patch: Patch,
    occupied: NDArray[np.uint8],
    place: NDArray[np.float64],
    whole: bool,
) -> bool:
    """Place a patch where it touches nothing, near its target; return whether it fits."""
    for attempt in range(2 * TRIES):
        patch.move_to(place + rng.normal(0, 6.0 * attempt, size=2))
        if (not whole or patch.is_inside(*occupied.shape)) and not _count_covered(
            patch, occupied, patch.near, CHROMOSOME | GROUND
        ):
            return True
    return False


def _fits(
    patch: Patch,
    occupied: NDArray[np.uint8],
    min_share: float,
    max_share: float,
    whole: bool,
    other_area: float = np.inf,
) -> bool:
    """Return whether the overlap with other chromosomes lies within these shares of the area."""
    if whole and not patch.is_inside(*occupied.shape):
        return False
    if _count_covered(patch, occupied, patch.mask, GROUND):
        return False
    overlap = _count_covered(patch, occupied, patch.mask, CHROMOSOME)
    return min_share * patch.area <= overlap <= max_share * min(patch.area, other_area)


def _count_covered(
    patch: Patch, occupied: NDArray[np.uint8], mask: NDArray[np.bool_], flags: np.uint8
) -> int:
    """Count the pixels of a mask that chromosomes or bright ground occupy."""
    image, part = patch.overlap_slices(*occupied.shape)
    return int(np.count_nonzero(((occupied[image] & flags) > 0) & mask[part]))


def paste(
    canvas: NDArray[np.float32], occupied: NDArray[np.uint8], patch: Patch, light: str
) -> None:
    """Paste a patch into the canvas, by adding light, by the maximum, or by hiding (``"over"``)."""
    image, part = patch.overlap_slices(*occupied.shape)
    alpha, ground = patch.alpha[part], canvas[image]
    pasted = patch.light[part] * alpha
    if light == "add":
        canvas[image] = ground + pasted
    elif light == "max":
        canvas[image] = np.maximum(ground, pasted)
    else:
        canvas[image] = ground * (1 - alpha) + pasted
    occupied[image] |= patch.mask[part] * CHROMOSOME


def disc(radius: int) -> NDArray[np.uint8]:
    """Return a disc as a structuring element."""
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
