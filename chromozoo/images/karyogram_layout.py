"""Layout of arranged karyograms: finds the rows and assigns a class to each chromosome.

The second step of :mod:`chromozoo.images.karyogram_extract`. Rows are separated by blank lines.
Within a row the widest gaps separate the classes, and two chromosomes of each class are expected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import AUTOSOMES, CLASSES, SEX_CHROMOSOMES
from chromozoo.errors import ImageError
from chromozoo.images.karyogram_ink import (
    INK_DENSITY,
    Component,
    join_arms,
    list_components,
    noise_error,
)

# The classes of each row from left to right.
LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "denver": (AUTOSOMES[:5], AUTOSOMES[5:12], AUTOSOMES[12:18], AUTOSOMES[18:] + SEX_CHROMOSOMES)
}
# In percent of the haploid autosomes (Paris Conference 1971), in the order of `CLASSES`.
_LENGTHS = """
8.44 8.02 6.83 6.30 6.08 5.90 5.36 4.93 4.80 4.59 4.61 4.66
3.74 3.56 3.46 3.36 3.25 2.93 2.67 2.56 1.90 2.04 5.12 2.15
"""
RELATIVE_LENGTHS = dict(zip(CLASSES, map(float, _LENGTHS.split()), strict=True))

# Smallest area of a chromosome, as a fraction of the 90th percentile of the areas. Number 21 has a
# fifth of the length of number 1.
MIN_AREA = 0.07
# Smallest height of the tallest chromosome of a row, as a fraction of the tallest of all. The last
# row has an X, which has half of that height.
MIN_ROW_HEIGHT = 0.3
# Smallest ratio of the areas of two homologues: smaller ratios were not seen in 4,500 pairs of
# Pki-3.
MIN_AREA_RATIO = 0.6
# Smallest ratio of height to width of an X that is not bent. Two chromosomes that touch are wider.
MIN_X_ASPECT = 1.5
# Smallest height of each of two touching homologues, as a fraction of their common height.
MIN_HALF_HEIGHT = 0.6
# Gains and losses in one row; more are taken for an error of the extraction.
MAX_DEVIATIONS = 2
# A row with gains or losses is read only where each gap between two classes is wider than all gaps
# within a class by this factor.
MIN_GAP_RATIO = 1.25
# Components between two blank lines: a row has at most 15.
MAX_IN_ROW = 100

# Deviation of a number of X and Y from a normal one.
_SEX_DEVIATIONS: dict[tuple[int, ...], int] = {
    (2, 0): 0,
    (1, 1): 0,
    (1, 0): 1,
    (3, 0): 1,
    (2, 1): 1,
    (1, 2): 1,
}


def unit_area(rows: Sequence[Sequence[Component]]) -> float:
    """Return the area in pixels of one percent of ``RELATIVE_LENGTHS``.

    It follows from the ink of the whole image and does not depend on how the rows are divided.
    """
    return sum(one.area for row in rows for one in row) / sum(
        RELATIVE_LENGTHS[label] * (2 if label in AUTOSOMES else 1) for label in CLASSES
    )


def find_rows(
    labels: NDArray[np.int32], thickness: float, layout: str, name: str
) -> list[list[Component]]:
    """Find the chromosomes of each row.

    Args:
        labels: Label image ``(H, W)``; components that are no chromosomes are removed in place.
        thickness: Median half thickness of the chromosomes in pixels.
        layout: One of ``LAYOUTS``.
        name: Name of the image in errors.

    Returns:
        The rows from top to bottom, each from left to right.

    Raises:
        ImageError: The number of rows is not that of the layout, or the image shows noise.
    """
    edges = np.flatnonzero(np.diff(np.pad((labels > 0).any(axis=1), 1).astype(np.int8)))
    found = []
    for top, end in edges.reshape(-1, 2).tolist():
        if (number := len(list_components(labels[top:end], top))) > MAX_IN_ROW:
            raise noise_error(name, f"{number} components as thick as a chromosome in one row")
        found.append(join_arms(labels[top:end], top, thickness))
    tallest = max((one.height for row in found for one in row), default=0)
    area = np.percentile([one.area for row in found for one in row] or [0], 90)
    # Letters as thick as a chromosome form rows of their own, and these are low.
    found = [
        [one for one in row if one.area > MIN_AREA * area]
        for row in found
        if max((one.height for one in row), default=0) > MIN_ROW_HEIGHT * tallest
    ]
    labels[~np.isin(labels, [one.number for row in found for one in row])] = 0
    rows = LAYOUTS[layout]
    if len(found) == len(rows):
        return found
    if not found:
        raise ImageError(f"{name}: no chromosomes found; is it a karyogram?")
    counts = ", ".join(str(len(row)) for row in found)
    normal = ", ".join(str(2 * len(classes) - 2 * ("Y" in classes)) for classes in rows)
    raise ImageError(
        f"{name}: found {len(found)} rows with {counts} chromosomes; the {layout} layout has "
        f"{len(rows)} rows with {normal}. Is it another layout?"
    )


@dataclass(frozen=True)
class RowLayout:
    """The expected content of one row.

    Attributes:
        name: Name of the row in errors.
        layout: Its layout, one of ``LAYOUTS``.
        classes: Its classes from left to right.
        unit: Area in pixels of one percent of ``RELATIVE_LENGTHS``.
        thickness: Median half thickness of the chromosomes in pixels.
    """

    name: str
    layout: str
    classes: Sequence[str]
    unit: float
    thickness: float

    def may_be_two(self, one: Component) -> bool:
        """Return whether a component may be two chromosomes that touch.

        It is then larger than the largest class of the row, or wider than tall.
        """
        percent = one.area / self.unit
        if "X" in self.classes and one.height > MIN_X_ASPECT * one.width:
            return percent > math.sqrt(2) * RELATIVE_LENGTHS["X"]
        return percent > self._largest or one.width > one.height

    def is_x(self, one: Component) -> bool:
        """Return whether a component is nearer to an X than to the largest of its neighbours."""
        if "X" not in self.classes:
            return False
        return one.area / self.unit > math.sqrt(self._largest * RELATIVE_LENGTHS["X"])

    @property
    def _largest(self) -> float:
        return max(RELATIVE_LENGTHS[label] for label in self.classes if label != "X")


def divide_row(
    labels: NDArray[np.int32], found: list[Component], row: RowLayout, density: NDArray[np.float32]
) -> list[list[Component]]:
    """Divide the chromosomes of a row among its classes.

    Where the count is not normal, neighbours that touch are separated.

    Args:
        labels: Label image ``(H, W)``; separated neighbours get new labels in place.
        found: The chromosomes of the row from left to right.
        row: Its expected content.
        density: ``(H, W)`` density of the ink.

    Returns:
        The copies of each class of the row.

    Raises:
        ImageError: The counts do not fit the classes, the gaps do not tell the classes apart, or
            two chromosomes touch and cannot be separated.
    """
    sizes, deviations, fault = _count_copies(found, row)
    # Separating adds chromosomes.
    is_few = len(found) < 2 * len(row.classes) + MAX_DEVIATIONS
    touching = [one for one in found if deviations and is_few and row.may_be_two(one)]
    if touching:
        separated = labels.copy()
        for one in touching:
            _separate(separated, one, density, row.thickness)
        top, end = min(one.top for one in found), max(one.bottom for one in found)
        halves = list_components(separated[top:end], top)
        half_sizes, half_deviations, half_fault = _count_copies(halves, row)
        if half_deviations < deviations:
            labels[:] = separated
            found, sizes, deviations, fault = halves, half_sizes, half_deviations, half_fault
    if fault:
        raise ImageError(fault)
    ends = np.cumsum(sizes).tolist()
    copies = [found[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    units = [
        [one.area / RELATIVE_LENGTHS[label] for one in group]
        for label, group in zip(row.classes, copies, strict=True)
    ]
    typical = float(np.median([unit for group in units for unit in group]))
    for label, group, own_units in zip(row.classes, copies, units, strict=True):
        # Small chromosomes have less area than their length says, so the row's own median is the
        # measure for all classes but the X.
        max_unit = math.sqrt(2) * (row.unit if label == "X" else typical)
        if deviations and len(group) == 1 and own_units[0] > max_unit:
            raise ImageError(
                f"{row.name}: two chromosomes seem to touch at x {group[0].left}, y "
                f"{group[0].top} and cannot be separated; move them apart"
            )
    return copies


def _count_copies(found: list[Component], row: RowLayout) -> tuple[tuple[int, ...], int, str]:
    """Count the copies of each class.

    The widest gaps separate the classes; two copies of similar size are normal. X and Y are told
    apart by size. Where the count is not normal, the gaps alone decide which class gained or lost a
    copy, and they must do so clearly. Classes without a copy cannot be recognised.

    Returns:
        Number of copies of each class, number of gains and losses, and an error message, empty
        where the counts are certain.
    """
    gaps = np.array([b.left - a.right for a, b in pairwise(found)], float)
    areas = np.array([one.area for one in found])
    is_x = [row.is_x(one) for one in found]
    autosomes = sum(label in AUTOSOMES for label in row.classes)
    sexes = _SEX_DEVIATIONS if "X" in row.classes else {(): 0}
    best: tuple[float, int, tuple[int, ...]] = (-np.inf, MAX_DEVIATIONS + 1, ())
    edges: list[int] = []
    for sizes, (sex, odd) in product(product((1, 2, 3), repeat=autosomes), sexes.items()):
        deviations = odd + sum(abs(size - 2) for size in sizes)
        if sum(sizes) + sum(sex) != len(found) or deviations > MAX_DEVIATIONS:
            continue
        labels = np.repeat(row.classes, (*sizes, *sex))
        if ((labels == "X") != is_x).any() or any(
            min(group) < MIN_AREA_RATIO * max(group)
            for group in (areas[labels == label] for label in row.classes)
            if len(group)
        ):
            continue
        between = np.flatnonzero(labels[1:] != labels[:-1])
        # A gain or a loss must make the gaps wider by the thickness of a chromosome.
        score = float(gaps[between].sum()) / (2 * row.thickness) - deviations
        if score > best[0]:
            best, edges = (score, deviations, (*sizes, *sex)), between.tolist()
    _, deviations, counts = best
    names = " ".join(row.classes)
    summary = f"{row.name} shows {len(found)} chromosomes"
    if "X" in row.classes:
        summary += f" ({sum(is_x)} of the size of an X)"
    within = np.delete(gaps, edges)
    if not counts:
        fault = (
            f"{summary}, which do not fit {names} of the {row.layout} layout with at most "
            f"{MAX_DEVIATIONS} gained or lost; do chromosomes touch, or is it another layout?"
        )
    elif deviations and within.size and gaps[edges].min() <= MIN_GAP_RATIO * max(within.max(), 0):
        deviations = MAX_DEVIATIONS + 1
        fault = (
            f"{summary}, and the gaps between them do not tell which class of {names} has more or "
            "less than two; move its copies together, apart from their neighbours"
        )
    else:
        fault = ""
    return counts, deviations, fault


def _separate(
    labels: NDArray[np.int32], one: Component, density: NDArray[np.float32], thickness: float
) -> None:
    """Separate two homologues that touch side by side, in place, where the ink is palest."""
    window = np.s_[one.top : one.bottom, one.left : one.right]
    mask = labels[window] == one.number
    for share, level in product((0.2, 0.4, 0.6), np.arange(INK_DENSITY, 0.7, 0.04)):
        size = 2 * max(1, round(share * thickness)) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        dark = (mask & (density[window] > level)).astype(np.uint8)
        _, parts = cv2.connectedComponents(cv2.morphologyEx(dark, cv2.MORPH_OPEN, disc))
        part_labels = np.asarray(parts, np.int32)
        sides = [
            side
            for side in join_arms(part_labels, 0, thickness)
            if side.height > MIN_HALF_HEIGHT * one.height
        ]
        if len(sides) == 2 and 0.5 < sides[0].area / sides[1].area < 2:
            first, second = (
                cv2.distanceTransform((part_labels != side.number).astype(np.uint8), cv2.DIST_L2, 5)
                for side in sides
            )
            labels[window][mask & (second < first)] = labels.max() + 1
            return
