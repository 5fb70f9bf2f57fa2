"""Grey levels of metaphases with dirt, nuclei, frames, dead lines and dim corners."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from chromozoo.images.defects import repair_defects
from chromozoo.images.levels import Levels, measure_levels
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.images.reading import read_grey
from chromozoo.images.signal import signal_image
from chromozoo.karyotype.karyotyper import Karyotyper
from chromozoo.models.karyotyper import get_karyotyper

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Image = NDArray[np.float32]


@cache
def metaphase(stain: str) -> Image:
    """The example in 16 bits with headroom, bright on dark or dark on light; read-only."""
    grey = read_grey(EXAMPLES / "normal_46XY.png")
    bright = 3000 + 30 * (grey - np.median(grey))
    image = (bright if stain == "q" else 20_000 - bright).astype(np.float32)
    image.setflags(write=False)
    return image


@cache
def clean_levels(stain: str) -> Levels:
    return measure_levels(metaphase(stain))


def drawn(image: Image, draw: Callable[[NDArray[np.uint8]], Any], times: float) -> Image:
    """Draw objects with ``times`` the departure of the chromosomes."""
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


def black_below(image: Image) -> Image:
    """A black area below the image, of the same size, in an 8-bit JPEG."""
    unit = (image - image.min()) / np.ptp(image)
    shown = np.pad((40 + 200 * unit).astype(np.uint8), ((0, image.shape[0]), (0, 0)))
    _, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 75])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32)


def many_specks(image: Image) -> Image:
    def draw(mask: NDArray[np.uint8]) -> None:
        for number in range(12):
            cv2.circle(mask, (30 + 60 * number, 40), 4 + number % 5, 1, -1)
            cv2.circle(mask, (40 + 60 * number, 550), 4 + number % 7, 1, -1)

    return drawn(image, draw, 6)


def dead_rows(image: Image) -> Image:
    changed = image.copy()
    changed[[100, 250, 400]] = 65_535
    changed[300:303] = 0
    return changed


def hot_pixels(image: Image) -> Image:
    changed = image.copy()
    changed[np.random.default_rng(0).random(image.shape) < 0.005] = 65_535
    return changed


def lit_from_the_left(image: Image) -> Image:
    return (image * np.linspace(1, 0.35, image.shape[1])).astype(np.float32)


def vignette(image: Image) -> Image:
    """Corners have 40 % of the light of the middle."""
    rows, columns = np.indices(image.shape)
    far = np.hypot(rows / image.shape[0] - 0.5, columns / image.shape[1] - 0.5) / 0.707
    return (image * (1 - 0.6 * far**2)).astype(np.float32)


def caption(image: Image) -> Image:
    letters = np.zeros(image.shape, np.uint8)
    cv2.putText(letters, "Case 17, cell 4", (20, 560), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)
    return np.where(letters > 127, np.float32(65_535), image)


@pytest.fixture(scope="module")
def karyotyper() -> Karyotyper:
    return get_karyotyper()


CHANGES = {
    "dead column": dead_column,
    "saturated row": saturated_row,
    "specks": specks,
    "nuclei": nuclei,
    "black frame": framed(0),
    "white frame": framed(65_535),
    "white screen": white_screen,
    "many specks": many_specks,
    "dead rows": dead_rows,
    "hot pixels": hot_pixels,
    "light from the left": lit_from_the_left,
    "vignette": vignette,
    "caption": caption,
}


def agreement(changed: Image, levels: Levels, clean: Levels) -> tuple[float, float]:
    """Correlation of both signals on the chromosomes, and the ratio of their means."""
    height, width = clean.signal.shape
    top, left = ((a - b) // 2 for a, b in zip(changed.shape, clean.signal.shape, strict=True))
    signal = levels.signal[top : top + height, left : left + width]
    # The changes draw over the rim of the image.
    inside = clean.signal > 0.2
    inside[:115], inside[-115:], inside[:, :115], inside[:, -115:] = False, False, False, False
    found, true = signal[inside], clean.signal[inside]
    return float(np.corrcoef(found, true)[0, 1]), float(found.mean() / true.mean())


@pytest.mark.parametrize("stain", ["q", "g"])
@pytest.mark.parametrize("name", CHANGES)
def test_artefacts_do_not_change_the_levels(name: str, stain: str) -> None:
    clean = clean_levels(stain)
    changed = CHANGES[name](metaphase(stain))
    levels = measure_levels(changed)
    correlation, ratio = agreement(changed, levels, clean)
    assert levels.stain == clean.stain == stain
    # Bright chromosomes are dimmer in less light, even after the correction of the background.
    assert correlation > (0.93 if name == "light from the left" and stain == "q" else 0.97)
    assert 0.8 < ratio < 1.25
    assert levels.width == pytest.approx(clean.width, rel=0.15)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dead column", "dead or saturated column"),
        ("saturated row", "dead or saturated row"),
        ("specks", "bright object"),
        ("nuclei", "bright object"),
        ("black frame", "black frame"),
        ("white screen", "a white screen of 2"),
        ("caption", "a caption or scale bar (1"),
    ],
)
def test_flags_describe_the_artefacts(name: str, text: str) -> None:
    levels = measure_levels(CHANGES[name](metaphase("q")))
    assert text in " ".join(levels.flags)
    assert levels.to_dict()["flags"] == list(levels.flags)


@pytest.mark.parametrize("stain", ["q", "g"])
def test_an_ordinary_image_is_not_changed(stain: str) -> None:
    image, levels = metaphase(stain), clean_levels(stain)
    assert levels.flags == levels.alarms == ()
    background = float(np.median(image))
    assert levels.background == pytest.approx(background, rel=0.02)
    departure = (image - levels.background) * (1 if stain == "q" else -1)
    expected = np.clip(departure / abs(levels.top - levels.background), 0, 1)
    assert np.abs(levels.signal - expected).max() < 1e-5


def test_short_solid_chromosomes_are_not_dirt() -> None:
    """Contracted chromosomes of one level, on a grainy background with a nucleus."""
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


def test_a_black_area_of_a_jpeg_is_cut_off() -> None:
    changed = black_below(metaphase("g"))
    levels = measure_levels(changed)
    assert levels.stain == "g"
    assert levels.frame is not None
    assert levels.frame.share == pytest.approx(0.5, abs=0.03)
    assert (levels.frame.shape, levels.frame.colour) == ("frame", "black")
    assert not levels.signal[-570:].any()


def test_isolated_specks_are_cut_out() -> None:
    image = metaphase("q")
    changed = specks(image)
    levels, clean = measure_levels(changed), clean_levels("q")
    assert not levels.signal[changed > 2 * image.max()].any()
    assert np.abs(levels.signal - clean.signal)[changed == image].max() < 0.1
    touching = image.copy()
    row, column = np.argwhere(clean.signal > 0.9)[0]
    cv2.circle(touching, (int(column), int(row)), 6, 60_000.0, -1)
    signal = measure_levels(touching).signal
    assert signal[row, column] == 1
    assert np.abs(signal - clean.signal)[touching == image].max() < 0.1


def test_haze_and_nuclei_are_not_a_screen() -> None:
    """Haze around a cell, and a large nucleus."""
    bright = metaphase("q")
    around = cv2.GaussianBlur(cv2.dilate(bright, np.ones((60, 60))), (0, 0), 25)
    image = np.maximum(bright, 3000 + 0.2 * (around - 3000))
    cv2.circle(image, (640, 480), 90, 9000.0, -1)
    levels = measure_levels(cv2.GaussianBlur(image, (0, 0), 1.5))
    assert levels.frame is None
    assert levels.stain == "q"


def test_a_caption_is_cut_out() -> None:
    for stain, level in (("q", 65_535), ("g", 0)):
        image = metaphase(stain)
        letters = np.zeros(image.shape, np.uint8)
        cv2.putText(letters, "Case 17, cell 4", (20, 560), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)
        cv2.line(letters, (600, 552), (720, 552), 255, 6)  # with rounded ends
        levels = measure_levels(np.where(letters > 127, np.float32(level), image))
        assert levels.letters >= 10
        assert not levels.signal[letters > 127].any()
        clean = clean_levels(stain)
        far = cv2.dilate(letters, np.ones((40, 40))) == 0
        assert np.abs(levels.signal - clean.signal)[far].max() < 0.15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stain", "name", "text"), [("q", "nuclei", "2 bright objects"), ("g", "black frame", "frame")]
)
def test_artefacts_do_not_change_the_karyotype(
    karyotyper: Karyotyper, monkeypatch: pytest.MonkeyPatch, stain: str, name: str, text: str
) -> None:
    """The example has 46 chromosomes, and its levels are measured once."""
    measured = []

    def counted(grey: Image) -> Levels:
        measured.append(grey)
        return measure_levels(grey)

    for module in ("karyotype.karyotyper", "images.metaphase"):
        monkeypatch.setattr(f"chromozoo.{module}.measure_levels", counted)
    found = karyotyper.karyotype(CHANGES[name](metaphase(stain)))
    assert found.stain == stain
    assert abs(found.count - 46) <= 1
    # As many as in the unchanged image; inverted Q-bands differ from G-bands.
    assert sum(item.needs_review for item in found.chromosomes) <= {"q": 4, "g": 18}[stain]
    assert any(text in flag for flag in found.flags)
    assert not found.alarms
    assert len(measured) == 1
    assert found.levels is not None
    assert found.levels.flags[0] in found.flags


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_dead_columns_are_filled(part: float) -> None:
    image = metaphase("q")
    changed = image.copy()
    changed[: int(part * image.shape[0]), 398:400] = 65_535
    found, defects = repair_defects(changed)
    assert (defects.rows, defects.columns, defects.hot_pixels) == (0, 2, 0)
    untouched = np.ones(image.shape, bool)
    untouched[:, 398:400] = False
    assert (found == changed)[untouched].all()
    assert np.corrcoef(found[:, 398], image[:, 398])[0, 1] > 0.9
    assert found.max() == image.max()


def test_dead_columns_at_the_background_level_are_filled() -> None:
    image = metaphase("q")
    changed = image.copy()
    changed[:, 398:400] = 3000
    found, defects = repair_defects(changed)
    assert defects.columns == 2
    assert np.corrcoef(found[:, 398], image[:, 398])[0, 1] > 0.9


def test_sharp_narrow_objects_are_not_defects() -> None:
    """Vertical rods three pixels apart, with corners, and a thin marker."""
    image = np.zeros((240, 320), np.float32)
    for x in range(30, 290, 17):
        image[60:180, x : x + 14] = 200
    image[20:50, 100:103] = 200
    found, defects = repair_defects(image)
    assert found is image
    assert not defects


def test_nuclei_without_a_cell_raise_an_alarm() -> None:
    image = np.full((400, 500), 3000, np.float32)
    for x in (100, 250, 400):
        cv2.circle(image, (x, 300), 45, 7000.0, -1)
        cv2.line(image, (x, 100), (x + 20, 130), 4000.0, 12)
    levels = measure_levels(cv2.GaussianBlur(image, (0, 0), 1))
    (alarm,) = levels.alarms
    assert alarm.startswith("the grey levels are doubtful: hardly anything that stands out")
    assert not clean_levels("q").alarms


def test_chromosomes_in_a_line_are_not_letters() -> None:
    image = np.full((400, 500), 3000, np.float32)
    for x in range(60, 400, 40):
        cv2.line(image, (x, 100), (x, 130), 6000.0, 14)
        cv2.line(image, (x, 200), (x + 12, 260), 5500.0, 13)
    levels = measure_levels(cv2.GaussianBlur(image, (0, 0), 1))
    assert levels.letters == 0
    assert levels.flags == levels.alarms == ()


def test_levels_are_stored_as_json() -> None:
    stored = json.loads(json.dumps(measure_levels(specks(metaphase("g"))).to_dict()))
    assert stored["stain"] == "g"
    assert stored["top"] < stored["background"] <= stored["high"]
    assert stored["excluded"]["outliers"]["count"] == 3
    assert stored["excluded"]["outliers"]["width"] == pytest.approx(29, abs=4)
    assert stored["excluded"]["outliers"]["times"] > 3
    assert stored["excluded"]["outliers"]["is_dark"]


def test_a_preset_uses_given_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    image, levels = metaphase("q"), clean_levels("q")
    monkeypatch.setattr("chromozoo.images.metaphase.measure_levels", None)
    preset = MetaphasePreset()
    prepared = preset(image, levels=levels)
    assert prepared.levels is levels
    assert prepared.canvas.max() == 255
    assert preset(image, zoom=0.5, levels=levels).canvas.shape == (288, 384)


def test_a_preset_warns_of_artefacts() -> None:
    prepared = MetaphasePreset()(dead_column(metaphase("q")), "a.png")
    assert any("a.png: a dead or saturated column" in text for text in prepared.warnings)


def test_an_empty_image_has_no_foreground() -> None:
    levels = measure_levels(np.full((60, 80), 100, np.float32))
    assert not levels.is_found
    assert not levels.signal.any()


def test_a_hot_pixel_does_not_change_the_signal_of_a_crop() -> None:
    grey = read_grey(EXAMPLES / "cell_46XY" / "01.png")
    clean = signal_image(grey)
    hot = grey * 100
    hot[2, 2] = 65_535
    inside = clean > 0.2
    found = signal_image(hot)
    assert found[inside].mean() == pytest.approx(clean[inside].mean(), rel=0.05)
