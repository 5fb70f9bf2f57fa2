"""``chromozoo benchmark``: evaluate weights on a data set."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from chromozoo.cli.options import add_device_option
from chromozoo.cli.output import add_output_option, check_output, write_rows
from chromozoo.data.catalogue import DATASETS, dataset_info, training_sets
from chromozoo.errors import ChromozooError

DEFAULT_DATASETS = {"classification": "bioimlab", "segmentation": "bioimlab-segmentation"}
CLASSIFIER_METRICS = (
    "accuracy",
    "assigned_accuracy",
    "cells_without_error",
    "ece",
    "polarity_accuracy",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="see `chromozoo models`; `all`: all models with weights of the data set",
    )
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--dataset",
        choices=sorted(DATASETS),
        help="default: bioimlab for classifiers, bioimlab-segmentation for segmenters",
    )
    parser.add_argument("--stage", default="test", choices=("train", "val", "test"))
    parser.add_argument(
        "--fold", type=int, help="evaluate this fold of the grouped cross-validation"
    )
    parser.add_argument("--root", help="folder of the data (default: CHROMOZOO_DATA, data/)")
    add_device_option(parser)
    parser.add_argument("--note", default="", help="text for the column `note` of the row")
    parser.add_argument(
        "--score",
        type=float,
        help="segmenters: minimum score of a detection (default: that of `segment`; with "
        "--classifier that of `karyotype`)",
    )
    parser.add_argument(
        "--classifier",
        metavar="MODEL",
        help="segmenters: classify the detections with this classifier and evaluate karyotyping",
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
        help="with --classifier: classify the chromosomes of a cell together, or each alone "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--overlays",
        type=Path,
        metavar="DIR",
        help="segmenters: folder for an overlay of each image, missed chromosomes in red",
    )
    add_output_option(parser)


def run(arguments: argparse.Namespace) -> int:
    from chromozoo.benchmark.measure import models_trained_on
    from chromozoo.models.registry import list_models, model_info

    if arguments.models == ["all"]:
        dataset = arguments.dataset or DEFAULT_DATASETS["classification"]
        arguments.models = models_trained_on(dataset)
        arguments.weights = dataset_info(dataset).tag
    check_output(arguments.output)
    if len(arguments.models) > 1:
        return _run_in_processes(arguments)
    (name,) = arguments.models
    task = model_info(name).task
    dataset = arguments.dataset or DEFAULT_DATASETS[task]
    if arguments.classifier is not None:
        if task != "segmentation":
            raise ChromozooError(
                f"{name}: --classifier needs a segmenter; use one of "
                f"{', '.join(list_models(task='segmentation'))}"
            )
        return _run_karyotyping(name, dataset, arguments)
    if dataset not in training_sets(task):
        raise ChromozooError(
            f"{name} is a model for {task}, {dataset} is not a data set for it; use "
            f"{', '.join(training_sets(task))}"
        )
    if task == "segmentation" and arguments.fold is not None:
        raise ChromozooError(f"--fold {arguments.fold}: {dataset} has no folds; leave --fold out")
    return _run_single_model(name, task, dataset, arguments)


def _run_single_model(name: str, task: str, dataset: str, arguments: argparse.Namespace) -> int:
    from chromozoo.benchmark import measure
    from chromozoo.benchmark.publish import KINDS
    from chromozoo.metrics.segmentation import METRICS

    model = measure.load_model_with_entry(name, arguments.weights, arguments.device)
    shared = {"root": arguments.root, "note": arguments.note}
    if task == "classification":
        row = measure.evaluate_classifier(
            model, dataset, arguments.stage, fold=arguments.fold, **shared
        )[1]
    else:
        row = measure.evaluate_segmenter(
            model,
            dataset,
            arguments.stage,
            score=measure.DEFAULT_SCORE if arguments.score is None else arguments.score,
            overlays=arguments.overlays,
            **shared,
        )
    _print_metrics(row, CLASSIFIER_METRICS if task == "classification" else METRICS)
    write_rows(KINDS[task], [row], arguments.output)
    return 0


def _run_karyotyping(name: str, dataset: str, arguments: argparse.Namespace) -> int:
    from chromozoo.benchmark import measure_karyotyping
    from chromozoo.benchmark.publish import KINDS

    row, report = measure_karyotyping.measure(
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
    for cell in report.cells:
        print(f"{cell.name:>6}: {cell.found} of {cell.true} found, {cell.wrong} wrong")
    _print_metrics(row, measure_karyotyping.SHOWN)
    write_rows(KINDS["karyotyping"], [row], arguments.output)
    return 0


def _print_metrics(row: dict[str, Any], metrics: tuple[str, ...]) -> None:
    for metric in metrics:
        if row.get(metric) is not None:
            low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
            print(f"{metric:<22} {row[metric]:.4f}  [{low}, {high}]")


def _run_in_processes(arguments: argparse.Namespace) -> int:
    """Evaluate each model in a separate process, so that a failure affects one model alone."""
    status = 0
    keys = ["weights", "dataset", "stage", "fold", "root", "device", "note", "score", "output"]
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
