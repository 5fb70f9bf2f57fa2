"""M-FISH, DAPI (Q-like bands): metaphases with a 24-class map of their pixels.

PSI M-FISH image set 1, Advanced Digital Imaging Research 2000 (W. Schwartzkopf). Layout:
``<id>D.png`` is the DAPI image, ``<id>K.png`` the map: 0 background, 1 to 22, 23 X, 24 Y, 255
overlap. ``<id>`` is a letter for the probe set, two digits for the slide, two for the image and two
characters for the karyotype (mfish-README.txt, which must travel with the images).

The map knows classes, not chromosomes. These are made of it by :func:`instances_of`.
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
from chromozoo.data.base.crops import sha256_of
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.base.verification import (
    class_line,
    content_line,
    left_out_lines,
    split_faults,
    split_lines,
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

# Mb of DNA (GRCh38), to which the area of a metaphase chromosome is nearly proportional.
MEGABASES = (
    *(249, 242, 198, 190, 182, 171, 159, 145, 138, 134, 135, 133),
    *(114, 107, 102, 90, 83, 80, 59, 64, 47, 51, 156, 57),
)
# Pieces are of one chromosome while they are no larger than this, of what is expected of it. On the
# 76 normal cells, 1.5 leaves 15 pieces too many, 2.2 fuses 5 homologues more.
LARGEST = 1.8
# What covers fewer pixels, beside overlaps, is dust.
MIN_PIXELS = 20
# A map of more pieces is noise, and joining them takes long. The published ones have up to 100.
MAX_PIECES = 2000

_FILE = re.compile(r"(?:^|/)(?P<key>[APV]\d{4}[0-9A-Z]{2})(?P<plane>[DK])\.png$")


class MFishDataModule(MetaphaseDataModule):
    """DAPI metaphases with amodal outlines and classes (labels 1 to 24), split by slide.

    Two homologues that touch each other are one instance, for the map does not part them; a
    translocated chromosome carries one class. The arguments are those of
    :class:`chromozoo.data.base.metaphase_datamodule.MetaphaseDataModule`.
    """

    dataset_name = "mfish"
    split_name = SPLIT
    with_classes = True

    def files(self) -> "MFISHFiles":
        return MFISHFiles(find_dataset(FILE_NAME, INSTRUCTIONS, self.root))


class MFISHFiles:
    """All images of a folder or zip file that have both planes.

    Args:
        path: Folder or zip file.

    Raises:
        DatasetError: There is no such file, or a plane is missing.
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
        """Names of the images, sorted."""
        return sorted(self.names)

    def read(self, key: str) -> Metaphase:
        """Decodes one image and makes the outlines of its map; labels are names of classes.

        Raises:
            DatasetError: A file is damaged, or image and map do not fit; the message names it.
        """
        names = self.names[key]
        with open_archive(self.path) as archive:
            image = self._plane(archive, names["D"])
            values = self._plane(archive, names["K"])
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
            found = instances_of(values.astype(np.uint8))
        except ValueError as error:
            raise DatasetError(f"{source}: {error}; fetch it again") from error
        return Metaphase(
            key,
            image,
            [mask_polygon(mask) for _, mask in found],
            [CLASSES[label] for label, _ in found],
            source,
            [f"instance {number}" for number in range(len(found))],
        )

    def _plane(self, archive: Archive, name: str) -> NDArray[np.float32]:
        source = f"{self.path}: {PurePosixPath(name)}"
        try:
            return read_grey(read_bytes(archive.read(name), source), source)
        except ImageError as error:
            raise DatasetError(str(error)) from error


def instances_of(class_map: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.bool_]]]:
    """The chromosomes of a class map.

    A connected piece of one class (pixels that touch by their sides) is a chromosome. Where
    chromosomes cross, the map shows a region of overlap and the ends of the lower one beside it:
    two pieces of one class that touch the same region are one chromosome, if both together with
    their regions are no larger than 1.8 times what the class is expected to cover, for two
    homologues may also cross the same third. Pieces are joined in the order of that size, the
    smallest first. The expected size is the DNA of the class times the median, over the pieces that
    touch no overlap, of pixels for each Mb. A region of overlap belongs to all chromosomes that
    touch it. What is left of under 20 pixels, beside the overlap, is dust; holes are filled.

    Args:
        class_map: ``(H, W)`` uint8: 0 background, 1 to 24, 255 overlap.

    Returns:
        Class index 0 to 23 and mask ``(H, W)`` bool of each, in the order of the classes.

    Raises:
        ValueError: The map is of more than 2,000 pieces, or their masks would take more than 4 GB.
    """
    pieces, numbers, regions, region_areas = _pieces(class_map)
    if len(pieces) > MAX_PIECES:
        raise ValueError(f"the map is of {len(pieces):,} pieces, noise and no chromosomes")
    if len(pieces) * class_map.size > MAX_MASK_BYTES:
        raise ValueError(f"the map is too large for its {len(pieces):,} pieces")
    free = [piece for piece in pieces if not piece.regions] or pieces
    scale = float(np.median([piece.area / MEGABASES[piece.label] for piece in free] or [0]))

    found = []
    for label in range(len(CLASSES)):
        own = [piece for piece in pieces if piece.label == label]
        largest = LARGEST * scale * MEGABASES[label]
        while (pair := _smallest_pair(own, region_areas)) and pair[0] <= largest:
            _, one, other = pair
            own = [piece for piece in own if piece is not one and piece is not other]
            own.append(_joined(one, other))
        seen = [piece for piece in own if piece.area >= MIN_PIXELS]
        found += [(label, _mask(piece, numbers, regions)) for piece in seen]
    return found


def slide_of(key: str) -> str:
    """The slide of an image, with the letter of its probe set: ``"A01"`` of ``"A0101XY"``."""
    return key[:3]


def karyotype_of(key: str) -> str:
    """The karyotype code of an image, see mfish-README.txt: ``"XY"`` of ``"A0101XY"``."""
    return key[-2:]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Reads every file, makes the chromosomes of every map, and counts them by class and split.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
        DatasetError: A plane is missing.
    """
    path = find_dataset(FILE_NAME, INSTRUCTIONS, root)
    files = MFISHFiles(path)
    split = load_split(SPLIT)
    found: list[str] = []
    counts: dict[str, int] = {}
    classes: list[int] = []
    keys = files.keys()
    for key in keys:
        try:
            metaphase = files.read(key)
        except DatasetError as error:
            found.append(str(error))
            continue
        found += find_faults(metaphase)
        counts[key] = len(metaphase.polygons)
        classes += [CLASSES.index(name) for name in metaphase.labels]
    found += split_faults(split, keys, "image")
    normal = [counts[key] for key in counts if karyotype_of(key) in NORMAL_KARYOTYPES]
    lines = [
        content_line(_contents(files)),
        f"{len(keys)} images of {len({slide_of(key) for key in keys})} slides",
        f"{sum(counts.values())} chromosomes",
        f"{DIPLOID_NUMBER} in {normal.count(DIPLOID_NUMBER)} of {len(normal)} normal karyotypes",
        class_line(classes),
        *split_lines(split, counts, "images"),
        *left_out_lines(
            path, (name for planes in files.names.values() for name in planes.values())
        ),
    ]
    return Verification(path, tuple(lines), tuple(found))


@dataclass(frozen=True, eq=False)
class _Piece:
    label: int
    area: int
    numbers: frozenset[int]  # of the connected pieces that it is made of
    regions: frozenset[int]  # of overlap, that it touches


def _pieces(
    class_map: NDArray[np.uint8],
) -> tuple[list[_Piece], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """All connected pieces; maps of their numbers and of the regions of overlap; these' areas."""
    _, regions = cv2.connectedComponents((class_map == OVERLAP).astype(np.uint8), connectivity=4)
    numbers = np.zeros(class_map.shape, np.int32)
    labels = [0]
    for label in range(len(CLASSES)):
        inside = class_map == label + 1
        number, pieces = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
        numbers[inside] = pieces[inside] + len(labels) - 1
        labels += [label] * (number - 1)
    touched: dict[int, set[int]] = {}
    for one, other in (
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        beside = (numbers[one] > 0) & (regions[other] > 0)
        for piece, region in zip(
            numbers[one][beside].tolist(), regions[other][beside].tolist(), strict=True
        ):
            touched.setdefault(piece, set()).add(region)
    areas = np.bincount(numbers.ravel(), minlength=len(labels))
    found = [
        _Piece(labels[k], int(areas[k]), frozenset({k}), frozenset(touched.get(k, ())))
        for k in range(1, len(labels))
    ]
    return found, numbers, np.asarray(regions, np.int32), np.bincount(regions.ravel())


def _smallest_pair(
    pieces: list[_Piece], region_areas: NDArray[np.int64]
) -> tuple[int, _Piece, _Piece] | None:
    """The two pieces at one region that are smallest together with it, and their size."""
    pairs = [
        (one.area + other.area + int(region_areas[list(shared)].sum()), one, other)
        for number, one in enumerate(pieces)
        for other in pieces[:number]
        if (shared := one.regions & other.regions)
    ]
    return min(pairs, key=lambda pair: pair[0], default=None)


def _joined(one: _Piece, other: _Piece) -> _Piece:
    return _Piece(
        one.label,
        one.area + other.area,
        one.numbers | other.numbers,
        one.regions | other.regions,
    )


def _mask(
    piece: _Piece, numbers: NDArray[np.int32], regions: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """All pixels of a piece and its regions, with holes filled."""
    mask = np.zeros(numbers.shape, np.bool_)
    for number in piece.numbers:
        mask |= numbers == number
    for region in piece.regions:
        mask |= regions == region
    outside = np.pad(mask, 1).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)  # by sides, so a diagonal rim is closed
    filled: NDArray[np.bool_] = outside[1:-1, 1:-1] != 2
    return filled


def contents_sha256(root: str | os.PathLike[str] | None = None) -> str:
    """Hash of all files of the set.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
    """
    return sha256_of(_contents(MFISHFiles(find_dataset(FILE_NAME, INSTRUCTIONS, root))))


def _contents(files: MFISHFiles) -> Iterator[bytes]:
    with open_archive(files.path) as archive:
        for key in files.keys():  # noqa: SIM118
            for name in files.names[key].values():
                yield from (name_bytes(name), archive.read(name))
