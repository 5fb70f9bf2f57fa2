"""How good a classifier is on labelled chromosomes, with intervals that respect the cell.

The chromosomes of one metaphase share its stain, its focus and its stretching, so they are not
independent: every interval here comes from resampling whole cells, never single chromosomes.
Each resample is a vector of cell counts, and each metric is a function of the summed confusion
matrices (and calibration bins) of its cells, so that a thousand resamples are one matrix product.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chromozoo.classes import CLASSES
from chromozoo.karyotype.assignment import assign_cell
from chromozoo.metrics.bootstrap import (
    EvaluationError,
    Interval,
    bootstrap_counts,
    percentile_interval,
    rounded,
)
from chromozoo.structures.arrays import FloatArray, IntArray

N_CLASSES = len(CLASSES)
ECE_BINS = 15
# The smallest probability that the cell assignment sees: float32 softmax rounds to exactly 0.
MIN_PROBABILITY = 1e-12

LABEL_METRICS = (
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "cell_accuracy",
    "cells_without_error",
)
# Every metric of a report, in the order in which reports and result files show them. Labels from
# the cell assignment carry no probability, so they have no calibration error.
METRICS = (
    *LABEL_METRICS,
    "ece",
    *(f"assigned_{name}" for name in LABEL_METRICS),
    "polarity_accuracy",
)


@dataclass(frozen=True)
class Misclassification:
    """One chromosome that was named wrongly.

    ``index`` is its row in the evaluated arrays, ``true`` and ``predicted`` are class names
    ('1'..'22', 'X', 'Y'), ``probability`` (0..1) is what the model gave the predicted class.
    """

    index: int
    cell: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """What :func:`evaluate_classification` found.

    ``metrics`` maps the names of :data:`METRICS` to intervals; all values are fractions, 0..1.
    ``confusion[t, p]`` counts the chromosomes of true class ``t`` named ``p``, in the order of
    ``chromozoo.classes.CLASSES``. What begins with ``assigned_`` belongs to the cell assignment;
    without it, ``assigned_confusion`` is None.
    """

    n_chromosomes: int
    n_cells: int
    metrics: Mapping[str, Interval]
    confusion: IntArray
    errors: tuple[Misclassification, ...]
    assigned_confusion: IntArray | None = None
    assigned_errors: tuple[Misclassification, ...] = ()

    def to_row(self) -> dict[str, float | int]:
        """Counts and metrics as the columns of a result file.

        Returns:
            ``{'n_chromosomes': 644, 'n_cells': 14, 'accuracy': 0.9752, 'accuracy_low': ...,
            'accuracy_high': ..., ...}``: fractions rounded to 4 decimals.
        """
        row: dict[str, float | int] = {
            "n_chromosomes": self.n_chromosomes,
            "n_cells": self.n_cells,
        }
        return row | rounded(self.metrics)


def evaluate_classification(
    probabilities: ArrayLike,
    targets: ArrayLike,
    cells: Sequence[Any] | NDArray[Any],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    assignment: bool = True,
    p_arm_up: ArrayLike | None = None,
) -> ClassificationReport:
    """Measures a classifier per chromosome and, with ``assignment``, cell by cell.

    - ``accuracy``: correct chromosomes / all chromosomes.
    - ``macro_precision``, ``macro_recall``, ``macro_f1``: mean over classes of P = TP / (TP + FP),
      R = TP / (TP + FN) and F1 = 2PR / (P + R) (Wei et al. 2022). The mean runs over the classes
      that are present in ``targets`` (in a bootstrap resample: in its targets): a female cell has
      no Y to recall. P is 0 for a present class that is never predicted.
    - ``cell_accuracy``: mean over cells of correct / chromosomes of the cell (Wang et al. 2020).
    - ``cells_without_error``: share of the cells in which every chromosome is right.
    - ``ece``: expected calibration error, sum over 15 equal-width bins of
      |B| / n * |accuracy(B) - confidence(B)|, where a confidence c lies in bin ceil(15 c).
      Resampling adds noise to every bin, so its interval leans upward.

    - ``polarity_accuracy``: share of the chromosomes whose p arm is found to be up, as it is, given
      the class that the model names, right or wrong.

    The ``assigned_`` metrics are the same for the labels that
    ``chromozoo.karyotype.assignment.assign_cell`` gives to the chromosomes of a cell together.

    Args:
        probabilities: ``(n, 24)`` float, 0..1, each row summing to 1 (softmax, not logits), in
            the order of ``chromozoo.classes.CLASSES``.
        targets: ``(n,)`` int class indices, 0..23.
        cells: ``(n,)`` cell ids, str or int; equal ids are one metaphase.
        n_bootstrap: resamples of the cells behind each interval.
        seed: of the resampling; the same seed gives the same intervals.
        assignment: also evaluate the cell assignment.
        p_arm_up: of chromosomes that all are upright: the probability that the model gives to that,
            for each class, ``(n, 24)``; None where polarity is not told or not known.

    Raises:
        EvaluationError: nothing to evaluate, lengths that differ, NaN, rows that do not sum to 1
            within 1e-3, or targets that are no class index.
    """
    p, y = _checked(probabilities, targets)
    names, cell_index = _cell_index(cells, len(y))
    if n_bootstrap < 1:
        raise EvaluationError(f"n_bootstrap is {n_bootstrap}: use at least 1, e.g. 1000.")

    n_cells = len(names)
    counts = bootstrap_counts(n_cells, n_bootstrap, seed)

    predicted = p.argmax(axis=1)
    confusions = _confusion_per_cell(y, predicted, cell_index, n_cells)
    samples = _label_metrics(confusions, counts)
    samples["ece"] = _expected_calibration_error(p, y, cell_index, counts, confusions)

    if p_arm_up is not None:
        found = np.take_along_axis(np.asarray(p_arm_up, np.float64), predicted[:, None], 1)[:, 0]
        right = np.bincount(cell_index, found > 0.5, minlength=n_cells)
        samples["polarity_accuracy"] = (counts @ right) / (counts @ np.bincount(cell_index))

    assigned_confusion: IntArray | None = None
    assigned_errors: tuple[Misclassification, ...] = ()
    if assignment:
        assigned = _assign_cells(p, cell_index, n_cells)
        confusions_assigned = _confusion_per_cell(y, assigned, cell_index, n_cells)
        for name, values in _label_metrics(confusions_assigned, counts).items():
            samples[f"assigned_{name}"] = values
        assigned_confusion = confusions_assigned.sum(axis=0)
        assigned_errors = tuple(_misclassifications(p, y, assigned, names[cell_index]))

    return ClassificationReport(
        n_chromosomes=len(y),
        n_cells=n_cells,
        metrics={
            name: percentile_interval(samples[name], n_cells) for name in METRICS if name in samples
        },
        confusion=confusions.sum(axis=0),
        errors=tuple(_misclassifications(p, y, predicted, names[cell_index])),
        assigned_confusion=assigned_confusion,
        assigned_errors=assigned_errors,
    )


def brier(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Brier score: mean over chromosomes of the squared distance between p and the true one-hot.

    Args:
        probabilities: ``(n, 24)`` float, 0..1, each row summing to 1.
        targets: ``(n,)`` int class indices, 0..23.

    Returns:
        0 (certain and right) .. 2 (certain and wrong).

    Raises:
        EvaluationError: as :func:`evaluate_classification`.
    """
    p, y = _checked(probabilities, targets)
    return float(((p - np.eye(N_CLASSES)[y]) ** 2).sum(axis=1).mean())


def accuracy_at_coverage(
    probabilities: ArrayLike, targets: ArrayLike, coverage: float = 0.9
) -> float:
    """Accuracy of the most confident share of the chromosomes; the rest goes to a human.

    Args:
        probabilities: ``(n, 24)`` float, 0..1, each row summing to 1.
        targets: ``(n,)`` int class indices, 0..23.
        coverage: share that is kept, above 0 and at most 1; ``round(coverage * n)`` chromosomes,
            at least one. Equal confidences are kept in the order given.

    Raises:
        EvaluationError: a coverage out of range, otherwise as :func:`evaluate_classification`.
    """
    if not 0 < coverage <= 1:
        raise EvaluationError(f"coverage is {coverage}: use a share above 0 and at most 1.")
    p, y = _checked(probabilities, targets)
    most_confident = np.argsort(-p.max(axis=1), kind="stable")[: max(1, round(coverage * len(y)))]
    return float((p.argmax(axis=1) == y)[most_confident].mean())


def _checked(probabilities: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, IntArray]:
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(targets)
    if p.ndim != 2 or p.shape[1] != N_CLASSES:
        raise EvaluationError(
            f"Probabilities have shape {p.shape}: pass (n, {N_CLASSES}), one row per chromosome."
        )
    if len(p) == 0:
        raise EvaluationError("There is no chromosome to evaluate: check the data set and split.")
    if y.shape != (len(p),):
        raise EvaluationError(
            f"Targets have shape {y.shape} for {len(p)} rows of probabilities: pass one class "
            "index per row."
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= N_CLASSES:
        raise EvaluationError(
            f"Targets must be integer class indices 0..{N_CLASSES - 1} (0 is chromosome 1, 22 is "
            "X, 23 is Y): translate names with chromozoo.classes.CLASS_INDEX."
        )
    finite = np.isfinite(p).all(axis=1)
    if not finite.all():
        raise EvaluationError(
            f"Probabilities hold NaN or infinity in {np.count_nonzero(~finite)} rows (first: row "
            f"{np.argmin(finite)}): the weights or the images are damaged, or 16-bit floats "
            "overflowed."
        )
    summing = (np.abs(p.sum(axis=1) - 1) <= 1e-3) & (p.min(axis=1) >= 0)
    if not summing.all():
        raise EvaluationError(
            f"{np.count_nonzero(~summing)} rows are no probabilities (first: row "
            f"{np.argmin(summing)}): every row must be >= 0 and sum to 1. Apply softmax to logits."
        )
    return p, y.astype(np.int64)


def _cell_index(cells: Sequence[Any] | NDArray[Any], n: int) -> tuple[NDArray[np.str_], IntArray]:
    """The cell names and, for each chromosome, the position of its cell among them."""
    ids = np.array([str(cell) for cell in cells])
    if len(ids) != n:
        raise EvaluationError(
            f"There are {len(ids)} cell ids for {n} chromosomes: pass one id per chromosome."
        )
    names, index = np.unique(ids, return_inverse=True)
    return names, index.astype(np.int64)


def _confusion_per_cell(
    targets: IntArray, predicted: IntArray, cell_index: IntArray, n_cells: int
) -> IntArray:
    """``(n_cells, 24, 24)`` counts, indexed by cell, true class and predicted class."""
    flat = (cell_index * N_CLASSES + targets) * N_CLASSES + predicted
    shape = (n_cells, N_CLASSES, N_CLASSES)
    return np.bincount(flat, minlength=n_cells * N_CLASSES**2).reshape(shape)


def _label_metrics(confusions: IntArray, counts: FloatArray) -> dict[str, FloatArray]:
    """Each of LABEL_METRICS for each row of ``counts (n_samples, n_cells)``: ``(n_samples,)``."""
    n_cells = len(confusions)
    summed = (counts @ confusions.reshape(n_cells, -1)).reshape(-1, N_CLASSES, N_CLASSES)
    true_positive = np.diagonal(summed, axis1=1, axis2=2)
    n_true, n_predicted = summed.sum(axis=2), summed.sum(axis=1)
    present = n_true > 0
    precision = _ratio(true_positive, n_predicted)
    recall = _ratio(true_positive, n_true)
    # 2 TP / (n_true + n_predicted) is 2PR / (P + R) without its 0 / 0.
    f1 = _ratio(2 * true_positive, n_true + n_predicted)

    cell_accuracy = np.trace(confusions, axis1=1, axis2=2) / confusions.sum(axis=(1, 2))
    return {
        "accuracy": true_positive.sum(axis=1) / n_true.sum(axis=1),
        "macro_precision": precision.mean(axis=1, where=present),
        "macro_recall": recall.mean(axis=1, where=present),
        "macro_f1": f1.mean(axis=1, where=present),
        "cell_accuracy": counts @ cell_accuracy / n_cells,
        "cells_without_error": counts @ (cell_accuracy == 1) / n_cells,
    }


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Numerator / denominator, 0 where the denominator is 0."""
    quotient: FloatArray = np.divide(
        numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0
    )
    return quotient


def calibration_bins(confidence: FloatArray) -> IntArray:
    """``(n,)`` in which of the :data:`ECE_BINS` bins each confidence 0..1 lies, from 0."""
    return np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)


def _expected_calibration_error(
    p: FloatArray,
    y: IntArray,
    cell_index: IntArray,
    counts: FloatArray,
    confusions: IntArray,
) -> FloatArray:
    """ECE for each row of ``counts``: ``(n_samples,)``.

    |B| / n * |acc(B) - conf(B)| is |sum over B of (correct - confidence)| / n, so that one signed
    sum per cell and bin is all that a resample needs.
    """
    n_cells = len(confusions)
    confidence = p.max(axis=1)
    bins = calibration_bins(confidence)
    gap_per_cell = np.bincount(
        cell_index * ECE_BINS + bins,
        weights=(p.argmax(axis=1) == y) - confidence,
        minlength=n_cells * ECE_BINS,
    ).reshape(n_cells, ECE_BINS)
    n_chromosomes = counts @ confusions.sum(axis=(1, 2))
    ece: FloatArray = np.abs(counts @ gap_per_cell).sum(axis=1) / n_chromosomes
    return ece


def _assign_cells(p: FloatArray, cell_index: IntArray, n_cells: int) -> IntArray:
    """``(n,)`` class indices after naming the chromosomes of each cell together."""
    assigned = np.empty(len(p), dtype=np.int64)
    log_p = np.log(np.maximum(p, MIN_PROBABILITY))
    for cell in range(n_cells):
        members = cell_index == cell
        assigned[members] = assign_cell(log_p[members]).classes
    return assigned


def _misclassifications(
    p: FloatArray, y: IntArray, predicted: IntArray, cells: NDArray[np.str_]
) -> Iterator[Misclassification]:
    for i in np.flatnonzero(predicted != y):
        yield Misclassification(
            index=int(i),
            cell=str(cells[i]),
            true=CLASSES[y[i]],
            predicted=CLASSES[predicted[i]],
            probability=float(p[i, predicted[i]]),
        )
