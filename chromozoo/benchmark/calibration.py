"""Calibration of conformal prediction sets on validation cells, measured on other cells."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from chromozoo.benchmark.inference import cell_log_probabilities
from chromozoo.benchmark.measure import load_model_with_entry
from chromozoo.benchmark.provenance import weights_label
from chromozoo.benchmark.results_file import interval_columns
from chromozoo.benchmark.tables.markdown import percent
from chromozoo.data.catalogue import dataset_info, dataset_of_tag
from chromozoo.karyotype.conformal import (
    ConformalMode,
    calibrate_thresholds,
    get_threshold,
    nonconformity_scores,
    prediction_sets,
)
from chromozoo.metrics.bootstrap import bootstrap_counts, percentile_interval, round_intervals
from chromozoo.structures.arrays import FloatArray
from chromozoo.structures.weights_entry import WeightsEntry

FIGURES = {
    "covered": "sets with the right class (%)",
    "single": "sets of one class (%)",
    "right_at_90": "right among the surest 90 % (%)",
}


COLUMNS = (
    "model",
    "weights",
    "weights_sha256",
    "dataset",
    "split",
    "split_sha256",
    "mode",
    "error_rate",
    "n_chromosomes",
    "n_cells",
    "set_size",
    *interval_columns(FIGURES),
    "date",
)


KEY = ("model", "weights_sha256", "dataset", "split", "split_sha256", "mode", "error_rate")


# Of those whose thresholds are stored, the ones that are measured.
MEASURED_RATES = (0.01, 0.005)


COVERAGE = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated classifier.

    Attributes:
        model: The classifier.
        entry: Entry of its weights with the new thresholds.
        on_own_data: Whether the thresholds come from the data set that the weights learnt from.
        rows: Result rows, for single chromosomes and within cells, for each measured error rate.
    """

    model: Any
    entry: WeightsEntry
    on_own_data: bool
    rows: list[dict[str, Any]]


def calibrate(
    name: str,
    weights: str,
    dataset: str | None,
    stage: str,
    *,
    root: str | None = None,
    device: str = "auto",
) -> Calibration:
    """Calibrate prediction sets on the validation cells, and measure them on a stage.

    Nothing is written.

    Args:
        name: Registered classifier.
        weights: Tag or path of a weights file.
        dataset: Name in the catalogue; None for the data set that the weights were trained on.
        stage: ``"val"`` or ``"test"``.
        root: Folder of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        ChromozooError: Unknown names, no data, or damaged weights.
    """
    model = load_model_with_entry(name, weights, device)
    entry = model.weights_entry
    own = dataset_of_tag(entry.tag, "classification")
    info = dataset_info(dataset) if dataset else own
    data = info.load_data(root=root, preset=model.transforms.to_dict())
    known = _Scores.of(model, data.dataset("val"))
    measured = _Scores.of(model, data.dataset(stage))
    limits = {
        mode: calibrate_thresholds(known.of_true_classes(mode)) for mode in get_args(ConformalMode)
    }
    rows = [
        {
            "model": name,
            "weights": weights_label(entry),
            "weights_sha256": entry.sha256[:12],
            "dataset": info.name,
            "split": f"{data.split.name}/{stage}",
            "split_sha256": data.split.sha256[:12],
            "mode": mode,
            "error_rate": rate,
            **measured.figures(mode, get_threshold(limits[mode], rate)),
            "date": datetime.date.today().isoformat(),
        }
        for mode in get_args(ConformalMode)
        for rate in MEASURED_RATES
        if f"{rate:g}" in limits[mode]
    ]
    calibrated = dataclasses.replace(entry, conformal=limits)
    return Calibration(model, calibrated, info.name == own.name, rows)


@dataclasses.dataclass(frozen=True, eq=False)
class _Scores:
    """Nonconformity scores of each class for the chromosomes of a data set, ``(N, 24)`` nats."""

    by_mode: dict[ConformalMode, FloatArray]
    labels: Any
    cells: Any

    @classmethod
    def of(cls, model: Any, crops: Any) -> "_Scores":
        of_rows = cell_log_probabilities(model, crops)
        by_mode = {mode: np.zeros((len(crops), 24)) for mode in get_args(ConformalMode)}
        for cell in np.unique(crops.cells):
            rows = np.flatnonzero(crops.cells == cell)
            log_p = of_rows(rows)
            for mode, found in by_mode.items():
                found[rows] = nonconformity_scores(log_p, mode)
        return cls(by_mode, np.asarray(crops.labels), np.asarray(crops.cells))

    def of_true_classes(self, mode: ConformalMode) -> Any:
        """Return the scores of the true classes, ``(N,)``."""
        return np.take_along_axis(self.by_mode[mode], self.labels[:, None], 1)[:, 0]

    def figures(self, mode: ConformalMode, limit: float) -> dict[str, Any]:
        """Return the figures of a row, with their intervals over cells."""
        strange = self.by_mode[mode]
        kept = prediction_sets(strange, limit)
        sizes = kept.sum(axis=1)
        covered = np.take_along_axis(kept, self.labels[:, None], 1)[:, 0]
        right = strange.argmin(axis=1) == self.labels
        # Certainty: the probability of the best class, within the cell the score of the runner-up.
        two = np.sort(strange, axis=1)[:, :2]
        certainty = -two[:, 0] if mode == "alone" else two[:, 1]
        surest = np.zeros(len(strange), bool)
        surest[np.argsort(-certainty, kind="stable")[: round(COVERAGE * len(strange))]] = True

        names, cell = np.unique(self.cells, return_inverse=True)
        counts = bootstrap_counts(len(names), 1000, 0)

        def share(part: Any, whole: Any) -> Any:
            of_cells = [counts @ np.bincount(cell, each, len(names)) for each in (part, whole)]
            return percentile_interval(of_cells[0] / of_cells[1], len(names))

        everything = np.ones(len(strange))
        return {
            "n_chromosomes": len(strange),
            "n_cells": len(names),
            "set_size": round(float(sizes.mean()), 3),
            **round_intervals(
                {
                    "covered": share(covered, everything),
                    "single": share(sizes == 1, everything),
                    "right_at_90": share(right & surest, surest),
                }
            ),
        }


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return a Markdown table: per cent, in brackets the 95 % bootstrap interval over cells."""
    lines = [
        "| model | weights | split | mode | error rate (%) | classes in a set | "
        + " | ".join(FIGURES.values())
        + " |",
        "|---|---|---|---|---:|---:|" + "---|" * len(FIGURES),
    ]
    for row in rows:
        figures = [percent(row, figure) for figure in FIGURES]
        words = [row[column] for column in ("model", "weights", "split", "mode")]
        rate = f"{100 * float(row['error_rate']):g}"
        lines.append("| " + " | ".join([*words, rate, row["set_size"], *figures]) + " |")
    return "\n".join(lines)
