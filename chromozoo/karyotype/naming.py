"""TODO docstring."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASSES
from chromozoo.karyotype.assignment import CellAssignment, assign_cell
from chromozoo.karyotype.conformal import nonconformity_scores, prediction_sets
from chromozoo.structures.prediction import Prediction


class Predictions(list[Prediction]):
    """One :class:`Prediction` for each image, in their order.

    ``cell`` is the assignment of the whole cell (karyotype as ISCN string, sex, gains, losses)
    when the images were named together, else None. ``alarms`` says why the names cannot be
    trusted, in words; where it is not empty, ``cell.iscn`` ends in ``?``.
    """

    cell: CellAssignment | None = None
    alarms: tuple[str, ...] = ()


def to_predictions(
    probabilities: NDArray[np.float64],
    names: Sequence[str],
    errors: dict[int, str] | None = None,
    as_cell: bool = False,
    p_arm_up: NDArray[np.float64] | None = None,
    limit: float | None = None,
) -> Predictions:
    """Turns probabilities ``(N, 24)`` into predictions, each alone or all as one cell.

    Args:
        probabilities: Rows of images that could not be read hold NaN and are left out.
        names: Of the N images.
        errors: Reason by row for those that could not be read.
        as_cell: Name them together (:func:`chromozoo.karyotype.assignment.assign_cell`).
        p_arm_up: ``(N, 24)`` as in :class:`Prediction`, or None.
        limit: Strangeness up to which a class belongs to the set of a chromosome; None: no sets.
    """
    errors = errors or {}
    readable = [index for index in range(len(names)) if index not in errors]
    chosen = dict(zip(readable, probabilities[readable].argmax(axis=1), strict=True))
    extra: set[int] = set()
    predictions = Predictions()
    if as_cell and readable:
        with np.errstate(divide="ignore"):
            cell = assign_cell(np.log(probabilities[readable]))
        chosen = dict(zip(readable, cell.classes, strict=True))
        extra = {readable[row] for row in cell.supernumerary}
        predictions.cell = cell
    sets: dict[int, tuple[str, ...]] = {}
    if limit is not None and readable:
        with np.errstate(divide="ignore"):
            strange = nonconformity_scores(
                np.log(probabilities[readable]), "cell" if as_cell else "alone"
            )
        for index, kept in zip(readable, prediction_sets(strange, limit), strict=True):
            sets[index] = tuple(CLASSES[k] for k in np.flatnonzero(kept))
    for index, name in enumerate(names):
        if index in errors:
            predictions.append(
                Prediction(name, "", float("nan"), probabilities[index], error=errors[index])
            )
        else:
            k = int(chosen[index])
            predictions.append(
                Prediction(
                    name,
                    CLASSES[k],
                    float(probabilities[index, k]),
                    probabilities[index],
                    None if p_arm_up is None else p_arm_up[index],
                    supernumerary=index in extra,
                    classes=sets.get(index),
                )
            )
    return predictions
