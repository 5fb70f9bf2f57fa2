"""BioImLab, Q-band: the set of whole prometaphases with outlined chromosomes (segmentation).

Images: Biomedical Imaging Laboratory, University of Padova. Amodal polygons: Wang et al. 2023,
doi 10.1016/j.bspc.2023.105199. Layout as published: labelme files ``original_<key>.json`` with the
image embedded; the same as COCO JSON is read, too.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from chromozoo.data.base.crops import sha256_of
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.base.metaphase_dataset import metaphase_files
from chromozoo.data.base.verification import content_line, split_faults, split_lines
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import exists, find_dataset, name_bytes, open_archive
from chromozoo.data.splits import load_split
from chromozoo.errors import DatasetError, DatasetNotFoundError
from chromozoo.images.reading import IMAGE_SUFFIXES
from chromozoo.structures.metaphase import MetaphaseFiles, find_faults

FILE_NAME = "bioimlab-segmentation.zip"
SPLIT = "bioimlab_segmentation_v1"

INSTRUCTIONS = """To get it:
  1. Get the annotations of Wang et al. 2023 (doi 10.1016/j.bspc.2023.105199, MPL-2.0): labelme
     files of the BioImLab images of the University of Padova (public download, no licence is
     stated: research use), with the images embedded.
  2. Put the archive, or the folder unpacked from it, here:
         {folder}/
         └── bioimlab-segmentation.zip      (or a folder bioimlab-segmentation/)
             ├── original_2.json
             ├── ...
             └── original_117c.json
     (or annotations.json in COCO format with images/), or name another folder:
     CHROMOZOO_DATA=/folder, or --data.init_args.root /folder
  3. Check it: chromozoo data verify bioimlab-segmentation"""


class BioImLabSegmentationDataModule(MetaphaseDataModule):
    """Q-band prometaphases with amodal outlines, split by image list and grouped by cell.

    The arguments are those of :class:`chromozoo.data.base.metaphase_datamodule.MetaphaseDataModule`; ``root``
    may also be a COCO JSON.
    """

    dataset_name = "bioimlab-segmentation"
    split_name = SPLIT

    def files(self) -> MetaphaseFiles:
        return metaphase_files(find(self.root))


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Reads every file of the set, judges every outline, and counts them by split.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
        DatasetError: The list of its files is damaged.
    """
    path = find(root)
    files = metaphase_files(path)
    split = load_split(SPLIT)
    found: list[str] = []
    polygons: dict[str, int] = {}
    sizes: set[tuple[int, ...]] = set()
    keys = files.keys()
    for key in keys:
        try:
            metaphase = files.read(key)
        except DatasetError as error:
            found.append(str(error))
            continue
        found += find_faults(metaphase)
        polygons[key] = len(metaphase.polygons)
        sizes.add(metaphase.image.shape[::-1])
    found += split_faults(split, keys, "image")
    lines = [
        content_line(_contents(path)),
        f"{len(keys)} images, {sum(polygons.values())} polygons",
        "sizes: " + ", ".join(f"{width}x{height}" for width, height in sorted(sizes)),
        *split_lines(split, polygons, "images", "polygons"),
        f"{split.name}: left out {', '.join(split.excluded)}",
        *(f"left out: {what}" for what in files.left_out),
    ]
    return Verification(path, tuple(lines), tuple(found))


def contents_sha256(root: str | os.PathLike[str] | None = None) -> str:
    """Hash of all files of the set.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
    """
    return sha256_of(_contents(find(root)))


def find(root: str | os.PathLike[str] | None) -> Path:
    """Path of the set.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
    """
    try:
        return find_dataset(FILE_NAME, INSTRUCTIONS, root)
    except DatasetNotFoundError:
        if root is not None and exists(Path(root)) and any(Path(root).glob("*.json")):
            return Path(root)
        raise


def _contents(path: Path) -> Iterator[bytes]:
    folder = path.parent if path.suffix.lower() == ".json" else path
    with open_archive(folder) as archive:
        for name in archive.names():
            if PurePosixPath(name).suffix.lower() in {".json", *IMAGE_SUFFIXES}:
                yield from (name_bytes(name), archive.read(name))
