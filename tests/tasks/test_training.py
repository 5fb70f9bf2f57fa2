"""Training as a whole: resuming, learning, two processes, packaging, the zoo's trainer."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from chromozoo import environment
from chromozoo.benchmark import zoo_training
from chromozoo.cli.main import main as chromozoo
from chromozoo.cli.zoo import package
from chromozoo.errors import ChromozooError, TrainingError, WeightsError
from chromozoo.models.registry import get_model
from chromozoo.models.weights.storage import read_entry
from chromozoo.tasks.optimisation import one_cycle
from chromozoo.training import command
from chromozoo.training.command import main
from chromozoo.training.configs import read_config
from chromozoo.training.recipe import read_recipe

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs" / "classification"
CONFIG = CONFIGS / "chrnet4_bioimlab.yaml"


@pytest.fixture
def recipe(tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_small(CONFIG, tiny_bioimlab, tmp_path)


@pytest.fixture
def quick_recipe(tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of a network that takes milliseconds a step."""
    monkeypatch.chdir(tmp_path)
    config = CONFIGS / "timm_backbone_bioimlab.yaml"
    return write_small(config, tiny_bioimlab, tmp_path, backbone="test_resnet")


def write_small(config: Path, data: Path, folder: Path, **arguments: str) -> Path:
    """Write a shipped config made small: 2 batches of 6 images an epoch at 48x32."""
    content = read_config(config).content
    content["trainer"] |= {
        "max_epochs": 2,
        "limit_train_batches": 2,
        "limit_val_batches": 1,
        "check_val_every_n_epoch": 1,
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
    }
    # Averaged over the last ten steps, since there are only so many.
    content["trainer"]["callbacks"][0]["init_args"]["decay"] = 0.9
    content["model"]["init_args"] |= arguments
    content["model"]["init_args"]["preset"] |= {"height": 48, "width": 32, "scale": 0.5}
    content["data"]["init_args"] |= {
        "root": str(data),
        "batch_size": 6,
        "num_workers": 0,
        "synthetic_cells": 1,
    }
    path = folder / config.name
    path.write_text(yaml.safe_dump(content))
    return path


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("network.")}


def test_a_resumed_run_ends_like_an_uninterrupted_one(quick_recipe: Path, tmp_path: Path) -> None:
    last = tmp_path / "runs" / "timm_backbone_bioimlab" / "last.ckpt"
    main(["fit", f"--config={quick_recipe}"])
    whole = _weights(last)
    shutil.rmtree(tmp_path / "runs")
    # The schedule must be that of two epochs, so the first run is stopped, not told to be short.
    main(
        ["fit", f"--config={quick_recipe}", "--trainer.callbacks+=test_training.StopAfterOneEpoch"]
    )
    assert torch.load(last, weights_only=True)["epoch"] == 0
    halfway = _weights(last)["network.fc.weight"]
    main(["fit", f"--config={quick_recipe}", f"--ckpt_path={last}"])
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


class Line(lightning.LightningModule):
    """Trains a line, and notes the learning rate of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Linear(1, 1)
        self.rates: list[float] = []

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.network(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return one_cycle(self, self.network.parameters(), "adamw", 1e-3, 0.05)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield [torch.ones(1)]


def train_line(data: Any = None, checkpoint: Path | None = None, **settings: Any) -> Line:
    """Five steps an epoch."""
    model = Line()
    trainer = lightning.Trainer(
        **({"max_epochs": 1} | settings),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(TensorDataset(torch.ones(10, 1)), 2) if data is None else data
    trainer.fit(model, data, ckpt_path=checkpoint)
    if checkpoint is None:
        trainer.save_checkpoint("line.ckpt")
    return model


@pytest.mark.filterwarnings("ignore")
def test_a_finished_training_goes_on_for_more_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = train_line(max_epochs=3)
    short = train_line(max_epochs=1)
    assert short.rates[-1] < short.rates[1] / 10, "it came to its end"
    with pytest.warns(UserWarning, match="training of 5 steps, this one has 15"):
        longer = train_line(checkpoint=Path("line.ckpt"), max_epochs=3)
    assert longer.trainer.global_step == 15
    # The first rate is still that of the checkpoint, then the schedule is that of the longer run.
    assert longer.rates[1:] == pytest.approx(whole.rates[6:])
    # Nothing is left to do: no error, as a run that was interrupted after its last step needs it.
    assert train_line(checkpoint=Path("line.ckpt"), max_epochs=1).rates == []
    with pytest.raises(
        TrainingError, match=r"made 5 steps.*has 4 in all: raise trainer\.max_epoch"
    ):
        train_line(checkpoint=Path("line.ckpt"), max_epochs=4, limit_train_batches=1)


@pytest.mark.filterwarnings("ignore")
def test_a_training_without_a_known_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    endless = DataLoader(Endless(), 2)
    for settings in (
        {"max_epochs": -1, "max_time": "00:00:00:01"},
        {"max_epochs": -1},
        {"data": endless, "max_epochs": 2},
        {"data": endless, "max_epochs": -1, "max_time": "00:00:00:01"},
    ):
        with pytest.raises(TrainingError, match=r"give trainer\.max_epochs .*max_time may stand"):
            train_line(**settings)
    assert len(train_line(max_epochs=-1, max_steps=3).rates) == 3
    assert len(train_line(endless, max_epochs=-1, max_steps=3).rates) == 3
    assert len(train_line(max_epochs=2, max_time="00:00:10:00").rates) == 10
    assert len(train_line(limit_train_batches=1).rates) == 1
    assert train_line(max_epochs=0).rates == []


def test_what_does_not_go_together_is_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    of_another = get_model("vanilla_cnn", weights=None, preset={"height": 48, "width": 40})
    arguments = {"_class_path": "chromozoo.models.classifiers.vanilla_cnn.VanillaCNN"}
    torch.save(
        {"state_dict": of_another.state_dict(), "hyper_parameters": arguments},
        tmp_path / "other.ckpt",
    )
    for words, said in (
        (["--ckpt_path", "absent.ckpt"], "absent.ckpt: no such file"),
        (["--ckpt_path", "bad.ckpt"], "bad.ckpt: is no Lightning checkpoint"),
        (
            ["--ckpt_path", "other.ckpt"],
            "other.ckpt: is of chromozoo.models.classifiers.vanilla_cnn",
        ),
        (["--model.init_args.preset.height=4"], "4x32 pixels is too small"),
        (["--model.init_args.preset.views=[up]"], "views are ['up']"),
        (["--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:02"], "give trainer.max_epochs"),
        (["--trainer.devices=0"], "devices"),
    ):
        assert chromozoo(["fit", f"--config={recipe}", *words]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("chromozoo: error: ") and said in last


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> None:
        raise ValueError("something else")

    monkeypatch.setattr(command, "main", fail)
    with pytest.raises(ValueError, match=r"^something else$"):
        command.run(["fit"])


def test_a_break_interrupts_as_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    monkeypatch.setattr(command, "main", lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        with pytest.raises(KeyboardInterrupt):
            command.run(["fit"])
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("windows", [False, True])
def test_a_spent_budget_interrupts_the_training(
    windows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, sent = [], []

    class Process:
        def __init__(self, words: list[str], creationflags: int = 0) -> None:
            started.append(creationflags)

        def wait(self, timeout: float | None = None) -> int:
            if not sent:
                raise subprocess.TimeoutExpired("fit", timeout or 0)
            return 0

        def send_signal(self, number: int) -> None:
            sent.append(number)

    if windows:
        monkeypatch.setattr(zoo_training, "INTERRUPT", 1)  # signal.CTRL_BREAK_EVENT
        monkeypatch.setattr(zoo_training, "OWN_GROUP", 0x200)  # CREATE_NEW_PROCESS_GROUP
    monkeypatch.setattr(zoo_training.subprocess, "Popen", Process)
    monkeypatch.setattr(zoo_training, "RUNS", tmp_path)
    recipe = read_recipe(CONFIG)
    record = zoo_training.TrainingRecord(recipe)
    assert not zoo_training.fit(recipe, record, 100, None)
    assert (started, sent) == (([0x200], [1]) if windows else ([0], [signal.SIGINT]))
    assert not zoo_training.TrainingRecord(recipe).trained
    record.path.write_text("{half")
    with pytest.raises(ChromozooError, match=r"zoo\.json: is damaged"):
        zoo_training.TrainingRecord(recipe)


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_emulated_bfloat16_is_not_fast(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )
    assert environment.fast_precision() == expected


@pytest.mark.slow
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
            REPOSITORY / name, house / name, ignore=shutil.ignore_patterns("__pycache__", "entries")
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
        [sys.executable, "-m", "chromozoo.cli.main", "zoo", "train", *words],
        env={**os.environ, "PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"},
        cwd=house,
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.slow
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
        (house / "chromozoo/models/weights/entries/chrnet4_bioimlab.json").read_text()
    )
    assert packaged["sha256"] == entry.sha256
    rows = (house / "benchmarks/results/classification.csv").read_text().splitlines()
    assert len(rows) == 3  # head, validation, test
    assert set(packaged["metrics"]) == {"bioimlab_v1/val", "bioimlab_v1/test"}
    assert entry.sha256 in (house / "chromozoo/models/classifiers/chrnet4.md").read_text()
    assert "chrnet4" in (house / "README.md").read_text().split("leaderboard:bioimlab:begin")[1]

    again = zoo(house, "--budget", "20")
    assert again.returncode == 0
    assert "done" in again.stdout

    model = get_model("chrnet4", weights=file)
    assert model.temperature == entry.temperature
    assert model.transforms.height == 48


@pytest.mark.slow
def test_train_zoo_takes_segmenters(tiny_metaphases: Path, house: Path) -> None:
    """The same way for the other task: mask AP chooses, and another table is written."""
    config = REPOSITORY / "configs" / "segmentation" / "chr_fast_bioimlab.yaml"
    content = read_config(config).content
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
        (house / "chromozoo/models/weights/entries/chr_fast_bioimlab.json").read_text()
    )
    assert set(packaged["metrics"]) == {
        "bioimlab_segmentation_v1/val",
        "bioimlab_segmentation_v1/test",
    }
    assert 0 <= packaged["metrics"]["bioimlab_segmentation_v1/test"]["mask_ap"] <= 1
    assert len((house / "benchmarks/results/segmentation.csv").read_text().splitlines()) == 3
    card = (house / "chromozoo/models/segmenters/chr_fast.md").read_text()
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
        read_recipe(path)
    path.write_text("model: {}\n")
    with pytest.raises(ChromozooError, match=r"chrnet9_bioimlab\.yaml.*chrnet4"):
        read_recipe(path)


def test_benchmark_refuses_a_missing_folder(tmp_path: Path, capsys) -> None:
    status = chromozoo(["benchmark", "chrnet4", "--output", str(tmp_path / "no" / "x.csv")])
    assert status == 2
    assert "existing folder" in capsys.readouterr().err


def test_zoo_finds_only_recipes_of_the_zoo() -> None:
    stems = [recipe.stem for recipe in zoo_training.find_recipes(["*"])]
    assert "chrnet4_bioimlab" in stems
    assert stems == [recipe.stem for recipe in zoo_training.find_recipes(["*"])]
    assert not any("strateg" in stem for stem in stems)


def _arguments(module, *words: str):
    import argparse

    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)
