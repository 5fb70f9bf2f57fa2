"""Every shipped config trains, tests and predicts in-process on a tiny data set."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import yaml
from drawn_metaphase_crops import stand_in
from PIL import Image

from chromozoo.cli.train import main
from chromozoo.data.catalogue import TAGS, dataset_of_tag
from chromozoo.data.splits import load_split
from chromozoo.registry import list_models, model_info

CONFIGS = Path(__file__).parents[1] / "configs"
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


def write_boxes(folder: Path) -> Path:
    """Drawn metaphases in the layout of CIL:54816: two of each part of the split."""
    folder.mkdir()
    split = load_split("cil54816_v1")
    rng = np.random.default_rng(0)
    for key in (one for stage in ("train", "val", "test") for one in split.ids(stage)[:2]):
        image = rng.integers(225, 255, (128, 160)).astype(np.uint8)
        objects = ""
        for number, (x, y) in enumerate(((20, 20), (90, 40)), start=1):
            image[y : y + 60, x : x + 14] = 90
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + 14, y + 60), strict=True)
            box = "".join(f"<{name}>{value}</{name}>" for name, value in corners)
            objects += f"<object><name>A{number}</name><bndbox>{box}</bndbox></object>"
        Image.fromarray(image).save(folder / f"{key}.jpg")
        size = "<size><width>160</width><height>128</height></size>"
        (folder / f"{key}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return folder


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
    if config.stem.endswith("_metaphase"):
        stand_in(monkeypatch)
    small = [*SMALL, f"--data.init_args.root={tiny_bioimlab}"]
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


@pytest.mark.parametrize("config", SEGMENTERS, ids=lambda path: path.stem)
def test_segmenter_runs(
    config: Path, tiny_metaphases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    boxes_only = config.stem.endswith("_cil")
    root = write_boxes(tmp_path / "gband-cil54816") if boxes_only else tiny_metaphases
    small = [*SMALL, f"--data.init_args.root={root}", "--data.init_args.crop=96"]
    # An untrained network finds hundreds of chromosomes, and draws every one.
    small += ["--model.init_args.least_score=0.8"]
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
