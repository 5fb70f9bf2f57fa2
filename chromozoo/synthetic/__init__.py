"""Synthetic chromosomes, cells and metaphases of known class, drawn from the ISCN band tables."""

from chromozoo.synthetic.cell import draw_cell, write_bioimlab_layout, write_cell
from chromozoo.synthetic.chromosome import (
    Appearance,
    SyntheticChromosome,
    draw_bands,
    draw_chromosome,
)
from chromozoo.synthetic.metaphase import SyntheticMetaphase, draw_metaphase

__all__ = [
    "Appearance",
    "SyntheticChromosome",
    "SyntheticMetaphase",
    "draw_bands",
    "draw_cell",
    "draw_chromosome",
    "draw_metaphase",
    "write_bioimlab_layout",
    "write_cell",
]
