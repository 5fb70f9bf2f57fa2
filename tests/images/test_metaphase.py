"""Normalisation of whole metaphases: stain, exposure, size, and images that show none."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from chromozoo.classes import Stain
from chromozoo.errors import ImageError
from chromozoo.images.levels import chromosome_width
from chromozoo.images.metaphase import MetaphasePreset, signal_metaphase, stain_of
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
def test_stain_exposure_and_depth_drop_out(gain: float, offset: float) -> None:
    wanted, _ = signal_metaphase(rods())
    signal, found = signal_metaphase(rods() * gain + offset)
    assert found
    assert np.abs(signal - wanted).max() < 0.02
    assert signal.min() == 0
    assert signal.max() == 1


@pytest.mark.parametrize("level", [0, 255, 128])
def test_uniform_images_hold_nothing(level: int) -> None:
    prepared = MetaphasePreset()(np.full((300, 400), level, np.uint8), "empty.png")
    assert not prepared.canvas.any()
    assert prepared.warnings == ("empty.png: nothing stands out of the background: no chromosomes",)


def test_width_is_measured() -> None:
    """To the visible edge, which a blur of one pixel sets two pixels out on either side."""
    narrow, wide = (chromosome_width(signal_metaphase(rods(thickness=n))[0]) for n in (8, 16))
    assert narrow == pytest.approx(8 + 4, abs=1.5)
    assert wide == pytest.approx(16 + 4, abs=1.5)
    assert chromosome_width(np.zeros((50, 50), np.float32)) == 0


def test_another_objective_is_brought_to_the_scale_of_the_training_data() -> None:
    preset = MetaphasePreset(typical_width=14)
    assert preset(rods()).scale == 1
    tripled = cv2.resize(rods(), None, fx=3, fy=3)
    prepared = preset(tripled)
    assert prepared.scale == pytest.approx(1 / 3, rel=0.25)
    assert prepared.shape == tripled.shape
    assert MetaphasePreset(typical_width=0)(tripled).scale == 1


def test_a_slide_is_reduced_and_says_so() -> None:
    image = np.zeros((2400, 3000), np.uint8)
    image[:240, :320] = rods()
    prepared = MetaphasePreset(max_pixels=500_000)(image, "slide.png")
    assert prepared.canvas.size <= 510_000
    assert prepared.shape == (2400, 3000)
    assert "slide.png: 3000x2400 pixels are more than one metaphase needs" in prepared.warnings[0]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16", "P"])
def test_every_kind_of_image(mode: str) -> None:
    grey = rods().astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 200)
    else:
        image = Image.fromarray(grey).convert(mode)
    canvas = MetaphasePreset()(image).canvas
    assert canvas.shape == grey.shape
    assert np.corrcoef(canvas.ravel(), grey.ravel())[0, 1] > 0.98


def test_tiny_images_are_taken() -> None:
    assert MetaphasePreset()(np.eye(20, dtype=np.float32)).canvas.shape == (20, 20)


def test_what_cannot_be_read_is_named(tmp_path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        MetaphasePreset()(broken)


@pytest.mark.parametrize("stain", ["q", "g"])
def test_the_stain_is_told_by_the_ground(stain: Stain) -> None:
    drawn = draw_metaphase(np.random.default_rng(0), stain=stain, karyotype=["1", "2", "3"])
    image = drawn.image.astype(np.float32)
    assert stain_of(image) == stain
    assert stain_of(300 + 7 * image) == stain
    assert stain_of(image.max() - image) != stain


def test_an_empty_image_has_some_stain() -> None:
    assert stain_of(np.full((20, 20), 7, np.float32)) == "q"


def test_the_length_of_what_was_found_says_whether_to_look_again() -> None:
    preset = MetaphasePreset(typical_length=50)
    assert preset.cell_zoom([25] * 20) == 2
    assert preset.cell_zoom([100] * 20) == 0.5
    assert preset.cell_zoom([40, 50, 60] * 20) == 1  # another cell of the same microscope
    assert preset.cell_zoom([25] * 9) == 1  # too few to say
    assert MetaphasePreset().cell_zoom([25] * 20) == 1  # not known what is typical
    once, twice = (preset(rods(), zoom=zoom) for zoom in (1, 2))
    assert twice.canvas.shape == (2 * once.canvas.shape[0], 2 * once.canvas.shape[1])
    assert twice.scale == 2 * once.scale
    assert twice.shape == once.shape
