"""The committed splits."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromozoo.classes import CLASSES
from chromozoo.data.bioimlab import FILE_NAME, list_files
from chromozoo.data.splits import STAGES, load_split
from chromozoo.errors import UnknownNameError

OFFICIAL_TEST_IMAGES = [5, 10, 18, 28, 34, 41, 44, 57, 62, 65, 66, 68, 78, 84, 89, 96]
OFFICIAL_TEST_CELLS = (6, 13, 24, 32, 38, 42, 53, 58, 59, 60, 73, 80, 86, 94)
# Every result row carries this hash: a changed list needs a new file, bioimlab_v2.json.
SHA256 = "f19c674e4e5fa3f6f8a1c34f8df2f5d2a1b1f36cc7245e16c52c8cf409496731"
SEGMENTATION_SHA256 = "eca5c1642888e1bad7916dbf70b8180ea3d9c42b226a09162af6e4978ffd4eb4"


def test_bioimlab_sizes_and_test_cells() -> None:
    split = load_split("bioimlab_v1")
    assert (len(split.train), len(split.val), len(split.test)) == (83, 10, 14)
    assert split.test == OFFICIAL_TEST_CELLS
    assert len(set(split.train) | set(split.val) | set(split.test)) == 107
    assert split.ids("all") == tuple(sorted(split.train + split.val + split.test))
    assert split.ids("val") == split.val


def test_bioimlab_hash_is_stable() -> None:
    assert load_split("bioimlab_v1").sha256 == SHA256
    assert load_split("bioimlab_v1", fold=2).sha256 == SHA256


def test_folds_are_grouped_and_cover_all_cells_once() -> None:
    folds = [load_split("bioimlab_v1", fold) for fold in range(5)]
    tested = [cell for split in folds for cell in split.test]
    assert len(tested) == len(set(tested)) == 107
    assert set(tested) == set(load_split("bioimlab_v1").ids("all"))
    for number, split in enumerate(folds):
        assert split.name == f"bioimlab_v1/fold{number}"
        assert len(split.ids("all")) == len(set(split.ids("all"))) == 107
        assert set(split.ids("all")) == set(tested)
        assert split.val == folds[(number + 1) % 5].test
        assert abs(len(split.test) - 107 / 5) < 1


@pytest.mark.data
def test_folds_are_stratified(real_data: Path) -> None:
    """Grouped by cell, and all the same by class: a whole cell has two of each autosome.

    Cells differ in X and Y alone. The folds were not drawn by sex, so Y is only near its share:
    8, 11, 5, 8 and 6 males.
    """
    files = list_files(real_data / FILE_NAME)
    counts = np.array(
        [
            np.bincount([f.label for f in files if f.cell in split.test], minlength=len(CLASSES))
            for split in (load_split("bioimlab_v1", fold) for fold in range(5))
        ]
    )
    assert counts.sum() == len(files) == 4922
    cells = np.array([len(load_split("bioimlab_v1", fold).test) for fold in range(5)])
    np.testing.assert_array_equal(counts[:, :22], np.repeat(2 * cells[:, None], 22, axis=1))
    x, y = counts[:, 22], counts[:, 23]
    np.testing.assert_array_equal(x + y, 2 * cells)
    for sex_chromosome in (x, y):
        expected = sex_chromosome.sum() * cells / cells.sum()
        assert np.abs(sex_chromosome - expected).max() < 4


@pytest.mark.parametrize("fold", [-1, 5])
def test_unknown_fold(fold: int) -> None:
    with pytest.raises(UnknownNameError, match=f"folds 0 to 4, not {fold}"):
        load_split("bioimlab_v1", fold)


def test_a_split_without_folds() -> None:
    with pytest.raises(UnknownNameError, match="'bioimlab_segmentation_v1' has no folds"):
        load_split("bioimlab_segmentation_v1", 0)


def test_unknown_split_and_stage() -> None:
    with pytest.raises(UnknownNameError, match=r"'bioimlab_v9'.*bioimlab_v1"):
        load_split("bioimlab_v9")
    with pytest.raises(UnknownNameError, match=r"'training'.*train, val, test, all"):
        load_split("bioimlab_v1").ids("training")


def read_joint_labels(folder: Path) -> dict[str, Any]:
    labels: dict[str, Any] = json.loads((folder / "bioimlab-joint-labels.json").read_text())
    return labels


def test_segmentation_sizes_and_official_test_images() -> None:
    split = load_split("bioimlab_segmentation_v1")
    parts = (split.train, split.val, split.test, split.excluded)
    assert [len(part) for part in parts] == [125, 8, 16, 1]
    assert [int(key) for key in split.test] == OFFICIAL_TEST_IMAGES
    assert len({key for part in parts for key in part}) == 150
    assert all(isinstance(key, str) for key in split.ids("all"))
    assert all(key.isdigit() for key in split.val), "validation: single-image cells"
    # The key without its letter is the number of the cell.
    numbers = [{key.rstrip("abcdefgh") for key in part} for part in parts[:3]]
    assert not numbers[0] & numbers[1] and not numbers[0] & numbers[2]
    assert split.sha256 == SEGMENTATION_SHA256


@pytest.mark.data
def test_segmentation_cells_are_on_one_side(real_data: Path) -> None:
    """Cells are those of the joint labels, which may join images of different numbers."""
    joint = read_joint_labels(real_data)
    cell_of = {key: image["cell"] for key, image in joint["images"].items()}
    split = load_split("bioimlab_segmentation_v1")
    assert {*split.ids("all"), *split.excluded} == set(cell_of)
    assert set(split.test) == set(joint["official_test_images"])
    train, val, test = ({cell_of[key] for key in split.ids(stage)} - {None} for stage in STAGES)
    assert not train & val and not train & test and not val & test
    # Neither task trains on validation or test cells of the other.
    classification = load_split("bioimlab_v1")
    assert not train & {*classification.val, *classification.test}
    assert val <= set(classification.val) and test <= set(classification.test)
    assert cell_of["3"] == cell_of["109"] and cell_of["21"] == cell_of["47a"]


@pytest.mark.data
def test_segmentation_images_are_on_the_same_side(real_data: Path) -> None:
    """Neither task trains on validation or test cells of the other."""
    joint = read_joint_labels(real_data)
    cell_of = {key: image["cell"] for key, image in joint["images"].items()}
    split = load_split("bioimlab_v1")
    test_cells = {cell_of.get(key) for key in joint["official_test_images"]} - {None}
    assert test_cells == set(split.test)
    committed = resources.files("chromozoo.data.splits") / "bioimlab_v1.json"
    images = json.loads(committed.read_text())["segmentation_val_images"]
    assert tuple(images) == load_split("bioimlab_segmentation_v1").val
    assert len(images) == 8
    assert {cell_of[key] for key in images} <= set(split.val)
    assert len({cell_of[key] for key in images}) == 8
