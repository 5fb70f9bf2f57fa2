"""What ``chromozoo segment`` and ``chromozoo karyotype`` write, read again as annotated metaphases.

So results that somebody has looked through can be learnt from and judged by. The outlines are
exactly those that were found. The images are the user's own and lie where they lay when the command
saw them, or beside its results.
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

# A file in the archive, or one that lies elsewhere; of a file with several images, one of them.
ImageFile = str | Path | ImagePage

_PART = re.compile(r"(?:page([0-9]{1,9}))?-?(?:channel([0-9]{1,9}))?-?(max|min)?", re.ASCII)
# Where images may lie, from the folder of the annotation.
_PLACES = (".", "images", "../images")


def is_result(data: Mapping[str, Any]) -> bool:
    """Whether a JSON object is the result of one image."""
    return isinstance(data.get("chromozoo"), str) and ("instances" in data or "chromosomes" in data)


def read_result(
    data: Mapping[str, Any],
    key: str,
    archive: Archive,
    name: str,
    path: Path,
    names: Set[str],
) -> Metaphase:
    """The metaphase of the result of one image; labels are names of classes, or categories.

    Args:
        data: The JSON of the result.
        key: What the metaphase is called.
        archive: Where the JSON lies.
        name: Of the JSON in the archive.
        path: Folder or zip file of the archive.
        names: In the archive.

    Raises:
        DatasetError: The result is damaged, or its image is not there or is another one.
    """
    source = f"{path}: {name}"
    rows = data.get("chromosomes", data.get("instances"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{source}: has no list of chromosomes; make the result again")
    file = find_image(data, "image", PurePosixPath(name).parent, names, path)
    if file is None:
        raise DatasetError(
            f"{source}: its image {short_repr(data.get('image'))} is not there any more; put it beside "
            "the result"
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
    """Outline of a mask in run lengths, see :func:`chromozoo.structures.polygons.mask_outline`.

    Raises:
        DatasetError: It is no mask, or noise; the message begins with the name.
    """
    mask = read_mask(runs, shape, name)
    try:
        return mask_outline(mask)
    except ValueError as error:
        raise DatasetError(f"{name}: {error}; draw it again or remove it") from error


def read_image(
    file: ImageFile, archive: Archive, path: Path, sha256: Any = None
) -> tuple[NDArray[np.float32], str]:
    """An image that :func:`find_image` found, and what errors call it.

    Args:
        file: The image.
        archive: Where it lies, if it does not lie elsewhere.
        path: Folder or zip file of the archive.
        sha256: Of the file's content where that is known.

    Raises:
        DatasetError: It is damaged, or another image than the one that was annotated.
    """
    source = f"{path}: {file}" if isinstance(file, str) else str(file)
    try:
        if isinstance(file, str):
            data = archive.read(file)
            found = hashlib.sha256(data).hexdigest()
            image = read_grey(read_bytes(data, source), source)
        else:
            image = read_grey(file)
            found = _digest(file.path if isinstance(file, ImagePage) else file)
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
    """The image that an annotation speaks of.

    It is looked for beside the annotation and in folders called ``images``; if need be without the
    folders of the machine that wrote the annotation, also where that is a Windows machine.

    Args:
        row: Of the annotation; has the name of the image, and in results its ``path`` and, as their
            ``content``, which part of the file it is.
        column: Where the name stands.
        folder: Of the annotation in the archive.
        names: In the archive.
        path: Folder or zip file of the archive.
        follow: Look for the image out of the archive, too, where its path leads.

    Returns:
        None where it is not there.
    """
    given = [row.get(column), row.get("path") if follow else None]
    candidates = [one for one in given if isinstance(one, str) and one]
    part = _part(row) if follow and path.is_dir() else {}
    for candidate in candidates:
        windows = candidate.replace("\\", "/")
        for place in (candidate, windows, PurePosixPath(windows).name):
            for inside in _PLACES:
                name = _joined(folder, inside, place)
                if name in names:
                    return ImagePage(path / name, **part) if part else name
    if not follow or not path.is_dir():
        return None
    for candidate in reversed(candidates):
        for file in (path / folder / candidate, Path(candidate)):
            try:
                if file.is_file():
                    return ImagePage(file, **part) if part else file
            except OSError:  # a name that is too long, a folder that may not be entered
                continue
    return None


def names_of(file: ImageFile) -> tuple[str, ...]:
    """Names that an image may have: its stem, and longer ones for where several have it."""
    path = PurePath(file.path if isinstance(file, ImagePage) else file)
    part = f"-{file.suffix}" if isinstance(file, ImagePage) else ""
    without_suffix = path.parent / path.stem
    return path.stem + part, without_suffix.as_posix() + part, path.as_posix() + part


def _joined(folder: PurePosixPath, inside: str, name: str) -> str:
    if inside.startswith("../"):
        folder, inside = folder.parent, inside.removeprefix("../")
    return (folder / inside / name).as_posix()


def sha256_in(row: Mapping[str, Any]) -> Any:
    """Hash of the content of the image's file as a result has it; None where it does not."""
    return _content(row).get("sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is known of the content of the image's file: ``sha256``, ``part``."""
    identity = row.get("identity")
    content = identity.get("content") if isinstance(identity, Mapping) else row.get("content")
    return content if isinstance(content, Mapping) else {}


def _part(row: Mapping[str, Any]) -> dict[str, Any]:
    """Which image of its file it is: arguments of :class:`ImagePage`."""
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
