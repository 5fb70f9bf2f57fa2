"""Quality flags of cells and images."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from chromozoo.images.levels import Levels, measure_levels
from chromozoo.karyotype.quality import cell_flags
from chromozoo.structures.segmentation import Segmentation


def flags_of(masks: Sequence[np.ndarray] | np.ndarray, grey: np.ndarray | None = None) -> list[str]:
    masks = np.asarray(masks)
    if grey is None:
        # Grey levels that differ within every chromosome, so that none is saturated.
        grey = masks.any(axis=0) * (100 + np.arange(masks.shape[2]) % 50)
    grey = grey.astype(np.float32)
    levels: Levels = measure_levels(grey)
    return cell_flags(Segmentation.from_masks(masks), None, levels, grey)


def bars(n: int, height: int = 30, width: int = 10, gap: int = 6) -> np.ndarray:
    """Return masks of ``n`` bars in rows of 12."""
    rows = -(-n // 12)
    masks = np.zeros((n, rows * (height + gap), 12 * (width + gap)), bool)
    for k in range(n):
        top, left = k // 12 * (height + gap), k % 12 * (width + gap)
        masks[k, top : top + height, left : left + width] = True
    return masks


def test_upright_chromosomes_are_a_karyogram() -> None:
    upright = bars(40)
    assert any("a karyogram, not a metaphase?" in flag for flag in flags_of(upright))
    lying = upright.transpose(0, 2, 1)
    assert not any("karyogram" in flag for flag in flags_of(lying))
    # Too few for a conclusion.
    assert not any("karyogram" in flag for flag in flags_of(bars(19)))


def test_two_groups_are_two_cells() -> None:
    group = bars(40)
    n, height, width = group.shape
    masks = np.zeros((2 * n, height, 5 * width), bool)
    masks[:n, :, :width], masks[n:, :, -width:] = group, group
    (flag,) = [flag for flag in flags_of(masks) if flag.startswith("several cells?")]
    assert flag.endswith("in groups of 40 and 40")
    (flag,) = [flag for flag in flags_of(bars(80)) if "cells" in flag]
    assert flag == "several overlapping cells, or a polyploid one"


def test_the_count_is_flagged() -> None:
    assert "80 chromosomes, not 46" in flags_of(bars(80))
    assert any(flag.startswith("incomplete cell") for flag in flags_of(bars(34)))
    assert flags_of(bars(46).transpose(0, 2, 1)) == []


def test_saturated_and_narrow_chromosomes_are_flagged() -> None:
    masks = bars(46).transpose(0, 2, 1)
    saturated = masks.any(axis=0) * 255
    assert "100% of the chromosomes' pixels are saturated" in flags_of(masks, saturated)
    levels = replace(measure_levels(np.zeros((9, 9), np.float32)), width=4.0)
    grey = (masks.any(axis=0) * (100 + np.arange(masks.shape[2]) % 50)).astype(np.float32)
    flags = cell_flags(Segmentation.from_masks(masks), None, levels, grey)
    assert flags == ["chromosomes are 4 pixels wide: too narrow to show bands"]
