"""Every shipped config trains, tests and predicts in-process on a tiny data set."""

import json
from pathlib import Path

import pytest
import timm
import yaml
from helpers.drawn_gband import pki3_files, write_boxes, write_files
from helpers.drawn_metaphase_crops import stand_in

from chromozoo.cli.train import main
from chromozoo.data import mixed_metaphases
from chromozoo.data.catalogue import TAGS, dataset_of_tag
from chromozoo.data.splits import load_split
from chromozoo.models.registry import list_models, model_info

CONFIGS = Path(__file__).parents[2] / "configs"
# What stands in configs/ablations only changes one of these.
CLASSIFIERS = sorted((CONFIGS / "classification").rglob("*.yaml"))
SEGMENTERS = sorted((CONFIGS / "segmentation").rglob("*.yaml"))
ALL = CLASSIFIERS + SEGMENTERS
SMALL = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.fast_dev_run=2",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--data.init_args.num_workers=0",
    "--data.init_args.batch_size=2",
]


@pytest.mark.parametrize("config", CLASSIFIERS, ids=lambda path: path.stem)
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
    root = tiny_bioimlab
    if config.stem.endswith("_metaphase"):
        stand_in(monkeypatch)
    if config.stem.endswith("_pki3"):
        split = load_split("pki3_v1")
        root = tmp_path / "gband-pki3"
        for ids in (split.train, split.val, split.test):
            write_files(root, pki3_files(ids[0]))
    if config.stem.endswith("_cil"):
        root = write_boxes(tmp_path / "gband-cil54816")
    small = [*SMALL, f"--data.init_args.root={root}"]
    data = yaml.safe_load(config.read_text())["data"]["init_args"]
    whole_cells = data.get("composed") is not None
    trained = main(["fit", f"--config={config}", *small])
    # Of each part of the set there is one cell.
    assert trained.trainer.global_step == (1 if whole_cells else 2)
    assert trained.trainer.callback_metrics["train/loss"].isfinite()
    assert 0 <= trained.trainer.callback_metrics["val/accuracy"] <= 1
    tested = main(["test", f"--config={config}", *small])
    assert 0 <= tested.trainer.callback_metrics["test/accuracy"] <= 1
    main(["predict", f"--config={config}", *small])
    table = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(table) == 1 + (46 if whole_cells else 2 * 2)
    assert table[0].startswith("index,label,probability,1,2,3")


@pytest.mark.parametrize("config", SEGMENTERS, ids=lambda path: path.stem)
def test_segmenter_runs(
    config: Path, tiny_metaphases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    boxes_only = config.stem.endswith("_cil")
    root = tiny_metaphases
    if boxes_only or config.stem.endswith("_metaphase"):
        root = write_boxes(tmp_path / "gband-cil54816")
    if config.stem.endswith("_metaphase"):
        root = tmp_path
        (tmp_path / "bioimlab-segmentation").symlink_to(tiny_metaphases)
        monkeypatch.delitem(mixed_metaphases.SETS, "mfish")
    small = [*SMALL, f"--data.init_args.root={root}", "--data.init_args.crop=96"]
    # An untrained network finds hundreds of chromosomes, and draws every one.
    small += ["--model.init_args.min_score=0.8"]
    trained = main(["fit", f"--config={config}", *small])
    assert trained.trainer.global_step == 2
    assert trained.trainer.callback_metrics["train/loss"].isfinite()
    metric = "val/box_ap" if boxes_only else "val/mask_ap"
    assert 0 <= trained.trainer.callback_metrics[metric] <= 1
    tested = main(["test", f"--config={config}", *small])
    assert 0 <= tested.trainer.callback_metrics["test/box_ap"] <= 1
    main(["predict", f"--config={config}", *small])
    images = json.loads((tmp_path / "predictions.json").read_text())
    assert [image["index"] for image in images] == [0, 1]
    assert all({"bbox", "score", "segmentation"} <= set(one) for one in images[0]["instances"])


@pytest.mark.parametrize("config", ALL, ids=lambda path: path.stem)
def test_name_says_what_it_trains(config: Path) -> None:
    content = yaml.safe_load(config.read_text())
    model, tag = next(
        (name, tag)
        for name in list_models()
        for tag in TAGS
        if config.stem == f"{name}_{tag}" or config.stem.startswith(f"{name}_{tag}_")
    )
    info = model_info(model)
    assert content["model"]["class_path"].rpartition(".")[0] == info.module
    data = dataset_of_tag(tag, info.task)
    assert content["data"]["class_path"].rpartition(".")[0] == data.module
    # The run's folder is where `package` and `train-zoo` look for it.
    folders = [item["init_args"].get("dirpath") for item in content["trainer"]["callbacks"]]
    assert set(folders) - {None} == {f"runs/{config.stem}"}
