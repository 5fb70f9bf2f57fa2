"""Task of ``chromozoo classify``: JSON, CSV table and karyogram of all images together."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chromozoo import __version__
from chromozoo.batch.classify_run import (
    CLASSIFY_STEP,
    JSON,
    KARYOGRAM,
    MIN_CERTAIN_PROBABILITY,
    TABLE,
)
from chromozoo.batch.identity import describe_weights, software_identity, weights_identity
from chromozoo.batch.images import escape_undecodable, file_sha256, printable_path
from chromozoo.batch.results import write_json
from chromozoo.batch.worker import Message, SendMessage, describe_failure
from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.files import DISCLAIMER, remove_file, replace_file, write_image
from chromozoo.images.reading import list_images, read_grey
from chromozoo.models.registry import get_model
from chromozoo.visualization.karyogram import KaryogramEntry, draw_karyogram

if TYPE_CHECKING:
    from chromozoo.images.reading import ImagePage
    from chromozoo.karyotype.predictions import Predictions
    from chromozoo.structures.prediction import Prediction

FORMAT = 3
# The classification of this number of images may take as long as the reading of one image.
IMAGES_PER_TIME_LIMIT = 50


@dataclasses.dataclass
class ClassifiedImage:
    """One image with its prediction or error.

    Attributes:
        image: Image from :func:`chromozoo.images.reading.list_images`; None if that failed.
        name: Printable path of the image.
        content: JSON keys of the image: ``sha256`` of the file and ``part``, its page or channel.
        prediction: Prediction of the model; None before the classification or after an error.
        error: Error message, or None.
        details: Traceback of an unexpected error, or None.
    """

    image: "Path | ImagePage | None"
    name: str
    content: dict[str, Any] = dataclasses.field(default_factory=dict)
    prediction: "Prediction | None" = None
    error: str | None = None
    details: str | None = None


class ClassifyTask:
    """Classifies all images of a job together and writes the results."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.folder = Path(settings["folder"])
        self.model: Any = get_model(settings["model"], weights=settings["weights"])

    def identity(self) -> Message:
        """Return an empty identity, because results are never reused."""
        return {}

    def run_job(self, job: Message, send: SendMessage) -> None:
        """Read the images one by one, classify them together and write the results.

        The steps are the indices of the files, and :data:`CLASSIFY_STEP`.
        """
        items: list[ClassifiedImage] = []
        for index, file in enumerate(map(Path, job["files"])):
            name = printable_path(file)
            if (message := job["image_errors"].get(str(index))) is not None:
                items.append(ClassifiedImage(None, name, error=message))
            else:
                step = {"step": str(index), "image": name, "more_follow": True, "time_factor": 1}
                send(step)
                items += self._read_file(file, job["prepare_each"])
        for message in job["path_errors"]:
            items.append(ClassifiedImage(None, message.partition(": ")[0], error=message))
        readable = [item for item in items if item.error is None]
        all_images = f"{self.settings['title']}: all {len(readable)} images together"
        time_factor = 1 + len(readable) // IMAGES_PER_TIME_LIMIT
        step = {"step": CLASSIFY_STEP, "image": all_images, "more_follow": False}
        send({**step, "time_factor": time_factor})
        try:
            self._write_results(self._classify(readable), items)
        except BaseException as error:
            failure = describe_failure(error, all_images, "the lines above")
            if "details" in failure:
                print(failure["details"])
            send({"failed": CLASSIFY_STEP, **failure, "final": True})

    def _read_file(self, file: Path, prepare_each: bool) -> list[ClassifiedImage]:
        """Check the images of a file; unreadable ones get an error message.

        Args:
            file: Image file.
            prepare_each: Also run the preprocessing of the model on each image, which the model
                repeats on all of them: if it crashes the process, the image is known.
        """
        try:
            sha256 = file_sha256(file)
            images = list_images(file, **self.settings["reading"])
        except BaseException as error:
            return [_failed_image(None, printable_path(file), error)]
        items = []
        for image in images:
            part = None if isinstance(image, Path) else image.suffix
            name = printable_path(image)
            item = ClassifiedImage(image, name, {"sha256": sha256, "part": part})
            try:
                if prepare_each:
                    self.model.transforms(image, name)
                else:
                    read_grey(image, name)
            except BaseException as error:
                item = _failed_image(image, name, error)
            items.append(item)
        return items

    def _classify(self, items: Sequence[ClassifiedImage]) -> "Predictions":
        predictions: Predictions = self.model.classify(
            [item.image for item in items],
            as_cell=self.settings["as_cell"],
            error_rate=self.settings["error_rate"],
            on_error="report",
        )
        for item, prediction in zip(items, predictions, strict=True):
            item.prediction = prediction
            if prediction.error is not None:
                item.error = escape_undecodable(prediction.error)
        return predictions

    def _write_results(self, predictions: "Predictions", items: Sequence[ClassifiedImage]) -> None:
        """Write karyogram, table and, last, JSON; an earlier JSON is removed first."""
        remove_file(self.folder / JSON)
        if predictions.cell is not None:
            self._write_karyogram(predictions, items)
        else:
            remove_file(self.folder / KARYOGRAM)
        self._write_table(predictions, items)
        write_json(self.folder / JSON, self._to_document(predictions, items))

    def _to_document(
        self, predictions: "Predictions", items: Sequence[ClassifiedImage]
    ) -> dict[str, Any]:
        cell = predictions.cell
        return {
            "format": FORMAT,
            "chromozoo": __version__,
            "intended_use": DISCLAIMER,
            **describe_weights(self.model),
            "identity": {
                "models": [weights_identity(self.model, self.settings["weights"])],
                "options": {
                    "as_cell": self.settings["as_cell"],
                    "error_rate": self.settings["error_rate"],
                    **self.settings["reading"],
                },
                "software": software_identity(FORMAT),
            },
            "classes": list(CLASSES),
            "alarms": list(predictions.alarms),
            "cell": None
            if cell is None
            else {
                "iscn": cell.iscn,
                "abnormal": cell.abnormal,
                "gains": list(cell.gains),
                "losses": list(cell.losses),
            },
            "chromosomes": [_describe_chromosome(item) for item in items],
        }

    def _write_table(self, predictions: "Predictions", items: Sequence[ClassifiedImage]) -> None:
        columns = ["image", "class", "probability", "needs_review"]
        columns += ["classes"] if any(item.classes is not None for item in predictions) else []
        columns += ["alarms"] if predictions.alarms else []
        table = io.StringIO()
        writer = csv.DictWriter(table, [*columns, "error"], restval="", lineterminator="\n")
        writer.writeheader()
        for item in items:
            row = {"image": item.name, "error": item.error or ""}
            prediction = item.prediction
            if prediction is not None and not item.error:
                row |= {
                    "class": prediction.label,
                    "probability": f"{prediction.probability:.4f}",
                    "needs_review": str(needs_review(prediction)).lower(),
                }
                if prediction.classes is not None:
                    row |= {"classes": " ".join(prediction.classes)}
                if predictions.alarms:
                    row |= {"alarms": "; ".join(predictions.alarms)}
            writer.writerow(row)
        replace_file(self.folder / TABLE, table.getvalue().encode())

    def _write_karyogram(
        self, predictions: "Predictions", items: Sequence[ClassifiedImage]
    ) -> None:
        assert predictions.cell is not None
        # Karyograms show upright chromosomes, whatever views the model uses.
        upright = dataclasses.replace(self.model.transforms, views=("upright",))
        entries = []
        for item in items:
            prediction = item.prediction
            if prediction is None or item.error:
                continue
            image = _turn_p_arm_up(upright.prepare(item.image, item.name), prediction)
            entries.append(
                KaryogramEntry(
                    image=image.astype("float32") / 255,
                    label=prediction.label,
                    probability=prediction.probability,
                    needs_review=needs_review(prediction),
                    name=Path(item.name).name,
                )
            )
        entry = self.model.weights_entry
        model = "own weights"
        if entry:
            model = f"{entry.model}, weights {entry.tag} {entry.sha256[:8]}"
        polarity = "predicted by the model" if self.model.polarity else "not determined"
        karyogram = draw_karyogram(
            entries,
            title=self.settings["title"],
            iscn=predictions.cell.iscn,
            alarms=predictions.alarms,
            footer=f"ChromoZoo {__version__}: {model}. Polarity (p arm up or down) {polarity}.",
        )
        write_image(self.folder / KARYOGRAM, karyogram)


def needs_review(prediction: "Prediction") -> bool:
    """Return whether a human should check the class of a chromosome."""
    return prediction.supernumerary or prediction.probability < MIN_CERTAIN_PROBABILITY


def _failed_image(
    image: "Path | ImagePage | None", name: str, error: BaseException
) -> ClassifiedImage:
    failure = describe_failure(error, name, f"its details in {JSON}")
    return ClassifiedImage(image, name, error=failure["message"], details=failure.get("details"))


def _describe_chromosome(item: ClassifiedImage) -> dict[str, Any]:
    """Return the JSON object of one image."""
    prediction = item.prediction
    if prediction is None or item.error:
        details = {"details": item.details} if item.details else {}
        return {"image": item.name, "error": item.error, **details}
    described = {
        "image": item.name,
        **item.content,
        "class": prediction.label,
        "probability": round(prediction.probability, 6),
        "probabilities": [round(float(p), 6) for p in prediction.probabilities],
        "needs_review": needs_review(prediction),
        "supernumerary": prediction.supernumerary,
    }
    if prediction.classes is not None:
        described["classes"] = list(prediction.classes)
    return described


def _turn_p_arm_up(image: NDArray[np.uint8], prediction: "Prediction") -> NDArray[np.uint8]:
    """Turn an upright image by 180 degrees if the p arm of the predicted class points down."""
    p_arm_up = prediction.p_arm_up
    if p_arm_up is None or p_arm_up[CLASS_INDEX[prediction.label]] >= 0.5:
        return image
    return image[::-1, ::-1]
