"""Cross-validation: what each fold trains on, and the row of all cells together."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.inline_training import train_inline

from chromozoo.benchmark import cross_validation, lineage
from chromozoo.benchmark.repository import ROOT
from chromozoo.benchmark.tables.classification import leaderboard_markdown, read_results
from chromozoo.cli.main import main as chromozoo
from chromozoo.data.splits import FOLDS, load_split
from chromozoo.errors import ChromozooError
from chromozoo.models.registry import get_model, get_weight
from chromozoo.synthetic import write_bioimlab_layout
from chromozoo.training.configs import read_config
from chromozoo.training.recipe import read_recipe

CONFIG = ROOT / "configs" / "classification" / "timm_backbone_bioimlab.yaml"
PRESET = {"height": 32, "width": 32, "scale": 0.3}


@pytest.fixture
def one_cell_of_each_fold(tmp_path: Path) -> Path:
    folder = tmp_path / "bioimlab-classification"
    cells = [load_split("bioimlab_v1", fold).test[0] for fold in range(FOLDS)]
    write_bioimlab_layout(folder, cells, seed=0)
    return folder


@pytest.fixture
def small_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = read_config(CONFIG).content
    config["model"]["init_args"] |= {"backbone": "resnet10t", "preset": PRESET}
    config["data"]["init_args"] |= {"batch_size": 46, "num_workers": 0, "synthetic_cells": 0}
    config["trainer"] |= {"enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    path = tmp_path / CONFIG.name
    path.write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return path


def test_each_fold_has_its_own_cells_and_its_own_changes() -> None:
    recipe = read_recipe(CONFIG)
    changes = cross_validation.read_changes(
        ["trainer.max_epochs=3", "model.init_args.init_from=runs/fold{fold}/last.ckpt"]
    ) | {"data.init_args.composed": "{mixed: 0.5}", "trainer.callbacks.0.init_args.decay": "0.98"}
    configs = [cross_validation.config_of(recipe, fold, changes) for fold in range(FOLDS)]
    for fold, config in enumerate(configs):
        assert config["data"]["init_args"]["fold"] == fold
        assert config["trainer"]["max_epochs"] == 3
        assert config["data"]["init_args"]["composed"] == {"mixed": 0.5}
        assert config["trainer"]["limit_val_batches"] == 0
        assert config["model"]["init_args"]["init_from"] == f"runs/fold{fold}/last.ckpt"
        assert config["trainer"]["callbacks"][0]["init_args"]["decay"] == 0.98
        kept = [item["init_args"].get("filename") for item in config["trainer"]["callbacks"]]
        assert "last" in kept
        assert "best" not in kept
    assert "fold" not in recipe.content["data"]["init_args"]


@pytest.mark.parametrize(
    "key", ["trainer.callbacks.9.decay", "trainer.callbacks.decay", "seed_everything.x"]
)
def test_a_place_that_the_config_has_not_is_refused(key: str) -> None:
    with pytest.raises(ChromozooError, match=f"{key}: the config has no such place"):
        cross_validation.config_of(read_recipe(CONFIG), 0, {key: "1"})


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ChromozooError, match=r"--set trainer.x=\[1: the value is no YAML"):
        cross_validation.config_of(read_recipe(CONFIG), 0, {"trainer.x": "[1"})


@pytest.mark.parametrize("word", ["trainer.max_epochs", "=3", "data.init_args.fold=2"])
def test_a_change_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(ChromozooError, match="--set"):
        cross_validation.read_changes([word])


def test_a_segmenter_has_no_folds(capsys) -> None:
    config = ROOT / "configs" / "segmentation" / "chr_fast_bioimlab.yaml"
    assert chromozoo(["zoo", "cross-validate", str(config)]) == 2
    assert "trains no classifier" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("origin", "seen"),
    [
        ("chromozoo/chromozoo_small:bioimlab", "chromozoo_small:bioimlab"),
        ("chromozoo/chrnet4", "chrnet4:metaphase"),  # learnt from BioImLab among others
        ("chromozoo/chrnet4:pki3", "chrnet4:pki3"),  # started from the weights above
        ("chromozoo/chromozoo_small:pki3", None),
        ("runs/fold0/last.ckpt", None),
        (None, None),
    ],
)
def test_weights_that_saw_the_cells_are_refused(origin: str | None, seen: str | None) -> None:
    recipe = read_recipe(CONFIG)
    if seen is None:
        lineage.refuse_cells_of_folds(recipe, origin)
        return
    with pytest.raises(ChromozooError, match=f"starts from {origin}, and {seen} learnt"):
        lineage.refuse_cells_of_folds(recipe, origin)


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        # One set of weights and no default: the name alone is enough.
        ("chromozoo/iapp_cnn", "starts from chromozoo/iapp_cnn, and iapp_cnn:bioimlab learnt"),
        ("chromozoo/vanilla_cnn", "vanilla_cnn:bioimlab learnt"),
        ("chromozoo/chrnet4:bioimlap", "unknown weights 'bioimlap' .*did you mean bioimlab"),
        ("chromozoo/chrnet5", "unknown model 'chrnet5': did you mean chrnet4"),
        ("chromozoo/", "unknown model ''"),
        ("chromozoo/resnet50", "'resnet50' has no weights"),
        (5, "init_from is 5"),
        (["chromozoo/chrnet4"], "init_from is "),
    ],
)
def test_weights_that_are_not_there_are_named(origin: Any, said: str) -> None:
    with pytest.raises(ChromozooError, match=said):
        lineage.refuse_cells_of_folds(read_recipe(CONFIG), origin)


def test_an_origin_without_a_lineage_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(get_weight("chromozoo_small", "pki3"), lineage=[])
    monkeypatch.setattr(lineage, "get_weight", lambda *_: entry)
    with pytest.raises(ChromozooError, match="does not record what they learnt from"):
        lineage.refuse_cells_of_folds(read_recipe(CONFIG), "chromozoo/chromozoo_small:pki3")


def test_the_leaderboard_takes_configs_of_the_repository(
    small_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained for rows that would have no place."""
    assert chromozoo(["zoo", "cross-validate", str(small_recipe)]) == 2
    shown = capsys.readouterr().err
    assert str(small_recipe) in shown and "--output FILE.csv" in shown
    assert not Path("runs").exists()


@pytest.mark.parametrize("text", ["model: [", "- a", "model: {}", "model: {}\ndata: 3", "\x00"])
def test_a_config_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / CONFIG.name
    path.write_text(text)
    with pytest.raises(
        ChromozooError, match=f"{CONFIG.name}: (cannot be read as YAML|holds no parts|has no part)"
    ):
        read_recipe(path)


def test_one_fold_is_trained_and_measured(
    small_recipe: Path,
    one_cell_of_each_fold: Path,
    tmp_path: Path,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = train_inline(monkeypatch)
    results = tmp_path / "results.csv"
    words = ["zoo", "cross-validate", str(small_recipe), "--root", str(one_cell_of_each_fold)]
    words += ["--output", str(results), "--folds", "1"]
    assert chromozoo([*words, "--set", "trainer.max_epochs=1"]) == 0
    shown = capsys.readouterr().out
    assert len(calls) == 1
    assert "folds 0, 2, 3, 4 are not measured yet" in shown
    (row,) = read_results(results)
    assert (row["split"], row["n_cells"]) == ("bioimlab_v1/fold1", "1")
    assert "trainer.max_epochs=1" in row["note"]

    # Nothing is trained twice; other values are not taken for the same.
    assert chromozoo([*words, "--set", "trainer.max_epochs=1"]) == 0
    assert len(calls) == 1
    assert read_results(results) == [row]
    assert chromozoo([*words, "--set", "trainer.max_epochs=2"]) == 2
    assert "training with other values" in capsys.readouterr().err


def test_all_cells_make_one_row(
    small_recipe: Path, one_cell_of_each_fold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untrained(config: dict[str, Any], folder: Path, root: str | None = None) -> Path:
        torch.manual_seed(config["data"]["init_args"]["fold"])
        model = get_model("timm_backbone", weights=None, backbone="resnet10t", preset=PRESET)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "last.ckpt"
        parts = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
        torch.save(parts, path)
        return path

    monkeypatch.setattr(cross_validation, "train", untrained)
    results = tmp_path / "results.csv"
    words = ["zoo", "cross-validate", str(small_recipe), "--root", str(one_cell_of_each_fold)]
    assert chromozoo([*words, "--output", str(results)]) == 0
    *folds, together = read_results(results)
    assert [row["split"] for row in folds] == [f"bioimlab_v1/fold{k}" for k in range(FOLDS)]
    assert len({row["weights_sha256"] for row in (*folds, together)}) == FOLDS + 1
    assert together["split"] == "bioimlab_v1/folds"
    assert (together["n_cells"], together["n_chromosomes"]) == (str(FOLDS), str(46 * FOLDS))
    right = [float(row["accuracy"]) for row in folds]
    assert float(together["accuracy"]) == pytest.approx(sum(right) / FOLDS, abs=1e-4)
    assert float(together["accuracy_low"]) <= float(together["accuracy"])
    table = leaderboard_markdown(read_results(results), split="bioimlab_v1/folds")
    assert "230 chromosomes of 5 cells" in table
    assert "trained without it" in table

    # numpy 2.0 and 2.1 would have taken any other argument for one more array.
    for fold in range(FOLDS):
        with np.load(tmp_path / f"runs/folds/{small_recipe.stem}/fold{fold}/test.npz") as stored:
            assert set(stored.files) == {"probabilities", "targets", "cells"}
    assert {row["weights"] for row in (*folds, together)} == {"bioimlab"}

    # A cell that two folds tested would be counted twice.
    runs = tmp_path / "runs" / "folds" / small_recipe.stem
    (runs / "fold1" / "test.npz").write_bytes((runs / "fold0" / "test.npz").read_bytes())
    assert json.loads((runs / "fold1" / "row.json").read_text())["n_cells"] == 1
    with pytest.raises(ChromozooError, match="tested in two folds"):
        cross_validation.all_folds(read_recipe(small_recipe))
