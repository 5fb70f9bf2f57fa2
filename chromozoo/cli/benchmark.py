"""``chromozoo benchmark``: measures weights on a data set and adds the row to the leaderboard."""

import argparse
import dataclasses
import datetime
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.classes import CLASS_INDEX
from chromozoo.cli.env import library_versions
from chromozoo.data.catalogue import DATASETS, dataset_info, usable_for
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.publishing import destination, label
from chromozoo.weights import REPOSITORY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from chromozoo.data.polygons import Metaphase
    from chromozoo.segmentation_metrics import SegmentationReport, TrueChromosomes
    from chromozoo.tasks.segmentation import Segmentation

RESULTS = REPOSITORY / "benchmarks" / "results" / "classification.csv"
PUBLISHED = RESULTS.with_name("published.csv")
SEGMENTATION_RESULTS = RESULTS.with_name("segmentation.csv")
SEGMENTATION_PUBLISHED = RESULTS.with_name("published_segmentation.csv")
# The README shows the official test cells; validation rows stand in the CSV alone.
LEADERBOARD_SPLIT = "bioimlab_v1/test"
FOLDS_SPLIT = "bioimlab_v1/folds"
SEGMENTATION_SPLIT = "bioimlab_segmentation_v1/test"
README = REPOSITORY / "README.md"
DEFAULT_SCORE = 0.5
DEFAULT_DATASETS = {"classification": "bioimlab", "segmentation": "bioimlab-segmentation"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="see `chromozoo models`; `all` is every one with weights of the data set",
    )
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--dataset",
        choices=sorted(DATASETS),
        help="default: bioimlab for classifiers, bioimlab-segmentation for segmenters",
    )
    parser.add_argument("--stage", default="test", choices=("train", "val", "test"))
    parser.add_argument("--fold", type=int, help="part of the grouped cross-validation")
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--note", default="")
    parser.add_argument(
        "--score",
        type=float,
        help="segmenters: least score of what is counted as found (default: that of `segment`; "
        "with --classifier that of `karyotype`)",
    )
    parser.add_argument(
        "--classifier",
        metavar="MODEL",
        help="segmenters: name what it finds with this classifier, and measure the karyotypes",
    )
    parser.add_argument(
        "--classifier-weights",
        metavar="WEIGHTS",
        default="DEFAULT",
        help="tag or path",
    )
    parser.add_argument(
        "--assignment",
        choices=("cell", "none"),
        default="cell",
        help="with --classifier: names of a cell together, or each alone (default: %(default)s)",
    )
    parser.add_argument(
        "--overlays",
        type=Path,
        metavar="DIR",
        help="segmenters: folder for a picture of each image, with what was missed in red",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="CSV that the row is added to (default: that of the task in the repository, for its "
        "own weights)",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.models == ["all"]:
        dataset = arguments.dataset or DEFAULT_DATASETS["classification"]
        arguments.models = trained_on(dataset)
        arguments.weights = dataset_info(dataset).tag
    if len(arguments.models) > 1:
        return _run_each_in_its_own_process(arguments)
    from chromozoo.registry import model_info

    (name,) = arguments.models
    task = model_info(name).task
    dataset = arguments.dataset or DEFAULT_DATASETS[task]
    if arguments.results is not None and not arguments.results.parent.is_dir():
        raise ChromozooError(
            f"{arguments.results.parent}: no such folder; name another file with --results"
        )
    if arguments.classifier is not None:
        if task != "segmentation":
            raise ChromozooError(f"--classifier goes with a segmenter; {name} is none")
        return _run_karyotyping(name, dataset, arguments)
    if dataset not in usable_for(task):
        raise ChromozooError(
            f"{name} is a model for {task}, {dataset} is not a data set for it; use "
            f"{', '.join(usable_for(task))}"
        )
    shipped = RESULTS if task == "classification" else SEGMENTATION_RESULTS
    shared = {"root": arguments.root, "device": arguments.device, "note": arguments.note}
    if task == "classification":
        from chromozoo.leaderboard import append_row

        row = measure(
            name, arguments.weights, dataset, arguments.stage, fold=arguments.fold, **shared
        )
        shown: tuple[str, ...] = (
            "accuracy",
            "assigned_accuracy",
            "cells_without_error",
            "ece",
            "polarity_accuracy",
        )
    else:
        from chromozoo.leaderboard_segmentation import append_row
        from chromozoo.segmentation_metrics import METRICS

        if arguments.fold is not None:
            raise ChromozooError(f"{dataset} has no folds; leave --fold out")
        row = measure_segmenter(
            name,
            arguments.weights,
            dataset,
            arguments.stage,
            score=DEFAULT_SCORE if arguments.score is None else arguments.score,
            overlays=arguments.overlays,
            **shared,
        )
        shown = METRICS
    to = destination(
        arguments.results, shipped, [(row["model"], row["weights"], row["weights_sha256"])]
    )
    if to.path is not None:
        append_row(to.path, row)
    _show(row, shown)
    print(to.say())
    if to.published:
        publish(row)
    return 0


def _run_karyotyping(name: str, dataset: str, arguments: argparse.Namespace) -> int:
    from chromozoo import leaderboard_karyotyping
    from chromozoo.cli import benchmark_karyotyping

    row, report = benchmark_karyotyping.measure(
        name,
        arguments.classifier,
        segmenter_weights=arguments.weights,
        classifier_weights=arguments.classifier_weights,
        assignment=arguments.assignment,
        dataset=dataset,
        stage=arguments.stage,
        score=arguments.score,
        root=arguments.root,
        device=arguments.device,
        note=arguments.note,
    )
    measured = [
        (row[part], row[f"{part}_weights"], row[f"{part}_sha256"])
        for part in ("segmenter", "classifier")
    ]
    to = destination(arguments.results, benchmark_karyotyping.RESULTS, measured)
    if to.path is not None:
        leaderboard_karyotyping.append_row(to.path, row)
    for cell in report.cells:
        print(f"{cell.name:>6}: {cell.found} of {cell.true} found, {cell.wrong} wrong")
    _show(row, benchmark_karyotyping.SHOWN)
    print(to.say())
    if to.published:
        benchmark_karyotyping.publish(row)
    return 0


def _show(row: dict[str, Any], figures: tuple[str, ...]) -> None:
    for figure in figures:
        if row.get(figure) is not None:
            low, high = row.get(f"{figure}_low"), row.get(f"{figure}_high")
            print(f"{figure:<22} {row[figure]:.4f}  [{low}, {high}]")


def trained_on(dataset: str) -> list[str]:
    """The models that have weights of a data set.

    Raises:
        ChromozooError: There is none.
    """
    from chromozoo.registry import list_models
    from chromozoo.weights import weights_entries

    info = dataset_info(dataset)
    names = [name for name in list_models(task=info.task) if info.tag in weights_entries(name)]
    if not names:
        raise ChromozooError(f"no model has weights trained on {dataset}; see `chromozoo models`")
    return names


def measure(name: str, weights: str, dataset: str, stage: str, **options: Any) -> dict[str, Any]:
    """The result row of one set of weights of a classifier; arguments as of :func:`classified`."""
    return classified(name, weights, dataset, stage, **options)[1]


def classified(
    name: str,
    weights: str,
    dataset: str,
    stage: str,
    *,
    fold: int | None = None,
    root: str | None = None,
    device: str = "auto",
    note: str = "",
) -> tuple[dict[str, "NDArray[Any]"], dict[str, Any]]:
    """What one set of weights of a classifier says of a data set, and its result row.

    Args:
        name: Registered model.
        weights: Tag or path of a weights file.
        dataset: Name in the catalogue.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        fold: Part of the cross-validation, or None for the official split.
        root: Folder of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        note: Free text of the row.

    Returns:
        ``probabilities`` (N, 24), ``targets`` (N,) and ``cells`` (N,), where all pictures are
        upright also ``p_arm_up`` (N, 24); and the row.

    Raises:
        ChromozooError: Unknown names, no data, or weights that are not whole.
    """
    from chromozoo.evaluation import evaluate_classification
    from chromozoo.leaderboard import WHOLE_CELLS

    model = load_packaged(name, weights, device)
    info = dataset_info(dataset)
    data = info.load_data(root=root, fold=fold, preset=model.transforms.to_dict())
    crops = data.dataset(stage)
    start = time.perf_counter()
    probabilities, p_arm_up = predict(model, crops)
    milliseconds = 1000 * (time.perf_counter() - start) / len(crops)
    found = {"probabilities": probabilities, "targets": crops.labels, "cells": crops.cells}
    if p_arm_up is not None and crops.upright.all():  # else there is nothing to hold it against
        found["p_arm_up"] = p_arm_up
    report = evaluate_classification(**found)
    preset = model.transforms
    return found, {
        "task": "classification",
        **about(model, note),
        "dataset": dataset,
        "split": f"{data.split.name}/{stage}" if fold is None else data.split.name,
        "split_sha256": data.split.sha256[:12],
        **report.to_row(),
        "tta": ("4 flips" if model.flip_average else "none")
        + (f", {WHOLE_CELLS}" if model.sees_cells else ""),
        "input_size": f"{preset.height}x{preset.width}",
        "ms_per_image": round(milliseconds, 2),
    }


def measure_segmenter(
    name: str,
    weights: str,
    dataset: str,
    stage: str,
    *,
    score: float = DEFAULT_SCORE,
    overlays: Path | None = None,
    root: str | None = None,
    device: str = "auto",
    note: str = "",
) -> dict[str, Any]:
    """Evaluates one set of weights of a segmenter on whole images and returns its result row.

    What is measured is ``model.segment``, as a user calls it, against the outlines at the size of
    the image.

    Args:
        name: Registered model.
        weights: Tag or path of a weights file.
        dataset: Name in the catalogue.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        score: Least score of what is counted as found (not for average precision).
        overlays: Folder for a picture of each image.
        root: Folder of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        note: Free text of the row.

    Raises:
        ChromozooError: Unknown names, no data, or weights that are not whole.
    """
    import torch
    from rich.progress import track

    from chromozoo.segmentation_metrics import BACKEND, evaluate_segmentation

    model = load_packaged(name, weights, device)
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
    metaphases, again = tee(images.metaphase(k) for k in track(range(len(images)), name))
    report = evaluate_segmentation(
        segmented(metaphases), truth_of(again, data, model), score_threshold=score
    )
    return {
        **about(model, note),
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


def load_packaged(name: str, weights: str, device: str) -> Any:
    """A model with packaged weights.

    Raises:
        UnknownNameError: The weights are a checkpoint.
    """
    import torch

    from chromozoo.registry import get_model

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = get_model(name, weights=weights).to(device)
    if model.weights_entry is None:
        raise UnknownNameError(
            f"{weights}: a checkpoint has no recorded origin; make weights of it with "
            "`chromozoo package CONFIG --checkpoint FILE --output DIR` and measure these"
        )
    return model


def about(model: Any, note: str) -> dict[str, Any]:
    """The columns of a row that say what was measured, where and when."""
    import torch

    entry, versions = model.weights_entry, library_versions()
    return {
        "model": entry.model,
        "weights": label(entry),
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


def judge(model: Any, data: Any, n_bootstrap: int = 1000) -> "SegmentationReport":
    """What ``segment`` finds in the whole validation images of a DataModule."""
    from chromozoo.segmentation_metrics import evaluate_segmentation

    images = data.dataset("val")
    metaphases = [images.metaphase(index) for index in range(len(images))]
    found = (model.segment(one.image, one.source) for one in metaphases)
    truth = truth_of(metaphases, data, model)
    return evaluate_segmentation(found, truth, n_bootstrap=n_bootstrap)


def truth_of(
    metaphases: Iterable["Metaphase"], data: Any, model: Any
) -> Iterator["TrueChromosomes"]:
    """What a model is judged by on the images of a DataModule: classes if it tells them apart."""
    import numpy as np

    from chromozoo.segmentation_metrics import TrueChromosomes

    with_classes = data.with_classes and len(model.categories) > 1
    for metaphase in metaphases:
        classes = None
        if with_classes:
            classes = np.array([CLASS_INDEX[name] for name in metaphase.labels], np.int64)
        yield TrueChromosomes(metaphase.masks(), classes, metaphase.boxes_only)


def _draw_errors(path: Path, metaphase: "Metaphase", found: "Segmentation", score: float) -> None:
    """What was found at that score, each with its number, or ``?`` where there is nothing."""
    from PIL import Image

    from chromozoo.files import write_picture
    from chromozoo.overlay import draw_overlay
    from chromozoo.segmentation_metrics import image_errors
    from chromozoo.tasks.segmentation import Segmentation

    true = metaphase.masks()
    errors = image_errors(found, true, score)
    shown = found.above(score)
    wrong = set(errors.extra.tolist())
    labels = ["?" if number in wrong else str(number + 1) for number in range(len(shown))]
    missed = Segmentation.from_masks(true[errors.missed])
    path.parent.mkdir(parents=True, exist_ok=True)
    overlay = draw_overlay(metaphase.image, shown, labels, missed)
    write_picture(path, Image.fromarray(overlay))


def predict(model: Any, crops: Any, batch_size: int = 64) -> Any:
    """Calibrated probabilities of a :class:`CropDataset`, ``(N, 24)`` float64, and polarity.

    The second is ``p_arm_up (N, 24)`` as in
    :class:`chromozoo.tasks.classification.Prediction`, or None.
    """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from chromozoo.data.composed_cells import whole_cells

    batches = whole_cells(crops.cells, batch_size)
    with torch.inference_mode():
        found = [
            model.predict_arms(batch["image"].to(model.device), batch["cell"].to(model.device))
            for batch in DataLoader(crops, batch_sampler=batches)
        ]
    in_order = np.argsort(np.concatenate(batches))
    values = torch.cat([part for part, _ in found]).cpu().double().numpy()[in_order]
    arms = None
    if model.polarity:
        arms = torch.cat([up for _, up in found]).cpu().double().numpy()[in_order]
    return values / values.sum(axis=1, keepdims=True), arms


def names_of_cells(
    model: Any, crops: Any
) -> Callable[["NDArray[np.int64]"], "NDArray[np.float64]"]:
    """What a classifier says of any cells that are made of a :class:`CropDataset`.

    Returns:
        A function of rows of ``crops``, which make one cell: their natural-log probabilities,
        ``(K, 24)`` float64. The pictures are looked at once, here.
    """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from chromozoo.evaluation import SMALLEST_PROBABILITY
    from chromozoo.tasks.classification import FLIPS

    if not model.sees_cells:
        log_p = np.log(np.maximum(predict(model, crops)[0], SMALLEST_PROBABILITY))
        return lambda rows: log_p[rows]
    flips = FLIPS if model.flip_average else FLIPS[:1]
    with torch.inference_mode():
        evidence = torch.cat(
            [
                torch.stack([model.network.forward_features(images.flip(axes)) for axes in flips])
                for images in (batch["image"].to(model.device) for batch in DataLoader(crops, 64))
            ],
            dim=1,
        )

    @torch.inference_mode()
    def of_rows(rows: "NDArray[np.int64]") -> "NDArray[np.float64]":
        together = torch.zeros(len(rows), dtype=torch.int64, device=evidence.device)
        logits = torch.stack(
            [model.network.forward_head(flipped[rows], together) for flipped in evidence]
        )
        mean = torch.softmax(logits.double() / model.temperature, dim=-1).mean(dim=0)
        found: NDArray[np.float64] = mean.clamp_min(SMALLEST_PROBABILITY).log().cpu().numpy()
        return found

    return of_rows


def publish(row: dict[str, Any]) -> None:
    """Carries a row of the repository's CSV into the weights entry, the card and the README."""
    from chromozoo import evaluation, leaderboard, segmentation_metrics
    from chromozoo.cards import write_card
    from chromozoo.registry import model_info
    from chromozoo.weights import weights_entries, write_entry

    is_classifier = model_info(row["model"]).task == "classification"
    metrics = evaluation.METRICS if is_classifier else segmentation_metrics.METRICS
    results = RESULTS if is_classifier else SEGMENTATION_RESULTS
    entry = weights_entries(row["model"]).get(row["weights"])
    if entry is not None and entry.sha256.startswith(row["weights_sha256"]):
        # JSON has no NaN.
        figures = {
            name: row[name]
            for name in metrics
            if row.get(name) is not None and not math.isnan(row[name])
        }
        result_row = {
            "file": results.relative_to(REPOSITORY).as_posix(),
            "weights_sha256": row["weights_sha256"],
        }
        entry = dataclasses.replace(
            entry, metrics={**entry.metrics, row["split"]: figures}, result_row=result_row
        )
        write_entry(entry)
        print(f"card: {write_card(row['model'])}")
    if row["split"] == LEADERBOARD_SPLIT:
        update_readme()
    elif row["split"] == FOLDS_SPLIT:
        leaderboard.update_readme(README, "bioimlab-folds", folds_table())
    elif row["split"] == SEGMENTATION_SPLIT:
        update_segmentation_readme()
    if is_classifier:
        leaderboard.update_readme(README, "laboratories", laboratories_table())


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


def folds_table() -> str:
    """The README's table of the cross-validation on BioImLab."""
    from chromozoo import leaderboard

    return leaderboard.leaderboard_markdown(leaderboard.read_results(RESULTS), split=FOLDS_SPLIT)


def laboratories_table() -> str:
    """The README's table of classifiers on sets of several laboratories."""
    from chromozoo.leaderboard import read_results
    from chromozoo.leaderboard_laboratories import classification_table

    return classification_table(read_results(RESULTS))


def update_segmentation_readme() -> None:
    """Makes the README's leaderboard of segmenters anew from the CSVs."""
    from chromozoo.leaderboard import update_readme

    update_readme(README, "bioimlab-segmentation", segmentation_table())
    print(f"leaderboard: {README}")


def segmentation_table() -> str:
    """The README's table of the 16 official BioImLab test images."""
    from chromozoo.leaderboard_segmentation import leaderboard_markdown, read_results

    return leaderboard_markdown(
        [*read_results(SEGMENTATION_RESULTS), *read_results(SEGMENTATION_PUBLISHED)],
        split=SEGMENTATION_SPLIT,
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
    keys = ["weights", "dataset", "stage", "fold", "root", "device", "note", "score", "results"]
    if arguments.classifier is not None:
        keys += ["classifier", "classifier_weights", "assignment"]
    for name in arguments.models:
        words = ["benchmark", name]
        for key in keys:
            if (value := getattr(arguments, key)) not in (None, ""):
                words += [f"--{key.replace('_', '-')}", str(value)]
        if arguments.overlays is not None:
            words += ["--overlays", str(arguments.overlays / name)]
        print(f"== {name}", flush=True)
        finished = subprocess.run([sys.executable, "-m", "chromozoo.cli.main", *words], check=False)
        if finished.returncode:
            print(f"{name}: failed, see above", file=sys.stderr)
            status = 1
    return status
