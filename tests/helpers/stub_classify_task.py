"""Stub of the task of ``classify``: the name of an image selects the failure to simulate."""

import ctypes
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from chromozoo.batch.classify_task import ClassifyTask


class _Predictions(list[Any]):
    cell = None
    alarms: tuple[str, ...] = ()


class _Classifier:
    """Predicts class 1 for every chromosome, or fails as the name of an image says."""

    weights_entry = None
    polarity = False

    def classify(self, images: list[Any], **options: Any) -> _Predictions:
        names = [path.stem.partition("_")[0] for path in images]
        if "dies" in names:
            os.kill(os.getpid(), signal.SIGKILL)
        if "all" in names:
            raise RuntimeError("a bug")
        predictions = _Predictions()
        for path in images:
            prediction = {
                "label": "1",
                "probability": 0.5,
                "probabilities": [0.5] + [0.5 / 23] * 23,
            }
            prediction |= {"supernumerary": False, "classes": None, "error": None, "p_arm_up": None}
            predictions.append(SimpleNamespace(name=str(path), **prediction))
        return predictions

    def transforms(self, image: Path, name: str) -> None:
        if image.stem.startswith("dies"):
            os.kill(os.getpid(), signal.SIGKILL)


class StubClassifyTask(ClassifyTask):
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.folder = Path(settings["folder"])
        self.model = _Classifier()

    def _read_file(self, file: Path, prepare_each: bool) -> list[Any]:
        failure = file.stem.partition("_")[0]
        if failure == "hang":
            (self.folder / "begun").touch()
            ctypes.PyDLL(None).sleep(1000)
        elif failure == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._read_file(file, prepare_each)
