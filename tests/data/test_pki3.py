"""Pki-3 and the other layouts of single chromosomes, on tiny drawn sets."""

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.drawn_gband import NAMES, draw_image, pki3_files
from helpers.drawn_gband import write_files as write
from PIL import Image

from chromozoo.classes import CLASSES
from chromozoo.cli.main import main
from chromozoo.data.pki3 import (
    FILE_NAME,
    Pki3DataModule,
    Pki3Dataset,
    list_files,
    patient_of,
    verify,
)
from chromozoo.data.splits import STAGES, draw_split, load_split
from chromozoo.errors import DatasetError, DatasetNotFoundError, UnknownNameError
from chromozoo.images.preset import ChromosomePreset

SPLIT = load_split("pki3_v1")
# Two training karyotypes, one for validation and one for testing.
KARYOTYPES = (*SPLIT.train[:2], SPLIT.val[0], SPLIT.test[0])
SMALL: dict[str, int | float | str] = {"height": 32, "width": 16, "scale": 0.5}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the zip file; read-only."""
    root = tmp_path_factory.mktemp("data")
    with zipfile.ZipFile(root / FILE_NAME, "w") as archive:
        for karyotype in KARYOTYPES:
            for name, data in pki3_files(karyotype).items():
                archive.writestr(name, data)
    return root


@pytest.fixture
def unpacked(published: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "gband-pki3"
    with zipfile.ZipFile(published / FILE_NAME) as archive:
        archive.extractall(folder)
    return folder


def module(root: Path, cache: Path, **arguments: Any) -> Pki3DataModule:
    return Pki3DataModule(
        root=root, cache=str(cache), **({"preset": SMALL, "num_workers": 0} | arguments)
    )


# The committed split


def test_split_is_disjoint_by_patient() -> None:
    assert [len(SPLIT.ids(stage)) for stage in STAGES] == [356, 52, 106]
    patients = [{patient_of(cell) for cell in SPLIT.ids(stage)} for stage in STAGES]
    assert [len(part) for part in patients] == [217, 31, 62]
    assert len(set.union(*patients)) == 310 and len(set(SPLIT.ids("all"))) == 514
    # Every result row carries this hash: a changed list needs a new file, pki3_v2.json.
    assert SPLIT.sha256[:12] == "b68ded1aa1fd"


def test_folds_are_disjoint_by_patient() -> None:
    folds = [load_split("pki3_v1", fold) for fold in range(5)]
    assert sorted(cell for fold in folds for cell in fold.test) == list(SPLIT.ids("all"))
    for fold in folds:
        patients = [{patient_of(cell) for cell in fold.ids(stage)} for stage in STAGES]
        assert [len(part) for part in patients] == [186, 62, 62]
        assert len(set.union(*patients)) == 310


# Pki-3


def test_labels_cells_and_stages(published: Path, unpacked: Path, tmp_path: Path) -> None:
    data = module(published, tmp_path / "crops", synthetic_cells=1)
    cells = {stage: set(data.dataset(stage).cells.tolist()) for stage in (*STAGES, "all")}
    assert cells == {
        "train": set(KARYOTYPES[:2]),
        "val": {KARYOTYPES[2]},
        "test": {KARYOTYPES[3]},
        "all": set(KARYOTYPES),
    }
    test = data.dataset("test")
    assert [CLASSES[label] for label in test.labels] == NAMES
    item = test[3]
    assert item["image"].shape == (1, 32, 16) and item["label"] == 1 and item["index"] == 3
    mixed: Any = data.train_dataloader().dataset
    assert len(mixed) == 3 * 46 and set(mixed.cells.tolist()) == {*KARYOTYPES[:2], "-1"}
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(next(iter(data.train_dataloader()))["index"], batch["index"])
    alone = Pki3Dataset(published, "test", preset=SMALL, cache=tmp_path / "crops")
    assert torch.equal(alone[3]["image"], item["image"]) and alone.split == data.split

    same = module(unpacked, tmp_path / "crops")
    np.testing.assert_array_equal(same.dataset("all").crops, data.dataset("all").crops)
    assert [path.name[:5] for path in (tmp_path / "crops").glob("*.npy")] == ["pki3-"]


def test_the_p_arm_stays_up(published: Path, tmp_path: Path) -> None:
    """The bars lean by up to 25 degrees; upright, the dark end is the upper one."""
    crops = module(published, tmp_path, preset={"height": 64, "width": 32}).dataset("all").crops
    rows = crops.astype(float).sum(axis=2)
    for row in rows:
        shown = np.flatnonzero(row)
        middle = (shown[0] + shown[-1] + 1) // 2
        assert row[:middle].sum() > row[middle:].sum()


def test_verify_counts_and_reports_faults(unpacked: Path, capsys: Any) -> None:
    (unpacked / KARYOTYPES[0] / "21_3.png").write_bytes(draw_image(0))
    report = verify(unpacked)
    assert "185 chromosomes of 4 karyotypes of 3 patients" in report.lines
    assert "chromosomes of a karyotype: 46: 3 karyotypes, 47: 1 karyotypes" in report.lines
    assert f"without 46: {KARYOTYPES[0]}" in report.lines
    assert "pki3_v1/val: 1 cells, 46 chromosomes" in report.lines
    assert len(report.faults) == 510, "karyotypes of the split that are not there"
    (unpacked / KARYOTYPES[0] / "1_1.png").write_bytes(b"")
    shutil.copytree(unpacked / KARYOTYPES[1], unpacked / "q1_1")
    found = set(verify(unpacked).faults) - set(report.faults)
    assert "cell q1_1 is in no part of the split" in found
    assert any(f"{KARYOTYPES[0]}/1_1.png: the file is empty" in fault for fault in found)
    assert main(["data", "verify", "pki3", "--root", str(unpacked)]) == 1
    assert main(["data", "info", "pki3"]) == 0
    assert "gband-pki3.zip" in capsys.readouterr().out


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        module(tmp_path / "data", tmp_path).setup()
    message = str(caught.value)
    assert "  1. Ask" in message and "  3. Check" in message and "CHROMOZOO_DATA" in message
    assert str(tmp_path / "data" / FILE_NAME) in message


@pytest.mark.parametrize("name", ["23_1.png", "0_1.png"])
def test_an_unknown_class_is_named(unpacked: Path, tmp_path: Path, name: str) -> None:
    (unpacked / KARYOTYPES[0] / name).write_bytes(draw_image(0))
    with pytest.raises(DatasetError, match=rf"{name} has class .*1 to 22, X and Y"):
        module(unpacked, tmp_path).setup()


# Other layouts


def test_cir_net_names(tmp_path: Path) -> None:
    files = {f"origin/a{n}.{n % 24}.{'tiff' if n % 2 else 'png'}": draw_image(0) for n in range(60)}
    root = write(tmp_path / "cir", files)
    (root / "origin" / "notes.txt").write_text("hello")
    data = module(root, tmp_path / "crops", layout="cir-net")
    sizes = [len(data.dataset(stage)) for stage in STAGES]
    assert sum(sizes) == 60 == len(data.dataset("all")) and min(sizes) > 0
    assert data.split.name == "cir-net_drawn"
    everything = data.dataset("all")
    for cell, label in zip(everything.cells.tolist(), everything.labels, strict=True):
        assert int(cell.split(".")[-2]) == label
    write(root, {"b.24.png": draw_image(0)})
    with pytest.raises(DatasetError, match=r"b\.24\.png has class 24.*0 to 23"):
        list_files(root, "cir-net")


def test_class_folders(tmp_path: Path) -> None:
    names = ("1", "22", "23", "X", "y")
    files = {f"train/{name}/{k} some.png": draw_image(0) for name in names for k in range(8)}
    root = write(tmp_path / "mine", {**files, "train/other/1.png": b"x", "1/.hidden.png": b"x"})
    data = module(root, tmp_path / "crops", layout="class-folders", fold=2)
    counts = np.bincount(data.dataset("all").labels, minlength=24)
    assert counts[[0, 21, 22, 23]].tolist() == [8, 8, 16, 8] and counts.sum() == 40
    assert data.split.name == "class-folders_drawn/fold2"


def test_images_of_another_layout_are_counted(tmp_path: Path) -> None:
    for name in ("7/a.png", "X/b.png", "unknown/c.png", "d.tif", "7/.hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / name, format="PNG")
    data = Pki3DataModule(tmp_path, "class-folders")
    with pytest.warns(UserWarning, match=r"of the layout: 2 images \(d\.tif, unknown/c\.png\)"):
        assert len(data.chromosomes().labels) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,class\na.png,25\n", "row 1 names the file 'a.png' and the class '25'; give each"),
        ("file,class\na.png,\n", "row 1 names"),
        ("file,class\nb.png,1\n", "row 1 names the file 'b.png'"),
        ("file,class\na.png,1\na.png,1\n", "row 2 names"),
        ("file,class\n../a.png,1\n", "row 1 names"),
        (f"file,class\na.png,{'1' * 5000}\n", "row 1 names"),
        ("a,b\na.png,1\n", "row 1 names the file None"),
        ('file,class\n"a.png,1\n', "no CSV in UTF-8"),
        ("file,class\n\xe4.png,1\n", "no CSV in UTF-8"),
        ("file,class\n", "holds no file named in labels.csv"),
    ],
)
def test_faulty_tables_of_labels_are_reported(text: str, said: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=said) as caught:
        list_files(tmp_path, "labels-csv")
    assert len(str(caught.value)) < 600


def test_a_wrong_layout_is_explained(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no file named <anything>\..*class-folders: <class>/"):
        module(published / FILE_NAME, tmp_path, layout="cir-net").setup()
    with pytest.raises(DatasetNotFoundError, match="no such folder or zip file"):
        module(tmp_path / "none", tmp_path, layout="class-folders").setup()
    with pytest.raises(UnknownNameError, match="unknown layout 'other'; known are pki3"):
        Pki3DataModule(layout="other")  # type: ignore[arg-type]


def test_drawn_splits_are_stable() -> None:
    ids = [f"file{number}" for number in range(1000)]
    split = draw_split("mine", ids)
    parts = {stage: set(split.ids(stage)) for stage in STAGES}
    assert [round(len(parts[stage]) / 1000, 1) for stage in STAGES] == [0.7, 0.1, 0.2]
    fewer = draw_split("mine", ids[::2])
    for stage in STAGES:
        assert set(fewer.ids(stage)) == parts[stage] & set(ids[::2])
    tested = [one for fold in range(5) for one in draw_split("mine", ids, fold).test]
    assert sorted(tested) == sorted(ids)
    assert draw_split("mine", ids, 0).val == draw_split("mine", ids, 1).test
    with pytest.raises(UnknownNameError, match="folds 0 to 4, not 5"):
        draw_split("mine", ids, 5)


@pytest.mark.data
def test_real_set_is_whole(real_data: Path) -> None:
    files = list_files(real_data / FILE_NAME)
    assert len(files) == 23_623
    assert {file.cell for file in files} == set(SPLIT.ids("all"))


def test_a_white_background_becomes_zero() -> None:
    canvas = ChromosomePreset(height=64, width=32).prepare(
        np.asarray(Image.open(io.BytesIO(draw_image(0))))
    )
    assert canvas.max() > 200 and np.median(canvas) == 0
