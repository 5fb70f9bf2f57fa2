"""Signal images: normalisation of the stain, bit depth and background of one chromosome's image.

A signal image is float32 ``(H, W)`` in 0..1, with background 0 and a bright chromosome. G-band
images are inverted and Q-band or DAPI images are not, so that Q-bright and G-dark bands, which are
the same bands, are both bright. All models read signal images only.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ImageError
from chromozoo.images.defects import repair_defects

# Below this contrast, relative to the highest absolute grey value, an image shows only noise.
MIN_CONTRAST = 0.02
# Otsu's threshold lies inside a blurred chromosome; this share of it reaches the visible edge.
EDGE_SHARE = 0.6
BRIGHTEST_PERCENTILE = 99.0
# White of an 8-bit image, the unit of a signal without contrast stretching.
EIGHT_BIT_WHITE = 255.0
# Dead lines and hot pixels are repaired if they raise the contrast by MIN_RAISE. To save time, they
# are searched only if the contrast exceeds this percentile of the departures by the same factor.
MIN_RAISE, USUAL_PERCENTILE = 2.0, 90.0
# Pixels above SPECK_LEVEL of the contrast are a speck if they are at most MAX_SPECK_PIXELS, and if
# the next object, more than SPECK_RIM pixels away, has a contrast within SPECK_CONTRAST of theirs
# and SPECK_AREA times their area. None of 9,722 crops of BioImLab, Pki-3 and four other
# laboratories has a speck by this rule.
SPECK_LEVEL, MAX_SPECK_PIXELS, MAX_SPECKS = 0.5, 60, 3
SPECK_RIM, SPECK_CONTRAST, SPECK_AREA = 2, (0.1, 0.3), 2.0
# The smallest chromosomes of BioImLab, 13 x 15 pixels with their margin, cover about 70 pixels.
MIN_PIXELS = 16


def signal_image(
    grey: NDArray[np.float32], name: str = "array", stretch: bool = True
) -> NDArray[np.float32]:
    """Convert a grey image of one chromosome to a signal image.

    The background is the median of the outermost pixels. The chromosome departs from it to the
    bright or to the dark side, whichever is further. Its 99th percentile becomes 1, which removes
    the influence of exposure and bit depth. Dead lines and hot pixels that outshine the chromosome
    are filled from their neighbours, and specks that outshine it do not count as part of it.

    Args:
        grey: ``(H, W)`` in any units.
        name: Name of the image in error messages.
        stretch: Stretch the contrast. False returns the departure from the background divided by
            255, the full range of 8 bits, and clips it at 1.

    Returns:
        ``(H, W)`` float32 in 0..1.

    Raises:
        ImageError: The image shows no chromosome: it is uniform, or shows only a speck.
    """
    background, brighter, darker = _measure_departures(grey)
    contrast = max(brighter, darker)
    if contrast > MIN_RAISE * float(np.percentile(np.abs(grey - background), USUAL_PERCENTILE)):
        clean, _ = repair_defects(grey, is_crop=True)
        of_clean = _measure_departures(clean)
        if contrast > MIN_RAISE * max(of_clean[1:]):
            grey, (background, brighter, darker) = clean, of_clean
            contrast = max(brighter, darker)
    departure = grey - background
    full_range = max(float(np.abs(grey).max()), 1e-12)
    if contrast < MIN_CONTRAST * full_range or contrast <= 0:
        raise ImageError(
            f"{name}: the image is uniform (all values near {float(background):g}) and shows no "
            "chromosome; check the crop or the exposure"
        )
    signal = np.clip(departure if brighter >= darker else -departure, 0, None)
    inside = signal[_find_chromosome(signal, contrast)]
    if inside.size < MIN_PIXELS:
        raise ImageError(
            f"{name}: the foreground covers {inside.size} pixels, too few for a chromosome; "
            "check the crop for hot pixels and dust"
        )
    top = float(np.percentile(inside, BRIGHTEST_PERCENTILE)) if stretch else EIGHT_BIT_WHITE
    result: NDArray[np.float32] = np.clip(signal / max(top, 1e-12), 0, 1).astype(np.float32)
    return result


def _measure_departures(grey: NDArray[np.float32]) -> tuple[np.float32, float, float]:
    """Return the background level and the largest departures to the bright and dark sides."""
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    background = np.float32(np.median(border))
    departure = grey - background
    return background, float(departure.max()), float(-departure.min())


def _find_chromosome(signal: NDArray[np.float32], contrast: float) -> NDArray[np.bool_]:
    """Return the foreground ``(H, W)`` bool, without specks that outshine the chromosome."""
    chromosome = foreground(signal / contrast)
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
        chromosome, contrast = other, next_contrast
    return chromosome


def foreground(signal: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the mask of the chromosome in a signal image: its largest component.

    A threshold after Otsu is followed by a closing, which joins satellites on a pale stalk to their
    chromosome. A neighbour's arm at the edge of the crop stays separate and is dropped.

    Args:
        signal: ``(H, W)`` in 0..1.

    Returns:
        ``(H, W)`` bool.
    """
    eight_bit = np.round(np.clip(signal, 0, 1) * 255).astype(np.uint8)
    level, _ = cv2.threshold(
        cv2.GaussianBlur(eight_bit, (3, 3), 0), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU
    )
    above = (eight_bit > EDGE_SHARE * level).astype(np.uint8)
    closed = cv2.morphologyEx(
        above, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    )
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    if count < 2:
        return above > 0
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    mask: NDArray[np.bool_] = labels == largest
    return mask
