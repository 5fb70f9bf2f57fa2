"""Karyotypes as strings of the International System for Human Cytogenomic Nomenclature (ISCN)."""

from collections.abc import Mapping

from chromozoo.classes import AUTOSOMES, CLASS_INDEX, CLASSES
from chromozoo.errors import ChromozooError, UnknownNameError


class CellError(ChromozooError, ValueError):
    """Invalid numbers for a cell; the message names the row and the cause."""


def normal_counts(sex: str) -> dict[str, int]:
    """Return the chromosome counts of a normal cell: two of each autosome, and the sex chromosomes.

    Args:
        sex: ``"XX"`` or ``"XY"``.
    """
    return {name: 2 if name in AUTOSOMES else sex.count(name) for name in CLASSES}


def iscn_string(counts: Mapping[str, int]) -> str:
    """Format chromosome counts as an ISCN karyotype, such as ``47,XX,+21``.

    The sex chromosomes are written as counted, X before Y (``45,X``, ``47,XXY``), or as ``?`` if
    there are none. The gained and lost autosomes follow in ascending order. As in ISCN, a cell is
    compared with the nearest ploidy level (58 to 80 chromosomes: triploid, 81 to 103: tetraploid),
    so that three full sets are ``69,XXX``. A cell with few chromosomes is nearly always incomplete,
    so it is compared with the diploid set, never with the haploid one.

    Args:
        counts: Number of chromosomes of each class; a missing class counts 0.

    Raises:
        UnknownNameError: A key is not one of ``CLASSES``.
        CellError: A count is negative.
    """
    for name, count in counts.items():
        if name not in CLASS_INDEX:
            raise UnknownNameError(
                f"{name!r} is not a chromosome class; the classes are {', '.join(CLASSES)}"
            )
        if count < 0:
            raise CellError(f"chromosome {name} is counted {count} times: give 0 or more")
    total = sum(counts.values())
    ploidy = max(2, round(total / 23))
    sex_chromosomes = "X" * counts.get("X", 0) + "Y" * counts.get("Y", 0)
    fields = [str(total), sex_chromosomes or "?"]
    for name in AUTOSOMES:
        difference = counts.get(name, 0) - ploidy
        fields += [f"{'+' if difference > 0 else '-'}{name}"] * abs(difference)
    return ",".join(fields)
