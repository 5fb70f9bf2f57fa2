"""``chromozoo classify``: classes of single-chromosome images."""

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chromozoo.batch.classify_run import (
    JSON,
    KARYOGRAM,
    MIN_CERTAIN_PROBABILITY,
    TABLE,
    run_classification,
)
from chromozoo.batch.images import FoundImages, find_images, printable_path
from chromozoo.batch.results import ResultsFolder, read_json
from chromozoo.batch.run import first_path_name
from chromozoo.batch.signals import watch_signals
from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.cli.options import (
    add_image_options,
    check_image_options,
    check_model,
    task_settings,
)
from chromozoo.errors import ChromozooError, ImageError
from chromozoo.files import DISCLAIMER

TASK = "chromozoo.batch.classify_task:ClassifyTask"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=Path, help="images of one chromosome each, or folders of them"
    )
    parser.add_argument(
        "--model", default="chrnet4", help="see `chromozoo models` (default: %(default)s)"
    )
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--as-cell",
        action="store_true",
        help="the images are all chromosomes of one cell: classify them together and draw a "
        "karyogram",
    )
    parser.add_argument(
        "--error-rate",
        type=float,
        metavar="RATE",
        help="add a prediction set to each image; the sets miss the true class at this rate on "
        "images like those of the calibration: 0.1, 0.05, 0.02, 0.01 or 0.005",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="CSV with the columns file,label; the number of correct predictions is printed",
    )
    add_image_options(parser, results_per_image=False)


def run(arguments: argparse.Namespace) -> int:
    check_image_options(arguments)
    check_model(arguments.model, arguments.weights, "classification")
    if arguments.error_rate is not None:
        _check_error_rate(arguments)
    labels = _read_labels(arguments.labels) if arguments.labels else {}
    with watch_signals() as watch:
        images = find_images(arguments.paths)
        results = ResultsFolder.open("classify", "", arguments.output, arguments.paths)
        replaced = results.claim_file(JSON, images.files)
        for name in (TABLE, KARYOGRAM):
            results.claim_file(name, images.files)
        settings = task_settings(
            arguments, results.folder, "model", "weights", "as_cell", "error_rate"
        )
        settings["title"] = printable_path(first_path_name(arguments.paths))
        files = [str(file) for file in images.files]
        path_errors = list(images.errors.values())
        run_classification(TASK, settings, files, path_errors, arguments.timeout, results, watch)
        document = read_json(results.folder / JSON)
        _print_table(document, labels)
        notes = [replaced] if replaced else []
        errors = [item["error"] for item in document["chromosomes"] if item.get("error")]
        _print_summary(document, images, results, notes, errors)
        return 1 if errors else 0


def _check_error_rate(arguments: argparse.Namespace) -> None:
    """Check that the weights have prediction sets with the given error rate.

    Raises:
        ChromozooError: They have none; the message names weights that have them.
    """
    from chromozoo.models.registry import get_weight, is_path
    from chromozoo.models.weights.index import weights_entries

    kind, rate = "cell" if arguments.as_cell else "alone", f"{arguments.error_rate:g}"
    if is_path(arguments.weights):
        return  # the worker process reads the file
    entry = get_weight(arguments.model, arguments.weights)
    calibrated = entry.conformal.get(kind, {})
    if rate in calibrated:
        return
    others = [
        f"--weights {tag}"
        for tag, other in weights_entries(entry.model).items()
        if rate in other.conformal.get(kind, {})
    ]
    if calibrated:
        remedy = f"give one of {', '.join(calibrated)}"
    elif others:
        remedy = f"give {' or '.join(others)}"
    else:
        remedy = (
            "use karyoset or chromozoo_small, or calibrate the weights with `chromozoo calibrate "
            f"{entry.model}`, which needs the training data"
        )
    raise ChromozooError(
        f"{entry.model} with the weights {entry.tag} has no prediction sets with an error rate of "
        f"{rate}; {remedy}"
    )


def _read_labels(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            labels = {row["file"]: row["label"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise ImageError(
            f"{path}: cannot be read as a CSV file ({error}); give one with the columns file,label"
        ) from error
    if unknown := sorted(set(labels.values()) - set(CLASSES)):
        raise ImageError(f"{path}: unknown labels {', '.join(unknown)}; use 1 to 22, X, Y")
    return labels


def _print_table(document: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    cell, items = document["cell"], document["chromosomes"]
    table = Table(title=f"Karyotype {cell['iscn']}" if cell else None)
    table.add_column("image")
    table.add_column("class", justify="right")
    table.add_column("probability", justify="right")
    table.add_column("review", overflow="fold")
    by_class = sorted(items, key=lambda item: CLASS_INDEX.get(item.get("class"), len(CLASSES)))
    for item in by_class if cell else items:
        name = escape(Path(item["image"]).name)
        if item.get("error"):
            table.add_row(name, "", "", _review_remark(item), style="red")
        else:
            cells = (name, item["class"], f"{item['probability']:.1%}", _review_remark(item))
            table.add_row(*cells, style="yellow" if item["needs_review"] else "")
    Console().print(table)
    readable = [item for item in items if not item.get("error")]
    n_review = sum(item["needs_review"] for item in readable)
    iscn = f"; karyotype {cell['iscn']}" if cell else ""
    print(f"{len(readable)} chromosomes, {n_review} need review{iscn}")
    if document["alarms"]:
        print("Unreliable predictions:")
        for alarm in document["alarms"]:
            print(f"  {alarm}")
    labelled = [item for item in readable if Path(item["image"]).name in labels]
    if labelled:
        n_correct = sum(item["class"] == labels[Path(item["image"]).name] for item in labelled)
        print(f"{n_correct} of {len(labelled)} agree with the labels")


def _review_remark(item: Mapping[str, Any]) -> str:
    """Return the alternatives of an uncertain class, or the reason for a review."""
    if item.get("error"):
        return "could not be read"
    ranked = sorted(range(len(CLASSES)), key=lambda k: -item["probabilities"][k])
    best, second = (CLASSES[k] for k in ranked[:2])
    remarks = []
    if item["supernumerary"]:
        remarks.append("supernumerary")
    if len(item.get("classes", ())) > 1:
        remarks.append(f"one of {', '.join(item['classes'])}")
    if best != item["class"]:
        remarks.append(f"{best} if classified alone ({item['probabilities'][ranked[0]]:.0%})")
    elif item["probability"] < MIN_CERTAIN_PROBABILITY:
        remarks.append(f"or {second} ({item['probabilities'][ranked[1]]:.0%})")
    return ", ".join(remarks)


def _print_summary(
    document: Mapping[str, Any],
    images: FoundImages,
    results: ResultsFolder,
    notes: list[str],
    errors: list[str],
) -> None:
    written = [JSON, TABLE, *([KARYOGRAM] if document["cell"] else [])]
    paths = ", ".join(printable_path(results.folder / name) for name in written)
    print(f"\n{DISCLAIMER}\nWritten: {paths}")
    for line in (*notes, *images.describe_left_out(), *results.notes):
        print(line)
    if errors:
        print(f"{len(errors)} of {len(document['chromosomes'])} images failed:")
        for message in errors:
            print(f"  {message}")
