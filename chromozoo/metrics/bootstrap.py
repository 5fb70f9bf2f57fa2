"""Bootstrap intervals over cells, and helpers that all metrics share."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ChromozooError
from chromozoo.structures.arrays import FloatArray

INTERVAL_PERCENTILES = (2.5, 97.5)


class EvaluationError(ChromozooError, ValueError):
    """Predictions and targets cannot be compared; the message gives the first invalid row."""


@dataclass(frozen=True)
class Interval:
    """A metric with its 95 % percentile bootstrap interval over cells.

    Attributes:
        value: Estimate from all cells.
        low: Lower end of the interval; NaN for a single cell, whose spread is unknown.
        high: Upper end of the interval, likewise.
    """

    value: float
    low: float
    high: float


def round_intervals(metrics: Mapping[str, Interval]) -> dict[str, float]:
    """Return the columns ``name``, ``name_low`` and ``name_high`` of each metric, to 4 decimals."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{name}{end}": round(getattr(interval, attribute), 4)
        for name, interval in metrics.items()
        for end, attribute in ends.items()
    }


def bootstrap_counts(n: int, n_bootstrap: int, seed: int) -> FloatArray:
    """Draw how often each of ``n`` cells or images occurs in each bootstrap sample.

    Returns:
        ``(1 + n_bootstrap, n)``. Row 0 is the original sample with each cell once; the others are
        bootstrap resamples.
    """
    estimate = np.ones((1, n))
    if not n:
        return estimate
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    return np.vstack([estimate, draws])


def percentile_interval(samples: FloatArray, n: int) -> Interval:
    """Return the estimate of a metric with its percentile interval.

    Args:
        samples: ``(1 + n_bootstrap,)`` values of the metric for the rows of
            :func:`bootstrap_counts`; resamples in which it is undefined are NaN and ignored.
        n: Number of cells or images.
    """
    defined = samples[1:][~np.isnan(samples[1:])]
    low, high = np.nan, np.nan
    if n > 1 and len(defined) and not np.isnan(samples[0]):
        low, high = np.percentile(defined, INTERVAL_PERCENTILES)
    return Interval(float(samples[0]), float(low), float(high))


def divide(
    numerator: NDArray[np.generic], denominator: NDArray[np.generic], undefined: float = np.nan
) -> FloatArray:
    """Return numerator / denominator, and ``undefined`` where the denominator is 0."""
    numbers = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    shape = np.broadcast_shapes(numbers[0].shape, numbers[1].shape)
    quotient: FloatArray = np.full(shape, undefined)
    return np.divide(*numbers, out=quotient, where=numbers[1] != 0)
