"""Batches of whole cells, real and composed, for models that classify all chromosomes together.

Training sets have a few hundred cells, and nearly all of them are normal. Composed cells mix the
chromosomes of several cells, gain or lose chromosomes, or are incomplete like the results of a
segmentation.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from chromozoo.data.base.chromosome_augmentation import ChromosomeAugmentation
from chromozoo.data.base.crop_dataset import CropDataset


@dataclass(frozen=True)
class Composition:
    """Changes that turn a real cell into a composed one; all are fractions of the cells, 0..1.

    Args:
        mixed: Cells in which every second chromosome on average is replaced by one of the same
            class of another cell.
        losses: Cells that lose 1 to 3 chromosomes.
        gains: Cells that gain 1 or 2 chromosomes of any class from other cells.
        incomplete: Cells that keep any number of their chromosomes, at least one.
    """

    mixed: float = 0.5
    losses: float = 0.2
    gains: float = 0.2
    incomplete: float = 0.2

    def __post_init__(self) -> None:
        changes = (self.losses, self.gains, self.incomplete)
        if min(self.mixed, *changes) < 0 or self.mixed > 1 or sum(changes) > 1:
            raise ValueError(
                f"{self}: give fractions of 0 to 1; losses, gains and incomplete together at most 1"
            )

    def draw_rows(
        self, cell: NDArray[np.int64], labels: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw the rows of a composed cell.

        Args:
            cell: ``(n,)`` rows of a real cell.
            labels: ``(N,)`` class indices of all training chromosomes.
            rng: Random generator.
        """
        rows = cell.copy()
        if rng.random() < self.mixed:
            for place in np.flatnonzero(rng.random(len(rows)) < 0.5):
                rows[place] = rng.choice(np.flatnonzero(labels == labels[rows[place]]))
        kind = rng.random()
        if kind < self.losses:
            kept = max(len(rows) - int(rng.integers(1, 4)), 1)
            rows = rng.permutation(rows)[:kept]
        elif kind < self.losses + self.gains:
            present = np.unique(labels)
            extra = [
                rng.choice(np.flatnonzero(labels == rng.choice(present)))
                for _ in range(rng.integers(1, 3))
            ]
            rows = np.concatenate([rows, extra])
        elif kind < self.losses + self.gains + self.incomplete:
            rows = rng.permutation(rows)[: rng.integers(1, len(rows) + 1)]
        return rows


UNCHANGED = Composition(mixed=0.0, losses=0.0, gains=0.0, incomplete=0.0)


class ComposedCells(Dataset[dict[str, Tensor]]):
    """One composed cell for each real cell; the seed decides which.

    An item is a batch of :class:`CropDataset` items, the chromosomes of one cell: ``image``
    ``(n, channels, H, W)``, and ``label``, ``index``, ``upright`` ``(n,)``. The augmentation scales
    all chromosomes of a cell alike, because their relative sizes tell the classes apart.

    Args:
        crops: The crops of the real cells, not augmented.
        composition: Changes that turn a real cell into a composed one.
        augmentation: Augmentation of the chromosomes, or None.
        seed: Seed of the composition and the augmentation.
    """

    # Largest deviation of a chromosome's scale from that of its cell, relative.
    OWN_SCALE = 0.03

    def __init__(
        self,
        crops: CropDataset,
        composition: Composition,
        augmentation: ChromosomeAugmentation | None,
        seed: int,
    ) -> None:
        self.crops = crops
        self.composition = composition
        self.augmentation = augmentation
        self.seed = seed
        self.rows = [np.flatnonzero(crops.cells == cell) for cell in np.unique(crops.cells)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        rows = self.composition.draw_rows(self.rows[index], self.crops.labels, rng)
        crops = copy.copy(self.crops)
        crops.augmentation = self._draw_pipeline(rng)
        cell: dict[str, Tensor] = default_collate([crops[int(row)] for row in rows])
        return cell

    def _draw_pipeline(self, rng: np.random.Generator) -> A.Compose | None:
        """Draw the scale of a cell and return the augmentation of its chromosomes."""
        if self.augmentation is None:
            return None
        smallest, largest = self.augmentation.scale
        scale = rng.uniform(smallest, largest)
        own = (scale * (1 - self.OWN_SCALE), scale * (1 + self.OWN_SCALE))
        pipeline = replace(self.augmentation, scale=own).pipeline()
        pipeline.set_random_seed(int(rng.integers(2**31)))
        return pipeline


def join_cells(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join the chromosomes of several cells into one batch; ``cell`` numbers the cells."""
    joined = {key: torch.cat([item[key] for item in items]) for key in items[0] if key != "cell"}
    sizes = torch.tensor([len(item["label"]) for item in items])
    return joined | {"cell": torch.arange(len(items)).repeat_interleave(sizes)}


def batch_whole_cells(cells: Iterable[Any], min_rows: int) -> list[list[int]]:
    """Divide rows into batches that never split a cell, in the order of the cells' first rows.

    Args:
        cells: ``(N,)`` id of the cell of each row.
        min_rows: Number of rows from which on a batch is full.
    """
    by_cell: dict[Any, list[int]] = {}
    for row, cell in enumerate(cells):
        by_cell.setdefault(cell, []).append(row)
    batches: list[list[int]] = []
    for rows in by_cell.values():
        if not batches or len(batches[-1]) >= min_rows:
            batches.append([])
        batches[-1] += rows
    return batches
