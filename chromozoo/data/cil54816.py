"""CIL:54816, G-band: metaphases with a box and a class for each chromosome.

Tseng et al. 2023, Scientific Data; Cell Image Library, doi 10.7295/W9CIL54816. Pascal VOC as
published: ``24_chromosomes_object/{JEPG,annotations}/<id>.{jpg,xml}`` (the folder is misspelt),
names ``A1`` to ``G22``, ``X``, ``Y``. There are no masks.

Known defects are repaired where a file is read, and counted by :func:`verify`: a box that leaves
the image is clipped; of two names on exactly one box the later in the file goes (the files are in
the order of the classes, so X goes and not an autosome); a listed image without file is left out.

The published boxes leave a rim around their chromosomes. Of 250 chromosomes of training images
that lie free, its median is 6 pixels on the left, 8 above, 5 on the right and 4 below; half of them
are within 2 pixels of that on every side. Models here find outlines, and the box of an outline is
tight, so the rim is taken off wherever boxes are learnt or judged. Figures of others on this set
are for the boxes with their rims.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.data.base.chromosome_datamodule import ChromosomeDataModule, Chromosomes
from chromozoo.data.base.crops import sha256_of
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.base.verification import class_line, content_line, split_lines
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import Archive, find_dataset, name_bytes, open_archive
from chromozoo.data.splits import load_split
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images.reading import read_bytes, read_grey
from chromozoo.strict_json import short_repr
from chromozoo.structures.metaphase import Metaphase

FILE_NAME = "gband-cil54816.zip"
SPLIT = "cil54816_v1"
# Pixels around a box that a crop shows: the level of the background is taken from its rim.
MARGIN = 4
# Width of the rim that the published boxes leave: left, above, right, below.
RIM = np.array([6.0, 8.0, 5.0, 4.0])
# No more of a box's side than this is taken for its rim.
MAX_RIM = 0.6
# Of one annotation. The published ones have 15 kB.
MAX_XML_BYTES = 4 << 20
# Of an image, in pixels.
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
        boxes: ``(N, 4)`` float64 xyxy in pixels of the image, within it, with their rims.
        classes: ``(N,)`` int64 class indices 0 to 23.
        shape: ``(H, W)`` of the image, as the annotation has it.
        clipped: Number of the boxes that left the image.
        duplicates: Number of the boxes that were removed, for another has the same corners.
        empty: Number of the boxes that were removed, for they cover nothing.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    shape: tuple[int, int]
    clipped: int
    duplicates: int
    empty: int

    @property
    def tight(self) -> NDArray[np.float64]:
        """The boxes without their rims, ``(N, 4)`` xyxy."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        share = np.minimum(1, MAX_RIM * sides / (RIM[:2] + RIM[2:]))
        inner: NDArray[np.float64] = self.boxes + np.hstack([share, -share]) * RIM
        return inner


class Cil54816DataModule(MetaphaseDataModule):
    """G-band metaphases with boxes and classes (labels 1 to 24), for detection; split by group.

    Boxes are tight: the rims of the published ones are taken off.
    Batches are those of :class:`chromozoo.data.base.metaphase_datamodule.MetaphaseDataModule` without masks.
    Training crops are turned by quarters, so that boxes stay tight, and ``synthetic`` must stay 0.
    The arguments are those of the base.
    """

    dataset_name = "cil54816"
    split_name = SPLIT
    with_classes = True

    def files(self) -> "CILFiles":
        return CILFiles(find_dataset(FILE_NAME, INSTRUCTIONS, self.root))


class Cil54816CropsDataModule(ChromosomeDataModule):
    """G-band chromosomes cut from metaphases by their boxes, with all that lies in the box.

    A crop shows its tight box and 4 pixels around it. Nothing of a neighbour is cleared away: that,
    and which of the two is meant, is what a crop without outline leaves open. The cells are the
    images. The arguments are those of
    :class:`chromozoo.data.base.chromosome_datamodule.ChromosomeDataModule`.
    """

    dataset_name = "cil54816-crops"
    split_name = SPLIT
    stain = "g"

    def chromosomes(self) -> Chromosomes:
        files = CILFiles(find_dataset(FILE_NAME, INSTRUCTIONS, self.root))
        annotations = {key: files.boxes(key) for key in files.keys()}  # noqa: SIM118

        def images() -> Iterator[tuple[str, NDArray[np.generic]]]:
            for key, annotation in annotations.items():
                image = files.read(key).image
                for number, box in enumerate(annotation.tight):
                    name = f"{files.path}: {files.images[key]}, box {number}"
                    yield name, cut_box(image, box)

        return Chromosomes(
            np.concatenate([one.classes for one in annotations.values()]),
            np.repeat([*annotations], [len(one.boxes) for one in annotations.values()]),
            sha256_of([*_contents(files), RIM.tobytes()]),
            images,
        )


class CILFiles:
    """All images of a folder or zip file that have an annotation.

    Args:
        path: Folder or zip file.

    Attributes:
        images, annotations: Names in the archive by key.
        listed: Keys that ``train.txt`` and ``test.txt`` name.

    Raises:
        DatasetError: There is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: dict[str, str] = {}
        self.annotations: dict[str, str] = {}
        self.listed: set[str] = set()
        with open_archive(path) as archive:
            for name in archive.names():
                file = PurePosixPath(name)
                if file.name in ("train.txt", "test.txt"):
                    self.listed |= set(archive.read(name).decode("utf-8", "replace").split())
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
        """Names of the images that have both files, sorted."""
        return sorted(self.images.keys() & self.annotations.keys())

    def boxes(self, key: str) -> Annotation:
        """Reads the annotation of one image and repairs it.

        Raises:
            DatasetError: The file is damaged or names an unknown class; the message names it.
        """
        with open_archive(self.path) as archive:
            return self._boxes(archive, key)

    def image(self, key: str) -> NDArray[np.float32]:
        """Decodes one image: ``(H, W)`` float32 grey.

        Raises:
            DatasetError: It is damaged; the message names it.
        """
        source = f"{self.path}: {self.images[key]}"
        with open_archive(self.path) as archive:
            data = archive.read(self.images[key])
        try:
            return read_grey(read_bytes(data, source), source)
        except ImageError as error:
            raise DatasetError(str(error)) from error

    def read(self, key: str) -> Metaphase:
        """Decodes one image; its polygons are the tight boxes, its labels names of classes.

        Raises:
            DatasetError: A file is damaged, or they do not fit; the message names it.
        """
        image, found = self.image(key), self.boxes(key)
        source = f"{self.path}: {self.annotations[key]}"
        if image.shape != found.shape:
            raise DatasetError(
                f"{source}: is of an image of {found.shape[1]}x{found.shape[0]}, but the image "
                f"is {image.shape[1]}x{image.shape[0]}; fetch both again"
            )
        return Metaphase(
            key,
            image,
            [np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) for x0, y0, x1, y1 in found.tight],
            [CLASSES[label] for label in found.classes],
            source,
            [f"box {number}" for number in range(len(found.boxes))],
            boxes_only=True,
        )

    def _boxes(self, archive: Archive, key: str) -> Annotation:
        source = f"{self.path}: {self.annotations[key]}"
        kept: dict[tuple[float, ...], int] = {}
        clipped = duplicates = empty = 0
        try:
            root = _parse_xml(archive.read(self.annotations[key]))
            width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
            for shape in root.iterfind("object"):
                name = shape.findtext("name", "")
                match = _NAME.match(name)
                if match is None or match["label"] not in CLASS_INDEX:
                    raise ValueError(f"unknown class {short_repr(name)}")
                corners = [
                    _number(shape, f"bndbox/{end}") for end in ("xmin", "ymin", "xmax", "ymax")
                ]
                box = tuple(np.clip(corners, 0, (width, height, width, height)).tolist())
                if box[2] - box[0] < 1 or box[3] - box[1] < 1:
                    empty += 1
                elif box in kept:
                    duplicates += 1
                else:
                    clipped += list(box) != corners
                    kept[box] = CLASS_INDEX[match["label"]]
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            # LookupError: of an encoding that Python does not know.
            raise DatasetError(
                f"{source}: no annotation in Pascal VOC ({error}); mend it or fetch it again"
            ) from error
        return Annotation(
            np.array([*kept], np.float64).reshape(-1, 4),
            np.array([*kept.values()], np.int64),
            (int(height), int(width)),
            clipped,
            duplicates,
            empty,
        )


def contents_sha256(root: str | os.PathLike[str] | None = None) -> str:
    """Hash of all files of the set.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
    """
    return sha256_of(_contents(CILFiles(find_dataset(FILE_NAME, INSTRUCTIONS, root))))


def cut_box(image: NDArray[np.float32], box: NDArray[np.float64]) -> NDArray[np.float32]:
    """What an image ``(H, W)`` shows in a box xyxy and 4 pixels around it."""
    left, top = (max(int(edge) - MARGIN, 0) for edge in box[:2])
    right, bottom = (int(np.ceil(edge)) + MARGIN for edge in box[2:])
    return image[top:bottom, left:right]


def group_of(key: str) -> str:
    """The group of an image: its name without the last digit, a suffix such as ``_1`` apart."""
    return re.sub(r"_\d+$", "", key)[:-1]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Reads every file, counts what was repaired, and the boxes by class and split.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
        DatasetError: It is another set.
    """
    path = find_dataset(FILE_NAME, INSTRUCTIONS, root)
    files = CILFiles(path)
    split = load_split(SPLIT)
    faults: list[str] = []
    found: dict[str, Annotation] = {}
    keys = files.keys()
    for key in keys:
        try:
            files.read(key)
            found[key] = files.boxes(key)
        except DatasetError as error:
            faults.append(str(error))
    known = set(split.ids("all"))
    faults += [f"image {key} of the split has no file" for key in sorted(known - {*keys})]
    lone = sorted((files.images.keys() ^ files.annotations.keys()) - {*keys})
    faults += [f"{path}: of {key} there is only the image or the annotation" for key in lone]
    numbers = Counter(len(one.boxes) for one in found.values())
    by_image = Counter({key: len(one.boxes) for key, one in found.items()})
    without_file = sorted(files.listed - {*keys})
    lines = [
        content_line(_contents(files)),
        f"{len(keys)} images of {len({group_of(key) for key in keys})} groups",
        f"{by_image.total()} boxes",
        f"clipped at the edge of the image: {sum(one.clipped for one in found.values())} boxes",
        f"removed, repeating another: {sum(one.duplicates for one in found.values())} boxes",
        f"removed, covering nothing: {sum(one.empty for one in found.values())} boxes",
        f"listed without a file: {len(without_file)} ({', '.join(without_file) or 'none'})",
        "boxes of an image: "
        + ", ".join(f"{number}: {numbers[number]} images" for number in sorted(numbers)),
        class_line([int(label) for one in found.values() for label in one.classes]),
        f"in no part of the split: {len({*keys} - known - {*split.excluded})} images",
        *split_lines(split, by_image, "images", "boxes"),
    ]
    return Verification(path, tuple(lines), tuple(faults))


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str, system: str) -> None:
        # Its entities may stand for each other, until a few lines are a billion.
        raise ValueError("it declares a document type, which is not read")


def _parse_xml(data: bytes) -> ElementTree.Element:
    if len(data) > MAX_XML_BYTES:
        raise ValueError(f"{len(data):,} bytes are more than {MAX_XML_BYTES:,}")
    return ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoDoctype()))


def _number(element: ElementTree.Element, path: str) -> float:
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


def _contents(files: CILFiles) -> Iterator[bytes]:
    with open_archive(files.path) as archive:
        for key in files.keys():  # noqa: SIM118
            for name in (files.annotations[key], files.images[key]):
                yield from (name_bytes(name), archive.read(name))
