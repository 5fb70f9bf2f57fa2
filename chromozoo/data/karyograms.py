"""Karyograms: a data set from your own images of arranged karyograms.

Source: your own images. Each chromosome has the class of its position
(:mod:`chromozoo.images.karyogram_extract`); images with an uncertain class are refused.

Files: one image for each cell; the name up to its last ``_`` is the patient::

    karyograms/                      (or a zip file)
    ├── patient7_1.png
    ├── patient7_2.png
    └── patient8_1.png

Licence: your own.

Reference: Wei et al. 2022, who made their data set in this way.

Example::

    dataset = KaryogramDataset("karyograms", split="train")
    item = dataset[0]
    item["image"].shape, item["label"]  # (1, 112, 48), class index 0 to 23
"""

import functools
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASS_INDEX, DIPLOID_NUMBER
from chromozoo.data.base.chromosome_datamodule import ChromosomeDataModule
from chromozoo.data.base.chromosome_dataset import ChromosomeDataset, Chromosomes
from chromozoo.data.base.content_index import cached_facts
from chromozoo.data.base.crop_dataset import sha256_of
from chromozoo.data.base.verification import describe_classes, describe_split
from chromozoo.data.catalogue import Verification
from chromozoo.data.io.archive import Archive, exists, name_bytes, open_archive
from chromozoo.data.splits import draw_split
from chromozoo.errors import DatasetError, DatasetNotFoundError, ImageError
from chromozoo.images.karyogram_extract import KaryogramCrop, extract_chromosomes
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.reading import IMAGE_SUFFIXES, read_bytes

INSTRUCTIONS = """To get it:
  1. Put images of arranged karyograms (rows 1-5, 6-12, 13-18, 19-22 X Y; paper light or dark)
     into one folder or zip file, one cell each. A name up to its last "_" is the patient:
         patient7_1.png, patient7_2.png, patient8_1.png, ...
  2. Name it: --data.init_args.root /folder
  3. Check it: chromozoo data verify karyograms --root /folder"""


class KaryogramDataset(ChromosomeDataset):
    """The chromosomes of arranged karyograms, upright, p arm up; split by patient.

    The patient is the name of the file up to its last ``_``, or the whole name. The split follows
    from the hash of the patient (:func:`chromozoo.data.splits.draw_split`). Images with an
    uncertain class are left out with a warning.

    Args:
        root: Folder or zip file of the images.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        fold, preset, augmentation, cache: See :class:`ChromosomeDataset`.
        layout: See :func:`chromozoo.images.karyogram_extract.extract_chromosomes`.
    """

    dataset_name = "karyograms"
    split_name = None

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        fold: int | None = None,
        preset: ChromosomePreset | None = None,
        augmentation: A.Compose | None = None,
        cache: str | os.PathLike[str] | None = None,
        layout: str = "denver",
    ) -> None:
        super().__init__(root, split, fold, preset, augmentation, cache, layout=layout)

    @classmethod
    def list_chromosomes(
        cls,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        cache: Path | None = None,
        layout: str = "denver",
    ) -> Chromosomes:
        path = _find_path(root)

        @functools.cache
        def cut_once() -> tuple[dict[str, list[KaryogramCrop]], list[str]]:
            return cut_karyograms(path, layout)

        def compute() -> dict[str, Any]:
            cut, refused = cut_once()
            contents = (
                part
                for key, crops in cut.items()
                for crop in crops
                for part in (name_bytes(key), crop.image.tobytes())
            )
            return {
                "sha256": sha256_of(contents),
                "cells": {key: [crop.label for crop in crops] for key, crops in cut.items()},
                "refused": refused,
            }

        def images() -> Iterator[tuple[str, NDArray[np.generic]]]:
            for key, crops in cut_once()[0].items():
                for crop in crops:
                    yield f"{path}: {key}, {crop.label}{crop.copy}", crop.image

        facts = cached_facts(f"{cls.dataset_name}-{layout}", [path], compute, cache)
        cells: dict[str, list[str]] = facts["cells"]
        for message in facts["refused"]:
            warnings.warn(f"left out: {message}", stacklevel=2)
        if not cells:
            reasons = "\n".join(facts["refused"])
            raise DatasetError(f"{path}: no karyogram could be cut:\n{reasons}")
        drawn = draw_split(cls.dataset_name, map(patient_of, cells), fold)
        return Chromosomes(
            np.array([CLASS_INDEX[label] for labels in cells.values() for label in labels]),
            np.array([key for key, labels in cells.items() for _ in labels]),
            facts["sha256"],
            images,
            drawn.divide_members({key: patient_of(key) for key in cells}),
        )


class KaryogramDataModule(ChromosomeDataModule):
    """DataModule of :class:`KaryogramDataset`.

    Args:
        root: As for :class:`KaryogramDataset`.
        layout: As for :class:`KaryogramDataset`.
        fold: None for the test part of the split; 0 to 4 for grouped 5-fold cross-validation.
        **arguments: Those of :class:`ChromosomeDataModule`.
    """

    dataset_class = KaryogramDataset
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
        return KaryogramDataset.list_chromosomes(self.root, self.fold, self.cache, self.layout)


def patient_of(key: str) -> str:
    """Return the patient of a karyogram: ``"patient7"`` for ``"patient7_2"``."""
    return key.rpartition("_")[0] or key


def cut_karyograms(
    path: Path, layout: str = "denver"
) -> tuple[dict[str, list[KaryogramCrop]], list[str]]:
    """Cut every karyogram into its chromosomes.

    Args:
        path: Folder or zip file.
        layout: See :func:`chromozoo.images.karyogram_extract.extract_chromosomes`.

    Returns:
        The chromosomes by the stem of the file, and one message for each refused image.

    Raises:
        DatasetError: There is no image, or two have one stem.
        UnknownNameError: No such layout.
    """
    cut: dict[str, list[KaryogramCrop]] = {}
    refused: list[str] = []
    with open_archive(path) as archive:
        for key, name in _list_images(path, archive).items():
            source = f"{path}: {name}"
            try:
                image = read_bytes(archive.read(name), source)
                cut[key] = extract_chromosomes(image, source, layout)
            except (DatasetError, ImageError) as error:
                refused.append(str(error))
    return cut, refused


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Cut every karyogram and count the chromosomes; refused images are faults.

    Raises:
        DatasetNotFoundError: There is no such folder or zip file.
        DatasetError: There is no image, or two have one stem.
    """
    path = _find_path(root)
    cut, refused = cut_karyograms(path)
    by_cell = Counter({key: len(crops) for key, crops in cut.items()})
    lines = [f"{by_cell.total()} chromosomes of {len(cut)} karyograms"]
    if cut:
        split = draw_split(KaryogramDataset.dataset_name, map(patient_of, cut))
        others = (f"{key} ({n})" for key, n in sorted(by_cell.items()) if n != DIPLOID_NUMBER)
        lines += [
            f"of {len(set(map(patient_of, cut)))} patients",
            f"without {DIPLOID_NUMBER}: " + (", ".join(others) or "none"),
            describe_classes(CLASS_INDEX[crop.label] for crops in cut.values() for crop in crops),
            *describe_split(split.divide_members({key: patient_of(key) for key in cut}), by_cell),
        ]
    return Verification(path, tuple(lines), tuple(refused))


def _find_path(root: str | os.PathLike[str] | None) -> Path:
    if root is None or not exists(Path(root)):
        raise DatasetNotFoundError(
            f"{root}: no such folder or zip file of karyograms.\n{INSTRUCTIONS}"
        )
    return Path(root)


def _list_images(path: Path, archive: Archive) -> dict[str, str]:
    """Return the names of the images in the archive by their stems."""
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
