"""Base class of the DataModules of annotated metaphases."""

import os
from typing import Any, ClassVar

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from chromozoo.data.base.arguments import as_dataclass
from chromozoo.data.base.metaphase_augmentation import IDENTITY, MetaphaseAugmentation
from chromozoo.data.base.metaphase_dataset import (
    MetaphaseCropDataset,
    MetaphaseDataset,
    SplitMetaphaseDataset,
    select_keys,
)
from chromozoo.data.base.metaphase_store import MetaphaseStore
from chromozoo.data.base.metaphase_targets import collate_metaphases
from chromozoo.data.base.workers import limit_opencv_threads
from chromozoo.data.splits import Split, load_split
from chromozoo.errors import DatasetError
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.structures.metaphase import MetaphaseFiles
from chromozoo.synthetic.cut_and_paste import Bank, cut_bank


class MetaphaseDataModule(LightningDataModule):
    """Metaphases with amodal outlines, split by image and grouped.

    Training uses square crops; evaluation uses whole images of their own sizes, one in a batch.
    Images are decoded on first use, so there is nothing to prepare. Each data set is a subclass
    with its ``dataset_class``.

    Attributes:
        dataset_class: The data set, which can also be used alone.

    Args:
        root: Folder that holds the zip file or the unpacked folder, or one of these itself; None
            looks in ``CHROMOZOO_DATA`` and in the data folders of
            :func:`chromozoo.folders.data_folders`.
        preset: A :class:`MetaphasePreset` or a dict of its fields; None takes the model's own.
        batch_size: Crops in a batch of one process.
        crop: Side of the crops in pixels.
        samples_per_epoch: Number of crops in one epoch.
        synthetic: Fraction of the crops, 0..1, that are composed by cut-and-paste from the training
            images (:mod:`chromozoo.synthetic.cut_and_paste`). It must be 0 for data sets with
            classes, because composed crops have none.
        overlap: Fraction of the chromosomes of a composed crop that cross or touch another.
        augmentation: A :class:`MetaphaseAugmentation` or a dict of its fields; None trains on bare
            crops.
        num_workers: Processes that make crops.
        seed: Seed of the crops. They depend on the seed and the epoch only, so a resumed run sees
            the same crops as an uninterrupted one.
        split: Name of the split; None takes that of the data set.
    """

    dataset_class: ClassVar[type[SplitMetaphaseDataset]]

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        preset: MetaphasePreset | None = None,
        batch_size: int = 4,
        crop: int = 320,
        samples_per_epoch: int = 500,
        synthetic: float = 0.0,
        overlap: float = 0.4,
        augmentation: MetaphaseAugmentation | None = None,
        num_workers: int = 2,
        seed: int = 0,
        split: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= synthetic <= 1:
            raise ValueError(f"synthetic is {synthetic:g}; give a fraction of the crops, 0 to 1")
        if synthetic and self.dataset_class.with_classes:
            raise ValueError(
                f"synthetic is {synthetic:g}, but composed crops have no classes; set it to 0"
            )
        self.root = root
        self.preset = as_dataclass(MetaphasePreset, preset, "preset")
        self.batch_size = batch_size
        self.crop = crop
        self.samples_per_epoch = samples_per_epoch
        self.synthetic = synthetic
        self.overlap = overlap
        self.augmentation = (
            as_dataclass(MetaphaseAugmentation, augmentation, "augmentation") or IDENTITY
        )
        self.num_workers = num_workers
        self.seed = seed
        self.split: Split = load_split(split or self.dataset_class.split_name)
        self._images: MetaphaseStore | None = None
        self._bank: Bank | None = None

    def files(self) -> MetaphaseFiles:
        """Find the data set and list its images; none is decoded.

        Raises:
            DatasetNotFoundError: The data set is not on this machine.
            DatasetError: The list of its files is damaged.
        """
        return self.dataset_class.open_files(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Find the data set and list its images; they are decoded on first use.

        Raises:
            DatasetNotFoundError: The data set is not on this machine.
            DatasetError: The list of its files is damaged.
        """
        preset = self._find_preset()
        if self._images is None or self._images.preset != preset:
            self._images = MetaphaseStore(self.files(), preset, self.dataset_class.with_classes)
            self._bank = None

    @property
    def images(self) -> MetaphaseStore:
        """All metaphases of the data set, prepared for the current model."""
        self.setup()
        assert self._images is not None
        return self._images

    def keys(self, stage: str) -> list[str]:
        """Return the names of the images of ``"train"``, ``"val"``, ``"test"`` or ``"all"``.

        Raises:
            DatasetError: The data set has none of them.
        """
        return select_keys(self.dataset_class.dataset_name, self.images.files, self.split, stage)

    def training_keys(self) -> list[str]:
        """Return the images that training crops are cut from, repeated by their weight."""
        return self.keys("train")

    def dataset(self, stage: str) -> MetaphaseDataset:
        """Return the whole images of ``"train"``, ``"val"``, ``"test"`` or ``"all"``."""
        return MetaphaseDataset(self.keys(stage), self.images)

    def bank(self) -> Bank:
        """Return the chromosomes and backgrounds for composed crops, from training images only.

        Raises:
            DatasetError: No chromosome lies apart from the others.
        """
        keys = self.keys("train")
        if self._bank is None:
            images = (self.images[key] for key in keys)
            self._bank = cut_bank(
                (image.canvas, image.polygons) for image in images if not image.boxes_only
            )
            if not self._bank.chromosomes:
                raise DatasetError(
                    f"{self.dataset_class.dataset_name}: no chromosome of the training images lies "
                    "free of the others, so none can be cut out; set synthetic to 0"
                )
        return self._bank

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        # With `reload_dataloaders_every_n_epochs: 1` every epoch depends on its number only, so a
        # resumed run repeats an uninterrupted one.
        crops = MetaphaseCropDataset(
            self.training_keys(),
            self.images,
            self.crop,
            self.samples_per_epoch,
            self.augmentation,
            seed=self.seed,
            epoch=self.trainer.current_epoch if self.trainer else 0,
            synthetic=self.synthetic,
            bank=self.bank() if self.synthetic else None,
            overlap=self.overlap,
        )
        limit_opencv_threads(self.num_workers)
        return DataLoader(
            crops,
            batch_size=self.batch_size,
            drop_last=len(crops) > self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate_metaphases,
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._load_whole_images("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._load_whole_images("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._load_whole_images("test")

    def _load_whole_images(self, stage: str) -> DataLoader[dict[str, Any]]:
        # Lightning builds loaders again for `predict`, which fails on a positional batch size.
        return DataLoader(self.dataset(stage), batch_size=1, collate_fn=collate_metaphases)

    def _find_preset(self) -> MetaphasePreset:
        """Return the given preset, else the model's own, else the default."""
        if self.preset is not None:
            return self.preset
        module = self.trainer.lightning_module if self.trainer else None
        transforms = getattr(module, "transforms", None)
        return transforms if isinstance(transforms, MetaphasePreset) else MetaphasePreset()
