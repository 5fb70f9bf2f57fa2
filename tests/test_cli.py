"""The command line as a user meets it: tables, files, and errors that name the file."""

import csv
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromozoo.classes import CLASSES
from chromozoo.cli.main import COMMANDS, TRAINER_COMMANDS, main
from chromozoo.registry import list_models, model_info
from chromozoo.synthetic import draw_cell, write_cell


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells") / "cell"
    write_cell(folder, draw_cell(np.random.default_rng(5), karyotype=["1", "2", "17", "21", "X"]))
    return folder


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from chromozoo.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'cv2', 'scipy', 'timm', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - TRAINER_COMMANDS))
def test_every_command_has_a_module_and_help(name: str, capsys) -> None:
    module = import_module(f"chromozoo.cli.{name.replace('-', '_')}")
    assert callable(module.run)
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert name in capsys.readouterr().out


def test_classify_writes_table_json_csv_and_karyogram(cell: Path, tmp_path: Path, capsys) -> None:
    status = main(["classify", str(cell), "--as-cell", "--output", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert status == 0
    assert "Research use only, not for diagnosis" in shown
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert document["weights"]["sha256"]
    assert len(document["chromosomes"]) == 5
    assert document["cell"]["iscn"].startswith("5,")
    for item in document["chromosomes"]:
        assert item["class"] in CLASSES
        assert sum(item["probabilities"]) == pytest.approx(1, abs=1e-4)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    with Image.open(tmp_path / "out" / "karyogram.png") as picture:
        assert picture.width >= 1000
    assert not list((tmp_path / "out").glob("*.part"))


def test_labels_tell_how_many_are_right(cell: Path, tmp_path: Path, capsys) -> None:
    words = ["classify", str(cell), "--labels", str(cell / "labels.csv")]
    assert main([*words, "--output", str(tmp_path)]) == 0
    assert "of 5 agree with the labels given" in capsys.readouterr().out


def test_bad_pictures_are_named_and_the_rest_goes_on(cell: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    whole = min(cell.glob("*.png"))
    (folder / "a_good.png").write_bytes(whole.read_bytes())
    (folder / "b_empty.png").write_bytes(b"")
    (folder / "c_truncated.png").write_bytes(whole.read_bytes()[:80])
    Image.new("L", (40, 60)).save(folder / "d_black.png")
    Image.new("L", (1, 1), 200).save(folder / "e_one_pixel.png")
    (folder / "f_text.png").write_text("this is no picture")
    deep = np.asarray(Image.open(whole).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "g_sixteen_bit.png")
    Image.open(whole).convert("RGBA").save(folder / "h_rgba.png")
    status = main(["classify", str(folder), "--output", str(tmp_path / "out")])
    shown = capsys.readouterr()
    assert status == 1
    assert "Traceback" not in shown.err
    chromosomes = json.loads((tmp_path / "out" / "predictions.json").read_text())["chromosomes"]
    outcome = {Path(item["image"]).name: item.get("error") for item in chromosomes}
    good = {"a_good.png", "g_sixteen_bit.png", "h_rgba.png"}
    assert {name for name, error in outcome.items() if error is None} == good
    for name in outcome.keys() - good:
        assert name in outcome[name]
        assert name in shown.out
    classes = {item["class"] for item in chromosomes if not item.get("error")}
    assert len(classes) == 1, "the same picture in three formats has one class"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["classify", "nowhere.png", "--model", "chrnet5"], "did you mean chrnet4"),
        (["classify", "nowhere.png", "--weights", "bioimlap"], "did you mean bioimlab"),
        (["data", "info", "bioimlabs"], "did you mean bioimlab"),
        (["data", "verify", "bioimlab", "--root", "nowhere"], "  1. "),
        (["fit", "--config", "nowhere.yaml"], None),
    ],
)
def test_errors_tell_the_remedy(words: list[str], said: str | None, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if said is None:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert "nowhere.yaml" in capsys.readouterr().err
        return
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("chromozoo: error: ")
    assert said in shown


def test_an_empty_folder(tmp_path: Path, capsys) -> None:
    assert main(["classify", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_models_lists_every_model(capsys) -> None:
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    for name in list_models():
        assert name in shown
        assert model_info(name).paper in shown


def test_synthesize_draws_what_is_asked_and_overwrites_nothing(tmp_path: Path, capsys) -> None:
    words = ["synthesize", str(tmp_path / "new"), "--karyotype", "X", "21", "--stain", "g"]
    assert main(words) == 0
    labels = (tmp_path / "new" / "cell_001" / "labels.csv").read_text()
    assert sorted(line.split(",")[1] for line in labels.split()[1:]) == ["21", "X"]
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err


def test_data_verify_counts_and_finds_faults(tiny_bioimlab: Path, capsys) -> None:
    # Three of 107 cells: the missing ones are faults, told one by one.
    assert main(["data", "verify", "bioimlab", "--root", str(tiny_bioimlab)]) == 1
    shown = capsys.readouterr().out
    assert "138 chromosomes of 3 cells" in shown
    assert "FAULT cell 3 of the split is not in the data set" in shown
    assert "104 faults" in shown


def test_env_names_the_libraries(capsys) -> None:
    assert main(["env"]) == 0
    shown = capsys.readouterr().out
    assert "torch" in shown
    assert "albumentations" in shown
