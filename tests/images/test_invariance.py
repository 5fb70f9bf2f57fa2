"""The preset gives nearly the same canvas for a cell, however it was photographed and saved."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from chromozoo.classes import Stain
from chromozoo.images.preset import ChromosomePreset
from chromozoo.synthetic import draw_cell

StoredMetaphase = NDArray[np.float32]
Change = Callable[[StoredMetaphase], StoredMetaphase]

# Mean difference in grey values, of 255. Moving every chromosome sideways by one pixel of this
# canvas makes 2.2 to 3.1 in drawn cells, and the other chromosome of the pair differs by 3 to 7.
# Resampling moves the outline by half a pixel at most.
MOST = 3.0


@cache
def cell(stain: Stain) -> tuple[tuple[StoredMetaphase, ...], ChromosomePreset]:
    """A drawn cell, and a preset whose typical length is that of the cell."""
    drawn = draw_cell(np.random.default_rng(0), stain=stain)
    images = tuple(one.image.astype(np.float32) for one in drawn)
    length = float(np.median([ChromosomePreset().length(image) for image in images]))
    return images, ChromosomePreset(144, 64, 1.5, typical_length=length, zoom_range=1.0)


def canvases(images: list[StoredMetaphase], preset: ChromosomePreset) -> NDArray[np.float64]:
    """As a cell is prepared: all chromosomes with one zoom, ``(46, height, width)``."""
    zoom = preset.cell_zoom([preset.length(image) for image in images])
    return np.array([preset.prepare(image, zoom=zoom) for image in images], np.float64)


def difference(stain: Stain, change: Change, **other: bool | float) -> float:
    """Of the typical chromosome (median): a round one may come to lie along another axis."""
    images, preset = cell(stain)
    preset = ChromosomePreset(**preset.to_dict() | other)
    before = canvases(list(images), preset)
    after = canvases([change(image) for image in images], preset)
    return float(np.median(np.abs(after - before).mean(axis=(1, 2))))


def as_saved(image: StoredMetaphase) -> StoredMetaphase:
    return np.round(image.clip(0, 255))


def on_grey(image: StoredMetaphase) -> StoredMetaphase:
    """Background 128 and half the contrast, so that it fits into 8 bits, to the same side."""
    background = np.float32(255 if image[0].mean() > 128 else 0)
    return as_saved(128 + (image - background) * 0.498)


def jpeg(image: StoredMetaphase) -> StoredMetaphase:
    _, data = cv2.imencode(".jpg", as_saved(image).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32)


def bootstrap_counts(factor: float, interpolation: int) -> Change:
    def change(image: StoredMetaphase) -> StoredMetaphase:
        size = {"fx": factor, "fy": factor, "interpolation": interpolation}
        return as_saved(np.asarray(cv2.resize(image, None, **size), np.float32))

    return change


CHANGES: dict[str, Change] = {
    "inverted": lambda image: 255 - image,
    "on grey": on_grey,
    "on grey, inverted": lambda image: 255 - on_grey(image),
    "16 bits": lambda image: image * 257,
    "JPEG": jpeg,
    "pixels 1.4 times as large": bootstrap_counts(0.7, cv2.INTER_AREA),
    "pixels 1.4 times as large, bicubic": bootstrap_counts(0.7, cv2.INTER_CUBIC),
    "pixels 1.5 times as small": bootstrap_counts(1.5, cv2.INTER_LINEAR),
    "pixels 1.5 times as small, Lanczos": bootstrap_counts(1.5, cv2.INTER_LANCZOS4),
    "pixels 1.5 times as small, nearest": bootstrap_counts(1.5, cv2.INTER_NEAREST),
}


@pytest.mark.parametrize("stain", ["q", "g"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_canvas_stays(change: str, stain: Stain) -> None:
    assert difference(stain, CHANGES[change]) < MOST


def with_room(image: StoredMetaphase) -> StoredMetaphase:
    """16 bits, with six times the contrast of the chromosome left above or below it."""
    return 6000 + 40 * image if image[0].mean() < 128 else 50_000 + 40 * image


def hot(image: StoredMetaphase) -> StoredMetaphase:
    changed = with_room(image)
    changed[2, 2], changed[changed.shape[0] // 2, changed.shape[1] // 2] = 65_535, 0
    return changed


def dead_column(image: StoredMetaphase) -> StoredMetaphase:
    changed = with_room(image)
    changed[:, int(0.7 * changed.shape[1])] = 65_535 if image[0].mean() < 128 else 0
    return changed


def saturated_row(image: StoredMetaphase) -> StoredMetaphase:
    changed = with_room(image)
    changed[0] = 65_535
    return changed


def specked(image: StoredMetaphase) -> StoredMetaphase:
    """Beside the chromosome lies a speck, five times as bright or dark."""
    changed = with_room(np.pad(image, ((0, 0), (0, 12)), mode="edge"))
    background = changed[0, -1]
    departure = changed.max() - background if background < 30_000 else changed.min() - background
    level = float(np.clip(background + 5 * departure, 0, 65_535))
    cv2.circle(changed, (changed.shape[1] - 5, 6), 2, level, -1)
    return changed


DEFECTS: dict[str, Change] = {
    "hot and dead pixel": hot,
    "dead column": dead_column,
    "white first row": saturated_row,
    "speck": specked,
}


@pytest.mark.parametrize("stain", ["q", "g"])
@pytest.mark.parametrize("change", DEFECTS)
def test_the_canvas_stays_beside_what_outshines_the_chromosome(change: str, stain: Stain) -> None:
    assert difference(stain, DEFECTS[change]) < MOST


def test_it_is_the_stretching_and_the_length_that_do_it() -> None:
    assert difference("q", on_grey, stretch=False) > MOST
    for factor in (0.7, 1.5):
        change = bootstrap_counts(factor, cv2.INTER_AREA)
        assert difference("q", change, typical_length=0.0) > MOST
