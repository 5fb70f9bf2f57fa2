"""Metaphases with outlines and metaphases with boxes in one data set."""

from pathlib import Path

import pytest
from helpers.drawn_gband import write_boxes

from chromozoo.data import mixed_metaphases
from chromozoo.data.mixed_metaphases import REPEATS, MixedMetaphasesDataModule
from chromozoo.data.splits import STAGES, load_split


@pytest.fixture
def data(
    tiny_metaphases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MixedMetaphasesDataModule:
    write_boxes(tmp_path / "gband-cil54816")
    (tmp_path / "bioimlab-segmentation").symlink_to(tiny_metaphases)
    monkeypatch.delitem(mixed_metaphases.SETS, "mfish")
    return MixedMetaphasesDataModule(
        tmp_path, crop=96, samples_per_epoch=24, num_workers=0, preset={"typical_width": 0}
    )


def test_images_with_outlines_have_larger_weights(data: MixedMetaphasesDataModule) -> None:
    keys = data.training_keys()
    assert {key.partition(" ")[0] for key in keys} == {"bioimlab", "cil"}
    for key in set(keys):
        assert keys.count(key) == REPEATS[key.partition(" ")[0]]


def test_targets_have_masks_where_they_are_known(data: MixedMetaphasesDataModule) -> None:
    targets = [target for batch in data.train_dataloader() for target in batch["target"]]
    with_masks = [target for target in targets if "masks" in target]
    assert 0 < len(with_masks) < len(targets)
    assert all(len(target["masks"]) == len(target["boxes"]) for target in with_masks)


def test_validation_and_test_images_have_masks(data: MixedMetaphasesDataModule) -> None:
    for batch in (*data.val_dataloader(), *data.test_dataloader()):
        assert all("masks" in target for target in batch["target"])


def test_composed_crops_use_outlined_chromosomes_only(data: MixedMetaphasesDataModule) -> None:
    outlined = [key for key in data.keys("train") if key.startswith("bioimlab")]
    most = sum(len(data.images[key].polygons) for key in outlined)
    assert 0 < len(data.bank().chromosomes) <= most


def test_the_split_follows_those_of_its_sets() -> None:
    split = load_split(mixed_metaphases.SPLIT)
    for prefix, name in (
        ("bioimlab", "bioimlab_segmentation_v1"),
        ("mfish", "mfish_v1"),
        ("cil", "cil54816_v1"),
    ):
        theirs = load_split(name)
        for stage in STAGES:
            ids = {one for one in split.ids(stage) if one.startswith(f"{prefix} ")}
            wanted = {f"{prefix} {one}" for one in theirs.ids(stage)}
            assert ids == (wanted if stage == "train" or prefix != "cil" else set())
