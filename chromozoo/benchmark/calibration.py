"""TODO docstring."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from chromozoo.benchmark.publishing import is_packaged, label
from chromozoo.benchmark.repository import ROOT
from chromozoo.benchmark.results_file import interval_columns
from chromozoo.benchmark.tables.classification import percent
from chromozoo.data.catalogue import dataset_info, dataset_of_tag
from chromozoo.models.weights.index import write_entry
from chromozoo.models.weights.storage import save_weights

if TYPE_CHECKING:
    from chromozoo.karyotype.conformal import ConformalMode
    from chromozoo.structures.arrays import FloatArray

RESULTS = ROOT / "benchmarks" / "results" / "calibration.csv"


TABLES = ROOT / "benchmarks" / "README.md"


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


def measure(
    name: str,
    weights: str,
    dataset: str | None,
    stage: str,
    *,
    root: str | None = None,
    device: str = "auto",
    store: bool = False,
    output: Path | None = None,
) -> list[dict[str, Any]]:
    """Result rows of a classifier: alone and within its cell, for each measured error rate.

    Args:
        name: Registered classifier.
        weights: Tag or path of a weights file.
        dataset: Name in the catalogue; None for the one that the weights were trained on.
        stage: ``"val"`` or ``"test"``.
        root: Folder of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        store: Keep the thresholds in the entry of the weights, if these are the packaged ones and
            the data set is their own.
        output: Folder for a copy of the weights file that holds the thresholds; None makes none.

    Raises:
        ChromozooError: Unknown names, no data, or weights that are not whole.
    """
    from chromozoo.benchmark.measure import load_model_with_entry
    from chromozoo.karyotype.conformal import ConformalMode, calibrate_thresholds, get_threshold

    model = load_model_with_entry(name, weights, device)
    entry = model.weights_entry
    own = dataset_of_tag(entry.tag, "classification")
    info = dataset_info(dataset) if dataset else own
    data = info.load_data(root=root, preset=model.transforms.to_dict())
    known = _Strange.of(model, data.dataset("val"))
    asked = _Strange.of(model, data.dataset(stage))
    limits = {mode: calibrate_thresholds(known.true(mode)) for mode in get_args(ConformalMode)}
    known_now = dataclasses.replace(entry, conformal=limits)
    if store and info.name == own.name and is_packaged(entry.model, entry.tag, entry.sha256):
        write_entry(known_now)
    if output is not None:
        file, _ = save_weights(model.network, known_now, output, entry.storage)
        print(f"{file}: the weights with the thresholds of {info.name}")
    return [
        {
            "model": name,
            "weights": label(entry),
            "weights_sha256": entry.sha256[:12],
            "dataset": info.name,
            "split": f"{data.split.name}/{stage}",
            "split_sha256": data.split.sha256[:12],
            "mode": mode,
            "error_rate": rate,
            **asked.figures(mode, get_threshold(limits[mode], rate)),
            "date": datetime.date.today().isoformat(),
        }
        for mode in get_args(ConformalMode)
        for rate in MEASURED_RATES
        if f"{rate:g}" in limits[mode]
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Strange:
    """How strange each class would be of the chromosomes of a data set, ``(N, 24)`` nats."""

    by_judge: "dict[ConformalMode, FloatArray]"
    labels: Any
    cells: Any

    @classmethod
    def of(cls, model: Any, crops: Any) -> "_Strange":
        import numpy as np

        from chromozoo.benchmark.inference import cell_log_probabilities
        from chromozoo.karyotype.conformal import ConformalMode, nonconformity_scores

        of_rows = cell_log_probabilities(model, crops)
        by_judge = {mode: np.zeros((len(crops), 24)) for mode in get_args(ConformalMode)}
        for cell in np.unique(crops.cells):
            rows = np.flatnonzero(crops.cells == cell)
            log_p = of_rows(rows)
            for mode, found in by_judge.items():
                found[rows] = nonconformity_scores(log_p, mode)
        return cls(by_judge, np.asarray(crops.labels), np.asarray(crops.cells))

    def true(self, mode: "ConformalMode") -> Any:
        """Of the true classes, ``(N,)``."""
        import numpy as np

        return np.take_along_axis(self.by_judge[mode], self.labels[:, None], 1)[:, 0]

    def figures(self, mode: "ConformalMode", limit: float) -> dict[str, Any]:
        """The figures of a row, with their intervals over cells."""
        import numpy as np

        from chromozoo.karyotype.conformal import prediction_sets
        from chromozoo.metrics.bootstrap import bootstrap_counts, percentile_interval, round_intervals

        strange = self.by_judge[mode]
        kept = prediction_sets(strange, limit)
        sizes = kept.sum(axis=1)
        covered = np.take_along_axis(kept, self.labels[:, None], 1)[:, 0]
        right = strange.argmin(axis=1) == self.labels
        # The surest: alone by the best class's probability, within the cell by the runner-up.
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
    """Rows as a Markdown table: per cent, in brackets the 95 % bootstrap interval over cells."""
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
