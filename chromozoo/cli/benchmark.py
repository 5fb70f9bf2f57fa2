"""``chromozoo benchmark``: measures weights on a data set and adds the row to the leaderboard."""

import argparse
import dataclasses
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chromozoo.cli.env import library_versions
from chromozoo.data.catalogue import DATASETS, dataset_info
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.weights import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results" / "classification.csv"
PUBLISHED = RESULTS.with_name("published.csv")
# The README shows the official test cells; validation rows stand in the CSV alone.
LEADERBOARD_SPLIT = "bioimlab_v1/test"
README = REPOSITORY / "README.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="see `chromozoo models`; `all` is every one with weights of the data set",
    )
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument("--dataset", default="bioimlab", choices=sorted(DATASETS))
    parser.add_argument("--stage", default="test", choices=("train", "val", "test"))
    parser.add_argument("--fold", type=int, help="part of the grouped cross-validation")
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--note", default="")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="CSV that the row is added to"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.models == ["all"]:
        arguments.models = trained_on(arguments.dataset)
        arguments.weights = arguments.dataset
    if len(arguments.models) > 1:
        return _run_each_in_its_own_process(arguments)
    if not arguments.results.parent.is_dir():
        raise ChromozooError(
            f"{arguments.results.parent}: no such folder; name another file with --results"
        )
    from chromozoo.leaderboard import append_row

    row = measure(
        arguments.models[0],
        arguments.weights,
        arguments.dataset,
        arguments.stage,
        fold=arguments.fold,
        root=arguments.root,
        device=arguments.device,
        note=arguments.note,
    )
    append_row(arguments.results, row)
    for name in ("accuracy", "assigned_accuracy", "cells_without_error", "ece"):
        if row.get(name) is not None:
            low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
            print(f"{name:<22} {row[name]:.4f}  [{low}, {high}]")
    print(f"row added to {arguments.results}")
    if arguments.results.resolve() == RESULTS.resolve():
        publish(row)
    return 0


def trained_on(dataset: str) -> list[str]:
    """The classifiers that have weights of a data set.

    Raises:
        ChromozooError: There is none.
    """
    from chromozoo.registry import list_models
    from chromozoo.weights import weights_entries

    names = [
        name for name in list_models(task="classification") if dataset in weights_entries(name)
    ]
    if not names:
        raise ChromozooError(f"no model has weights trained on {dataset}; see `chromozoo models`")
    return names


def measure(
    name: str,
    weights: str,
    dataset: str,
    stage: str,
    *,
    fold: int | None = None,
    root: str | None = None,
    device: str = "auto",
    note: str = "",
) -> dict[str, Any]:
    """Evaluates one set of weights and returns its result row.

    Args:
        name: Registered model.
        weights: Tag or path of a weights file.
        dataset: Name in the catalogue.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        fold: Part of the cross-validation, or None for the official split.
        root: Folder of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        note: Free text of the row.

    Raises:
        ChromozooError: Unknown names, no data, or weights that are not whole.
    """
    import torch

    from chromozoo.evaluation import evaluate_classification
    from chromozoo.registry import get_model

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = get_model(name, weights=weights).to(device)
    entry = model.weights_entry
    if entry is None:
        raise UnknownNameError(
            f"{weights}: a checkpoint has no recorded origin; make weights of it with "
            "`chromozoo package` and measure these"
        )
    info = dataset_info(dataset)
    data = getattr(info.load_module(), info.data_module)(
        root=root, fold=fold, preset=model.transforms.to_dict()
    )
    crops = data.dataset(stage)
    start = time.perf_counter()
    probabilities = predict(model, crops)
    milliseconds = 1000 * (time.perf_counter() - start) / len(crops)
    report = evaluate_classification(probabilities, crops.labels, crops.cells)
    versions = library_versions()
    preset = model.transforms
    return {
        "task": "classification",
        "model": name,
        "weights": entry.tag,
        "weights_sha256": entry.sha256[:12],
        "dataset": dataset,
        "split": f"{data.split.name}/{stage}" if fold is None else data.split.name,
        "split_sha256": data.split.sha256[:12],
        **report.to_row(),
        "tta": "4 flips" if model.flip_average else "none",
        "input_size": f"{preset.height}x{preset.width}",
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "ms_per_image": round(milliseconds, 2),
        "device": torch.cuda.get_device_name()
        if device == "cuda"
        else f"cpu {os.cpu_count()} cores",
        "seed": entry.seed,
        "config": entry.config,
        "precision": f"fp32, stored {entry.storage}",
        "training": entry.training,
        **{key: versions[key] for key in ("torch", "torchvision", "timm", "lightning")},
        "chromozoo": versions["chromozoo"],
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "source": "measured",
        "note": note,
    }


def predict(model: Any, crops: Any, batch_size: int = 64) -> Any:
    """Calibrated probabilities ``(N, 24)`` float64 of a :class:`CropDataset`."""
    import torch
    from torch.utils.data import DataLoader

    with torch.inference_mode():
        found = [
            model.predict_probabilities(batch["image"].to(model.device)).cpu()
            for batch in DataLoader(crops, batch_size)
        ]
    values = torch.cat(found).double().numpy()
    return values / values.sum(axis=1, keepdims=True)


def publish(row: dict[str, Any]) -> None:
    """Carries a row of the repository's CSV into the weights entry, the card and the README."""
    from chromozoo.cards import write_card
    from chromozoo.evaluation import METRICS
    from chromozoo.weights import weights_entries, write_entry

    entry = weights_entries(row["model"]).get(row["weights"])
    if entry is not None and entry.sha256.startswith(row["weights_sha256"]):
        figures = {name: row[name] for name in METRICS if row.get(name) is not None}
        result_row = {
            "file": "benchmarks/results/classification.csv",
            "weights_sha256": row["weights_sha256"],
        }
        metrics = {**entry.metrics, row["split"]: figures}
        write_entry(dataclasses.replace(entry, metrics=metrics, result_row=result_row))
        print(f"card: {write_card(row['model'])}")
    if row["split"] == LEADERBOARD_SPLIT:
        update_readme()


def update_readme() -> None:
    """Makes the README's leaderboard anew from the CSVs."""
    from chromozoo import leaderboard

    table = leaderboard_table()
    leaderboard.update_readme(README, "bioimlab", table)
    print(f"leaderboard: {README}")


def leaderboard_table() -> str:
    """The README's table of the official BioImLab test cells."""
    from chromozoo.leaderboard import leaderboard_markdown, read_results

    return leaderboard_markdown(
        [*read_results(RESULTS), *read_results(PUBLISHED)], split=LEADERBOARD_SPLIT
    )


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def _run_each_in_its_own_process(arguments: argparse.Namespace) -> int:
    """A model that fails, or eats the memory, leaves the others alone."""
    status = 0
    for name in arguments.models:
        words = ["benchmark", name]
        for key in ("weights", "dataset", "stage", "fold", "root", "device", "note", "results"):
            if (value := getattr(arguments, key)) not in (None, ""):
                words += [f"--{key}", str(value)]
        print(f"== {name}", flush=True)
        finished = subprocess.run([sys.executable, "-m", "chromozoo.cli.main", *words], check=False)
        if finished.returncode:
            print(f"{name}: failed, see above", file=sys.stderr)
            status = 1
    return status
