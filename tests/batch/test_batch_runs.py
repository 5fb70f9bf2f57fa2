"""Runs over many images: names of results, resuming, failures, signals."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.inline_worker import InlineWorker, start
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import chromozoo
from chromozoo.batch import nodes, worker_pool
from chromozoo.batch.file_names import safe_name, unique_names
from chromozoo.batch.images import find_images, printable_path
from chromozoo.batch.results import LOCK, MANIFEST, ResultsFolder
from chromozoo.batch.worker import build_task
from chromozoo.cli import karyotype
from chromozoo.cli.main import main
from chromozoo.cli.options import task_settings
from chromozoo.errors import ChromozooError, OutputError
from chromozoo.files import is_result_image, replace_file, write_image
from chromozoo.models import registry
from chromozoo.visualization.page import page_cell, write_page

STUB = "helpers.stub_task:StubTask"


@pytest.fixture
def processes() -> None:
    """Use real worker processes; without this fixture the test's own process does the work."""


@pytest.fixture(autouse=True)
def _stub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(karyotype, "TASK", STUB)
    monkeypatch.chdir(tmp_path)
    if "processes" not in request.fixturenames:
        monkeypatch.setattr(worker_pool, "Worker", InlineWorker)


def image(path: Path | str, level: int = 0) -> Path:
    """Write a small image; each level gives another content."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((12, 12), level, np.uint8)
    Image.fromarray(pixels).save(path, format="TIFF" if path.suffix == ".tif" else "PNG")
    return path


def run(*words: str | Path) -> int:
    return main(["karyotype", *map(str, words)])


def cells(folder: str | Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}


def start_command(*words: str | Path, **environment: str) -> "subprocess.Popen[str]":
    return start("karyotype", STUB, *words, **environment)


# Reuse of results


def test_two_patients_with_the_same_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for patient, level in (("a", 1), ("b", 2)):
        os.utime(image(tmp_path / patient / "pics" / "001.png", level), (0, 0))
        monkeypatch.chdir(tmp_path / patient)
        assert run("pics", "--output", "../results") == 0
        assert "done before" not in capsys.readouterr().out
    found = cells(tmp_path / "results")
    assert {name: cell["path"] for name, cell in found.items()} == {
        "001": str(tmp_path / "a" / "pics" / "001.png"),
        "pics_001": str(tmp_path / "b" / "pics" / "001.png"),
    }
    hashes = {cell["identity"]["content"]["sha256"] for cell in found.values()}
    assert len(hashes) == 2
    # The page of the second run shows both, with a heading for earlier results.
    page = (tmp_path / "results" / "index.html").read_text()
    assert page.count("<article") == 2
    assert page.index("pics_001.json") < page.index("Earlier results") < page.index('"001.json')
    # Both results are reused.
    for patient in "ab":
        monkeypatch.chdir(tmp_path / patient)
        assert run("pics", "--output", "../results") == 0
        assert "(1 were done before)" in capsys.readouterr().out
    assert len(cells(tmp_path / "results")) == 2


def test_a_changed_image_is_processed_again_whatever_its_modification_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = image("pics/001.png", 1)
    assert run("pics", "--output", "r") == 0
    before = cells("r")["001"]
    os.utime(image(file, 2), (0, 0))
    assert run("pics", "--output", "r") == 0
    assert "1 done again: the image has changed" in capsys.readouterr().out
    after = cells("r")["001"]
    assert after["identity"]["content"]["sha256"] != before["identity"]["content"]["sha256"]
    # Neither a new modification time nor a moved folder changes the image.
    os.utime(file)
    Path("pics").rename("moved")
    assert run("moved", "--output", "r") == 0
    output = capsys.readouterr().out
    assert "(1 were done before)" in output and "moved/001.png: 46,XY" in output
    assert cells("r") == {"001": after}


def test_results_of_other_weights_options_or_versions_are_made_again_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image("pics/a.png")
    image("pics/b.png", 1)

    def again(*words: str) -> str:
        assert run("pics", "--output", "r", *words) == 0
        out = capsys.readouterr().out
        return out.partition("done again: ")[2].splitlines()[0] if "done again" in out else ""

    assert again() == ""
    monkeypatch.setenv("STUB_WEIGHTS", "two")
    assert again() == "other weights"
    assert again() == ""
    assert cells("r")["a"]["identity"]["models"][0]["sha256"] == "two"
    assert again("--channel", "1") == "other options (channel)"
    assert again("--again", "--channel", "1") == "requested with --again"
    for path in Path("r").glob("*.json"):
        path.write_text(
            path.read_text().replace('"chromozoo": "0", "format": 2', '"chromozoo": "1"')
        )
    assert again("--channel", "1") == "another version of ChromoZoo"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"identity": 3}', "[" * 100_000])
def test_a_damaged_result_is_made_again(damage: str) -> None:
    image("pics/a.png")
    assert run("pics", "--output", "r") == 0
    good = cells("r")["a"]
    Path("r/a.json").write_text(damage)
    assert run("pics", "--output", "r") == 0
    assert cells("r")["a"]["identity"] == good["identity"]


# Folders and names of results


def test_folders_with_dots_have_separate_results(capsys: pytest.CaptureFixture[str]) -> None:
    for number, folder in enumerate(("2024.05.12", "2024.05.13")):
        image(f"{folder}/001.png", number)
        assert run(folder) == 0
    for folder in ("2024.05.12", "2024.05.13"):
        found = cells(f"chromozoo-results/{folder}")
        assert found["001"]["image"] == f"{folder}/001.png"


def test_a_default_folder_of_other_images_gets_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, folder in enumerate(("a/pics", "b/pics", "c/pics.tif")):
        image(f"{folder}/1.png", number)
        assert run(folder) == 0
    image("d/pics.tif", 7)
    assert run("d/pics.tif") == 0
    said = "chromozoo-results/pics holds results of other images: these go to"
    assert f"{said} chromozoo-results/pics-2" in capsys.readouterr().out
    results = tmp_path / "chromozoo-results"
    assert {path.name for path in results.iterdir()} == {"pics", "pics-2", "pics-3", "pics.tif"}
    assert cells(results / "pics")["1"]["path"] == str(tmp_path / "a/pics/1.png")
    assert cells(results / "pics-2")["1"]["path"] == str(tmp_path / "b/pics/1.png")
    # Runs resume in their folder, also if the path is written in another way.
    assert run("b/../b/pics") == 0
    assert "(1 were done before)" in capsys.readouterr().out
    # Results are not mixed with other files.
    (results / "mine").mkdir()
    (results / "mine" / "notes.txt").touch()
    image("mine/1.png")
    assert run("mine") == 0
    assert not (results / "mine" / "1.json").exists() and cells(results / "mine-2")


def test_results_with_equal_stems_get_unique_names(tmp_path: Path) -> None:
    given = ("a/1.png", "b/1.png", "b/1.tif", "b/x.png", "c/X.tif", "b/annotations.png")
    given = (*given, "b/predictions.png", "b/y.png", "b/y-page2.png", "b/y.segment.png")
    for number, name in enumerate(given):
        image(name, number)
    assert run("a", "b", "c", "--output", "r") == 0
    found = cells("r")
    assert {
        name: Path(cell["path"]).relative_to(tmp_path).as_posix() for name, cell in found.items()
    } == {
        "a_1": "a/1.png",
        "b_1_png": "b/1.png",
        "1_tif": "b/1.tif",
        "b_x": "b/x.png",
        "c_X": "c/X.tif",
        "b_annotations": "b/annotations.png",
        "b_predictions": "b/predictions.png",
        "b_y": "b/y.png",
        "y-page2": "b/y-page2.png",
        "y.segment": "b/y.segment.png",
    }
    assert ResultsFolder(Path("r"), "segment", ".segment").assign_names([Path("b/y.png")]) == {
        Path("b/y.png"): "b_y"
    }


def test_other_files_in_the_folder_stay(capsys: pytest.CaptureFixture[str]) -> None:
    image("pics/a.png")
    outline = Path("pics/a.json")
    outline.write_text('{"shapes": []}')
    assert run("pics", "--output", "pics") == 0
    assert outline.read_text() == '{"shapes": []}'
    assert json.loads(Path("pics/pics_a.json").read_text())["iscn"] == "46,XY"
    # Results do not count as images, and are recognised without the manifest.
    (Path("pics") / MANIFEST).unlink()
    assert run("pics", "--output", "pics") == 0
    out = capsys.readouterr().out
    assert "(1 were done before)" in out and "Left out of the folder: 1 result of Chr" in out
    Path("other").mkdir()
    Path("other/index.html").write_text("<p>my page</p>")
    assert run("pics", "--output", "other") == 2
    said = capsys.readouterr().err
    assert "other/index.html: is there already and was not written by this command" in said
    assert Path("other/index.html").read_text() == "<p>my page</p>"


def test_a_file_about_all_images_is_not_replaced_by_that_of_others(tmp_path: Path) -> None:
    files = [image(f"cell/{n}.png", n) for n in range(3)]
    other = [image(f"other/{n}.png", n) for n in range(3)]
    results = ResultsFolder.open("classify", "", tmp_path / "r", files)
    assert results.claim_file("predictions.json", files) is None
    assert results.claim_file("predictions.json", files) is None
    said = results.claim_file("predictions.json", files[:2])
    assert said == "predictions.json replaced: of the 3 images before, 1 are not in it now"
    with pytest.raises(ChromozooError, match=r"is of other images .*name another folder with"):
        results.claim_file("predictions.json", other)
    with pytest.raises(ChromozooError, match="is of other images"):
        results.claim_file("predictions.json", [image("third/0.png")])


# Files that count as images


def test_results_do_not_count_as_images_under_any_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image("pics/a.png")
    assert run("pics", "--output", "r") == 0
    shutil.copy("r/a.overlay.png", "pics/copy of it.png")
    assert find_images([Path("pics")]).files == [Path("pics/a.png")]
    Path("pics/link.png").symlink_to(tmp_path / "r" / "a.overlay.png")
    assert find_images([Path("pics")]).n_results == 2
    assert run("r", "--output", "s") == 2
    assert "the folder holds no image but 1 results that ChromoZoo wrote" in capsys.readouterr().err
    assert not Path("s").exists()
    assert run("pics/copy of it.png", "--output", "s") == 2
    assert "this is a result that ChromoZoo wrote; give the image" in capsys.readouterr().err
    # If another path gives an image, the result counts as a failed image.
    assert run("pics/a.png", "r/a.overlay.png", "--output", "s") == 1
    assert "1 of 2 images failed" in capsys.readouterr().out


def test_the_png_tag_of_a_result_survives_other_programs(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Image.new("RGB", (40, 30)))
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["Software"] == f"ChromoZoo {chromozoo.__version__}"
        about = PngInfo()
        about.add_text("Author", "me")
        about.add_itxt("Software", image.info["Software"])
        image.save(tmp_path / "b.png", pnginfo=about)
    assert is_result_image(tmp_path / "a.png") and is_result_image(tmp_path / "b.png")
    for text in ("Adobe, not ChromoZoo ", "Chromo"):
        about = PngInfo()
        about.add_text("Software", text)
        Image.new("L", (8, 8)).save(tmp_path / "c.png", pnginfo=about)
        assert not is_result_image(tmp_path / "c.png")
    data = (tmp_path / "a.png").read_bytes()
    for end in (0, 7, 20, 40):
        (tmp_path / "d.png").write_bytes(data[:end])
        assert not is_result_image(tmp_path / "d.png")
    assert not is_result_image(tmp_path) and not is_result_image(tmp_path / "none.png")


def test_hidden_and_unreadable_files_in_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    image("p/a.png")
    Path("p/._a.png").write_bytes(b"\0\5\26\7Mac OS X")
    Path("p/..png").write_bytes(b"")
    Path("p/old.tif").mkdir()
    Path("p/__MACOSX.png").mkdir()
    Path("p/notes.txt").touch()
    assert run("p", "--output", "r") == 0
    assert "Left out of the folder: 2 hidden files" in capsys.readouterr().out
    Path("p/loop.png").symlink_to("loop.png")
    Path("p/gone.png").symlink_to("nowhere.png")
    os.mkfifo("p/pipe.png")
    Path("p/bad.png").write_bytes(b"no image")
    assert run("p", "nowhere.png", "--output", "r") == 1
    out = capsys.readouterr().out
    assert "5 of 6 images failed" in out and "p/a.png: 46,XY" in out
    for words in (
        "p/loop.png: a link that leads to no file",
        "p/gone.png: a link that leads to no file",
        "p/pipe.png: is a pipe or a device",
        "nowhere.png: no such image file",
    ):
        assert words in out
    page = Path("r/index.html").read_text()
    assert "5 images failed" in page and "p/loop.png: a link" in page


@pytest.mark.parametrize("paths", [["empty"], ["empty", "nowhere.png"], ["loop.png"]])
def test_paths_without_any_image(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("loop.png").symlink_to("loop.png")
    assert run(*paths) == 2
    said = capsys.readouterr().err
    for path in paths:
        assert f"{path}: " in said
    assert not Path("chromozoo-results").exists()


# Unusual file names


UNUSUAL = ("..png", "labels.csv.png", "con.png", "a:b*?.png", "new\nline.png", "x" * 240 + ".png")
UNUSUAL = (*UNUSUAL, "染色体.png", "e\u0301.png", "é.png", "tail .png", "%41.png", "#?&.png")


def test_unusual_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [image(f"p/{name}", number) for number, name in enumerate(UNUSUAL)]
    undecodable = os.fsencode(tmp_path / "p") + b"/m\xe9taphase.png"
    shutil.copyfile(os.fsencode(files[0]), undecodable)
    files.append(Path(os.fsdecode(undecodable)))
    assert run(*files, "--output", "r") == 0
    out = capsys.readouterr().out
    assert r"m\udce9taphase.png: 46,XY" in out and "染色体.png: 46,XY" in out
    found = cells("r")
    assert len(found) == len(files) == len({name.casefold() for name in found})
    for name in found:
        assert not set(name) & set('<>:"/\\|?*\n') and not name.startswith(".")
        assert len(os.fsencode(name)) <= 150
    page = Path("r/index.html").read_text(encoding="utf-8")
    assert page.count("<article") == len(files) and r"m\udce9taphase.png" in page
    assert run(*files, "--output", "r") == 0
    assert f"({len(files)} were done before)" in capsys.readouterr().out


def test_safe_and_unique_names() -> None:
    assert safe_name("cell 46,XY (1)") == "cell 46,XY (1)"
    assert safe_name("a/b:\x07") == "a%2Fb%3A%07"
    assert safe_name(".") == safe_name("") == "image"
    assert safe_name("LPT1.x") == "_LPT1.x"
    assert safe_name(os.fsdecode(b"m\xe9")) == "m%E9"
    long = [safe_name("染" * 100 + end) for end in "ab"]
    assert long[0] != long[1] and all(len(name.encode()) <= 150 for name in long)
    many = [Path(f"{'x' * 300}{n}.png") for n in range(50)]
    assert len(set(unique_names(many))) == 50
    assert printable_path(Path(os.fsdecode(b"m\xe9.png"))) == r"m\udce9.png"


def test_a_terminal_that_cannot_encode_a_name(tmp_path: Path) -> None:
    file = image("p/染色体.png")
    done = start_command(file, "--output", "r", PYTHONIOENCODING="cp1252")
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0 and r"\u67d3\u8272\u4f53.png: 46,XY" in out
    assert cells("r")["染色体"]["image"] == str(file)


# Failures


def test_failures_do_not_stop_other_images(
    processes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("a", "bad", "bug", "exit", "memory", "z")):
        image(f"p/{name}.png", number)
    assert run("p", "--output", "r") == 1
    out = capsys.readouterr().out
    assert "4 of 6 images failed:" in out
    assert "p/bad.png: is bad; give a better one" in out
    said = r"p/bug.png: internal error (RuntimeError: a bug, with a \udce9 in it); please report it"
    assert said in out
    assert "p/exit.png: internal error (SystemExit: a library gives up)" in out
    assert "p/memory.png: not enough memory for it" in out
    found = cells("r")
    assert set(found) == {"a", "z"}
    assert found["a"]["process"] == found["z"]["process"] != os.getpid()
    report = Path("r/bug.failed.txt").read_text()
    assert report.startswith("p/bug.png: internal error") and "Traceback" in report
    assert "Traceback" not in Path("r/index.html").read_text()
    # The error message of a repaired image is removed.
    image("q/bug.png", 9).rename("p/bad.png")
    Path("p/bad.png").rename("p/good.png")
    Path("p/bug.png").unlink()
    assert run("p", "--output", "r") == 1
    out = capsys.readouterr().out
    assert "2 of 5 images failed" in out and "(2 were done before)" in out


def test_images_that_crash_the_process_or_exceed_the_time_limit(
    processes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("a", "crash", "hang", "kill", "once", "z")):
        image(f"p/{name}.png", number)
    begun = time.monotonic()
    assert run("p", "--output", "r", "--timeout", "2", "--processes", "2") == 1
    assert time.monotonic() - begun < 40
    out = capsys.readouterr().out
    assert "3 of 6 images failed" in out
    assert "p/crash.png: the process that worked on it was ended (SIGSEGV) twice" in out
    assert "p/kill.png: the process that worked on it was ended (SIGKILL) twice" in out
    assert "p/hang.png: took longer than 2 seconds and was ended (--timeout)" in out
    assert set(cells("r")) == {"a", "once", "z"}
    assert {path.name for path in Path("r").glob("*.failed.txt")} == {
        "crash.failed.txt",
        "hang.failed.txt",
        "kill.failed.txt",
    }
    assert not list(Path("r").glob("*.part"))


def test_the_result_of_a_changed_image_that_fails_is_removed() -> None:
    image("p/a.png", 1)
    assert run("p", "--output", "r") == 0
    Path("p/a.png").write_bytes(b"torn")
    assert run("p", "--output", "r") == 1
    assert {path.name for path in Path("r").iterdir()} == {
        *(MANIFEST, LOCK, "index.html"),
        "a.failed.txt",
    }


def test_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("a", "full_1", "full_2", "b", "full_3", "full_4", "full_5", "z")
    files = [image(f"p/{name}.png", number) for number, name in enumerate(names)]
    assert run(*files, "--output", "r") == 2
    output = capsys.readouterr()
    said = "r/full_5.json: cannot be written (No space left on device); free space"
    assert output.err.splitlines()[-1].startswith(f"chromozoo: error: {said}")
    assert "1 left: call the same again to go on" in output.out
    assert set(cells("r")) == {"a", "b"}
    assert Path("r/index.html").read_text().count("<article") == 2


def test_write_errors_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image("p/a.png", 1)
    image("p/b.png", 2)
    (tmp_path / "r" / "a.overlay.png").mkdir(parents=True)
    assert run("p", "--output", "r") == 0  # under another name
    assert set(cells("r")) == {"p_a", "b"}
    shutil.rmtree("r")
    assert run("p", "--output", "r") == 0
    Path("r/a.json").unlink()
    Path("r/a.overlay.png").unlink()
    Path("r/a.overlay.png").mkdir()
    assert run("p", "--output", "r") == 1
    out = capsys.readouterr().out
    assert "r/a.overlay.png: cannot be written (Is a directory); free space or name" in out
    assert "(1 were done before)" in out and not list(Path("r").glob("*.part"))
    assert run("p", "--output", "/dev/null/x") == 2
    assert "cannot be made a folder (Not a directory); name another" in capsys.readouterr().err


def test_a_disk_error_has_the_path_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a.txt: cannot be written \(No such file or direct"):
        replace_file(tmp_path / "none" / "a.txt", b"x")
    with pytest.raises(OutputError, match=r"cannot be written \(File name too long\)"):
        replace_file(tmp_path / ("x" * 300), b"x")


def test_models_that_cannot_be_loaded(
    processes: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image("p/a.png")
    monkeypatch.setattr(karyotype, "TASK", "helpers.stub_task:RefusingTask")
    assert run("p", "--output", "r") == 2
    assert "error: the weights are damaged; load them again" in capsys.readouterr().err
    monkeypatch.setattr(karyotype, "TASK", "helpers.stub_task:LargeTask")
    assert run("p", "--output", "r") == 2
    assert "error: there is not enough memory to load the models" in capsys.readouterr().err
    monkeypatch.setattr(karyotype, "TASK", "helpers.stub_task:DyingTask")
    assert run("p", "--output", "r") == 2
    said = "the process that loads the models was ended (SIGKILL), 2 times"
    assert said in capsys.readouterr().err
    monkeypatch.setattr(karyotype, "TASK", "helpers.stub_task:BrokenTask")
    with pytest.raises(RuntimeError, match=r"(?s)cannot start.*ZeroDivisionError"):
        run("p", "--output", "r")


@pytest.mark.parametrize(("n_images", "n_processes"), [(1, 4), (3, 2)])
def test_no_more_processes_than_images(processes: None, n_images: int, n_processes: int) -> None:
    for number in range(n_images):
        image(f"p/slow_{number}.png", number)
    assert run("p", "--output", "r", "--processes", str(n_processes)) == 0
    used = {cell["process"] for cell in cells("r").values()}
    assert len(cells("r")) == n_images and len(used) == min(n_images, n_processes)


# Signals


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGTERM, 143, "slow"), (signal.SIGINT, 130, "hang")]
)
def test_a_stopped_run_keeps_its_results(number: signal.Signals, status: int, name: str) -> None:
    image("p/a.png", 1)
    for k in range(3):
        image(f"p/{name}_{k}.png", 2 + k)
    running = start_command("p", "--output", "r")
    until = time.monotonic() + 60
    while not Path("r/a.json").exists():
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.2)
    running.send_signal(number)
    begun = time.monotonic()
    out, _ = running.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert running.returncode == status, out
    # The current image is finished, or dropped if it hangs; the others remain.
    left = 2 if name == "slow" else 3
    assert f"{left} left: call the same again to go on" in out and "Traceback" not in out
    assert len(cells("r")) == 4 - left
    assert Path("r/index.html").read_text().count("<article") == 4 - left
    assert not list(Path("r").glob("*.part"))
    for path in Path("p").glob("hang*"):
        path.rename(path.with_name(path.name.replace("hang", "b")))
    assert run("p", "--output", "r") == 0
    assert len(cells("r")) == 4


def is_running(process: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_process_outlives_the_command(tmp_path: Path) -> None:
    image("p/hang.png")
    running = start_command("p", "--output", "r", STUB_MARK="working")
    until = time.monotonic() + 60
    while not Path("working").exists() or not Path("working").read_text():
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    worker = int(Path("working").read_text())
    running.kill()
    running.wait()
    until = time.monotonic() + 10
    while is_running(worker):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_signal_while_the_models_load(tmp_path: Path) -> None:
    image("p/a.png")
    running = start_command("p", "--output", "r", STUB_LOAD="30")
    until = time.monotonic() + 60
    while not (tmp_path / "r" / MANIFEST).exists():
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=5)
    assert running.returncode == 143
    assert out == "chromozoo: stopped by SIGTERM; call the same again to go on\n"


def test_a_closed_output_pipe_ends_the_command() -> None:
    image("p/a.png")
    running = start_command("p", "--output", "r")
    assert running.stdout is not None
    running.stdout.close()
    assert running.wait(timeout=60) == 141
    assert cells("r") and Path("r/index.html").exists()


def test_the_page_of_a_stopped_run_is_written_within_its_time_limit() -> None:
    for number in range(3):
        image(f"p/{number}.png", number)
    assert run("p", "--output", "r") == 0
    known = page_cell(Path("r"), "1")
    assert known is not None
    write_page(Path("r"), ["0", "1"], earlier=["2"], cells={"1": known}, seconds=-1)
    page = Path("r/index.html").read_text()
    assert page.count("<article") == 1 and '"1.json"' in page
    assert "The run was stopped: 2 more are not shown here" in page


# Files of several images


def test_pages_have_separate_results(capsys: pytest.CaptureFixture[str]) -> None:
    def write(path: str, *levels: int) -> None:
        pages = [Image.fromarray(np.full((40, 40), level, np.uint8)) for level in levels]
        pages[0].save(path, save_all=True, append_images=pages[1:])

    Path("p").mkdir()
    write("p/x.tif", 1, 2, 3)
    image("p/y.png")
    assert run("p", "--output", "r") == 0
    out = capsys.readouterr().out
    assert "p/x.tif (page2): 46,XY" in out and "4 metaphases, " in out
    found = cells("r")
    assert set(found) == {"x-page1", "x-page2", "x-page3", "y"}
    assert found["x-page2"]["identity"]["content"]["part"] == "page2"
    # A missing page is processed alone; a changed file is processed as a whole.
    before = {name: cell["made"] for name, cell in found.items()}
    Path("r/x-page2.json").unlink()
    assert run("p", "--output", "r") == 0
    assert "(3 were done before)" in capsys.readouterr().out
    after = {name: cell["made"] for name, cell in cells("r").items()}
    assert {name for name in after if after[name] != before[name]} == {"x-page2"}
    write("p/x.tif", 4, 5)
    assert run("p", "--output", "r") == 0
    assert "1 done again: the image has changed" in capsys.readouterr().out
    assert set(cells("r")) == {"x-page1", "x-page2", "y"}
    # With --page only that page is processed; the other results stay.
    assert run("p/x.tif", "--page", "2", "--output", "r") == 0
    found = cells("r")
    assert set(found) == {"x-page1", "x-page2", "y"}
    assert found["x-page2"]["identity"]["options"]["page"] == 2
    assert run("p/x.tif", "--page", "9", "--output", "r") == 1
    assert "p/x.tif" in capsys.readouterr().out.partition("1 of 1 images failed:")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "0"], "--processes 0: give 1 or more"),
        (["--page", "0"], "--page 0: give 1 or more"),
        (["--timeout", "-1"], "--timeout -1.0: give seconds, or 0 for no limit"),
        (["--timeout", "nan"], "--timeout nan: give seconds, or 0 for no limit"),
    ],
)
def test_wrong_settings(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    image("a.png")
    assert run("a.png", *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_two_machines_share_a_folder_by_lightning() -> None:
    """Two processes stand for the machines; they find each other by Lightning's variables."""
    for number, name in enumerate(("a", "bug", "z")):
        image(f"p/{name}.png", number)
    words = ("p", "--output", "r", "--nodes", "2")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    running = [start_command(*words, **place, NODE_RANK=str(rank)) for rank in (0, 1)]
    outs = [one.communicate(timeout=120)[0] for one in running]
    assert [one.returncode for one in running] == [1, 0], outs
    assert "1 of 3 images failed" in outs[0] and "2 metaphases, " in outs[0]
    found = cells("r")
    assert set(found) == {"a", "z"}


def test_two_machines_share_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each machine runs every second job; the first one reports the results of both."""
    for number, name in enumerate(("a", "bug", "c", "z")):
        image(f"p/{name}.png", number)
    words = ("p", "--output", "r", "--nodes", "2")
    ran: list[tuple[int, str]] = []

    def run_half(run_job: Any, jobs: Any, n_processes: int, n_nodes: int) -> tuple[bool, None]:
        assert (n_processes, n_nodes) == (1, 2)
        rank = int(os.environ["NODE_RANK"])
        if rank == 0:  # both machines have listed their jobs before either runs one
            monkeypatch.setenv("NODE_RANK", "1")
            assert run(*words) == 0
        for job in jobs[rank::2]:
            ran.append((rank, job.name))
            run_job(job)
        return rank == 0, None

    monkeypatch.setattr(nodes, "run_on_all_nodes", run_half)
    monkeypatch.setenv("NODE_RANK", "0")
    assert run(*words) == 1
    out = capsys.readouterr().out
    assert ran == [(1, "bug"), (1, "z"), (0, "a"), (0, "c")]
    assert "1 of 4 images failed" in out and "3 metaphases, " in out
    assert "p/bug.png: internal error (RuntimeError" in out
    assert set(cells("r")) == {"a", "c", "z"}


def test_workers_import_the_modules_that_register_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    registry._REGISTERED.pop("tiny_segmenter", None)
    sys.modules.pop("helpers.tiny_zoo", None)
    import_module("helpers.tiny_zoo")
    arguments = argparse.Namespace(page=None, channel=None, projection=None)
    settings = task_settings(arguments, Path("r"))
    assert settings["modules"] == ["helpers.tiny_zoo"]
    # In a new process the module is not imported yet.
    registry._REGISTERED.pop("tiny_segmenter")
    sys.modules.pop("helpers.tiny_zoo")
    build_task(STUB, settings)
    assert "tiny_segmenter" in registry.list_models()
