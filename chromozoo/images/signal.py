"""Normalisation: every stain, bit depth and background becomes one *signal image*.

A signal image is float32 ``(H, W)``, 0..1, background 0, chromosome bright. A Q-band or DAPI
image keeps its sense and a G-band image is inverted, so Q-bright and G-dark bands (the same
bands) are both bright. All models read signal images and nothing else, whatever the microscope.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ImageError
from chromozoo.images.defects import repair_defects

# Below this contrast (of the image's own full range) there is nothing but noise.
MIN_CONTRAST = 0.02
# Otsu's threshold lies inside a blurred chromosome; this share of it reaches the visible edge.
EDGE_SHARE = 0.6
BRIGHTEST_PERCENTILE = 99.0
# White of an 8-bit image, what a signal is measured by that is not stretched.
EIGHT_BIT_WHITE = 255.0
# Dead lines of a camera and hot pixels are mended where they raise the contrast by this factor.
# They are looked for where it is that much more than what this percentile of the pixels departs by.
MIN_RAISE, USUAL_PERCENTILE = 2.0, 90.0
# What stands out by more than this share of the contrast is a speck where it has up to so many
# pixels, and where what stands out next, some pixels away, has between these shares of its contrast
# and covers this many times its area. In 9,722 crops of BioImLab, Pki-3 and four other laboratories
# nothing is taken for one.
SPECK_LEVEL, MAX_SPECK_PIXELS, MAX_SPECKS = 0.5, 60, 3
SPECK_RIM, SPECK_CONTRAST, SPECK_AREA = 2, (0.1, 0.3), 2.0
# The smallest chromosomes of BioImLab, 13 x 15 pixels with their margin, cover about 70.
MIN_PIXELS = 16


def signal_image(
    grey: NDArray[np.float32], name: str = "array", stretch: bool = True
) -> NDArray[np.float32]:
    """Turns a grey image of one chromosome into a signal image.

    The background is the median of the outermost pixels; the chromosome is whatever departs
    further from it, to the bright or to the dark side. The 99th percentile of the chromosome
    becomes 1, so exposure and bit depth drop out. Dead lines and hot pixels that outshine it are
    filled from their neighbours, and specks that do are no part of it.

    Args:
        grey: ``(H, W)`` in any units.
        name: What an error calls the image.
        stretch: False leaves the contrast as it is: the signal is the departure from the background
            divided by 255, the full range of 8 bits. What departs further, as in images of 16
            bits, is cut at 1.

    Returns:
        ``(H, W)`` float32 in 0..1.

    Raises:
        ImageError: The image is uniform (all black, all white) or shows a speck only: there is
            no chromosome.
    """
    background, brighter, darker = _departures(grey)
    contrast = max(brighter, darker)
    if contrast > MIN_RAISE * float(np.percentile(np.abs(grey - background), USUAL_PERCENTILE)):
        clean, _ = repair_defects(grey, is_crop=True)
        of_clean = _departures(clean)
        if contrast > MIN_RAISE * max(of_clean[1:]):
            grey, (background, brighter, darker) = clean, of_clean
            contrast = max(brighter, darker)
    departure = grey - background
    full_range = max(float(np.abs(grey).max()), 1e-12)
    if contrast < MIN_CONTRAST * full_range or contrast <= 0:
        raise ImageError(
            f"{name}: the image is uniform (all values near {float(background):g}), there is no "
            "chromosome to name; check the crop or the exposure"
        )
    signal = np.clip(departure if brighter >= darker else -departure, 0, None)
    inside = signal[_chromosome(signal, contrast)]
    if inside.size < MIN_PIXELS:
        raise ImageError(
            f"{name}: what stands out of the background covers {inside.size} pixels, too few for a "
            "chromosome; is it a hot pixel or dust?"
        )
    top = float(np.percentile(inside, BRIGHTEST_PERCENTILE)) if stretch else EIGHT_BIT_WHITE
    result: NDArray[np.float32] = np.clip(signal / max(top, 1e-12), 0, 1).astype(np.float32)
    return result


def _departures(grey: NDArray[np.float32]) -> tuple[np.float32, float, float]:
    """The background, and how far the image departs from it to the bright and to the dark side."""
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    background = np.float32(np.median(border))
    departure = grey - background
    return background, float(departure.max()), float(-departure.min())


def _chromosome(signal: NDArray[np.float32], contrast: float) -> NDArray[np.bool_]:
    """The foreground; where a speck outshines it, that of what is left beside the speck."""
    found = foreground(signal / contrast)
    rest, size = signal, 2 * SPECK_RIM + 1
    for _ in range(MAX_SPECKS):
        speck = rest > SPECK_LEVEL * contrast
        if speck.sum() > MAX_SPECK_PIXELS:
            break
        around = cv2.dilate(speck.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
        rest = np.where(around, np.float32(0), rest)
        next_contrast = float(rest.max())
        if not SPECK_CONTRAST[0] * contrast < next_contrast < SPECK_CONTRAST[1] * contrast:
            break
        other = foreground(rest / next_contrast)
        if other.sum() < max(SPECK_AREA * speck.sum(), MIN_PIXELS):
            break
        found, contrast = other, next_contrast
    return found


def foreground(signal: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The chromosome's pixels in a signal image: Otsu, closed, the largest piece.

    Satellites that a pale stalk holds are joined to their chromosome by the closing; a
    neighbour's arm at the edge of the crop stays apart and is dropped.
    """
    eight_bit = np.round(np.clip(signal, 0, 1) * 255).astype(np.uint8)
    level, _ = cv2.threshold(
        cv2.GaussianBlur(eight_bit, (3, 3), 0), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU
    )
    above = (eight_bit > EDGE_SHARE * level).astype(np.uint8)
    closed = cv2.morphologyEx(
        above, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    )
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    if count < 2:
        return above > 0
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    mask: NDArray[np.bool_] = pieces == largest
    return mask
