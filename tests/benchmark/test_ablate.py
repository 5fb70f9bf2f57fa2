"""Ablations: what each variant's training config is, and the tables of the results."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.drawn_gband import write_boxes
from helpers.inline_training import train_inline

from chromozoo.benchmark import ablation as ablation_benchmark
from chromozoo.benchmark.publish import KINDS
from chromozoo.benchmark.repository import LEADERBOARD
from chromozoo.cli.main import main as chromozoo
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.training.configs import read_config

NAMES = [path.stem for path in sorted(ablation_benchmark.ABLATIONS.glob("*.yaml"))]


def _value(config: dict, key: str):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("name", NAMES)
def test_variants_differ_in_what_they_name_and_in_nothing_else(name: str) -> None:
    ablation = ablation_benchmark.read_ablation(name)
    assert len(ablation.variants) > 1
    assert all(attributes for _, attributes in ablation.reused.values())
    assert len(set(map(str, ablation.variants.values()))) == len(ablation.variants)
    base = read_config(ablation.base).content
    folders = set()
    for variant, changes in ablation.variants.items():
        config = ablation.config(variant, seed=3, epochs=5)
        for key, value in changes.items():
            assert _value(config, key) == value
        assert config["trainer"]["max_epochs"] == 5
        assert config["seed_everything"] == config["data"]["init_args"]["seed"] == 3
        files = [
            item["init_args"]["filename"]
            for item in config["trainer"]["callbacks"]
            if "dirpath" in item["init_args"]
        ]
        assert files == ["last"]
        folders.add(ablation.folder(variant, 3, 5))
        # What no variant names is the base's.
        for part in ("model", "data"):
            for key, value in base[part]["init_args"].items():
                if not any(f"{part}.init_args.{key}" in change for change in changes):
                    assert config[part]["init_args"][key] == value
    assert len(folders) == len(ablation.variants)


def test_an_unknown_ablation_is_refused_with_the_known_ones(capsys) -> None:
    with pytest.raises(UnknownNameError, match="straightening"):
        ablation_benchmark.read_ablation("no-such")
    assert chromozoo(["zoo", "ablate", "no-such"]) == 2
    assert "straightening" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"also": ["pki4"]}, "unknown data set 'pki4': did you mean pki3"),
        (
            {"variants": {"a": {}, "b": {"weights_of": "c", "attributes": {}}}},
            "'c', .* those are 'a'",
        ),
        ({"variants": {"a": {}, "b": {"weights_of": "a"}}}, "takes attributes"),
        (
            {"variants": {"a": {}, "b": {"weights_of": "a", "attributes": {}, "data.x": 1}}},
            "takes attributes and nothing else",
        ),
    ],
)
def test_an_ablation_that_cannot_be_measured_is_refused_before_training(
    changes: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"base": "base.yaml", "epochs": 1, "seeds": [0], "variants": {"a": {}}} | changes
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(ablation_benchmark, "ABLATIONS", tmp_path)
    with pytest.raises(ChromozooError, match=message):
        ablation_benchmark.read_ablation("wrong")


def test_an_ablation_trains_measures_and_goes_on(
    tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    base = yaml.safe_load((ablation_benchmark.ABLATIONS / "centre-loss.yaml").read_text())["base"]
    config = read_config(ablation_benchmark.ABLATIONS / base).content
    config["model"]["init_args"]["preset"] = {"height": 32, "width": 32, "scale": 0.3}
    config["data"]["init_args"] |= {"batch_size": 46, "num_workers": 0, "synthetic_cells": 0}
    config["trainer"] |= {"enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    recipe = tmp_path / Path(base).name
    recipe.write_text(yaml.safe_dump(config))
    ablations = tmp_path / "ablations"
    ablations.mkdir()
    (ablations / "tiny.yaml").write_text(
        yaml.safe_dump(
            {
                "base": f"../{recipe.name}",
                "epochs": 1,
                "seeds": [0],
                "variants": {"wen": {"model.init_args.centre_loss": "wen"}},
            }
        )
    )
    monkeypatch.setattr(ablation_benchmark, "ABLATIONS", ablations)
    calls = train_inline(monkeypatch)
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results.csv"
    words = ["zoo", "ablate", "tiny", "--root", str(tiny_bioimlab), "--output", str(results)]
    assert chromozoo(words) == 0
    rows = ablation_benchmark.read_rows(results)
    (row,) = rows
    assert row["variant"] == "wen"
    assert 0 <= float(row["accuracy"]) <= 1
    assert row["accuracy_low"] == ""  # one cell has no interval
    assert row["n_chromosomes"] == "46"
    shown = capsys.readouterr().out
    assert len(calls) == 1
    assert "| wen |" in shown

    # Nothing is trained twice, and no row doubles.
    assert chromozoo(words) == 0
    assert len(calls) == 1
    assert ablation_benchmark.read_rows(results) == rows


def test_weights_are_measured_elsewhere_and_in_another_way(
    tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Without training: the checkpoint of an untrained network stands for a finished run."""
    import torch

    from chromozoo.models.registry import get_model

    base = ablation_benchmark.ABLATIONS.parent / "classification" / "timm_backbone_bioimlab.yaml"
    content = {
        "base": str(base),
        "epochs": 1,
        "seeds": [0],
        "also": ["cil54816-crops"],
        "variants": {
            "one look": {"weights_of": "four looks", "attributes": {"flip_average": False}},
            "four looks": {},
        },
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(ablation_benchmark, "ABLATIONS", tmp_path)
    monkeypatch.setattr(ablation_benchmark, "RUNS", tmp_path)
    root = tmp_path / "data"
    root.mkdir()
    write_boxes(root / "gband-cil54816")
    (root / tiny_bioimlab.name).symlink_to(tiny_bioimlab)
    torch.manual_seed(0)
    preset = {"height": 32, "width": 32, "scale": 0.3, "stretch": False}
    model = get_model("timm_backbone", weights=None, backbone="resnet10t", preset=preset)
    folder = ablation_benchmark.read_ablation("tiny").folder("four looks", 0, 1)
    folder.mkdir(parents=True)
    torch.save(
        {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)},
        folder / "last.ckpt",
    )
    (folder / "finished").touch()
    seen = []
    classified = ablation_benchmark._classified

    def spy(model: Any, data: Any) -> dict[str, Any]:
        seen.append((model.flip_average, data.dataset_class.dataset_name, data.preset.stretch))
        return classified(model, data)

    monkeypatch.setattr(ablation_benchmark, "_classified", spy)
    results = tmp_path / "results.csv"
    words = ["zoo", "ablate", "tiny", "--root", str(root), "--output", str(results)]
    assert chromozoo(words) == 0
    # The images are prepared as the model's own were, and nothing else differs.
    assert seen == [
        (True, "bioimlab", False),
        (True, "cil54816-crops", False),
        (False, "bioimlab", False),
        (False, "cil54816-crops", False),
    ]
    rows = ablation_benchmark.read_rows(results)
    assert [(row["variant"], row["split"], row["n_chromosomes"]) for row in rows] == [
        ("four looks", "bioimlab_v1/val", "46"),
        ("four looks", "cil54816_v1/val", "4"),
        ("one look", "bioimlab_v1/val", "46"),
        ("one look", "cil54816_v1/val", "4"),
    ]
    header, _, *lines = ablation_benchmark.table(rows, "tiny").splitlines()
    assert header.endswith(
        "| bioimlab_v1/val, per chromosome (%) | bioimlab_v1/val, with assignment (%) "
        "| cil54816_v1/val, per chromosome (%) | cil54816_v1/val, with assignment (%) |"
    )
    assert [line.split(" | ")[0] for line in lines] == ["| four looks", "| one look"]

    content["variants"]["one look"]["attributes"] = {"flip_avarage": False}  # type: ignore[index]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    assert chromozoo(words) == 2
    assert "no attribute 'flip_avarage'" in capsys.readouterr().err


def test_a_segmenter_is_measured_by_its_outlines(
    tiny_metaphases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without training: the checkpoint of an untrained network stands for a finished run."""
    import torch

    from chromozoo.models.registry import get_model

    monkeypatch.setattr(ablation_benchmark, "RUNS", tmp_path)
    ablation = ablation_benchmark.read_ablation("cut-and-paste")
    torch.manual_seed(0)
    model = get_model("chr_fast", weights=None)
    for variant in ablation.variants:
        folder = ablation.folder(variant, 0, ablation.epochs)
        folder.mkdir(parents=True)
        torch.save(
            {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)},
            folder / "last.ckpt",
        )
        (folder / "finished").touch()
    results = tmp_path / "results.csv"
    words = [
        "zoo",
        "ablate",
        "cut-and-paste",
        "--root",
        str(tiny_metaphases),
        "--output",
        str(results),
    ]
    assert chromozoo(words) == 0
    rows = ablation_benchmark.read_rows(results)
    assert [row["variant"] for row in rows] == list(ablation.variants)
    for row in rows:
        assert row["accuracy"] == ""
        assert 0 <= float(row["mask_ap"]) <= 1
        assert int(row["n_images"]) > 0
    shown = ablation_benchmark.table(rows, "cut-and-paste")
    assert "| mask AP |" in shown
    assert "per chromosome" not in shown


def test_a_table_gives_the_mean_of_the_seeds() -> None:
    row = dict.fromkeys(ablation_benchmark.COLUMNS, "0.5") | {
        "ablation": "a",
        "variant": "v",
        "seed": "0",
    }
    other = row | {"seed": "1", "accuracy": "0.7"}
    assert "| 0, 1 | 60.00 (50.00, 70.00) |" in ablation_benchmark.table([row, other], "a")
    assert "| 0 | 50.00 [50.0, 50.0] |" in ablation_benchmark.table([row], "a")


def test_a_table_of_two_data_sets_has_columns_of_each() -> None:
    row = dict.fromkeys(ablation_benchmark.COLUMNS, "") | {
        "ablation": "a",
        "variant": "v",
        "seed": "0",
    }
    here = row | {"split": "b/val", "accuracy": "0.9"}
    there = row | {"split": "a/val", "accuracy": "0.4", "assigned_accuracy": "0.6"}
    seeds = [here | {"seed": "1"}, there | {"seed": "1", "accuracy": "0.6"}]
    only_here = here | {"variant": "w"}
    header, rule, both, alone = ablation_benchmark.table(
        [here, there, *seeds, only_here], "a"
    ).splitlines()
    assert header.endswith(
        "| seeds | b/val, per chromosome (%) | a/val, per chromosome (%) "
        "| a/val, with assignment (%) |"
    )
    assert header.count("|") == rule.count("|")
    assert both.endswith(
        "| 0, 1 | 90.00 (90.00, 90.00) | 50.00 (40.00, 60.00) | 60.00 (60.00, 60.00) |"
    )
    assert alone.endswith("| 0 | 90.00 | – | – |")


def test_the_tables_shown_are_those_of_the_csv() -> None:
    from chromozoo.benchmark.tables.markdown import table_is_current

    kind = KINDS["ablations"]
    assert table_is_current(LEADERBOARD, "ablations", kind.tables["ablations"]())
