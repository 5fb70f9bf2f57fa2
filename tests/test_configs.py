"""Every shipped config trains, tests and predicts in-process on a tiny data set."""

from pathlib import Path

import pytest
import timm
import yaml

from chromozoo.cli.train import main
from chromozoo.data.catalogue import DATASETS
from chromozoo.registry import list_models, model_info

CONFIGS = Path(__file__).parents[1] / "configs"
# What stands in configs/ablations only changes one of these.
ALL = sorted((CONFIGS / "classification").rglob("*.yaml"))


@pytest.mark.parametrize("config", ALL, ids=lambda path: path.stem)
def test_runs(
    config: Path, tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained=False, **kwargs: create(name.split(".")[0], **kwargs),
    )
    monkeypatch.chdir(tmp_path)
    small = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.fast_dev_run=2"]
    small += ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    small += [f"--data.init_args.root={tiny_bioimlab}", "--data.init_args.num_workers=0"]
    small += ["--data.init_args.batch_size=2"]
    trained = main(["fit", f"--config={config}", *small])
    assert trained.trainer.global_step == 2
    assert trained.trainer.callback_metrics["train/loss"].isfinite()
    assert 0 <= trained.trainer.callback_metrics["val/accuracy"] <= 1
    tested = main(["test", f"--config={config}", *small])
    assert 0 <= tested.trainer.callback_metrics["test/accuracy"] <= 1
    main(["predict", f"--config={config}", *small])
    table = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 2
    assert table[0].startswith("index,label,probability,1,2,3")


@pytest.mark.parametrize("config", ALL, ids=lambda path: path.stem)
def test_name_says_what_it_trains(config: Path) -> None:
    content = yaml.safe_load(config.read_text())
    model, dataset = next(
        (name, tag)
        for name in list_models()
        for tag in DATASETS
        if config.stem == f"{name}_{tag}" or config.stem.startswith(f"{name}_{tag}_")
    )
    assert content["model"]["class_path"].rpartition(".")[0] == model_info(model).module
    assert content["data"]["class_path"].rpartition(".")[0] == DATASETS[dataset].module
    # The run's folder is where `package` and `train-zoo` look for it.
    folders = [item["init_args"].get("dirpath") for item in content["trainer"]["callbacks"]]
    assert set(folders) - {None} == {f"runs/{config.stem}"}
