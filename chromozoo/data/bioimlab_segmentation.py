"""BioImLab, Q-band: the set of whole prometaphases with outlined chromosomes (segmentation).

Images: Biomedical Imaging Laboratory, University of Padova. Amodal polygons: Wang et al. 2023,
doi 10.1016/j.bspc.2023.105199. Layout as published: labelme files ``original_<key>.json`` with the
image embedded; the same as COCO JSON is read, too.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from chromozoo.data.archive import find_dataset, open_archive
from chromozoo.data.catalogue import Verification
from chromozoo.data.crops import sha256_of
from chromozoo.data.cut_and_paste import Bank, cut_bank
from chromozoo.data.metaphases import (
    BARE,
    MetaphaseAugmentation,
    Pictures,
    TrainingCrops,
    WholeImages,
    collate,
    metaphase_files,
)
from chromozoo.data.polygons import faults, natural_order
from chromozoo.data.splits import STAGES, Split, load_split
from chromozoo.data.workers import opencv_in_workers
from chromozoo.errors import DatasetError, DatasetNotFoundError
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.images.reading import IMAGE_SUFFIXES

FILE_NAME = "bioimlab-segmentation.zip"
SPLIT = "bioimlab_segmentation_v1"

INSTRUCTIONS = """To get it:
  1. Get the annotations of Wang et al. 2023 (doi 10.1016/j.bspc.2023.105199, MPL-2.0): labelme
     files of the BioImLab images of the University of Padova (public download, no licence is
     stated: research use), with the images embedded.
  2. Put the archive, or the folder unpacked from it, here:
         {folder}/
         └── bioimlab-segmentation.zip      (or a folder bioimlab-segmentation/)
             ├── original_2.json
             ├── ...
             └── original_117c.json
     (or annotations.json in COCO format with images/), or name another folder:
     CHROMOZOO_DATA=/folder, or --data.init_args.root /folder
  3. Check it: chromozoo data verify bioimlab-segmentation"""


class BioImLabSegmentation(LightningDataModule):
    """Q-band prometaphases with amodal outlines, split by image list and grouped by cell.

    Training gives square crops, evaluation whole images of their own sizes, one a batch.

    Args:
        root: Folder that holds the zip file or the unpacked folder, or one of these itself, or a
            COCO JSON; None looks in ``CHROMOZOO_DATA`` and beside the repository.
        preset: Arguments of :class:`MetaphasePreset`; None takes the model's own.
        batch_size: Crops a batch (and a process, under DDP).
        crop: Side of the crops in pixels.
        samples_per_epoch: Crops that make an epoch.
        synthetic: Share of the crops, 0..1, that are composed by cut-and-paste from the training
            images (:mod:`chromozoo.data.cut_and_paste`).
        overlap: Share of the chromosomes of a composed crop that cross or touch another.
        augmentation: Arguments of :class:`MetaphaseAugmentation`; None trains on bare crops.
        num_workers: Processes that make crops.
        seed: Of the crops, together with the epoch: a run that is resumed sees what the
            uninterrupted one would have seen.
        split: Name of the id lists.
    """

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
        split: str = SPLIT,
    ) -> None:
        super().__init__()
        if not 0 <= synthetic <= 1:
            raise ValueError(f"synthetic is {synthetic:g}; give a share of the crops from 0 to 1")
        self.root = root
        self.preset = preset
        self.batch_size = batch_size
        self.crop = crop
        self.samples_per_epoch = samples_per_epoch
        self.synthetic = synthetic
        self.overlap = overlap
        self.augmentation = (
            BARE if augmentation is None else MetaphaseAugmentation(**augmentation)  # type: ignore[arg-type]
        )
        self.num_workers = num_workers
        self.seed = seed
        self.split: Split = load_split(split)

    def setup(self, stage: str | None = None) -> None:
        """Finds the set and lists it; images are decoded when they are asked for.

        Raises:
            DatasetNotFoundError: The set is not on this machine.
            DatasetError: The list of its files is damaged.
        """
        transforms = self._transforms()
        if hasattr(self, "pictures") and self.pictures.preset == transforms:
            return
        self.pictures: Pictures = Pictures(metaphase_files(_find(self.root)), transforms)
        self._bank: Bank | None = None

    def keys(self, stage: str) -> list[str]:
        """Names of the images of ``"train"``, ``"val"``, ``"test"`` or ``"all"``.

        Raises:
            DatasetError: The set has none of them.
        """
        self.setup()
        ids = set(self.split.ids(stage))
        found = [key for key in self.pictures.files.keys() if key in ids]  # noqa: SIM118
        if not found:
            raise DatasetError(
                f"none of the {stage} images of {self.split.name} is in the data set; "
                "run `chromozoo data verify bioimlab-segmentation`"
            )
        return found

    def dataset(self, stage: str) -> WholeImages:
        """The whole images of ``"train"``, ``"val"``, ``"test"`` or ``"all"``, not augmented."""
        return WholeImages(self.keys(stage), self.pictures)

    def bank(self) -> Bank:
        """What metaphases are composed of, cut from the training images alone."""
        keys = self.keys("train")
        if self._bank is None:
            pictures = (self.pictures[key] for key in keys)
            self._bank = cut_bank((picture.canvas, picture.polygons) for picture in pictures)
            if not self._bank.chromosomes:
                raise DatasetError(
                    f"{_find(self.root)}: no chromosome of the training images lies free of the "
                    "others, so none can be cut out; set synthetic to 0"
                )
        return self._bank

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        # With `reload_dataloaders_every_n_epochs: 1` every epoch depends on its number alone, so a
        # resumed run repeats an uninterrupted one.
        crops = TrainingCrops(
            self.keys("train"),
            self.pictures,
            self.crop,
            self.samples_per_epoch,
            self.augmentation,
            seed=self.seed,
            epoch=self.trainer.current_epoch if self.trainer else 0,
            synthetic=self.synthetic,
            bank=self.bank() if self.synthetic else None,
            overlap=self.overlap,
        )
        opencv_in_workers(self.num_workers)
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


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Reads every file of the set, judges every outline, and counts them by split.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
        DatasetError: The list of its files is damaged.
    """
    path = _find(root)
    files = metaphase_files(path)
    split = load_split(SPLIT)
    found: list[str] = []
    polygons: dict[str, int] = {}
    sizes: set[tuple[int, ...]] = set()
    keys = files.keys()
    for key in keys:
        try:
            metaphase = files.read(key)
        except DatasetError as error:
            found.append(str(error))
            continue
        found += faults(metaphase)
        polygons[key] = len(metaphase.polygons)
        sizes.add(metaphase.image.shape[::-1])
    known = set(split.ids("all")) | set(split.excluded)
    found += [
        f"image {key} of the split is not in the data set"
        for key in natural_order(known - set(keys))
    ]
    found += [f"image {key} is in no part of the split" for key in keys if key not in known]
    lines = [
        f"content sha256 {sha256_of(_contents(path))}",
        f"{len(keys)} images, {sum(polygons.values())} polygons",
        "sizes: " + ", ".join(f"{width}x{height}" for width, height in sorted(sizes)),
    ]
    for stage in STAGES:
        there = [key for key in split.ids(stage) if key in polygons]
        lines.append(
            f"{split.name}/{stage}: {len(there)} images, {sum(polygons[key] for key in there)} "
            "polygons"
        )
    lines.append(f"{split.name}: left out {', '.join(split.excluded)}")
    return Verification(path, tuple(lines), tuple(found))


def _find(root: str | os.PathLike[str] | None) -> Path:
    try:
        return find_dataset(FILE_NAME, INSTRUCTIONS, root)
    except DatasetNotFoundError:
        if root is not None and any(Path(root).glob("*.json")):
            return Path(root)
        raise


def _contents(path: Path) -> Iterator[bytes]:
    folder = path.parent if path.suffix.lower() == ".json" else path
    with open_archive(folder) as archive:
        for name in archive.names():
            if PurePosixPath(name).suffix.lower() in {".json", *IMAGE_SUFFIXES}:
                yield from (name.encode(), archive.read(name))
