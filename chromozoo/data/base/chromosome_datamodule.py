"""Base class of the DataModules of single chromosomes.

The crops are prepared once and cached, divided by cell or patient, and shown in an order that
depends on the seed and the epoch only.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from chromozoo.classes import CLASSES
from chromozoo.data.base.arguments import as_dataclass
from chromozoo.data.base.chromosome_augmentation import ChromosomeAugmentation
from chromozoo.data.base.chromosome_dataset import (
    ChromosomeDataset,
    Chromosomes,
    PreparedChromosomes,
)
from chromozoo.data.base.composed_cells import UNCHANGED, ComposedCells, Composition, join_cells
from chromozoo.data.base.crop_dataset import CropDataset
from chromozoo.data.base.workers import limit_opencv_threads
from chromozoo.data.splits import Split, draw_split
from chromozoo.images import augment
from chromozoo.images.preset import ChromosomePreset
from chromozoo.synthetic import draw_cell

if TYPE_CHECKING:
    from chromozoo.classes import Stain


class ChromosomeDataModule(LightningDataModule):
    """Single chromosomes with their classes, split by cell.

    ``prepare_data`` prepares the crops in one process of each node, and ``setup`` maps them from
    the cache. Without a Trainer, :meth:`dataset` prepares them when they are first used. Each data
    set is a subclass with its ``dataset_class``.

    Attributes:
        dataset_class: The data set, which can also be used alone.
        stain: ``"q"`` or ``"g"``: stain of the simulated cells in the training data.

    Args:
        root: Folder that holds the zip file or the unpacked folder, or one of these itself; None
            looks in ``CHROMOZOO_DATA`` and in the data folders of
            :func:`chromozoo.folders.data_folders`.
        fold: None for the test part of the split; 0 to 4 for grouped 5-fold cross-validation.
        batch_size: Images in a batch of one process; cells with ``composed``.
        num_workers: Processes that augment.
        augmentation: A :class:`ChromosomeAugmentation` or a dict of its fields; None trains on the
            bare crops.
        synthetic_cells: Number of simulated cells (:mod:`chromozoo.synthetic`) in the training
            data.
        composed: A :class:`Composition` or a dict of its fields, for models that classify whole
            cells: each batch then holds whole cells, and training cells are composed. None trains
            on single chromosomes.
        seed: Seed of the order and the augmentation. Both depend on the seed and the epoch only,
            so a resumed run sees the same batches as an uninterrupted one.
        preset: A :class:`ChromosomePreset` or a dict of its fields; None takes the model's own.
        cache: Folder of the prepared crops; None for the user's cache folder.
    """

    dataset_class: ClassVar[type[ChromosomeDataset]]
    stain: ClassVar["Stain"]

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        batch_size: int = 64,
        num_workers: int = 2,
        augmentation: ChromosomeAugmentation | None = None,
        synthetic_cells: int = 0,
        composed: Composition | None = None,
        seed: int = 0,
        preset: ChromosomePreset | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        self.fold = fold
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augmentation = as_dataclass(ChromosomeAugmentation, augmentation, "augmentation")
        self.synthetic_cells = synthetic_cells
        self.composed = as_dataclass(Composition, composed, "composed")
        self.seed = seed
        self.preset = as_dataclass(ChromosomePreset, preset, "preset")
        self.cache = Path(cache) if cache else None
        self.split: Split = (
            self.dataset_class.load_split(fold)
            if self.dataset_class.split_name
            else draw_split(self.dataset_class.dataset_name, (), fold)
        )
        self._prepared: PreparedChromosomes | None = None
        self._simulated: CropDataset | None = None

    def chromosomes(self) -> Chromosomes:
        """Find the data set and list its chromosomes.

        Raises:
            DatasetNotFoundError: The data set is not on this machine.
            DatasetError: It is another data set or damaged; the message names the file.
        """
        return self.dataset_class.list_chromosomes(self.root, self.fold, self.cache)

    def prepare_data(self) -> None:
        """Prepare the crops and the index of the data set into the cache.

        Raises:
            DatasetNotFoundError: The data set is not on this machine.
            DatasetError: A file is damaged; the message names it.
        """
        # Lightning calls this in one process of each node, so nothing is kept in the object.
        self._prepare()

    def setup(self, stage: str | None = None) -> None:
        """Map the crops from the cache and divide them by cell.

        Raises:
            DatasetNotFoundError: The data set is not on this machine.
            DatasetError: A file is damaged; the message names it.
        """
        if self._prepared is None or self._prepared.preset != self._find_preset():
            self._prepared, self._simulated = self._prepare(), None
            self.split = self._prepared.split

    @property
    def prepared(self) -> PreparedChromosomes:
        """All chromosomes of the data set, prepared for the current model."""
        self.setup()
        assert self._prepared is not None
        return self._prepared

    def dataset(self, stage: str) -> CropDataset:
        """Return the crops of ``"train"``, ``"val"``, ``"test"`` or ``"all"``, not augmented.

        Raises:
            DatasetError: The data set has none of the cells.
        """
        found = self.prepared
        rows = found.rows(stage)
        return CropDataset(
            found.crops[rows],
            found.labels[rows],
            found.cells[rows],
            found.preset,
            upright=found.upright[rows],
        )

    def train_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        epoch = self.trainer.current_epoch if self.trainer else 0
        # One generator an epoch gives the order and the seeds of the workers: with
        # `reload_dataloaders_every_n_epochs: 1` every epoch depends on its number only, so a
        # resumed run repeats an uninterrupted one.
        # Under DDP every process augments with draws of its own.
        rank = self.trainer.global_rank if self.trainer else 0
        order_seed = (self.seed * 100_003 + epoch) % 2**31
        seed = (order_seed + 1_000_003 * rank) % 2**31
        pipeline = self.augmentation.pipeline() if self.augmentation else None
        real = self.dataset("train")
        parts = [real, self._simulate_cells()] if self.synthetic_cells else [real]
        # Flips change which arm is up.
        stays_up = self.augmentation is None or not self.augmentation.flips
        crops = CropDataset(
            np.concatenate([part.crops for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.cells for part in parts]),
            real.preset,
            pipeline,
            np.concatenate([part.upright for part in parts]) & stays_up,
        )
        generator = torch.Generator().manual_seed(order_seed)
        limit_opencv_threads(self.num_workers)
        if self.composed is not None:
            crops.augmentation = None
            cells = ComposedCells(crops, self.composed, self.augmentation, seed)
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
            # Fixed for the epoch: Lightning iterates a loader twice where a run is resumed.
            sampler=torch.randperm(len(crops), generator=generator).tolist(),
            drop_last=len(crops) > self.batch_size,
            num_workers=self.num_workers,
            worker_init_fn=augment.seed_worker,
            generator=generator,
        )

    # Lightning builds the loaders again for `predict`, which fails on a positional batch size.

    def val_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        return self._load_in_order("val")

    def test_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        return self._load_in_order("test")

    def predict_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        return self.test_dataloader()

    def _load_in_order(self, stage: str) -> DataLoader[dict[str, torch.Tensor]]:
        crops = self.dataset(stage)
        if self.composed is None:
            return DataLoader(crops, batch_size=self.batch_size)
        cells = ComposedCells(crops, UNCHANGED, None, seed=0)
        return DataLoader(cells, batch_size=self.batch_size, collate_fn=join_cells)

    def _prepare(self) -> PreparedChromosomes:
        return PreparedChromosomes.of(
            self.dataset_class.dataset_name, self.chromosomes(), self._find_preset(), self.cache
        )

    def _find_preset(self) -> ChromosomePreset:
        """Return the given preset, else the model's own, else the default."""
        if self.preset is not None:
            return self.preset
        module = self.trainer.lightning_module if self.trainer else None
        transforms = getattr(module, "transforms", None)
        return transforms if isinstance(transforms, ChromosomePreset) else ChromosomePreset()

    def _simulate_cells(self) -> CropDataset:
        """Draw the simulated cells, once for each preset."""
        if self._simulated is None:
            rng = np.random.default_rng(self.seed)
            preset = self.prepared.preset
            drawn = [
                (preset.prepare(chromosome.image), CLASSES.index(chromosome.label), -cell)
                for cell in range(1, self.synthetic_cells + 1)
                for chromosome in draw_cell(rng, stain=self.stain)
            ]
            crops, labels, cells = zip(*drawn, strict=True)
            self._simulated = CropDataset(
                np.stack(crops),
                np.array(labels),
                np.array(cells).astype(self.prepared.cells.dtype.type),
                preset,
            )
        return self._simulated
