"""Metaphases in COCO instance format: one JSON of all outlines, and the image files."""

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

    Chromosomes are outlined by one polygon or by a mask in run lengths (RLE), also where CVAT marks
    a mask of its brush as a crowd. Numbers may be text. Names of images may have the separators of
    Windows, and folders of another machine.

    Args:
        path: Folder or zip file.
        name: Of the JSON in it. Images are looked for beside it, in ``images/`` beside it, and in
            ``images/`` beside its folder; those of a file that ``chromozoo segment`` wrote also
            where it found them, and they must not have changed.

    Attributes:
        left_out: What is no chromosome to learn from, and how much of it: crowds without a mask,
            and annotations of images that are not listed. A warning says it, too.

    Raises:
        DatasetError: The JSON is damaged or no COCO file, names an image twice or one that is
            missing.
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
        # Its images are the user's own, and lie where they lay when they were segmented.
        self.is_of_segment = _is_of_segment(data)
        folder = PurePosixPath(name).parent
        for row in self._rows(data, "images"):
            file_name = self._field(row, "file_name", str)
            file = find_image(row, "file_name", folder, names, path, follow=self.is_of_segment)
            if file is None:
                raise DatasetError(
                    f"{self.source}: image {file_name} is not there; put it beside the file or "
                    "into images/"
                )
            self._add_image(row, file)
        self.left_out = self._sort_annotations(self._rows(data, "annotations"))
        if self.left_out:
            warnings.warn(f"{self.source}: left out: {', '.join(self.left_out)}", stacklevel=2)

    def keys(self) -> list[str]:
        """Names of the images, in natural order."""
        return natural_order(self.images)

    def read(self, key: str) -> Metaphase:
        """Decodes one image and its outlines.

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
            _outline(annotation.get("segmentation"), image, f"{source}: {shape}")
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
            raise self._fault(f"two images have the id {short_repr(image_id)}")
        self.annotations[image_id] = []
        # The stem, as split lists have it; more where images of several folders or kinds share it.
        stem, *longer = names_of(file)
        names = (stem.removeprefix(PREFIX), *longer)
        key = next((name for name in names if name not in self.images), None)
        if key is None or any(self.files.get(name) == file for name in names):
            raise DatasetError(f"{self.source}: two images are named {names[0]!r}; rename one")
        self.images[key], self.files[key] = row, file

    def _sort_annotations(self, rows: list[dict[str, Any]]) -> list[str]:
        """Gives the outlines to their images; says what is none, and how much of it."""
        crowds, strays = Counter[Any](), Counter[Any]()
        for row in rows:
            image_id = self._id(row, "image_id")
            is_mask = isinstance(row.get("segmentation"), dict)
            if image_id not in self.annotations:
                strays[image_id] += 1
            elif self._is_crowd(row) and not is_mask:
                # A region that nobody outlined one by one.
                crowds[image_id] += 1
            else:
                self.annotations[image_id].append(row)
        return [
            f"{found.total()} {what} (image_id {', '.join(map(str, [*found][:5]))}"
            f"{', ...' if len(found) > 5 else ''})"
            for found, what in (
                (crowds, "crowds without a mask"),
                (strays, "annotations of images that are not listed"),
            )
            if found
        ]

    def _is_crowd(self, row: dict[str, Any]) -> bool:
        value = row.get("iscrowd")
        try:
            return value is not None and bool(
                parse_int(int(value) if value in (True, False) else value)
            )
        except ValueError as error:
            raise self._fault(f"iscrowd is {short_repr(value)}") from error

    def _rows(self, data: dict[str, Any], name: str) -> list[dict[str, Any]]:
        rows = data.get(name)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._fault(f"{name!r} is missing or no list of objects")
        return rows

    def _field(self, row: dict[str, Any], name: str, *kinds: type) -> str:
        value = row.get(name)
        if not isinstance(value, kinds) or value == "":
            raise self._fault(f"{name!r} is missing or no text: {short_repr(value)}")
        return str(value)

    def _id(self, row: dict[str, Any], name: str) -> int | str:
        """An id; numbers are the same as text."""
        value = row.get(name)
        try:
            return parse_int(value)
        except ValueError as error:
            if isinstance(value, str) and value:
                return value
            raise self._fault(f"{name!r} is missing or no id: {short_repr(value)}") from error

    def _fault(self, what: str) -> DatasetError:
        return DatasetError(f"{self.source}: not a COCO instance file ({what}); export it again")


def write_coco(
    metaphases: Iterable[Metaphase],
    folder: Path,
    description: str = "",
    overwrite: bool = False,
) -> int:
    """Writes ``annotations.json`` and ``images/<key>.png`` into a new folder.

    The folder appears when it is complete: an interrupted run leaves nothing.

    Args:
        metaphases: With images of 0..255; all get the category ``chromosome``.
        folder: Must not exist.
        description: Goes into the JSON: where the images come from.
        overwrite: Replace a folder that holds an ``annotations.json``.

    Returns:
        Number of metaphases.

    Raises:
        ChromozooError: The folder exists or cannot be made.
    """
    if folder.exists() and not (overwrite and (folder / FILE_NAME).is_file()):
        remedy = f"it holds no {FILE_NAME}, so it is not replaced" if overwrite else "or overwrite"
        raise ChromozooError(f"{folder} exists already; choose another folder ({remedy})")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
            made = Path(work, "new")
            count = _write(metaphases, made, description)
            if folder.exists():
                os.replace(folder, Path(work, "old"))
            os.replace(made, folder)
    except OSError as error:
        raise ChromozooError(f"{folder}: cannot be written ({error}); choose another") from error
    return count


def _write(metaphases: Iterable[Metaphase], folder: Path, description: str) -> int:
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
            # What is written of the outline must be true of what is read again.
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
    """Whether ``chromozoo segment`` wrote it, whose images are where the user has them."""
    info = data.get("info")
    said = info.get("description") if isinstance(info, dict) else None
    return isinstance(said, str) and said.startswith("ChromoZoo ")


def _outline(segmentation: Any, image: NDArray[np.float32], name: str) -> NDArray[np.float64]:
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
