"""Draws the example cell: ``python examples/make_cell.py FOLDER``.

46 chromosomes of a normal male, simulated from the ISCN band tables with the look of a clear Q-band
prometaphase. No picture of a person's chromosome is in it. The file names tell nothing; the classes
are in ``labels.csv``.
"""

import sys
from pathlib import Path

import numpy as np

from chromozoo.classes import AUTOSOMES
from chromozoo.synthetic import Appearance, SyntheticChromosome, draw_cell, write_cell

SEED = 46
APPEARANCE = Appearance(stain="q", length=88, blur=1.4, bend=0.3, overlap=0.0, band_spread=0.07)


def example_cell() -> list[SyntheticChromosome]:
    """The same 46 chromosomes at every call."""
    karyotype = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "Y"]
    return draw_cell(np.random.default_rng(SEED), karyotype=karyotype, appearance=APPEARANCE)


if __name__ == "__main__":
    write_cell(Path(sys.argv[1]), example_cell())
