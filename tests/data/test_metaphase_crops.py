"""Metaphase crops: cut by annotated masks and by the detections of a segmenter."""

from pathlib import Path

import numpy as np
import pytest
from helpers.drawn_metaphase_crops import stand_in

from chromozoo.data import metaphase_crops
from chromozoo.data.metaphase_crops import MetaphaseCropsDataModule
from chromozoo.data.splits import load_split


@pytest.fixture
def data(
    tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MetaphaseCropsDataModule:
    stand_in(monkeypatch)
    return MetaphaseCropsDataModule(str(tiny_bioimlab), num_workers=0, cache=str(tmp_path))


def test_single_chromosomes_come_first_then_each_metaphase_twice(
    data: MetaphaseCropsDataModule,
) -> None:
    found = data.prepared
    singles = 3 * 46 + 24
    outlined = 2 * 3 * 2 * 3  # sets, stages, ways, certain chromosomes
    assert len(found.labels) == singles + outlined + 2 * 3
    assert set(found.cells[: 3 * 46]) == {"single 2", "single 7", "single 6"}
    assert found.upright.tolist() == [False] * 138 + [True] * 24 + [False] * (outlined + 6)
    for start in range(singles, singles + outlined, 6):
        assert found.labels[start : start + 6].tolist() == [3, 7, 12] * 2
        by_set, by_segmenter = found.cells[start], found.cells[start + 3]
        assert by_segmenter == f"{by_set}, found"
        crops = found.crops[start : start + 6]
        assert crops.any(axis=(1, 2)).all()
        # The undetected, dim one is cut by its annotated mask twice.
        assert np.array_equal(crops[1], crops[4])


def test_metaphases_with_boxes_are_cut_by_detections(data: MetaphaseCropsDataModule) -> None:
    found = data.prepared
    cells, crops = found.cells[-6:], found.crops[-6:]
    assert [cell[:3] for cell in cells] == ["cil"] * 6
    assert all(cell.endswith(", found") for cell in cells)
    assert found.labels[-6:].tolist() == [3, 7, 12] * 2
    # The undetected one is cut by its box.
    assert crops.any(axis=(1, 2)).all()


def test_prepare_data_runs_the_segmenter_once_and_a_warm_setup_decodes_nothing(
    data: MetaphaseCropsDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.prepare_data()

    def refuse(*_: object) -> None:
        raise AssertionError("run again, although the cache holds the crops")

    monkeypatch.setattr(metaphase_crops, "true_cells", refuse)
    monkeypatch.setattr(metaphase_crops, "_cut_chromosomes", refuse)
    data.setup("fit")
    assert len(data.prepared.labels) == 3 * 46 + 24 + 2 * 3 * 2 * 3 + 2 * 3
    assert len(data.dataset("val")) > 0


def test_validation_and_test_cells_are_metaphases(data: MetaphaseCropsDataModule) -> None:
    for stage in ("val", "test"):
        cells = set(data.dataset(stage).cells)
        assert len(cells) == (5 if stage == "val" else 4)
        assert not any(cell.startswith("single") for cell in cells)
    assert "single 2" in set(data.dataset("train").cells)


def test_the_split_follows_those_of_its_sets() -> None:
    split = load_split(metaphase_crops.SPLIT)
    for prefix, name in (
        ("single", "bioimlab_v1"),
        ("bioimlab", "bioimlab_segmentation_v1"),
        ("mfish", "mfish_v1"),
        ("pki3", "pki3_v1"),
        ("cil", "cil54816_v1"),
    ):
        theirs = load_split(name)
        for stage in ("train", "val", "test"):
            ids = {i.removesuffix(", found") for i in split.ids(stage) if i.startswith(prefix)}
            assert ids <= {f"{prefix} {one}" for one in theirs.ids(stage)}
