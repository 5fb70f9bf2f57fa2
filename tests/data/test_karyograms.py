"""Karyograms as a data set: cut by place, split by patient, refused ones named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromozoo.classes import AUTOSOMES, CLASSES
from chromozoo.cli.main import main as chromozoo
from chromozoo.data.karyograms import KaryogramDataModule, cut_karyograms, patient_of
from chromozoo.errors import DatasetError, DatasetNotFoundError
from chromozoo.images.signal import signal_image
from chromozoo.synthetic import Appearance, draw_chromosome
from chromozoo.visualization.karyogram import KaryogramEntry, draw_karyogram

MALE = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "Y"]
NAMES = [f"patient{patient}_{cell}" for patient in range(6) for cell in (1, 2)]


@pytest.fixture(scope="module")
def draw_image() -> Image.Image:
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
    """One for all tests: a folder is cut once in a process."""
    folder = tmp_path_factory.mktemp("karyograms")
    for name in NAMES:
        image.save(folder / f"{name}.png")
    return folder


def test_every_chromosome_has_the_class_of_its_place(folder: Path) -> None:
    data = KaryogramDataModule(folder, num_workers=0, cache=str(folder / "cache"))
    data.setup()
    assert len(data.crops) == 46 * len(NAMES)
    first = data.cells == NAMES[0]
    assert sorted(CLASSES[label] for label in data.labels[first]) == sorted(MALE)
    assert data.crops[first].any(axis=(1, 2)).all()


def test_a_patient_is_on_one_side(folder: Path) -> None:
    data = KaryogramDataModule(folder, num_workers=0, cache=str(folder / "cache"))
    data.setup()
    sides = {
        stage: {patient_of(cell) for cell in data.split.ids(stage)}
        for stage in ("train", "val", "test")
    }
    assert sum(map(len, sides.values())) == 6
    assert set.union(*sides.values()) == {f"patient{number}" for number in range(6)}
    assert len(data.split.ids("all")) == len(NAMES)
    assert data.split.name == "karyograms_drawn"
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape[0] == batch["label"].shape[0] > 0


def test_a_karyogram_that_leaves_a_doubt_is_left_out(
    image: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image.save(tmp_path / "a.png")
    Image.new("L", (400, 300), 255).save(tmp_path / "blank_1.png")
    (tmp_path / "torn.png").write_bytes(b"half a file")
    data = KaryogramDataModule(tmp_path, num_workers=0, cache=str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="left out: .*(blank_1|torn)"):
        data.setup()
    assert len(data.crops) == 46
    assert chromozoo(["data", "verify", "karyograms", "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "46 chromosomes of 1 karyograms" in shown
    assert "of 1 patients" in shown
    assert shown.count("FAULT") == 2


def test_what_is_no_such_set(tmp_path: Path) -> None:
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
