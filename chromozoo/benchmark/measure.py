"""Evaluation of weights on a data set; each evaluation gives one row of a result file."""

import datetime
import os
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.benchmark.inference import predict
from chromozoo.benchmark.provenance import weights_label
from chromozoo.benchmark.repository import ROOT
from chromozoo.classes import CLASS_INDEX
from chromozoo.data.catalogue import dataset_info
from chromozoo.environment import library_versions
from chromozoo.errors import ChromozooError, UnknownNameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from chromozoo.metrics.segmentation import SegmentationReport, TrueChromosomes
    from chromozoo.structures.metaphase import Metaphase
    from chromozoo.structures.segmentation import Segmentation

DEFAULT_SCORE = 0.5


def models_trained_on(dataset: str) -> list[str]:
    """Return the models that have weights trained on a data set.

    Raises:
        ChromozooError: There is none.
    """
    from chromozoo.models.registry import list_models
    from chromozoo.models.weights.index import weights_entries

    info = dataset_info(dataset)
    names = [name for name in list_models(task=info.task) if info.tag in weights_entries(name)]
    if not names:
        raise ChromozooError(f"no model has weights trained on {dataset}; see `chromozoo models`")
    return names


def evaluate_classifier(
    model: Any,
    dataset: str,
    stage: str,
    *,
    fold: int | None = None,
    root: str | None = None,
    note: str = "",
) -> tuple[dict[str, "NDArray[Any]"], dict[str, Any]]:
    """Evaluate a classifier on a data set.

    Args:
        model: Classifier with the entry of its weights, see :func:`load_model_with_entry`.
        dataset: Name in the catalogue.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        fold: Fold of the cross-validation, or None for the official split.
        root: Folder of the data.
        note: Free text of the row.

    Returns:
        Arrays ``probabilities`` (N, 24), ``targets`` (N,), ``cells`` (N,) and ``prob_p_arm_up``
        (N, 24) where all images are upright; and the result row.

    Raises:
        ChromozooError: Unknown data set, or no data.
    """
    from chromozoo.benchmark.tables.classification import WHOLE_CELLS
    from chromozoo.metrics.classification import evaluate_classification

    info = dataset_info(dataset)
    data = info.load_data(root=root, fold=fold, preset=model.transforms.to_dict())
    crops = data.dataset(stage)
    start = time.perf_counter()
    probabilities, p_arm_up = predict(model, crops)
    milliseconds = 1000 * (time.perf_counter() - start) / len(crops)
    found = {"probabilities": probabilities, "targets": crops.labels, "cells": crops.cells}
    if p_arm_up is not None and crops.upright.all():  # polarity is known of upright images alone
        found["prob_p_arm_up"] = p_arm_up
    report = evaluate_classification(
        probabilities, crops.labels, crops.cells, prob_p_arm_up=found.get("prob_p_arm_up")
    )
    preset = model.transforms
    return found, {
        "task": "classification",
        **provenance(model, note),
        "dataset": dataset,
        "split": f"{data.split.name}/{stage}" if fold is None else data.split.name,
        "split_sha256": data.split.sha256[:12],
        **report.to_row(),
        "tta": ("4 flips" if model.flip_average else "none")
        + (f", {WHOLE_CELLS}" if model.sees_cells else ""),
        "input_size": f"{preset.height}x{preset.width}",
        "ms_per_image": round(milliseconds, 2),
    }


def evaluate_segmenter(
    model: Any,
    dataset: str,
    stage: str,
    *,
    score: float = DEFAULT_SCORE,
    overlays: Path | None = None,
    root: str | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Evaluate a segmenter on whole images and return the result row.

    What is measured is ``model.segment``, as a user calls it, against the outlines at the size of
    the image.

    Args:
        model: Segmenter with the entry of its weights, see :func:`load_model_with_entry`.
        dataset: Name in the catalogue.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        score: Least score of what is counted as found (not for average precision).
        overlays: Folder for an image of each image.
        root: Folder of the data.
        note: Free text of the row.

    Raises:
        ChromozooError: Unknown data set, or no data.
    """
    import torch
    from rich.progress import track

    from chromozoo.metrics.segmentation import BACKEND, evaluate_segmentation

    info = dataset_info(dataset)
    data = info.load_data(root=root, preset=model.transforms.to_dict())
    images = data.dataset(stage)
    seconds: list[float] = []
    sizes: set[str] = set()

    def segmented(metaphases: Iterator["Metaphase"]) -> Iterator["Segmentation"]:
        for metaphase in metaphases:
            height, width = metaphase.image.shape
            sizes.add(f"{width}x{height}")
            start = time.perf_counter()
            found = model.segment(metaphase.image, metaphase.source)
            seconds.append(time.perf_counter() - start)
            if overlays is not None:
                _draw_errors(overlays / f"{metaphase.key}.png", metaphase, found, score)
            yield found

    # One image is in memory at a time: its prediction and its outlines are taken in turn.
    metaphases, again = tee(
        images.metaphase(k) for k in track(range(len(images)), model.weights_entry.model)
    )
    report = evaluate_segmentation(
        segmented(metaphases), ground_truth(again, data, model), score_threshold=score
    )
    return {
        **provenance(model, note),
        "dataset": dataset,
        "split": f"{data.split.name}/{stage}",
        "split_sha256": data.split.sha256[:12],
        **report.to_row(),
        "image_scale": " and ".join(sorted(sizes)) if len(sizes) <= 4 else f"{len(sizes)} sizes",
        "backend": BACKEND,
        # The first image pays for what torch prepares once.
        "seconds_per_image": round(statistics.median(seconds), 3),
        "threads": torch.get_num_threads(),
    }


def load_model_with_entry(name: str, weights: str, device: str) -> Any:
    """Load a model whose weights have an entry.

    Raises:
        UnknownNameError: The weights are a checkpoint.
    """
    import torch

    from chromozoo.models.registry import get_model

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = get_model(name, weights=weights).to(device)
    if model.weights_entry is None:
        raise UnknownNameError(
            f"{weights}: a checkpoint has no recorded origin; make weights of it with "
            "`chromozoo zoo package CONFIG --checkpoint FILE --output DIR` and measure these"
        )
    return model


def provenance(model: Any, note: str) -> dict[str, Any]:
    """Return the columns of a row that say what was measured, where and when."""
    import torch

    entry, versions = model.weights_entry, library_versions()
    return {
        "model": entry.model,
        "weights": weights_label(entry),
        "weights_sha256": entry.sha256[:12],
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "device": torch.cuda.get_device_name()
        if model.device.type == "cuda"
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


def evaluate_on_validation(model: Any, data: Any, n_bootstrap: int = 1000) -> "SegmentationReport":
    """Evaluate a segmenter on the whole validation images of a DataModule."""
    from chromozoo.metrics.segmentation import evaluate_segmentation

    images = data.dataset("val")
    metaphases = [images.metaphase(index) for index in range(len(images))]
    found = (model.segment(one.image, one.source) for one in metaphases)
    truth = ground_truth(metaphases, data, model)
    return evaluate_segmentation(found, truth, n_bootstrap=n_bootstrap)


def ground_truth(
    metaphases: Iterable["Metaphase"], data: Any, model: Any
) -> Iterator["TrueChromosomes"]:
    """Yield the true chromosomes of each image, with classes if the model predicts classes."""
    import numpy as np

    from chromozoo.metrics.segmentation import TrueChromosomes

    with_classes = data.dataset_class.with_classes and len(model.categories) > 1
    for metaphase in metaphases:
        classes = None
        if with_classes:
            classes = np.array([CLASS_INDEX[name] for name in metaphase.labels], np.int64)
        yield TrueChromosomes(metaphase.masks(), classes, metaphase.boxes_only)


def _draw_errors(path: Path, metaphase: "Metaphase", found: "Segmentation", score: float) -> None:
    """Draw the detections at a score by number, false ones as ``?``, missed ones in red."""
    from PIL import Image

    from chromozoo.files import write_image
    from chromozoo.metrics.segmentation import image_errors
    from chromozoo.structures.segmentation import Segmentation
    from chromozoo.visualization.overlay import draw_overlay

    true = metaphase.masks()
    errors = image_errors(found, true, score)
    shown = found.filter_by_score(score)
    wrong = set(errors.extra.tolist())
    labels = ["?" if number in wrong else str(number + 1) for number in range(len(shown))]
    missed = Segmentation.from_masks(true[errors.missed])
    path.parent.mkdir(parents=True, exist_ok=True)
    overlay = draw_overlay(metaphase.image, shown, labels, missed)
    write_image(path, Image.fromarray(overlay))


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()
