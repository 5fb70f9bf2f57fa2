"""Stubs of the task of ``karyotype``: the name of an image selects the failure to simulate."""

import ctypes
import errno
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chromozoo.batch.worker import ImageTask
from chromozoo.errors import ImageError, OutputError, WeightsError
from chromozoo.files import replace_file, write_image
from chromozoo.images.reading import read_grey


class StubTask(ImageTask):
    """Writes the results of a normal cell, or fails as the name of the image says."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        time.sleep(float(os.environ.get("STUB_LOAD", "0")))

    def identity(self) -> dict[str, Any]:
        weights = os.environ.get("STUB_WEIGHTS", "one")
        return {
            "models": {stain: [{"name": "stub", "sha256": weights}] for stain in "qg"},
            "options": dict(self.reading),
            "software": {"chromozoo": "0", "format": 2},
        }

    def write_results(self, image: Any, name: str, source: dict[str, Any]) -> None:
        read_grey(image, source["shown"])
        failure = (image if isinstance(image, Path) else image.path).stem.partition("_")[0]
        if failure == "slow":
            time.sleep(float(os.environ.get("STUB_SLOW", "1")))
        elif failure == "hang":
            if mark := os.environ.get("STUB_MARK"):
                Path(mark).write_text(str(os.getpid()))
            # PyDLL holds the interpreter lock, so that no handler and no thread of Python runs.
            ctypes.PyDLL(None).sleep(1000)
        elif failure == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif failure == "once":  # the system ended the wrong process
            if not (mark := self.folder / "killed").exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        elif failure == "crash":
            ctypes.string_at(0)
        elif failure == "bug":
            raise RuntimeError("a bug, with a \udce9 in it")
        elif failure == "exit":
            raise SystemExit("a library gives up")
        elif failure == "memory":
            np.zeros(2**50, np.uint8)
        elif failure == "bad":
            raise ImageError(f"{source['shown']}: is bad; give a better one")
        elif failure == "full":
            path = self.folder / f"{name}.json"
            full = OSError(errno.ENOSPC, "No space left on device")
            raise OutputError(f"{path}: cannot be written ({full.strerror}); free space") from full
        write_image(self.folder / f"{name}.overlay.png", Image.new("RGB", (8, 8)))
        identity = self.identity()
        document = {
            "format": 2,
            "chromozoo": "0",
            "image": source["shown"],
            "path": source["path"],
            "identity": {
                "content": source["content"],
                **identity,
                "models": identity["models"]["q"],
            },
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
    def identity(self) -> dict[str, Any]:
        raise WeightsError("the weights are damaged; load them again")


class LargeTask(StubTask):
    def identity(self) -> dict[str, Any]:
        return {"size": np.zeros(2**50, np.uint8).size}


class DyingTask(StubTask):
    def identity(self) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


class BrokenTask(StubTask):
    def identity(self) -> dict[str, Any]:
        return {"nothing": 1 / 0}
