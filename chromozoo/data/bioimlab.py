"""BioImLab, Q-band: the set of single chromosomes (classification).

Poletti, Grisan, Ruggeri 2008/2012, Biomedical Imaging Laboratory, University of Padova. Layout as
published: ``<cell>/<cell> <class>[a|b].bmp``, class 23 = X, 24 = Y, dark background, 46 files a
cell; a few files are RGB, sizes run from 13x15 to 200x200.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from chromozoo.classes import CLASSES
from chromozoo.data.archive import find_dataset, open_archive
from chromozoo.data.catalogue import Verification
from chromozoo.data.crops import CropDataset, prepared_crops, sha256_of
from chromozoo.data.splits import STAGES, Split, load_split
from chromozoo.data.workers import opencv_in_workers
from chromozoo.errors import DatasetError, ImageError
from chromozoo.images import augment
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.reading import read_bytes

FILE_NAME = "bioimlab-classification.zip"
SPLIT = "bioimlab_v1"
CHROMOSOMES_PER_CELL = 46

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
    r"(?:^|/)(?P<cell>\d+)/(?P=cell) (?P<number>\d+)(?P<copy>[a-z]?)\.bmp$", re.IGNORECASE
)


@dataclass(frozen=True)
class ChromosomeFile:
    """One file of the set: its name in the archive, its cell and its class index."""

    name: str
    cell: int
    label: int


def list_files(path: Path) -> list[ChromosomeFile]:
    """All chromosomes of the set, in the order of cell, class, name.

    Raises:
        DatasetError: No file has a name of the published layout, or a class is out of 1..24.
    """
    found = []
    with open_archive(path) as archive:
        for name in archive.names():
            if match := _FILE.search(name):
                number = int(match["number"])
                if not 1 <= number <= len(CLASSES):
                    raise DatasetError(
                        f"{path}: {name} has class {number}; the set has 1 to {len(CLASSES)}"
                    )
                found.append(ChromosomeFile(name, int(match["cell"]), number - 1))
    if not found:
        raise DatasetError(
            f"{path}: holds no file named <cell>/<cell> <class>[a|b].bmp; this is not the BioImLab "
            "classification set"
        )
    return sorted(found, key=lambda file: (file.cell, file.label, file.name))


class BioImLabClassification(LightningDataModule):
    """Single Q-band chromosomes of 107 cells, split by cell.

    Args:
        root: Folder that holds the zip file or the unpacked folder, or one of these itself; None
            looks in ``CHROMOZOO_DATA`` and beside the repository.
        fold: None for the official test cells; 0 to 4 for grouped 5-fold cross-validation.
        batch_size: Pictures a batch (and a process, under DDP).
        num_workers: Processes that augment.
        augmentation: Arguments of
            :func:`chromozoo.images.augment.training_augmentation`; None trains on the bare crops.
        synthetic_cells: Cells drawn by :mod:`chromozoo.synthetic` that are mixed into the
            training, so that the model also knows what band tables alone tell.
        seed: Of the order and the augmentation, together with the epoch: a run that is resumed
            sees what the uninterrupted one would have seen.
        preset: Arguments of :class:`ChromosomePreset`; None takes the model's own.
        cache: Folder of the prepared crops.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        batch_size: int = 64,
        num_workers: int = 2,
        augmentation: dict[str, float | bool | list[float]] | None = None,
        synthetic_cells: int = 0,
        seed: int = 0,
        preset: dict[str, int | float | str | list[str]] | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        self.fold = fold
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augmentation = augmentation
        self.synthetic_cells = synthetic_cells
        self.seed = seed
        self.preset = preset
        self.cache = Path(cache) if cache else None
        self.split: Split = load_split(SPLIT, fold)

    def setup(self, stage: str | None = None) -> None:
        """Finds the set, prepares the crops (once; then cached) and divides them by cell.

        Raises:
            DatasetNotFoundError: The set is not on this machine.
            DatasetError: A file is damaged; the message names it.
        """
        transforms: ChromosomePreset = self._transforms()
        if hasattr(self, "crops") and transforms == self.transforms:
            return
        path = find_dataset(FILE_NAME, INSTRUCTIONS, self.root)
        files = list_files(path)
        self.labels = np.array([file.label for file in files])
        self.cells = np.array([file.cell for file in files])
        self.crops = _prepare(path, files, transforms, self.cache)
        self.transforms: ChromosomePreset = transforms
        self._drawn: CropDataset | None = None

    def dataset(self, stage: str) -> CropDataset:
        """The crops of ``"train"``, ``"val"``, ``"test"`` or ``"all"``, not augmented."""
        self.setup()
        rows = np.flatnonzero(np.isin(self.cells, self.split.ids(stage)))
        if not rows.size:
            raise DatasetError(
                f"none of the {stage} cells of {self.split.name} is in the data set; "
                "run `chromozoo data verify bioimlab`"
            )
        return CropDataset(self.crops[rows], self.labels[rows], self.cells[rows], self.transforms)

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
        crops = CropDataset(
            np.concatenate([part.crops for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.cells for part in parts]),
            self.transforms,
            pipeline,
        )
        augment.seed_pipeline(crops, seed)
        crops.seed = seed
        generator = torch.Generator().manual_seed(order_seed)
        opencv_in_workers(self.num_workers)
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
        return DataLoader(self.dataset("val"), batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        return DataLoader(self.dataset("test"), batch_size=self.batch_size)

    def predict_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        return self.test_dataloader()

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
                for chromosome in draw_cell(rng, stain="q")
            ]
            crops, labels, cells = zip(*drawn, strict=True)
            self._drawn = CropDataset(
                np.stack(crops), np.array(labels), np.array(cells), self.transforms
            )
        return self._drawn


def _prepare(
    path: Path, files: list[ChromosomeFile], preset: ChromosomePreset, cache: Path | None
) -> NDArray[np.uint8]:
    with open_archive(path) as archive:
        contents = {file.name: archive.read(file.name) for file in files}
    sha256 = sha256_of(part for name, data in contents.items() for part in (name.encode(), data))

    def pictures() -> Iterator[tuple[str, NDArray[np.generic]]]:
        for name, data in contents.items():
            yield (full_name := f"{path}: {name}"), read_bytes(data, full_name)

    try:
        return prepared_crops("bioimlab", sha256, preset, pictures, cache)
    except ImageError as error:
        raise DatasetError(str(error)) from error


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Reads every file of the set and counts it by class and split.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
    """
    path = find_dataset(FILE_NAME, INSTRUCTIONS, root)
    files = list_files(path)
    split = load_split(SPLIT)
    faults: list[str] = []
    digests: list[bytes] = []
    colour = 0
    with open_archive(path) as archive:
        for file in files:
            data = archive.read(file.name)
            digests += [file.name.encode(), data]
            try:
                colour += read_bytes(data, file.name).ndim == 3
            except ImageError as error:
                faults.append(str(error))
    by_cell = Counter(file.cell for file in files)
    by_class = Counter(file.label for file in files)
    faults += [
        f"cell {cell}: {count} chromosomes, published with {CHROMOSOMES_PER_CELL}"
        for cell, count in sorted(by_cell.items())
        if count != CHROMOSOMES_PER_CELL
    ]
    missing = sorted(set(split.ids("all")) - set(by_cell))
    unknown = sorted(set(by_cell) - set(split.ids("all")))
    faults += [f"cell {cell} of the split is not in the data set" for cell in missing]
    faults += [f"cell {cell} is in no part of the split" for cell in unknown]
    lines = [
        f"content sha256 {sha256_of(digests)}",
        f"{len(files)} chromosomes of {len(by_cell)} cells, {colour} files in colour",
        "by class: " + ", ".join(f"{CLASSES[k]}: {by_class[k]}" for k in range(len(CLASSES))),
    ]
    for stage in STAGES:
        cells = [cell for cell in split.ids(stage) if cell in by_cell]
        lines.append(
            f"{split.name}/{stage}: {len(cells)} cells, "
            f"{sum(by_cell[cell] for cell in cells)} chromosomes"
        )
    return Verification(path, tuple(lines), tuple(faults))
