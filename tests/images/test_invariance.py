"""The canvas of a preset hardly depends on how a cell was photographed and saved."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from chromozoo.classes import CLASSES, Stain
from chromozoo.images.preset import ChromosomePreset
from chromozoo.synthetic import draw_cell

Crop = NDArray[np.float32]
Change = Callable[[Crop], Crop]

# Maximum mean difference in grey values (0..255). A shift of every chromosome by one pixel of this
# canvas gives 2.2 to 3.1 in drawn cells, and the homologous chromosome differs by 3 to 7.
# Resampling moves the outline by half a pixel at most.
MAX_DIFFERENCE = 3.0


@cache
def cell(stain: Stain) -> tuple[tuple[Crop, ...], ChromosomePreset]:
    """A drawn cell of one chromosome of each class, and a preset with its typical length."""
    drawn = draw_cell(np.random.default_rng(0), stain=stain, karyotype=CLASSES)
    images = tuple(one.image.astype(np.float32) for one in drawn)
    length = float(np.median([ChromosomePreset().length(image) for image in images]))
    return images, ChromosomePreset(144, 64, 1.5, typical_length=length, zoom_range=1.0)


def canvases(images: list[Crop], preset: ChromosomePreset) -> NDArray[np.float64]:
    """Prepare the chromosomes of a cell with one zoom, ``(24, height, width)``."""
    zoom = preset.cell_zoom([preset.length(image) for image in images])
    return np.array([preset.prepare(image, zoom=zoom) for image in images], np.float64)


@cache
def clean_canvases(stain: Stain, preset: ChromosomePreset) -> NDArray[np.float64]:
    return canvases(list(cell(stain)[0]), preset)


def difference(stain: Stain, change: Change, **arguments: bool | float) -> float:
    """Median difference of the chromosomes: the axis of a round one is not reproducible."""
    images, preset = cell(stain)
    preset = ChromosomePreset(**preset.to_dict() | arguments)
    before = clean_canvases(stain, preset)
    after = canvases([change(image) for image in images], preset)
    return float(np.median(np.abs(after - before).mean(axis=(1, 2))))


def as_saved(image: Crop) -> Crop:
    return np.round(image.clip(0, 255))


def on_grey(image: Crop) -> Crop:
    """Background 128 and half the contrast, which fits into 8 bits."""
    background = np.float32(255 if image[0].mean() > 128 else 0)
    return as_saved(128 + (image - background) * 0.498)


def jpeg(image: Crop) -> Crop:
    _, data = cv2.imencode(".jpg", as_saved(image).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32)


def resize(factor: float, interpolation: int) -> Change:
    def change(image: Crop) -> Crop:
        size = {"fx": factor, "fy": factor, "interpolation": interpolation}
        return as_saved(np.asarray(cv2.resize(image, None, **size), np.float32))

    return change


CHANGES: dict[str, Change] = {
    "inverted": lambda image: 255 - image,
    "on grey": on_grey,
    "on grey, inverted": lambda image: 255 - on_grey(image),
    "16 bits": lambda image: image * 257,
    "JPEG": jpeg,
    "pixels 1.4 times as large": resize(0.7, cv2.INTER_AREA),
    "pixels 1.4 times as large, bicubic": resize(0.7, cv2.INTER_CUBIC),
    "pixels 1.5 times as small": resize(1.5, cv2.INTER_LINEAR),
    "pixels 1.5 times as small, Lanczos": resize(1.5, cv2.INTER_LANCZOS4),
    "pixels 1.5 times as small, nearest": resize(1.5, cv2.INTER_NEAREST),
}


@pytest.mark.parametrize("stain", ["q", "g"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_canvas_is_invariant(change: str, stain: Stain) -> None:
    assert difference(stain, CHANGES[change]) < MAX_DIFFERENCE


def with_headroom(image: Crop) -> Crop:
    """16 bits, with six times the contrast of the chromosome above or below it."""
    return 6000 + 40 * image if image[0].mean() < 128 else 50_000 + 40 * image


def hot(image: Crop) -> Crop:
    changed = with_headroom(image)
    changed[2, 2], changed[changed.shape[0] // 2, changed.shape[1] // 2] = 65_535, 0
    return changed


def dead_column(image: Crop) -> Crop:
    changed = with_headroom(image)
    changed[:, int(0.7 * changed.shape[1])] = 65_535 if image[0].mean() < 128 else 0
    return changed


def saturated_row(image: Crop) -> Crop:
    changed = with_headroom(image)
    changed[0] = 65_535
    return changed


def specked(image: Crop) -> Crop:
    """A speck next to the chromosome, five times as bright or dark."""
    changed = with_headroom(np.pad(image, ((0, 0), (0, 12)), mode="edge"))
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
def test_defects_do_not_change_the_canvas(change: str, stain: Stain) -> None:
    assert difference(stain, DEFECTS[change]) < MAX_DIFFERENCE


def test_invariance_needs_stretching_and_zoom() -> None:
    assert difference("q", on_grey, stretch=False) > MAX_DIFFERENCE
    for factor in (0.7, 1.5):
        change = resize(factor, cv2.INTER_AREA)
        assert difference("q", change, typical_length=0.0) > MAX_DIFFERENCE
