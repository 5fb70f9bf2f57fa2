"""Synthetic chromosomes of known class, drawn from the ISCN band tables."""

from chromozoo.classes import Stain
from chromozoo.karyotype.bands import BAND_LEVELS, Band, bands_of, load_bands
from chromozoo.synthetic.cell import draw_cell, write_bioimlab_layout, write_cell
from chromozoo.synthetic.chromosome import (
    Appearance,
    SyntheticChromosome,
    draw_bands,
    draw_chromosome,
)
from chromozoo.synthetic.metaphase import SyntheticMetaphase, draw_metaphase

__all__ = [
    "BAND_LEVELS",
    "Appearance",
    "Band",
    "Stain",
    "SyntheticChromosome",
    "SyntheticMetaphase",
    "bands_of",
    "draw_bands",
    "draw_cell",
    "draw_chromosome",
    "draw_metaphase",
    "load_bands",
    "write_bioimlab_layout",
    "write_cell",
]
