"""TODO docstring."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import Stain
from chromozoo.images.levels import Levels
from chromozoo.karyotype.alarm import marked
from chromozoo.karyotype.assignment import CellAssignment
from chromozoo.karyotype.iscn import iscn_string
from chromozoo.structures.segmentation import Segmentation


@dataclass(frozen=True, eq=False)
class KaryotypedChromosome:
    """One chromosome of a karyotyped cell.

    Attributes:
        number: From 1, as written on the overlay; the segmentation's index is one less.
        label: Its class, one of ``CLASSES``.
        probability: What the classifier gives this class, calibrated, 0..1.
        probabilities: ``(24,)`` in the order of ``CLASSES``.
        margin: Nats by which the cell's naming is better than the best one that names this
            chromosome otherwise (:func:`chromozoo.karyotype.assignment.assignment_margins`); without
            assignment, its own class against the runner-up.
        score: Of the segmentation, 0..1.
        supernumerary: Whether it is beyond the normal set.
        review_reasons: Why a human should look at it; empty where nobody needs to.
        image: ``(h, w)`` float32 signal image, upright with the p arm up, at the scale of the
            metaphase.
        centromere: Its row in ``image``, from the table of bands.
        p_arm: Where the p arm points in the metaphase: degrees clockwise from up, 0..360.
        polarity_certainty: Of a classifier that tells polarity, 0 (says nothing) to 1; else that of
            :class:`chromozoo.karyotype.polarity.Polarity`.
    """

    number: int
    label: str
    probability: float
    probabilities: NDArray[np.float64]
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
        """Whether a human should look at it."""
        return bool(self.review_reasons)


@dataclass(frozen=True, eq=False)
class Karyotype:
    """What :class:`Karyotyper` makes of one metaphase.

    Attributes:
        name: Of the image.
        segmentation: Its chromosomes, in pixels of the image.
        chromosomes: In the order of the segmentation.
        cell: The naming of the whole cell; None where each was named alone, or there is none. Its
            ``iscn`` is marked as that of the karyotype is.
        flags: What is odd about the cell or the image, in words; empty for a normal cell.
        stain: ``"g"`` (G-band) or ``"q"`` (Q-band, DAPI): chose the weights.
        alarms: Why the names cannot be trusted, in words; empty where they can
            (:mod:`chromozoo.karyotype.alarm`).
        image: ``(H, W)`` float32, the grey image that was karyotyped, in the units of its file.
        levels: Its grey levels, and what was left out of them.
    """

    name: str
    segmentation: Segmentation
    chromosomes: tuple[KaryotypedChromosome, ...]
    cell: CellAssignment | None
    flags: tuple[str, ...]
    stain: Stain = "q"
    alarms: tuple[str, ...] = ()
    image: NDArray[np.float32] | None = field(default=None, repr=False)
    levels: Levels | None = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """Number of chromosomes."""
        return len(self.chromosomes)

    @property
    def mean_probability(self) -> float:
        """Mean probability of the names, 0..1; what the alarm goes by. NaN without chromosomes."""
        return float(np.mean([item.probability for item in self.chromosomes] or [np.nan]))

    @property
    def iscn(self) -> str:
        """The karyotype as counted, such as ``47,XX,+21``; empty without chromosomes.

        Where there are alarms it ends in ``?``, such as ``46,XY?``: no valid ISCN string.
        """
        labels = Counter(item.label for item in self.chromosomes)
        return marked(iscn_string(labels), self.alarms) if labels else ""
