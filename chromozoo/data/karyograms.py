"""Images of arranged karyograms as a data set: every chromosome has the class of its place.

So Wei et al. 2022 made theirs; see :mod:`chromozoo.data.karyogram_extract`, which cuts an image or
refuses it as a whole. The images are the user's own.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASS_INDEX, DIPLOID_NUMBER
from chromozoo.data.base.chromosome_datamodule import ChromosomeDataModule, Chromosomes
from chromozoo.data.base.crops import sha256_of
from chromozoo.data.base.verification import class_line, split_lines
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import Archive, exists, name_bytes, open_archive
from chromozoo.data.karyogram_extract import KaryogramCrop, extract_chromosomes
from chromozoo.data.splits import draw_split
from chromozoo.errors import DatasetError, DatasetNotFoundError, ImageError
from chromozoo.images.reading import IMAGE_SUFFIXES, read_bytes

INSTRUCTIONS = """To get it:
  1. Put images of arranged karyograms (rows 1-5, 6-12, 13-18, 19-22 X Y; paper light or dark)
     into one folder or zip file, one cell each. A name up to its last "_" is the patient:
         patient7_1.png, patient7_2.png, patient8_1.png, ...
  2. Name it: --data.init_args.root /folder
  3. Check it: chromozoo data verify karyograms --root /folder"""


class KaryogramDataModule(ChromosomeDataModule):
    """The chromosomes of arranged karyograms, upright, p arm up; split by patient.

    The patient is the file's name up to its last ``_``, or the whole name; which part a patient
    falls into follows from the hash of this name (:func:`chromozoo.data.splits.draw_split`). What
    cannot be cut without doubt is left out as a whole, with a warning.

    Args:
        root: Folder or zip file of the images.
        layout: See :func:`chromozoo.data.karyogram_extract.extract_chromosomes`.
        fold: See :class:`chromozoo.data.base.chromosome_datamodule.ChromosomeDataModule`, as the other
            arguments.
    """

    dataset_name = "karyograms"
    split_name = None
    stain = "g"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        layout: str = "denver",
        fold: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(root, fold, **arguments)
        self.layout = layout

    def chromosomes(self) -> Chromosomes:
        path = _find(self.root)
        cut, refused = cut_karyograms(path, self.layout)
        for message in refused:
            warnings.warn(f"left out: {message}", stacklevel=2)
        if not cut:
            raise DatasetError("\n".join([f"{path}: no karyogram could be cut:", *refused]))
        parts = draw_split(self.dataset_name, map(patient_of, cut), self.fold)
        self.split = parts.of_members({key: patient_of(key) for key in cut})
        crops = [(key, crop) for key, found in cut.items() for crop in found]

        def images() -> Iterator[tuple[str, NDArray[np.generic]]]:
            for key, crop in crops:
                yield f"{path}: {key}, {crop.label}{crop.copy}", crop.image

        return Chromosomes(
            np.array([CLASS_INDEX[crop.label] for _, crop in crops]),
            np.array([key for key, _ in crops]),
            sha256_of(
                part for key, crop in crops for part in (name_bytes(key), crop.image.tobytes())
            ),
            images,
        )


def patient_of(key: str) -> str:
    """The patient of a karyogram: ``"patient7"`` of ``"patient7_2"``."""
    return key.rpartition("_")[0] or key


@cache
def cut_karyograms(
    path: Path, layout: str = "denver"
) -> tuple[dict[str, list[KaryogramCrop]], list[str]]:
    """The chromosomes of every karyogram, by the stem of its file, and what was refused.

    It is done once in a process for every path.

    Args:
        path: Folder or zip file.
        layout: See :func:`chromozoo.data.karyogram_extract.extract_chromosomes`.

    Raises:
        DatasetError: There is no image, or two have one stem.
        UnknownNameError: No such layout.
    """
    cut: dict[str, list[KaryogramCrop]] = {}
    refused: list[str] = []
    with open_archive(path) as archive:
        for key, name in _images(path, archive).items():
            source = f"{path}: {name}"
            try:
                image = read_bytes(archive.read(name), source)
                cut[key] = extract_chromosomes(image, source, layout)
            except (DatasetError, ImageError) as error:
                refused.append(str(error))
    return cut, refused


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Cuts every karyogram and counts the chromosomes; what is refused is a fault.

    Raises:
        DatasetNotFoundError: No folder was named.
        DatasetError: There is no image, or two have one stem.
    """
    path = _find(root)
    cut, refused = cut_karyograms(path)
    by_cell = Counter({key: len(crops) for key, crops in cut.items()})
    lines = [f"{by_cell.total()} chromosomes of {len(cut)} karyograms"]
    if cut:
        split = draw_split(KaryogramDataModule.dataset_name, map(patient_of, cut))
        others = (f"{key} ({n})" for key, n in sorted(by_cell.items()) if n != DIPLOID_NUMBER)
        lines += [
            f"of {len(set(map(patient_of, cut)))} patients",
            f"without {DIPLOID_NUMBER}: " + (", ".join(others) or "none"),
            class_line(CLASS_INDEX[crop.label] for crops in cut.values() for crop in crops),
            *split_lines(split.of_members({key: patient_of(key) for key in cut}), by_cell),
        ]
    return Verification(path, tuple(lines), tuple(refused))


def _find(root: str | os.PathLike[str] | None) -> Path:
    if root is None or not exists(Path(root)):
        raise DatasetNotFoundError(
            f"{root}: no such folder or zip file of karyograms.\n{INSTRUCTIONS}"
        )
    return Path(root)


def _images(path: Path, archive: Archive) -> dict[str, str]:
    """Names in the archive by their stems."""
    found: dict[str, str] = {}
    for name in sorted(archive.names()):
        file = Path(name)
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            if file.stem in found:
                raise DatasetError(
                    f"{path}: {found[file.stem]} and {name} have one name; rename one"
                )
            found[file.stem] = name
    if not found:
        raise DatasetError(f"{path}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found
