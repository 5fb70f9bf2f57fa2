"""Sets of single chromosomes: what their DataModules share, whatever the files are called.

Crops are prepared once and cached, divided by cell or patient through a committed split, and shown
in an order that follows from the seed and the number of the epoch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from chromozoo.classes import CLASSES
from chromozoo.data.base.composed_cells import UNCHANGED, ComposedCells, Composition, join_cells
from chromozoo.data.base.crops import CropDataset, prepared_crops, sha256_of
from chromozoo.data.base.workers import limit_opencv_threads
from chromozoo.data.io.archive import name_bytes, open_archive
from chromozoo.data.splits import Split, draw_split, load_split
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images import augment
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.reading import read_bytes

if TYPE_CHECKING:
    from chromozoo.classes import Stain


@dataclass(frozen=True)
class ChromosomeFile:
    """One file of a set: its name in the archive, its cell (as in the split) and class index.

    ``patient`` is that of the cell, where a split must be drawn and a patient has several.
    """

    name: str
    cell: Any
    label: int
    patient: str = ""


@dataclass(frozen=True, eq=False)
class Chromosomes:
    """All chromosomes of a set before they are prepared, in the order of the set.

    Attributes:
        labels: ``(N,)`` int64 class indices.
        cells: ``(N,)`` ids of the cells, int64 or str, as the split has them.
        content_sha256: Of all that the images depend on: names the cache.
        images: Gives ``(name, image)`` of each; called only where the cache has no crops.
        upright: ``(N,)`` bool: the image shows the p arm up; None where that is not known.
    """

    labels: NDArray[np.int64]
    cells: NDArray[Any]
    content_sha256: str
    images: Callable[[], Iterator[tuple[str, NDArray[np.generic]]]]
    upright: NDArray[np.bool_] | None = None


class ChromosomeDataModule(LightningDataModule):
    """Single chromosomes with their classes, split by cell.

    A set is a subclass that says what it is called and gives its :class:`Chromosomes`.

    Attributes:
        dataset_name: In the catalogue; the beginning of the cache files' names.
        split_name: Of the committed id lists; None where :meth:`chromosomes` draws the split.
        stain: ``"q"`` or ``"g"``: how simulated cells are drawn that are mixed into the training.

    Args:
        root: Folder that holds the zip file or the unpacked folder, or one of these itself; None
            looks in ``CHROMOZOO_DATA`` and beside the repository.
        fold: None for the split's own test part; 0 to 4 for grouped 5-fold cross-validation.
        batch_size: Images a batch (and a process, under DDP); with ``composed`` cells.
        num_workers: Processes that augment.
        augmentation: Arguments of
            :func:`chromozoo.images.augment.training_augmentation`; None trains on the bare crops.
        synthetic_cells: Cells drawn by :mod:`chromozoo.synthetic` that are mixed into the
            training, so that the model also knows what band tables alone tell.
        composed: For models that see whole cells: arguments of
            :class:`chromozoo.data.base.composed_cells.Composition`. Every batch then holds whole cells,
            and those of the training are composed. None trains on single chromosomes.
        seed: Of the order and the augmentation, together with the epoch: a run that is resumed
            sees what the uninterrupted one would have seen.
        preset: Arguments of :class:`ChromosomePreset`; None takes the model's own.
        cache: Folder of the prepared crops.
    """

    dataset_name: ClassVar[str]
    split_name: ClassVar[str | None]
    stain: ClassVar["Stain"]

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        batch_size: int = 64,
        num_workers: int = 2,
        augmentation: dict[str, float | bool | list[float]] | None = None,
        synthetic_cells: int = 0,
        composed: dict[str, float] | None = None,
        seed: int = 0,
        preset: dict[str, bool | int | float | str | list[str]] | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        self.fold = fold
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augmentation = augmentation
        self.synthetic_cells = synthetic_cells
        self.composed = composed
        self.seed = seed
        self.preset = preset
        self.cache = Path(cache) if cache else None
        self.split: Split = (
            load_split(self.split_name, fold)
            if self.split_name
            else draw_split(self.dataset_name, (), fold)
        )

    def chromosomes(self) -> Chromosomes:
        """Finds the set and lists it.

        Raises:
            DatasetNotFoundError: The set is not on this machine.
            DatasetError: It is another set or damaged; the message names the file.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Finds the set, prepares the crops (once; then cached) and divides them by cell.

        Raises:
            DatasetNotFoundError: The set is not on this machine.
            DatasetError: A file is damaged; the message names it.
        """
        transforms: ChromosomePreset = self._transforms()
        if hasattr(self, "crops") and transforms == self.transforms:
            return
        found = self.chromosomes()
        self.labels = found.labels
        self.cells = found.cells
        unknown = np.zeros(len(found.labels), bool)
        self.upright = unknown if found.upright is None else found.upright
        try:
            self.crops = prepared_crops(
                self.dataset_name,
                found.content_sha256,
                transforms,
                found.images,
                self.cache,
                found.cells,
            )
        except ImageError as error:
            raise DatasetError(str(error)) from error
        self.transforms: ChromosomePreset = transforms
        self._drawn: CropDataset | None = None

    def dataset(self, stage: str) -> CropDataset:
        """The crops of ``"train"``, ``"val"``, ``"test"`` or ``"all"``, not augmented."""
        self.setup()
        rows = np.flatnonzero(np.isin(self.cells, self.split.ids(stage)))
        if not rows.size:
            raise DatasetError(
                f"none of the {stage} cells of {self.split.name} is in the data set; "
                f"run `chromozoo data verify {self.dataset_name}`"
            )
        return CropDataset(
            self.crops[rows],
            self.labels[rows],
            self.cells[rows],
            self.transforms,
            upright=self.upright[rows],
        )

    def train_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        epoch = self.trainer.current_epoch if self.trainer else 0
        # One generator an epoch gives the order and the workers' seeds: with
        # `reload_dataloaders_every_n_epochs: 1` every epoch depends
        # on its number alone, so a resumed run repeats an uninterrupted one.
        # Under DDP every process augments with draws of its own.
        rank = self.trainer.global_rank if self.trainer else 0
        order_seed = (self.seed * 100_003 + epoch) % 2**31
        seed = (order_seed + 1_000_003 * rank) % 2**31
        pipeline = (
            augment.training_augmentation(**self.augmentation)  # type: ignore[arg-type]
            if self.augmentation is not None
            else None
        )
        real = self.dataset("train")
        parts = [real, self._synthetic()] if self.synthetic_cells else [real]
        # Flips leave open which arm is up.
        stays_up = self.augmentation is None or not self.augmentation.get("flips", True)
        crops = CropDataset(
            np.concatenate([part.crops for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.cells for part in parts]),
            self.transforms,
            pipeline,
            np.concatenate([part.upright for part in parts]) & stays_up,
        )
        generator = torch.Generator().manual_seed(order_seed)
        limit_opencv_threads(self.num_workers)
        if self.composed is not None:
            crops.augmentation = None
            cells = ComposedCells(crops, Composition(**self.composed), self.augmentation, seed)
            return DataLoader(
                cells,
                batch_size=self.batch_size,
                sampler=torch.randperm(len(cells), generator=generator).tolist(),
                collate_fn=join_cells,
                num_workers=self.num_workers,
                generator=generator,
            )
        augment.seed_pipeline(crops, seed)
        crops.seed = seed
        return DataLoader(
            crops,
            batch_size=self.batch_size,
            # Fixed for the epoch: Lightning begins a loader twice where a run is resumed.
            sampler=torch.randperm(len(crops), generator=generator).tolist(),
            drop_last=len(crops) > self.batch_size,
            num_workers=self.num_workers,
            worker_init_fn=augment.seed_worker,
            generator=generator,
        )

    # Lightning makes the loaders anew for `predict`, which fails on a positional batch size.

    def val_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        return self.test_dataloader()

    def _in_order(self, stage: str) -> DataLoader[dict[str, torch.Tensor]]:
        crops = self.dataset(stage)
        if self.composed is None:
            return DataLoader(crops, batch_size=self.batch_size)
        cells = ComposedCells(crops, UNCHANGED, None, seed=0)
        return DataLoader(cells, batch_size=self.batch_size, collate_fn=join_cells)

    def _transforms(self) -> ChromosomePreset:
        if self.preset is not None:
            return ChromosomePreset(**self.preset)  # type: ignore[arg-type]
        module = self.trainer.lightning_module if self.trainer else None
        transforms = getattr(module, "transforms", None)
        return transforms if isinstance(transforms, ChromosomePreset) else ChromosomePreset()

    def _synthetic(self) -> CropDataset:
        if self._drawn is None:
            from chromozoo.synthetic import draw_cell

            rng = np.random.default_rng(self.seed)
            drawn = [
                (self.transforms.prepare(chromosome.image), CLASSES.index(chromosome.label), -cell)
                for cell in range(1, self.synthetic_cells + 1)
                for chromosome in draw_cell(rng, stain=self.stain)
            ]
            crops, labels, cells = zip(*drawn, strict=True)
            self._drawn = CropDataset(
                np.stack(crops),
                np.array(labels),
                np.array(cells).astype(self.cells.dtype.type),
                self.transforms,
            )
        return self._drawn


def chromosomes_of_files(
    path: Path, files: Sequence[ChromosomeFile], upright: bool = False
) -> Chromosomes:
    """The chromosomes of a set that has one image file for each.

    Args:
        path: Folder or zip file.
        files: In the order of the set.
        upright: All images show the p arm up.

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
                name = f"{path}: {file.name}"
                yield name, read_bytes(archive.read(file.name), name)

    return Chromosomes(
        np.array([file.label for file in files]),
        np.array([file.cell for file in files]),
        sha256_of(contents()),
        images,
        np.full(len(files), upright),
    )


def read_all(path: Path, files: Sequence[ChromosomeFile]) -> tuple[str, int, list[str]]:
    """Decodes every file.

    Returns:
        Hash of the content, number of the files in colour, and what is wrong with others.
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
