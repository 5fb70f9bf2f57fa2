"""G-band single chromosomes: Pki-3, and any set of files that is laid out in a known way.

Pki-3: Ritter & Gao 2008, University of Passau: 23,623 chromosomes of 514 karyotypes of 310
patients, upright (p arm up) on white; not all karyotypes are normal. Layout as at hand:
``<patient>_<cell>/<class>_<copy>.png``, classes 1 to 22, X and Y.
"""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

from chromozoo.classes import CLASS_INDEX, CLASSES, DIPLOID_NUMBER
from chromozoo.data.archive import find_dataset, open_archive
from chromozoo.data.catalogue import Verification
from chromozoo.data.single_chromosomes import (
    ChromosomeFile,
    Chromosomes,
    SingleChromosomes,
    chromosomes_of_files,
    read_all,
)
from chromozoo.data.splits import draw_split, load_split
from chromozoo.data.verification import class_line, split_faults, split_lines
from chromozoo.errors import DatasetError, DatasetNotFoundError, UnknownNameError

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

Layout = Literal["pki3", "cir-net", "class-folders"]

_CLASS = r"(?P<label>\d{1,2}|[XYxy])"
_IMAGE = r"\.(?:png|bmp|tiff?|jpe?g)$"
_NAMES: dict[str, tuple[str, re.Pattern[str]]] = {
    "pki3": (
        "<patient>_<cell>/<class>_<copy>.png",
        re.compile(rf"(?:^|/)(?P<cell>[^/_]+_[^/]+)/{_CLASS}_\d+{_IMAGE}", re.IGNORECASE),
    ),
    "cir-net": (
        "<anything>.<label 0 to 23>.png or .tiff",
        re.compile(r"(?:^|/)[^/.][^/]*\.(?P<label>\d{1,2})\.(?:png|tiff?)$", re.IGNORECASE),
    ),
    "class-folders": (
        "<class>/<anything>.png",
        re.compile(rf"(?:^|/){_CLASS}/[^/.][^/]*{_IMAGE}", re.IGNORECASE),
    ),
}


def list_files(path: Path, layout: Layout = "pki3") -> list[ChromosomeFile]:
    """All chromosomes of a set, in the order of cell, class, name.

    Args:
        path: Folder or zip file.
        layout: See :class:`GBandCrops`.

    Raises:
        DatasetError: No file has a name of the layout, or a class is unknown.
    """
    description, pattern = _NAMES[layout]
    found = []
    with open_archive(path) as archive:
        for name in archive.names():
            if match := pattern.search(name):
                label = _label(match["label"], layout)
                if label is None:
                    raise DatasetError(
                        f"{path}: {name} has class {match['label']}; files of the layout {layout} "
                        f"are named {description} with "
                        + ("0 to 23" if layout == "cir-net" else "1 to 22, X and Y")
                    )
                found.append(ChromosomeFile(name, match.groupdict().get("cell", name), label))
    if not found:
        others = ", ".join(f"{key}: {words}" for key, (words, _) in _NAMES.items() if key != layout)
        raise DatasetError(
            f"{path}: holds no file named {description}; give the layout that it has ({others})"
        )
    return sorted(found, key=lambda file: (file.cell, file.label, file.name))


def patient_of(cell: str) -> str:
    """The patient of a karyotype of Pki-3: ``"p079"`` of ``"p079_12"``."""
    return cell.partition("_")[0]


class GBandCrops(SingleChromosomes):
    """Single G-band chromosomes, split by patient where the patient is known.

    What is known of the cells depends on the layout:

    - ``"pki3"``: the folder is the karyotype, its part before ``_`` the patient; the committed
      split divides by patient. Pictures are upright, p arm up. The preset turns a chromosome by
      less than 90 degrees, so it stays up: without flips (``augmentation: {flips: false}``) a
      classifier with ``polarity: true`` learns to tell the arms.
    - ``"cir-net"``: the files of Lin et al. 2020 (CIR-Net), whose label 0 to 23 stands between the
      last two dots of the name. Neither cell nor patient is known: every file is a cell of its own,
      and chromosomes of one metaphase may stand on both sides of the split.
    - ``"class-folders"``: one folder for each class, 1 to 22, X and Y (or 23 and 24), with pictures
      of any name; folders above it do not matter. Cells are as unknown as with ``"cir-net"``.

    Without known cells the split is drawn by the hash of the file's name: 70 % train, 10 % val and
    20 % test, or five equal folds; a file stays where it is when others come.

    Args:
        root: For ``"pki3"`` as in :class:`chromozoo.data.single_chromosomes.SingleChromosomes`; for
            the other layouts the folder or zip file itself.
        layout: How files are named.
        fold: See the base class, as the other arguments.

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
        if self.layout != "pki3":
            self.split = draw_split(self.layout, (file.cell for file in files), self.fold)
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
    ]
    return Verification(path, tuple(lines), tuple(faults))


def _find(root: str | os.PathLike[str] | None, layout: Layout) -> Path:
    if layout == "pki3":
        return find_dataset(FILE_NAME, INSTRUCTIONS, root)
    if root is None or not Path(root).exists():
        raise DatasetNotFoundError(
            f"{root}: no such folder or zip file; a set of the layout {layout} "
            f"({_NAMES[layout][0]}) is named itself: --data.init_args.root /folder"
        )
    return Path(root)


def _label(word: str, layout: Layout) -> int | None:
    """Class index of what a name says; None where there is no such class."""
    if layout == "cir-net":
        return int(word) if int(word) < len(CLASSES) else None
    if word.isdigit() and len(CLASS_INDEX) - 2 < int(word) <= len(CLASSES):
        return int(word) - 1 if layout == "class-folders" else None
    return CLASS_INDEX.get(word.upper().lstrip("0"))
