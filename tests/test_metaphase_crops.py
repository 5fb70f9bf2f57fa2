"""Crops for the karyotyper's classifier: by the set's outlines, and by what a segmenter finds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_segmenter import Tiny

from chromozoo import registry
from chromozoo.data import bioimlab_segmentation, metaphase_crops, mfish
from chromozoo.data.metaphase_crops import MetaphaseCrops
from chromozoo.data.splits import load_split
from chromozoo.karyotyping_metrics import TrueCell
from chromozoo.tasks.segmentation import Segmentation

# y0, y1, x0, x1 of chromosomes; the second is too dim for the segmenter, the last has no class.
PLACES = ((10, 50, 10, 22), (10, 40, 40, 52), (60, 90, 10, 24), (60, 84, 50, 62))
LEVELS = (200, 40, 220, 180)
LABELS = (3, 7, 12, -1)


def drawn_cells(dataset: str, stage: str, root: Any) -> Iterator[tuple[NDArray[Any], TrueCell]]:
    """One cell for each set and stage, which the split knows."""
    prefix = next(key for key, name in metaphase_crops.METAPHASES.items() if name == dataset)
    split = load_split(metaphase_crops.SPLIT)
    name = next(i for i in split.ids(stage) if i.startswith(prefix)).removeprefix(f"{prefix} ")
    image = np.zeros((100, 80), np.float32)
    masks = np.zeros((4, 100, 80), bool)
    for mask, (top, bottom, left, right), level in zip(masks, PLACES, LEVELS, strict=True):
        mask[top:bottom, left:right] = True
        image[mask] = level
    yield image, TrueCell(name, Segmentation.from_masks(masks), np.array(LABELS))


@pytest.fixture
def data(tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetaphaseCrops:
    monkeypatch.setattr(metaphase_crops, "true_cells", drawn_cells)
    for module in (bioimlab_segmentation, mfish):
        monkeypatch.setattr(module, "contents_sha256", lambda root: "a" * 64)

    def tiny(name: str, weights: str) -> Tiny:
        assert (name, weights) == ("chr_fast", "DEFAULT")
        return Tiny()

    monkeypatch.setattr(registry, "get_model", tiny)
    monkeypatch.setattr(metaphase_crops, "LEAST_SCORE", 0.0)
    data = MetaphaseCrops(str(tiny_bioimlab), num_workers=0, cache=str(tmp_path))
    data.setup()
    return data


def test_single_chromosomes_come_first_then_each_metaphase_twice(data: MetaphaseCrops) -> None:
    assert len(data.labels) == 3 * 46 + 2 * 3 * 2 * 3  # sets, stages, ways, certain chromosomes
    assert set(data.cells[: 3 * 46]) == {"single 2", "single 7", "single 6"}
    for start in range(3 * 46, len(data.labels), 6):
        assert data.labels[start : start + 6].tolist() == [3, 7, 12] * 2
        by_set, by_segmenter = data.cells[start], data.cells[start + 3]
        assert by_segmenter == f"{by_set}, found"
        crops = data.crops[start : start + 6]
        assert crops.any(axis=(1, 2)).all()
        # What is too dim to be found is shown by the outline of the set.
        assert np.array_equal(crops[1], crops[4])


def test_metaphases_alone_validate_and_test(data: MetaphaseCrops) -> None:
    for stage in ("val", "test"):
        cells = set(data.dataset(stage).cells)
        assert len(cells) == 4 and not any(cell.startswith("single") for cell in cells)
    assert "single 2" in set(data.dataset("train").cells)


def test_the_split_follows_those_of_its_sets() -> None:
    split = load_split(metaphase_crops.SPLIT)
    for prefix, name in (
        ("single", "bioimlab_v1"),
        ("bioimlab", "bioimlab_segmentation_v1"),
        ("mfish", "mfish_v1"),
    ):
        theirs = load_split(name)
        for stage in ("train", "val", "test"):
            ids = {i.removesuffix(", found") for i in split.ids(stage) if i.startswith(prefix)}
            assert ids <= {f"{prefix} {one}" for one in theirs.ids(stage)}
