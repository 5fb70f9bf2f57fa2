"""Karyograms as a data set: classes by position, split by patient, and refused images."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromozoo.classes import AUTOSOMES, CLASSES
from chromozoo.cli.main import main as chromozoo
from chromozoo.data import karyograms
from chromozoo.data.karyograms import (
    KaryogramDataModule,
    KaryogramDataset,
    cut_karyograms,
    patient_of,
)
from chromozoo.data.splits import STAGES
from chromozoo.errors import DatasetError, DatasetNotFoundError
from chromozoo.images.signal import signal_image
from chromozoo.synthetic import Appearance, draw_chromosome
from chromozoo.visualization.karyogram import KaryogramEntry, draw_karyogram

MALE = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "Y"]
# The hashes of the names draw patient 0 for training, 2 for validation and 19 for testing.
PATIENTS = ("patient0", "patient2", "patient19")
NAMES = [f"{patient}_{cell}" for patient in PATIENTS for cell in (1, 2)]


@pytest.fixture(scope="module")
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    look = Appearance(stain="g", bend=0.25, base=0.35, blur=1.0, background=255.0, noise=1.0)
    images = [draw_chromosome(name, look, rng, angle=0).image for name in MALE]
    entries = [
        KaryogramEntry(signal_image(image.astype(np.float32)), name, 0.9)
        for name, image in zip(MALE, images, strict=True)
    ]
    return draw_karyogram(entries, title="a", iscn="46,XY", footer="-")


@pytest.fixture(scope="module")
def folder(image: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("karyograms")
    for name in NAMES:
        image.save(folder / f"{name}.png")
        os.utime(folder / f"{name}.png", (0, 0))  # old enough for the index
    return folder


@pytest.fixture(scope="module")
def warm_cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    KaryogramDataModule(folder, cache=str(cache)).prepare_data()
    return cache


def test_every_chromosome_has_the_class_of_its_position(folder: Path, warm_cache: Path) -> None:
    found = KaryogramDataModule(folder, num_workers=0, cache=str(warm_cache)).prepared
    assert len(found.crops) == 46 * len(NAMES)
    first = found.cells == NAMES[0]
    assert sorted(CLASSES[label] for label in found.labels[first]) == sorted(MALE)
    assert found.crops[first].any(axis=(1, 2)).all()


def test_a_warm_setup_cuts_nothing(
    folder: Path, warm_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("cut again, although the index knows the karyograms")

    monkeypatch.setattr(karyograms, "cut_karyograms", refuse)
    parts = {stage: KaryogramDataset(folder, stage, cache=warm_cache) for stage in STAGES}
    assert sum(map(len, parts.values())) == 46 * len(NAMES)


def test_a_patient_is_on_one_side(folder: Path, warm_cache: Path) -> None:
    data = KaryogramDataModule(folder, num_workers=0, cache=str(warm_cache))
    data.setup()
    sides = {
        stage: {patient_of(cell) for cell in data.split.ids(stage)}
        for stage in ("train", "val", "test")
    }
    assert sides == {"train": {PATIENTS[0]}, "val": {PATIENTS[1]}, "test": {PATIENTS[2]}}
    assert len(data.split.ids("all")) == len(NAMES)
    assert data.split.name == "karyograms_drawn"
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape[0] == batch["label"].shape[0] > 0


def test_uncertain_karyograms_are_left_out(
    image: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image.save(tmp_path / "a.png")
    Image.new("L", (400, 300), 255).save(tmp_path / "blank_1.png")
    (tmp_path / "torn.png").write_bytes(b"half a file")
    data = KaryogramDataModule(tmp_path, num_workers=0, cache=str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="left out: .*(blank_1|torn)"):
        data.setup()
    assert len(data.prepared.crops) == 46
    assert chromozoo(["data", "verify", "karyograms", "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "46 chromosomes of 1 karyograms" in shown
    assert "of 1 patients" in shown
    assert shown.count("FAULT") == 2


def test_folders_without_karyograms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="root"):
        KaryogramDataModule().setup()
    with pytest.raises(DatasetError, match="holds no image"):
        cut_karyograms(tmp_path)
    (tmp_path / "torn.png").write_bytes(b"half a file")
    with (
        pytest.warns(UserWarning, match=r"torn\.png"),
        pytest.raises(DatasetError, match="no karyogram could be cut"),
    ):
        KaryogramDataModule(tmp_path / ".").setup()


def test_patients() -> None:
    assert patient_of("patient7_2") == "patient7"
    assert patient_of("a_b_2") == "a_b"
    assert patient_of("cell9") == "cell9"
