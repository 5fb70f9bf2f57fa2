"""Normalisation: every stain, bit depth and background becomes one *signal image*.

A signal image is float32 ``(H, W)``, 0..1, background 0, chromosome bright. A Q-band or DAPI
picture keeps its sense and a G-band picture is inverted, so Q-bright and G-dark bands (the same
bands) are both bright. All models read signal images and nothing else, whatever the microscope.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ImageError

# Below this contrast (of the image's own full range) there is nothing but noise.
LEAST_CONTRAST = 0.02
# Otsu's threshold lies inside a blurred chromosome; this share of it reaches the visible edge.
EDGE_SHARE = 0.6
BRIGHTEST_PERCENTILE = 99.0
# White of an 8-bit picture, what a signal is measured by that is not stretched.
EIGHT_BIT_WHITE = 255.0
# The smallest chromosomes of BioImLab, 13 x 15 pixels with their margin, cover about 70.
FEWEST_PIXELS = 16


def signal_image(
    grey: NDArray[np.float32], name: str = "array", stretch: bool = True
) -> NDArray[np.float32]:
    """Turns a grey picture of one chromosome into a signal image.

    The background is the median of the outermost pixels; the chromosome is whatever departs
    further from it, to the bright or to the dark side. The 99th percentile of the chromosome
    becomes 1, so exposure and bit depth drop out.

    Args:
        grey: ``(H, W)`` in any units.
        name: What an error calls the image.
        stretch: False leaves the contrast as it is: the signal is the departure from the background
            divided by 255, the full range of 8 bits. What departs further, as in pictures of 16
            bits, is cut at 1.

    Returns:
        ``(H, W)`` float32 in 0..1.

    Raises:
        ImageError: The picture is uniform (all black, all white) or shows a speck only: there is
            no chromosome.
    """
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    background = np.float32(np.median(border))
    departure = grey - background
    brighter, darker = float(departure.max()), float(-departure.min())
    contrast = max(brighter, darker)
    full_range = max(float(np.abs(grey).max()), 1e-12)
    if contrast < LEAST_CONTRAST * full_range or contrast <= 0:
        raise ImageError(
            f"{name}: the image is uniform (all values near {float(background):g}), there is no "
            "chromosome to name; check the crop or the exposure"
        )
    signal = np.clip(departure if brighter >= darker else -departure, 0, None)
    inside = signal[foreground(signal / contrast)]
    if inside.size < FEWEST_PIXELS:
        raise ImageError(
            f"{name}: what stands out of the background covers {inside.size} pixels, too few for a "
            "chromosome; is it a hot pixel or dust?"
        )
    top = float(np.percentile(inside, BRIGHTEST_PERCENTILE)) if stretch else EIGHT_BIT_WHITE
    result: NDArray[np.float32] = np.clip(signal / max(top, 1e-12), 0, 1).astype(np.float32)
    return result


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
