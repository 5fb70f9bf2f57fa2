"""Drawn stand-ins for the data sets of ``metaphase_crops``: a few cells for each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chromozoo.data import bioimlab_segmentation, cil54816, metaphase_crops, mfish
from chromozoo.data.base.chromosome_dataset import Chromosomes
from chromozoo.data.splits import load_split
from chromozoo.models import registry
from chromozoo.structures.karyotyped_cell import Boxes, TrueCell
from chromozoo.structures.segmentation import Segmentation
from helpers.tiny_segmenter import Tiny

# y0, y1, x0, x1 of the chromosomes; the second is too dim for the segmenter, and the last has an
# uncertain class.
PLACES = ((10, 50, 10, 22), (10, 40, 40, 52), (60, 90, 10, 24), (60, 84, 50, 62))
LEVELS = (200, 40, 220, 180)
LABELS = (3, 7, 12, -1)


def drawn_cells(dataset: str, stage: str, root: Any) -> Iterator[tuple[NDArray[Any], TrueCell]]:
    """Yield one cell of the split for each data set and stage."""
    prefix = next(key for key, name in metaphase_crops.METAPHASES.items() if name == dataset)
    split = load_split(metaphase_crops.SPLIT)
    # The split has no test images of CIL:54816, which is evaluated as a data set of its own.
    listed = next((i for i in split.ids(stage) if i.startswith(prefix)), f"{prefix} unlisted")
    name = listed.removeprefix(f"{prefix} ").removesuffix(metaphase_crops.FOUND)
    image = np.zeros((100, 80), np.float32)
    masks = np.zeros((4, 100, 80), bool)
    for mask, (top, bottom, left, right), level in zip(masks, PLACES, LEVELS, strict=True):
        mask[top:bottom, left:right] = True
        image[mask] = level
    outlines: Segmentation | Boxes = Segmentation.from_masks(masks)
    if dataset == "cil54816":
        outlines = Boxes(image.shape, np.array([(x0, y0, x1, y1) for y0, y1, x0, x1 in PLACES]))
    yield image, TrueCell(name, outlines, np.array(LABELS))


class DrawnPki3Dataset:
    """A training karyotype of Pki-3: one bar of each class."""

    @staticmethod
    def list_chromosomes(root: Any, cache: Path | None = None) -> Chromosomes:
        split = load_split(metaphase_crops.SPLIT)
        cell = next(name for name in split.train if name.startswith("pki3"))
        bar = np.pad(np.full((40, 12), 200, np.uint8), 8)
        return Chromosomes(
            np.arange(24),
            np.full(24, cell.removeprefix("pki3 ")),
            "b" * 64,
            lambda: ((f"bar {number}", bar) for number in range(24)),
            split,
            np.ones(24, bool),
        )


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the metaphases by drawn ones, and the segmenter by connected components."""
    monkeypatch.setattr(metaphase_crops, "true_cells", drawn_cells)
    monkeypatch.setattr(metaphase_crops, "Pki3Dataset", DrawnPki3Dataset)
    # Any file stands for the archives of the metaphases.
    monkeypatch.setattr(metaphase_crops, "_find_metaphases", lambda root: [Path(__file__)])
    for module in (bioimlab_segmentation, mfish, cil54816):
        monkeypatch.setattr(module, "contents_sha256", lambda root: "a" * 64)
    get_model = registry.get_model

    def tiny_or_real(name: str, weights: Any = "DEFAULT", **kwargs: Any) -> Any:
        return Tiny() if name == "chr_fast" else get_model(name, weights, **kwargs)

    monkeypatch.setattr(registry, "get_model", tiny_or_real)
    monkeypatch.setattr(metaphase_crops, "MIN_SCORE", 0.0)
