"""Simulated example images: ``python examples/make_examples.py FOLDER``.

``cell_46XY/``: the 46 chromosomes of a normal male, one image each. The file names do not show the
classes, which are in ``labels.csv``. ``*.png``: three metaphases. All are simulated from the ISCN
band tables with the appearance of a clear Q-band prometaphase; they contain no image of a person's
chromosome.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from chromozoo.classes import AUTOSOMES
from chromozoo.synthetic import (
    Appearance,
    SyntheticChromosome,
    SyntheticMetaphase,
    draw_cell,
    draw_metaphase,
    write_cell,
)

SEED = 46
APPEARANCE = Appearance(stain="q", length=88, blur=1.4, bend=0.3, overlap=0.0, band_spread=0.07)
AUTOSOME_PAIRS = np.repeat(AUTOSOMES, 2).tolist()
# Karyotype, share of crossing or touching chromosomes, and seed.
METAPHASES = {
    "normal_46XY": ([*AUTOSOME_PAIRS, "X", "Y"], 0.0, 1),
    "overlaps_46XX": ([*AUTOSOME_PAIRS, "X", "X"], 0.15, 12),
    "trisomy_47XX": ([*AUTOSOME_PAIRS, "21", "X", "X"], 0.0, 3),
}


def example_cell() -> list[SyntheticChromosome]:
    """Draw the 46 chromosomes, the same at every call."""
    karyotype = [*AUTOSOME_PAIRS, "X", "Y"]
    return draw_cell(np.random.default_rng(SEED), karyotype=karyotype, appearance=APPEARANCE)


def example_metaphase(name: str) -> SyntheticMetaphase:
    """Draw one of :data:`METAPHASES`, the same at every call."""
    karyotype, overlap, seed = METAPHASES[name]
    return draw_metaphase(
        np.random.default_rng(seed), karyotype=karyotype, appearance=APPEARANCE, overlap=overlap
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_cell(folder / "cell_46XY", example_cell())
    for name in METAPHASES:
        Image.fromarray(example_metaphase(name).image).save(folder / f"{name}.png", optimize=True)
