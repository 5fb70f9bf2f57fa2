"""M-FISH: DAPI metaphases (Q-like bands) with class maps for segmentation and classification.

Source: PSI M-FISH image set 1, Advanced Digital Imaging Research 2000 (W. Schwartzkopf): 163 images
of about 645x517 pixels, many of them abnormal. The class maps have no instances;
:func:`find_instances` derives them.

Files: ``<id>`` is a letter for the probe set, two digits for the slide, two for the image and two
characters for the karyotype::

    mfish-dapi.zip                   (or a folder mfish-dapi/)
    ├── A0101XYD.png                 <id>D.png, the DAPI image
    ├── A0101XYK.png                 <id>K.png, the class map: 0 background, 1 to 22, 23 X, 24 Y,
    └── ...                          255 overlap

Licence: free to use, copy, modify and distribute with its notice (mfish-README.txt, which must
travel with the images).

Reference: Advanced Digital Imaging Research 2000.

Example::

    dataset = MFishDataset("data", split="val")
    item = dataset[0]
    item["masks"].shape, item["labels"]  # (N, h, w), 1 to 24 by class
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASSES, DIPLOID_NUMBER
from chromozoo.data.base.crop_dataset import sha256_of
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.base.metaphase_dataset import SplitMetaphaseDataset
from chromozoo.data.base.verification import (
    describe_classes,
    describe_content,
    describe_ignored_images,
    describe_split,
    find_split_faults,
)
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import Archive, find_dataset, name_bytes, open_archive
from chromozoo.data.splits import load_split
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images.reading import read_bytes, read_grey
from chromozoo.structures.metaphase import MAX_MASK_BYTES, Metaphase, find_faults
from chromozoo.structures.polygons import mask_polygon

FILE_NAME = "mfish-dapi.zip"
SPLIT = "mfish_v1"
OVERLAP = 255
NORMAL_KARYOTYPES = ("XX", "XY")

INSTRUCTIONS = """To get it:
  1. Get the M-FISH image set of Advanced Digital Imaging Research (2000; free to use, copy, modify
     and distribute with its notice), of which the DAPI planes and the class maps are needed.
  2. Put them as PNG into an archive or folder here, with the set's README:
         {folder}/
         └── mfish-dapi.zip      (or a folder mfish-dapi/)
             ├── A0101XYD.png    (DAPI image)
             ├── A0101XYK.png    (class map: 0, 1 to 24, 255 for overlaps)
             └── ...
     or name another folder: CHROMOZOO_DATA=/folder, or --data.init_args.root /folder
  3. Check it: chromozoo data verify mfish"""

# DNA of each class in Mb (GRCh38). The area of a metaphase chromosome is nearly proportional to it.
MEGABASES = (
    *(249, 242, 198, 190, 182, 171, 159, 145, 138, 134, 135, 133),
    *(114, 107, 102, 90, 83, 80, 59, 64, 47, 51, 156, 57),
)
# Largest area of joined fragments, relative to the expected area of a chromosome of their class.
# On the 76 normal cells, 1.5 leaves 15 fragments unjoined and 2.2 fuses 5 more homologues.
MAX_RELATIVE_AREA = 1.8
# Instances with fewer pixels outside of overlaps are dust.
MIN_PIXELS = 20
# Maps of more fragments are noise, and joining them takes long. Published maps have up to 100.
MAX_FRAGMENTS = 2000

_FILE = re.compile(r"(?:^|/)(?P<key>[APV]\d{4}[0-9A-Z]{2})(?P<plane>[DK])\.png$")


class MFishFiles:
    """Metaphases of a folder or zip file.

    Args:
        path: Folder or zip file.

    Attributes:
        names: Names of the planes ``"D"`` and ``"K"`` of each image in the archive.

    Raises:
        DatasetError: There is no image, or a plane is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, dict[str, str]] = {}
        with open_archive(path) as archive:
            for name in archive.names():
                if match := _FILE.search(name):
                    planes = self.names.setdefault(match["key"], {})
                    if (twin := planes.setdefault(match["plane"], name)) != name:
                        raise DatasetError(f"{path}: {twin} and {name} have one name; remove one")
        if not self.names:
            raise DatasetError(
                f"{path}: holds no <id>D.png and <id>K.png; this is not the M-FISH set"
            )
        for key, planes in self.names.items():
            for plane in "DK":
                if plane not in planes:
                    raise DatasetError(
                        f"{path}: {key}{plane}.png is missing; fetch the set again, or remove "
                        f"{next(iter(planes.values()))}"
                    )

    def keys(self) -> list[str]:
        """Return the names of the images, sorted."""
        return sorted(self.names)

    def read(self, key: str) -> Metaphase:
        """Decode one image and derive its outlines from the class map; labels are class names.

        Raises:
            DatasetError: A file is damaged, or image and map do not fit; the message names it.
        """
        names = self.names[key]
        with open_archive(self.path) as archive:
            image = self._read_plane(archive, names["D"])
            values = self._read_plane(archive, names["K"])
        source = f"{self.path}: {names['K']}"
        if image.shape != values.shape:
            raise DatasetError(
                f"{source}: is {values.shape[1]}x{values.shape[0]}, its image "
                f"{image.shape[1]}x{image.shape[0]}; fetch both again"
            )
        if unknown := sorted(set(np.unique(values).tolist()) - {*range(25), OVERLAP}):
            raise DatasetError(
                f"{source}: has the value {unknown[0]:g}; a map has 0 to 24 and {OVERLAP}: fetch "
                "it again"
            )
        try:
            instances = find_instances(values.astype(np.uint8))
        except ValueError as error:
            raise DatasetError(f"{source}: {error}; fetch it again") from error
        return Metaphase(
            key,
            image,
            [mask_polygon(mask) for _, mask in instances],
            [CLASSES[label] for label, _ in instances],
            source,
            [f"instance {number}" for number in range(len(instances))],
        )

    def _read_plane(self, archive: Archive, name: str) -> NDArray[np.float32]:
        source = f"{self.path}: {PurePosixPath(name)}"
        try:
            return read_grey(read_bytes(archive.read(name), source), source)
        except ImageError as error:
            raise DatasetError(str(error)) from error


def find_instances(class_map: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.bool_]]]:
    """Derive the chromosomes from a class map.

    A fragment is a 4-connected component of one class; most fragments are whole chromosomes. Where
    chromosomes cross, the map shows a region of overlap and the two ends of the lower chromosome:
    two fragments of one class that touch the same region are joined. Because two homologues may
    also cross the same third chromosome, fragments are joined only up to 1.8 times the expected
    area of the class, together with their regions, and the smallest pair first. The expected area
    is the DNA of the class times the median number of pixels per Mb of the fragments without
    overlap. A region of overlap belongs to all chromosomes that touch it. Chromosomes of less than
    20 pixels outside of overlaps are dropped as dust, and holes are filled.

    Args:
        class_map: ``(H, W)`` uint8: 0 background, 1 to 24, 255 overlap.

    Returns:
        Class index 0 to 23 and mask ``(H, W)`` bool of each chromosome, in the order of the
        classes.

    Raises:
        ValueError: The map has more than 2,000 fragments, or their masks would take more than 4 GB.
    """
    fragments, numbers, regions, region_areas = _find_fragments(class_map)
    if len(fragments) > MAX_FRAGMENTS:
        raise ValueError(f"the map has {len(fragments):,} fragments, which is noise")
    if len(fragments) * class_map.size > MAX_MASK_BYTES:
        raise ValueError(f"the map is too large for its {len(fragments):,} fragments")
    free = [fragment for fragment in fragments if not fragment.regions] or fragments
    pixels_per_mb = float(np.median([one.area / MEGABASES[one.label] for one in free] or [0]))

    instances = []
    for label in range(len(CLASSES)):
        own = [fragment for fragment in fragments if fragment.label == label]
        max_area = MAX_RELATIVE_AREA * pixels_per_mb * MEGABASES[label]
        while (pair := _find_smallest_pair(own, region_areas)) and pair[0] <= max_area:
            _, one, other = pair
            own = [fragment for fragment in own if fragment is not one and fragment is not other]
            own.append(_join(one, other))
        instances += [
            (label, _fill_mask(fragment, numbers, regions))
            for fragment in own
            if fragment.area >= MIN_PIXELS
        ]
    return instances


class MFishDataset(SplitMetaphaseDataset):
    """DAPI metaphases with amodal outlines and classes (labels 1 to 24), split by slide.

    Two homologues that touch each other are one instance, because the map does not separate them. A
    translocated chromosome has one class. The arguments are those of
    :class:`SplitMetaphaseDataset`.
    """

    dataset_name = "mfish"
    split_name = SPLIT
    with_classes = True

    @classmethod
    def open_files(cls, root: str | os.PathLike[str] | None = None) -> MFishFiles:
        return MFishFiles(find_dataset(FILE_NAME, INSTRUCTIONS, root))


class MFishDataModule(MetaphaseDataModule):
    """DataModule of :class:`MFishDataset`.

    The arguments are those of :class:`MetaphaseDataModule`.
    """

    dataset_class = MFishDataset


def slide_of(key: str) -> str:
    """Return the slide of an image with its probe set: ``"A01"`` for ``"A0101XY"``."""
    return key[:3]


def karyotype_of(key: str) -> str:
    """Return the karyotype code of an image (mfish-README.txt): ``"XY"`` for ``"A0101XY"``."""
    return key[-2:]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Read every file, derive the chromosomes of every map, and count them by class and split.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
        DatasetError: A plane is missing.
    """
    path = find_dataset(FILE_NAME, INSTRUCTIONS, root)
    files = MFishFiles(path)
    split = load_split(SPLIT)
    messages: list[str] = []
    counts: dict[str, int] = {}
    classes: list[int] = []
    keys = files.keys()
    for key in keys:
        try:
            metaphase = files.read(key)
        except DatasetError as error:
            messages.append(str(error))
            continue
        messages += find_faults(metaphase)
        counts[key] = len(metaphase.polygons)
        classes += [CLASSES.index(name) for name in metaphase.labels]
    messages += find_split_faults(split, keys, "image")
    normal = [counts[key] for key in counts if karyotype_of(key) in NORMAL_KARYOTYPES]
    lines = [
        describe_content(_contents(files)),
        f"{len(keys)} images of {len({slide_of(key) for key in keys})} slides",
        f"{sum(counts.values())} chromosomes",
        f"{DIPLOID_NUMBER} in {normal.count(DIPLOID_NUMBER)} of {len(normal)} normal karyotypes",
        describe_classes(classes),
        *describe_split(split, counts, "images"),
        *describe_ignored_images(
            path, (name for planes in files.names.values() for name in planes.values())
        ),
    ]
    return Verification(path, tuple(lines), tuple(messages))


@dataclass(frozen=True, eq=False)
class _Fragment:
    label: int
    area: int
    numbers: frozenset[int]  # its components in the label image
    regions: frozenset[int]  # the regions of overlap that it touches


def _find_fragments(
    class_map: NDArray[np.uint8],
) -> tuple[list[_Fragment], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Find the fragments of a class map.

    Returns:
        The fragments, label images of the fragments and of the regions of overlap, and the areas of
        the regions.
    """
    _, regions = cv2.connectedComponents((class_map == OVERLAP).astype(np.uint8), connectivity=4)
    numbers = np.zeros(class_map.shape, np.int32)
    labels = [0]
    for label in range(len(CLASSES)):
        inside = class_map == label + 1
        number, components = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
        numbers[inside] = components[inside] + len(labels) - 1
        labels += [label] * (number - 1)
    touched: dict[int, set[int]] = {}
    for one, other in (
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        touching = (numbers[one] > 0) & (regions[other] > 0)
        for fragment, region in zip(
            numbers[one][touching].tolist(), regions[other][touching].tolist(), strict=True
        ):
            touched.setdefault(fragment, set()).add(region)
    areas = np.bincount(numbers.ravel(), minlength=len(labels))
    found = [
        _Fragment(labels[k], int(areas[k]), frozenset({k}), frozenset(touched.get(k, ())))
        for k in range(1, len(labels))
    ]
    return found, numbers, np.asarray(regions, np.int32), np.bincount(regions.ravel())


def _find_smallest_pair(
    fragments: list[_Fragment], region_areas: NDArray[np.int64]
) -> tuple[int, _Fragment, _Fragment] | None:
    """Find the two fragments with the smallest area, including common regions, and that area."""
    pairs = [
        (one.area + other.area + int(region_areas[list(shared)].sum()), one, other)
        for number, one in enumerate(fragments)
        for other in fragments[:number]
        if (shared := one.regions & other.regions)
    ]
    return min(pairs, key=lambda pair: pair[0], default=None)


def _join(one: _Fragment, other: _Fragment) -> _Fragment:
    return _Fragment(
        one.label,
        one.area + other.area,
        one.numbers | other.numbers,
        one.regions | other.regions,
    )


def _fill_mask(
    fragment: _Fragment, numbers: NDArray[np.int32], regions: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Return the mask of a fragment and its regions, with holes filled."""
    mask = np.zeros(numbers.shape, np.bool_)
    for number in fragment.numbers:
        mask |= numbers == number
    for region in fragment.regions:
        mask |= regions == region
    outside = np.pad(mask, 1).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)  # 4-connected, so a diagonal rim is closed
    filled: NDArray[np.bool_] = outside[1:-1, 1:-1] != 2
    return filled


def contents_sha256(root: str | os.PathLike[str] | None = None) -> str:
    """Return the hash of all files.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
    """
    return sha256_of(_contents(MFishFiles(find_dataset(FILE_NAME, INSTRUCTIONS, root))))


def _contents(files: MFishFiles) -> Iterator[bytes]:
    with open_archive(files.path) as archive:
        for key in files.keys():  # noqa: SIM118
            for name in files.names[key].values():
                yield from (name_bytes(name), archive.read(name))
