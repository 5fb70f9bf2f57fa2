"""Sets of classes that hold the right one but for a chosen share of errors.

Split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates, arXiv:2107.07511): a class is
left out of a chromosome's set where it is stranger than a threshold, and the threshold is such that
of the validation chromosomes, whose class is known, no more than the chosen share lose theirs. New
chromosomes lose theirs as rarely, whatever the network, provided that they come from where the
validation ones come from; of another laboratory nothing is promised. The promise is for chromosomes
on the average, not for each class or cell.

How strange a class is can be mode of the chromosome alone, or within its cell: by what the whole
cell's naming loses if the chromosome has that name (as in
:func:`chromozoo.karyotype.assignment.assignment_margins`).
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chromozoo.errors import ChromozooError
from chromozoo.karyotype.assignment import best_with_each_class
from chromozoo.structures.arrays import FloatArray

ConformalMode = Literal["alone", "cell"]
# Those for which thresholds are stored with weights.
ERROR_RATES = (0.1, 0.05, 0.02, 0.01, 0.005)
REMEDY = (
    "choose weights that `chromozoo models` lists with prediction sets, or calibrate these with "
    "`chromozoo calibrate MODEL --weights WEIGHTS --output DIR`"
)


class ConformalError(ChromozooError, ValueError):
    """No set with this error rate can be given; the message says why."""


def nonconformity_scores(log_probabilities: ArrayLike, mode: ConformalMode = "alone") -> FloatArray:
    """How strange each class would be, in nats, ``(N, 24)``; 0 is not strange at all.

    Args:
        log_probabilities: ``(N, 24)`` natural logarithms; with ``"cell"`` those of one whole cell.
        mode: ``"alone"``: by how much the class is less probable than certainty. ``"cell"``: by
            how much the best naming of the cell with this name is worse than the best one.
    """
    log_p = np.asarray(log_probabilities, np.float64)
    if mode == "alone":
        return -log_p
    best = best_with_each_class(log_p)
    strange: FloatArray = best.max() - best
    return strange


def thresholds(of_the_true: ArrayLike) -> dict[str, float]:
    """For each of :data:`ERROR_RATES` the nonconformity_scores up to which a class is kept.

    Args:
        of_the_true: ``(n,)`` nonconformity_scores of the true class of chromosomes that nothing was learnt
            from.

    Returns:
        By error rate as text, ``"0.01"``. A rate is left out where ``n`` is too small for it: 1 %
        needs 99 chromosomes.
    """
    ranked = np.sort(np.asarray(of_the_true, np.float64))
    found = {}
    for rate in ERROR_RATES:
        rank = int(np.ceil((len(ranked) + 1) * (1 - rate)))
        if 0 < rank <= len(ranked):
            found[f"{rate:g}"] = float(ranked[rank - 1])
    return found


def threshold(stored: Mapping[str, float], rate: float) -> float:
    """The stored threshold of an error rate.

    Raises:
        ConformalError: There is none for this rate.
    """
    key = f"{rate:g}"
    if key not in stored:
        raise ConformalError(
            f"no set with an error rate of {key} is known for these weights; known are "
            + (", ".join(stored) or f"none: {REMEDY}")
        )
    return stored[key]


def prediction_sets(strange: ArrayLike, limit: float) -> NDArray[np.bool_]:
    """``(N, 24)``: the classes of each set. The least strange one is always kept."""
    values = np.asarray(strange, np.float64)
    kept: NDArray[np.bool_] = values <= np.maximum(limit, values.min(axis=1, keepdims=True))
    return kept
