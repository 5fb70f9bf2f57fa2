"""Data sets of single chromosomes: listing, prepared crops, and the ``Dataset`` of one split."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from chromozoo.data.base.arguments import as_dataclass
from chromozoo.data.base.content_index import cached_facts
from chromozoo.data.base.crop_dataset import CropDataset, prepared_crops, sha256_of
from chromozoo.data.io.archive import name_bytes, open_archive
from chromozoo.data.splits import Split, load_split
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.reading import read_bytes


@dataclass(frozen=True)
class ChromosomeFile:
    """One image file of a data set.

    Attributes:
        name: Its name in the archive.
        cell: Its cell, as in the split.
        label: Class index.
        patient: Patient of the cell, for splits that are drawn by patient; empty where unknown.
    """

    name: str
    cell: Any
    label: int
    patient: str = ""


@dataclass(frozen=True, eq=False)
class Chromosomes:
    """All chromosomes of a data set before preparation, in the order of the data set.

    Attributes:
        labels: ``(N,)`` int64 class indices.
        cells: ``(N,)`` ids of the cells, int64 or str, as in the split.
        content_sha256: Hash of everything that the images depend on; it names the cache.
        images: Yields ``(name, image)`` of each; called only where the cache has no crops.
        split: The division of the cells.
        upright: ``(N,)`` bool: the image shows the p arm up; None where unknown for all.
    """

    labels: NDArray[np.int64]
    cells: NDArray[Any]
    content_sha256: str
    images: Callable[[], Iterator[tuple[str, NDArray[np.generic]]]]
    split: Split
    upright: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class PreparedChromosomes:
    """All chromosomes of a data set, prepared.

    Attributes:
        name: Name of the data set.
        crops: ``(N, height, width)`` or ``(N, height, width, views)`` uint8, mapped from the cache.
        labels: ``(N,)`` int64 class indices.
        cells: ``(N,)`` ids of the cells, int64 or str.
        upright: ``(N,)`` bool: the image is known to show the p arm up.
        split: The division of the cells.
        preset: Preset of the crops.
    """

    name: str
    crops: NDArray[np.uint8]
    labels: NDArray[np.int64]
    cells: NDArray[Any]
    upright: NDArray[np.bool_]
    split: Split
    preset: ChromosomePreset

    @classmethod
    def of(
        cls, name: str, found: Chromosomes, preset: ChromosomePreset, cache: Path | None
    ) -> "PreparedChromosomes":
        """Map the crops from the cache, and prepare them on a miss.

        Raises:
            DatasetError: An image is damaged; the message names it.
        """
        try:
            crops = prepared_crops(
                name, found.content_sha256, preset, found.images, cache, found.cells
            )
        except ImageError as error:
            raise DatasetError(str(error)) from error
        upright = np.zeros(len(found.labels), bool) if found.upright is None else found.upright
        return cls(name, crops, found.labels, found.cells, upright, found.split, preset)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of ``"train"``, ``"val"``, ``"test"`` or ``"all"``.

        Raises:
            DatasetError: There are none.
        """
        rows = np.flatnonzero(np.isin(self.cells, self.split.ids(split)))
        if not rows.size:
            raise DatasetError(
                f"none of the {split} cells of {self.split.name} is in the data set; "
                f"run `chromozoo data verify {self.name}`"
            )
        return rows


class ChromosomeDataset(CropDataset):
    """Single chromosomes of one split, prepared for a model; usable without Lightning.

    The crops are prepared once and cached. Items are those of :class:`CropDataset`. Each data set
    is a subclass with a name and a method that lists its chromosomes.

    Attributes:
        dataset_name: Its name in the catalogue; the beginning of the cache files' names.
        split_name: Name of its committed split; None where :meth:`list_chromosomes` draws it.

    Args:
        root: Folder that holds the zip file or the unpacked folder, or one of these itself; None
            looks in ``CHROMOZOO_DATA`` and in the data folders of
            :func:`chromozoo.folders.data_folders`.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        fold: None for the test part of the split; 0 to 4 for grouped 5-fold cross-validation.
        preset: Prepares the crops, a :class:`ChromosomePreset` or a dict of its fields; None for
            the default preset.
        augmentation: albumentations pipeline for training, or None.
        cache: Folder of the prepared crops; None for the user's cache folder.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
        DatasetError: It is another data set or damaged; the message names the file.
        UnknownNameError: No such split or fold.
    """

    dataset_name: ClassVar[str]
    split_name: ClassVar[str | None]

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        fold: int | None = None,
        preset: ChromosomePreset | None = None,
        augmentation: A.Compose | None = None,
        cache: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        folder = Path(cache) if cache else None
        found = self.list_chromosomes(root, fold, folder, **options)
        canvas = as_dataclass(ChromosomePreset, preset, "preset") or ChromosomePreset()
        prepared = PreparedChromosomes.of(self.dataset_name, found, canvas, folder)
        rows = prepared.rows(split)
        super().__init__(
            prepared.crops[rows],
            prepared.labels[rows],
            prepared.cells[rows],
            canvas,
            augmentation,
            prepared.upright[rows],
        )
        self.split = prepared.split

    @classmethod
    def list_chromosomes(
        cls,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        cache: Path | None = None,
    ) -> Chromosomes:
        """Find the data set and list its chromosomes; its files are read only where they changed.

        Args:
            root: As for the class.
            fold: As for the class.
            cache: Folder of the index; None for the user's cache folder.

        Raises:
            DatasetNotFoundError: The data set is not on this machine.
            DatasetError: It is another data set or damaged; the message names the file.
        """
        raise NotImplementedError

    @classmethod
    def load_split(cls, fold: int | None = None) -> Split:
        """Return the committed split of the data set, or one of its folds.

        Raises:
            UnknownNameError: No such fold.
        """
        assert cls.split_name is not None
        return load_split(cls.split_name, fold)


def chromosomes_of_files(
    name: str,
    path: Path,
    files: Sequence[ChromosomeFile],
    split: Split,
    upright: bool = False,
    cache: Path | None = None,
) -> Chromosomes:
    """List the chromosomes of a data set with one image file for each.

    Args:
        name: Name of the data set in the index.
        path: Folder or zip file.
        files: In the order of the data set.
        split: Division of the cells.
        upright: All images show the p arm up.
        cache: Folder of the index; None for the user's cache folder.

    Raises:
        DatasetError: A file is damaged.
    """

    def contents() -> Iterator[bytes]:
        with open_archive(path) as archive:
            for file in files:
                yield from (name_bytes(file.name), archive.read(file.name))

    def images() -> Iterator[tuple[str, NDArray[np.generic]]]:
        with open_archive(path) as archive:
            for file in files:
                source = f"{path}: {file.name}"
                yield source, read_bytes(archive.read(file.name), source)

    facts = cached_facts(name, [path], lambda: {"sha256": sha256_of(contents())}, cache)
    return Chromosomes(
        np.array([file.label for file in files]),
        np.array([file.cell for file in files]),
        facts["sha256"],
        images,
        split,
        np.full(len(files), upright),
    )


def read_all(path: Path, files: Sequence[ChromosomeFile]) -> tuple[str, int, list[str]]:
    """Decode every file of a data set.

    Returns:
        Hash of the content, number of colour files, and one message for each damaged file.
    """
    faults: list[str] = []
    colour = 0

    def contents() -> Iterator[bytes]:
        nonlocal colour
        with open_archive(path) as archive:
            for file in files:
                try:
                    data = archive.read(file.name)
                except DatasetError as error:
                    faults.append(str(error))
                    continue
                try:
                    colour += read_bytes(data, f"{path}: {file.name}").ndim == 3
                except ImageError as error:
                    faults.append(str(error))
                yield from (name_bytes(file.name), data)

    return sha256_of(contents()), colour, faults
