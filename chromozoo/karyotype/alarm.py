"""An alarm for cells that cannot be named.

A classifier gives every image a class, and the assignment makes a whole karyotype of whatever it is
given: an unbanded cell becomes ``46,XY``, too. The alarm says whether the names of a cell can be
trusted at all. Where they cannot, the karyotype is marked with ``?`` and the reason is given.

The main evidence is the mean calibrated probability of the names *after* the assignment. On cells
like those of the training it is the share of names that are right before any assignment. On cells
that show no bands, or other ones (R-band), what the classifier says of each chromosome does not
fit into one cell, the assignment overrides it, and the mean falls. Of 127 validation metaphases in
which 9 of 10 names are right the lowest mean is 0.77, of 18 unbanded fields the highest is 0.63:
the threshold lies midway. ``benchmarks/alarm.py`` measures both.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chromozoo.karyotype.assignment import CellAssignment
from chromozoo.structures.arrays import FloatArray

# Mean probability of the names of a cell below which they cannot be trusted.
MIN_MEAN_PROBABILITY = 0.70
# Fewer or more chromosomes than this are no single whole cell.
MIN_COUNT, MAX_COUNT = 40, 60
# More gains and losses than this are no karyotype that should be copied unread.
MAX_CHANGES = 6
# Median over the chromosomes of a cell: how much the signal varies along the axis, as the standard
# deviation by the mean. Below this there are hardly any bands.
MIN_BAND_CONTRAST = 0.075
# Magnifications that bring the chromosomes to the size that a classifier has learnt: beyond these,
# too little of the bands is left in the image, or the size is no chromosome's.
MIN_ZOOM, MAX_ZOOM = 0.2, 2.5
# Fewer single chromosomes than this say little of the laboratory that they come from.
MIN_IMAGES = 10
# Mean probability of the classes of single chromosomes, each named alone.
MIN_MEAN_PROBABILITY_ALONE = 0.75
# Single chromosomes: the median length is foreign from this factor on, for many and for one. The
# largest chromosome of a cell is 1.9 times as long as the median one, the smallest 0.45 times.
LENGTH_RANGE_MANY, LENGTH_RANGE_ONE = 1.5, 3.0


def marked(iscn: str, alarms: Sequence[str]) -> str:
    """An ISCN string, with ``?`` at its end where there are alarms."""
    return f"{iscn}?" if alarms and iscn else iscn


def mean_probability(probabilities: FloatArray, classes: NDArray[np.integer]) -> float:
    """Mean probability, 0..1, of the classes that the chromosomes of a cell were given.

    Args:
        probabilities: ``(N, 24)``, calibrated.
        classes: ``(N,)`` indices of the given classes.
    """
    return float(probabilities[np.arange(len(classes)), classes].mean())


def cell_alarms(
    probabilities: FloatArray,
    cell: CellAssignment,
    *,
    band_contrasts: Sequence[float] = (),
    zoom: float = 1.0,
) -> tuple[str, ...]:
    """Why the names of a cell cannot be trusted; empty where they can.

    Args:
        probabilities: ``(N, 24)``, calibrated, of the chromosomes of one cell.
        cell: Their assignment (:func:`chromozoo.karyotype.assignment.assign_cell`).
        band_contrasts: Of the chromosomes (:class:`chromozoo.karyotype.polarity.Polarity`); empty where
            they are not known.
        zoom: Magnification that brings the chromosomes to the size that the classifier has learnt.
    """
    alarms = []
    count, mean = len(cell.classes), mean_probability(probabilities, cell.classes)
    if mean < MIN_MEAN_PROBABILITY:
        alarms.append(
            f"names uncertain: mean probability {mean:.0%}, at least {MIN_MEAN_PROBABILITY:.0%} "
            "needed; unbanded, a banding that the model does not know, or out of focus?"
        )
    if len(band_contrasts) and (contrast := float(np.median(band_contrasts))) < MIN_BAND_CONTRAST:
        alarms.append(
            f"hardly any bands: the signal varies by {contrast:.1%} along a chromosome, at least "
            f"{MIN_BAND_CONTRAST:.1%} needed; unbanded, or out of focus?"
        )
    if count < MIN_COUNT:
        alarms.append(f"too few chromosomes for a whole cell: {count}, at least {MIN_COUNT} needed")
    elif count > MAX_COUNT:
        alarms.append(
            f"too many chromosomes for one cell: {count}, at most {MAX_COUNT}; several cells, or a "
            "polyploid one?"
        )
    elif (changes := len(cell.gains) + len(cell.losses)) > MAX_CHANGES:
        alarms.append(
            f"too many gains and losses: {changes}, at most {MAX_CHANGES}; chromosomes missed, or "
            "other things taken for chromosomes?"
        )
    if not MIN_ZOOM <= zoom <= MAX_ZOOM:
        alarms.append(
            f"foreign size: chromosomes are {1 / zoom:.2g} times as long as those that the model "
            "has learnt; " + ("use the full resolution" if zoom > MAX_ZOOM else "reduce the image")
        )
    return tuple(alarms)


def image_alarms(
    probabilities: FloatArray, lengths: Sequence[float], typical_length: float
) -> tuple[str, ...]:
    """What is foreign about images of single chromosomes that are named each alone.

    Args:
        probabilities: ``(N, 24)``, calibrated.
        lengths: Of the N chromosomes, in pixels of their images.
        typical_length: Length of the median chromosome in the images that the weights have learnt
            from, 0 where it is not known.
    """
    alarms = []
    count = len(lengths)
    if typical_length and count:
        length = float(np.median(lengths))
        allowed = LENGTH_RANGE_MANY * (LENGTH_RANGE_ONE / LENGTH_RANGE_MANY) ** (count**-0.5)
        if not 1 / allowed <= length / typical_length <= allowed:
            alarms.append(
                f"foreign size: the median chromosome is {length:.0f} pixels long, in the images "
                f"that these weights know it is {typical_length:.0f}; resize the images by "
                f"{typical_length / length:.2f}, or name the chromosomes of a cell together "
                "(--as-cell, as_cell=True), which does it"
            )
    mean = float(probabilities.max(axis=1).mean()) if count else 1.0
    if count >= MIN_IMAGES and mean < MIN_MEAN_PROBABILITY_ALONE:
        alarms.append(
            f"foreign look: mean probability {mean:.0%}, on images that these weights know at "
            f"least {MIN_MEAN_PROBABILITY_ALONE:.0%}; take other weights (chromozoo models), or "
            "check size and focus"
        )
    return tuple(alarms)
