"""Extraction of chromosomes from karyograms, and refusal of uncertain images."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.drawn_karyograms import (
    FEMALE,
    KARYOTYPES,
    MALE,
    Truth,
    draw_chromosomes,
    draw_karyogram_page,
)
from numpy.typing import NDArray
from PIL import Image

from chromozoo.classes import AUTOSOMES, CLASSES
from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.images.karyogram_extract import KaryogramCrop, extract_chromosomes
from chromozoo.images.karyogram_layout import LAYOUTS, RELATIVE_LENGTHS
from chromozoo.images.signal import signal_image
from chromozoo.synthetic import Appearance, draw_chromosome
from chromozoo.visualization import karyogram
from chromozoo.visualization.karyogram import KaryogramEntry, draw_karyogram

EXAMPLE = Path(__file__).parents[2] / "docs" / "karyogram.png"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[NDArray[np.uint8], Truth]]:
    """Draw a karyogram of ChromoZoo, with the box of each chromosome."""
    layouts = []
    lay_out = karyogram._lay_out

    def remember(*arguments: object, **keywords: object) -> object:
        layouts.append(lay_out(*arguments, **keywords))  # type: ignore[arg-type]
        return layouts[-1]

    monkeypatch.setattr(karyogram, "_lay_out", remember)

    def draw(
        karyotype: list[str], background: str = "light", seed: int = 0
    ) -> tuple[NDArray[np.uint8], Truth]:
        entries = [
            KaryogramEntry(signal_image(image.astype(np.float32)), name, 0.6, number % 9 == 0)
            for number, (name, image) in enumerate(draw_chromosomes(karyotype, seed))
        ]
        drawn = draw_karyogram(
            entries,
            title="cell 7",
            iscn="a karyotype",
            footer="drawn by a test",
            stain_background=background,  # type: ignore[arg-type]
        )
        truth = [
            (place.label, (place.left, place.top, place.width, place.height))
            for place in layouts[-1].places
            if place.entry is not None
        ]
        return np.asarray(drawn), truth

    return draw


def check(crops: list[KaryogramCrop], truth: Truth) -> None:
    """Check that each chromosome was cut once, at its box, with the class of its position."""
    assert len(crops) == len(truth)
    left = list(truth)
    for crop in crops:
        x, y, width, height = crop.box
        assert crop.image.shape == (height, width)
        inside = [
            (label, box)
            for label, box in left
            if x < box[0] + box[2] / 2 < x + width and y < box[1] + box[3] / 2 < y + height
        ]
        assert [label for label, _ in inside] == [crop.label]
        left.remove(inside[0])
        # The whole chromosome and a margin, but no more.
        assert abs(height - inside[0][1][3]) <= 16 and abs(width - inside[0][1][2]) <= 16


# Round trips


@pytest.mark.parametrize("name", KARYOTYPES)
@pytest.mark.parametrize("background", ["light", "dark"])
def test_our_own_karyograms(
    drawn: Callable[..., tuple[NDArray[np.uint8], Truth]], name: str, background: str
) -> None:
    image, truth = drawn(KARYOTYPES[name], background, seed=len(name))
    check(extract_chromosomes(image, name), truth)


@pytest.mark.parametrize("name", KARYOTYPES)
def test_karyograms_of_a_laboratory(name: str) -> None:
    image, truth = draw_karyogram_page(KARYOTYPES[name], seed=len(name))
    check(extract_chromosomes(image, name), truth)


@pytest.mark.parametrize("scale", [0.75, 2.0])
def test_images_of_another_size(scale: float) -> None:
    image, truth = draw_karyogram_page(MALE)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=method))
    crops = extract_chromosomes(scaled)
    assert Counter(crop.label for crop in crops) == Counter(MALE)
    for crop, (_, box) in zip(crops, truth, strict=True):
        middle = crop.box[0] + crop.box[2] / 2
        assert middle / scale == pytest.approx(box[0] + box[2] / 2, abs=5)


def test_the_example_of_the_package() -> None:
    crops = extract_chromosomes(np.asarray(Image.open(EXAMPLE)))
    assert [crop.label for crop in crops] == sorted([*FEMALE, "21"], key=CLASSES.index)


def test_sixteen_bits_and_colour_channels_change_nothing() -> None:
    image, truth = draw_karyogram_page(MALE)
    check(extract_chromosomes(image.astype(np.uint16) * 257), truth)
    check(extract_chromosomes(np.dstack([image] * 3)), truth)


def test_an_image_in_false_colour() -> None:
    """A tinted stain is no annotation: all ink is coloured."""
    image, truth = draw_karyogram_page(FEMALE)
    blue = np.zeros((*image.shape, 3), np.uint8)
    blue[..., 2] = 255 - image
    check(extract_chromosomes(blue), truth)


def test_coloured_frames_do_not_come_along(
    drawn: Callable[..., tuple[NDArray[np.uint8], Truth]],
) -> None:
    image, truth = drawn(MALE)
    coloured = np.ptp(image.astype(int), axis=2) > 60
    assert coloured.sum() > 500  # doubtful ones are framed and marked
    crops = extract_chromosomes(image)
    check(crops, truth)
    for crop in crops:
        x, y, width, height = crop.box
        marks = coloured[y : y + height, x : x + width]
        assert (crop.image[marks] == 255).all()


# Content of the crops


def test_crops_keep_the_grey_values_and_show_one_chromosome() -> None:
    image, _ = draw_karyogram_page(MALE)
    crops = extract_chromosomes(image)
    for crop in crops:
        x, y, width, height = crop.box
        own = image[y : y + height, x : x + width]
        changed = crop.image != own
        assert (crop.image[changed] == np.median(image)).all()
        assert changed.mean() < 0.3
        ink = (crop.image < 200).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(ink)
        assert stats[1:, cv2.CC_STAT_AREA].max() > 0.9 * ink.sum()
        rim = np.concatenate([crop.image[0], crop.image[-1], crop.image[:, 0], crop.image[:, -1]])
        assert rim.min() > 200


def test_copies_are_lettered_from_left_to_right() -> None:
    crops = extract_chromosomes(draw_karyogram_page(KARYOTYPES["47,XX,+21"], seed=9)[0])
    copies = [crop for crop in crops if crop.label == "21"]
    assert [crop.copy for crop in copies] == ["a", "b", "c"]
    assert sorted(crop.box[0] for crop in copies) == [crop.box[0] for crop in copies]


# Refused images


def test_touching_homologues_are_separated() -> None:
    image, truth = draw_karyogram_page(MALE, seed=3, touching="9")
    check(extract_chromosomes(image), truth)


def test_overlapping_homologues_are_refused() -> None:
    image, truth = draw_karyogram_page(MALE, seed=3)
    (x, y, width, height), (second, *_) = [box for label, box in truth if label == "9"]
    between = image[int(y) : int(y + height), int(x + width / 2) : int(second + 8)]
    between[:] = 60
    with pytest.raises(ImageError, match=r"^p\.png: row 2: two chromosomes seem to touch at x \d+"):
        extract_chromosomes(image, "p.png")


def test_a_missing_class_is_refused(
    drawn: Callable[..., tuple[NDArray[np.uint8], Truth]],
) -> None:
    """The empty position cannot be recognised, and all classes after it would be wrong."""
    image, _ = drawn([name for name in MALE if name != "8"])
    with pytest.raises(ImageError, match=r"row 2 shows 12 chromosomes, .* which class of 6 7 8"):
        extract_chromosomes(image)


def test_a_gain_between_even_gaps_is_refused() -> None:
    image, _ = draw_karyogram_page(KARYOTYPES["47,XY,+8"], pair=20, between=4)
    with pytest.raises(ImageError, match="row 2 shows 15 chromosomes, and the gaps"):
        extract_chromosomes(image)


def test_too_many_in_a_row() -> None:
    image, _ = draw_karyogram_page([*MALE, "1", "2", "3"])
    with pytest.raises(ImageError, match="row 1 shows 13 chromosomes, which do not fit 1 2 3 4 5"):
        extract_chromosomes(image)


def test_a_missing_row() -> None:
    image, truth = draw_karyogram_page(MALE)
    end = min(box[1] for label, box in truth if label in LAYOUTS["denver"][3])
    with pytest.raises(ImageError, match="found 3 rows with 10, 14, 12 chromosomes"):
        extract_chromosomes(image[: int(end) - 2])


@pytest.mark.parametrize(
    "image",
    [
        np.full((300, 400), 255, np.uint8),
        np.zeros((300, 400, 3), np.uint8),
        np.random.default_rng(0).normal(200, 2, (300, 400)).astype(np.uint8),
        draw_chromosome("3", Appearance(), np.random.default_rng(0)).image,
        cv2.putText(np.full((300, 600), 255, np.uint8), "no image", (20, 90), 0, 2, 0, 3),
    ],
    ids=["white", "black", "noise", "one chromosome", "writing"],
)
def test_no_karyogram(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match=r"^k\.png: (no chromosomes found|found \d rows?)"):
        extract_chromosomes(image, "k.png")


@pytest.mark.parametrize("kind", ["grey", "colour", "blurred", "dots"])
def test_noise_is_refused_at_once(kind: str) -> None:
    """Joining its components pair by pair took a minute."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (700, 700, 3)).astype(np.uint8)
    if kind == "grey":
        noise = noise[..., 0]
    if kind == "blurred":
        noise = cv2.normalize(cv2.GaussianBlur(noise[..., 0], (0, 0), 3), None, 0, 255, 32)
    if kind == "dots":
        noise = np.full((700, 700), 255, np.uint8)
        for x, y in rng.integers(0, 700, (1500, 2)).tolist():
            cv2.circle(noise, (x, y), 4, 0, -1)
    start = time.process_time()
    with pytest.raises(ImageError, match=r"^k\.png: shows .* noise and no karyogram; scan or exp"):
        extract_chromosomes(noise, "k.png")
    assert time.process_time() - start < 2


def test_an_image_far_too_large_is_refused() -> None:
    page = np.broadcast_to(np.uint8(255), (7000, 7000))
    with pytest.raises(ImageError, match=r"^k\.png: 7000x7000 pixels are more than a karyogram n"):
        extract_chromosomes(page, "k.png")


def test_unknown_layout() -> None:
    with pytest.raises(UnknownNameError, match="unknown layout 'paris': use denver"):
        extract_chromosomes(np.zeros((9, 9)), layout="paris")


def test_a_layout_shows_every_class_once() -> None:
    for rows in LAYOUTS.values():
        assert sorted(name for row in rows for name in row) == sorted(CLASSES)
    autosomes = sum(RELATIVE_LENGTHS[name] for name in AUTOSOMES)
    assert autosomes == pytest.approx(100, abs=0.1)
