"""Export of karyograms to a folder of labelled single chromosomes."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.drawn_karyograms import KARYOTYPES, MALE, draw_karyogram_page
from PIL import Image

from chromozoo.cli.main import main
from chromozoo.data.io.karyogram_export import extract_files
from chromozoo.data.pki3 import list_files
from chromozoo.errors import ChromozooError, OutputError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two karyograms and two other files."""
    folder = tmp_path_factory.mktemp("karyograms")
    for name, karyotype in (("male.png", MALE), ("down.tif", KARYOTYPES["47,XX,+21"])):
        Image.fromarray(draw_karyogram_page(karyotype)[0]).save(folder / name)
    Image.fromarray(np.full((90, 90), 255, np.uint8)).save(folder / "blank.png")
    (folder / "text.png").write_text("no image")
    return folder


def test_command(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "crops"
    command = ["data", "from-karyogram", str(files / "male.png"), str(files / "down.tif")]
    assert main([*command, "--output", str(output)]) == 0
    assert "93 chromosomes" in capsys.readouterr().out
    rows = list(csv.DictReader((output / "labels.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["file", "class", "x", "y", "w", "h", "karyogram"]
    assert Counter(row["class"] for row in rows) == Counter(MALE + KARYOTYPES["47,XX,+21"])
    assert {row["karyogram"] for row in rows} == {"male.png", "down.tif"}
    written = {str(path.relative_to(output)) for path in output.rglob("*.png")}
    assert {row["file"] for row in rows} == written
    assert {"male/1a.png", "male/Ya.png", "down/21c.png", "down/Xb.png"} <= written
    for row in rows:
        with Image.open(output / row["file"]) as crop:
            assert crop.mode == "L" and crop.size == (int(row["w"]), int(row["h"]))
    assert [path.name for path in output.parent.iterdir()] == ["crops"]


def test_a_refused_image_does_not_stop_the_others(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["blank.png", "missing.png", "male.png", "text.png"]
    paths = [str(files / name) for name in names]
    assert main(["data", "from-karyogram", *paths, "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "46 chromosomes" in captured.out
    for name in ("blank.png", "missing.png", "text.png"):
        assert f"{files / name}: " in captured.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["labels.csv", "male"]


def test_nothing_is_written_where_nothing_can_be_cut(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "from-karyogram", str(files / "blank.png"), "--output", str(tmp_path / "o")]
    assert main(command) == 2
    assert f"{files / 'blank.png'}: no chromosomes found" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("..png", "karyogram"),
        ("...png", "karyogram"),
        ("labels.csv.png", "karyogram_labels.csv"),
        ("LABELS.csv.png", "karyogram_LABELS.csv"),
        ("a. .png", "a"),
        ("a:b\nc.png", "a%3ab%ac"),
        ("é.png", "é"),
        ("b\udce9.png", "b%dce9"),
        (f"{'x' * 251}.png", None),
        (f"{'é' * 120}.png", None),
    ],
)
def test_any_name_of_a_file_gives_a_folder(
    name: str, folder: str | None, files: Path, tmp_path: Path
) -> None:
    """The other image is cut as well."""
    path = tmp_path / name
    try:
        path.write_bytes((files / "male.png").read_bytes())
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes no such name")
    counts, errors = extract_files([path, files / "down.tif"], tmp_path / "out")
    assert counts == {path: 46, files / "down.tif": 47} and errors == []
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open(encoding="utf-8")))
    (made,) = {row["file"].partition("/")[0] for row in rows} - {"down"}
    assert made == folder or (folder is None and len(made.encode()) <= 200)
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows)
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert len(list_files(tmp_path / "out", "labels-csv")) == 93


def test_files_that_would_share_a_folder_are_named(files: Path, tmp_path: Path) -> None:
    for first, second in (("a.png", "a.tif"), ("A.png", "a.tif"), ("..png", "...png")):
        with pytest.raises(ChromozooError, match=r"would both be written to .*; rename one"):
            extract_files([tmp_path / first, tmp_path / second], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_missing_files_do_not_stop_the_others(files: Path, tmp_path: Path) -> None:
    paths = [Path("/"), tmp_path, tmp_path / ("x" * 300), Path("a\0b.png"), Path("\ud800.png")]
    counts, errors = extract_files([*paths, files / "male.png"], tmp_path / "out")
    assert list(counts.values()) == [46] and len(errors) == len(paths)
    assert all("; check the path" in error for error in errors)


@pytest.mark.parametrize("name", ["file/out", "x" * 300])
def test_an_output_that_cannot_be_written(name: str, files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"cannot be written .*; free space or choose another"):
        extract_files([files / "male.png"], tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_grey_values_that_do_not_fit_a_png_are_stretched(tmp_path: Path) -> None:
    """An image of floats between 0 and 1 would become black."""
    image = draw_karyogram_page(MALE)[0]
    tifffile.imwrite(tmp_path / "floats.tif", image.astype(np.float32) / 255)
    tifffile.imwrite(tmp_path / "signed.tif", image.astype(np.int32) * 300 - 9000)
    tifffile.imwrite(tmp_path / "deep.tif", image.astype(np.uint16) * 257)
    names = ("floats", "signed", "deep")
    extract_files([tmp_path / f"{name}.tif" for name in names], tmp_path / "out")
    for path in (tmp_path / "out" / "deep").iterdir():
        deep, *others = (
            np.asarray(Image.open(tmp_path / "out" / name / path.name), float)
            for name in ("deep", "floats", "signed")
        )
        assert np.ptp(deep) > 10_000
        for other in others:
            assert np.corrcoef(deep.ravel(), other.ravel())[0, 1] > 0.9999


def test_an_interrupted_run_leaves_the_old_folder(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    extract_files([files / "male.png"], output)
    before = sorted(output.rglob("*"))

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        extract_files([files / "down.tif"], output, overwrite=True)
    assert sorted(output.rglob("*")) == before
    assert list(tmp_path.iterdir()) == [output]


def test_an_existing_folder_is_replaced_only_on_request(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    extract_files([files / "male.png"], output)
    with pytest.raises(ChromozooError, match="exists already; choose another folder"):
        extract_files([files / "down.tif"], output)
    assert (output / "male").is_dir()
    extract_files([files / "down.tif"], output, overwrite=True)
    assert sorted(path.name for path in output.iterdir()) == ["down", "labels.csv"]


def test_another_folder_is_never_replaced(files: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ChromozooError, match=r"holds no labels\.csv, so it is not replaced"):
        extract_files([files / "male.png"], tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_two_files_of_one_name(files: Path, tmp_path: Path) -> None:
    paths = [files / "male.png", tmp_path / "male.tif"]
    with pytest.raises(ChromozooError, match=r"male\.png and .*male\.tif would both be written"):
        extract_files(paths, tmp_path / "out")
