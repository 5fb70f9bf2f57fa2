"""Synthetic chromosomes of known class, drawn from the ISCN band tables."""

from chromozoo.synthetic.bands import BAND_LEVELS, Band, Stain, bands_of, load_bands
from chromozoo.synthetic.cell import draw_cell, write_bioimlab_layout, write_cell
from chromozoo.synthetic.chromosome import (
    Appearance,
    SyntheticChromosome,
    draw_bands,
    draw_chromosome,
)

__all__ = [
    "BAND_LEVELS",
    "Appearance",
    "Band",
    "Stain",
    "SyntheticChromosome",
    "bands_of",
    "draw_bands",
    "draw_cell",
    "draw_chromosome",
    "load_bands",
    "write_bioimlab_layout",
    "write_cell",
]
