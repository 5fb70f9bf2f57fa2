"""The karyotype of one metaphase and its chromosomes."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import Stain
from chromozoo.images.levels import Levels
from chromozoo.karyotype.alarm import mark_iscn
from chromozoo.karyotype.assignment import CellAssignment
from chromozoo.karyotype.iscn import iscn_string
from chromozoo.structures.arrays import FloatArray
from chromozoo.structures.segmentation import Segmentation


@dataclass(frozen=True, eq=False)
class KaryotypedChromosome:
    """One chromosome of a karyotyped cell.

    Attributes:
        number: Number from 1, as written on the overlay; the index in the segmentation plus one.
        label: Class, one of ``CLASSES``.
        probability: Calibrated probability of ``label``, 0..1.
        probabilities: ``(24,)`` class probabilities in the order of ``CLASSES``.
        margin: Log-likelihood difference in nats between the assignment of the cell and the best
            one with another class for this chromosome
            (:func:`chromozoo.karyotype.assignment.assignment_margins`); without assignment, between
            the two most probable classes.
        score: Segmentation score, 0..1.
        supernumerary: Whether the chromosome exceeds the normal set.
        review_reasons: Reasons for a manual review; empty if none is needed.
        image: ``(h, w)`` float32 signal image, upright with the p arm up, at the scale of the
            metaphase.
        centromere: Row of the centromere in ``image``, from the ISCN band tables.
        p_arm: Direction of the p arm in the metaphase, 0..360 degrees clockwise from up.
        polarity_certainty: 0 (undecided) to 1 from a classifier with a polarity head; otherwise the
            certainty of :class:`chromozoo.karyotype.polarity.Polarity`.
    """

    number: int
    label: str
    probability: float
    probabilities: FloatArray
    margin: float
    score: float
    supernumerary: bool
    review_reasons: tuple[str, ...]
    image: NDArray[np.float32]
    centromere: float
    p_arm: float
    polarity_certainty: float

    @property
    def needs_review(self) -> bool:
        """Whether a human should review the chromosome."""
        return bool(self.review_reasons)


@dataclass(frozen=True, eq=False)
class Karyotype:
    """The result of :class:`chromozoo.karyotype.karyotyper.Karyotyper` for one metaphase.

    Attributes:
        name: Name of the image.
        segmentation: The chromosomes in pixels of ``image``.
        chromosomes: The classified chromosomes in the order of ``segmentation``.
        cell: Assignment of the cell; None without assignment or without chromosomes. Its ``iscn``
            ends in ``?`` if there are alarms.
        flags: Anomalies of the cell or the image, in words; empty for a normal cell.
        image: ``(H, W)`` float32 grey image in the units of its file.
        levels: Grey levels of ``image``.
        stain: ``"g"`` (G-band) or ``"q"`` (Q-band, DAPI); selects the weights.
        alarms: Reasons why the classification is unreliable, in words
            (:mod:`chromozoo.karyotype.alarm`); empty if it is reliable.
    """

    name: str
    segmentation: Segmentation
    chromosomes: tuple[KaryotypedChromosome, ...]
    cell: CellAssignment | None
    flags: tuple[str, ...]
    image: NDArray[np.float32] = field(repr=False)
    levels: Levels = field(repr=False)
    stain: Stain = "q"
    alarms: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of chromosomes."""
        return len(self.chromosomes)

    @property
    def mean_probability(self) -> float:
        """Mean probability of the predicted classes, 0..1; NaN without chromosomes."""
        return float(np.mean([item.probability for item in self.chromosomes] or [np.nan]))

    @property
    def iscn(self) -> str:
        """The karyotype as counted, such as ``47,XX,+21``; empty without chromosomes.

        With alarms it ends in ``?``, such as ``46,XY?``, which is not a valid ISCN string.
        """
        labels = Counter(item.label for item in self.chromosomes)
        return mark_iscn(iscn_string(labels), self.alarms) if labels else ""
