"""BioImLab: Q-band prometaphases with amodal outlines for segmentation.

Source: images of the Biomedical Imaging Laboratory, University of Padova; polygons of Wang et al.
2023: 150 images of 768x576 pixels with 6,231 amodal polygons.

Files, as published: labelme files with embedded images. COCO JSON is read as well::

    bioimlab-segmentation.zip        (or a folder bioimlab-segmentation/)
    ├── original_2.json
    ├── ...
    └── original_117c.json

Licence: images: public download, no licence stated, research use; polygons: MPL-2.0.

Reference: Wang et al. 2023, Biomedical Signal Processing and Control,
doi 10.1016/j.bspc.2023.105199.

Example::

    dataset = BioImLabSegmentationDataset("data", split="val")
    item = dataset[0]
    item["image"].shape, item["masks"].shape  # (1, 576, 768), (46, 576, 768)
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from chromozoo.data.base.crop_dataset import sha256_of
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.base.metaphase_dataset import SplitMetaphaseDataset
from chromozoo.data.base.verification import describe_content, describe_split, find_split_faults
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import exists, find_dataset, name_bytes, open_archive
from chromozoo.data.io.metaphase_files import open_metaphases
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


class BioImLabSegmentationDataset(SplitMetaphaseDataset):
    """Q-band prometaphases with amodal outlines, split by image and grouped by cell.

    The arguments are those of :class:`SplitMetaphaseDataset`; ``root`` may also be a COCO JSON.
    """

    dataset_name = "bioimlab-segmentation"
    split_name = SPLIT

    @classmethod
    def open_files(cls, root: str | os.PathLike[str] | None = None) -> MetaphaseFiles:
        return open_metaphases(find_path(root))


class BioImLabSegmentationDataModule(MetaphaseDataModule):
    """DataModule of :class:`BioImLabSegmentationDataset`.

    The arguments are those of :class:`MetaphaseDataModule`; ``root`` may also be a COCO JSON.
    """

    dataset_class = BioImLabSegmentationDataset


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Read every file, check every outline, and count the polygons by split.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
        DatasetError: The list of its files is damaged.
    """
    path = find_path(root)
    files = open_metaphases(path)
    split = load_split(SPLIT)
    messages: list[str] = []
    polygons: dict[str, int] = {}
    sizes: set[tuple[int, ...]] = set()
    keys = files.keys()
    for key in keys:
        try:
            metaphase = files.read(key)
        except DatasetError as error:
            messages.append(str(error))
            continue
        messages += find_faults(metaphase)
        polygons[key] = len(metaphase.polygons)
        sizes.add(metaphase.image.shape[::-1])
    messages += find_split_faults(split, keys, "image")
    lines = [
        describe_content(_contents(path)),
        f"{len(keys)} images, {sum(polygons.values())} polygons",
        "sizes: " + ", ".join(f"{width}x{height}" for width, height in sorted(sizes)),
        *describe_split(split, polygons, "images", "polygons"),
        f"{split.name}: left out {', '.join(split.excluded)}",
        *(f"left out: {summary}" for summary in files.left_out),
    ]
    return Verification(path, tuple(lines), tuple(messages))


def contents_sha256(root: str | os.PathLike[str] | None = None) -> str:
    """Return the hash of all files.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
    """
    return sha256_of(_contents(find_path(root)))


def find_path(root: str | os.PathLike[str] | None) -> Path:
    """Return the path of the data set: a folder, a zip file or a COCO JSON.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
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
