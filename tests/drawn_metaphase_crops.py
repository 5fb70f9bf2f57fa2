"""Stand-ins for the sets that ``metaphase_crops`` is made of: one drawn cell for each."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_segmenter import Tiny

from chromozoo import registry
from chromozoo.data import bioimlab_segmentation, metaphase_crops, mfish
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


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the metaphases, and the segmenter by connected components."""
    monkeypatch.setattr(metaphase_crops, "true_cells", drawn_cells)
    for module in (bioimlab_segmentation, mfish):
        monkeypatch.setattr(module, "contents_sha256", lambda root: "a" * 64)
    get_model = registry.get_model

    def tiny_or_real(name: str, weights: Any = "DEFAULT", **kwargs: Any) -> Any:
        return Tiny() if name == "chr_fast" else get_model(name, weights, **kwargs)

    monkeypatch.setattr(registry, "get_model", tiny_or_real)
    monkeypatch.setattr(metaphase_crops, "LEAST_SCORE", 0.0)
