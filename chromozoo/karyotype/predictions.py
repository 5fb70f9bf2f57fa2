"""Predictions of a classifier, for single chromosomes or for one cell."""

from collections.abc import Mapping, Sequence

import numpy as np

from chromozoo.classes import CLASSES
from chromozoo.karyotype.assignment import CellAssignment, assign_cell
from chromozoo.karyotype.conformal import nonconformity_scores, prediction_sets
from chromozoo.structures.arrays import FloatArray
from chromozoo.structures.prediction import Prediction


class Predictions(list[Prediction]):
    """One :class:`Prediction` for each image, in their order.

    Attributes:
        cell: Assignment of the cell (karyotype as ISCN string, sex, gains, losses) if the images
            were classified together; otherwise None.
        alarms: Reasons why the classification is unreliable, in words. If there are any,
            ``cell.iscn`` ends in ``?``.
    """

    cell: CellAssignment | None = None
    alarms: tuple[str, ...] = ()


def to_predictions(
    probabilities: FloatArray,
    names: Sequence[str],
    errors: Mapping[int, str] | None = None,
    as_cell: bool = False,
    prob_p_arm_up: FloatArray | None = None,
    threshold: float | None = None,
) -> Predictions:
    """Convert class probabilities to predictions, for single chromosomes or for one cell.

    Args:
        probabilities: ``(N, 24)``; rows of images in ``errors`` are NaN.
        names: Names of the N images.
        errors: Reason for each image that could not be read, by its row.
        as_cell: Classify the images together
            (:func:`chromozoo.karyotype.assignment.assign_cell`).
        prob_p_arm_up: ``(N, 24)``, see :class:`Prediction`; None without a polarity head.
        threshold: Largest nonconformity score in a prediction set; None for no prediction sets.
    """
    errors = errors or {}
    readable = [index for index in range(len(names)) if index not in errors]
    predicted = dict(zip(readable, probabilities[readable].argmax(axis=1), strict=True))
    supernumerary: set[int] = set()
    sets: dict[int, tuple[str, ...]] = {}
    predictions = Predictions()
    with np.errstate(divide="ignore"):
        log_probabilities = np.log(probabilities[readable])
    if as_cell and readable:
        cell = assign_cell(log_probabilities)
        predicted = dict(zip(readable, cell.classes, strict=True))
        supernumerary = {readable[row] for row in cell.supernumerary}
        predictions.cell = cell
    if threshold is not None and readable:
        scores = nonconformity_scores(log_probabilities, "cell" if as_cell else "alone")
        for index, in_set in zip(readable, prediction_sets(scores, threshold), strict=True):
            sets[index] = tuple(CLASSES[k] for k in np.flatnonzero(in_set))
    for index, name in enumerate(names):
        if index in errors:
            predictions.append(
                Prediction(name, "", float("nan"), probabilities[index], error=errors[index])
            )
        else:
            k = int(predicted[index])
            predictions.append(
                Prediction(
                    name,
                    CLASSES[k],
                    float(probabilities[index, k]),
                    probabilities[index],
                    None if prob_p_arm_up is None else prob_p_arm_up[index],
                    supernumerary=index in supernumerary,
                    classes=sets.get(index),
                )
            )
    return predictions
