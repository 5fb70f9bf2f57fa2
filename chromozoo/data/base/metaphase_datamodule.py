"""Sets of annotated metaphases: what their DataModules share, whatever the files are called."""

import os
from typing import Any, ClassVar

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from chromozoo.data.base.metaphase_dataset import (
    IDENTITY,
    MetaphaseAugmentation,
    MetaphaseCropDataset,
    MetaphaseDataset,
    MetaphaseStore,
    collate,
)
from chromozoo.data.base.workers import limit_opencv_threads
from chromozoo.data.splits import Split, load_split
from chromozoo.errors import DatasetError
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.structures.metaphase import MetaphaseFiles
from chromozoo.synthetic.cut_and_paste import Bank, cut_bank


class MetaphaseDataModule(LightningDataModule):
    """Metaphases with amodal outlines, split by image list and grouped.

    Training gives square crops, evaluation whole images of their own sizes, one a batch. A set is a
    subclass that says what it is called and lists its files.

    Attributes:
        dataset_name: In the catalogue.
        split_name: Of the committed id lists.
        with_classes: Targets are labelled 1 to 24 by class, and ``synthetic`` must be 0, for
            composed crops have no classes; else all are 1.

    Args:
        root: Folder that holds the zip file or the unpacked folder, or one of these itself; None
            looks in ``CHROMOZOO_DATA`` and beside the repository.
        preset: Arguments of :class:`MetaphasePreset`; None takes the model's own.
        batch_size: Crops a batch (and a process, under DDP).
        crop: Side of the crops in pixels.
        samples_per_epoch: Crops that make an epoch.
        synthetic: Share of the crops, 0..1, that are composed by cut-and-paste from the training
            images (:mod:`chromozoo.synthetic.cut_and_paste`).
        overlap: Share of the chromosomes of a composed crop that cross or touch another.
        augmentation: Arguments of :class:`MetaphaseAugmentation`; None trains on bare crops.
        num_workers: Processes that make crops.
        seed: Of the crops, together with the epoch: a run that is resumed sees what the
            uninterrupted one would have seen.
        split: Name of the id lists; None takes the set's own.
    """

    dataset_name: ClassVar[str]
    split_name: ClassVar[str]
    with_classes: ClassVar[bool] = False

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        preset: dict[str, int | float] | None = None,
        batch_size: int = 4,
        crop: int = 320,
        samples_per_epoch: int = 500,
        synthetic: float = 0.0,
        overlap: float = 0.4,
        augmentation: dict[str, float | bool | list[float]] | None = None,
        num_workers: int = 2,
        seed: int = 0,
        split: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= synthetic <= 1:
            raise ValueError(f"synthetic is {synthetic:g}; give a share of the crops from 0 to 1")
        if synthetic and self.with_classes:
            raise ValueError(
                f"synthetic is {synthetic:g}, but composed crops have no classes; set it to 0"
            )
        self.root = root
        self.preset = preset
        self.batch_size = batch_size
        self.crop = crop
        self.samples_per_epoch = samples_per_epoch
        self.synthetic = synthetic
        self.overlap = overlap
        self.augmentation = (
            IDENTITY if augmentation is None else MetaphaseAugmentation(**augmentation)  # type: ignore[arg-type]
        )
        self.num_workers = num_workers
        self.seed = seed
        self.split: Split = load_split(split or self.split_name)

    def files(self) -> MetaphaseFiles:
        """Finds the set and lists it.

        Raises:
            DatasetNotFoundError: The set is not on this machine.
            DatasetError: The list of its files is damaged.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Finds the set and lists it; images are decoded when they are asked for.

        Raises:
            DatasetNotFoundError: The set is not on this machine.
            DatasetError: The list of its files is damaged.
        """
        transforms = self._transforms()
        if hasattr(self, "images") and self.images.preset == transforms:
            return
        self.images: MetaphaseStore = MetaphaseStore(self.files(), transforms, self.with_classes)
        self._bank: Bank | None = None

    def keys(self, stage: str) -> list[str]:
        """Names of the images of ``"train"``, ``"val"``, ``"test"`` or ``"all"``.

        Raises:
            DatasetError: The set has none of them.
        """
        self.setup()
        ids = set(self.split.ids(stage))
        found = [key for key in self.images.files.keys() if key in ids]  # noqa: SIM118
        if not found:
            raise DatasetError(
                f"none of the {stage} images of {self.split.name} is in the data set; "
                f"run `chromozoo data verify {self.dataset_name}`"
            )
        return found

    def training_keys(self) -> list[str]:
        """Names of the images that training crops are cut from; repeated where they count more."""
        return self.keys("train")

    def dataset(self, stage: str) -> MetaphaseDataset:
        """The whole images of ``"train"``, ``"val"``, ``"test"`` or ``"all"``, not augmented."""
        return MetaphaseDataset(self.keys(stage), self.images)

    def bank(self) -> Bank:
        """What metaphases are composed of, cut from the training images alone."""
        keys = self.keys("train")
        if self._bank is None:
            images = (self.images[key] for key in keys)
            self._bank = cut_bank(
                (image.canvas, image.polygons) for image in images if not image.boxes_only
            )
            if not self._bank.chromosomes:
                raise DatasetError(
                    f"{self.dataset_name}: no chromosome of the training images lies free of the "
                    "others, so none can be cut out; set synthetic to 0"
                )
        return self._bank

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        # With `reload_dataloaders_every_n_epochs: 1` every epoch depends on its number alone, so a
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
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._whole("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._whole("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._whole("test")

    def _whole(self, stage: str) -> DataLoader[dict[str, Any]]:
        # Lightning makes loaders anew for `predict`, which fails on a positional batch size.
        return DataLoader(self.dataset(stage), batch_size=1, collate_fn=collate)

    def _transforms(self) -> MetaphasePreset:
        if self.preset is not None:
            return MetaphasePreset(**self.preset)  # type: ignore[arg-type]
        module = self.trainer.lightning_module if self.trainer else None
        transforms = getattr(module, "transforms", None)
        return transforms if isinstance(transforms, MetaphasePreset) else MetaphasePreset()
