"""Detection of gained and lost chromosomes, as rows for each kind of cells."""

import datetime
from collections.abc import Sequence
from typing import Any

from chromozoo.benchmark.provenance import weights_label
from chromozoo.benchmark.results_file import interval_columns
from chromozoo.benchmark.tables.markdown import percent
from chromozoo.data.catalogue import dataset_info

FIGURES = {
    "detected": "called abnormal (%)",
    "exact_karyotype": "karyotype right (%)",
    "accuracy": "per chromosome (%)",
}


COLUMNS = (
    "model",
    "weights",
    "weights_sha256",
    "dataset",
    "split",
    "split_sha256",
    "kind",
    "cells",
    *interval_columns(FIGURES),
    "date",
)


KEY = ("model", "weights_sha256", "dataset", "split", "split_sha256", "kind")


def measure(
    name: str,
    weights: str,
    dataset: str,
    stage: str,
    *,
    root: str | None = None,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Return result rows of a classifier, one for each kind of cells.

    Args:
        name: Registered classifier.
        weights: Tag or path of a weights file.
        dataset: Name in the catalogue.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        root: Folder of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        ChromozooError: Unknown names, no data, or weights that are not whole.
    """
    from chromozoo.benchmark.inference import cell_log_probabilities
    from chromozoo.benchmark.measure import load_model_with_entry
    from chromozoo.metrics.aneuploidy import evaluate_aneuploidy
    from chromozoo.metrics.bootstrap import round_intervals

    model = load_model_with_entry(name, weights, device)
    data = dataset_info(dataset).load_data(root=root, preset=model.transforms.to_dict())
    crops = data.dataset(stage)
    measured = {
        "model": name,
        "weights": weights_label(model.weights_entry),
        "weights_sha256": model.weights_entry.sha256[:12],
        "dataset": dataset,
        "split": f"{data.split.name}/{stage}",
        "split_sha256": data.split.sha256[:12],
        "date": datetime.date.today().isoformat(),
    }
    return [
        {
            **measured,
            "kind": report.kind,
            "cells": report.cells,
            **round_intervals({figure: getattr(report, figure) for figure in FIGURES}),
        }
        for report in evaluate_aneuploidy(
            cell_log_probabilities(model, crops), crops.labels, crops.cells
        )
    ]


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return a Markdown table: per cent, in brackets the 95 % bootstrap interval over cells."""
    lines = [
        "| model | weights | split | cells | number | " + " | ".join(FIGURES.values()) + " |",
        "|---|---|---|---|---:|" + "---|" * len(FIGURES),
    ]
    for row in rows:
        figures = [percent(row, figure) for figure in FIGURES]
        words = [row[column] for column in ("model", "weights", "split", "kind", "cells")]
        lines.append("| " + " | ".join([*words, *figures]) + " |")
    return "\n".join(lines)
