"""The joint labels: counts, and no cell on two sides of the split."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from chromozoo.classes import CLASS_INDEX
from chromozoo.data.joint_labels import joint_labels
from chromozoo.data.splits import load_split

IMAGES = load_split("bioimlab_segmentation_v1")
CELLS = load_split("bioimlab_v1")


def certain(key: str) -> np.ndarray:
    classes = joint_labels()[key].classes
    return classes[classes >= 0]


def cells_of(keys: tuple[str, ...]) -> list[int]:
    return sorted(cell for key in keys if (cell := joint_labels()[key].cell) is not None)


def test_all_images_of_the_split_are_labelled() -> None:
    labels = joint_labels()
    assert set(labels) == set(IMAGES.ids("all")) | set(IMAGES.excluded)
    assert sum(image.n_polygons for image in labels.values()) == 6231
    assert sum(len(certain(key)) for key in labels) == 4442
    assert sum(image.cell is not None for image in labels.values()) == 113
    assert joint_labels() is labels
    with pytest.raises(ValueError, match="read-only"):
        labels["5"].classes[0] = 3


def test_labels_of_one_image() -> None:
    """Polygons of image 100: chromosome 1, X, 6, 3 and 21; the 13th has no certain class."""
    image = joint_labels()["100"]
    assert (image.cell, image.n_polygons) == (98, 47)
    assert image.classes[:5].tolist() == [CLASS_INDEX[name] for name in ("1", "X", "6", "3", "21")]
    assert image.classes[12] == -1
    assert image.classes.dtype == np.int64


def test_class_counts_are_those_of_a_cell() -> None:
    for key, image in joint_labels().items():
        counts = np.bincount(certain(key), minlength=24)
        assert image.classes.min() >= -1 and len(counts) == 24
        assert counts[:22].max() <= 2 and counts[22] <= 2 and counts[23] <= 1, key
        assert counts[22:].sum() <= 2, key
        assert (image.cell is None) == (counts.sum() == 0), key


def test_the_official_test_images() -> None:
    labels = joint_labels()
    assert len(IMAGES.test) == 16
    assert [key for key in IMAGES.test if labels[key].cell is None] == ["10", "68"]
    assert cells_of(IMAGES.test) == list(CELLS.test)
    assert len(CELLS.test) == 14
    assert sum(labels[key].n_polygons for key in IMAGES.test) == 728
    assert sum(len(certain(key)) for key in IMAGES.test) == 615


def test_validation_images_are_of_validation_cells() -> None:
    assert list(IMAGES.val) == ["6", "7", "31", "45", "56", "59", "82", "115"]
    cells = cells_of(IMAGES.val)
    assert len(cells) == 8
    assert set(cells) < set(CELLS.val)


def test_training_images_are_of_training_cells() -> None:
    training = cells_of(IMAGES.train)
    assert set(training) <= set(CELLS.train)
    assert not set(training) & (set(CELLS.val) | set(CELLS.test))
    # The cell of the excluded image is no training cell either.
    assert set(cells_of(IMAGES.excluded)) <= set(CELLS.val)


def test_the_file_states_its_origin_and_has_short_lines() -> None:
    text = (resources.files("chromozoo.data.joint_labels") / "bioimlab_v1.json").read_text()
    assert "not reviewed by a cytogeneticist" in text and "MPL-2.0" in text
    assert max(map(len, text.splitlines())) < 700


@pytest.mark.data
def test_the_polygons_are_those_of_the_real_files(real_data: Path) -> None:
    from chromozoo.data.io.labelme import LabelmeFiles

    files = LabelmeFiles(real_data / "bioimlab-segmentation.zip")
    for key in ("2", "24a", "68", "100", "117c"):
        assert len(files.read(key).polygons) == joint_labels()[key].n_polygons
