"""Prediction of a classifier for one image of a chromosome."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted class of one image.

    Attributes:
        name: File name or ``"image 3"``.
        label: ``'1'``..``'22'``, ``'X'``, ``'Y'``; empty if the image could not be read.
        probability: Probability of ``label``, 0..1.
        probabilities: Probabilities of the 24 classes, in the order of ``CLASSES``.
        p_arm_up: ``(24,)``, probability for each possible class that the p arm is up, once the
            image has been turned upright by less than 90 degrees; None if the classifier does not
            predict polarity.
        supernumerary: Whether the cell assignment had to use a slot that a normal cell does not
            have.
        classes: Prediction set at the requested error rate (:mod:`chromozoo.karyotype.conformal`);
            None if no error rate was requested.
        error: Why the image could not be classified, or None.
    """

    name: str
    label: str
    probability: float
    probabilities: NDArray[np.float64] = field(repr=False)
    p_arm_up: NDArray[np.float64] | None = field(default=None, repr=False)
    supernumerary: bool = False
    classes: tuple[str, ...] | None = None
    error: str | None = None
