"""TODO docstring."""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from chromozoo.classes import DIPLOID_NUMBER
from chromozoo.images.levels import Levels
from chromozoo.karyotype.assignment import CellAssignment
from chromozoo.structures.segmentation import Segmentation

# Fewer than this are no cell that could be named as a whole (see `iscn_string` on incomplete ones).
MIN_CELL_CHROMOSOMES = 35


# More than this are two cells in one field, or a polyploid one: groups are looked for.
MAX_CELL_CHROMOSOMES = 60


# Two cells are this much further apart than they are wide (distance of the middles of the groups by
# the mean distance of a chromosome from its own middle).
APART = 2.4


# In a karyogram all stand upright; at random 2 of 9 lean less than this from the vertical.
UPRIGHT_DEGREES, UPRIGHT_SHARE, MIN_UPRIGHT = 20.0, 0.8, 20


# Chromosomes narrower than this show no bands.
MIN_BANDED_WIDTH = 6.0


# Fewer unsaturated pixels than this share, and the bands of the brightest are lost.
SATURATED_SHARE = 0.25


def _flags(
    found: Segmentation,
    cell: CellAssignment | None,
    levels: Levels,
    grey: NDArray[np.float32],
) -> list[str]:
    """What is odd about the cell, and about the image."""
    flags = []
    count = len(found)
    if _is_karyogram(found):
        flags.append("all stand upright in rows: a karyogram, not a metaphase?")
    if count != DIPLOID_NUMBER:
        flags.append(f"{count} chromosomes, not {DIPLOID_NUMBER}")
    if count < MIN_CELL_CHROMOSOMES:
        flags.append("incomplete cell: names rest on single chromosomes, losses mean nothing")
    elif cell is not None and (cell.gains or cell.losses):
        words = [f"+{name}" for name in cell.gains] + [f"-{name}" for name in cell.losses]
        flags.append(f"not a normal set: {', '.join(words)}")
    if count > MAX_CELL_CHROMOSOMES:
        sizes = _groups(found)
        flags.append(
            f"several cells? The chromosomes lie in groups of {sizes[0]} and {sizes[1]}"
            if sizes
            else "several cells in one place, or a polyploid one"
        )
    if 0 < levels.width < MIN_BANDED_WIDTH:
        flags.append(f"chromosomes are {levels.width:.0f} pixels wide: too few to show bands")
    inside = np.zeros(found.shape, bool)
    for crop, (row, column) in zip(found.crops, found.corners, strict=True):
        inside[row : row + crop.shape[0], column : column + crop.shape[1]] |= crop
    values = grey[inside]
    ends = (values == grey.max()) | (values == grey.min())
    if ends.mean() > SATURATED_SHARE:
        flags.append(f"{ends.mean():.0%} of the chromosomes' pixels are saturated")
    return flags


def _is_karyogram(found: Segmentation) -> bool:
    leans = []
    for crop in found.crops:
        points = np.argwhere(crop).astype(np.float64)
        offsets = points - points.mean(axis=0)
        spread, axes = np.linalg.eigh(offsets.T @ offsets)
        if spread[1] > 2.25 * spread[0]:  # half as long again as wide
            leans.append(np.degrees(np.arccos(min(abs(axes[0, 1]), 1.0))))
    if len(leans) < MIN_UPRIGHT:
        return False
    return bool(np.mean(np.array(leans) < UPRIGHT_DEGREES) > UPRIGHT_SHARE)


def _groups(found: Segmentation) -> tuple[int, int] | None:
    """Sizes of two groups of chromosomes that lie apart; None where there is but one."""
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]).astype(np.float64) / 2
    centres, owner = kmeans2(middles, 2, minit="++", seed=0)
    within = np.linalg.norm(middles - centres[owner], axis=1).mean()
    if np.linalg.norm(centres[0] - centres[1]) < APART * within:
        return None
    sizes = np.bincount(owner, minlength=2)
    return int(sizes.max()), int(sizes.min())
