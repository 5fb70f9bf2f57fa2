"""``chromozoo benchmark``: measures weights on a data set and adds the row to the leaderboard."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.benchmark.measure import DEFAULT_SCORE, measure, measure_segmenter, trained_on
from chromozoo.benchmark.publish import RESULTS, SEGMENTATION_RESULTS, publish
from chromozoo.benchmark.publishing import destination
from chromozoo.data.catalogue import DATASETS, dataset_info, training_sets
from chromozoo.errors import ChromozooError

if TYPE_CHECKING:
    pass

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
        help="segmenters: folder for an image of each image, with what was missed in red",
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
    from chromozoo.models.registry import model_info

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
    if dataset not in training_sets(task):
        raise ChromozooError(
            f"{name} is a model for {task}, {dataset} is not a data set for it; use "
            f"{', '.join(training_sets(task))}"
        )
    shipped = RESULTS if task == "classification" else SEGMENTATION_RESULTS
    shared = {"root": arguments.root, "device": arguments.device, "note": arguments.note}
    if task == "classification":
        from chromozoo.benchmark.tables.classification import append_row

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
        from chromozoo.benchmark.tables.segmentation import append_row
        from chromozoo.metrics.segmentation import METRICS

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
    from chromozoo.benchmark import measure_karyotyping, publish_karyotyping
    from chromozoo.benchmark.tables import karyotyping

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
    measured = [
        (row[part], row[f"{part}_weights"], row[f"{part}_sha256"])
        for part in ("segmenter", "classifier")
    ]
    to = destination(arguments.results, publish_karyotyping.RESULTS, measured)
    if to.path is not None:
        karyotyping.append_row(to.path, row)
    for cell in report.cells:
        print(f"{cell.name:>6}: {cell.found} of {cell.true} found, {cell.wrong} wrong")
    _show(row, measure_karyotyping.SHOWN)
    print(to.say())
    if to.published:
        publish_karyotyping.publish(row)
    return 0


def _show(row: dict[str, Any], figures: tuple[str, ...]) -> None:
    for figure in figures:
        if row.get(figure) is not None:
            low, high = row.get(f"{figure}_low"), row.get(f"{figure}_high")
            print(f"{figure:<22} {row[figure]:.4f}  [{low}, {high}]")


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
