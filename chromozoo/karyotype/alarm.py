"""Alarms for cells whose classification is unreliable.

A classifier assigns a class to every image, and the cell-level assignment turns any input into a
complete karyotype: even an unbanded cell becomes ``46,XY``. An alarm marks such a karyotype with
``?`` and states the reason.

The main evidence is the mean calibrated probability of the assigned classes. On cells like those of
the training set it equals the accuracy before the assignment. On unbanded cells, or cells of
another banding (R-band), the class probabilities do not fit one cell, the assignment overrides
them, and the mean drops. The lowest mean of 127 validation metaphases with at least 90 % accuracy
is 0.77, the highest of 18 unbanded fields is 0.63; the threshold lies halfway.
``benchmarks/alarm.py`` measures both.
"""

from collections.abc import Sequence

import numpy as np

from chromozoo.karyotype.assignment import CellAssignment
from chromozoo.structures.arrays import FloatArray

# Mean probability of the assigned classes of a cell.
MIN_MEAN_PROBABILITY = 0.70
# Number of chromosomes of one complete cell.
MIN_COUNT, MAX_COUNT = 40, 60
# Number of gains and losses together.
MAX_CHANGES = 6
# Median over the chromosomes of a cell: standard deviation of the signal along the axis, divided by
# its mean. Below it, hardly any bands are visible.
MIN_BAND_CONTRAST = 0.075
# Magnification that brings the chromosomes to the size of the training data. Above the maximum, the
# image resolves too few bands; below the minimum, the objects are too large for chromosomes.
MIN_ZOOM, MAX_ZOOM = 0.2, 2.5
# Number of single-chromosome images needed to recognise a foreign image domain.
MIN_IMAGES = 10
# Mean probability of the predicted classes of single-chromosome images.
MIN_MEAN_PROBABILITY_ALONE = 0.75
# Single-chromosome images: limit for the ratio between the median length and the typical one, for
# many images and for one image. Within a cell, lengths are 0.45 to 1.9 times the median.
LENGTH_RANGE_MANY, LENGTH_RANGE_ONE = 1.5, 3.0


def mark_iscn(iscn: str, alarms: Sequence[str]) -> str:
    """Return an ISCN string, with ``?`` appended if there are alarms."""
    return f"{iscn}?" if alarms and iscn else iscn


def cell_alarms(
    probabilities: FloatArray,
    cell: CellAssignment,
    *,
    band_contrasts: Sequence[float] = (),
    zoom: float = 1.0,
) -> tuple[str, ...]:
    """Return the reasons why the classification of a cell is unreliable.

    Args:
        probabilities: ``(N, 24)`` calibrated class probabilities of the chromosomes of one cell.
        cell: Their assignment (:func:`chromozoo.karyotype.assignment.assign_cell`).
        band_contrasts: Band contrast of each chromosome
            (:func:`chromozoo.karyotype.polarity.band_contrast`); empty if unknown.
        zoom: Magnification that brings the chromosomes to the size of the training data.

    Returns:
        One sentence for each reason; empty if the classification is reliable.
    """
    alarms = []
    count = len(cell.classes)
    mean = float(probabilities[np.arange(count), cell.classes].mean())
    if mean < MIN_MEAN_PROBABILITY:
        alarms.append(
            f"classes uncertain: mean probability {mean:.0%}, at least {MIN_MEAN_PROBABILITY:.0%} "
            "needed; unbanded, an unknown banding, or out of focus?"
        )
    if len(band_contrasts) and (contrast := float(np.median(band_contrasts))) < MIN_BAND_CONTRAST:
        alarms.append(
            f"hardly any bands: the signal varies by {contrast:.1%} along a chromosome, at least "
            f"{MIN_BAND_CONTRAST:.1%} needed; unbanded, or out of focus?"
        )
    if count < MIN_COUNT:
        alarms.append(
            f"too few chromosomes for a complete cell: {count}, at least {MIN_COUNT} needed"
        )
    elif count > MAX_COUNT:
        alarms.append(
            f"too many chromosomes for one cell: {count}, at most {MAX_COUNT}; several cells, or a "
            "polyploid one?"
        )
    elif (changes := len(cell.gains) + len(cell.losses)) > MAX_CHANGES:
        alarms.append(
            f"too many gains and losses: {changes}, at most {MAX_CHANGES}; chromosomes missed, or "
            "other objects detected as chromosomes?"
        )
    if not MIN_ZOOM <= zoom <= MAX_ZOOM:
        alarms.append(
            f"unusual size: chromosomes are {1 / zoom:.2g} times as long as in the training data; "
            + ("use the full resolution" if zoom > MAX_ZOOM else "reduce the image")
        )
    return tuple(alarms)


def image_alarms(
    probabilities: FloatArray, lengths: Sequence[float], typical_length: float
) -> tuple[str, ...]:
    """Return how single-chromosome images differ from the training data.

    Args:
        probabilities: ``(N, 24)`` calibrated class probabilities.
        lengths: Lengths of the N chromosomes in pixels of their images.
        typical_length: Median chromosome length in the training images, in pixels; 0 if unknown.

    Returns:
        One sentence for each difference; empty if there is none.
    """
    alarms = []
    count = len(lengths)
    if typical_length and count:
        length = float(np.median(lengths))
        max_ratio = LENGTH_RANGE_MANY * (LENGTH_RANGE_ONE / LENGTH_RANGE_MANY) ** (count**-0.5)
        if not 1 / max_ratio <= length / typical_length <= max_ratio:
            alarms.append(
                f"unusual size: the median chromosome is {length:.0f} pixels long, in the training "
                f"images {typical_length:.0f}; resize the images by {typical_length / length:.2f}, "
                "or classify the chromosomes of a cell together (--as-cell, as_cell=True), which "
                "resizes them"
            )
    mean = float(probabilities.max(axis=1).mean()) if count else 1.0
    if count >= MIN_IMAGES and mean < MIN_MEAN_PROBABILITY_ALONE:
        alarms.append(
            f"unusual appearance: mean probability {mean:.0%}, on images like the training data at "
            f"least {MIN_MEAN_PROBABILITY_ALONE:.0%}; use other weights (chromozoo models), or "
            "check size and focus"
        )
    return tuple(alarms)
