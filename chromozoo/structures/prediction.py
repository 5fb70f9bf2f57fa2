"""TODO docstring."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says of one image.

    Attributes:
        name: File name or ``"image 3"``.
        label: ``'1'``..``'22'``, ``'X'``, ``'Y'``; empty where the image could not be read.
        probability: Of ``label``, 0..1.
        probabilities: Of all 24 classes in the order of ``CLASSES``.
        p_arm_up: Probability that the p arm is up, once the image has been turned upright by
            less than 90 degrees, for each class that the chromosome may be, ``(24,)``; None
            where the classifier does not tell polarity.
        supernumerary: True where the cell's assignment needed a slot that a normal cell does not have.
        classes: The classes that it may be, at the error rate that was asked for; None where none
            was (:mod:`chromozoo.karyotype.conformal`).
        error: Why the image could not be named, or None.
    """

    name: str
    label: str
    probability: float
    probabilities: NDArray[np.float64] = field(repr=False)
    p_arm_up: NDArray[np.float64] | None = field(default=None, repr=False)
    supernumerary: bool = False
    classes: tuple[str, ...] | None = None
    error: str | None = None
