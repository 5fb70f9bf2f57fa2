"""Index of data sets: facts that are computed once for each state of the files.

Hashing an archive reads all of it. Its hash and other facts are stored in the cache folder with the
path, size and modification time of the files, so a later set-up reads no file of the data set.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import cv2

from chromozoo.data.io.archive import name_bytes
from chromozoo.errors import OutputError
from chromozoo.files import replace_file
from chromozoo.folders import cache_folder

# Some file systems store modification times in steps of two seconds: a second change within a step
# would not be noticed.
MIN_AGE_NS = 2_000_000_000
_PACKAGE = Path(__file__).parents[2]
# The packages that decide what is read from a data set and how.
_READERS = ("data", "images", "structures")


def cached_facts(
    name: str,
    paths: Sequence[Path],
    compute: Callable[[], dict[str, Any]],
    folder: Path | None = None,
    key: str = "",
) -> dict[str, Any]:
    """Return facts about a data set, from the index where its files have not changed.

    The facts are computed again when the path, size or modification time of a file changes, and
    when the code that reads data sets changes. Facts about files that changed within the last two
    seconds are not stored.

    Args:
        name: Name of the data set and of the facts, the beginning of the index file's name.
        paths: Folders and zip files of the data set.
        compute: Computes the facts, which must be valid JSON.
        folder: Folder of the index; the folder of the prepared crops where None.
        key: Everything else that the facts depend on.

    Raises:
        DatasetError: Raised by ``compute``.
    """
    folder = folder or crops_folder()
    places = hashlib.sha256(b"\0".join(name_bytes(str(path.absolute())) for path in paths))
    file = folder / f"{name}-{places.hexdigest()[:12]}.index.json"
    state, changed_ns = _state_of_files(paths, key)
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(file.read_bytes())
        if stored["state"] == state:
            facts: dict[str, Any] = stored["facts"]
            return facts
    is_old = time.time_ns() - changed_ns > MIN_AGE_NS
    facts = compute()
    if is_old and _state_of_files(paths, key)[0] == state:
        # Without the index every set-up reads the files, which is slower but right.
        with suppress(OSError, OutputError):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(file, json.dumps({"state": state, "facts": facts}).encode())
    return facts


def crops_folder() -> Path:
    """Return the folder of prepared crops and of the index where none is given."""
    return cache_folder() / "crops"


def _state_of_files(paths: Sequence[Path], key: str) -> tuple[str, int]:
    """Return a hash of the state of the files and code, and the newest modification time in ns."""
    digest = hashlib.sha256(f"{_code_sha256()}\n{key}".encode())
    newest = 0
    for path in paths:
        for name, status in _files_of(path):
            newest = max(newest, status.st_mtime_ns)
            digest.update(name_bytes(f"\n{name}\n{status.st_size} {status.st_mtime_ns}"))
    return digest.hexdigest(), newest


def _files_of(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the names and states of a file, or of all files of a folder in sorted order."""
    if not path.is_dir():
        with suppress(OSError):  # `compute` reports files that cannot be read
            yield str(path), path.stat()
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            with suppress(OSError):
                name = f"{folder}/{file}"
                yield name, Path(name).stat()


@cache
def _code_sha256() -> str:
    """Return a hash of the code and package data that facts may depend on."""
    digest = hashlib.sha256(cv2.__version__.encode())
    for package in _READERS:
        for file in sorted((_PACKAGE / package).rglob("*")):
            if file.suffix in (".py", ".json"):
                digest.update(file.read_bytes())
    return digest.hexdigest()
