"""Classification by label feature vectors beside softmax, as in Wang et al. 2020 (EResNet)."""

import datetime
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chromozoo.benchmark.provenance import weights_label
from chromozoo.benchmark.results_file import ResultsFile, as_text, interval_columns
from chromozoo.benchmark.tables.markdown import percent
from chromozoo.data.catalogue import dataset_info, datasets
from chromozoo.errors import ChromozooError, WeightsError
from chromozoo.karyotype.assignment import assign_cell
from chromozoo.karyotype.matching import (
    METRICS,
    PUBLISHED_BETA,
    Metric,
    distances_to_log_probabilities,
    feature_distances,
    fit_temperature,
    head_size,
    label_feature_vectors,
    redistribute_labels,
)
from chromozoo.metrics.classification import (
    MIN_PROBABILITY,
    N_CLASSES,
    evaluate_classification,
)
from chromozoo.structures.arrays import FloatArray, IntArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from chromozoo.data.base.crop_dataset import CropDataset

CLASSIFICATION_SETS = sorted(datasets("classification"))


BETAS = range(1, 46)


FIGURES = ("accuracy", "cell_accuracy", "cells_without_error")


COLUMNS = (
    "model",
    "weights",  # tag, or name of one's own file
    "weights_sha256",  # first 12 hex digits
    "dataset",
    "split",
    "split_sha256",
    "mode",
    "metric",
    "beta",  # of 46
    "temperature",
    "n_chromosomes",
    "n_cells",
    *interval_columns(FIGURES),  # 0..1
    "tta",
    "input_size",
    "date",
)


KEY = ("model", "weights_sha256", "dataset", "split", "split_sha256", "mode", "metric")


def measure(
    name: str,
    weights: str,
    dataset: str,
    stage: str,
    *,
    metrics: Sequence[Metric] = METRICS,
    beta: int | None = None,
    root: str | None = None,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Classify the chromosomes of a stage in every mode; one result row for each mode.

    Args:
        name: Registered classifier.
        weights: Tag, or path of a weights file or checkpoint.
        dataset: Name in the catalogue.
        stage: ``"val"`` or ``"test"``.
        metrics: ``"cosine"``, ``"euclid"``.
        beta: Head of the label redistribution, of 46 chromosomes; None chooses it.
        root: Folder of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        ChromozooError: Unknown names, no data, or a model without features.
    """
    import torch

    from chromozoo.benchmark.inference import predict
    from chromozoo.models.registry import get_model

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = get_model(name, weights=weights).to(device)
    if not hasattr(getattr(model, "network", None), "forward_features"):
        raise ChromozooError(f"{name} gives no features; choose a classifier")
    info = dataset_info(dataset)
    data = info.load_data(root=root, preset=model.transforms.to_dict())
    chosen_on, evaluated = data.dataset("val"), data.dataset(stage)
    training = data.dataset("train")
    vectors = label_feature_vectors(extract_features(model, training), training.labels)
    features = {"val": extract_features(model, chosen_on)}
    if stage not in features:
        features[stage] = extract_features(model, evaluated)

    about = {
        "model": name,
        **_origin(model, weights),
        "dataset": dataset,
        "split": f"{data.split.name}/{stage}",
        "split_sha256": data.split.sha256[:12],
        "tta": "4 flips" if model.flip_average else "none",
        "input_size": f"{model.transforms.height}x{model.transforms.width}",
        "date": datetime.date.today().isoformat(),
    }
    rows: list[dict[str, Any]] = []

    def add(mode: str, labels: IntArray, **values: Any) -> None:
        rows.append({**about, "mode": mode, **values, **_figures(labels, evaluated)})

    log_p = np.log(np.maximum(predict(model, evaluated)[0], MIN_PROBABILITY))
    add("softmax", log_p.argmax(axis=1))
    add("softmax+assignment", by_cell(log_p, evaluated.cells, lambda p: assign_cell(p).classes))
    for metric in metrics:
        to_choose = feature_distances(features["val"], vectors, metric)
        distances = feature_distances(features[stage], vectors, metric)
        own_beta = beta or choose_beta(to_choose, chosen_on.labels, chosen_on.cells)
        temperature = fit_temperature(to_choose, chosen_on.labels)
        add("lfv", distances.argmin(axis=1), metric=metric)
        redistributed = redistribute(distances, evaluated.cells, own_beta)
        add("lfv+lrd", redistributed, metric=metric, beta=own_beta)
        log_p = distances_to_log_probabilities(distances, temperature)
        assigned = by_cell(log_p, evaluated.cells, lambda p: assign_cell(p).classes)
        add("lfv+assignment", assigned, metric=metric, temperature=round(temperature, 6))
        if (stored := _stored_vectors(model.network)) is not None:
            labels = feature_distances(features[stage], stored, metric).argmin(axis=1)
            add("lfv-stored", labels, metric=metric)
    return rows


def extract_features(model: Any, crops: "CropDataset", batch_size: int = 64) -> "NDArray[Any]":
    """Return the features ``(N, F)`` float32 of a :class:`CropDataset`, averaged over the flips."""
    import torch
    from torch.utils.data import DataLoader

    from chromozoo.tasks.classify import FLIPS

    flips = FLIPS if model.flip_average else FLIPS[:1]
    found = []
    with torch.inference_mode():
        for batch in DataLoader(crops, batch_size):
            x = batch["image"].to(model.device)
            turned = [model.network.forward_features(x.flip(axes)).float() for axes in flips]
            found.append(torch.stack(turned).mean(dim=0).flatten(1).cpu())
    return torch.cat(found).numpy()


def by_cell(
    values: FloatArray, cells: IntArray, name_cell: Callable[[FloatArray], IntArray]
) -> IntArray:
    """Return class indices ``(N,)``: ``name_cell`` of the rows ``(n, 24)`` of each cell."""
    labels = np.empty(len(values), np.int64)
    for cell in np.unique(cells):
        labels[cells == cell] = name_cell(values[cells == cell])
    return labels


def redistribute(distances: FloatArray, cells: IntArray, beta: int) -> IntArray:
    """Redistribute labels cell by cell, with ``beta`` of 46 in the head."""
    return by_cell(distances, cells, lambda d: redistribute_labels(d, head_size(len(d), beta)))


def choose_beta(distances: FloatArray, labels: IntArray, cells: IntArray) -> int:
    """Choose the most accurate of :data:`BETAS`; among equals the nearest to 40."""

    def merit(beta: int) -> tuple[int, int]:
        right = int((redistribute(distances, cells, beta) == labels).sum())
        return right, -abs(beta - PUBLISHED_BETA)

    return max(BETAS, key=merit)


def add_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows; a row of the same model, weights, data, mode and metric is replaced.

    Raises:
        ChromozooError: The file on disk has other columns.
    """
    ResultsFile(path, COLUMNS, KEY, "match").add(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a result file as text; a missing file has no rows.

    Raises:
        ChromozooError: It has other columns.
    """
    return ResultsFile(path, COLUMNS, KEY, "match").read()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table: per cent, in brackets the 95 % bootstrap interval over cells."""
    lines = [
        "| mode | distance | beta | per chromosome (%) | mean of cells (%) | without error (%) |",
        "|---|---|---:|---|---|---|",
    ]
    for row in rows:
        text = {column: as_text(row.get(column)) for column in COLUMNS}
        words = [text[column] for column in ("mode", "metric", "beta")]
        figures = [percent(text, figure) for figure in FIGURES]
        lines.append("| " + " | ".join([*words, *figures]) + " |")
    return "\n".join(lines)


def _figures(labels: IntArray, evaluated: "CropDataset") -> dict[str, Any]:
    report = evaluate_classification(
        np.eye(N_CLASSES)[labels], evaluated.labels, evaluated.cells, assignment=False
    )
    # One cell alone has no interval.
    return {
        key: value
        for key, value in report.to_row().items()
        if key in COLUMNS and not np.isnan(value)
    }


def _stored_vectors(network: Any) -> "NDArray[Any] | None":
    """Return the label feature vectors stored in the weights, NaN for classes without one."""
    import torch

    known = getattr(network, "label_features_set", None)
    if known is None or not known.any():
        return None
    vectors: NDArray[Any] = (
        torch.where(known[:, None], network.label_features, torch.nan).cpu().numpy()
    )
    return vectors


def _origin(model: Any, weights: str) -> dict[str, str]:
    """Return name and hash of the weights, packaged or a checkpoint."""
    if model.weights_entry is not None:
        return {
            "weights": weights_label(model.weights_entry),
            "weights_sha256": model.weights_entry.sha256[:12],
        }
    path = Path(weights)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    return {"weights": path.name, "weights_sha256": sha256[:12]}
