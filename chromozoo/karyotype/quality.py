"""Quality flags: anomalies of a cell or of its image that the user should know."""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from chromozoo.classes import DIPLOID_NUMBER
from chromozoo.images.levels import Levels
from chromozoo.karyotype.assignment import CellAssignment
from chromozoo.structures.segmentation import Segmentation

# With fewer chromosomes the assignment of a cell is meaningless (see `iscn_string` on incomplete
# cells); with more, there are two cells in the image or a polyploid one.
MIN_CELL_CHROMOSOMES, MAX_CELL_CHROMOSOMES = 35, 60
# Two groups of chromosomes are separate cells if the distance of their centres is at least this
# multiple of the mean distance between a chromosome and the centre of its group.
MIN_GROUP_SEPARATION = 2.4
# In a karyogram all chromosomes are upright: at least this share of at least this number of
# elongated ones is tilted by less than this angle. At random 2 of 9 are.
MAX_UPRIGHT_TILT, MIN_UPRIGHT_SHARE, MIN_UPRIGHT_COUNT = 20.0, 0.8, 20
# Ratio of the variances along the two axes of an elongated chromosome: 1.5 times as long as wide.
MIN_ELONGATION = 2.25
# Narrower chromosomes show no bands, in pixels.
MIN_BANDED_WIDTH = 6.0
# With a larger share of saturated chromosome pixels the brightest bands are lost.
MAX_SATURATED_SHARE = 0.25


def cell_flags(
    segmentation: Segmentation,
    cell: CellAssignment | None,
    levels: Levels,
    grey: NDArray[np.float32],
) -> list[str]:
    """Return the anomalies of a cell and of its image.

    Args:
        segmentation: The chromosomes of the cell.
        cell: Their assignment; None if each chromosome was classified alone.
        levels: Grey levels of the image.
        grey: ``(H, W)`` grey image.

    Returns:
        One sentence for each anomaly; empty for a normal cell.
    """
    flags = []
    count = len(segmentation)
    if _looks_like_karyogram(segmentation):
        flags.append("all chromosomes are upright: a karyogram, not a metaphase?")
    if count != DIPLOID_NUMBER:
        flags.append(f"{count} chromosomes, not {DIPLOID_NUMBER}")
    if count < MIN_CELL_CHROMOSOMES:
        flags.append("incomplete cell: gains and losses are not meaningful")
    elif cell is not None and (cell.gains or cell.losses):
        changes = [f"+{name}" for name in cell.gains] + [f"-{name}" for name in cell.losses]
        flags.append(f"not a normal set: {', '.join(changes)}")
    if count > MAX_CELL_CHROMOSOMES:
        sizes = _find_two_groups(segmentation)
        flags.append(
            f"several cells? The chromosomes lie in groups of {sizes[0]} and {sizes[1]}"
            if sizes
            else "several overlapping cells, or a polyploid one"
        )
    if 0 < levels.width < MIN_BANDED_WIDTH:
        flags.append(f"chromosomes are {levels.width:.0f} pixels wide: too narrow to show bands")
    share = _saturated_share(segmentation, grey)
    if share > MAX_SATURATED_SHARE:
        flags.append(f"{share:.0%} of the chromosomes' pixels are saturated")
    return flags


def _saturated_share(segmentation: Segmentation, grey: NDArray[np.float32]) -> float:
    """Return the share of the chromosomes' pixels at the ends of the grey scale."""
    inside = np.zeros(segmentation.shape, bool)
    for crop, (row, column) in zip(segmentation.crops, segmentation.corners, strict=True):
        inside[row : row + crop.shape[0], column : column + crop.shape[1]] |= crop
    values = grey[inside]
    return float(((values == grey.max()) | (values == grey.min())).mean())


def _looks_like_karyogram(segmentation: Segmentation) -> bool:
    """Return whether nearly all elongated chromosomes are upright."""
    tilts = []
    for crop in segmentation.crops:
        points = np.argwhere(crop).astype(np.float64)
        offsets = points - points.mean(axis=0)
        variances, axes = np.linalg.eigh(offsets.T @ offsets)
        if variances[1] > MIN_ELONGATION * variances[0]:
            tilts.append(np.degrees(np.arccos(min(abs(axes[0, 1]), 1.0))))
    if len(tilts) < MIN_UPRIGHT_COUNT:
        return False
    return bool(np.mean(np.array(tilts) < MAX_UPRIGHT_TILT) > MIN_UPRIGHT_SHARE)


def _find_two_groups(segmentation: Segmentation) -> tuple[int, int] | None:
    """Return the sizes of two separate groups of chromosomes; None if there is one group."""
    middles = (segmentation.boxes[:, :2] + segmentation.boxes[:, 2:]).astype(np.float64) / 2
    centres, group = kmeans2(middles, 2, minit="++", seed=0)
    spread = np.linalg.norm(middles - centres[group], axis=1).mean()
    if np.linalg.norm(centres[0] - centres[1]) < MIN_GROUP_SEPARATION * spread:
        return None
    sizes = np.bincount(group, minlength=2)
    return int(sizes.max()), int(sizes.min())
