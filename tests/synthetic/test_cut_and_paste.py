"""Cut-and-paste synthesis with drawn chromosomes."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from chromozoo.cli.main import main
from chromozoo.structures.polygons import polygon_area, polygon_mask
from chromozoo.synthetic.cut_and_paste import Bank, CutChromosome, compose, cut_bank

HEIGHT, WIDTH = 320, 400


def drawn(length: int = 40, width: int = 12, cell: int = 0) -> CutChromosome:
    """A bar with signal 160 and soft edges."""
    margin = 6
    signal = np.zeros((length + 2 * margin, width + 2 * margin), np.float32)
    signal[margin:-margin, margin:-margin] = 160
    x0 = y0 = float(margin)
    x1, y1 = x0 + width, y0 + length
    polygon = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    soft = cv2.GaussianBlur(signal, (3, 3), 0.7)
    return CutChromosome(np.round(soft).astype(np.uint8), polygon, cell, 160.0)


@pytest.fixture(scope="module")
def bank() -> Bank:
    lengths = (24, 32, 40, 50, 60)
    return Bank([drawn(length, cell=cell) for cell in range(3) for length in lengths], [])


def masks_of(polygons: list[np.ndarray], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.stack([polygon_mask(polygon, height, width) for polygon in polygons])


def composed(bank: Bank, seed: int = 0, **arguments: object) -> tuple[np.ndarray, np.ndarray]:
    signal, polygons = compose(
        np.random.default_rng(seed),
        bank,
        HEIGHT,
        WIDTH,
        **({"chromosomes": 24, "distractors": (0, 0)} | arguments),  # type: ignore[arg-type]
    )
    return signal, masks_of(polygons)


def count_touching(masks: np.ndarray) -> int:
    """Number of chromosomes that overlap another or lie within 2 pixels of it."""
    counts = masks.sum(axis=0)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    return sum(
        bool((counts - mask)[cv2.dilate(mask.astype(np.uint8), disc) > 0].any()) for mask in masks
    )


def test_outlines_match_the_signal(bank: Bank) -> None:
    signal, masks = composed(bank)
    assert signal.shape == (HEIGHT, WIDTH) and signal.dtype == np.uint8
    assert len(masks) == 24
    covered = masks.any(axis=0)
    for mask in masks:
        inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert inner.any() and signal[inner].min() > 80
    rim = cv2.dilate(covered.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
    assert signal[~rim].max() < 12, "the ground is dark"


def test_composition_is_reproducible(bank: Bank) -> None:
    first, again, other = (composed(bank, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_share_of_overlaps(bank: Bank) -> None:
    shares = {}
    for overlap in (0.0, 0.5, 1.0):
        found = [composed(bank, seed, overlap=overlap, chromosomes=16)[1] for seed in range(3)]
        shares[overlap] = np.mean([count_touching(masks) / len(masks) for masks in found])
    assert shares[0.0] == 0
    # A chromosome that is pasted onto another makes both of them overlap.
    assert 0.5 <= shares[0.5] < shares[1.0] and shares[1.0] >= 0.9


def test_masks_are_amodal_and_never_hidden(bank: Bank) -> None:
    found = [composed(bank, seed, overlap=1.0)[1] for seed in range(4)]
    assert any((masks.sum(axis=0) > 1).sum() > 20 for masks in found)
    for masks in found:
        for mask in masks:
            others = masks.sum(axis=0) - mask
            # At most 0.45 when it is pasted, but later chromosomes may cover more.
            assert (others[mask] > 0).mean() < 0.95


@pytest.mark.parametrize("light", ["add", "max", "over"])
def test_light_where_chromosomes_cross(light: str, bank: Bank) -> None:
    crossing, single = [], []
    for seed in range(5):
        signal, masks = composed(bank, seed, overlap=1.0, lights=[light], scale=(1, 1))
        counts = masks.sum(axis=0).astype(np.uint8)
        inner = cv2.erode((counts == 2).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        crossing.append(signal[inner])
        core = cv2.erode((counts == 1).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        single.append(signal[core])
    ratio = np.median(np.concatenate(crossing)) / np.median(np.concatenate(single))
    assert (ratio > 1.3) if light == "add" else (0.85 < ratio < 1.15)


def test_a_whole_cell_lies_in_the_image(bank: Bank) -> None:
    for seed in range(4):
        _, polygons = compose(np.random.default_rng(seed), bank, HEIGHT, WIDTH, radius=(300, 400))
        points = np.concatenate(polygons)
        assert points.min() >= 0 and (points.max(axis=0) <= (WIDTH, HEIGHT)).all()


def test_a_crop_shows_part_of_a_cell(bank: Bank) -> None:
    counts, outside = [], 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        signal, polygons = compose(rng, bank, 128, 128, whole=False)
        assert signal.shape == (128, 128)
        counts.append(len(polygons))
        outside += sum(bool((p.min() < 0) or (p.max() > 128)) for p in polygons)
    assert 0 < np.mean(counts) < 30 and max(counts) < 46
    assert outside, "chromosomes reach out of a crop"


def test_scale_of_the_cell(bank: Bank) -> None:
    areas = {}
    for scale in (0.7, 1.4):
        one = Bank([drawn()], [])
        rng = np.random.default_rng(0)
        _, polygons = compose(rng, one, HEIGHT, WIDTH, chromosomes=8, scale=(scale, scale))
        areas[scale] = np.mean([polygon_area(polygon) for polygon in polygons])
        assert areas[scale] == pytest.approx(40 * 12 * scale**2, rel=0.12)


def test_distractors_have_no_masks(bank: Bank) -> None:
    with_many, masks = composed(bank, 5, chromosomes=3, distractors=(200, 200))
    plain, _ = composed(bank, 5, chromosomes=3)
    assert len(masks) == 3
    assert (with_many > 30).sum() > (plain > 30).sum() + 200


def test_chromosomes_do_not_lie_on_nuclei(bank: Bank) -> None:
    """The light of a nucleus would hide them."""
    ground = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(ground, (200, 160), 70, 180, -1)
    signal, masks = composed(Bank(bank.chromosomes, [ground]), 1, overlap=0.8)
    assert len(masks) > 12
    nucleus = (ground > 0) | (ground[::-1] > 0) | (ground[:, ::-1] > 0)
    both_mirrors = (ground > 0) & (ground[::-1, ::-1] > 0) & (ground[::-1] > 0) & nucleus
    assert not masks[:, both_mirrors].any()
    assert signal[160, 200] == 180


def test_chromosomes_that_do_not_fit_are_left_out(bank: Bank) -> None:
    signal, polygons = compose(np.random.default_rng(0), bank, 80, 80, chromosomes=100)
    assert 0 < len(polygons) < 100 and signal.shape == (80, 80)


def test_small_backgrounds_are_mirrored(bank: Bank) -> None:
    ground = np.full((50, 60), 20, np.uint8)
    signal, _ = composed(Bank(bank.chromosomes, [ground]), chromosomes=1)
    assert np.median(signal) == 20


# The bank


def metaphase() -> tuple[np.ndarray, list[np.ndarray]]:
    """Five bars on haze: a free one, two crossing ones, one at the edge, one near another."""
    signal = np.full((200, 240), 4, np.uint8)
    boxes = [(40, 30, 52, 80), (100, 60, 160, 72), (125, 40, 137, 95), (0, 120, 30, 132)]
    boxes.append((139, 80, 150, 120))
    polygons = []
    for x0, y0, x1, y1 in boxes:
        signal[y0:y1, x0:x1] = 150
        polygons.append(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float))
    return signal, polygons


def test_only_free_chromosomes_are_cut(bank: Bank) -> None:
    signal, polygons = metaphase()
    cut = cut_bank([(signal, polygons), (signal, polygons)], backgrounds=1)
    assert [chromosome.cell for chromosome in cut.chromosomes] == [0, 1]
    first = cut.chromosomes[0]
    assert first.level == 150
    mask = polygon_mask(first.polygon, *first.signal.shape)
    np.testing.assert_array_equal(mask, first.signal == 150)
    assert mask.sum() == 12 * 50


def test_backgrounds_have_no_chromosomes() -> None:
    signal, polygons = metaphase()
    signal[170:180, 200:210] = 220  # debris
    cut = cut_bank([(signal, polygons)] * 3, backgrounds=2)
    assert len(cut.backgrounds) == 2
    for polygon in polygons:
        assert cut.backgrounds[0][polygon_mask(polygon, *signal.shape)].max() <= 30
    assert cut.backgrounds[0][175, 205] == 220
    assert np.median(cut.backgrounds[0]) == 4


# The command


@pytest.fixture
def labelme_set(tmp_path: Path) -> Path:
    """Two training images in the published layout."""
    import base64
    import io

    from PIL import Image

    folder = tmp_path / "bioimlab-segmentation"
    folder.mkdir()
    signal, polygons = metaphase()
    buffer = io.BytesIO()
    Image.fromarray(signal).save(buffer, "PNG")
    data = {
        "shapes": [{"label": "chr", "points": polygon.tolist()} for polygon in polygons],
        "imageData": base64.b64encode(buffer.getvalue()).decode(),
        "imageHeight": 200,
        "imageWidth": 240,
    }
    for key in ("2", "3"):
        (folder / f"original_{key}.json").write_text(json.dumps(data))
    return folder


def test_synthesize_writes_coco(labelme_set: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "out"
    arguments = ["data", "compose", "--output", str(output), "--root", str(labelme_set)]
    assert main([*arguments, "--count", "2", "--chromosomes", "5"]) == 0
    assert "2 metaphases" in capsys.readouterr().out
    data = json.loads((output / "annotations.json").read_text())
    assert sorted(os.listdir(output / "images")) == ["synthetic_00001.png", "synthetic_00002.png"]
    assert [image["width"] for image in data["images"]] == [768, 768]
    assert len(data["annotations"]) == 10
    assert "bioimlab-segmentation" in data["info"]["description"]
    before = (output / "images" / "synthetic_00002.png").read_bytes()
    assert main([*arguments, "--count", "2", "--chromosomes", "5"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--count", "3", "--chromosomes", "5", "--overwrite"]) == 0
    assert (output / "images" / "synthetic_00002.png").read_bytes() == before, "same seed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count 0: give 1 to"),
        (["--count", "1", "--overlap", "1.5"], "--overlap 1.5: give a fraction from 0 to 1"),
        (["--count", "1", "--chromosomes", "0"], "--chromosomes 0: give 1 to 200"),
        (["--count", "1", "--seed", "-1"], "--seed -1"),
        (["--count", "1", "--root", "nowhere"], "  1. "),
    ],
)
def test_synthesize_refuses(arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main(["data", "compose", "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
