"""The BioImLab classification data set on a tiny set in the published layout."""

import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chromozoo.classes import CLASSES
from chromozoo.data.base import crop_dataset
from chromozoo.data.bioimlab import BioImLabDataModule, list_files, verify
from chromozoo.errors import DatasetError, DatasetNotFoundError, UnknownNameError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.synthetic import write_bioimlab_layout

# In bioimlab_v1 and in its fold 1: two training cells, one validation and one test cell.
TRAIN, VAL, TEST = (2, 3), 7, 6
SMALL: dict[str, int | float | str] = {"height": 48, "width": 24, "scale": 0.5}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the unpacked set; read-only."""
    root = tmp_path_factory.mktemp("data")
    write_bioimlab_layout(root / "bioimlab-classification", [*TRAIN, TEST, VAL], seed=0)
    return root


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """A writable copy of the set."""
    shutil.copytree(published, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def warm_cache(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    module(published, folder).setup()
    return folder


def module(root: Path, cache: Path, **arguments: Any) -> BioImLabDataModule:
    return BioImLabDataModule(root=root, cache=str(cache), **({"preset": SMALL} | arguments))


def zipped(root: Path) -> Path:
    """Pack the set into a zip file and remove the folder."""
    folder = root / "bioimlab-classification"
    with zipfile.ZipFile(root / "bioimlab-classification.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*.bmp")):
            file.write(path, path.relative_to(folder).as_posix())
    shutil.rmtree(folder)
    return root / "bioimlab-classification.zip"


def cached_crops(cache: Path) -> list[Path]:
    return [path for path in cache.glob("*") if path.suffix != ".json"]


def forbid_preparing(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: object, **__: object) -> None:
        raise AssertionError("prepared again, although the cache holds the crops")

    monkeypatch.setattr(ChromosomePreset, "prepare", prepare)


# Layout and split


def test_labels_and_cells_come_from_the_names(published: Path) -> None:
    files = list_files(published / "bioimlab-classification")
    assert len(files) == 4 * 46
    label_of = {file.name: CLASSES[file.label] for file in files}
    assert label_of["2/2 1a.bmp"] == label_of["2/2 1b.bmp"] == "1"
    assert label_of["2/2 22b.bmp"] == "22"
    assert label_of["2/2 23a.bmp"] == label_of["3/3 23.bmp"] == "X"
    assert label_of["3/3 24.bmp"] == "Y"
    assert [(file.cell, file.label) for file in files] == sorted(
        (file.cell, file.label) for file in files
    )


@pytest.mark.parametrize("fold", [None, 1])
def test_each_stage_holds_its_own_cells(
    published: Path, warm_cache: Path, fold: int | None
) -> None:
    data = module(published, warm_cache, fold=fold)
    data.setup("fit")
    cells = {stage: set(data.dataset(stage).cells) for stage in ("train", "val", "test", "all")}
    assert cells == {"train": set(TRAIN), "val": {VAL}, "test": {TEST}, "all": {2, 3, 6, 7}}
    item = data.dataset("val")[5]
    assert item["image"].shape == (1, 48, 24) and item["image"].dtype == torch.float32
    assert item["label"].dtype == torch.int64 and item["index"] == 5
    counts = np.bincount(data.dataset("val").labels, minlength=24)
    assert counts[:22].tolist() == [2] * 22 and counts[22:].sum() == 2


def test_folds_change_the_cells(published: Path, warm_cache: Path) -> None:
    # Part 3 holds the cells 2 and 3.
    assert set(module(published, warm_cache, fold=3).dataset("test").cells) == set(TRAIN)
    with pytest.raises(DatasetError, match="none of the test cells of bioimlab_v1/fold0"):
        module(published, warm_cache, fold=0).dataset("test")
    with pytest.raises(UnknownNameError, match="folds 0 to 4, not 5"):
        module(published, warm_cache, fold=5)


def test_validation_and_test_come_in_order(published: Path, warm_cache: Path) -> None:
    data = module(published, warm_cache, batch_size=20)
    for loader, stage in (
        (data.val_dataloader(), "val"),
        (data.test_dataloader(), "test"),
        (data.predict_dataloader(), "test"),
    ):
        batches = list(loader)
        assert [len(batch["label"]) for batch in batches] == [20, 20, 6]
        labels = torch.cat([batch["label"] for batch in batches])
        assert labels.tolist() == data.dataset(stage).labels.tolist()
        assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(46))


@pytest.mark.parametrize("pointed_at", ["folder", "archive itself", "environment"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folder_and_zip_give_the_same_crops(
    kind: str,
    pointed_at: str,
    copy: Path,
    published: Path,
    warm_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They share one cache, because its key is the content."""
    expected = module(published, warm_cache).dataset("all")
    archive = zipped(copy) if kind == "zip" else copy / "bioimlab-classification"
    forbid_preparing(monkeypatch)
    root: Path | None = archive if pointed_at == "archive itself" else copy
    if pointed_at == "environment":
        monkeypatch.setenv("CHROMOZOO_DATA", str(copy))
        root = None
    found = BioImLabDataModule(root=root, preset=SMALL, cache=str(warm_cache)).dataset("all")
    np.testing.assert_array_equal(found.crops, expected.crops)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.cells, expected.cells)


def test_other_files_of_the_set_do_not_matter(copy: Path, tmp_path: Path) -> None:
    folder = copy / "bioimlab-classification"
    (folder / "README.txt").write_text("hello")
    (folder / "2" / "Thumbs.db").write_bytes(b"x")
    (folder / "__MACOSX" / "2").mkdir(parents=True)
    (folder / "__MACOSX" / "2" / "._2 1a.bmp").write_bytes(b"x")
    assert len(list_files(folder)) == 4 * 46


# The cache


def test_second_setup_prepares_nothing(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = module(published, tmp_path)
    first.setup()
    assert len(cached_crops(tmp_path)) == 1
    forbid_preparing(monkeypatch)
    second = module(published, tmp_path)
    crops = second.prepared.crops
    assert isinstance(crops, np.memmap) and not crops.flags.writeable
    np.testing.assert_array_equal(first.prepared.crops, crops)
    # The cached pixels are not normalised.
    module(published, tmp_path, preset=SMALL | {"mean": 0.0, "std": 1.0}).setup()


def test_another_preparation_meets_no_old_cache(published: Path, tmp_path: Path) -> None:
    module(published, tmp_path).setup()
    other = module(published, tmp_path, preset=SMALL | {"rotate_crop": "none"})
    other.setup()
    assert len(cached_crops(tmp_path)) == 2


def test_a_changed_file_is_prepared_again(copy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "crops"
    before = module(copy, cache).dataset("all")
    changed = copy / "bioimlab-classification" / "2" / "2 1a.bmp"
    Image.open(changed).transpose(Image.Transpose.ROTATE_180).save(changed)
    after = module(copy, cache).dataset("all")
    assert len(cached_crops(cache)) == 2
    assert not np.array_equal(before.crops[0], after.crops[0])
    np.testing.assert_array_equal(before.crops[1:], after.crops[1:])


def test_the_default_cache_follows_chromozoo_home(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMOZOO_HOME", str(tmp_path))
    BioImLabDataModule(root=published, preset=SMALL).setup()
    assert len(list((tmp_path / "crops").glob("bioimlab-*.npy"))) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_no_half_cache(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruption: type[BaseException],
) -> None:
    def save(file: Any, array: np.ndarray) -> None:
        file.write(b"\x93NUMPY half")
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(crop_dataset.np, "save", save)
        with pytest.raises(interruption):
            module(published, tmp_path).setup()
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json"}, "the index alone"
    module(published, tmp_path).setup()
    assert len(cached_crops(tmp_path)) == 1


def test_another_preset_gets_its_own_crops(published: Path, tmp_path: Path) -> None:
    """Crops that were prepared for one model are not used for the next."""
    data = BioImLabDataModule(root=published, cache=str(tmp_path), synthetic_cells=1)
    for height in (48, 64):
        transforms = ChromosomePreset(height=height, width=24, scale=0.5)
        data.trainer = stub_trainer(0, transforms)
        data.setup("fit")
        assert next(iter(data.val_dataloader()))["image"].shape[-2:] == (height, 24)
        assert next(iter(data.train_dataloader()))["image"].shape[-2:] == (height, 24)


# Faulty data sets


def test_rgb_and_16_bit_files_survive(copy: Path, tmp_path: Path) -> None:
    """A few files of the published set are RGB."""
    before = module(copy, tmp_path / "a").dataset("all")
    folder = copy / "bioimlab-classification" / "2"
    for name in ("2 1a.bmp", "2 1b.bmp"):
        Image.open(folder / name).convert("RGB").save(folder / name)
    after = module(copy, tmp_path / "b").dataset("all")
    np.testing.assert_array_equal(before.crops, after.crops)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blacken(path: Path) -> None:
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(path)


@pytest.mark.parametrize("damage", [shorten, blacken, lambda path: path.write_bytes(b"")])
def test_a_damaged_image_is_named(copy: Path, tmp_path: Path, damage: Any) -> None:
    damage(copy / "bioimlab-classification" / "3" / "3 17b.bmp")
    with pytest.raises(DatasetError, match=r"bioimlab-classification: 3/3 17b\.bmp: "):
        module(copy, tmp_path / "crops").setup()
    assert not cached_crops(tmp_path / "crops")


def test_a_truncated_zip_is_named(copy: Path, tmp_path: Path) -> None:
    path = zipped(copy)
    shorten(path)
    with pytest.raises(DatasetError, match=rf"{path.name}: not a whole zip"):
        module(copy, tmp_path / "crops").setup()


@pytest.mark.parametrize("offset", [0, 5, 40])
def test_a_damaged_member_of_a_zip_is_named(copy: Path, tmp_path: Path, offset: int) -> None:
    path = zipped(copy)
    with zipfile.ZipFile(path) as file:
        member = file.getinfo("3/3 17b.bmp")
    data = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len(member.filename) + offset
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"zip: 3/3 17b\.bmp is damaged"):
        module(copy, tmp_path / "crops").setup()


def test_a_class_out_of_range_is_named(copy: Path, tmp_path: Path) -> None:
    folder = copy / "bioimlab-classification" / "2"
    (folder / "2 1a.bmp").rename(folder / "2 25a.bmp")
    with pytest.raises(DatasetError, match=r"2/2 25a\.bmp has class 25"):
        module(copy, tmp_path / "crops").setup()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"2/2 {'9' * 5000}.bmp", "has class 9{20}; the set has 1 to 24: rename"),
        (f"{'9' * 5000}/{'9' * 5000} 1.bmp", "has a cell number of 5000 digits; rename"),
        ("2/2 \u0663.bmp", "holds no file named"),
    ],
)
def test_numbers_of_thousands_of_digits_are_refused(name: str, said: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DatasetError, match=rf"set\.zip: .*{said}") as caught:
        list_files(tmp_path / "set.zip")
    assert len(str(caught.value)) < 500


def test_verify_goes_on_after_a_damaged_member(copy: Path) -> None:
    path = zipped(copy)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        member = file.getinfo("3/3 17b.bmp")
    data[member.header_offset + 30 + len(member.filename) + 5] ^= 255
    path.write_bytes(data)
    faults = verify(copy).faults
    assert sum("3/3 17b.bmp is damaged" in fault for fault in faults) == 1


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bioimlab-classification").mkdir()
    (tmp_path / "bioimlab-classification" / "cat.bmp").write_bytes(b"x")
    with pytest.raises(DatasetError, match="not the BioImLab"):
        module(tmp_path, tmp_path / "crops").setup()


@pytest.mark.parametrize("told_by", ["argument", "environment"])
def test_missing_data_says_what_to_do(
    told_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my {data}"
    monkeypatch.setenv("CHROMOZOO_DATA", str(folder))
    root = folder if told_by == "argument" else None
    with pytest.raises(DatasetNotFoundError) as caught:
        BioImLabDataModule(root=root, cache=str(tmp_path / "crops")).setup()
    message = str(caught.value)
    assert str(folder / "bioimlab-classification.zip") in message
    steps = [line.strip()[:2] for line in message.splitlines()]
    assert [step for step in steps if step in ("1.", "2.", "3.")] == ["1.", "2.", "3."]
    assert f"\n         {folder}/\n" in message and "2/2 1a.bmp" in message
    assert "University of" in message and "CHROMOZOO_DATA" in message
    assert not (tmp_path / "crops").exists()


# Training batches


def stub_trainer(epoch: int, transforms: ChromosomePreset | None = None) -> Any:
    model = SimpleNamespace(transforms=transforms) if transforms else None
    return SimpleNamespace(current_epoch=epoch, global_rank=0, lightning_module=model)


def first_batch(data: BioImLabDataModule, epoch: int) -> dict[str, torch.Tensor]:
    data.trainer = stub_trainer(epoch)
    batch: dict[str, torch.Tensor] = next(iter(data.train_dataloader()))
    return batch


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_follows_from_its_number_alone(
    published: Path, warm_cache: Path, num_workers: int
) -> None:
    """A resumed run sees the same batches as an uninterrupted one."""
    arguments: dict[str, Any] = {"batch_size": 8, "num_workers": num_workers, "augmentation": {}}
    data = module(published, warm_cache, **arguments)
    at_3, at_4, again = (first_batch(data, epoch) for epoch in (3, 4, 3))
    resumed = first_batch(module(published, warm_cache, **arguments), 3)
    other = first_batch(module(published, warm_cache, **arguments, seed=1), 3)
    for same in (again, resumed):
        assert torch.equal(at_3["image"], same["image"])
        assert torch.equal(at_3["index"], same["index"])
    for different in (at_4, other):
        assert not torch.equal(at_3["index"], different["index"])
        assert not torch.equal(at_3["image"], different["image"])


def test_an_epoch_shows_every_chromosome_once(published: Path, warm_cache: Path) -> None:
    data = module(published, warm_cache, batch_size=23, num_workers=0)
    batches = list(data.train_dataloader())
    assert [len(batch["index"]) for batch in batches] == [23] * 4
    rows = torch.cat([batch["index"] for batch in batches])
    assert rows.tolist() != list(range(92)) and sorted(rows.tolist()) == list(range(92))
    labels = torch.cat([batch["label"] for batch in batches])
    assert labels.tolist() == data.dataset("train").labels[rows].tolist()


def test_bare_crops_are_not_augmented(published: Path, warm_cache: Path) -> None:
    data = module(published, warm_cache, batch_size=8, num_workers=0)
    batch = first_batch(data, 0)
    plain = data.dataset("train")
    for image, row in zip(batch["image"], batch["index"].tolist(), strict=True):
        assert torch.equal(image, plain[row]["image"])
    augmented = first_batch(
        module(published, warm_cache, batch_size=8, num_workers=0, augmentation={}), 0
    )
    assert torch.equal(augmented["index"], batch["index"])
    assert not torch.equal(augmented["image"], batch["image"])


def test_synthetic_cells_add_46_each(published: Path, warm_cache: Path) -> None:
    data = module(published, warm_cache, num_workers=0, batch_size=64, synthetic_cells=2)
    dataset: Any = data.train_dataloader().dataset
    assert len(dataset) == 2 * 46 + 2 * 46
    assert set(dataset.cells) == {*TRAIN, -1, -2}
    for cell in (-1, -2):
        counts = np.bincount(dataset.labels[dataset.cells == cell], minlength=24)
        assert counts[:22].tolist() == [2] * 22 and counts[22:].sum() == 2
    assert data.dataset("train").labels.size == 2 * 46  # evaluation never sees them
    repeated: Any = (
        module(published, warm_cache, num_workers=0, synthetic_cells=2).train_dataloader().dataset
    )
    np.testing.assert_array_equal(repeated.crops, dataset.crops)
