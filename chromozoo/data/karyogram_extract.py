"""Cuts the image of an arranged karyogram into chromosomes, each named by the place it stands in.

So Wei et al. 2022 (section 2) made their data set: binarise, open and close, read the class off the
position. They give no figures; all those below are ours. They pad each chromosome to 224x224; here
it keeps its own box, and the preset of a model pads it when it is read.

Whatever is thinner than a chromosome is writing: letters, rulers, brackets and frames go. The rows
are where the rest leaves blank lines between. Within a row the widest gaps part the classes, and
two chromosomes per class are expected. An image in which that leaves a doubt is refused as a
whole, because a wrong name in a data set is worse than a missing chromosome.
"""

import csv
import hashlib
import math
import os
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from chromozoo.classes import AUTOSOMES, CLASSES, SEX_CHROMOSOMES
from chromozoo.data.io.archive import open_archive
from chromozoo.errors import (
    ChromozooError,
    DatasetError,
    ImageError,
    OutputError,
    UnknownNameError,
)
from chromozoo.images.reading import read_bytes, read_grey

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

# Ink departs from the paper by this share of the image's contrast: the palest bands still do.
INK_SHARE = 0.12
MIN_CONTRAST = 0.05
# RGB values that differ by more, of the brightest, are a colour. Where less than half of the ink is
# coloured, the colour is a mark and no stain.
COLOUR_SHARE = 0.15
# A hole of so much of the area around it is a pale band, and no letter's inside.
HOLE_SHARE = 0.05
# A chromosome is at least so thick, of the median thickness in the image, and at least so large,
# of the largest chromosomes'. Number 21 has a fifth of the length of number 1.
MIN_THICKNESS = 0.4
MIN_AREA = 0.07
# The tallest of a row has at least so much of the height of the tallest of all. An X has a half.
MIN_ROW_HEIGHT = 0.3
# No chromosome is wider or taller than this share of the image; dark rims of a scan are.
MAX_SIDE = 0.35
# The smaller of two homologues has at least so much of the larger one's area: less was not seen in
# 4,500 pairs of Pki-3.
MIN_LIKENESS = 0.6
# An X that is not bent is longer than that, of its width; two of its neighbours that touch are not.
LONG = 1.5
# So much wider than tall is a ruler.
FLAT = 3
# Two homologues side by side each have at least so much of their common height.
MIN_SIDE = 0.6
# Gains and losses that one row may show before its count is taken for a fault of the cutting.
MAX_DEVIATIONS = 2
# Such a row is only read where each gap between two classes is so much wider than all within one.
PLAIN = 1.25
# Pixels of paper around a crop.
MARGIN = 4
# More is no karyogram, or noise, and the work grows with its square: pixels (a page at 600 dpi),
# specks of ink, pieces as thick as a chromosome, and those of them between two blank lines. A page
# with rulers, numbers and a title has about 100 pieces, at most 15 in a row.
MAX_PIXELS = 40_000_000
MAX_SPECKS = 50_000
MAX_PIECES = 1000
MAX_IN_ROW = 100

LABELS = "labels.csv"
# Of a folder, in bytes; most file systems take 255.
MAX_NAME_LENGTH = 200
# Colour images become grey between whole levels; from so many levels on these are rounded.
MIN_LEVELS = 128

# How far a number of X and Y is from a normal one.
_SEX_DEVIATIONS: dict[tuple[int, ...], int] = {
    (2, 0): 0,
    (1, 1): 0,
    (1, 0): 1,
    (3, 0): 1,
    (2, 1): 1,
    (1, 2): 1,
}


@dataclass(frozen=True, eq=False)
class KaryogramCrop:
    """One chromosome of a karyogram.

    Attributes:
        label: Its class, one of ``CLASSES``.
        copy: ``'a'`` for the leftmost of its class, then ``'b'``, ...
        box: ``x, y, width, height`` of the crop in pixels of the image.
        image: ``(height, width)`` float32, the image's own grey values in its units. What else of
            the image comes into the box is painted over with the paper's grey.
    """

    label: str
    copy: str
    box: tuple[int, int, int, int]
    image: NDArray[np.float32]


def extract_chromosomes(
    karyogram: NDArray[np.generic], name: str = "karyogram", layout: str = "denver"
) -> list[KaryogramCrop]:
    """Cuts one karyogram into its chromosomes.

    Args:
        karyogram: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` of any type; paper light or dark.
            Coloured writing and frames are left out, also where they are thick.
        name: What errors call it.
        layout: One of ``LAYOUTS``. ``"denver"`` has four rows, 1-5, 6-12, 13-18 and 19-22 X Y,
            homologues side by side.

    Returns:
        The crops in the order of ``CLASSES``, in which the rows stand.

    Raises:
        UnknownNameError: No such layout.
        ImageError: No chromosome; the rows or their counts are not those of the layout; two
            chromosomes cannot be told apart; or the gaps leave a doubt which class is which. The
            message begins with the name and says what was found.
    """
    if layout not in LAYOUTS:
        raise UnknownNameError(f"unknown layout {layout!r}: use {', '.join(LAYOUTS)}")
    grey = read_grey(karyogram, name)
    if grey.size > MAX_PIXELS:
        raise ImageError(
            f"{name}: {grey.shape[1]}x{grey.shape[0]} pixels are more than a karyogram needs; "
            "reduce it, for example to 300 dpi"
        )
    paper = float(np.median(grey))
    density = _density(grey, paper, name)
    seen = density > INK_SHARE
    coloured = _coloured(np.asarray(karyogram), seen)
    ink = seen & ~coloured
    specks = cv2.connectedComponents(ink.astype(np.uint8))[0] - 1
    if specks > MAX_SPECKS:
        raise _noise(name, f"{specks:,} specks of ink")
    ink = _without_holes(ink)
    pieces, thickness = _thick_pieces(ink, name)
    rows = _find_rows(pieces, thickness, LAYOUTS[layout], name, layout)
    # By the ink of the whole image, however it is divided.
    unit = sum(one.area for row in rows for one in row) / sum(
        RELATIVE_LENGTHS[label] * (2 if label in AUTOSOMES else 1) for label in CLASSES
    )
    named: list[tuple[str, str, int]] = []
    for number, (found, classes) in enumerate(zip(rows, LAYOUTS[layout], strict=True), start=1):
        row = _Row(f"{name}: row {number}", layout, classes, unit, thickness)
        copies = _divide_row(pieces, found, row, density)
        for label, group in zip(classes, copies, strict=True):
            named += [(label, "abc"[k], one.number) for k, one in enumerate(group)]
    owner = _owners(pieces, ink, thickness)
    boxes = ndimage.find_objects(owner)
    crops = []
    for label, letter, number in named:
        window = tuple(
            slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in boxes[number - 1]
        )
        marks = seen[window] | coloured[window]
        image = _painted(grey[window], marks, owner[window] == number, paper)
        place = (window[1].start, window[0].start, image.shape[1], image.shape[0])
        crops.append(KaryogramCrop(label, letter, place, image))
    return crops


@dataclass(frozen=True)
class _Piece:
    """A label of an image, with its box and area in pixels."""

    number: int
    left: int
    top: int
    width: int
    height: int
    area: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


def _pieces(labels: NDArray[np.int32], top: int = 0) -> list[_Piece]:
    """Each label of the lines that begin at ``top``, from left to right."""
    areas = np.bincount(labels.ravel())
    found = [
        _Piece(
            number=number,
            left=box[1].start,
            top=top + box[0].start,
            width=box[1].stop - box[1].start,
            height=box[0].stop - box[0].start,
            area=int(areas[number]),
        )
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None
    ]
    return sorted(found, key=lambda one: one.left + one.width / 2)


def _noise(name: str, what: str) -> ImageError:
    return ImageError(
        f"{name}: shows {what}, which is noise and no karyogram; scan or export it again"
    )


def _density(grey: NDArray[np.float32], paper: float, name: str) -> NDArray[np.float32]:
    """How far each pixel departs from the paper, of the image's contrast."""
    departure = grey - np.float32(paper)
    if -departure.min() > departure.max():
        departure = -departure
    smooth = np.asarray(cv2.GaussianBlur(departure, (3, 3), 0), np.float32)
    contrast = np.percentile(smooth, 99.5)
    if contrast <= MIN_CONTRAST * max(float(np.abs(grey).max()), 1e-12):
        raise ImageError(
            f"{name}: no chromosomes found, the image is almost uniform (near {paper:g}); is it "
            "a karyogram?"
        )
    return smooth / np.float32(contrast)


def _coloured(image: NDArray[np.generic], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is written in colour, and its rim, which fades into grey."""
    if image.ndim == 2 or image.shape[2] < 3:
        return np.zeros_like(seen)
    red, green, blue = (image[..., k].astype(np.float32) for k in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    spread = brightest - np.minimum(np.minimum(red, green), blue)
    coloured = spread > COLOUR_SHARE * max(float(brightest.max()), 1e-12)
    if (coloured & seen).sum() > 0.5 * seen.sum():
        return np.zeros_like(seen)
    return cv2.dilate(coloured.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _without_holes(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pale bands are filled; what a frame surrounds is not."""
    filled = ink.astype(np.uint8)
    outlines, parents = cv2.findContours(filled.copy(), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    area = [cv2.contourArea(outline) for outline in outlines]
    for hole, (_, _, _, parent) in enumerate(parents[0].tolist() if outlines else []):
        if parent >= 0 and area[hole] < HOLE_SHARE * area[parent]:
            # All outlines at once would be converted for every hole.
            cv2.drawContours(filled, [outlines[hole]], 0, 1, cv2.FILLED)
    return filled > 0


def _thick_pieces(ink: NDArray[np.bool_], name: str) -> tuple[NDArray[np.int32], float]:
    """Numbers what is as thick as a chromosome, 1, 2, ...; and the median half thickness."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(ink.astype(np.uint8))
    height, width = ink.shape
    depth = cv2.distanceTransform(ink.astype(np.uint8), cv2.DIST_L2, 5)
    inner = _deepest(depth, labels, count)
    box, area = stats[1:, :4], stats[1:, cv2.CC_STAT_AREA].astype(float)
    at_rim = (box[:, :2].min(axis=1) == 0) | (box[:, 0] + box[:, 2] == width)
    at_rim |= box[:, 1] + box[:, 3] == height
    area[at_rim] = 0
    if not area.any():
        raise ImageError(f"{name}: no chromosomes found; is it a karyogram?")
    # Most of a karyogram's ink is chromosome: the median over the ink, not over the pieces.
    order = np.argsort(inner)
    total = np.cumsum(area[order])
    thickness = float(inner[order][np.searchsorted(total, total[-1] / 2)])

    radius = max(1, round(MIN_THICKNESS * thickness))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = cv2.morphologyEx(ink.astype(np.uint8), cv2.MORPH_OPEN, disc)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    sides = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    good = (sides < MAX_SIDE * np.array([width, height])).all(axis=1)
    # Rulers that are not thin enough lie flat.
    good &= sides[:, 0] < FLAT * sides[:, 1]
    if (number := np.count_nonzero(good)) > MAX_PIECES:
        raise _noise(name, f"{number:,} pieces as thick as a chromosome")
    numbers = np.zeros(count, np.int32)
    numbers[1:][good] = np.arange(1, number + 1)
    return numbers[labels], thickness


def _deepest(depth: NDArray[Any], labels: NDArray[Any], count: int) -> NDArray[np.float32]:
    """The greatest depth within each of the labels 1 to ``count - 1``."""
    greatest = np.zeros(count, np.float32)
    inside = labels > 0
    np.maximum.at(greatest, labels[inside], depth[inside])
    return greatest[1:]


def _find_rows(
    pieces: NDArray[np.int32],
    thickness: float,
    rows: Sequence[Sequence[str]],
    name: str,
    layout: str,
) -> list[list[_Piece]]:
    """The chromosomes of each row, from left to right; what is none leaves ``pieces``."""
    edges = np.flatnonzero(np.diff(np.pad((pieces > 0).any(axis=1), 1).astype(np.int8)))
    found = []
    for top, end in edges.reshape(-1, 2).tolist():
        if (number := len(_pieces(pieces[top:end], top))) > MAX_IN_ROW:
            raise _noise(name, f"{number} pieces as thick as a chromosome in one row")
        found.append(_joined(pieces[top:end], top, thickness))
    tallest = max((one.height for row in found for one in row), default=0)
    area = np.percentile([one.area for row in found for one in row] or [0], 90)
    # Letters as thick as a chromosome make lines of their own. Every row of chromosomes has a long
    # one, the last an X.
    found = [
        [one for one in row if one.area > MIN_AREA * area]
        for row in found
        if max((one.height for one in row), default=0) > MIN_ROW_HEIGHT * tallest
    ]
    pieces[~np.isin(pieces, [one.number for row in found for one in row])] = 0
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


def _joined(labels: NDArray[np.int32], top: int, thickness: float) -> list[_Piece]:
    """The chromosomes among labels; arms that stand one above the other become one, in place.

    They were parted by a narrow centromere or a pale band. What is below the line on which the
    chromosomes stand is not among them.
    """
    found = _pieces(labels, top)
    if not found:
        return []
    order = sorted(found, key=lambda one: one.bottom)
    total = np.cumsum([one.area for one in order])
    foot = order[int(np.searchsorted(total, total[-1] / 2))].bottom
    kept = {one.number for one in found if one.top < foot - MIN_THICKNESS * thickness}
    reach = round(thickness)
    bridge = np.ones((2 * reach + 1, 1), np.uint8)
    found = [one for one in found if one.number in kept]
    while True:
        pairs = [
            (lower.top - upper.bottom, upper.number, lower.number)
            for upper, lower in permutations(found, 2)
            if min(upper.right, lower.right) - max(upper.left, lower.left)
            > 0.5 * min(upper.width, lower.width)
            and lower.top - upper.bottom > -0.3 * min(upper.height, lower.height)
        ]
        if not pairs or min(pairs)[0] > 2 * thickness:
            return found
        _, number, other = min(pairs)
        parts = [one for one in found if one.number in (number, other)]
        left, right = min(one.left for one in parts), max(one.right for one in parts)
        first = max(0, min(one.top for one in parts) - top - 2 * reach)
        last = max(one.bottom for one in parts) - top + 2 * reach
        window = labels[first:last, left:right]
        both = np.isin(window, (number, other))
        closed = cv2.morphologyEx(both.astype(np.uint8), cv2.MORPH_CLOSE, bridge) > 0
        window[both | (closed & (window == 0))] = number
        (whole,) = _pieces(np.where(window == number, number, 0).astype(np.int32), top + first)
        found = [one for one in found if one not in parts]
        found.append(replace(whole, left=whole.left + left))
        found.sort(key=lambda one: one.left + one.width / 2)


@dataclass(frozen=True)
class _Row:
    """What a row of the layout should hold.

    Attributes:
        where: Names the row in errors.
        layout: Its layout.
        classes: Its classes from left to right.
        unit: Area in pixels of one percent of ``RELATIVE_LENGTHS``.
        thickness: Median half thickness of the chromosomes in pixels.
    """

    where: str
    layout: str
    classes: Sequence[str]
    unit: float
    thickness: float

    def may_be_two(self, one: _Piece) -> bool:
        """Whether it is larger than any one of the row should be, or wider than tall."""
        percent = one.area / self.unit
        if "X" in self.classes and one.height > LONG * one.width:
            return percent > math.sqrt(2) * RELATIVE_LENGTHS["X"]
        largest = max(RELATIVE_LENGTHS[label] for label in self.classes if label != "X")
        return percent > largest or one.width > one.height

    def may_be_x(self, one: _Piece) -> bool:
        """Whether it is nearer to an X than to the largest of its neighbours."""
        if "X" not in self.classes:
            return False
        largest = max(RELATIVE_LENGTHS[label] for label in self.classes if label != "X")
        return one.area / self.unit > math.sqrt(largest * RELATIVE_LENGTHS["X"])


def _divide_row(
    pieces: NDArray[np.int32], found: list[_Piece], row: _Row, density: NDArray[np.float32]
) -> list[list[_Piece]]:
    """The copies of each class. Where the count is not normal, touching neighbours are parted."""
    sizes, deviations, fault = _class_sizes(found, row)
    # Parting makes more of them.
    is_few = len(found) < 2 * len(row.classes) + MAX_DEVIATIONS
    touching = [one for one in found if deviations and is_few and row.may_be_two(one)]
    if touching:
        parted = pieces.copy()
        for one in touching:
            _part(parted, one, density, row.thickness)
        top, end = min(one.top for one in found), max(one.bottom for one in found)
        halves = _pieces(parted[top:end], top)
        half_sizes, half_deviations, half_fault = _class_sizes(halves, row)
        if half_deviations < deviations:
            pieces[:] = parted
            found, sizes, deviations, fault = halves, half_sizes, half_deviations, half_fault
    if fault:
        raise ImageError(fault)
    ends = np.cumsum(sizes).tolist()
    copies = [found[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    share = [
        [one.area / RELATIVE_LENGTHS[label] for one in group]
        for label, group in zip(row.classes, copies, strict=True)
    ]
    typical = float(np.median([area for areas in share for area in areas]))
    for label, group, areas in zip(row.classes, copies, share, strict=True):
        # The smallest chromosomes shrink by more than their length; the X is none of them.
        one_copy = math.sqrt(2) * (row.unit if label == "X" else typical)
        if deviations and len(group) == 1 and areas[0] > one_copy:
            raise ImageError(
                f"{row.where}: two chromosomes seem to touch at x {group[0].left}, y "
                f"{group[0].top} and cannot be parted; move them apart"
            )
    return copies


def _class_sizes(found: list[_Piece], row: _Row) -> tuple[tuple[int, ...], int, str]:
    """How many copies each class has, how far that is from normal, and what speaks against it.

    The widest gaps part the classes, and two copies of a like size are normal. X and Y are told by
    size. Where the count is not normal the gaps alone tell whose copy is missing or gained, and
    must tell it plainly. A class without any copy cannot be told.
    """
    gaps = np.array([b.left - a.right for a, b in pairwise(found)], float)
    areas = np.array([one.area for one in found])
    large = [row.may_be_x(one) for one in found]
    autosomes = sum(label in AUTOSOMES for label in row.classes)
    sexes = _SEX_DEVIATIONS if "X" in row.classes else {(): 0}
    best: tuple[float, int, tuple[int, ...]] = (-np.inf, MAX_DEVIATIONS + 1, ())
    edges: list[int] = []
    for sizes, (sex, odd) in product(product((1, 2, 3), repeat=autosomes), sexes.items()):
        deviations = odd + sum(abs(size - 2) for size in sizes)
        if sum(sizes) + sum(sex) != len(found) or deviations > MAX_DEVIATIONS:
            continue
        labels = np.repeat(row.classes, (*sizes, *sex))
        if ((labels == "X") != large).any() or any(
            min(group) < MIN_LIKENESS * max(group)
            for group in (areas[labels == label] for label in row.classes)
            if len(group)
        ):
            continue
        parting = np.flatnonzero(labels[1:] != labels[:-1])
        # A gain or a loss must make the gaps wider by a chromosome's thickness.
        score = float(gaps[parting].sum()) / (2 * row.thickness) - deviations
        if score > best[0]:
            best, edges = (score, deviations, (*sizes, *sex)), parting.tolist()
    _, deviations, counts = best
    names = " ".join(row.classes)
    shown = f"{row.where} shows {len(found)} chromosomes"
    if "X" in row.classes:
        shown += f" ({sum(large)} of the size of an X)"
    inner = np.delete(gaps, edges)
    if not counts:
        fault = (
            f"{shown}, which do not fit {names} of the {row.layout} layout with at most "
            f"{MAX_DEVIATIONS} gained or lost; do chromosomes touch, or is it another layout?"
        )
    elif deviations and inner.size and gaps[edges].min() <= PLAIN * max(inner.max(), 0):
        deviations = MAX_DEVIATIONS + 1
        fault = (
            f"{shown}, and the gaps between them do not tell which class of {names} has more or "
            "less than two; move its copies together, apart from their neighbours"
        )
    else:
        fault = ""
    return counts, deviations, fault


def _part(
    pieces: NDArray[np.int32], one: _Piece, density: NDArray[np.float32], thickness: float
) -> None:
    """Parts two homologues side by side, in place, where the bridge between them is palest."""
    window = np.s_[one.top : one.bottom, one.left : one.right]
    mask = pieces[window] == one.number
    for share, level in product((0.2, 0.4, 0.6), np.arange(INK_SHARE, 0.7, 0.04)):
        size = 2 * max(1, round(share * thickness)) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        dark = (mask & (density[window] > level)).astype(np.uint8)
        _, found = cv2.connectedComponents(cv2.morphologyEx(dark, cv2.MORPH_OPEN, disc))
        labels = np.asarray(found, np.int32)
        sides = [
            side for side in _joined(labels, 0, thickness) if side.height > MIN_SIDE * one.height
        ]
        if len(sides) == 2 and 0.5 < sides[0].area / sides[1].area < 2:
            first, second = (
                cv2.distanceTransform((labels != side.number).astype(np.uint8), cv2.DIST_L2, 5)
                for side in sides
            )
            pieces[window][mask & (second < first)] = pieces.max() + 1
            return


def _owners(
    pieces: NDArray[np.int32], ink: NDArray[np.bool_], thickness: float
) -> NDArray[np.int32]:
    """The number of the chromosome that each pixel of ink belongs to, 0 for writing."""
    distance, nearest = cv2.distanceTransformWithLabels(
        (pieces == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    number = np.zeros(int(nearest.max()) + 1, np.int32)
    number[nearest[pieces > 0]] = pieces[pieces > 0]
    # The opening has taken its corners off. A ruler below it is as near, but apart.
    near = (ink & (distance <= MIN_THICKNESS * thickness + 2)) | (pieces > 0)
    _, islands = cv2.connectedComponents(near.astype(np.uint8))
    near &= np.isin(islands, islands[pieces > 0])
    owner = np.where(near, number[nearest], 0).astype(np.int32)
    # Satellites stand on a pale stalk above their chromosome, and are no wider.
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (ink & (owner == 0)).astype(np.uint8)
    )
    known = {one.number: one for one in _pieces(pieces, 0)}
    number = np.zeros(count, np.int32)
    for k in range(1, count):
        left, top, width, height = stats[k, :4].tolist()
        below = pieces[top : top + height + round(thickness) + 1, left + width // 2]
        one = known.get(int(below[np.argmax(below > 0)]))
        if one is not None and width <= one.width and top + height / 2 <= one.top:
            number[k] = one.number
    return np.where(owner > 0, owner, number[labels])


def _painted(
    grey: NDArray[np.float32], seen: NDArray[np.bool_], own: NDArray[np.bool_], paper: float
) -> NDArray[np.float32]:
    """One chromosome's grey values, the paper's where there is something else."""
    foreign = cv2.dilate((seen & ~own).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.where(foreign & ~own, np.float32(paper), grey)


# Files


def extract_files(
    karyograms: Sequence[Path], output: Path, layout: str = "denver", overwrite: bool = False
) -> tuple[dict[Path, int], list[str]]:
    """Makes a folder of labelled single chromosomes of karyogram files.

    Written are ``<output>/<karyogram>/<class><a|b|..>.png`` and ``<output>/labels.csv`` with the
    columns ``file, class, x, y, w, h, karyogram`` (the box in pixels of the karyogram), which
    :class:`chromozoo.data.pki3.Pki3DataModule` reads with the layout ``"labels-csv"``. The
    folder appears when it is whole, or not at all. It is named after the stem of the karyogram's
    file; what of it no file system takes is written as ``%`` and a number.

    Args:
        karyograms: Image files; no two may have one stem.
        output: The new folder.
        layout: See :func:`extract_chromosomes`.
        overwrite: Replace a folder that this function has made.

    Returns:
        How many chromosomes each file gave, and the errors of the files that gave none.

    Raises:
        ChromozooError: The folder exists, two files have one stem, or no file gave a chromosome.
        OutputError: The folder cannot be written.
    """
    folders = _folders(karyograms, output)
    try:
        if output.exists() and not (overwrite and (output / LABELS).is_file()):
            reason = f"; it holds no {LABELS}, so it is not replaced" if overwrite else ""
            raise ChromozooError(
                f"{output} exists already{reason}; choose another folder, or overwrite one that "
                "this command has made"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        # Not named after the output: its own name may be as long as a name can be.
        with tempfile.TemporaryDirectory(
            prefix=".karyograms.", suffix=".part", dir=output.parent
        ) as work:
            made = Path(work, "new")
            made.mkdir()
            counts, errors = _extract_into(made, folders, layout)
            if output.exists():
                os.replace(output, Path(work, "old"))
            os.replace(made, output)
    except OSError as error:
        if isinstance(error, ChromozooError):
            raise
        raise OutputError(
            f"{output}: cannot be written ({error.strerror or error}); free space or choose "
            "another folder"
        ) from error
    return counts, errors


def _extract_into(
    made: Path, folders: dict[str, Path], layout: str
) -> tuple[dict[Path, int], list[str]]:
    counts: dict[Path, int] = {}
    errors: list[str] = []
    rows: list[list[str | int]] = [["file", "class", "x", "y", "w", "h", "karyogram"]]
    for folder, path in folders.items():
        try:
            crops = extract_chromosomes(_read(path), str(path), layout)
        except ImageError as error:
            errors.append(str(error))
            continue
        (made / folder).mkdir()
        for crop, image in zip(crops, _whole_levels([one.image for one in crops]), strict=True):
            file = f"{folder}/{crop.label}{crop.copy}.png"
            (made / file).write_bytes(cv2.imencode(".png", image)[1].tobytes())
            rows.append([file, crop.label, *crop.box, _plain(path.name)])
        counts[path] = len(crops)
    if not counts:
        raise ChromozooError("\n".join(["no karyogram could be cut:", *errors]))
    with (made / LABELS).open("w", newline="", encoding="utf-8") as table:
        csv.writer(table, lineterminator="\n").writerows(rows)
    return counts, errors


def _folders(karyograms: Sequence[Path], output: Path) -> dict[str, Path]:
    """The karyograms by the names of their folders, which are their stems where these will do.

    Raises:
        ChromozooError: Two would have one folder, also where capitals do not count.
    """
    folders: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    for path in karyograms:
        folder = _folder_name(path.stem)
        key = unicodedata.normalize("NFC", folder).casefold()
        if key in seen:
            raise ChromozooError(
                f"{seen[key]} and {path} would both be written to {output / folder}; rename one"
            )
        folders[folder] = seen[key] = path
    return folders


def _folder_name(stem: str) -> str:
    """A name that every file system takes, and that is none of this module's own files."""
    name = _plain(stem, forbidden='<>:"/\\|?*').rstrip(". ")
    if name.casefold() in ("", LABELS):
        name = f"karyogram_{name}".rstrip("_")
    if len(name.encode()) > MAX_NAME_LENGTH:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name.encode()[: MAX_NAME_LENGTH - 9].decode(errors='ignore')}_{digest}"
    return name


def _plain(name: str, forbidden: str = "") -> str:
    """Text that can be written; what cannot becomes ``%`` and its number."""
    return "".join(
        letter if letter.isprintable() and letter not in forbidden else f"%{ord(letter):x}"
        for letter in name
    )


def _whole_levels(
    images: Sequence[NDArray[np.float32]],
) -> list[NDArray[np.uint8] | NDArray[np.uint16]]:
    """The crops of one image as a PNG has them: 8 or 16 bits.

    Levels stay as they are where these hold them; others, such as 0..1, are spread over 16 bits.
    """
    low = min(float(image.min()) for image in images)
    high = max(float(image.max()) for image in images)
    fits = low >= 0 and high < 2**16 - 0.5
    if not fits or (high < MIN_LEVELS and any((image % 1).any() for image in images)):
        spread = (2**16 - 1) / max(high - low, 1e-12)
        return [np.round((image - low) * spread).astype(np.uint16) for image in images]
    if high < 2**8 - 0.5:
        return [np.round(image).astype(np.uint8) for image in images]
    return [np.round(image).astype(np.uint16) for image in images]


def _read(path: Path) -> NDArray[np.generic]:
    try:
        with open_archive(path.parent) as folder:
            data = folder.read(path.name)
    except DatasetError as error:
        raise ImageError(str(error)) from error
    return read_bytes(data, str(path))
