"""BioImLab: Q-band single chromosomes for classification.

Source: Biomedical Imaging Laboratory, University of Padova: 4,922 chromosomes of 107 cells, bright
on a dark background, 13x15 to 200x200 pixels; a few files are RGB.

Files, as published (class 23 is X, 24 is Y)::

    bioimlab-classification.zip      (or a folder bioimlab-classification/)
    ├── 2/2 1a.bmp                   <cell>/<cell> <class>[a|b].bmp
    ├── 2/2 1b.bmp
    └── ...

Licence: public download, no licence stated; research use.

Reference: Poletti, Grisan, Ruggeri 2008 and 2012.

Example::

    dataset = BioImLabDataset("data", split="train", preset={"height": 112, "width": 48})
    item = dataset[0]
    item["image"].shape, item["label"]  # (1, 112, 48), class index 0 to 23
"""

import os
import re
from collections import Counter
from pathlib import Path

from chromozoo.classes import CLASSES, DIPLOID_NUMBER
from chromozoo.data.base.chromosome_datamodule import ChromosomeDataModule
from chromozoo.data.base.chromosome_dataset import (
    ChromosomeDataset,
    ChromosomeFile,
    Chromosomes,
    chromosomes_of_files,
    read_all,
)
from chromozoo.data.base.verification import (
    describe_classes,
    describe_ignored_images,
    describe_split,
    find_split_faults,
)
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import find_dataset, open_archive
from chromozoo.data.splits import load_split
from chromozoo.errors import DatasetError

FILE_NAME = "bioimlab-classification.zip"
SPLIT = "bioimlab_v1"

INSTRUCTIONS = """To get it:
  1. Ask for or download the BioImLab chromosome classification data set of the University of
     Padova (Biomedical Imaging Laboratory, BioImLab, page "chromosome images"; no licence is
     stated: research use).
  2. Put the archive, or the folder unpacked from it, here:
         {folder}/
         └── bioimlab-classification.zip      (or a folder bioimlab-classification/)
             ├── 2/2 1a.bmp
             ├── 2/2 1b.bmp
             ├── ...
             └── 119/119 9b.bmp
     or name another folder: CHROMOZOO_DATA=/folder, or --data.init_args.root /folder
  3. Check it: chromozoo data verify bioimlab"""

_FILE = re.compile(
    r"(?:^|/)(?P<cell>[0-9]+)/(?P=cell) (?P<number>[0-9]+)(?P<copy>[a-z]?)\.bmp$", re.IGNORECASE
)
# Digits of a cell number that fit into 64 bits.
MAX_DIGITS = 18


def list_files(path: Path) -> list[ChromosomeFile]:
    """List the chromosomes by cell, class and name.

    Args:
        path: Folder or zip file.

    Raises:
        DatasetError: No file has a name of the published layout, or a class is not 1 to 24.
    """
    found = []
    with open_archive(path) as archive:
        for name in archive.names():
            if match := _FILE.search(name):
                number, cell = (
                    int(digits) if len(digits) <= MAX_DIGITS else None
                    for digits in (match["number"], match["cell"])
                )
                if number is None or not 1 <= number <= len(CLASSES):
                    raise DatasetError(
                        f"{path}: {name[:99]} has class {match['number'][:20]}; the set has 1 to "
                        f"{len(CLASSES)}: rename or remove the file"
                    )
                if cell is None:
                    raise DatasetError(
                        f"{path}: {name[:99]} has a cell number of {len(match['cell'])} digits; "
                        "rename or remove the file"
                    )
                found.append(ChromosomeFile(name, cell, number - 1))
    if not found:
        raise DatasetError(
            f"{path}: holds no file named <cell>/<cell> <class>[a|b].bmp; this is not the BioImLab "
            "classification set"
        )
    return sorted(found, key=lambda file: (file.cell, file.label, file.name))


class BioImLabDataset(ChromosomeDataset):
    """Single Q-band chromosomes of 107 cells, split by cell.

    Without a fold the official test cells are the test part. The arguments are those of
    :class:`ChromosomeDataset`.
    """

    dataset_name = "bioimlab"
    split_name = SPLIT

    @classmethod
    def list_chromosomes(
        cls,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        cache: Path | None = None,
    ) -> Chromosomes:
        path = find_dataset(FILE_NAME, INSTRUCTIONS, root)
        return chromosomes_of_files(
            cls.dataset_name, path, list_files(path), cls.load_split(fold), cache=cache
        )


class BioImLabDataModule(ChromosomeDataModule):
    """DataModule of :class:`BioImLabDataset`.

    The arguments are those of :class:`ChromosomeDataModule`.
    """

    dataset_class = BioImLabDataset
    stain = "q"


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Read every file and count the chromosomes by class and split.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
    """
    path = find_dataset(FILE_NAME, INSTRUCTIONS, root)
    files = list_files(path)
    split = load_split(SPLIT)
    sha256, colour, faults = read_all(path, files)
    by_cell = Counter(file.cell for file in files)
    faults += [
        f"cell {cell}: {count} chromosomes, published with {DIPLOID_NUMBER}"
        for cell, count in sorted(by_cell.items())
        if count != DIPLOID_NUMBER
    ]
    faults += find_split_faults(split, by_cell)
    lines = [
        f"content sha256 {sha256}",
        f"{len(files)} chromosomes of {len(by_cell)} cells, {colour} files in colour",
        describe_classes([file.label for file in files]),
        *describe_split(split, by_cell),
        *describe_ignored_images(path, (file.name for file in files)),
    ]
    return Verification(path, tuple(lines), tuple(faults))
