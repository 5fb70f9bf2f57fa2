"""Lookup of weights files, and their download."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from chromozoo.errors import WeightsError
from chromozoo.folders import checkout, weights_folders
from chromozoo.models.weights.files import temporary_name
from chromozoo.structures.weights_entry import WeightsEntry

DOWNLOAD_ROUNDS = 3
BACKOFF_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0


def find_weights(entry: WeightsEntry) -> Path:
    """Find the file of an entry in :func:`chromozoo.folders.weights_folders`, or download it.

    Raises:
        WeightsError: It is nowhere and cannot be downloaded; the message says where to put it.
    """
    places = [folder / entry.file for folder in weights_folders()]
    for path in places:
        if path.is_file():
            return path
    failures = _download(entry, places[0]) if entry.urls else ["the entry has no download address"]
    if not failures:
        return places[0]
    if checkout():
        remedy = "restore it from the repository (git checkout -- weights)"
    else:
        remedy = (
            "ChromoZoo is installed without its repository: take the file from the repository's "
            "weights/"
        )
    raise WeightsError(
        f"{entry.file}: weights of {entry.model!r} not found in "
        f"{' or '.join(str(path.parent) for path in places)}, nor by download "
        f"({'; '.join(failures)}); {remedy}, or put it into {places[0].parent}"
    )


def _download(entry: WeightsEntry, target: Path) -> list[str]:
    """Try every address in turn, then all again after a pause; return the failures if all fail."""
    from http.client import HTTPException

    failures: dict[str, str] = {}
    for attempt in range(DOWNLOAD_ROUNDS):
        if attempt:
            time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
        for url in entry.urls:
            try:
                _download_one(url, entry, target)
            except (OSError, HTTPException, ValueError, WeightsError) as error:
                failures[url] = f"{url}: {error}"
            else:
                return []
    return list(failures.values())


def _download_one(url: str, entry: WeightsEntry, target: Path) -> None:
    from urllib.request import urlopen

    from tqdm import tqdm  # type: ignore[import-untyped]

    target.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_name(target)
    digest, size = hashlib.sha256(), 0
    try:
        with (
            urlopen(url, timeout=TIMEOUT_SECONDS) as response,
            part.open("wb") as file,
            # disable=None: a bar on a terminal, silence elsewhere
            tqdm(
                total=entry.size_bytes, desc=entry.file, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            while size <= entry.size_bytes and (block := response.read(1 << 20)):
                file.write(block)
                digest.update(block)
                size += len(block)
                bar.update(len(block))
        if digest.hexdigest() != entry.sha256:
            raise WeightsError(
                f"got {size} bytes with sha256 {digest.hexdigest()}, "
                f"expected {entry.size_bytes} with {entry.sha256}"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
