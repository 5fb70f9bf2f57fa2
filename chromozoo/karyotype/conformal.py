"""Conformal prediction sets with a chosen error rate.

Split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates, arXiv:2107.07511): a class is
excluded from the prediction set of a chromosome if its nonconformity score exceeds a threshold. The
threshold is calibrated on validation chromosomes so that the sets of no more than the chosen share
of them lack the true class. The same error rate holds for new chromosomes and for any network,
provided that they come from the same distribution as the validation set; it does not hold for
images of another laboratory. The guarantee is marginal: it is an average over chromosomes, not a
rate for each class or cell.

The nonconformity score of a class depends either on the chromosome alone or on its cell: in the
latter case it is the log-likelihood that the assignment of the whole cell loses if the chromosome
has that class (as in :func:`chromozoo.karyotype.assignment.assignment_margins`).
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from chromozoo.errors import ChromozooError
from chromozoo.karyotype.assignment import best_log_likelihoods
from chromozoo.structures.arrays import BoolArray, FloatArray

ConformalMode = Literal["alone", "cell"]
# Error rates whose thresholds are stored with weights.
ERROR_RATES = (0.1, 0.05, 0.02, 0.01, 0.005)
REMEDY = (
    "choose weights that `chromozoo models` lists with prediction sets, or calibrate these with "
    "`chromozoo calibrate MODEL --weights WEIGHTS --output DIR`"
)


class ConformalError(ChromozooError, ValueError):
    """No prediction sets for this error rate; the message gives the cause."""


def nonconformity_scores(log_probabilities: ArrayLike, mode: ConformalMode = "alone") -> FloatArray:
    """Return the nonconformity score of each class of each chromosome.

    Args:
        log_probabilities: ``(N, 24)`` natural log-probabilities; with ``"cell"`` those of one
            complete cell.
        mode: ``"alone"``: the negative log-probability of the class. ``"cell"``: the log-likelihood
            difference between the best assignment of the cell and the best one with this class.

    Returns:
        ``(N, 24)`` nats, 0 or more.
    """
    log_p = np.asarray(log_probabilities, np.float64)
    if mode == "alone":
        return -log_p
    best = best_log_likelihoods(log_p)
    scores: FloatArray = best.max() - best
    return scores


def calibrate_thresholds(true_scores: ArrayLike) -> dict[str, float]:
    """Return the largest nonconformity score in a prediction set for each of :data:`ERROR_RATES`.

    Args:
        true_scores: ``(n,)`` nonconformity scores of the true classes of chromosomes that were not
            used in training.

    Returns:
        Thresholds by error rate as text, such as ``"0.01"``. An error rate is missing if ``n`` is
        too small for it: 1 % needs 99 chromosomes.
    """
    ranked = np.sort(np.asarray(true_scores, np.float64))
    thresholds = {}
    for rate in ERROR_RATES:
        rank = int(np.ceil((len(ranked) + 1) * (1 - rate)))
        if 0 < rank <= len(ranked):
            thresholds[f"{rate:g}"] = float(ranked[rank - 1])
    return thresholds


def get_threshold(thresholds: Mapping[str, float], error_rate: float) -> float:
    """Return the stored threshold of an error rate.

    Args:
        thresholds: The result of :func:`calibrate_thresholds`.
        error_rate: One of :data:`ERROR_RATES`.

    Raises:
        ConformalError: There is no threshold for this error rate.
    """
    key = f"{error_rate:g}"
    if key not in thresholds:
        raise ConformalError(
            f"these weights have no prediction sets for error rate {key}; available: "
            + (", ".join(thresholds) or f"none; {REMEDY}")
        )
    return thresholds[key]


def prediction_sets(scores: ArrayLike, threshold: float) -> BoolArray:
    """Return the prediction set of each chromosome.

    Args:
        scores: ``(N, 24)`` nonconformity scores.
        threshold: Largest score in a set.

    Returns:
        ``(N, 24)`` bool; the class with the smallest score is always in the set.
    """
    values = np.asarray(scores, np.float64)
    return np.asarray(values <= np.maximum(threshold, values.min(axis=1, keepdims=True)))
