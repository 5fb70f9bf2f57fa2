"""Cells for models that see all chromosomes of a cell together: real ones, and composed ones.

A few hundred training cells are few, and nearly all of them are normal. From their chromosomes as
many others are composed as are wanted: of chromosomes of several cells, with some gained or lost,
or incomplete, as metaphases come out of a segmentation.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from chromozoo.data.base.crops import CropDataset
from chromozoo.images import augment


@dataclass(frozen=True)
class Composition:
    """What is made of a real cell; each share is 0..1.

    Attributes:
        mixed: Share of the cells in which every other chromosome is one of the same class of
            another cell.
        losses: Share that lose 1 to 3 chromosomes.
        gains: Share that gain 1 or 2 of any class, of other cells.
        incomplete: Share of which only some are left, any number from 1 on.
    """

    mixed: float = 0.5
    losses: float = 0.2
    gains: float = 0.2
    incomplete: float = 0.2

    def __post_init__(self) -> None:
        shares = (self.losses, self.gains, self.incomplete)
        if min(self.mixed, *shares) < 0 or self.mixed > 1 or sum(shares) > 1:
            raise ValueError(
                f"{self}: shares are 0 to 1, and losses, gains and incomplete together at most 1"
            )

    def draw(
        self, cell: NDArray[np.int64], labels: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Rows of a composed cell.

        Args:
            cell: Rows of a real one.
            labels: ``(N,)`` class indices of all training chromosomes.
            rng: Draws.
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
    """As many composed cells as there are real ones, other ones in every epoch.

    An item is a batch of :class:`CropDataset` items, the chromosomes of one cell: ``image``
    ``(n, channels, H, W)``, and ``label``, ``index``, ``upright`` ``(n,)``. What the augmentation
    changes in scale is changed in the whole cell alike, or their sizes would no longer tell them
    apart.

    Args:
        crops: Of the training cells, not augmented.
        composition: What is made of each.
        augmentation: Arguments of :func:`chromozoo.images.augment.training_augmentation`, or None.
        seed: Of the composition and the augmentation.
    """

    # Of the cell's scale, what is left to each of its chromosomes.
    OWN_SCALE = 0.03

    def __init__(
        self,
        crops: CropDataset,
        composition: Composition,
        augmentation: dict[str, Any] | None,
        seed: int,
    ) -> None:
        self.crops = crops
        self.composition = composition
        self.augmentation_arguments = augmentation
        self.seed = seed
        self.rows = [np.flatnonzero(crops.cells == cell) for cell in np.unique(crops.cells)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        rows = self.composition.draw(self.rows[index], self.crops.labels, rng)
        crops = copy.copy(self.crops)
        crops.augmentation = self._augmentation(rng)
        cell: dict[str, Tensor] = default_collate([crops[int(row)] for row in rows])
        return cell

    def _augmentation(self, rng: np.random.Generator) -> A.Compose | None:
        if self.augmentation_arguments is None:
            return None
        least, largest = self.augmentation_arguments.get("scale", (1.0, 1.0))
        scale = rng.uniform(least, largest)
        own = (scale * (1 - self.OWN_SCALE), scale * (1 + self.OWN_SCALE))
        pipeline = augment.training_augmentation(**self.augmentation_arguments | {"scale": own})
        pipeline.set_random_seed(int(rng.integers(2**31)))
        return pipeline


def join_cells(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """``collate_fn``: the chromosomes of several cells one after another; ``cell`` numbers them."""
    joined = {key: torch.cat([item[key] for item in items]) for key in items[0] if key != "cell"}
    sizes = torch.tensor([len(item["label"]) for item in items])
    return joined | {"cell": torch.arange(len(items)).repeat_interleave(sizes)}


def whole_cells(cells: Iterable[Any], least: int) -> list[list[int]]:
    """Batches of rows that never part a cell, in the order of the cells' first rows.

    Args:
        cells: ``(N,)`` id of the cell of each row.
        least: A batch is full as soon as it has so many rows.
    """
    by_cell: dict[Any, list[int]] = {}
    for row, cell in enumerate(cells):
        by_cell.setdefault(cell, []).append(row)
    batches: list[list[int]] = []
    for rows in by_cell.values():
        if not batches or len(batches[-1]) >= least:
            batches.append([])
        batches[-1] += rows
    return batches
