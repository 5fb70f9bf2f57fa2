"""Training as a whole: resuming, learning, two processes, packaging, the zoo's trainer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from chromozoo.cli import package, train_zoo
from chromozoo.cli.main import main as chromozoo
from chromozoo.cli.train import main
from chromozoo.errors import ChromozooError, WeightsError
from chromozoo.registry import get_model
from chromozoo.weights import read_entry

REPOSITORY = Path(__file__).parents[1]
CONFIG = REPOSITORY / "configs" / "classification" / "chrnet4_bioimlab.yaml"


@pytest.fixture
def recipe(tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped config made small: 8 batches of 6 pictures an epoch at 48x24."""
    content = yaml.safe_load(CONFIG.read_text())
    content["trainer"] |= {
        "max_epochs": 2,
        "limit_train_batches": 3,
        "check_val_every_n_epoch": 1,
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
    }
    # Averaged over the last ten steps, since there are only so many.
    content["trainer"]["callbacks"][0]["init_args"]["decay"] = 0.9
    content["model"]["init_args"]["preset"] |= {"height": 48, "width": 32, "scale": 0.5}
    content["data"]["init_args"] |= {
        "root": str(tiny_bioimlab),
        "batch_size": 6,
        "num_workers": 0,
        "synthetic_cells": 1,
    }
    path = tmp_path / "chrnet4_bioimlab.yaml"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    return path


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("network.")}


def test_a_resumed_run_ends_like_an_uninterrupted_one(recipe: Path, tmp_path: Path) -> None:
    last = tmp_path / "runs" / "chrnet4_bioimlab" / "last.ckpt"
    main(["fit", f"--config={recipe}"])
    whole = _weights(last)
    shutil.rmtree(tmp_path / "runs")
    # The schedule must be that of two epochs, so the first run is stopped, not told to be short.
    main(["fit", f"--config={recipe}", "--trainer.callbacks+=test_training.StopAfterOneEpoch"])
    assert torch.load(last, weights_only=True)["epoch"] == 0
    halfway = _weights(last)["network.fc.weight"]
    main(["fit", f"--config={recipe}", f"--ckpt_path={last}"])
    resumed = _weights(last)
    assert resumed.keys() == whole.keys()
    # The averaged weights move slowly: what is compared must be far below what an epoch changes.
    assert (whole["network.fc.weight"] - halfway).abs().max() > 2e-5
    for key, value in whole.items():
        torch.testing.assert_close(
            resumed[key], value, rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
        )


import lightning  # noqa: E402


class StopAfterOneEpoch(lightning.Callback):
    """An interruption between two epochs."""

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule):
        trainer.should_stop = True


def test_two_processes_train_as_one(recipe: Path, tmp_path: Path) -> None:
    words = ["fit", f"--config={recipe}", "--trainer.strategy=ddp", "--trainer.devices=2"]
    finished = subprocess.run(
        [sys.executable, "-m", "chromozoo.cli.main", *words, "--trainer.max_epochs=1"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "MEMBER: 2/2" in finished.stdout + finished.stderr
    state = _weights(tmp_path / "runs" / "chrnet4_bioimlab" / "last.ckpt")
    assert all(value.isfinite().all() for value in state.values())


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the repository without weights, results and configs: the real ones stay as is."""
    house = tmp_path / "house"
    for name in ("chromozoo", "benchmarks"):
        shutil.copytree(
            REPOSITORY / name, house / name, ignore=shutil.ignore_patterns("__pycache__", "weights")
        )
    for name in ("README.md", "hubconf.py"):
        shutil.copy(REPOSITORY / name, house / name)
    (house / "weights").mkdir()
    for task in ("classification", "segmentation"):
        (house / "benchmarks" / "results" / f"{task}.csv").unlink(missing_ok=True)
        (house / "configs" / task).mkdir(parents=True)
    return house


def zoo(house: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chromozoo.cli.main", "train-zoo", *words],
        env={**os.environ, "PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"},
        cwd=house,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_train_zoo_trains_packages_and_measures(
    recipe: Path, tiny_bioimlab: Path, house: Path
) -> None:
    shutil.copy(recipe, house / "configs" / "classification")

    refused = zoo(house, "--budget", "10", "--only", "chrnet5")
    assert refused.returncode == 2
    assert "chrnet4_bioimlab" in refused.stderr

    done = zoo(house, "--budget", "20", "--root", str(tiny_bioimlab))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (file,) = (house / "weights").glob("*.safetensors")
    entry = read_entry(file)
    assert (entry.model, entry.tag, entry.parameters) == ("chrnet4", "bioimlab", 16_355_160)
    packaged = json.loads(
        (house / "chromozoo/classifiers/weights/chrnet4_bioimlab.json").read_text()
    )
    assert packaged["sha256"] == entry.sha256
    rows = (house / "benchmarks/results/classification.csv").read_text().splitlines()
    assert len(rows) == 3  # head, validation, test
    assert set(packaged["metrics"]) == {"bioimlab_v1/val", "bioimlab_v1/test"}
    assert entry.sha256 in (house / "chromozoo/classifiers/chrnet4.md").read_text()
    assert "chrnet4" in (house / "README.md").read_text().split("leaderboard:bioimlab:begin")[1]

    again = zoo(house, "--budget", "20")
    assert again.returncode == 0
    assert "done" in again.stdout

    model = get_model("chrnet4", weights=file)
    assert model.temperature == entry.temperature
    assert model.transforms.height == 48


def test_train_zoo_takes_segmenters(tiny_metaphases: Path, house: Path) -> None:
    """The same way for the other task: mask AP chooses, and another table is written."""
    import yaml

    config = REPOSITORY / "configs" / "segmentation" / "chr_fast_bioimlab.yaml"
    content = yaml.safe_load(config.read_text())
    content["trainer"] |= {"max_epochs": 1, "check_val_every_n_epoch": 1, "accelerator": "cpu"}
    content["model"]["init_args"] |= {"backbone": "test_resnet", "channels": 16}
    content["data"]["init_args"] |= {"crop": 96, "samples_per_epoch": 8, "num_workers": 0}
    (house / "configs" / "segmentation" / config.name).write_text(yaml.safe_dump(content))

    done = zoo(house, "--budget", "20", "--root", str(tiny_metaphases))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (file,) = (house / "weights").glob("*.safetensors")
    entry = read_entry(file)
    assert (entry.model, entry.tag, entry.input_size) == ("chr_fast", "bioimlab", [])
    packaged = json.loads(
        (house / "chromozoo/segmenters/weights/chr_fast_bioimlab.json").read_text()
    )
    assert set(packaged["metrics"]) == {
        "bioimlab_segmentation_v1/val",
        "bioimlab_segmentation_v1/test",
    }
    assert 0 <= packaged["metrics"]["bioimlab_segmentation_v1/test"]["mask_ap"] <= 1
    assert len((house / "benchmarks/results/segmentation.csv").read_text().splitlines()) == 3
    card = (house / "chromozoo/segmenters/chr_fast.md").read_text()
    assert "any size" in card
    assert "mask AP50" in card
    table = (house / "README.md").read_text().split("leaderboard:bioimlab-segmentation:begin")[1]
    assert "| chr_fast |" in table
    assert "ChrRender" in table

    found = get_model("chr_fast", weights=file).segment(np.zeros((50, 60), np.uint8))
    assert len(found) == 0


def test_package_without_a_checkpoint(recipe: Path) -> None:
    with pytest.raises(WeightsError, match="train first: chromozoo fit"):
        package.run(_arguments(package, str(recipe)))


def test_a_config_that_names_no_model(tmp_path: Path) -> None:
    path = tmp_path / "chrnet9_bioimlab.yaml"
    with pytest.raises(ChromozooError, match="no such config"):
        package.read_recipe(path)
    path.write_text("model: {}\n")
    with pytest.raises(ChromozooError, match=r"chrnet9_bioimlab\.yaml.*chrnet4"):
        package.read_recipe(path)


def test_benchmark_refuses_a_missing_folder(tmp_path: Path, capsys) -> None:
    status = chromozoo(["benchmark", "chrnet4", "--results", str(tmp_path / "no" / "x.csv")])
    assert status == 2
    assert "no such folder" in capsys.readouterr().err


def test_zoo_finds_only_recipes_of_the_zoo() -> None:
    stems = [recipe.stem for recipe in train_zoo.find_recipes(["*"])]
    assert "chrnet4_bioimlab" in stems
    assert stems == [recipe.stem for recipe in train_zoo.find_recipes(["*"])]
    assert not any("strateg" in stem for stem in stems)


def _arguments(module, *words: str):
    import argparse

    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)
