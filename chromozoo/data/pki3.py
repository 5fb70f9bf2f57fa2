"""Pki-3 and other sets of G-band single chromosomes for classification.

Source: University of Passau: 23,623 chromosomes of 514 karyotypes of 310 patients, upright (p arm
up), dark on white. Not all karyotypes are normal.

Files (classes 1 to 22, X and Y); :class:`Pki3Dataset` describes three more layouts::

    gband-pki3.zip                   (or a folder gband-pki3/)
    ├── p001_6/1_1.png               <patient>_<cell>/<class>_<copy>.png
    ├── ...
    └── p372_6/9_2.png

Licence: research use; not verified.

Reference: Ritter & Gao 2008.

Example::

    dataset = Pki3Dataset("data", split="train", preset={"height": 112, "width": 48})
    item = dataset[0]
    item["image"].shape, item["label"]  # (1, 112, 48), class index 0 to 23
"""

import csv
import io
import os
import re
import warnings
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import albumentations as A

from chromozoo.classes import CLASS_INDEX, CLASSES, DIPLOID_NUMBER
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
from chromozoo.data.io.archive import Archive, exists, find_dataset, open_archive
from chromozoo.data.io.karyogram_export import LABELS
from chromozoo.data.splits import draw_split, load_split
from chromozoo.errors import DatasetError, DatasetNotFoundError, UnknownNameError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.strict_json import short_repr

FILE_NAME = "gband-pki3.zip"
SPLIT = "pki3_v1"

INSTRUCTIONS = """To get it:
  1. Ask the University of Passau for the Pki-3 chromosome images (Ritter & Gao 2008; research
     use, licence not verified).
  2. Put the archive, or the folder unpacked from it, here:
         {folder}/
         └── gband-pki3.zip      (or a folder gband-pki3/)
             ├── p001_6/1_1.png
             ├── ...
             └── p372_6/9_2.png
     (<patient>_<cell>/<class>_<copy>.png), or name another folder: CHROMOZOO_DATA=/folder, or
     --data.init_args.root /folder
  3. Check it: chromozoo data verify pki3"""

Layout = Literal["pki3", "cir-net", "class-folders", "labels-csv"]

_CLASS = r"(?P<label>[0-9]{1,2}|[XYxy])"
_IMAGE = r"\.(?:png|bmp|tiff?|jpe?g|jp2|j2k)$"
_FILE_NAMES: dict[str, tuple[str, re.Pattern[str]]] = {
    "pki3": (
        "<patient>_<cell>/<class>_<copy>.png",
        re.compile(rf"(?:^|/)(?P<cell>[^/_]+_[^/]+)/{_CLASS}_[0-9]+{_IMAGE}", re.IGNORECASE),
    ),
    "cir-net": (
        "<anything>.<label 0 to 23>.png or .tiff",
        re.compile(r"(?:^|/)[^/.][^/]*\.(?P<label>[0-9]{1,2})\.(?:png|tiff?)$", re.IGNORECASE),
    ),
    "class-folders": (
        "<class>/<anything>.png",
        re.compile(rf"(?:^|/){_CLASS}/[^/.][^/]*{_IMAGE}", re.IGNORECASE),
    ),
    "labels-csv": (
        "in labels.csv, with the columns file and class, or label",
        re.compile(rf"(?:^|/){LABELS}$"),
    ),
}


def list_files(path: Path, layout: Layout = "pki3") -> list[ChromosomeFile]:
    """List the chromosomes by cell, class and name.

    Args:
        path: Folder or zip file.
        layout: See :class:`Pki3Dataset`.

    Raises:
        DatasetError: No file has a name of the layout, or a class is unknown.
    """
    description, pattern = _FILE_NAMES[layout]
    found: list[ChromosomeFile] = []
    with open_archive(path) as archive:
        for name in archive.names():
            if not (match := pattern.search(name)):
                continue
            if layout == "labels-csv":
                found += _list_table(path, archive, name)
                continue
            label = _parse_class(match["label"], layout)
            if label is None:
                raise DatasetError(
                    f"{path}: {name} has class {match['label']}; files of the layout {layout} are "
                    f"named {description} with "
                    + ("0 to 23" if layout == "cir-net" else "1 to 22, X and Y")
                )
            found.append(ChromosomeFile(name, match.groupdict().get("cell", name), label))
    if not found:
        others = ", ".join(
            f"{key}: {words}" for key, (words, _) in _FILE_NAMES.items() if key != layout
        )
        raise DatasetError(
            f"{path}: holds no file named {description}; give the layout that it has ({others})"
        )
    return sorted(found, key=lambda file: (file.cell, file.label, file.name))


def _list_table(path: Path, archive: Archive, name: str) -> list[ChromosomeFile]:
    """List the chromosomes of a ``labels.csv``.

    The cell is the folder of the image: ``chromozoo data from-karyogram`` and ``chromozoo
    synthesize`` write one folder for each cell.

    Raises:
        DatasetError: The table is damaged, or has a missing file or an unknown class.
    """
    source = f"{path}: {name}"
    try:
        text = archive.read(name).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{source}: no CSV in UTF-8 ({error}); write it again") from error
    names, folder = set(archive.names()), PurePosixPath(name).parent
    found: dict[str, ChromosomeFile] = {}
    for number, row in enumerate(rows, start=1):
        file = (folder / (row.get("file") or "")).as_posix()
        label = _parse_class(row.get("class") or row.get("label") or "", "class-folders")
        if file not in names or file in found or label is None:
            raise DatasetError(
                f"{source}: row {number} names the file {short_repr(row.get('file'))} "
                f"and the class {short_repr(row.get('class', row.get('label')))}; give each file of "
                "the folder once, "
                "with a class of 1 to 22, X and Y"
            )
        cell = PurePosixPath(file).parent.as_posix()
        patient = cell.rpartition("_")[0] if "karyogram" in row else ""
        found[file] = ChromosomeFile(file, cell, label, patient or cell)
    return list(found.values())


def patient_of(cell: str) -> str:
    """Return the patient of a karyotype of Pki-3: ``"p079"`` for ``"p079_12"``."""
    return cell.partition("_")[0]


class Pki3Dataset(ChromosomeDataset):
    """Single G-band chromosomes, split by patient where the patient is known.

    The layout decides how cells and patients are named:

    - ``"pki3"``: the folder is the karyotype, its part before ``_`` the patient; the committed
      split divides by patient. Images are upright, p arm up. The preset rotates a chromosome by
      less than 90 degrees, so it stays up, and without flips (``augmentation: {flips: false}``) a
      classifier with ``polarity: true`` learns the polarity.
    - ``"cir-net"``: the files of Lin et al. 2020 (CIR-Net), with a label 0 to 23 between the last
      two dots of the name. Cells and patients are unknown: every file is its own cell, and the
      chromosomes of one metaphase may be on both sides of the split.
    - ``"class-folders"``: one folder for each class, 1 to 22, X and Y (or 23 and 24), with images
      of any name; folders above it do not matter. Cells are unknown as with ``"cir-net"``.
    - ``"labels-csv"``: the output of ``chromozoo data from-karyogram`` and ``chromozoo
      synthesize``: the classes are in ``labels.csv``, and each folder of images is a cell. The name
      of a karyogram up to its last ``_`` is the patient.

    Layouts without a committed split are divided by the hash of the patient, the cell or the file
    name, whichever is known: 70 % train, 10 % val and 20 % test, or five equal folds. Adding files
    does not move the others. Images with names of another layout are ignored with a warning.

    Args:
        root: For ``"pki3"`` as in :class:`ChromosomeDataset`; for the other layouts the folder or
            zip file itself.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        fold, preset, augmentation, cache: See :class:`ChromosomeDataset`.
        layout: Layout of the files.

    Raises:
        UnknownNameError: No such layout, split or fold.
    """

    dataset_name = "pki3"
    split_name = SPLIT

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        fold: int | None = None,
        preset: ChromosomePreset | None = None,
        augmentation: A.Compose | None = None,
        cache: str | os.PathLike[str] | None = None,
        layout: Layout = "pki3",
    ) -> None:
        super().__init__(root, split, fold, preset, augmentation, cache, layout=layout)

    @classmethod
    def list_chromosomes(
        cls,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        cache: Path | None = None,
        layout: Layout = "pki3",
    ) -> Chromosomes:
        check_layout(layout)
        path = _find_path(root, layout)
        files = list_files(path, layout)
        for line in describe_ignored_images(path, (file.name for file in files)):
            warnings.warn(f"{path}: {line}", stacklevel=2)
        if layout == "pki3":
            split = cls.load_split(fold)
        else:
            patients = {file.cell: file.patient or file.cell for file in files}
            split = draw_split(layout, patients.values(), fold).divide_members(patients)
        return chromosomes_of_files(
            f"pki3-{layout}", path, files, split, upright=layout == "pki3", cache=cache
        )


class Pki3DataModule(ChromosomeDataModule):
    """DataModule of :class:`Pki3Dataset`.

    Args:
        root: As for :class:`Pki3Dataset`.
        layout: As for :class:`Pki3Dataset`.
        fold: None for the test part of the split; 0 to 4 for grouped 5-fold cross-validation.
        **arguments: Those of :class:`ChromosomeDataModule`.

    Raises:
        UnknownNameError: No such layout or fold.
    """

    dataset_class = Pki3Dataset
    stain = "g"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        layout: Layout = "pki3",
        fold: int | None = None,
        **arguments: Any,
    ) -> None:
        check_layout(layout)
        super().__init__(root, fold, **arguments)
        self.layout = layout

    def chromosomes(self) -> Chromosomes:
        return Pki3Dataset.list_chromosomes(self.root, self.fold, self.cache, self.layout)


def check_layout(layout: str) -> None:
    """Refuse unknown layouts.

    Raises:
        UnknownNameError: No such layout.
    """
    if layout not in get_args(Layout):
        raise UnknownNameError(
            f"unknown layout {layout!r}; known are {', '.join(get_args(Layout))}"
        )


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Read every file of Pki-3 and count the chromosomes by class and split.

    Karyotypes without 46 chromosomes are listed, but they are no fault.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
    """
    path = _find_path(root, "pki3")
    files = list_files(path)
    split = load_split(SPLIT)
    sha256, colour, faults = read_all(path, files)
    by_cell = Counter(file.cell for file in files)
    faults += find_split_faults(split, by_cell)
    patients = {patient_of(cell) for cell in by_cell}
    numbers = Counter(by_cell.values())
    lines = [
        f"content sha256 {sha256}",
        f"{len(files)} chromosomes of {len(by_cell)} karyotypes of {len(patients)} patients",
        f"{colour} files in colour",
        "chromosomes of a karyotype: "
        + ", ".join(f"{number}: {numbers[number]} karyotypes" for number in sorted(numbers)),
        f"without {DIPLOID_NUMBER}: "
        + (", ".join(c for c, n in sorted(by_cell.items()) if n != DIPLOID_NUMBER) or "none"),
        describe_classes([file.label for file in files]),
        *describe_split(split, by_cell),
        *describe_ignored_images(path, (file.name for file in files)),
    ]
    return Verification(path, tuple(lines), tuple(faults))


def _find_path(root: str | os.PathLike[str] | None, layout: Layout) -> Path:
    if layout == "pki3":
        return find_dataset(FILE_NAME, INSTRUCTIONS, root)
    if root is None or not exists(Path(root)):
        raise DatasetNotFoundError(
            f"{root}: no such folder or zip file; a set of the layout {layout} "
            f"({_FILE_NAMES[layout][0]}) needs its own path: --data.init_args.root /folder"
        )
    return Path(root)


def _parse_class(word: str, layout: Layout) -> int | None:
    """Return the class index of a class name of a layout; None where it is unknown."""
    if not re.fullmatch("[0-9]{1,2}|[XYxy]", word):
        return None
    if layout == "cir-net":
        return int(word) if int(word) < len(CLASSES) else None
    if word.isdigit() and len(CLASS_INDEX) - 2 < int(word) <= len(CLASSES):
        return int(word) - 1 if layout == "class-folders" else None
    return CLASS_INDEX.get(word.upper().lstrip("0"))
