"""The command line: help, tables, files and error messages."""

import subprocess
import sys
from pathlib import Path

import pytest

from chromozoo.cli.main import COMMANDS, TRAINER_COMMANDS, ZOO_COMMANDS, main
from chromozoo.models.registry import list_models, model_info


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from chromozoo.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'cv2', 'scipy', 'timm', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "words",
    [
        *([name] for name in sorted(set(COMMANDS) - TRAINER_COMMANDS)),
        *(["zoo", name] for name in ZOO_COMMANDS),
    ],
    ids=" ".join,
)
def test_every_command_has_help(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--help"])
    assert stopped.value.code == 0
    assert f"usage: chromozoo {' '.join(words)} " in capsys.readouterr().out


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
def test_errors_say_the_remedy(words: list[str], said: str | None, tmp_path, monkeypatch, capsys):
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


def test_a_folder_without_images(tmp_path: Path, capsys) -> None:
    assert main(["classify", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_models_lists_every_model(capsys) -> None:
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    for name in list_models():
        assert name in shown
        assert model_info(name).paper in shown


def test_data_simulate_draws_the_karyotype_and_overwrites_nothing(tmp_path: Path, capsys) -> None:
    words = ["data", "simulate", "--karyotype", "X", "21", "--stain", "g"]
    words += ["--output", str(tmp_path / "new")]
    assert main(words) == 0
    labels = (tmp_path / "new" / "cell_001" / "labels.csv").read_text()
    assert sorted(line.split(",")[1] for line in labels.split()[1:]) == ["21", "X"]
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    for wrong, said in ((["--seed", "-1"], "--seed -1"), (["--cells", "0"], "--cells 0")):
        assert main(["data", "simulate", "--output", str(tmp_path / "other"), *wrong]) == 2
        assert f"chromozoo: error: {said}: " in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


def test_data_verify_counts_and_finds_faults(tiny_bioimlab: Path, capsys) -> None:
    # Three of 107 cells: each missing cell is a fault.
    assert main(["data", "verify", "bioimlab", "--root", str(tiny_bioimlab)]) == 1
    shown = capsys.readouterr().out
    assert "138 chromosomes of 3 cells" in shown
    assert "FAULT cell 3 of the split is not in the data set" in shown
    assert "104 faults" in shown


def test_env_lists_the_libraries(capsys) -> None:
    assert main(["env"]) == 0
    shown = capsys.readouterr().out
    assert "torch" in shown
    assert "albumentations" in shown
