"""Metaphases annotated with labelme: one JSON file an image, the image inside it or beside it."""

import base64
import binascii
import json
from pathlib import Path, PurePosixPath
from typing import Any

from chromozoo.data.archive import Archive, open_archive
from chromozoo.data.polygons import Metaphase, natural_order, read_polygon
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images.reading import read_bytes, read_grey

# BioImLab's files are original_<key>.json.
PREFIX = "original_"


class LabelmeFiles:
    """All labelme files of a folder or zip file.

    Args:
        path: Folder or zip file.

    Raises:
        DatasetError: There is no JSON file, or two of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, str] = {}
        with open_archive(path) as archive:
            for name in archive.names():
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
            raise DatasetError(f"{path}: holds no labelme file (*.json); this is no such data set")

    def keys(self) -> list[str]:
        """Names of the images, in natural order."""
        return natural_order(self.names)

    def read(self, key: str) -> Metaphase:
        """Decodes one image and its polygons.

        Raises:
            DatasetError: The file is damaged; the message names it.
        """
        with open_archive(self.path) as archive:
            return read_labelme(archive, self.names[key], f"{self.path}: {self.names[key]}")


def read_labelme(archive: Archive, name: str, source: str) -> Metaphase:
    """Reads one labelme file.

    Args:
        archive: Where the file and, without embedded image, the image file lie.
        name: Of the JSON file in the archive.
        source: What errors call it.

    Returns:
        The metaphase; its polygons are not yet judged (:func:`chromozoo.data.polygons.faults`).

    Raises:
        DatasetError: The JSON or the image is damaged or missing, or their sizes differ.
    """
    data = parse_json(archive.read(name), source)
    shapes = data.get("shapes")
    if not isinstance(shapes, list):
        raise DatasetError(f"{source}: has no list of shapes; this is no labelme file")
    polygons, labels = [], []
    for number, shape in enumerate(shapes):
        shape_name = f"{source}: shape {number}"
        kind = (shape.get("shape_type") or "polygon") if isinstance(shape, dict) else "unknown"
        if kind != "polygon":
            raise DatasetError(
                f"{shape_name} is of type {kind}; draw it again as a polygon or remove it"
            )
        polygons.append(read_polygon(shape.get("points"), shape_name))
        labels.append(str(shape.get("label", "")))
    try:
        image = read_grey(read_bytes(_image_bytes(archive, name, data, source), source), source)
    except ImageError as error:
        raise DatasetError(str(error)) from error
    told = data.get("imageWidth"), data.get("imageHeight")
    if told != (None, None) and told != image.shape[::-1]:
        raise DatasetError(
            f"{source}: says that the image is {told[0]}x{told[1]}, but it is {image.shape[1]}x"
            f"{image.shape[0]}; annotate this image or put back the one that was annotated"
        )
    key = PurePosixPath(name).stem.removeprefix(PREFIX)
    return Metaphase(
        key, image, polygons, labels, source, [f"shape {number}" for number in range(len(polygons))]
    )


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DatasetError: It is damaged or no object; the message begins with the source.
    """
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{source}: damaged JSON ({error}); fetch or export it again") from error
    if not isinstance(parsed, dict):
        raise DatasetError(f"{source}: no JSON object of annotations; fetch or export it again")
    return parsed


def _image_bytes(archive: Archive, name: str, data: dict[str, Any], source: str) -> bytes:
    if embedded := data.get("imageData"):
        try:
            return base64.b64decode(embedded, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise DatasetError(
                f"{source}: imageData is damaged ({error}); fetch or export the file again"
            ) from error
    # Written on Windows, imagePath has backslashes; its folders are those of another machine.
    file_name = str(data.get("imagePath") or "").replace("\\", "/")
    beside = (PurePosixPath(name).parent / PurePosixPath(file_name).name).as_posix()
    if not file_name or beside not in archive.names():
        raise DatasetError(
            f"{source}: holds no image, and {file_name or 'its image'} is not beside it; put the "
            "image there or save with its data"
        )
    return archive.read(beside)
