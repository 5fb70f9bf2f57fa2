"""The 24 chromosome classes and the Denver groups, in the order that all models share.

Index ``i`` of a probability vector is always ``CLASSES[i]``. This module imports neither numpy nor
torch, so that ``chromozoo --help`` stays fast.
"""

from typing import Literal

# "g": G-band, dark on light. "q": Q-band and DAPI, bright on dark, with the same bands.
Stain = Literal["q", "g"]

AUTOSOMES: tuple[str, ...] = tuple(str(number) for number in range(1, 23))
SEX_CHROMOSOMES: tuple[str, ...] = ("X", "Y")

CLASSES: tuple[str, ...] = AUTOSOMES + SEX_CHROMOSOMES
CLASS_INDEX: dict[str, int] = {name: index for index, name in enumerate(CLASSES)}

# Number of chromosomes of a normal human cell.
DIPLOID_NUMBER = 46

# Denver/ISCN groups in the order of a karyogram. By size, X belongs to group C and Y to group G; a
# karyogram draws both after the autosomes.
DENVER_GROUPS: dict[str, tuple[str, ...]] = {
    "A": ("1", "2", "3"),
    "B": ("4", "5"),
    "C": ("6", "7", "8", "9", "10", "11", "12", "X"),
    "D": ("13", "14", "15"),
    "E": ("16", "17", "18"),
    "F": ("19", "20"),
    "G": ("21", "22", "Y"),
}
