"""``chromozoo classify``: names the chromosomes in pictures."""

import argparse
import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo import __version__
from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.cli.pictures import INTENDED_USE, find_pictures, results_folder
from chromozoo.errors import ImageError
from chromozoo.files import replace_file, write_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from chromozoo.tasks.classification import ChromosomeClassifier, Prediction, Predictions

# A human should look at whatever the model is less sure of than this.
DOUBT_BELOW = 0.9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=Path, help="pictures of one chromosome each, or folders of them"
    )
    parser.add_argument("--model", default="chrnet4", help="see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--as-cell",
        action="store_true",
        help="the pictures are all chromosomes of one cell: name them together, draw a karyogram",
    )
    parser.add_argument(
        "--error-rate",
        type=float,
        metavar="SHARE",
        help="list the classes that each may be, so that this share of the lists lacks the right "
        "one: 0.1, 0.05, 0.02, 0.01 or 0.005, on pictures like those that the weights know",
    )
    parser.add_argument(
        "--labels", type=Path, help="CSV with columns file,label: tells how many are right"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the results (default: chromozoo-results/<name of the first path>)",
    )


def run(arguments: argparse.Namespace) -> int:
    files = find_pictures(arguments.paths)
    truth = _read_labels(arguments.labels) if arguments.labels else {}
    from chromozoo.registry import get_model

    model: Any = get_model(arguments.model, weights=arguments.weights)
    found = model.classify(
        files, as_cell=arguments.as_cell, error_rate=arguments.error_rate, on_error="report"
    )
    output = results_folder(arguments.output, arguments.paths)
    _print_table(found, truth)
    _write_json(output / "predictions.json", model, found)
    _write_csv(output / "predictions.csv", found)
    written = ["predictions.json", "predictions.csv"]
    if arguments.as_cell and found.cell is not None:
        _write_karyogram(output / "karyogram.png", model, files, found, arguments.paths[0])
        written.append("karyogram.png")
    failed = [item for item in found if item.error]
    print(f"\n{INTENDED_USE}\nWritten: " + ", ".join(str(output / name) for name in written))
    if failed:
        print(f"{len(failed)} of {len(found)} pictures could not be read:")
        for item in failed:
            print(f"  {item.error}")
    return 1 if failed else 0


def _read_labels(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            labels = {row["file"]: row["label"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: no CSV with columns file and label ({error})") from error
    if wrong := sorted(set(labels.values()) - set(CLASSES)):
        raise ImageError(f"{path}: unknown labels {', '.join(wrong)}; use 1 to 22, X, Y")
    return labels


def doubtful(item: "Prediction") -> bool:
    """Whether a human should look at this chromosome."""
    return item.extra or item.probability < DOUBT_BELOW


def _remark(item: "Prediction") -> str:
    if item.error:
        return "could not be read"
    best = CLASSES[int(item.probabilities.argmax())]
    words = []
    if item.extra:
        words.append("more than a normal cell has")
    if item.classes is not None and len(item.classes) > 1:
        words.append(f"one of {', '.join(item.classes)}")
    if best != item.label:
        words.append(f"alone it looks like {best} ({item.probabilities.max():.0%})")
    elif item.probability < DOUBT_BELOW:
        second = CLASSES[int(item.probabilities.argsort()[-2])]
        words.append(f"or {second} ({item.probabilities[CLASS_INDEX[second]]:.0%})")
    return ", ".join(words)


def _print_table(found: "Predictions", truth: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Karyotype {found.cell.iscn}" if found.cell else None)
    table.add_column("picture")
    table.add_column("class", justify="right")
    table.add_column("probability", justify="right")
    table.add_column("look again", overflow="fold")
    by_class = sorted(found, key=lambda item: CLASS_INDEX.get(item.label, len(CLASSES)))
    for item in by_class if found.cell else found:
        mark = _remark(item)
        style = "red" if item.error else "yellow" if doubtful(item) else ""
        figure = "" if item.error else f"{item.probability:.1%}"
        table.add_row(Path(item.name).name, item.label, figure, mark, style=style)
    Console().print(table)
    readable = [item for item in found if not item.error]
    print(
        f"{len(readable)} chromosomes, {sum(map(doubtful, readable))} to look at again"
        + (f"; karyotype {found.cell.iscn}" if found.cell else "")
    )
    known = [item for item in readable if Path(item.name).name in truth]
    if known:
        right = sum(item.label == truth[Path(item.name).name] for item in known)
        print(f"{right} of {len(known)} agree with the labels given")


def _write_json(path: Path, model: "ChromosomeClassifier", found: "Predictions") -> None:
    entry = model.weights_entry
    cell = found.cell
    document = {
        "chromozoo": __version__,
        "intended_use": INTENDED_USE,
        "model": entry.model if entry else type(model).__name__,
        "weights": {"file": entry.file, "sha256": entry.sha256} if entry else None,
        "classes": list(CLASSES),
        "cell": None
        if cell is None
        else {
            "iscn": cell.iscn,
            "abnormal": cell.abnormal,
            "gains": list(cell.gains),
            "losses": list(cell.losses),
        },
        "chromosomes": [
            {"image": item.name, "error": item.error}
            if item.error
            else {
                "image": item.name,
                "class": item.label,
                "probability": round(item.probability, 6),
                "probabilities": [round(float(p), 6) for p in item.probabilities],
                "review": doubtful(item),
                "extra": item.extra,
                **({} if item.classes is None else {"classes": list(item.classes)}),
            }
            for item in found
        ],
    }
    replace_file(path, json.dumps(document, indent=1).encode())


def _write_csv(path: Path, found: "Predictions") -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    with_sets = any(item.classes is not None for item in found)
    sets = ["classes"] if with_sets else []
    writer.writerow(["image", "class", "probability", "review", *sets, "error"])
    for item in found:
        row = ["", "", ""] if item.error else [item.label, f"{item.probability:.4f}"]
        review = [] if item.error else [str(doubtful(item)).lower()]
        listed = [" ".join(item.classes or ())] if with_sets else []
        writer.writerow([item.name, *row, *review, *listed, item.error or ""])
    replace_file(path, table.getvalue().encode())


def _write_karyogram(
    path: Path,
    model: "ChromosomeClassifier",
    files: list[Path],
    found: "Predictions",
    title: Path,
) -> None:
    from chromozoo.cells.karyogram import KaryogramEntry, draw_karyogram

    assert found.cell is not None
    # Whatever the model looks at, a karyogram shows upright chromosomes.
    upright = dataclasses.replace(model.transforms, views=("upright",))
    entries = [
        KaryogramEntry(
            image=_p_arm_up(upright.prepare(file), item).astype("float32") / 255,
            label=item.label,
            probability=item.probability,
            doubtful=doubtful(item),
            name=file.name,
        )
        for file, item in zip(files, found, strict=True)
        if not item.error
    ]
    entry = model.weights_entry
    source = f"{entry.model}, weights {entry.tag} {entry.sha256[:8]}" if entry else "own weights"
    picture = draw_karyogram(
        entries,
        title=title.resolve().name,
        iscn=found.cell.iscn,
        footer=f"ChromoZoo {__version__}: {source}. Polarity (p arm up or down) "
        + ("as the model tells it." if model.polarity else "not determined."),
    )
    write_picture(path, picture)


def _p_arm_up(picture: "NDArray[np.uint8]", item: "Prediction") -> "NDArray[np.uint8]":
    """The picture, turned by half where the model sees the p arm of this class below."""
    if item.p_arm_up is None or item.p_arm_up[CLASS_INDEX[item.label]] >= 0.5:
        return picture
    return picture[::-1, ::-1]
