"""Metaphases in COCO instance format: one JSON with all instances, and the image files."""

import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chromozoo.data.io.archive import natural_order, open_archive
from chromozoo.data.io.labelme import PREFIX, parse_json
from chromozoo.data.io.result_files import (
    ImageFile,
    find_image,
    names_of,
    outline_of_runs,
    read_image,
    sha256_in,
)
from chromozoo.errors import ChromozooError, DatasetError
from chromozoo.strict_json import parse_int, short_repr
from chromozoo.structures.metaphase import Metaphase
from chromozoo.structures.polygons import check_annotated_size, mask_box, polygon_mask, read_polygon

FILE_NAME = "annotations.json"


class CocoFiles:
    """A COCO instance file and its images, in a folder or zip file.

    Each chromosome has one polygon or a mask in run lengths (RLE), which CVAT marks as a crowd when
    it was drawn with a brush. Numbers may be text. Names of images may have the separators of
    Windows and the folders of another machine.

    Args:
        path: Folder or zip file.
        name: Name of the JSON in it. Images are searched in the folder of the JSON, in its
            subfolder ``images/`` and in the neighbouring folder ``images/``. Images of a result of
            ``chromozoo segment`` are also searched at their original path, and they must not have
            changed.

    Attributes:
        left_out: Counts of annotations that are no training instances: crowds without a mask, and
            annotations of unlisted images. A warning repeats them.

    Raises:
        DatasetError: The JSON is damaged or no COCO file, or an image is listed twice or missing.
    """

    def __init__(self, path: Path, name: str = FILE_NAME) -> None:
        self.path = path
        self.source = f"{path}: {name}"
        with open_archive(path) as archive:
            data = parse_json(archive.read(name), self.source)
            names = set(archive.names())
        self.labels = {
            self._id(row, "id"): str(self._field(row, "name", str, int))
            for row in self._rows(data, "categories")
        }
        self.images: dict[str, dict[str, Any]] = {}
        self.files: dict[str, ImageFile] = {}
        self.annotations: dict[int | str, list[dict[str, Any]]] = {}
        # Images of a result are the user's own and stay at their original path.
        self.is_of_segment = _is_of_segment(data)
        folder = PurePosixPath(name).parent
        for row in self._rows(data, "images"):
            file_name = self._field(row, "file_name", str)
            file = find_image(row, "file_name", folder, names, path, follow=self.is_of_segment)
            if file is None:
                raise DatasetError(
                    f"{self.source}: image {file_name} is missing; put it into the folder of "
                    "the file or into images/"
                )
            self._add_image(row, file)
        self.left_out = self._sort_annotations(self._rows(data, "annotations"))
        if self.left_out:
            warnings.warn(f"{self.source}: left out: {', '.join(self.left_out)}", stacklevel=2)

    def keys(self) -> list[str]:
        """Return the names of the images, in natural order."""
        return natural_order(self.images)

    def read(self, key: str) -> Metaphase:
        """Decode one image and its outlines.

        Raises:
            DatasetError: The image is damaged or of another size, or an outline is neither one
                polygon nor a mask.
        """
        row = self.images[key]
        with open_archive(self.path) as archive:
            sha256 = sha256_in(row) if self.is_of_segment else None
            image, source = read_image(self.files[key], archive, self.path, sha256)
        check_annotated_size(row.get("width"), row.get("height"), image.shape, source, self.source)
        annotations = self.annotations[self._id(row, "id")]
        shapes = [f"annotation {short_repr(annotation.get('id'))}" for annotation in annotations]
        polygons = [
            _read_outline(annotation.get("segmentation"), image, f"{source}: {shape}")
            for annotation, shape in zip(annotations, shapes, strict=True)
        ]
        labels = [
            ""
            if annotation.get("category_id") is None
            else self.labels.get(self._id(annotation, "category_id"), "")
            for annotation in annotations
        ]
        return Metaphase(key, image, polygons, labels, source, shapes)

    def _add_image(self, row: dict[str, Any], file: ImageFile) -> None:
        image_id = self._id(row, "id")
        if image_id in self.annotations:
            raise self._error(f"two images have the id {short_repr(image_id)}")
        self.annotations[image_id] = []
        # The stem, as in the splits, or a longer name where several images share the stem.
        stem, *longer = names_of(file)
        names = (stem.removeprefix(PREFIX), *longer)
        key = next((name for name in names if name not in self.images), None)
        if key is None or any(self.files.get(name) == file for name in names):
            raise DatasetError(f"{self.source}: two images are named {names[0]!r}; rename one")
        self.images[key], self.files[key] = row, file

    def _sort_annotations(self, rows: list[dict[str, Any]]) -> list[str]:
        """Assign the annotations to their images, and return the counts of those left out."""
        crowds, strays = Counter[Any](), Counter[Any]()
        for row in rows:
            image_id = self._id(row, "image_id")
            is_mask = isinstance(row.get("segmentation"), dict)
            if image_id not in self.annotations:
                strays[image_id] += 1
            elif self._is_crowd(row) and not is_mask:
                # A region whose chromosomes have no outlines.
                crowds[image_id] += 1
            else:
                self.annotations[image_id].append(row)
        return [
            f"{counts.total()} {kind} (image_id {', '.join(map(str, [*counts][:5]))}"
            f"{', ...' if len(counts) > 5 else ''})"
            for counts, kind in (
                (crowds, "crowds without a mask"),
                (strays, "annotations of images that are not listed"),
            )
            if counts
        ]

    def _is_crowd(self, row: dict[str, Any]) -> bool:
        value = row.get("iscrowd")
        try:
            return value is not None and bool(
                parse_int(int(value) if value in (True, False) else value)
            )
        except ValueError as error:
            raise self._error(f"iscrowd is {short_repr(value)}") from error

    def _rows(self, data: dict[str, Any], name: str) -> list[dict[str, Any]]:
        rows = data.get(name)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._error(f"{name!r} is missing or no list of objects")
        return rows

    def _field(self, row: dict[str, Any], name: str, *kinds: type) -> str:
        value = row.get(name)
        if not isinstance(value, kinds) or value == "":
            raise self._error(f"{name!r} is missing or no text: {short_repr(value)}")
        return str(value)

    def _id(self, row: dict[str, Any], name: str) -> int | str:
        """Return an id; a number and its text are the same."""
        value = row.get(name)
        try:
            return parse_int(value)
        except ValueError as error:
            if isinstance(value, str) and value:
                return value
            raise self._error(f"{name!r} is missing or no id: {short_repr(value)}") from error

    def _error(self, reason: str) -> DatasetError:
        return DatasetError(f"{self.source}: not a COCO instance file ({reason}); export it again")


def write_coco(
    metaphases: Iterable[Metaphase],
    folder: Path,
    description: str = "",
    overwrite: bool = False,
) -> int:
    """Write ``annotations.json`` and ``images/<key>.png`` into a new folder.

    The folder appears when it is complete, so an interrupted run leaves nothing.

    Args:
        metaphases: Metaphases with images of 0..255; all instances get the category ``chromosome``.
        folder: New folder.
        description: Origin of the images, written into the JSON.
        overwrite: Replace a folder with an ``annotations.json``.

    Returns:
        Number of metaphases.

    Raises:
        ChromozooError: The folder exists or cannot be written.
    """
    if folder.exists() and not (overwrite and (folder / FILE_NAME).is_file()):
        remedy = f"it holds no {FILE_NAME}, so it is not replaced" if overwrite else "or overwrite"
        raise ChromozooError(f"{folder} exists already; choose another folder ({remedy})")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
            new = Path(work, "new")
            count = _write_files(metaphases, new, description)
            if folder.exists():
                os.replace(folder, Path(work, "old"))
            os.replace(new, folder)
    except OSError as error:
        raise ChromozooError(f"{folder}: cannot be written ({error}); choose another") from error
    return count


def _write_files(metaphases: Iterable[Metaphase], folder: Path, description: str) -> int:
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for metaphase in metaphases:
        height, width = metaphase.image.shape
        image_id, file_name = len(images) + 1, f"{metaphase.key}.png"
        grey = np.clip(np.round(metaphase.image), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / "images" / file_name)
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for exact in metaphase.polygons:
            # The mask and the box must be those of the rounded outline, which is read again.
            polygon = exact.round(2)
            mask = polygon_mask(polygon, height, width)
            x0, y0, x1, y1 = mask_box(mask).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "segmentation": [polygon.ravel().tolist()],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
    data = {
        "info": {"description": description},
        "categories": [{"id": 1, "name": "chromosome"}],
        "images": images,
        "annotations": annotations,
    }
    (folder / FILE_NAME).write_text(json.dumps(data), encoding="utf-8")
    return len(images)


def _is_of_segment(data: dict[str, Any]) -> bool:
    """Return whether ``chromozoo segment`` wrote the file."""
    info = data.get("info")
    description = info.get("description") if isinstance(info, dict) else None
    return isinstance(description, str) and description.startswith("ChromoZoo ")


def _read_outline(segmentation: Any, image: NDArray[np.float32], name: str) -> NDArray[np.float64]:
    if isinstance(segmentation, dict):
        height, width = image.shape
        return outline_of_runs(segmentation, (height, width), name)
    match segmentation:
        case [list() as ring]:
            return read_polygon([ring[start : start + 2] for start in range(0, len(ring), 2)], name)
    raise DatasetError(
        f"{name} is not outlined by one polygon or mask; export polygons or masks, one for each "
        "chromosome"
    )
