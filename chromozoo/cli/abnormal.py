"""``chromozoo abnormal``: how well gains and losses of chromosomes are found and named."""

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chromozoo.data.catalogue import dataset_info, datasets
from chromozoo.leaderboard import percent, update_readme
from chromozoo.publishing import destination, label
from chromozoo.results import ResultsFile, as_text, interval_columns
from chromozoo.weights import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results" / "abnormality.csv"
TABLES = REPOSITORY / "benchmarks" / "README.md"
FIGURES = {
    "flagged": "called abnormal (%)",
    "named": "karyotype right (%)",
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a classifier, see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--dataset", default="pki3", choices=sorted(datasets("classification")), help="%(default)s"
    )
    parser.add_argument("--stage", default="test", choices=("train", "val", "test"))
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--results",
        type=Path,
        help="CSV of the rows (default: that of the repository, for its own weights)",
    )


def run(arguments: argparse.Namespace) -> int:
    rows = measure(
        arguments.model,
        arguments.weights,
        arguments.dataset,
        arguments.stage,
        root=arguments.root,
        device=arguments.device,
    )
    to = destination(
        arguments.results,
        RESULTS,
        [(row["model"], row["weights"], row["weights_sha256"]) for row in rows],
    )
    if to.path is None:
        print(table([{column: as_text(row.get(column)) for column in COLUMNS} for row in rows]))
    else:
        file = ResultsFile(to.path, COLUMNS, KEY, "abnormal")
        file.add(rows)
        print(table(file.read()))
        if to.published:
            update_readme(TABLES, "abnormality", table(file.read()))
    print(to.say())
    return 0


def measure(
    name: str,
    weights: str,
    dataset: str,
    stage: str,
    *,
    root: str | None = None,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Result rows of a classifier, one for each kind of cells.

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
    from chromozoo.cells.abnormality import evaluate_abnormality
    from chromozoo.cli.benchmark import load_packaged, names_of_cells
    from chromozoo.evaluation import rounded

    model = load_packaged(name, weights, device)
    data = dataset_info(dataset).load_data(root=root, preset=model.transforms.to_dict())
    crops = data.dataset(stage)
    measured = {
        "model": name,
        "weights": label(model.weights_entry),
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
            **rounded({figure: getattr(report, figure) for figure in FIGURES}),
        }
        for report in evaluate_abnormality(names_of_cells(model, crops), crops.labels, crops.cells)
    ]


def table(rows: Sequence[dict[str, str]]) -> str:
    """Rows as a Markdown table: per cent, in brackets the 95 % bootstrap interval over cells."""
    lines = [
        "| model | weights | split | cells | number | " + " | ".join(FIGURES.values()) + " |",
        "|---|---|---|---|---:|" + "---|" * len(FIGURES),
    ]
    for row in rows:
        figures = [percent(row, figure) for figure in FIGURES]
        words = [row[column] for column in ("model", "weights", "split", "kind", "cells")]
        lines.append("| " + " | ".join([*words, *figures]) + " |")
    return "\n".join(lines)
