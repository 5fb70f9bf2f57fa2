"""Metaphases in COCO instance format: one JSON of all outlines, and the image files."""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from chromozoo.data.archive import open_archive
from chromozoo.data.labelme import PREFIX, parse_json
from chromozoo.data.polygons import (
    Metaphase,
    mask_box,
    natural_order,
    polygon_mask,
    read_polygon,
)
from chromozoo.errors import ChromozooError, DatasetError, ImageError
from chromozoo.images.reading import read_bytes, read_grey

FILE_NAME = "annotations.json"


class CocoFiles:
    """A COCO instance file and its images, in a folder or zip file.

    Args:
        path: Folder or zip file.
        name: Of the JSON in it. Images are looked for beside it, in ``images/`` beside it, and in
            ``images/`` beside its folder.

    Raises:
        DatasetError: The JSON is damaged or no COCO file, names an image twice or one that is
            missing.
    """

    def __init__(self, path: Path, name: str = FILE_NAME) -> None:
        self.path = path
        self.source = f"{path}: {name}"
        with open_archive(path) as archive:
            data = parse_json(archive.read(name), self.source)
            files = set(archive.names())
        try:
            self.labels = {row["id"]: str(row["name"]) for row in data["categories"]}
            self.images: dict[str, dict[str, Any]] = {}
            self.annotations: dict[Any, list[dict[str, Any]]] = {}
            for image in data["images"]:
                file = _find(str(image["file_name"]), PurePosixPath(name).parent, files)
                if file is None:
                    raise DatasetError(
                        f"{self.source}: image {image['file_name']} is not there; put it beside "
                        "the file or into images/"
                    )
                key = PurePosixPath(file).stem.removeprefix(PREFIX)
                if key in self.images:
                    raise DatasetError(f"{self.source}: two images are named {key!r}; rename one")
                self.images[key] = {**image, "file_name": file}
                self.annotations[image["id"]] = []
            for row in data["annotations"]:
                # A crowd is a region that nobody outlined one by one.
                if not row.get("iscrowd"):
                    self.annotations[row["image_id"]].append(row)
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{self.source}: not a COCO instance file ({error!r} is missing or out of place); "
                "export it again"
            ) from error

    def keys(self) -> list[str]:
        """Names of the images, in natural order."""
        return natural_order(self.images)

    def read(self, key: str) -> Metaphase:
        """Decodes one image and its polygons.

        Raises:
            DatasetError: The image is damaged or of another size, or an outline is not one
                polygon.
        """
        row = self.images[key]
        source = f"{self.path}: {row['file_name']}"
        with open_archive(self.path) as archive:
            data = archive.read(row["file_name"])
        try:
            image = read_grey(read_bytes(data, source), source)
        except ImageError as error:
            raise DatasetError(str(error)) from error
        told = row.get("width"), row.get("height")
        if told != image.shape[::-1]:
            raise DatasetError(
                f"{source}: {self.source} says that it is {told[0]}x{told[1]}, but it is "
                f"{image.shape[1]}x{image.shape[0]}; put back the image that was annotated"
            )
        annotations = self.annotations[row["id"]]
        shapes = [f"annotation {annotation.get('id')}" for annotation in annotations]
        polygons, labels = [], []
        for annotation, shape in zip(annotations, shapes, strict=True):
            rings = annotation.get("segmentation")
            if not isinstance(rings, list) or len(rings) != 1 or not isinstance(rings[0], list):
                raise DatasetError(
                    f"{source}: {shape} is not outlined by one polygon; export polygons, one for "
                    "each chromosome"
                )
            points = [rings[0][start : start + 2] for start in range(0, len(rings[0]), 2)]
            polygons.append(read_polygon(points, f"{source}: {shape}"))
            labels.append(self.labels.get(annotation.get("category_id"), ""))
        return Metaphase(key, image, polygons, labels, source, shapes)


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
        for polygon in metaphase.polygons:
            mask = polygon_mask(polygon, height, width)
            x0, y0, x1, y1 = mask_box(mask).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "segmentation": [polygon.round(2).ravel().tolist()],
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


def _find(file_name: str, folder: PurePosixPath, files: set[str]) -> str | None:
    for place in (folder, folder / "images", folder.parent / "images"):
        candidate = (place / file_name).as_posix()
        if candidate in files:
            return candidate
    return None
