"""G-band single chromosomes: Pki-3, and any set of files that is laid out in a known way.

Pki-3: Ritter & Gao 2008, University of Passau: 23,623 chromosomes of 514 karyotypes of 310
patients, upright (p arm up) on white; not all karyotypes are normal. Layout as at hand:
``<patient>_<cell>/<class>_<copy>.png``, classes 1 to 22, X and Y.
"""

import csv
import io
import os
import re
import warnings
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from chromozoo.classes import CLASS_INDEX, CLASSES, DIPLOID_NUMBER
from chromozoo.data.base.chromosome_datamodule import (
    ChromosomeDataModule,
    ChromosomeFile,
    Chromosomes,
    chromosomes_of_files,
    read_all,
)
from chromozoo.data.base.verification import class_line, left_out_lines, split_faults, split_lines
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import Archive, exists, find_dataset, open_archive
from chromozoo.data.splits import draw_split, load_split
from chromozoo.errors import DatasetError, DatasetNotFoundError, UnknownNameError
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

# What `chromozoo data from-karyogram` and `chromozoo synthesize` write beside their images.
LABELS = "labels.csv"

_CLASS = r"(?P<label>[0-9]{1,2}|[XYxy])"
_IMAGE = r"\.(?:png|bmp|tiff?|jpe?g|jp2|j2k)$"
_NAMES: dict[str, tuple[str, re.Pattern[str]]] = {
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
    """All chromosomes of a set, in the order of cell, class, name.

    Args:
        path: Folder or zip file.
        layout: See :class:`Pki3DataModule`.

    Raises:
        DatasetError: No file has a name of the layout, or a class is unknown.
    """
    description, pattern = _NAMES[layout]
    found: list[ChromosomeFile] = []
    with open_archive(path) as archive:
        for name in archive.names():
            if not (match := pattern.search(name)):
                continue
            if layout == "labels-csv":
                found += _files_of_table(path, archive, name)
                continue
            label = _label(match["label"], layout)
            if label is None:
                raise DatasetError(
                    f"{path}: {name} has class {match['label']}; files of the layout {layout} are "
                    f"named {description} with "
                    + ("0 to 23" if layout == "cir-net" else "1 to 22, X and Y")
                )
            found.append(ChromosomeFile(name, match.groupdict().get("cell", name), label))
    if not found:
        others = ", ".join(f"{key}: {words}" for key, (words, _) in _NAMES.items() if key != layout)
        raise DatasetError(
            f"{path}: holds no file named {description}; give the layout that it has ({others})"
        )
    return sorted(found, key=lambda file: (file.cell, file.label, file.name))


def _files_of_table(path: Path, archive: Archive, name: str) -> list[ChromosomeFile]:
    """The chromosomes that a ``labels.csv`` lists.

    Their cell is the folder of the image, for that is what both commands write.

    Raises:
        DatasetError: It is damaged, or names a file that is not there or an unknown class.
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
        label = _label(row.get("class") or row.get("label") or "", "class-folders")
        if file not in names or file in found or label is None:
            raise DatasetError(
                f"{source}: row {number} names the file {short_repr(row.get('file'))} and the class "
                f"{short_repr(row.get('class', row.get('label')))}; give each file of the folder once, "
                "with a class of 1 to 22, X and Y"
            )
        cell = PurePosixPath(file).parent.as_posix()
        patient = cell.rpartition("_")[0] if "karyogram" in row else ""
        found[file] = ChromosomeFile(file, cell, label, patient or cell)
    return list(found.values())


def patient_of(cell: str) -> str:
    """The patient of a karyotype of Pki-3: ``"p079"`` of ``"p079_12"``."""
    return cell.partition("_")[0]


class Pki3DataModule(ChromosomeDataModule):
    """Single G-band chromosomes, split by patient where the patient is known.

    What is known of the cells depends on the layout:

    - ``"pki3"``: the folder is the karyotype, its part before ``_`` the patient; the committed
      split divides by patient. Images are upright, p arm up. The preset turns a chromosome by
      less than 90 degrees, so it stays up: without flips (``augmentation: {flips: false}``) a
      classifier with ``polarity: true`` learns to tell the arms.
    - ``"cir-net"``: the files of Lin et al. 2020 (CIR-Net), whose label 0 to 23 stands between the
      last two dots of the name. Neither cell nor patient is known: every file is a cell of its own,
      and chromosomes of one metaphase may stand on both sides of the split.
    - ``"class-folders"``: one folder for each class, 1 to 22, X and Y (or 23 and 24), with images
      of any name; folders above it do not matter. Cells are as unknown as with ``"cir-net"``.
    - ``"labels-csv"``: what ``chromozoo data from-karyogram`` and ``chromozoo synthesize`` write:
      the classes stand in ``labels.csv``, and each folder of images is a cell. The name of a
      karyogram up to its last ``_`` is the patient.

    Where there is no committed split it is drawn by the hash of the patient, the cell, or the
    file's name, by what is known: 70 % train, 10 % val and 20 % test, or five equal folds; what is
    there stays where it is when others come.

    Args:
        root: For ``"pki3"`` as in :class:`chromozoo.data.base.chromosome_datamodule.ChromosomeDataModule`; for
            the other layouts the folder or zip file itself.
        layout: How files are named.
        fold: See the base class, as the other arguments.

    Images whose names are not of the layout are left out; a warning counts them.

    Raises:
        UnknownNameError: No such layout or fold.
    """

    dataset_name = "pki3"
    split_name = SPLIT
    stain = "g"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        layout: Layout = "pki3",
        fold: int | None = None,
        **arguments: Any,
    ) -> None:
        if layout not in get_args(Layout):
            raise UnknownNameError(
                f"unknown layout {layout!r}; known are {', '.join(get_args(Layout))}"
            )
        super().__init__(root, fold, **arguments)
        self.layout = layout

    def chromosomes(self) -> Chromosomes:
        path = _find(self.root, self.layout)
        files = list_files(path, self.layout)
        for line in left_out_lines(path, (file.name for file in files)):
            warnings.warn(f"{path}: {line}", stacklevel=2)
        if self.layout != "pki3":
            patients = {file.cell: file.patient or file.cell for file in files}
            drawn = draw_split(self.layout, patients.values(), self.fold)
            self.split = drawn.of_members(patients)
        return chromosomes_of_files(path, files, upright=self.layout == "pki3")


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Reads every file of Pki-3 and counts it by class and split.

    A karyotype that does not have 46 chromosomes is no fault: it is listed.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
    """
    path = _find(root, "pki3")
    files = list_files(path)
    split = load_split(SPLIT)
    sha256, colour, faults = read_all(path, files)
    by_cell = Counter(file.cell for file in files)
    faults += split_faults(split, by_cell)
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
        class_line([file.label for file in files]),
        *split_lines(split, by_cell),
        *left_out_lines(path, (file.name for file in files)),
    ]
    return Verification(path, tuple(lines), tuple(faults))


def _find(root: str | os.PathLike[str] | None, layout: Layout) -> Path:
    if layout == "pki3":
        return find_dataset(FILE_NAME, INSTRUCTIONS, root)
    if root is None or not exists(Path(root)):
        raise DatasetNotFoundError(
            f"{root}: no such folder or zip file; a set of the layout {layout} "
            f"({_NAMES[layout][0]}) is named itself: --data.init_args.root /folder"
        )
    return Path(root)


def _label(word: str, layout: Layout) -> int | None:
    """Class index of what a name says; None where there is no such class."""
    if not re.fullmatch("[0-9]{1,2}|[XYxy]", word):
        return None
    if layout == "cir-net":
        return int(word) if int(word) < len(CLASSES) else None
    if word.isdigit() and len(CLASS_INDEX) - 2 < int(word) <= len(CLASSES):
        return int(word) - 1 if layout == "class-folders" else None
    return CLASS_INDEX.get(word.upper().lstrip("0"))
