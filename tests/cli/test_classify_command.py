"""``chromozoo classify``: table, result files and errors of single images."""

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.inline_worker import start
from PIL import Image

from chromozoo.classes import CLASSES
from chromozoo.cli import classify
from chromozoo.cli.main import main
from chromozoo.files import SOFTWARE
from chromozoo.models.registry import get_weight
from chromozoo.synthetic import draw_cell, write_cell

STUB = "helpers.stub_classify_task:StubClassifyTask"


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells") / "cell"
    write_cell(folder, draw_cell(np.random.default_rng(5), karyotype=["1", "2", "17", "21", "X"]))
    return folder


def document(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "predictions.json").read_text())
    return found


def test_classify_writes_table_json_csv_and_karyogram(
    inline: None, cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["classify", str(cell), "--as-cell", "--output", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert status == 0
    assert "Research use only, not for diagnosis" in shown
    found = document(tmp_path / "out")
    assert found["weights"]["sha256"]
    assert len(found["chromosomes"]) == 5
    assert found["cell"]["iscn"].startswith("5,")
    for item in found["chromosomes"]:
        assert item["class"] in CLASSES
        assert sum(item["probabilities"]) == pytest.approx(1, abs=1e-4)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    with Image.open(tmp_path / "out" / "karyogram.png") as image:
        assert image.width >= 1000
    assert not list((tmp_path / "out").glob("*.part"))


def test_labels_are_compared_with_the_predictions(
    inline: None, cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["classify", str(cell), "--model", "vanilla_cnn"]
    words += ["--labels", str(cell / "labels.csv")]
    assert main([*words, "--output", str(tmp_path)]) == 0
    assert "of 5 agree with the labels" in capsys.readouterr().out


def test_bad_images_are_reported_and_the_others_classified(
    inline: None, cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    whole = min(cell.glob("*.png"))
    (folder / "a_good.png").write_bytes(whole.read_bytes())
    (folder / "b_empty.png").write_bytes(b"")
    (folder / "c_truncated.png").write_bytes(whole.read_bytes()[:80])
    Image.new("L", (40, 60)).save(folder / "d_black.png")
    Image.new("L", (1, 1), 200).save(folder / "e_one_pixel.png")
    (folder / "f_text.png").write_text("not an image")
    deep = np.asarray(Image.open(whole).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "g_sixteen_bit.png")
    Image.open(whole).convert("RGBA").save(folder / "h_rgba.png")
    words = ["classify", str(folder), "--model", "vanilla_cnn"]
    status = main([*words, "--output", str(tmp_path / "out")])
    shown = capsys.readouterr()
    assert status == 1
    assert "Traceback" not in shown.err
    chromosomes = document(tmp_path / "out")["chromosomes"]
    errors = {Path(item["image"]).name: item.get("error") for item in chromosomes}
    good = {"a_good.png", "g_sixteen_bit.png", "h_rgba.png"}
    assert {name for name, error in errors.items() if error is None} == good
    for name in errors.keys() - good:
        assert name in errors[name]
        assert name in shown.out
    classes = {item["class"] for item in chromosomes if not item.get("error")}
    assert len(classes) == 1, "the same image in three formats has one class"


def test_its_own_karyogram_does_not_count_as_an_image(
    inline: None, cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cell"
    shutil.copytree(cell, folder)
    words = ["classify", str(folder), "--model", "vanilla_cnn", "--as-cell"]
    assert main([*words, "--output", str(folder)]) == 0
    first = document(folder)
    shutil.copy(folder / "karyogram.png", folder / "another name.png")
    assert main([*words, "--output", str(folder)]) == 0
    assert document(folder) == first and len(first["chromosomes"]) == 5
    assert "Left out of the folder: 2 results of ChromoZoo" in capsys.readouterr().out
    with Image.open(folder / "karyogram.png") as image:
        assert image.info["Software"] == SOFTWARE
    # A run without --as-cell removes the karyogram of the earlier one.
    assert main([*words[:-1], "--output", str(folder)]) == 0
    assert not (folder / "karyogram.png").exists() and document(folder)["cell"] is None


def test_results_of_other_images_are_not_overwritten(
    inline: None, cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cell, tmp_path / "other")
    words = ["--model", "vanilla_cnn", "--output", str(tmp_path / "out")]
    assert main(["classify", str(cell), *words]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main(["classify", str(tmp_path / "other"), *words]) == 2
    assert "predictions.json: is of other images" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    files = [str(path) for path in sorted(cell.glob("*.png"))[:2]]
    assert main(["classify", *files, *words]) == 0
    assert "of the 5 images before, 3 are not in it now" in capsys.readouterr().out


def test_results_hold_their_identity(inline: None, cell: Path, tmp_path: Path) -> None:
    assert main(["classify", str(cell), "--model", "vanilla_cnn", "--output", str(tmp_path)]) == 0
    found = document(tmp_path)
    assert found["identity"]["models"][0]["sha256"] == get_weight("vanilla_cnn").sha256
    options = {"as_cell": False, "error_rate": None}
    options |= {"page": None, "channel": None, "projection": None}
    assert found["identity"]["options"] == options
    assert all(len(item["sha256"]) == 64 for item in found["chromosomes"])


def test_alarms_appear_in_all_results(
    inline: None,
    cell: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from chromozoo.tasks.classification import ChromosomeClassifier

    whole = ChromosomeClassifier.classify

    def alarmed(self: Any, *given: Any, **options: Any) -> Any:
        found = whole(self, *given, **options)
        found.alarms = ("the chromosomes show no bands", "4 of 5 classes are uncertain")
        return found

    monkeypatch.setattr(ChromosomeClassifier, "classify", alarmed)
    words = ["classify", str(cell), "--model", "vanilla_cnn", "--output", str(tmp_path)]
    assert main([*words, "--as-cell"]) == 0
    shown = capsys.readouterr().out
    assert "Unreliable predictions:\n  the chromosomes show no bands\n  4 of 5" in shown
    assert document(tmp_path)["alarms"][1] == "4 of 5 classes are uncertain"
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["alarms"] for row in rows} == {
        "the chromosomes show no bands; 4 of 5 classes are uncertain"
    }
    with Image.open(tmp_path / "karyogram.png") as image:
        red = (np.asarray(image) == (176, 0, 32)).all(axis=2)
    assert red.sum() > 50_000


def test_undecodable_file_names(
    inline: None,
    cell: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    whole = min(cell.glob("*.png"))
    shutil.copy(whole, folder / "染色体 [red].png")
    shutil.copyfile(whole, os.fsencode(folder) + b"/m\xe9.png")
    Path(os.fsdecode(os.fsencode(folder) + b"/n\xe9.png")).write_bytes(b"")
    words = ["classify", str(folder), "--model", "vanilla_cnn", "--as-cell"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().out
    assert r"m\udce9.png" in shown and "染色体 [red].png" in shown
    assert r"n\udce9.png: the file is empty" in shown
    names = [Path(item["image"]).name for item in document(tmp_path / "out")["chromosomes"]]
    assert names == [r"m\udce9.png", r"n\udce9.png", "染色体 [red].png"]
    table = (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8")
    assert r"m\udce9.png" in table and "染色体 [red].png" in table


def test_paths_that_give_no_image(
    inline: None, cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    paths = [str(min(cell.glob("*.png"))), "nowhere.png", str(tmp_path / "loop.png")]
    words = ["--model", "vanilla_cnn", "--output", str(tmp_path / "out")]
    assert main(["classify", *paths, *words]) == 1
    assert "2 of 3 images failed" in capsys.readouterr().out
    errors = [item.get("error") for item in document(tmp_path / "out")["chromosomes"]]
    assert errors[0] is None and errors[1].startswith("nowhere.png: no such image file")
    assert "loop.png: a link that leads to no file" in errors[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--error-rate", "0.01"], "chrnet4 with the weights metaphase has no prediction sets"),
        (["--error-rate", "0.01"], "give --weights bioimlab or --weights pki3"),
        (
            ["--weights", "bioimlab", "--error-rate", "0.2"],
            "give one of 0.005, 0.01, 0.02, 0.05, 0.1",
        ),
        (["--model", "siamese_net", "--error-rate", "0.01"], "use karyoset or chromozoo_small"),
        (["--model", "siamese_net", "--error-rate", "0.01"], "`chromozoo calibrate siamese_net`"),
        (["--model", "chr_fast"], "chr_fast is not a classifier; use one of"),
    ],
)
def test_errors_say_the_remedy(
    words: list[str], said: str, cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(cell), *words]) == 2
    assert said in capsys.readouterr().err


# In a real worker process with a stub of the model


def test_images_that_crash_the_process_or_exceed_the_time_limit(
    cell: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(classify, "TASK", STUB)
    for name in ("a", "dies", "hang", "kill", "z"):
        shutil.copy(min(cell.glob("*.png")), tmp_path / f"{name}.png")
    words = ["classify", str(tmp_path), "--timeout", "1", "--output", str(tmp_path / "out")]
    assert main(words) == 1
    shown = capsys.readouterr().out
    assert "3 of 5 images failed" in shown
    assert "hang.png: took longer than 1 seconds and was ended (--timeout)" in shown
    for name in ("dies", "kill"):
        assert f"{name}.png: the process that worked on it was ended (SIGKILL) twice" in shown
    classes = [item.get("class") for item in document(tmp_path / "out")["chromosomes"]]
    assert classes == ["1", None, None, None, "1"]


def test_an_error_of_all_images_together(
    cell: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(classify, "TASK", STUB)
    shutil.copy(min(cell.glob("*.png")), tmp_path / "all.png")
    assert main(["classify", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    said = "all 1 images together: internal error (RuntimeError: a bug); please report it"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_a_stopped_run_writes_nothing(cell: Path, tmp_path: Path) -> None:
    shutil.copy(min(cell.glob("*.png")), tmp_path / "hang.png")
    output = tmp_path / "out"
    running = start("classify", STUB, tmp_path, "--output", output)
    until = time.monotonic() + 60
    while not (output / "begun").exists():
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=5)
    assert running.returncode == 143
    assert out == "chromozoo: stopped by SIGTERM; call the same again to go on\n"
    assert not list(output.glob("*.json")) and not list(output.glob("*.csv"))
