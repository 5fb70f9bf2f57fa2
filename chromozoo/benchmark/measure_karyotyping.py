"""Evaluation from image to karyotype: a segmenter and a classifier on a data set."""

import statistics
import time
from collections.abc import Iterable, Iterator
from itertools import tee
from typing import TYPE_CHECKING, Any

import numpy as np

from chromozoo.benchmark import measure as measure_benchmark
from chromozoo.benchmark.provenance import weights_label
from chromozoo.data.catalogue import dataset_info

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from chromozoo.karyotype.karyotype import Karyotype
    from chromozoo.karyotype.karyotyper import Karyotyper
    from chromozoo.metrics.karyotyping import KaryotypingReport
    from chromozoo.structures.karyotyped_cell import PredictedCell, TrueCell

SHOWN = (
    "fka",
    "oca",
    "macro_precision",
    "macro_precision_found",
    "macro_recall",
    "exact_match_rate",
    "unassigned_fka",
    "review_share",
    "review_recall",
    "edits",
    "count_error",
)


def measure(
    segmenter: str,
    classifier: str,
    *,
    segmenter_weights: str = "DEFAULT",
    classifier_weights: str = "DEFAULT",
    assignment: Any = "cell",
    dataset: str = "bioimlab-segmentation",
    stage: str = "test",
    score: float | None = None,
    root: str | None = None,
    device: str = "auto",
    note: str = "",
) -> tuple[dict[str, Any], "KaryotypingReport"]:
    """Evaluates a segmenter and a classifier together and returns their result row.

    Args:
        segmenter: Registered model.
        classifier: Registered model.
        segmenter_weights: Tag or path of a weights file.
        classifier_weights: The same.
        assignment: ``"cell"`` or ``"none"``.
        dataset: Name in the catalogue.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        score: Least score of what is counted as found; None takes the karyotyper's own.
        root: Folder of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        note: Free text of the row.

    Raises:
        ChromozooError: Unknown names, no data, no classes of this set, or weights that are not
            whole.
    """
    import torch

    from chromozoo.data.karyotyping_truth import true_cells
    from chromozoo.data.splits import load_split
    from chromozoo.karyotype.karyotyper import Karyotyper
    from chromozoo.metrics.karyotyping import evaluate_karyotyping

    models = [
        measure_benchmark.load_model_with_entry(segmenter, segmenter_weights, device),
        measure_benchmark.load_model_with_entry(classifier, classifier_weights, device),
    ]
    karyotyper = Karyotyper(models[0], models[1], assignment, score=score)
    seconds: list[float] = []
    split = load_split(dataset_info(dataset).load_module().SPLIT)
    images, true = tee(true_cells(dataset, stage, root))
    report = evaluate_karyotyping(
        karyotyped(karyotyper, images, seconds), (cell for _, cell in true)
    )
    about = measure_benchmark.provenance(models[0], note)
    entries = [model.weights_entry for model in models]
    row = {
        "segmenter": entries[0].model,
        "segmenter_weights": weights_label(entries[0]),
        "segmenter_sha256": entries[0].sha256[:12],
        "classifier": entries[1].model,
        "classifier_weights": weights_label(entries[1]),
        "classifier_sha256": entries[1].sha256[:12],
        "assignment": assignment,
        "dataset": dataset,
        "split": f"{split.name}/{stage}",
        "split_sha256": split.sha256[:12],
        **report.to_row(),
        "parameters": sum(p.numel() for model in models for p in model.network.parameters()),
        "seconds_per_image": round(statistics.median(seconds), 3),
        "threads": torch.get_num_threads(),
        **{
            key: about[key]
            for key in ("device", "torch", "torchvision", "timm", "lightning", "chromozoo")
        },
        "precision": "fp32",
        **{key: about[key] for key in ("commit", "date", "source", "note")},
    }
    return row, report


def karyotyped(
    karyotyper: "Karyotyper",
    cells: "Iterable[tuple[NDArray[np.generic], TrueCell]]",
    seconds: list[float],
) -> "Iterator[PredictedCell]":
    """Yield the karyotypes of images one by one; the times are appended to ``seconds``."""
    for image, true in cells:
        start = time.perf_counter()
        found = karyotyper.karyotype(image, true.name)
        seconds.append(time.perf_counter() - start)
        yield found_cell(found, karyotyper.assignment == "cell")


def found_cell(karyotype: "Karyotype", is_assigned: bool) -> "PredictedCell":
    """Convert a karyotype for the metrics, with the classes before the assignment, if any."""
    from chromozoo.classes import CLASS_INDEX
    from chromozoo.structures.karyotyped_cell import PredictedCell

    items = karyotype.chromosomes
    alone = [int(item.probabilities.argmax()) for item in items]
    return PredictedCell(
        karyotype.name,
        karyotype.segmentation,
        np.array([CLASS_INDEX[item.label] for item in items], np.int64),
        np.array(alone, np.int64) if is_assigned else None,
        np.array([item.needs_review for item in items], bool),
    )
