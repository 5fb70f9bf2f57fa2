"""Stands for the models of ``karyotype``: quick, and does as the name of an image says."""

import ctypes
import errno
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from chromozoo.batch.worker import ImageTask
from chromozoo.cli.classify import ClassifyTask
from chromozoo.errors import ImageError, OutputError, WeightsError
from chromozoo.files import replace_file, write_image
from chromozoo.images.reading import read_grey


class StubTask(ImageTask):
    """Writes a result that says what the image shows, or fails as its name says."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        time.sleep(float(os.environ.get("STUB_LOAD", "0")))

    def about(self) -> dict[str, Any]:
        weights = os.environ.get("STUB_WEIGHTS", "one")  # as if of others
        return {
            "models": {stain: [{"name": "stub", "sha256": weights}] for stain in "qg"},
            "options": dict(self.reading),
            "software": {"chromozoo": "0", "format": 2},
        }

    def write(self, image: Any, name: str, source: dict[str, Any]) -> None:
        read_grey(image, source["shown"])
        do = (image if isinstance(image, Path) else image.path).stem.partition("_")[0]
        if do == "slow":
            time.sleep(1)
        elif do == "hang":
            if mark := os.environ.get("STUB_MARK"):
                Path(mark).write_text(str(os.getpid()))
            # In C, with the interpreter held: no handler and no thread of Python gets a turn.
            ctypes.PyDLL(None).sleep(1000)
        elif do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif do == "once":  # the system took the wrong one
            if not (mark := self.folder / "killed").exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        elif do == "crash":
            ctypes.string_at(0)
        elif do == "bug":
            raise RuntimeError("a bug, with a \udce9 in it")
        elif do == "exit":
            raise SystemExit("a library gives up")
        elif do == "memory":
            np.zeros(2**50, np.uint8)
        elif do == "bad":
            raise ImageError(f"{source['shown']}: is bad; give a better one")
        elif do == "full":
            path = self.folder / f"{name}.json"
            full = OSError(errno.ENOSPC, "No space left on device")
            raise OutputError(f"{path}: cannot be written ({full.strerror}); free space") from full
        write_image(self.folder / f"{name}.overlay.png", Image.new("RGB", (8, 8)))
        about = self.about()
        document = {
            "format": 2,
            "chromozoo": "0",
            "image": source["shown"],
            "path": source["path"],
            "identity": {"content": source["content"], **about, "models": about["models"]["q"]},
            "stain": "q",
            "models": [],
            "count": 0,
            "needs_review": 0,
            "iscn": "46,XY",
            "alarms": [],
            "flags": [],
            "chromosomes": [],
            "process": os.getpid(),
            "made": time.monotonic_ns(),
        }
        replace_file(self.folder / f"{name}.json", json.dumps(document).encode())


class RefusingTask(StubTask):
    def about(self) -> dict[str, Any]:
        raise WeightsError("the weights are damaged; load them again")


class LargeTask(StubTask):
    def about(self) -> dict[str, Any]:
        return {"size": np.zeros(2**50, np.uint8).size}


class DyingTask(StubTask):
    def about(self) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


class BrokenTask(StubTask):
    def about(self) -> dict[str, Any]:
        return {"nothing": 1 / 0}


class _Named(list[Any]):
    cell = None
    alarms: tuple[str, ...] = ()


class _Classifier:
    """Names every chromosome 1, or does as the name of an image says."""

    weights_entry = None
    polarity = False

    def classify(self, images: list[Any], **options: Any) -> _Named:
        names = [path.stem.partition("_")[0] for path in images]
        if "dies" in names:
            os.kill(os.getpid(), signal.SIGKILL)
        if "all" in names:
            raise RuntimeError("a bug")
        found = _Named()
        for path in images:
            prediction = {
                "label": "1",
                "probability": 0.5,
                "probabilities": [0.5] + [0.5 / 23] * 23,
            }
            prediction |= {"supernumerary": False, "classes": None, "error": None, "p_arm_up": None}
            found.append(SimpleNamespace(name=str(path), **prediction))
        return found

    def transforms(self, image: Path, name: str) -> None:
        if image.stem.startswith("dies"):
            os.kill(os.getpid(), signal.SIGKILL)


class StubClassifyTask(ClassifyTask):
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.folder = Path(settings["folder"])
        self.model = _Classifier()

    def _read(self, file: Path, careful: bool) -> list[Any]:
        do = file.stem.partition("_")[0]
        if do == "hang":
            (self.folder / "begun").touch()
            ctypes.PyDLL(None).sleep(1000)
        elif do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._read(file, careful)
