"""Extraction of single chromosomes from the image of an arranged karyogram.

Wei et al. 2022 (section 2) made their data set in this way: binarise, open and close, and read the
class from the position. They give no parameters; those used here are our own. They pad each
chromosome to 224x224; here it keeps its own box, and the preset of a model pads it on reading.

An image with an uncertain class is refused as a whole, because a wrong label in a data set is worse
than a missing chromosome.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.images.karyogram_ink import (
    INK_DENSITY,
    MIN_THICKNESS,
    check_specks,
    fill_holes,
    find_annotations,
    label_thick_components,
    list_components,
    measure_density,
)
from chromozoo.images.karyogram_layout import LAYOUTS, RowLayout, divide_row, find_rows, unit_area
from chromozoo.images.reading import read_grey

# Pixels of paper around a crop.
MARGIN = 4
# A page of A4 at 600 dpi.
MAX_PIXELS = 40_000_000


@dataclass(frozen=True, eq=False)
class KaryogramCrop:
    """One chromosome of a karyogram.

    Attributes:
        label: Its class, one of ``CLASSES``.
        copy: ``'a'`` for the leftmost of its class, then ``'b'``, ...
        box: ``x, y, width, height`` of the crop in pixels of the image.
        image: ``(height, width)`` float32, the grey values of the image in its own units. Other
            objects within the box are painted over with the grey value of the paper.
    """

    label: str
    copy: str
    box: tuple[int, int, int, int]
    image: NDArray[np.float32]


def extract_chromosomes(
    karyogram: NDArray[np.generic], name: str = "karyogram", layout: str = "denver"
) -> list[KaryogramCrop]:
    """Cut one karyogram into its chromosomes.

    Args:
        karyogram: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` of any type; paper light or dark.
            Coloured text and frames are left out, also where they are thick.
        name: Name of the image in errors.
        layout: One of ``LAYOUTS``. ``"denver"`` has four rows, 1-5, 6-12, 13-18 and 19-22 X Y,
            homologues side by side.

    Returns:
        The crops in the order of ``CLASSES``.

    Raises:
        UnknownNameError: No such layout.
        ImageError: There is no chromosome, the rows or counts are not those of the layout, two
            chromosomes cannot be separated, or the gaps do not tell the classes apart. The message
            begins with the name.
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
    density = measure_density(grey, paper, name)
    dark = density > INK_DENSITY
    coloured = find_annotations(np.asarray(karyogram), dark)
    ink = dark & ~coloured
    check_specks(ink, name)
    ink = fill_holes(ink)
    labels, thickness = label_thick_components(ink, name)
    rows = find_rows(labels, thickness, layout, name)
    unit = unit_area(rows)
    classified: list[tuple[str, str, int]] = []
    for number, (found, classes) in enumerate(zip(rows, LAYOUTS[layout], strict=True), start=1):
        row = RowLayout(f"{name}: row {number}", layout, classes, unit, thickness)
        copies = divide_row(labels, found, row, density)
        for label, group in zip(classes, copies, strict=True):
            classified += [(label, "abc"[k], one.number) for k, one in enumerate(group)]
    owners = _assign_ink(labels, ink, thickness)
    boxes = ndimage.find_objects(owners)
    crops = []
    for label, letter, number in classified:
        window = tuple(
            slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in boxes[number - 1]
        )
        objects = dark[window] | coloured[window]
        image = _paint_over(grey[window], objects, owners[window] == number, paper)
        box = (window[1].start, window[0].start, image.shape[1], image.shape[0])
        crops.append(KaryogramCrop(label, letter, box, image))
    return crops


def _assign_ink(
    labels: NDArray[np.int32], ink: NDArray[np.bool_], thickness: float
) -> NDArray[np.int32]:
    """Assign each pixel of ink to a chromosome: its label, 0 for text and rulers."""
    distance, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    number = np.zeros(int(nearest.max()) + 1, np.int32)
    number[nearest[labels > 0]] = labels[labels > 0]
    # The opening removed the corners of the chromosome. A ruler below is as near as these, but not
    # connected.
    near = (ink & (distance <= MIN_THICKNESS * thickness + 2)) | (labels > 0)
    _, islands = cv2.connectedComponents(near.astype(np.uint8))
    near &= np.isin(islands, islands[labels > 0])
    owners = np.where(near, number[nearest], 0).astype(np.int32)
    # Satellites stand on a pale stalk above their chromosome and are not wider than it.
    count, others, stats, _ = cv2.connectedComponentsWithStats(
        (ink & (owners == 0)).astype(np.uint8)
    )
    chromosomes = {one.number: one for one in list_components(labels)}
    number = np.zeros(count, np.int32)
    for k in range(1, count):
        left, top, width, height = stats[k, :4].tolist()
        below = labels[top : top + height + round(thickness) + 1, left + width // 2]
        one = chromosomes.get(int(below[np.argmax(below > 0)]))
        if one is not None and width <= one.width and top + height / 2 <= one.top:
            number[k] = one.number
    return np.where(owners > 0, owners, number[others])


def _paint_over(
    grey: NDArray[np.float32], objects: NDArray[np.bool_], own: NDArray[np.bool_], paper: float
) -> NDArray[np.float32]:
    """Return the grey values of one chromosome, with other objects painted in the paper's grey."""
    foreign = cv2.dilate((objects & ~own).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.where(foreign & ~own, np.float32(paper), grey)
