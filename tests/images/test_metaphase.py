"""Preprocessing of metaphases: stain, exposure, size and empty images."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from chromozoo.classes import Stain
from chromozoo.errors import ImageError
from chromozoo.images.levels import chromosome_width, measure_levels
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.synthetic import draw_metaphase


def rods(height: int = 240, width: int = 320, thickness: int = 14) -> NDArray[np.float32]:
    """Bright rods of one width on black."""
    image = np.zeros((height, width), np.float32)
    for x in range(30, width - 30, 40):
        cv2.line(image, (x, height // 4), (x + 10, 3 * height // 4), 200.0, thickness)
    return cv2.GaussianBlur(image, (0, 0), 1.0)


@pytest.mark.parametrize(
    ("gain", "offset"), [(1, 0), (0.4, 30), (257, 0), (-1, 240), (-0.5, 200), (1 / 255, 0)]
)
def test_signal_does_not_depend_on_stain_exposure_and_depth(gain: float, offset: float) -> None:
    levels = measure_levels(rods() * gain + offset)
    assert levels.is_found
    assert np.abs(levels.signal - measure_levels(rods()).signal).max() < 0.02
    assert levels.signal.min() == 0
    assert levels.signal.max() == 1


@pytest.mark.parametrize("level", [0, 255, 128])
def test_uniform_images_give_an_empty_canvas(level: int) -> None:
    prepared = MetaphasePreset()(np.full((300, 400), level, np.uint8), "empty.png")
    assert not prepared.canvas.any()
    assert prepared.warnings == ("empty.png: nothing stands out of the background: no chromosomes",)


def test_chromosome_width() -> None:
    """The blur of one pixel moves the visible edge by two pixels on either side."""
    narrow, wide = (chromosome_width(measure_levels(rods(thickness=n)).signal) for n in (8, 16))
    assert narrow == pytest.approx(8 + 4, abs=1.5)
    assert wide == pytest.approx(16 + 4, abs=1.5)
    assert chromosome_width(np.zeros((50, 50), np.float32)) == 0


def test_images_of_another_objective_are_rescaled() -> None:
    preset = MetaphasePreset(typical_width=14)
    assert preset(rods()).scale == 1
    tripled = cv2.resize(rods(), None, fx=3, fy=3)
    prepared = preset(tripled)
    assert prepared.scale == pytest.approx(1 / 3, rel=0.25)
    assert prepared.shape == tripled.shape
    assert MetaphasePreset(typical_width=0)(tripled).scale == 1


def test_a_slide_is_reduced_with_a_warning() -> None:
    image = np.zeros((2400, 3000), np.uint8)
    image[:240, :320] = rods()
    prepared = MetaphasePreset(max_pixels=500_000)(image, "slide.png")
    assert prepared.canvas.size <= 510_000
    assert prepared.shape == (2400, 3000)
    assert "slide.png: 3000x2400 pixels are more than one metaphase needs" in prepared.warnings[0]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16", "P"])
def test_pil_modes(mode: str) -> None:
    grey = rods().astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 200)
    else:
        image = Image.fromarray(grey).convert(mode)
    canvas = MetaphasePreset()(image).canvas
    assert canvas.shape == grey.shape
    assert np.corrcoef(canvas.ravel(), grey.ravel())[0, 1] > 0.98


def test_tiny_images_are_accepted() -> None:
    assert MetaphasePreset()(np.eye(20, dtype=np.float32)).canvas.shape == (20, 20)


def test_errors_name_the_image(tmp_path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        MetaphasePreset()(broken)


@pytest.mark.parametrize("stain", ["q", "g"])
def test_stain_is_measured_from_the_background(stain: Stain) -> None:
    drawn = draw_metaphase(
        np.random.default_rng(0), stain=stain, karyotype=["1", "2", "3"], height=288, width=384
    )
    image = drawn.image.astype(np.float32)
    assert measure_levels(image).stain == stain
    assert measure_levels(300 + 7 * image).stain == stain
    assert measure_levels(image.max() - image).stain != stain


def test_an_empty_image_has_the_default_stain() -> None:
    assert measure_levels(np.full((20, 20), 7, np.float32)).stain == "q"


def test_cell_zoom_follows_the_median_length() -> None:
    preset = MetaphasePreset(typical_length=50)
    assert preset.cell_zoom([25] * 20) == 2
    assert preset.cell_zoom([100] * 20) == 0.5
    assert preset.cell_zoom([40, 50, 60] * 20) == 1  # another cell of the same microscope
    assert preset.cell_zoom([25] * 9) == 1  # too few
    assert MetaphasePreset().cell_zoom([25] * 20) == 1  # unknown typical length
    once, twice = (preset(rods(), zoom=zoom) for zoom in (1, 2))
    assert twice.canvas.shape == (2 * once.canvas.shape[0], 2 * once.canvas.shape[1])
    assert twice.scale == 2 * once.scale
    assert twice.shape == once.shape
