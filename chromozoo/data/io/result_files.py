"""Results of ``chromozoo segment`` and ``chromozoo karyotype``, read as annotated metaphases.

Reviewed results can then serve for training and evaluation. The masks are exactly those of the
result. The images are the user's own and are read from their original path or from the folder of
the results.
"""

import hashlib
import re
from collections.abc import Mapping, Set
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.data.io.archive import Archive
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images.reading import ImagePage, read_bytes, read_grey
from chromozoo.strict_json import short_repr
from chromozoo.structures.metaphase import Metaphase
from chromozoo.structures.polygons import check_annotated_size, mask_outline
from chromozoo.structures.run_lengths import read_mask

# A file in the archive, a file elsewhere, or one image of a file with several.
ImageFile = str | Path | ImagePage

_PART = re.compile(r"(?:page([0-9]{1,9}))?-?(?:channel([0-9]{1,9}))?-?(max|min)?", re.ASCII)
# Folders of images, relative to the folder of the annotation.
_PLACES = (".", "images", "../images")


def is_result(data: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is the result of one image."""
    return isinstance(data.get("chromozoo"), str) and ("instances" in data or "chromosomes" in data)


def read_result(
    data: Mapping[str, Any],
    key: str,
    archive: Archive,
    name: str,
    path: Path,
    names: Set[str],
) -> Metaphase:
    """Read the result of one image as a metaphase; labels are class names or categories.

    Args:
        data: The parsed JSON of the result.
        key: Name of the metaphase.
        archive: Archive of the JSON file.
        name: Name of the JSON file in the archive.
        path: Folder or zip file of the archive.
        names: Names of all files in the archive.

    Raises:
        DatasetError: The result is damaged, or its image is missing or has changed.
    """
    source = f"{path}: {name}"
    rows = data.get("chromosomes", data.get("instances"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{source}: has no list of chromosomes; make the result again")
    file = find_image(data, "image", PurePosixPath(name).parent, names, path)
    if file is None:
        raise DatasetError(
            f"{source}: its image {short_repr(data.get('image'))} is missing; put it into the "
            "folder of the result"
        )
    image, image_source = read_image(file, archive, path, sha256_in(data))
    check_annotated_size(data.get("width"), data.get("height"), image.shape, image_source, source)
    height, width = image.shape
    shapes = [f"chromosome {number}" for number in range(1, len(rows) + 1)]
    polygons = [
        outline_of_runs(row.get("segmentation"), (height, width), f"{source}: {shape}")
        for row, shape in zip(rows, shapes, strict=True)
    ]
    labels = [row.get("class", row.get("category")) for row in rows]
    if wrong := [label for label in labels if not isinstance(label, str)]:
        raise DatasetError(
            f"{source}: a chromosome has the class {short_repr(wrong[0])}; make the result again"
        )
    return Metaphase(key, image, polygons, labels, source, shapes)


def outline_of_runs(runs: Any, shape: tuple[int, int], name: str) -> NDArray[np.float64]:
    """Return the outline of a mask in run lengths.

    See :func:`chromozoo.structures.polygons.mask_outline`.

    Raises:
        DatasetError: The runs are no mask, or noise; the message begins with the name.
    """
    mask = read_mask(runs, shape, name)
    try:
        return mask_outline(mask)
    except ValueError as error:
        raise DatasetError(f"{name}: {error}; draw it again or remove it") from error


def read_image(
    file: ImageFile, archive: Archive, path: Path, sha256: Any = None
) -> tuple[NDArray[np.float32], str]:
    """Read an image that :func:`find_image` found.

    Args:
        file: The image.
        archive: Archive of the image, unless the image lies elsewhere.
        path: Folder or zip file of the archive.
        sha256: Hash of the content of the file; None where unknown.

    Returns:
        ``(H, W)`` float32 grey, and the name of the image in errors.

    Raises:
        DatasetError: The image is damaged or has changed since it was annotated.
    """
    source = f"{path}: {file}" if isinstance(file, str) else str(file)
    try:
        if isinstance(file, str):
            data = archive.read(file)
            found = hashlib.sha256(data).hexdigest()
            image = read_grey(read_bytes(data, source), source)
        else:
            image = read_grey(file)
            found = _hash_file(file.path if isinstance(file, ImagePage) else file)
    except (ImageError, OSError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(str(error)) from error
    if sha256 is not None and sha256 != found:
        raise DatasetError(
            f"{source}: is another image than the one that was annotated (sha256 {sha256}, found "
            f"{found}); put that one back, or annotate this one"
        )
    return image, source


def find_image(
    row: Mapping[str, Any],
    column: str,
    folder: PurePosixPath,
    names: Set[str],
    path: Path,
    follow: bool = True,
) -> ImageFile | None:
    """Find the image of an annotation.

    The folder of the annotation and folders named ``images`` are searched, with and without the
    folders of the machine that wrote the annotation, which may run Windows.

    Args:
        row: The annotation, with the name of the image and, in results, its ``path`` and the part
            of the file.
        column: Key of the name in the annotation.
        folder: Folder of the annotation in the archive.
        names: Names of all files in the archive.
        path: Folder or zip file of the archive.
        follow: Also follow the path of the image out of the archive.

    Returns:
        The image, or None where it is missing.
    """
    given = [row.get(column), row.get("path") if follow else None]
    candidates = [one for one in given if isinstance(one, str) and one]
    part = _parse_part(row) if follow and path.is_dir() else {}
    for candidate in candidates:
        windows = candidate.replace("\\", "/")
        for place in (candidate, windows, PurePosixPath(windows).name):
            for inside in _PLACES:
                name = _join(folder, inside, place)
                if name in names:
                    return ImagePage(path / name, **part) if part else name
    if not follow or not path.is_dir():
        return None
    for candidate in reversed(candidates):
        for file in (path / folder / candidate, Path(candidate)):
            try:
                if file.is_file():
                    return ImagePage(file, **part) if part else file
            except OSError:  # the name is too long, or the folder may not be entered
                continue
    return None


def names_of(file: ImageFile) -> tuple[str, ...]:
    """Return the possible names of an image: its stem, and longer ones for ambiguous stems."""
    path = PurePath(file.path if isinstance(file, ImagePage) else file)
    part = f"-{file.suffix}" if isinstance(file, ImagePage) else ""
    without_suffix = path.parent / path.stem
    return path.stem + part, without_suffix.as_posix() + part, path.as_posix() + part


def _join(folder: PurePosixPath, inside: str, name: str) -> str:
    if inside.startswith("../"):
        folder, inside = folder.parent, inside.removeprefix("../")
    return (folder / inside / name).as_posix()


def sha256_in(row: Mapping[str, Any]) -> Any:
    """Return the hash of the image file in a result; None where the result has none."""
    return _content(row).get("sha256")


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the description of the image file in a result: ``sha256``, ``part``."""
    identity = row.get("identity")
    content = identity.get("content") if isinstance(identity, Mapping) else row.get("content")
    return content if isinstance(content, Mapping) else {}


def _parse_part(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the file that shows the image: arguments of :class:`ImagePage`."""
    part = _content(row).get("part")
    match = _PART.fullmatch(part) if isinstance(part, str) else None
    if match is None:
        return {}
    page, channel, projection = match.groups()
    found = {
        "page": int(page) if page else None,
        "channel": int(channel) if channel else None,
        "projection": projection,
    }
    return {name: value for name, value in found.items() if value is not None}
