"""``chromozoo classify``: names the chromosomes in images."""

import argparse
import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo import __version__
from chromozoo.batch import run as run_batch
from chromozoo.batch.images import INTENDED_USE, digest, encodable, find_images, shown
from chromozoo.batch.results import Results, read_json
from chromozoo.batch.signals import Watch, watching
from chromozoo.batch.worker import Message, Report, failure_of
from chromozoo.batch.worker_pool import Job, WorkerPool
from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.cli import options as options_cli
from chromozoo.errors import ChromozooError, ImageError
from chromozoo.files import remove_file, replace_file, write_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from chromozoo.images.reading import ImagePage
    from chromozoo.karyotype.predictions import Predictions
    from chromozoo.structures.prediction import Prediction

TASK = "chromozoo.cli.classify:ClassifyTask"
FORMAT = 3
JSON, TABLE, KARYOGRAM = "predictions.json", "predictions.csv", "karyogram.png"
# The step after the images have been read one by one, which all share.
NAMING = "naming"
# Of so many images at once the naming may take as long as the reading of one.
SHARE = 50
# A human should look at whatever the model is less sure of than this.
DOUBT_BELOW = 0.9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=Path, help="images of one chromosome each, or folders of them"
    )
    parser.add_argument("--model", default="chrnet4", help="see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--as-cell",
        action="store_true",
        help="the images are all chromosomes of one cell: name them together, draw a karyogram",
    )
    parser.add_argument(
        "--error-rate",
        type=float,
        metavar="SHARE",
        help="list the classes that each may be, so that this share of the lists lacks the right "
        "one: 0.1, 0.05, 0.02, 0.01 or 0.005, on images like those that the weights know",
    )
    parser.add_argument(
        "--labels", type=Path, help="CSV with columns file,label: tells how many are right"
    )
    options_cli.add_arguments(parser, many=False)


def run(arguments: argparse.Namespace) -> int:
    options_cli.check_arguments(arguments)
    options_cli.check_model(arguments.model, arguments.weights, "classification")
    if arguments.error_rate is not None:
        _check_error_rate(arguments)
    truth = _read_labels(arguments.labels) if arguments.labels else {}
    with watching() as watch:
        found = find_images(arguments.paths)
        results = Results.open("classify", "", arguments.output, arguments.paths)
        replaced = results.take_file(JSON, found.files)
        for name in (TABLE, KARYOGRAM):
            results.take_file(name, found.files)
        settings = options_cli.settings_of(
            arguments, results.folder, "model", "weights", "as_cell", "error_rate"
        )
        settings["title"] = shown(run_batch.title_of(arguments.paths))
        faults = list(found.faults.values())
        files = [str(file) for file in found.files]
        _work(settings, files, faults, arguments.timeout, results, watch)
        document = read_json(results.folder / JSON)
        _print_table(document, truth)
        written = [JSON, TABLE, *([KARYOGRAM] if document["cell"] else [])]
        failed = [item["error"] for item in document["chromosomes"] if item.get("error")]
        print(
            f"\n{INTENDED_USE}\nWritten: "
            + ", ".join(shown(results.folder / name) for name in written)
        )
        notes = [replaced] if replaced else []
        for line in (*notes, *found.notes(), *results.notes):
            print(line)
        if failed:
            print(f"{len(failed)} of {len(document['chromosomes'])} images failed:")
            for message in failed:
                print(f"  {message}")
        return 1 if failed else 0


def _check_error_rate(arguments: argparse.Namespace) -> None:
    """Whether the weights know sets with this error rate.

    Raises:
        ChromozooError: They do not; the message names weights that do.
    """
    from chromozoo.models.registry import get_weight, is_path
    from chromozoo.models.weights.index import weights_entries

    kind, rate = "cell" if arguments.as_cell else "alone", f"{arguments.error_rate:g}"
    if is_path(arguments.weights):
        return  # the file is read by the process that holds the model
    entry = get_weight(arguments.model, arguments.weights)
    known = entry.conformal.get(kind, {})
    if rate in known:
        return
    words = f"{entry.model} with the weights {entry.tag} knows no sets with an error rate of {rate}"
    others = [
        f"--weights {tag}"
        for tag, other in weights_entries(entry.model).items()
        if rate in other.conformal.get(kind, {})
    ]
    if known:
        words += f"; it knows {', '.join(known)}"
    elif others:
        words += f"; give {' or '.join(others)}, which know them"
    else:
        words += (
            "; take karyoset or chromozoo_small, or find them with `chromozoo doubt "
            f"{entry.model}`, which needs the data of the training"
        )
    raise ChromozooError(words)


def _work(
    settings: Mapping[str, Any],
    files: Sequence[str],
    faults: Sequence[str],
    timeout: float,
    results: Results,
    watch: Watch,
) -> None:
    """Lets a process name all of them and write the results.

    One that an image takes too long in, or takes down with it, is followed by another, which
    leaves that image out.

    Raises:
        ChromozooError: The model cannot be loaded, all images together are too much, or the results
            cannot be written.
        Stopped: The run was told to stop; nothing was written.
    """
    failed: dict[str, str] = {}
    words = {"files": list(files), "faults": list(faults), "failed": failed, "careful": False}
    whole: list[Message] = []

    def tell(job: Job, message: Message) -> None:
        if "failed" not in message:
            return
        if message["failed"].isdecimal():
            failed[message["failed"]] = message["message"]
        elif message["failed"] == NAMING and not words["careful"] and "final" not in message:
            # One of the images may be to blame: the next process prepares each by itself.
            words["careful"] = True
        else:
            whole.append(message)

    for _ in range(2):
        careful = words["careful"]
        job = Job("classify", shown(settings["title"]), words)
        crew = WorkerPool(TASK, settings, processes=1, timeout=timeout)
        try:
            with run_batch.progress(1), crew:
                crew.about()
                crew.work([job], tell, watch)
        finally:
            for process in crew.ended:
                results.remove_unfinished(process)
        if words["careful"] == careful:
            break
    if whole:
        raise ChromozooError(whole[0]["message"])


def _read_labels(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            labels = {row["file"]: row["label"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: no CSV with columns file and label ({error})") from error
    if wrong := sorted(set(labels.values()) - set(CLASSES)):
        raise ImageError(f"{path}: unknown labels {', '.join(wrong)}; use 1 to 22, X, Y")
    return labels


def needs_review(item: "Prediction") -> bool:
    """Whether a human should look at this chromosome."""
    return item.supernumerary or item.probability < DOUBT_BELOW


def _remark(item: Mapping[str, Any]) -> str:
    if item.get("error"):
        return "could not be read"
    ranked = sorted(range(len(CLASSES)), key=lambda k: -item["probabilities"][k])
    best, second = (CLASSES[k] for k in ranked[:2])
    words = []
    if item["supernumerary"]:
        words.append("more than a normal cell has")
    if len(item.get("classes", ())) > 1:
        words.append(f"one of {', '.join(item['classes'])}")
    if best != item["class"]:
        words.append(f"alone it looks like {best} ({item['probabilities'][ranked[0]]:.0%})")
    elif item["probability"] < DOUBT_BELOW:
        words.append(f"or {second} ({item['probabilities'][ranked[1]]:.0%})")
    return ", ".join(words)


def _print_table(document: Mapping[str, Any], truth: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    cell, items = document["cell"], document["chromosomes"]
    table = Table(title=f"Karyotype {cell['iscn']}" if cell else None)
    table.add_column("image")
    table.add_column("class", justify="right")
    table.add_column("probability", justify="right")
    table.add_column("look again", overflow="fold")
    by_class = sorted(items, key=lambda item: CLASS_INDEX.get(item.get("class"), len(CLASSES)))
    for item in by_class if cell else items:
        name = escape(Path(item["image"]).name)
        if item.get("error"):
            table.add_row(name, "", "", _remark(item), style="red")
        else:
            cells = (name, item["class"], f"{item['probability']:.1%}", _remark(item))
            table.add_row(*cells, style="yellow" if item["needs_review"] else "")
    Console().print(table)
    readable = [item for item in items if not item.get("error")]
    print(
        f"{len(readable)} chromosomes, {sum(item['needs_review'] for item in readable)} to look at again"
        + (f"; karyotype {cell['iscn']}" if cell else "")
    )
    if document["alarms"]:
        print("These names cannot be trusted:")
        for alarm in document["alarms"]:
            print(f"  {alarm}")
    known = [item for item in readable if Path(item["image"]).name in truth]
    if known:
        right = sum(item["class"] == truth[Path(item["image"]).name] for item in known)
        print(f"{right} of {len(known)} agree with the labels given")


@dataclasses.dataclass
class _Item:
    """One image, and what became of it.

    Attributes:
        image: As :func:`chromozoo.images.reading.list_images` gave it; None where that failed.
        name: How results and messages call it.
        about: What the JSON says of it besides: the hash of its content, and which part it is.
        prediction: What the model says; None where it was not asked.
        error: Why it could not be named.
        details: Of an error that nobody expected.
    """

    image: "Path | ImagePage | None"
    name: str
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    prediction: "Prediction | None" = None
    error: str | None = None
    details: str | None = None


class ClassifyTask:
    """Names all images of a job together and writes the results."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from chromozoo.models.registry import get_model

        self.settings = settings
        self.folder = Path(settings["folder"])
        self.model: Any = get_model(settings["model"], weights=settings["weights"])

    def about(self) -> Message:
        """Nothing: all is done again each time."""
        return {}

    def work(self, job: Message, report: Report) -> None:
        """Reads the images one by one, names them, and writes.

        The steps are the numbers of the files, and :data:`NAMING`.
        """
        items: list[_Item] = []
        for number, file in enumerate(map(Path, job["files"])):
            if (message := job["failed"].get(str(number))) is not None:
                items.append(_Item(None, shown(file), error=message))
            else:
                report({"step": str(number), "image": shown(file), "more": True, "times": 1})
                items += self._read(file, job["careful"])
        for message in job["faults"]:
            items.append(_Item(None, message.partition(": ")[0], error=message))
        readable = [item for item in items if item.error is None]
        together = f"{self.settings['title']}: all {len(readable)} images together"
        times = 1 + len(readable) // SHARE
        report({"step": NAMING, "image": together, "more": False, "times": times})
        try:
            found = self._named(readable)
            self._write(found, items)
        except BaseException as error:
            failure = failure_of(error, together, "the lines above")
            if "details" in failure:
                print(failure["details"])
            report({"failed": NAMING, **failure, "final": True})

    def _read(self, file: Path, careful: bool) -> list[_Item]:
        """The images of a file, those that cannot be read with the reason.

        Args:
            file: Of the images.
            careful: Also do by itself what the model does with each of them, which is done again
                with all of them: what ends the process is then known by its name.
        """
        from chromozoo.images.reading import list_images, read_grey

        try:
            content = digest(file)
            images = list_images(file, **self.settings["reading"])
        except BaseException as error:
            return [self._failed(None, shown(file), error)]
        items = []
        for image in images:
            part = None if isinstance(image, Path) else image.suffix
            item = _Item(image, shown(image), {"sha256": content, "part": part})
            try:
                if careful:
                    self.model.transforms(image, item.name)
                else:
                    read_grey(image, item.name)
            except BaseException as error:
                item = self._failed(image, item.name, error)
            items.append(item)
        return items

    def _failed(self, image: "Path | ImagePage | None", name: str, error: BaseException) -> _Item:
        failure = failure_of(error, name, f"its details in {JSON}")
        return _Item(image, name, error=failure["message"], details=failure.get("details"))

    def _named(self, items: Sequence[_Item]) -> "Predictions":
        found: Predictions = self.model.classify(
            [item.image for item in items],
            as_cell=self.settings["as_cell"],
            error_rate=self.settings["error_rate"],
            on_error="report",
        )
        for item, prediction in zip(items, found, strict=True):
            item.prediction = prediction
            item.error = None if prediction.error is None else encodable(prediction.error)
        return found

    def _write(self, found: "Predictions", items: Sequence[_Item]) -> None:
        """Writes karyogram, table and, last, JSON; an earlier JSON goes first."""
        remove_file(self.folder / JSON)
        if found.cell is not None:
            self._write_karyogram(found, items)
        else:
            remove_file(self.folder / KARYOGRAM)
        self._write_table(found, items)
        document = self._document(found, items)
        replace_file(self.folder / JSON, json.dumps(document, indent=1).encode())

    def _document(self, found: "Predictions", items: Sequence[_Item]) -> dict[str, Any]:
        from chromozoo.batch.identity import weights_of

        entry, cell = self.model.weights_entry, found.cell
        return {
            "format": FORMAT,
            "chromozoo": __version__,
            "intended_use": INTENDED_USE,
            "model": entry.model if entry else type(self.model).__name__,
            "weights": {"file": entry.file, "sha256": entry.sha256} if entry else None,
            "identity": {
                "models": [weights_of(self.model, self.settings["weights"])],
                "options": {
                    "as_cell": self.settings["as_cell"],
                    "error_rate": self.settings["error_rate"],
                    **self.settings["reading"],
                },
                "software": {"chromozoo": __version__, "format": FORMAT},
            },
            "classes": list(CLASSES),
            "alarms": list(found.alarms),
            "cell": None
            if cell is None
            else {
                "iscn": cell.iscn,
                "abnormal": cell.abnormal,
                "gains": list(cell.gains),
                "losses": list(cell.losses),
            },
            "chromosomes": [_described(item) for item in items],
        }

    def _write_table(self, found: "Predictions", items: Sequence[_Item]) -> None:
        columns = ["image", "class", "probability", "needs_review"]
        columns += ["classes"] if any(item.classes is not None for item in found) else []
        columns += ["alarms"] if found.alarms else []
        table = io.StringIO()
        writer = csv.DictWriter(table, [*columns, "error"], restval="", lineterminator="\n")
        writer.writeheader()
        for item in items:
            row = {"image": item.name, "error": item.error or ""}
            if (named := item.prediction) is not None and not item.error:
                row |= {
                    "class": named.label,
                    "probability": f"{named.probability:.4f}",
                    "needs_review": str(needs_review(named)).lower(),
                }
                row |= {"classes": " ".join(named.classes)} if named.classes is not None else {}
                row |= {"alarms": "; ".join(found.alarms)} if found.alarms else {}
            writer.writerow(row)
        replace_file(self.folder / TABLE, table.getvalue().encode())

    def _write_karyogram(self, found: "Predictions", items: Sequence[_Item]) -> None:
        from chromozoo.visualization.karyogram import KaryogramEntry, draw_karyogram

        assert found.cell is not None
        # Whatever the model looks at, a karyogram shows upright chromosomes.
        upright = dataclasses.replace(self.model.transforms, views=("upright",))
        entries = [
            KaryogramEntry(
                image=_p_arm_up(upright.prepare(item.image, item.name), item.prediction).astype(
                    "float32"
                )
                / 255,
                label=item.prediction.label,
                probability=item.prediction.probability,
                needs_review=needs_review(item.prediction),
                name=Path(item.name).name,
            )
            for item in items
            if item.prediction is not None and not item.error
        ]
        entry = self.model.weights_entry
        source = "own weights"
        if entry:
            source = f"{entry.model}, weights {entry.tag} {entry.sha256[:8]}"
        image = draw_karyogram(
            entries,
            title=self.settings["title"],
            iscn=found.cell.iscn,
            alarms=found.alarms,
            footer=f"ChromoZoo {__version__}: {source}. Polarity (p arm up or down) "
            + ("as the model tells it." if self.model.polarity else "not determined."),
        )
        write_image(self.folder / KARYOGRAM, image)


def _described(item: _Item) -> dict[str, Any]:
    """One chromosome as the JSON has it."""
    named = item.prediction
    if named is None or item.error:
        details = {"details": item.details} if item.details else {}
        return {"image": item.name, "error": item.error, **details}
    return {
        "image": item.name,
        **item.about,
        "class": named.label,
        "probability": round(named.probability, 6),
        "probabilities": [round(float(p), 6) for p in named.probabilities],
        "needs_review": needs_review(named),
        "supernumerary": named.supernumerary,
        **({} if named.classes is None else {"classes": list(named.classes)}),
    }


def _p_arm_up(image: "NDArray[np.uint8]", item: "Prediction") -> "NDArray[np.uint8]":
    """The image, turned by half where the model sees the p arm of this class below."""
    if item.p_arm_up is None or item.p_arm_up[CLASS_INDEX[item.label]] >= 0.5:
        return image
    return image[::-1, ::-1]
