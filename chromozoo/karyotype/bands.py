"""ISCN band tables: the bands of each human chromosome and their stain.

Source: NCBI/UCSC cytogenetic band tables at the 400, 550 and 850 band levels (CC0), coordinates of
the assembly GRCh38. ISCN = An International System for Human Cytogenomic Nomenclature.
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise

from chromozoo.classes import CLASSES
from chromozoo.errors import UnknownNameError

BAND_LEVELS: tuple[int, ...] = (400, 550, 850)
STAINS: tuple[str, ...] = ("q", "g")


@dataclass(frozen=True)
class Band:
    """One band of a chromosome.

    Attributes:
        arm: 'p' or 'q'.
        name: Band name without chromosome and arm, e.g. '36.3'.
        start: Start in ISCN units, the scale of the ideogram (0 is the telomere of the p arm).
        stop: End in ISCN units.
        megabases: Physical length.
        kind: Stain in the table: 'gneg', 'gpos', 'acen' (centromere), 'gvar' (heterochromatin of
            variable size and stain) or 'stalk' (acrocentric chromosomes).
        density: G-band darkness, 0..1.
        fluorescence: Q-band brightness, 0..1; above 1 only for brilliant heterochromatin.
    """

    arm: str
    name: str
    start: float
    stop: float
    megabases: float
    kind: str
    density: float
    fluorescence: float


# (G darkness, Q brightness) of the kinds without a percentage in the table. Quinacrine leaves the
# heterochromatin of 1q12, 9q12 and 16q11.2 dull, which Giemsa stains dark or variably; Yq12 is the
# brightest band of the karyotype, followed by the satellites.
_STAIN_OF_KIND: dict[str, tuple[float, float]] = {
    "gneg": (0.0, 0.0),
    "acen": (0.45, 0.25),
    "gvar": (0.7, 0.15),
    "stalk": (0.0, 0.0),
}
_ACROCENTRIC = frozenset({"13", "14", "15", "21", "22"})
_STAIN_OF_BAND: dict[tuple[str, str, str], tuple[float, float]] = {
    ("Y", "q", "12"): (0.8, 2.1),
    ("9", "q", "12"): (0.2, 0.05),
    **{(name, "p", band): (0.5, 0.55) for name in _ACROCENTRIC for band in ("13", "11.2")},
    # The centromeres of 3 and 4 carry a Q-bright polymorphism.
    **{(name, arm, band): (0.5, 0.7) for name in "34" for arm in "pq" for band in ("11", "11.1")},
}


@cache
def load_bands(level: int = 550) -> dict[str, tuple[Band, ...]]:
    """Load the bands of all 24 chromosome classes, each from the p to the q telomere.

    Args:
        level: Band level of the haploid karyotype: 400, 550 or 850.

    Returns:
        ``{'1': (Band, ...), ..., '22': ..., 'X': ..., 'Y': ...}`` without mitochondrial DNA.
        Bands of a chromosome touch: the few gaps of the 550 table, which are in ISCN units only,
        are closed half from each side.

    Raises:
        UnknownNameError: ``level`` is not one of ``BAND_LEVELS``.
    """
    if level not in BAND_LEVELS:
        raise UnknownNameError(f"band level {level!r}: choose one of {BAND_LEVELS}.")
    text = (
        files("chromozoo.karyotype")
        .joinpath(f"iscn_bands/iscn-bands-{level}.json")
        .read_text("utf-8")
    )
    bands: dict[str, list[Band]] = {name: [] for name in CLASSES}
    for row in json.loads(text)["chrBands"]:
        # chromosome arm band iscn_start iscn_stop bp_start bp_stop stain [percent]
        chromosome, arm, name, start, stop, first, last, *stain = row.split()
        if chromosome not in bands:
            continue
        kind = stain[0]
        if kind == "gpos":
            density = fluorescence = int(stain[1]) / 100
        else:
            key = (chromosome, arm, name)
            density, fluorescence = _STAIN_OF_BAND.get(key, _STAIN_OF_KIND[kind])
        megabases = (int(last) - int(first) + 1) / 1e6
        bands[chromosome].append(
            Band(arm, name, float(start), float(stop), megabases, kind, density, fluorescence)
        )
    return {name: _close_gaps(rows) for name, rows in bands.items()}


def _close_gaps(bands: list[Band]) -> tuple[Band, ...]:
    """Return the bands with each gap divided between its two neighbours."""
    edges = [(left.stop + right.start) / 2 for left, right in pairwise(bands)]
    starts, stops = [bands[0].start, *edges], [*edges, bands[-1].stop]
    return tuple(
        replace(band, start=start, stop=stop)
        for band, start, stop in zip(bands, starts, stops, strict=True)
    )


def bands_of(name: str, level: int = 550) -> tuple[Band, ...]:
    """Return the bands of one chromosome class, from the p to the q telomere.

    Raises:
        UnknownNameError: ``name`` is not one of ``CLASSES``; the message lists them.
    """
    table = load_bands(level)
    if name not in table:
        raise UnknownNameError(
            f"chromosome class {name!r} is not known: choose one of {', '.join(CLASSES)}."
        )
    return table[name]
