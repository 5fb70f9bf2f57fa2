"""Packaging of a trained checkpoint: choose, calibrate, store, measure, record."""

import dataclasses
import datetime
import math
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chromozoo.benchmark import publish
from chromozoo.benchmark.cards import write_card
from chromozoo.benchmark.lineage import config_path, lineage_of
from chromozoo.benchmark.measure import (
    evaluate_classifier,
    evaluate_on_validation,
    evaluate_segmenter,
    load_model_with_entry,
)
from chromozoo.benchmark.repository import WEIGHTS, require_config_of_repository
from chromozoo.classes import CLASSES
from chromozoo.data.splits import Split
from chromozoo.environment import library_versions
from chromozoo.errors import WeightsError
from chromozoo.models.registry import get_model
from chromozoo.models.weights.index import weights_entries, write_entry
from chromozoo.models.weights.storage import save_weights
from chromozoo.structures.weights_entry import MAX_BYTES, WeightsEntry
from chromozoo.training.recipe import Recipe


@dataclass(frozen=True)
class Choice:
    """The best checkpoint on validation.

    Attributes:
        path: The checkpoint.
        metric: Name of the metric that chose it, one of the metrics of the entry.
        figure: Value of the metric.
        values: Fields of the :class:`WeightsEntry` that depend on the task.
    """

    path: Path
    metric: str
    figure: float
    values: dict[str, Any]


def package(
    recipe: Recipe,
    candidates: list[Path],
    *,
    storage: str | None = None,
    training: str = "",
    root: str | None = None,
    replace: bool = False,
) -> WeightsEntry:
    """Package the best of a recipe's checkpoints as weights of the repository.

    The checkpoint is chosen and calibrated on validation, stored, and measured on validation and
    test. The weights file, its rows, entry, card and tables are written when all of that is done.

    Args:
        recipe: Recipe of the repository.
        candidates: Checkpoints to choose from.
        storage: ``"fp32"``, ``"fp16"`` or ``"int8"``; None takes what the config says, else the
            best that fits into a file.
        training: Machine and time, for the record.
        root: Folder of the data.
        replace: Replace packaged weights that do as well on validation.

    Raises:
        WeightsError: The packaged weights do better on validation.
        ChromozooError: The config is none of the repository's.
    """
    require_config_of_repository(recipe.path, "--output DIR keeps the weights as your own")
    info = recipe.dataset
    choice, data = choose(recipe, candidates, root)
    old = weights_entries(recipe.model).get(recipe.tag)
    stage = f"{data.split.name}/val"
    if old and not replace and choice.figure <= old.metrics.get(stage, {}).get(choice.metric, 0):
        raise WeightsError(
            f"{choice.path}: {choice.metric} {choice.figure:.4f} on {stage} is no gain over the "
            f"packaged {old.file}; give --replace to replace it all the same"
        )
    kind = publish.kind_of_task(info.task)
    with TemporaryDirectory(dir=WEIGHTS) as folder:
        entry = entry_of(recipe, choice, data.split, training)
        file, entry = store(recipe, choice, entry, Path(folder), storage)
        rows = [_measured(recipe, file, part, root) for part in ("val", "test")]
        os.replace(file, WEIGHTS / file.name)
    metrics = {row["split"]: publish.row_metrics(kind, row) for row in rows}
    reference = publish.result_row(kind, entry.sha256)
    entry = dataclasses.replace(entry, metrics=metrics, result_row=reference)
    publish.add_rows(kind, kind.path, rows)
    write_entry(entry)
    write_card(recipe.model)
    publish.update_tables([kind])
    if old and old.file != entry.file:
        (WEIGHTS / old.file).unlink(missing_ok=True)
    return entry


def _measured(recipe: Recipe, file: Path, stage: str, root: str | None) -> dict[str, Any]:
    """Return the result row of a weights file that is about to be packaged."""
    info = recipe.dataset
    model = load_model_with_entry(recipe.model, str(file), "auto")
    if info.task == "classification":
        row = evaluate_classifier(model, info.name, stage, root=root)[1]
    else:
        row = evaluate_segmenter(model, info.name, stage, root=root)
    return row | {"weights": recipe.tag}


def choose(recipe: Recipe, candidates: list[Path], root: str | None) -> tuple[Choice, Any]:
    """Choose the best of the checkpoints on validation; also returns the DataModule."""
    info = recipe.dataset
    data = info.load_data(root=root)
    choose_one = choose_classifier if info.task == "classification" else choose_segmenter
    return choose_one(recipe, candidates, root), data


def store(
    recipe: Recipe, choice: Choice, entry: WeightsEntry, folder: Path, storage: str | None
) -> tuple[Path, WeightsEntry]:
    """Write the weights file of a checkpoint; returns its path and the entry with its hashes."""
    network: Any = get_model(recipe.model, weights=choice.path).network
    storage = storage or recipe.config.packaging.get("storage")
    if storage is None:
        half = 2 * sum(tensor.numel() for tensor in network.state_dict().values())
        storage = "fp16" if half < MAX_BYTES else "int8"
    return save_weights(network, entry, folder, storage)


def entry_of(recipe: Recipe, choice: Choice, split: Split, training: str) -> WeightsEntry:
    """Return the entry of a chosen checkpoint, without what can only be measured."""
    info = recipe.dataset
    return WeightsEntry(
        model=recipe.model,
        tag=recipe.tag,
        dataset=info.title,
        split=split.name,
        split_sha256=split.sha256,
        config=config_path(recipe),
        config_sha256=recipe.config.sha256,
        lineage=lineage_of(recipe, split),
        seed=int(recipe.content.get("seed_everything", 0)),
        training=training,
        versions=library_versions(),
        licence_code="Apache-2.0",
        licence_data=f"{info.source} ({info.licence})",
        licence_weights="research use only; they derive from data without a stated licence",
        created=datetime.date.today().isoformat(),
        **choice.values,
    )


def choose_classifier(
    recipe: Recipe, candidates: list[Path], root: str | None, fold: int | None = None
) -> Choice:
    """Choose by accuracy on validation, then by likelihood at the calibrated temperature."""
    info = recipe.dataset
    best: tuple[tuple[float, float], Path, float] | None = None
    for path in candidates:
        model: Any = get_model(recipe.model, weights=path)
        data = info.load_data(root=root, fold=fold, preset=model.transforms.to_dict())
        crops = data.dataset("val")
        temperature, accuracy, loss = calibrate(model, crops)
        print(f"{path}: val accuracy {accuracy:.4f}, loss {loss:.4f}, T {temperature:.3f}")
        if best is None or (accuracy, -loss) > best[0]:
            best = ((accuracy, -loss), path, temperature)
    assert best is not None
    (accuracy, _), path, temperature = best
    model = get_model(recipe.model, weights=path)
    length = model.transforms.typical_length or typical_length(info.load_data(root=root, fold=fold))
    preset = dataclasses.replace(model.transforms, typical_length=length).to_dict()
    preset |= recipe.config.packaging.get("preset", {})
    # The temperature belongs to what the packaged weights see.
    if preset != model.transforms.to_dict():
        model.transforms = type(model.transforms)(**preset)
        data = info.load_data(root=root, fold=fold, preset=preset)
        temperature, accuracy, _ = calibrate(model, data.dataset("val"))
    synthetic = recipe.content["data"].get("init_args", {}).get("synthetic_cells", 0)
    doc = (
        f"The training mixes {synthetic} simulated cells (`chromozoo.synthetic`, drawn from the "
        "ISCN band tables) with the real ones; their look (size, blur, brightness) was tuned "
        "beside crops of all 107 cells, the test cells included, never by accuracy. "
        if synthetic
        else ""
    )
    return Choice(
        path,
        "accuracy",
        accuracy,
        {
            "classes": list(CLASSES),
            "input_size": [model.transforms.height, model.transforms.width],
            "init_args": _builder_arguments(model, path) | {"preset": preset},
            "preprocessing": preset,
            "temperature": temperature,
            "doc": doc
            + "Chromosomes may lie in any direction; polarity is "
            + ("told, as learnt from upright chromosomes. " if model.polarity else "not told. ")
            + "Stain and pixel size other than the training data's are outside what was measured.",
        },
    )


def choose_segmenter(recipe: Recipe, candidates: list[Path], root: str | None) -> Choice:
    """Choose by the AP of ``segment`` on the whole validation images.

    The AP is that of masks; of boxes if there are no masks, by class if the model predicts classes.
    """
    info = recipe.dataset
    best: tuple[float, Path] | None = None
    for path in candidates:
        model: Any = get_model(recipe.model, weights=path)
        data = info.load_data(root=root, preset=model.transforms.to_dict())
        metrics = evaluate_on_validation(model, data, n_bootstrap=0).metrics
        metric = "mask_ap"
        if math.isnan(metrics[metric].value):
            metric = "class_box_ap" if len(model.categories) > 1 else "box_ap"
        precision = metrics[metric].value
        print(f"{path}: val {metric} {precision:.4f}")
        if best is None or precision > best[0]:
            best = (precision, path)
    assert best is not None
    precision, path = best
    model = get_model(recipe.model, weights=path)
    share = recipe.content["data"].get("init_args", {}).get("synthetic", 0)
    doc = (
        f"{share:.0%} of the training crops are composed by cut-and-paste from chromosomes of the "
        "training images. "
        if share
        else ""
    )
    return Choice(
        path,
        metric,
        precision,
        {
            "classes": list(model.categories),
            "input_size": [],
            "init_args": _builder_arguments(model, path) | {"preset": model.transforms.to_dict()},
            "preprocessing": model.transforms.to_dict(),
            "doc": doc
            + "Masks are amodal: chromosomes that cross share pixels."
            + (" They were learnt from boxes and grey values." if metric != "mask_ap" else ""),
        },
    )


def calibrate(model: Any, crops: Any) -> tuple[float, float, float]:
    """Fit the temperature on validation crops.

    Returns:
        Temperature, accuracy, and negative log-likelihood at that temperature.
    """
    import numpy as np
    import torch
    from scipy.optimize import minimize_scalar
    from torch.utils.data import DataLoader

    from chromozoo.data.base.composed_cells import batch_whole_cells
    from chromozoo.tasks.classify import FLIPS

    flips = FLIPS if model.flip_average else FLIPS[:1]
    batches = batch_whole_cells(crops.cells, 64)
    with torch.inference_mode():
        logits = torch.cat(
            [
                torch.stack(
                    [
                        model.forward_with_polarity(batch["image"].flip(axes), batch["cell"])[0]
                        for axes in flips
                    ]
                )
                for batch in DataLoader(crops, batch_sampler=batches)
            ],
            dim=1,
        ).double()
    labels = torch.from_numpy(np.asarray(crops.labels))[np.concatenate(batches)]

    def probabilities(log_temperature: float) -> torch.Tensor:
        return torch.softmax(logits / float(np.exp(log_temperature)), dim=-1).mean(dim=0)

    def loss(log_temperature: float) -> float:
        chosen = probabilities(log_temperature).gather(1, labels[:, None])
        return float(-chosen.clamp_min(1e-12).log().mean())

    fit = minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded")
    accuracy = float((probabilities(fit.x).argmax(1) == labels).double().mean())
    return float(np.exp(fit.x)), accuracy, float(fit.fun)


def typical_length(data: Any) -> float:
    """Return the median over training cells of the median chromosome length, in pixels."""
    import numpy as np

    from chromozoo.images.preset import ChromosomePreset

    # Every chromosome fits into this canvas at the scale of the images.
    data.preset = ChromosomePreset(height=256, width=256)
    crops = data.dataset("train")
    lengths = (crops.crops > 0).any(axis=2).sum(axis=1)
    return float(np.median([np.median(lengths[crops.cells == c]) for c in np.unique(crops.cells)]))


def _builder_arguments(model: Any, checkpoint: Path) -> dict[str, Any]:
    """What the builder needs to make this network; the recipe's own arguments are in the config."""
    from chromozoo.models.weights.checkpoint import load_checkpoint

    arguments, _ = load_checkpoint(checkpoint)
    needed: dict[str, Any] = model.builder_arguments(arguments)
    return needed
