"""Metaphases with one JSON file per image: labelme files and results of ChromoZoo.

The image is embedded in a labelme file or lies in its folder.
"""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from chromozoo import strict_json
from chromozoo.data.io.archive import Archive, natural_order, open_archive
from chromozoo.data.io.result_files import is_result, read_result
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images.reading import read_bytes, read_grey
from chromozoo.strict_json import short_repr
from chromozoo.structures.metaphase import Metaphase
from chromozoo.structures.polygons import check_annotated_size, read_polygon

# The files of BioImLab are named original_<key>.json.
PREFIX = "original_"


class LabelmeFiles:
    """All labelme files of a folder or zip file, and results of ``segment`` and ``karyotype``.

    Args:
        path: Folder or zip file.
        only: Name of the one file to read; None reads all ``*.json``.

    Attributes:
        left_out: Always empty, because every unreadable shape is an error.

    Raises:
        DatasetError: There is no JSON file, or two have one name.
    """

    left_out: Sequence[str] = ()

    def __init__(self, path: Path, only: str | None = None) -> None:
        self.path = path
        self.names: dict[str, str] = {}
        with open_archive(path) as archive:
            self.files = frozenset(archive.names())
            for name in archive.names() if only is None else [only]:
                file = PurePosixPath(name)
                if file.suffix.lower() != ".json" or file.name.startswith("."):
                    continue
                key = file.stem.removeprefix(PREFIX)
                if key in self.names:
                    raise DatasetError(
                        f"{path}: {self.names[key]} and {name} are both image {key!r}; rename one"
                    )
                self.names[key] = name
        if not self.names:
            raise DatasetError(
                f"{path}: holds no labelme file (*.json); this is no labelme data set"
            )

    def keys(self) -> list[str]:
        """Return the names of the images, in natural order."""
        return natural_order(self.names)

    def read(self, key: str) -> Metaphase:
        """Decode one image and its polygons.

        Raises:
            DatasetError: The file is damaged; the message names it.
        """
        name = self.names[key]
        source = f"{self.path}: {name}"
        with open_archive(self.path) as archive:
            data = parse_json(archive.read(name), source)
            if is_result(data):
                return read_result(data, key, archive, name, self.path, self.files)
            return read_labelme(data, archive, name, source)


def read_labelme(data: dict[str, Any], archive: Archive, name: str, source: str) -> Metaphase:
    """Read one labelme file.

    Args:
        data: The parsed JSON.
        archive: Archive of the JSON file and, where none is embedded, of the image file.
        name: Name of the JSON file in the archive.
        source: Name of the file in errors.

    Returns:
        The metaphase; its polygons are not checked (:func:`chromozoo.structures.metaphase.faults`).

    Raises:
        DatasetError: The JSON is not of labelme, the image is damaged or missing, or their sizes
            differ.
    """
    shapes = data.get("shapes")
    if not isinstance(shapes, list):
        raise DatasetError(f"{source}: has no list of shapes; this is no labelme file")
    polygons, labels = [], []
    for number, shape in enumerate(shapes):
        shape_name = f"{source}: shape {number}"
        kind = (shape.get("shape_type") or "polygon") if isinstance(shape, dict) else "unknown"
        if kind != "polygon":
            kind = kind if isinstance(kind, str) else short_repr(kind)
            raise DatasetError(
                f"{shape_name} is of type {kind}; draw it again as a polygon or remove it"
            )
        polygons.append(read_polygon(shape.get("points"), shape_name))
        label = shape.get("label", "")
        if not isinstance(label, str | int | float | None):
            raise DatasetError(
                f"{shape_name} has the label {short_repr(label)}; give it a name or remove it"
            )
        labels.append("" if label is None else str(label))
    try:
        image = read_grey(
            read_bytes(_read_image_bytes(archive, name, data, source), source), source
        )
    except ImageError as error:
        raise DatasetError(str(error)) from error
    width, height = data.get("imageWidth"), data.get("imageHeight")
    check_annotated_size(width, height, image.shape, f"{source}: its image", "the file")
    key = PurePosixPath(name).stem.removeprefix(PREFIX)
    return Metaphase(
        key, image, polygons, labels, source, [f"shape {number}" for number in range(len(polygons))]
    )


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        DatasetError: The JSON is damaged or no object; the message begins with the source.
    """
    try:
        parsed = strict_json.loads(data)
    except ValueError as error:
        raise DatasetError(f"{source}: damaged JSON ({error}); fetch or export it again") from error
    if not isinstance(parsed, dict):
        raise DatasetError(f"{source}: no JSON object of annotations; fetch or export it again")
    return parsed


def _read_image_bytes(archive: Archive, name: str, data: dict[str, Any], source: str) -> bytes:
    if embedded := data.get("imageData"):
        try:
            return base64.b64decode(embedded, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise DatasetError(
                f"{source}: imageData is damaged ({error}); fetch or export the file again"
            ) from error
    # On Windows imagePath has backslashes, and its folders are those of the other machine.
    path = data.get("imagePath") or ""
    if not isinstance(path, str):
        raise DatasetError(
            f"{source}: imagePath is {short_repr(path)}, no name of a file; export it again"
        )
    file_name = path.replace("\\", "/")
    neighbour = (PurePosixPath(name).parent / PurePosixPath(file_name).name).as_posix()
    if not file_name or neighbour not in archive.names():
        missing = file_name or "its image"
        raise DatasetError(
            f"{source}: has no embedded image, and {missing} is not in its folder; put the image "
            "there or save the file with its image data"
        )
    return archive.read(neighbour)
