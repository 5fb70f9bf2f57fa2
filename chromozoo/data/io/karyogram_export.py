"""Export of karyograms to a folder of labelled single chromosomes.

The layout is ``<karyogram>/<class><a|b|..>.png`` with a table ``labels.csv``.
"""

import csv
import hashlib
import os
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.data.io.archive import open_archive
from chromozoo.errors import ChromozooError, DatasetError, ImageError, OutputError
from chromozoo.images.karyogram_extract import extract_chromosomes
from chromozoo.images.reading import read_bytes

LABELS = "labels.csv"
# Length of a folder's name in bytes; most file systems take 255.
MAX_NAME_LENGTH = 200
# Grey values of a colour image are not whole numbers. Images with a larger maximum are rounded.
MIN_LEVELS = 128


def extract_files(
    karyograms: Sequence[Path], output: Path, layout: str = "denver", overwrite: bool = False
) -> tuple[dict[Path, int], list[str]]:
    """Write a folder of labelled single chromosomes from image files of karyograms.

    The files are ``<output>/<karyogram>/<class><a|b|..>.png`` and ``<output>/labels.csv`` with the
    columns ``file, class, x, y, w, h, karyogram`` (the box in pixels of the karyogram), which
    :class:`chromozoo.data.pki3.Pki3Dataset` reads with the layout ``"labels-csv"``. The output
    folder appears when it is complete, or not at all. The folder of a karyogram is named after the
    stem of its file; characters that a file system may refuse are written as ``%`` and a number.

    Args:
        karyograms: Image files; no two may have one stem.
        output: The new folder.
        layout: See :func:`chromozoo.images.karyogram_extract.extract_chromosomes`.
        overwrite: Replace a folder that an earlier call made.

    Returns:
        Number of chromosomes by file, and the errors of the refused files.

    Raises:
        ChromozooError: The folder exists, two files have one stem, or no file gave a chromosome.
        OutputError: The folder cannot be written.
    """
    folders = _name_folders(karyograms, output)
    try:
        if output.exists() and not (overwrite and (output / LABELS).is_file()):
            reason = f"; it holds no {LABELS}, so it is not replaced" if overwrite else ""
            raise ChromozooError(
                f"{output} exists already{reason}; choose another folder, or overwrite one that "
                "this command has made"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        # Not named after the output, whose name may have the maximal length already.
        with tempfile.TemporaryDirectory(
            prefix=".karyograms.", suffix=".part", dir=output.parent
        ) as work:
            made = Path(work, "new")
            made.mkdir()
            counts, errors = _extract_into(made, folders, layout)
            if output.exists():
                os.replace(output, Path(work, "old"))
            os.replace(made, output)
    except OSError as error:
        if isinstance(error, ChromozooError):
            raise
        raise OutputError(
            f"{output}: cannot be written ({error.strerror or error}); free space or choose "
            "another folder"
        ) from error
    return counts, errors


def _extract_into(
    made: Path, folders: dict[str, Path], layout: str
) -> tuple[dict[Path, int], list[str]]:
    counts: dict[Path, int] = {}
    errors: list[str] = []
    rows: list[list[str | int]] = [["file", "class", "x", "y", "w", "h", "karyogram"]]
    for folder, path in folders.items():
        try:
            crops = extract_chromosomes(_read_image(path), str(path), layout)
        except ImageError as error:
            errors.append(str(error))
            continue
        (made / folder).mkdir()
        for crop, image in zip(crops, _to_integers([one.image for one in crops]), strict=True):
            file = f"{folder}/{crop.label}{crop.copy}.png"
            (made / file).write_bytes(cv2.imencode(".png", image)[1].tobytes())
            rows.append([file, crop.label, *crop.box, _escape(path.name)])
        counts[path] = len(crops)
    if not counts:
        raise ChromozooError("\n".join(["no karyogram could be cut:", *errors]))
    with (made / LABELS).open("w", newline="", encoding="utf-8") as table:
        csv.writer(table, lineterminator="\n").writerows(rows)
    return counts, errors


def _name_folders(karyograms: Sequence[Path], output: Path) -> dict[str, Path]:
    """Return the karyograms by the names of their folders.

    Raises:
        ChromozooError: Two would have one folder; upper and lower case are the same.
    """
    folders: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    for path in karyograms:
        folder = _folder_name(path.stem)
        key = unicodedata.normalize("NFC", folder).casefold()
        if key in seen:
            raise ChromozooError(
                f"{seen[key]} and {path} would both be written to {output / folder}; rename one"
            )
        folders[folder] = seen[key] = path
    return folders


def _folder_name(stem: str) -> str:
    """Return a name that every file system takes and that differs from ``labels.csv``."""
    name = _escape(stem, forbidden='<>:"/\\|?*').rstrip(". ")
    if name.casefold() in ("", LABELS):
        name = f"karyogram_{name}".rstrip("_")
    if len(name.encode()) > MAX_NAME_LENGTH:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name.encode()[: MAX_NAME_LENGTH - 9].decode(errors='ignore')}_{digest}"
    return name


def _escape(name: str, forbidden: str = "") -> str:
    """Replace characters that are forbidden or cannot be printed by ``%`` and their number."""
    return "".join(
        letter if letter.isprintable() and letter not in forbidden else f"%{ord(letter):x}"
        for letter in name
    )


def _to_integers(
    images: Sequence[NDArray[np.float32]],
) -> list[NDArray[np.uint8] | NDArray[np.uint16]]:
    """Convert the crops of one image to 8 or 16 bits, as PNG stores them.

    Grey values that fit are kept; others, such as 0..1, are stretched to 16 bits.
    """
    low = min(float(image.min()) for image in images)
    high = max(float(image.max()) for image in images)
    fits = low >= 0 and high < 2**16 - 0.5
    if not fits or (high < MIN_LEVELS and any((image % 1).any() for image in images)):
        stretch = (2**16 - 1) / max(high - low, 1e-12)
        return [np.round((image - low) * stretch).astype(np.uint16) for image in images]
    if high < 2**8 - 0.5:
        return [np.round(image).astype(np.uint8) for image in images]
    return [np.round(image).astype(np.uint16) for image in images]


def _read_image(path: Path) -> NDArray[np.generic]:
    try:
        with open_archive(path.parent) as folder:
            data = folder.read(path.name)
    except DatasetError as error:
        raise ImageError(str(error)) from error
    return read_bytes(data, str(path))
