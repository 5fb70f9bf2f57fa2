"""Grey levels of a metaphase beside dirt, nuclei, frames, dead lines and dim corners."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from chromozoo.images.levels import Levels, measure_levels
from chromozoo.images.reading import read_grey
from chromozoo.images.signal import signal_image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

Image = NDArray[np.float32]


def metaphase(stain: str) -> Image:
    """The example on a scale of 16 bits with room above, bright on dark or dark on light."""
    grey = read_grey(EXAMPLES / "normal_46XY.png")
    bright = 3000 + 30 * (grey - np.median(grey))
    return (bright if stain == "q" else 20_000 - bright).astype(np.float32)


def drawn(image: Image, draw: Callable[[NDArray[np.uint8]], Any], times: float) -> Image:
    """With something whose departure is so many times that of the chromosomes."""
    mask = np.zeros(image.shape, np.uint8)
    draw(mask)
    background = float(np.median(image))
    low, high = np.percentile(image, (1, 99))
    departure = high - background if high - background > background - low else low - background
    return np.where(mask > 0, background + times * departure, image).astype(np.float32)


def specks(image: Image) -> Image:
    def draw(mask: NDArray[np.uint8]) -> None:
        for x, y, radius in ((60, 60, 14), (700, 520, 9), (720, 60, 5)):
            cv2.circle(mask, (x, y), radius, 1, -1)

    return drawn(image, draw, 6)


def nuclei(image: Image) -> Image:
    def draw(mask: NDArray[np.uint8]) -> None:
        for x, y, radius in ((60, 60, 50), (700, 510, 40)):
            cv2.circle(mask, (x, y), radius, 1, -1)

    return drawn(image, draw, 4)


def dead_column(image: Image) -> Image:
    changed = image.copy()
    changed[:, 300] = 65_535
    return changed


def saturated_row(image: Image) -> Image:
    changed = image.copy()
    changed[0] = 65_535
    return changed


def framed(value: float) -> Callable[[Image], Image]:
    def frame(image: Image) -> Image:
        height, width = image.shape
        large = np.full((int(1.45 * height), int(1.45 * width)), value, np.float32)
        top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
        large[top : top + height, left : left + width] = image
        return large

    return frame


def white_screen(image: Image) -> Image:
    """A round field of view in white."""
    height, width = image.shape
    inside = np.zeros(image.shape, np.uint8)
    cv2.ellipse(inside, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1, -1)
    return np.where(inside > 0, image, np.float32(65_535))


def vignette(image: Image) -> Image:
    """Corners have 40 % of the light of the middle."""
    rows, columns = np.indices(image.shape)
    far = np.hypot(rows / image.shape[0] - 0.5, columns / image.shape[1] - 0.5) / 0.707
    return (image * (1 - 0.6 * far**2)).astype(np.float32)


def caption(image: Image) -> Image:
    letters = np.zeros(image.shape, np.uint8)
    cv2.putText(letters, "Case 17, cell 4", (20, 560), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)
    return np.where(letters > 127, np.float32(65_535), image)


CHANGES = {
    "dead column": dead_column,
    "saturated row": saturated_row,
    "specks": specks,
    "nuclei": nuclei,
    "black frame": framed(0),
    "white frame": framed(65_535),
    "white screen": white_screen,
    "vignette": vignette,
    "caption": caption,
}


def agreement(changed: Image, levels: Levels, clean: Levels) -> tuple[float, float]:
    """Correlation of both signals where there are chromosomes, and the ratio of their means."""
    height, width = clean.signal.shape
    top, left = ((a - b) // 2 for a, b in zip(changed.shape, clean.signal.shape, strict=True))
    signal = levels.signal[top : top + height, left : left + width]
    # What the changes draw over lies at the rim.
    inside = clean.signal > 0.2
    inside[:115], inside[-115:], inside[:, :115], inside[:, -115:] = False, False, False, False
    found, true = signal[inside], clean.signal[inside]
    return float(np.corrcoef(found, true)[0, 1]), float(found.mean() / true.mean())


@pytest.mark.parametrize("stain", ["q", "g"])
@pytest.mark.parametrize("name", CHANGES)
def test_the_chromosomes_keep_their_levels(name: str, stain: str) -> None:
    image = metaphase(stain)
    clean = measure_levels(image)
    changed = CHANGES[name](image)
    levels = measure_levels(changed)
    alike, ratio = agreement(changed, levels, clean)
    assert levels.stain == clean.stain == stain
    assert alike > 0.97
    assert 0.8 < ratio < 1.25
    assert levels.width == pytest.approx(clean.width, rel=0.15)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dead column", "dead or saturated column"),
        ("saturated row", "dead or saturated row"),
        ("specks", "bright object"),
        ("nuclei", "bright object"),
        ("black frame", "black frame"),
        ("white screen", "left out"),
    ],
)
def test_what_was_left_out_is_said(name: str, words: str) -> None:
    levels = measure_levels(CHANGES[name](metaphase("q")))
    assert words in " ".join(levels.flags)
    assert levels.to_dict()["flags"] == list(levels.flags)


@pytest.mark.parametrize("stain", ["q", "g"])
def test_an_ordinary_image_is_measured_as_it_is(stain: str) -> None:
    image = metaphase(stain)
    levels = measure_levels(image)
    assert levels.flags == levels.alarms == ()
    background = float(np.median(image))
    assert levels.background == pytest.approx(background, rel=0.02)
    departure = (image - levels.background) * (1 if stain == "q" else -1)
    expected = np.clip(departure / abs(levels.top - levels.background), 0, 1)
    assert np.abs(levels.signal - expected).max() < 1e-5


def test_short_solid_chromosomes_are_not_taken_for_dirt() -> None:
    """Contracted and of one level, on a background with grain and a nucleus."""
    rng = np.random.default_rng(0)
    grain = cv2.GaussianBlur(rng.normal(0, 6, (600, 800)).astype(np.float32), (0, 0), 2)
    image = 180 + grain
    for x in range(120, 700, 90):
        for y in range(120, 500, 80):
            place = (int(x + rng.integers(-25, 25)), int(y + rng.integers(-25, 25)))
            cv2.ellipse(image, place, (14, 10), float(rng.uniform(0, 180)), 0, 360, 40.0, -1)
    cv2.circle(image, (40, 560), 35, 40.0, -1)
    levels = measure_levels(cv2.GaussianBlur(image, (0, 0), 1))
    assert levels.stain == "g"
    assert levels.top < 60
    assert 14 < levels.width < 26


def test_nothing_stands_out_of_an_empty_image() -> None:
    levels = measure_levels(np.full((60, 80), 100, np.float32))
    assert not levels.is_found
    assert not levels.signal.any()


def test_a_hot_pixel_does_not_spoil_a_crop() -> None:
    grey = read_grey(EXAMPLES / "cell_46XY" / "01.png")
    clean = signal_image(grey)
    hot = grey * 100
    hot[2, 2] = 65_535
    inside = clean > 0.2
    found = signal_image(hot)
    assert found[inside].mean() == pytest.approx(clean[inside].mean(), rel=0.05)
