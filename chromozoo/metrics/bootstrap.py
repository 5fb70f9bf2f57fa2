"""TODO docstring."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chromozoo.errors import ChromozooError
from chromozoo.structures.arrays import FloatArray

INTERVAL_PERCENTILES = (2.5, 97.5)


class EvaluationError(ChromozooError, ValueError):
    """Predictions and targets cannot be compared; the message names the first bad row."""


@dataclass(frozen=True)
class Interval:
    """A metric and its 95 % percentile bootstrap interval over cells.

    ``low`` and ``high`` are NaN where there is only one cell: its spread cannot be known.
    """

    value: float
    low: float
    high: float


def rounded(metrics: Mapping[str, Interval]) -> dict[str, float]:
    """Metrics as :func:`chromozoo.benchmark.results_file.interval_columns` names them, to 4 decimals."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{name}{end}": round(getattr(interval, attribute), 4)
        for name, interval in metrics.items()
        for end, attribute in ends.items()
    }


def bootstrap_counts(n: int, n_bootstrap: int, seed: int) -> FloatArray:
    """How often each of ``n`` cells or images is taken: ``(1 + n_bootstrap, n)``.

    Row 0 takes each once and is the estimate itself; the others are bootstrap resamples.
    """
    estimate = np.ones((1, n))
    if not n:
        return estimate
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    return np.vstack([estimate, draws])


def percentile_interval(samples: FloatArray, n: int) -> Interval:
    """The estimate (sample 0) with the percentiles of the resamples that define the figure.

    Args:
        samples: ``(1 + n_bootstrap,)``, a figure for each row of :func:`bootstrap_counts`.
        n: Number of cells or images behind it; the spread of a single one cannot be known.
    """
    known = samples[1:][~np.isnan(samples[1:])]
    low, high = np.nan, np.nan
    if n > 1 and len(known) and not np.isnan(samples[0]):
        low, high = np.percentile(known, INTERVAL_PERCENTILES)
    return Interval(float(samples[0]), float(low), float(high))
