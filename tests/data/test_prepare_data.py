"""Preparation in one process, set-up from the cache in all, and data sets without Lightning."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.drawn_gband import write_boxes
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from chromozoo.data.base.arguments import as_dataclass
from chromozoo.data.base.chromosome_augmentation import ChromosomeAugmentation
from chromozoo.data.base.metaphase_augmentation import MetaphaseAugmentation
from chromozoo.data.bioimlab import BioImLabDataModule, BioImLabDataset
from chromozoo.data.bioimlab_segmentation import (
    BioImLabSegmentationDataModule,
    BioImLabSegmentationDataset,
)
from chromozoo.data.catalogue import DATASETS
from chromozoo.data.cil54816 import Cil54816CropsDataModule, Cil54816Files
from chromozoo.data.io import archive
from chromozoo.errors import DatasetError, UnknownNameError
from chromozoo.images import augment
from chromozoo.images.preset import ChromosomePreset

SMALL = ChromosomePreset(height=32, width=16, scale=0.5)


@pytest.fixture
def zipped(tiny_bioimlab: Path, tmp_path: Path) -> Path:
    """A zip file that has not changed for long."""
    path = tmp_path / "bioimlab-classification.zip"
    with zipfile.ZipFile(path, "w") as file:
        for image in tiny_bioimlab.rglob("*.bmp"):
            file.write(image, image.relative_to(tiny_bioimlab).as_posix())
    os.utime(path, (1_000_000, 1_000_000))
    return path


def forbid(monkeypatch: pytest.MonkeyPatch, owner: object, *names: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("called, although the cache is warm")

    for name in names:
        monkeypatch.setattr(owner, name, refuse)


def test_prepare_data_prepares_and_setup_reads_no_file(
    zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = str(tmp_path / "cache")
    first = BioImLabDataModule(zipped, preset=SMALL, cache=cache)
    first.prepare_data()
    # As in the other processes of DDP, which get a fresh object and wait for the first.
    forbid(monkeypatch, ChromosomePreset, "prepare")
    forbid(monkeypatch, archive._Zip, "read")
    second = BioImLabDataModule(zipped, preset=SMALL, cache=cache)
    second.setup("fit")
    assert isinstance(second.prepared.crops, np.memmap)
    assert len(second.dataset("train")) == len(BioImLabDataset(zipped, preset=SMALL, cache=cache))


def test_a_changed_archive_is_prepared_again(zipped: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    before = BioImLabDataset(zipped, "train", preset=SMALL, cache=cache)
    with zipfile.ZipFile(zipped, "a") as file:
        file.writestr("2/2 5c.bmp", file.read("2/2 5a.bmp"))
    os.utime(zipped, (1_000_000, 1_000_000))
    assert len(BioImLabDataset(zipped, "train", preset=SMALL, cache=cache)) == len(before) + 1


class Counting(BioImLabDataModule):
    """Counts the calls of Lightning."""

    calls: list[str]

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")
        super().prepare_data()

    def setup(self, stage: str | None = None) -> None:
        self.calls.append("setup")
        super().setup(stage)


class Mean(LightningModule):
    """Has a preset of its own, as the models of the zoo have."""

    def __init__(self) -> None:
        super().__init__()
        self.transforms = SMALL
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        assert batch["image"].shape[-2:] == (32, 16)
        return self.weight * batch["image"].mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_prepares_once_with_the_preset_of_the_model(
    zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Counting(zipped, batch_size=8, num_workers=0, cache=str(tmp_path / "cache"))
    data.calls = []
    setup = Counting.setup

    def setup_without_preparing(self: Counting, stage: str | None = None) -> None:
        with monkeypatch.context() as patch:
            forbid(patch, ChromosomePreset, "prepare")
            setup(self, stage)

    monkeypatch.setattr(Counting, "setup", setup_without_preparing)
    trainer = Trainer(
        logger=False,
        max_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    trainer.fit(Mean(), datamodule=data)
    assert data.calls.count("prepare_data") == 1 and data.calls[0] == "prepare_data"
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_boxes_are_listed_from_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_boxes(tmp_path / "gband-cil54816")
    for file in root.iterdir():
        os.utime(file, (1_000_000, 1_000_000))
    cache = str(tmp_path / "cache")
    before = Cil54816CropsDataModule(root, preset=SMALL, cache=cache)
    before.prepare_data()
    forbid(monkeypatch, Cil54816Files, "read_boxes", "read_image")
    after = Cil54816CropsDataModule(root, preset=SMALL, cache=cache).prepared
    assert after.labels.tolist() == before.prepared.labels.tolist() == [0, 1] * 6
    assert after.labels.dtype == np.int64 and len(set(after.cells.tolist())) == 6


# Data sets without Lightning


def test_a_chromosome_dataset_equals_its_data_module(tiny_bioimlab: Path, tmp_path: Path) -> None:
    pipeline = ChromosomeAugmentation(rotate=5).pipeline()
    dataset = BioImLabDataset(
        tiny_bioimlab, "val", preset={"height": 32, "width": 16, "scale": 0.5}, cache=tmp_path
    )
    data = BioImLabDataModule(tiny_bioimlab, preset=SMALL, cache=str(tmp_path))
    for one, other in zip(dataset, data.dataset("val"), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch["image"].shape == (5, 1, 32, 16)
    augmented = BioImLabDataset(
        tiny_bioimlab, "val", preset=SMALL, augmentation=pipeline, cache=tmp_path
    )
    assert any(not torch.equal(augmented[k]["image"], dataset[k]["image"]) for k in range(8))
    with pytest.raises(UnknownNameError, match="known are train, val, test, all"):
        BioImLabDataset(tiny_bioimlab, "training", preset=SMALL, cache=tmp_path)
    with pytest.raises(DatasetError, match="none of the test cells of bioimlab_v1/fold0"):
        BioImLabDataset(tiny_bioimlab, "test", 0, preset=SMALL, cache=tmp_path)


def test_a_metaphase_dataset_equals_its_data_module(tiny_metaphases: Path) -> None:
    dataset = BioImLabSegmentationDataset(tiny_metaphases, "val", preset={"typical_width": 0})
    data = BioImLabSegmentationDataModule(tiny_metaphases, preset={"typical_width": 0})
    for one, other in zip(dataset, data.dataset("val"), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_of_the_catalogue_has_its_classes(name: str) -> None:
    info = DATASETS[name]
    module = info.load_module()
    dataset, data_module = getattr(module, info.dataset), getattr(module, info.data_module)
    assert data_module.dataset_class is dataset and dataset.dataset_name == name
    for section in ("Source:", "Files", "Licence", "eference:", "Example::"):
        assert section in module.__doc__ or name == "cil54816-crops"


# Arguments


def test_dicts_become_dataclasses() -> None:
    data = BioImLabDataModule(
        preset={"height": 32, "views": ["upright"]},
        augmentation={"scale": [0.9, 1.1]},
        composed={"mixed": 0.3},
    )
    assert data.preset == ChromosomePreset(height=32)
    assert data.augmentation == ChromosomeAugmentation(scale=[0.9, 1.1])
    assert data.composed is not None and data.composed.mixed == 0.3
    metaphases = BioImLabSegmentationDataModule(augmentation={})
    assert metaphases.augmentation == MetaphaseAugmentation()
    with pytest.raises(ValueError, match=r"augmentation has no field turn; known are rotate, scal"):
        BioImLabDataModule(augmentation={"turn": 5})
    with pytest.raises(ValueError, match="preset is 3; give a ChromosomePreset or a dict"):
        as_dataclass(ChromosomePreset, 3, "preset")


def test_the_augmentation_has_the_arguments_of_its_pipeline() -> None:
    import inspect
    from dataclasses import fields

    parameters = inspect.signature(augment.training_augmentation).parameters
    known = {field.name: field.default for field in fields(ChromosomeAugmentation)}
    assert known == {name: parameter.default for name, parameter in parameters.items()}
