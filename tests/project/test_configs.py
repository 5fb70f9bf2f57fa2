"""Every shipped config builds its model and data; one of each kind trains, tests and predicts."""

import json
from pathlib import Path

import pytest
import timm
import yaml
from helpers.drawn_gband import pki3_files, write_boxes, write_files
from helpers.drawn_metaphase_crops import stand_in
from lightning import LightningDataModule, LightningModule

from chromozoo.data import mixed_metaphases
from chromozoo.data.catalogue import TAGS, dataset_of_tag
from chromozoo.data.splits import load_split
from chromozoo.errors import ChromozooError
from chromozoo.models.registry import list_models, model_info
from chromozoo.training.command import TrainingCLI, main
from chromozoo.training.configs import TrainingConfig, config_arguments, read_config

CONFIGS = Path(__file__).parents[2] / "configs"
# What stands in configs/ablations only changes one of these.
CLASSIFIERS = sorted((CONFIGS / "classification").rglob("*.yaml"))
SEGMENTERS = sorted((CONFIGS / "segmentation").rglob("*.yaml"))
ALL = CLASSIFIERS + SEGMENTERS
# One config for each data set, kind of batch and kind of network; the others run when `slow` does.
ONE_OF_EACH = {
    *("chrnet4_bioimlab", "chrnet4_metaphase", "chromozoo_small_pki3", "chromozoo_small_cil"),
    *("karyoset_pki3", "mcnn_go_bioimlab", "chrnet4_bioimlab_e"),
    *("chr_fast_bioimlab", "chr_fast_cil", "chr_fast_metaphase", "chr_render_bioimlab"),
}


def of_each_kind(configs: list[Path]) -> list[object]:
    return [
        pytest.param(path, id=path.stem, marks=() if path.stem in ONE_OF_EACH else pytest.mark.slow)
        for path in configs
    ]


def without_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet weights are not at hand: timm's models begin with random numbers."""
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained=False, **kwargs: create(name.split(".")[0], **kwargs),
    )


SMALL = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.fast_dev_run=2",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--data.init_args.num_workers=0",
    "--data.init_args.batch_size=2",
]


@pytest.mark.parametrize("config", of_each_kind(CLASSIFIERS))
def test_runs(
    config: Path, tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_downloads(monkeypatch)
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
    data = read_config(config).content["data"]["init_args"]
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


@pytest.mark.parametrize("config", of_each_kind(SEGMENTERS))
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
    content = read_config(config).content
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
    # The run's folder is where `zoo package` and `zoo train` look for it.
    folders = [item["init_args"].get("dirpath") for item in content["trainer"]["callbacks"]]
    assert set(folders) - {None} == {f"runs/{config.stem}"}


@pytest.mark.parametrize("config", ALL, ids=lambda path: path.stem)
def test_every_config_builds_its_model_and_data(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_downloads(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def write(resolved: TrainingConfig) -> Path:
        (tmp_path / config.name).write_text(yaml.safe_dump(resolved.content))
        return tmp_path / config.name

    built = TrainingCLI(
        model_class=LightningModule,
        datamodule_class=LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        run=False,
        args=config_arguments([f"--config={config}", "--trainer.accelerator=cpu"], write),
    )
    content = read_config(config).content
    assert type(built.model).__name__ == content["model"]["class_path"].rpartition(".")[2]
    assert type(built.datamodule).__name__ == content["data"]["class_path"].rpartition(".")[2]
    assert built.trainer.max_epochs == content["trainer"]["max_epochs"]
    given = {key: value for key, value in content["model"]["init_args"].items() if key != "preset"}
    # A model may leave out what it does not need again, such as where its weights started from.
    stored = {key: value for key, value in built.model.hparams.items() if key in given}
    assert stored and stored == {key: given[key] for key in stored}


def test_leaves_are_short() -> None:
    for config in ALL:
        lines = [
            line
            for line in config.read_text(encoding="utf-8").splitlines()
            if line.strip() and not line.lstrip().startswith("#")
        ]
        assert len(lines) <= 24, config


def write_yaml(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_config_extends_others_key_by_key(tmp_path: Path) -> None:
    callbacks = {"a": {"class_path": "A", "init_args": {"x": 1, "y": 2}}, "b": {"class_path": "B"}}
    base = {
        "trainer": {"max_epochs": 1, "callbacks": callbacks, "logger": "runs/${name}"},
        "data": {"class_path": "Pki3DataModule", "init_args": {"augmentation": {"rotate": 10}}},
    }
    write_yaml(tmp_path / "base.yaml", base)
    write_yaml(tmp_path / "second.yaml", {"trainer": {"max_epochs": 2}, "_base_": "base.yaml"})
    leaf = {
        "_base_": ["base.yaml", "second.yaml"],
        "trainer": {"callbacks": {"a": {"init_args": {"x": 5}}, "b": None}},
        "model": {"class_path": "ChrNet4"},
        "data": {"init_args": {"augmentation": {"flips": False}, "batch_size": 4}},
        "rounds": [{}, {"trainer.max_epochs": 3}],
        "packaging": {"storage": "int8"},
    }
    config = read_config(write_yaml(tmp_path / "leaf.yaml", leaf))
    assert config.content == {
        "trainer": {
            "max_epochs": 2,
            "callbacks": [{"class_path": "A", "init_args": {"x": 5, "y": 2}}],
            "logger": "runs/leaf",
        },
        "model": {"class_path": "chromozoo.models.classifiers.chrnet4.ChrNet4"},
        "data": {
            "class_path": "chromozoo.data.pki3.Pki3DataModule",
            "init_args": {"augmentation": {"rotate": 10, "flips": False}, "batch_size": 4},
        },
    }
    assert config.rounds == ({}, {"trainer.max_epochs": 3})
    assert config.packaging == {"storage": "int8"}

    # How a config is divided into files does not change its hash; what it says does.
    folder = tmp_path / "flat"
    folder.mkdir()
    whole = {**config.content, "rounds": list(config.rounds), "packaging": config.packaging}
    assert read_config(write_yaml(folder / "leaf.yaml", whole)).sha256 == config.sha256
    whole["rounds"] = []
    assert read_config(write_yaml(folder / "leaf.yaml", whole)).sha256 != config.sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"_base_": "none.yaml"}, "none.yaml: no such config"),
        ({"_base_": "leaf.yaml"}, "leads in a circle"),
        ({"model": {"class_path": "ChrNet5"}}, "unknown class 'ChrNet5'; use one of .*ChrNet4"),
        ({"rounds": {}, "packaging": []}, "rounds must be a list"),
        ([1], "holds no parts by name"),
    ],
)
def test_a_config_that_cannot_be_resolved_is_refused(
    content: object, message: str, tmp_path: Path
) -> None:
    if isinstance(content, dict) and content.get("rounds") == {}:
        content = {"rounds": {"a": 1}}
    with pytest.raises(ChromozooError, match=message):
        read_config(write_yaml(tmp_path / "leaf.yaml", content))
