"""CIL:54816: G-band metaphases with boxes and classes for detection and classification.

Source: Cell Image Library, doi 10.7295/W9CIL54816: 1,100 images of the published 5,000, with about
46 boxes each and no masks.

Files, as published (Pascal VOC with the names ``A1`` to ``G22``, ``X`` and ``Y``; the folder
``JEPG`` is misspelt)::

    gband-cil54816.zip               (or a folder gband-cil54816/)
    └── 24_chromosomes_object/
        ├── JEPG/103071.jpg
        ├── annotations/103071.xml
        └── ...

Licence: not verified.

Reference: Tseng et al. 2023, Scientific Data.

Example::

    dataset = Cil54816Dataset("data", split="val")
    item = dataset[0]
    item["boxes"].shape, item["labels"]  # (46, 4), 1 to 24 by class

Known defects are repaired when a file is read, and :func:`verify` counts them. Boxes that leave the
image are clipped. Of two boxes with the same corners the later one is removed; the files are in the
order of the classes, so X is removed and not an autosome. Listed images without a file are left
out.

The published boxes have a rim around their chromosomes. Its median over 250 isolated chromosomes of
training images is 6 pixels on the left, 8 above, 5 on the right and 4 below, and half of the
chromosomes are within 2 pixels of that on every side. Models here predict masks, whose boxes are
tight, so the rim is removed for training and evaluation. Published results of other authors on this
data set are for boxes with rims.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.data.base.chromosome_datamodule import ChromosomeDataModule
from chromozoo.data.base.chromosome_dataset import ChromosomeDataset, Chromosomes
from chromozoo.data.base.content_index import cached_facts
from chromozoo.data.base.crop_dataset import sha256_of
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.base.metaphase_dataset import SplitMetaphaseDataset
from chromozoo.data.base.verification import describe_classes, describe_content, describe_split
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import Archive, find_dataset, name_bytes, open_archive
from chromozoo.data.splits import load_split
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images.reading import read_bytes, read_grey
from chromozoo.strict_json import short_repr
from chromozoo.structures.metaphase import Metaphase

FILE_NAME = "gband-cil54816.zip"
SPLIT = "cil54816_v1"
# Pixels around a box that a crop shows: the background level is measured there.
MARGIN = 4
# Width of the rim of the published boxes in pixels: left, above, right, below.
RIM = np.array([6.0, 8.0, 5.0, 4.0])
# Largest rim, as a fraction of a box's side.
MAX_RIM = 0.6
# Size of one annotation file. The published ones have 15 kB.
MAX_XML_BYTES = 4 << 20
# Side of an image in pixels.
MAX_SIDE = 1_000_000

INSTRUCTIONS = """To get it:
  1. Download CIL:54816 from the Cell Image Library (doi 10.7295/W9CIL54816; Tseng et al. 2023,
     Scientific Data; licence not verified).
  2. Put the archive, or the folder unpacked from it, here:
         {folder}/
         └── gband-cil54816.zip      (or a folder gband-cil54816/)
             └── 24_chromosomes_object/
                 ├── JEPG/103071.jpg
                 ├── annotations/103071.xml
                 └── ...
     or name another folder: CHROMOZOO_DATA=/folder, or --data.init_args.root /folder
  3. Check it: chromozoo data verify cil54816"""

_NAME = re.compile(r"^[A-G]?(?P<label>[0-9]{1,2}|X|Y)$")


@dataclass(frozen=True, eq=False)
class Annotation:
    """The annotation of one image, repaired.

    Attributes:
        boxes: ``(N, 4)`` float64 xyxy in pixels of the image, clipped to it, with their rims.
        classes: ``(N,)`` int64 class indices 0 to 23.
        shape: ``(H, W)`` of the image according to the annotation.
        clipped: Number of boxes that left the image.
        duplicates: Number of boxes that were removed because another has the same corners.
        empty: Number of boxes that were removed because they cover no pixel.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    shape: tuple[int, int]
    clipped: int
    duplicates: int
    empty: int

    @property
    def tight_boxes(self) -> NDArray[np.float64]:
        """The boxes without their rims: ``(N, 4)`` xyxy."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        share = np.minimum(1, MAX_RIM * sides / (RIM[:2] + RIM[2:]))
        inner: NDArray[np.float64] = self.boxes + np.hstack([share, -share]) * RIM
        return inner


class Cil54816Files:
    """Annotated images of a folder or zip file.

    Args:
        path: Folder or zip file.

    Attributes:
        images, annotations: Names in the archive by key.

    Raises:
        DatasetError: There is no image with an annotation, or an image has two files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: dict[str, str] = {}
        self.annotations: dict[str, str] = {}
        self._lists: list[str] = []
        with open_archive(path) as archive:
            for name in archive.names():
                file = PurePosixPath(name)
                if file.name in ("train.txt", "test.txt"):
                    self._lists.append(name)
                elif not file.name.startswith("."):
                    kinds = {".jpg": self.images, ".xml": self.annotations}
                    kind = kinds.get(file.suffix.lower(), {})
                    if (twin := kind.setdefault(file.stem, name)) != name:
                        raise DatasetError(
                            f"{path}: {twin} and {name} are both of image {file.stem!r}; remove one"
                        )
        if not self.keys():
            raise DatasetError(
                f"{path}: holds no <id>.jpg with <id>.xml; this is not the CIL:54816 set"
            )

    def keys(self) -> list[str]:
        """Return the names of the images that have both files, sorted."""
        return sorted(self.images.keys() & self.annotations.keys())

    def read_lists(self) -> set[str]:
        """Return the keys in ``train.txt`` and ``test.txt``, also of images without a file.

        Raises:
            DatasetError: A list is damaged; the message names it.
        """
        with open_archive(self.path) as archive:
            texts = [archive.read(name).decode("utf-8", "replace") for name in self._lists]
        return {key for text in texts for key in text.split()}

    def read_boxes(self, key: str) -> Annotation:
        """Read the annotation of one image and repair it.

        Raises:
            DatasetError: The file is damaged or has an unknown class; the message names it.
        """
        with open_archive(self.path) as archive:
            return self._parse_annotation(archive, key)

    def read_image(self, key: str) -> NDArray[np.float32]:
        """Decode one image: ``(H, W)`` float32 grey.

        Raises:
            DatasetError: The file is damaged; the message names it.
        """
        source = f"{self.path}: {self.images[key]}"
        with open_archive(self.path) as archive:
            data = archive.read(self.images[key])
        try:
            return read_grey(read_bytes(data, source), source)
        except ImageError as error:
            raise DatasetError(str(error)) from error

    def read(self, key: str) -> Metaphase:
        """Decode one image; its polygons are the tight boxes, its labels class names.

        Raises:
            DatasetError: A file is damaged, or the sizes differ; the message names the file.
        """
        image, found = self.read_image(key), self.read_boxes(key)
        source = f"{self.path}: {self.annotations[key]}"
        if image.shape != found.shape:
            raise DatasetError(
                f"{source}: describes an image of {found.shape[1]}x{found.shape[0]}, but the image "
                f"is {image.shape[1]}x{image.shape[0]}; fetch both again"
            )
        return Metaphase(
            key,
            image,
            [
                np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
                for x0, y0, x1, y1 in found.tight_boxes
            ],
            [CLASSES[label] for label in found.classes],
            source,
            [f"box {number}" for number in range(len(found.boxes))],
            boxes_only=True,
        )

    def _parse_annotation(self, archive: Archive, key: str) -> Annotation:
        source = f"{self.path}: {self.annotations[key]}"
        boxes: dict[tuple[float, ...], int] = {}
        clipped = duplicates = empty = 0
        try:
            root = _parse_xml(archive.read(self.annotations[key]))
            width, height = (_read_number(root, f"size/{side}") for side in ("width", "height"))
            for shape in root.iterfind("object"):
                name = shape.findtext("name", "")
                match = _NAME.match(name)
                if match is None or match["label"] not in CLASS_INDEX:
                    raise ValueError(f"unknown class {short_repr(name)}")
                corners = [
                    _read_number(shape, f"bndbox/{end}") for end in ("xmin", "ymin", "xmax", "ymax")
                ]
                box = tuple(np.clip(corners, 0, (width, height, width, height)).tolist())
                if box[2] - box[0] < 1 or box[3] - box[1] < 1:
                    empty += 1
                elif box in boxes:
                    duplicates += 1
                else:
                    clipped += list(box) != corners
                    boxes[box] = CLASS_INDEX[match["label"]]
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            # LookupError: raised for an encoding that Python does not know.
            raise DatasetError(
                f"{source}: no annotation in Pascal VOC ({error}); mend it or fetch it again"
            ) from error
        return Annotation(
            np.array([*boxes], np.float64).reshape(-1, 4),
            np.array([*boxes.values()], np.int64),
            (int(height), int(width)),
            clipped,
            duplicates,
            empty,
        )


def contents_sha256(root: str | os.PathLike[str] | None = None) -> str:
    """Return the hash of all files.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
    """
    return sha256_of(_contents(Cil54816Files(find_dataset(FILE_NAME, INSTRUCTIONS, root))))


def cut_box(image: NDArray[np.float32], box: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cut a box xyxy and 4 pixels around it from an image ``(H, W)``."""
    left, top = (max(int(edge) - MARGIN, 0) for edge in box[:2])
    right, bottom = (int(np.ceil(edge)) + MARGIN for edge in box[2:])
    return image[top:bottom, left:right]


def group_of(key: str) -> str:
    """Return the group of an image: its name without a suffix such as ``_1`` and its last digit."""
    return re.sub(r"_\d+$", "", key)[:-1]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Read every file, and count the repairs and the boxes by class and split.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
        DatasetError: It is another data set.
    """
    path = find_dataset(FILE_NAME, INSTRUCTIONS, root)
    files = Cil54816Files(path)
    split = load_split(SPLIT)
    faults: list[str] = []
    found: dict[str, Annotation] = {}
    keys = files.keys()
    for key in keys:
        try:
            files.read(key)
            found[key] = files.read_boxes(key)
        except DatasetError as error:
            faults.append(str(error))
    known = set(split.ids("all"))
    faults += [f"image {key} of the split has no file" for key in sorted(known - {*keys})]
    lone = sorted((files.images.keys() ^ files.annotations.keys()) - {*keys})
    faults += [f"{path}: image {key} lacks its image or annotation file" for key in lone]
    numbers = Counter(len(one.boxes) for one in found.values())
    by_image = Counter({key: len(one.boxes) for key, one in found.items()})
    without_file = sorted(files.read_lists() - {*keys})
    lines = [
        describe_content(_contents(files)),
        f"{len(keys)} images of {len({group_of(key) for key in keys})} groups",
        f"{by_image.total()} boxes",
        f"clipped at the edge of the image: {sum(one.clipped for one in found.values())} boxes",
        f"removed, repeating another: {sum(one.duplicates for one in found.values())} boxes",
        f"removed, covering nothing: {sum(one.empty for one in found.values())} boxes",
        f"listed without a file: {len(without_file)} ({', '.join(without_file) or 'none'})",
        "boxes of an image: "
        + ", ".join(f"{number}: {numbers[number]} images" for number in sorted(numbers)),
        describe_classes([int(label) for one in found.values() for label in one.classes]),
        f"in no part of the split: {len({*keys} - known - {*split.excluded})} images",
        *describe_split(split, by_image, "images", "boxes"),
    ]
    return Verification(path, tuple(lines), tuple(faults))


class Cil54816Dataset(SplitMetaphaseDataset):
    """G-band metaphases with tight boxes and classes (labels 1 to 24), split by group.

    Items have no masks. The arguments are those of :class:`SplitMetaphaseDataset`.
    """

    dataset_name = "cil54816"
    split_name = SPLIT
    with_classes = True

    @classmethod
    def open_files(cls, root: str | os.PathLike[str] | None = None) -> Cil54816Files:
        return Cil54816Files(find_dataset(FILE_NAME, INSTRUCTIONS, root))


class Cil54816DataModule(MetaphaseDataModule):
    """DataModule of :class:`Cil54816Dataset`, for detection.

    Training crops are rotated by quarter turns, so that boxes stay tight, and ``synthetic`` must be
    0. The arguments are those of :class:`MetaphaseDataModule`.
    """

    dataset_class = Cil54816Dataset


class Cil54816CropsDataset(ChromosomeDataset):
    """G-band chromosomes cut from metaphases by their boxes, with everything in the box.

    A crop shows the tight box and 4 pixels around it, neighbours included, because the outlines are
    unknown. The cells are the images. The arguments are those of :class:`ChromosomeDataset`.
    """

    dataset_name = "cil54816-crops"
    split_name = SPLIT

    @classmethod
    def list_chromosomes(
        cls,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        cache: Path | None = None,
    ) -> Chromosomes:
        split = cls.load_split(fold)
        path = find_dataset(FILE_NAME, INSTRUCTIONS, root)
        files = Cil54816Files(path)

        def compute() -> dict[str, Any]:
            classes = {key: files.read_boxes(key).classes.tolist() for key in files.keys()}  # noqa: SIM118
            return {
                "sha256": sha256_of([*_contents(files), RIM.tobytes()]),
                "classes": classes,
            }

        def images() -> Iterator[tuple[str, NDArray[np.generic]]]:
            for key in files.keys():  # noqa: SIM118
                image = files.read(key).image
                for number, box in enumerate(files.read_boxes(key).tight_boxes):
                    name = f"{files.path}: {files.images[key]}, box {number}"
                    yield name, cut_box(image, box)

        facts = cached_facts(cls.dataset_name, [path], compute, cache)
        classes: dict[str, list[int]] = facts["classes"]
        return Chromosomes(
            np.array([label for labels in classes.values() for label in labels], np.int64),
            np.repeat([*classes], [len(labels) for labels in classes.values()]),
            facts["sha256"],
            images,
            split,
        )


class Cil54816CropsDataModule(ChromosomeDataModule):
    """DataModule of :class:`Cil54816CropsDataset`.

    The arguments are those of :class:`ChromosomeDataModule`.
    """

    dataset_class = Cil54816CropsDataset
    stain = "g"


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str, system: str) -> None:
        # Nested entities could expand a few lines to a billion.
        raise ValueError("it declares a document type, which is not read")


def _parse_xml(data: bytes) -> ElementTree.Element:
    if len(data) > MAX_XML_BYTES:
        raise ValueError(f"{len(data):,} bytes are more than {MAX_XML_BYTES:,}")
    return ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoDoctype()))


def _read_number(element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) <= MAX_SIDE:
        raise ValueError(f"{path} is {short_repr(text)}")
    return number


def _contents(files: Cil54816Files) -> Iterator[bytes]:
    with open_archive(files.path) as archive:
        for key in files.keys():  # noqa: SIM118
            for name in (files.annotations[key], files.images[key]):
                yield from (name_bytes(name), archive.read(name))
