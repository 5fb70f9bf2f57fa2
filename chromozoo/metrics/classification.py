"""Classification metrics with bootstrap intervals over cells.

The chromosomes of one metaphase share its stain, focus and elongation, so they are not independent:
all intervals come from resampling cells, never single chromosomes. A resample is a vector of cell
counts, and each metric is a function of the summed confusion matrices (and calibration bins) of its
cells, so that a thousand resamples take one matrix product.
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
    divide,
    percentile_interval,
    round_intervals,
)
from chromozoo.structures.arrays import FloatArray, IntArray

N_CLASSES = len(CLASSES)
ECE_BINS = 15
# Lower limit of the probabilities in the assignment of a cell: a float32 softmax rounds to 0.
MIN_PROBABILITY = 1e-12

LABEL_METRICS = (
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "cell_accuracy",
    "cells_without_error",
)
# All metrics of a report in the order of result files. Assigned labels have no probability, so they
# have no calibration error.
METRICS = (
    *LABEL_METRICS,
    "ece",
    *(f"assigned_{name}" for name in LABEL_METRICS),
    "polarity_accuracy",
)


@dataclass(frozen=True)
class Misclassification:
    """One misclassified chromosome.

    Attributes:
        index: Row in the evaluated arrays.
        cell: Id of the cell.
        true: True class, one of ``CLASSES``.
        predicted: Predicted class.
        probability: Probability of the predicted class, 0..1.
    """

    index: int
    cell: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """The result of :func:`evaluate_classification`.

    Attributes:
        n_chromosomes: Number of chromosomes.
        n_cells: Number of cells.
        metrics: Fractions 0..1 with their intervals, by the names of :data:`METRICS`.
        confusion: ``(24, 24)`` counts by true and predicted class, in the order of ``CLASSES``.
        errors: The misclassified chromosomes.
        assigned_confusion: ``confusion`` after the assignment of the cells; None without it.
        assigned_errors: ``errors`` after the assignment of the cells.
    """

    n_chromosomes: int
    n_cells: int
    metrics: Mapping[str, Interval]
    confusion: IntArray
    errors: tuple[Misclassification, ...]
    assigned_confusion: IntArray | None = None
    assigned_errors: tuple[Misclassification, ...] = ()

    def to_row(self) -> dict[str, float | int]:
        """Return counts and metrics as the columns of a result file.

        Returns:
            ``{'n_chromosomes': 644, 'n_cells': 14, 'accuracy': 0.9752, 'accuracy_low': ...,
            'accuracy_high': ..., ...}`` with fractions rounded to 4 decimals.
        """
        row: dict[str, float | int] = {
            "n_chromosomes": self.n_chromosomes,
            "n_cells": self.n_cells,
        }
        return row | round_intervals(self.metrics)


def evaluate_classification(
    probabilities: ArrayLike,
    targets: ArrayLike,
    cells: Sequence[Any] | NDArray[Any],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    assignment: bool = True,
    prob_p_arm_up: ArrayLike | None = None,
) -> ClassificationReport:
    """Evaluate a classifier on labelled chromosomes, alone and after the assignment of each cell.

    - ``accuracy``: correct chromosomes / all chromosomes.
    - ``macro_precision``, ``macro_recall``, ``macro_f1``: mean over classes of P = TP / (TP + FP),
      R = TP / (TP + FN) and F1 = 2PR / (P + R) (Wei et al. 2022). The mean runs over the classes
      that are present in ``targets`` (in a bootstrap resample: in its targets), because a female
      cell has no Y. P is 0 for a present class that is never predicted.
    - ``cell_accuracy``: mean over cells of correct / chromosomes of the cell (Wang et al. 2020).
    - ``cells_without_error``: share of the cells without a misclassified chromosome.
    - ``ece``: expected calibration error, sum over 15 equal-width bins of
      |B| / n * |accuracy(B) - confidence(B)|, where a confidence c lies in bin ceil(15 c).
      Resampling adds noise to every bin, so its interval is biased upward.
    - ``polarity_accuracy``: share of the chromosomes whose p arm is correctly predicted to be up,
      given the predicted class.

    The ``assigned_`` metrics are the same for the labels of
    :func:`chromozoo.karyotype.assignment.assign_cell`.

    Args:
        probabilities: ``(n, 24)`` float, 0..1, each row summing to 1 (softmax, not logits), in
            the order of ``chromozoo.classes.CLASSES``.
        targets: ``(n,)`` int class indices, 0..23.
        cells: ``(n,)`` cell ids, str or int; equal ids are one metaphase.
        n_bootstrap: Number of resamples for each interval.
        seed: Seed of the resampling.
        assignment: Also evaluate the assignment of the cells.
        prob_p_arm_up: ``(n, 24)`` predicted probability that the p arm is up, for each class, if
            the p arms of all chromosomes are up; None without polarity.

    Raises:
        EvaluationError: Nothing to evaluate, different lengths, NaN, rows that do not sum to 1
            within 1e-3, or invalid class indices.
    """
    p, y = _check_inputs(probabilities, targets)
    names, cell_index = _cell_index(cells, len(y))
    if n_bootstrap < 1:
        raise EvaluationError(f"n_bootstrap is {n_bootstrap}: use at least 1, e.g. 1000.")

    n_cells = len(names)
    counts = bootstrap_counts(n_cells, n_bootstrap, seed)

    predicted = p.argmax(axis=1)
    confusions = _confusion_per_cell(y, predicted, cell_index, n_cells)
    samples = _label_metrics(confusions, counts)
    samples["ece"] = _expected_calibration_error(p, y, cell_index, counts, confusions)

    if prob_p_arm_up is not None:
        of_predicted = np.asarray(prob_p_arm_up, np.float64)[np.arange(len(y)), predicted]
        n_correct = np.bincount(cell_index, of_predicted > 0.5, minlength=n_cells)
        samples["polarity_accuracy"] = (counts @ n_correct) / (counts @ np.bincount(cell_index))

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


def accuracy_at_coverage(
    probabilities: ArrayLike, targets: ArrayLike, coverage: float = 0.9
) -> float:
    """Return the accuracy on the most confident share of the chromosomes (selective prediction).

    Args:
        probabilities: ``(n, 24)`` float, 0..1, each row summing to 1.
        targets: ``(n,)`` int class indices, 0..23.
        coverage: Share of the chromosomes, above 0 and at most 1: the ``round(coverage * n)`` most
            confident ones, at least one. Ties keep their order.

    Raises:
        EvaluationError: ``coverage`` is out of range; otherwise as
            :func:`evaluate_classification`.
    """
    if not 0 < coverage <= 1:
        raise EvaluationError(f"coverage is {coverage}: use a share above 0 and at most 1.")
    p, y = _check_inputs(probabilities, targets)
    by_confidence = np.argsort(-p.max(axis=1), kind="stable")[: max(1, round(coverage * len(y)))]
    return float((p.argmax(axis=1) == y)[by_confidence].mean())


def _check_inputs(probabilities: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, IntArray]:
    """Return probabilities and targets as arrays, or raise an EvaluationError."""
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(targets)
    if p.ndim != 2 or p.shape[1] != N_CLASSES:
        raise EvaluationError(
            f"Probabilities have shape {p.shape}: pass (n, {N_CLASSES}), one row per chromosome."
        )
    if len(p) == 0:
        raise EvaluationError("There are no chromosomes to evaluate: check the data set and split.")
    if y.shape != (len(p),):
        raise EvaluationError(
            f"Targets have shape {y.shape} for {len(p)} rows of probabilities: pass one class "
            "index per row."
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= N_CLASSES:
        raise EvaluationError(
            f"Targets must be integer class indices 0..{N_CLASSES - 1} (0 is chromosome 1, 22 is "
            "X, 23 is Y): convert class names with chromozoo.classes.CLASS_INDEX."
        )
    finite = np.isfinite(p).all(axis=1)
    if not finite.all():
        raise EvaluationError(
            f"Probabilities hold NaN or infinity in {np.count_nonzero(~finite)} rows (first: row "
            f"{np.argmin(finite)}): the weights or the images are damaged, or 16-bit floats "
            "overflowed. Use float32."
        )
    summing = (np.abs(p.sum(axis=1) - 1) <= 1e-3) & (p.min(axis=1) >= 0)
    if not summing.all():
        raise EvaluationError(
            f"{np.count_nonzero(~summing)} rows are not probabilities (first: row "
            f"{np.argmin(summing)}): every row must be >= 0 and sum to 1. Apply softmax to logits."
        )
    return p, y.astype(np.int64)


def _cell_index(cells: Sequence[Any] | NDArray[Any], n: int) -> tuple[NDArray[np.str_], IntArray]:
    """Return the cell ids, and the index of the cell of each chromosome."""
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
    """Return counts ``(n_cells, 24, 24)`` by cell, true class and predicted class."""
    flat = (cell_index * N_CLASSES + targets) * N_CLASSES + predicted
    shape = (n_cells, N_CLASSES, N_CLASSES)
    return np.bincount(flat, minlength=n_cells * N_CLASSES**2).reshape(shape)


def _label_metrics(confusions: IntArray, counts: FloatArray) -> dict[str, FloatArray]:
    """Return each of LABEL_METRICS ``(n_samples,)`` for ``counts (n_samples, n_cells)``."""
    n_cells = len(confusions)
    summed = (counts @ confusions.reshape(n_cells, -1)).reshape(-1, N_CLASSES, N_CLASSES)
    true_positive = np.diagonal(summed, axis1=1, axis2=2)
    n_true, n_predicted = summed.sum(axis=2), summed.sum(axis=1)
    present = n_true > 0
    precision = divide(true_positive, n_predicted, undefined=0.0)
    recall = divide(true_positive, n_true, undefined=0.0)
    # 2 TP / (n_true + n_predicted) is 2PR / (P + R) without the 0 / 0.
    f1 = divide(2 * true_positive, n_true + n_predicted, undefined=0.0)

    cell_accuracy = np.trace(confusions, axis1=1, axis2=2) / confusions.sum(axis=(1, 2))
    return {
        "accuracy": true_positive.sum(axis=1) / n_true.sum(axis=1),
        "macro_precision": precision.mean(axis=1, where=present),
        "macro_recall": recall.mean(axis=1, where=present),
        "macro_f1": f1.mean(axis=1, where=present),
        "cell_accuracy": counts @ cell_accuracy / n_cells,
        "cells_without_error": counts @ (cell_accuracy == 1) / n_cells,
    }


def calibration_bins(confidence: FloatArray) -> IntArray:
    """Return the index ``(n,)``, from 0, of the calibration bin of each confidence 0..1."""
    return np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)


def _expected_calibration_error(
    p: FloatArray,
    y: IntArray,
    cell_index: IntArray,
    counts: FloatArray,
    confusions: IntArray,
) -> FloatArray:
    """Return the ECE ``(n_samples,)`` for each row of ``counts``.

    |B| / n * |acc(B) - conf(B)| equals |sum over B of (correct - confidence)| / n, so a resample
    needs only one signed sum per cell and bin.
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
    """Return the class indices ``(n,)`` after the assignment of each cell."""
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
