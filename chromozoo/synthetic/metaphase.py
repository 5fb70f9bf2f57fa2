"""Drawing of whole metaphases of known karyotype, with touching and crossing chromosomes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from chromozoo.classes import Stain
from chromozoo.synthetic.cell import draw_cell
from chromozoo.synthetic.chromosome import Appearance
from chromozoo.synthetic.cut_and_paste import CutChromosome, compose_cell

# Grey value of the background of a G-band image.
LIGHT_BACKGROUND = 235


@dataclass(frozen=True, eq=False)
class SyntheticMetaphase:
    """A drawn metaphase with its ground truth.

    Attributes:
        image: uint8 (H, W).
        labels: Class of each chromosome.
        polygons: Amodal outline (K, 2) xy of each chromosome, in pixels.
    """

    image: npt.NDArray[np.uint8]
    labels: tuple[str, ...]
    polygons: tuple[npt.NDArray[np.float64], ...]


def draw_metaphase(
    rng: np.random.Generator,
    *,
    karyotype: Sequence[str] | None = None,
    stain: Stain = "q",
    appearance: Appearance | None = None,
    overlap: float = 0.3,
    height: int = 576,
    width: int = 768,
) -> SyntheticMetaphase:
    """Draw a metaphase.

    Args:
        rng: Source of randomness.
        karyotype: Class of each chromosome; None draws a normal 46,XX or 46,XY.
        stain: 'q' (bright on dark) or 'g' (dark on light).
        appearance: Appearance of the cell; None draws one.
        overlap: Share of the chromosomes that cross or touch another, 0..1.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        UnknownNameError: ``karyotype`` holds an unknown class, or the stain is unknown.
        ChromozooError: The image is too small for the cell.
    """
    appearance = appearance or Appearance.random(rng, stain)
    # Crossings are drawn by the composition, not by the chromosomes themselves.
    cell = draw_cell(rng, karyotype=karyotype, appearance=replace(appearance, overlap=0.0))
    cut = []
    for drawn in cell:
        outlines, _ = cv2.findContours(
            drawn.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        outline = max(outlines, key=cv2.contourArea)[:, 0].astype(np.float64) + 0.5
        background = int(np.median(np.concatenate([drawn.image[0], drawn.image[-1]])))
        light = np.abs(drawn.image.astype(np.int16) - background)
        cut.append(CutChromosome(light.astype(np.uint8), outline))
    signal, polygons, order = compose_cell(rng, cut, height, width, overlap)
    image = (
        signal
        if appearance.stain == "q"
        else LIGHT_BACKGROUND - np.minimum(signal, LIGHT_BACKGROUND)
    )
    return SyntheticMetaphase(
        image.astype(np.uint8), tuple(cell[k].label for k in order), tuple(polygons)
    )
