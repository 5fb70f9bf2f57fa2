"""Draw a whole metaphase of known karyotype: chromosomes over a field, some across others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from chromozoo.classes import Stain
from chromozoo.synthetic.cell import draw_cell
from chromozoo.synthetic.chromosome import Appearance
from chromozoo.synthetic.cut_and_paste import CutChromosome, compose_cell

# Grey value of the ground of a drawn G-band image.
LIGHT_GROUND = 235


@dataclass(frozen=True, eq=False)
class SyntheticMetaphase:
    """A drawn metaphase and all that is known about it.

    Attributes:
        image: uint8 (H, W).
        labels: Class of each chromosome.
        polygons: Amodal outline (K, 2) xy of each, in pixels.
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
        karyotype: One class per chromosome; None draws a normal 46,XX or 46,XY.
        stain: 'q' (bright on dark) or 'g' (dark on light).
        appearance: Look of the cell; None draws one.
        overlap: Share of the chromosomes that cross or touch another, 0..1.
        height: Of the image in pixels.
        width: Of the image in pixels.

    Raises:
        UnknownNameError: A name in ``karyotype`` is not a class, or the stain is unknown.
        ChromozooError: The image is too small for the cell.
    """
    look = appearance or Appearance.random(rng, stain)
    # The whole light of each is needed where it lies across another, not a crop of it.
    cell = draw_cell(rng, karyotype=karyotype, appearance=replace(look, overlap=0.0))
    cut = []
    for drawn in cell:
        outlines, _ = cv2.findContours(
            drawn.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        outline = max(outlines, key=cv2.contourArea)[:, 0].astype(np.float64) + 0.5
        ground = int(np.median(np.concatenate([drawn.image[0], drawn.image[-1]])))
        light = np.abs(drawn.image.astype(np.int16) - ground)
        cut.append(CutChromosome(light.astype(np.uint8), outline))
    signal, polygons, order = compose_cell(rng, cut, height, width, overlap)
    image = signal if look.stain == "q" else LIGHT_GROUND - np.minimum(signal, LIGHT_GROUND)
    return SyntheticMetaphase(
        image.astype(np.uint8), tuple(cell[k].label for k in order), tuple(polygons)
    )
