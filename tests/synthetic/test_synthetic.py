"""Synthetic chromosomes: band tables, drawing, cells and their files."""

import csv
from collections import Counter
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from chromozoo.classes import AUTOSOMES, CLASSES, Stain
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.karyotype.bands import bands_of, load_bands
from chromozoo.synthetic import (
    Appearance,
    SyntheticChromosome,
    draw_bands,
    draw_cell,
    draw_chromosome,
    draw_metaphase,
    write_bioimlab_layout,
    write_cell,
)

STRAIGHT = Appearance(bend=0.0, overlap=0.0, length_spread=0.0, cut=0.0)


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def arc_length(chromosome: SyntheticChromosome) -> float:
    return float(np.linalg.norm(np.diff(chromosome.axis, axis=0), axis=1).sum())


@pytest.mark.parametrize(("level", "rows"), [(400, 393), (550, 553), (850, 862)])
def test_band_tables_are_complete(level: int, rows: int) -> None:
    bands = load_bands(level)
    assert tuple(bands) == CLASSES
    assert sum(len(chromosome) for chromosome in bands.values()) == rows
    for chromosome in bands.values():
        assert chromosome[0].start == 0
        assert all(left.stop == right.start for left, right in pairwise(chromosome))
        assert all(band.start < band.stop and band.megabases > 0 for band in chromosome)
        arms = "".join(band.arm for band in chromosome)
        assert arms == "p" * arms.count("p") + "q" * arms.count("q")
        assert [band.arm for band in chromosome if band.kind == "acen"] == ["p", "q"]


def test_band_stains() -> None:
    bands = {(name, b.arm, b.name): b for name, rows in load_bands(550).items() for b in rows}
    assert bands["1", "p", "36.3"].density == 0
    assert bands["4", "q", "28"].density == 1
    assert bands["1", "q", "12"].density > 0.5 > bands["1", "q", "12"].fluorescence
    assert max(bands.values(), key=lambda b: b.fluorescence) is bands["Y", "q", "12"]
    # Physical size of chromosome 1 on GRCh38.
    assert sum(b.megabases for b in load_bands()["1"]) == pytest.approx(248.956422)


@pytest.mark.parametrize("stain", ["q", "g"])
@pytest.mark.parametrize("name", CLASSES)
def test_every_class_in_both_stains(name: str, stain: Stain) -> None:
    rng = np.random.default_rng(CLASSES.index(name))
    for _ in range(3):
        chromosome = draw_chromosome(name, Appearance.random(rng, stain), rng)
        image, mask = chromosome.image, chromosome.mask
        assert image.dtype == np.uint8 and mask.dtype == bool and image.shape == mask.shape
        assert chromosome.label == name
        assert mask.sum() > 30
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not border.any()
        inside, outside = float(np.median(image[mask])), float(np.median(image[~mask]))
        if stain == "q":
            assert outside < 4 < inside - 4
        else:
            assert inside + 20 < outside and outside > 215
        assert cv2.connectedComponents(mask.astype(np.uint8))[0] <= 3  # chromatids may part
        x, y = chromosome.centromere
        assert 0 < x < image.shape[1] - 1 and 0 < y < image.shape[0] - 1


def test_a_cell_is_reproducible() -> None:
    classes = CLASSES[::4]
    first, again, other = (
        draw_cell(np.random.default_rng(seed), karyotype=[*classes, *classes]) for seed in (7, 7, 8)
    )
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert all(a.angle == b.angle for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True))
    # Homologues share the appearance, but not the pixels.
    assert not np.array_equal(first[0].image, first[len(classes)].image)


def test_lengths_follow_the_karyotype() -> None:
    rng = np.random.default_rng(0)
    length = {n: arc_length(draw_chromosome(n, STRAIGHT, rng)) for n in CLASSES}
    assert length["1"] == pytest.approx(STRAIGHT.length, rel=0.02)
    order = ["1", "3", "6", "10", "13", "16", "18", "21"]
    assert all(length[long] > length[short] for long, short in pairwise(order))
    assert 0.15 < length["21"] / length["1"] < 0.25
    area = {n: draw_chromosome(n, STRAIGHT, rng).mask.sum() for n in ("1", "10", "21")}
    assert area["1"] > area["10"] > area["21"]


@pytest.mark.parametrize("name", ["1", "13", "18"])
def test_centromere_follows_the_band_table(name: str) -> None:
    chromosome = draw_chromosome(name, STRAIGHT, np.random.default_rng(3), angle=0.0)
    bands = bands_of(name)
    expected = next(b.start for b in bands if b.arm == "q") / bands[-1].stop
    top, bottom = chromosome.axis[[0, -1], 1]
    assert (chromosome.centromere[1] - top) / (bottom - top) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("name", ["1", "18"])
def test_the_waist_lies_at_the_centromere(name: str) -> None:
    chromosome = draw_chromosome(name, STRAIGHT, np.random.default_rng(3), angle=0.0)
    rows = np.flatnonzero(chromosome.mask.any(axis=1))
    ends = 5  # the rounded telomeres are narrow as well
    span = slice(rows[0] + ends, rows[-1] - ends)
    columns = np.arange(chromosome.mask.shape[1])
    extent = [np.ptp(columns[row]) for row in chromosome.mask[span]]
    waist = span.start + int(np.argmin(gaussian_filter1d(np.array(extent, float), 1.0)))
    assert waist == pytest.approx(chromosome.centromere[1], abs=2.0)


@pytest.mark.parametrize(("angle", "polarity"), [(0.0, "p"), (60.0, "p"), (180.0, "q")])
def test_angle_rotates_counter_clockwise(angle: float, polarity: str) -> None:
    chromosome = draw_chromosome("2", STRAIGHT, np.random.default_rng(1), angle=angle)
    assert chromosome.angle == angle and chromosome.polarity == polarity
    x, y = chromosome.axis[0] - chromosome.axis[-1]  # from the q to the p telomere
    assert np.degrees(np.arctan2(-x, -y)) % 360 == pytest.approx(angle, abs=0.5)


def test_yq12_is_the_brightest_band_of_a_q_banded_y() -> None:
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(10):
        image = draw_chromosome("Y", STRAIGHT, rng, angle=0.0).image.astype(float)
        half = image.shape[0] // 2
        ratios.append(image[half:].max() / image[:half].max())
    assert np.median(ratios) > 1.2


def test_g_bands_are_dark_where_q_bands_are_bright() -> None:
    """Chromosome 4 is dark in G and bright in Q; chromosome 19 is pale in both."""
    rng = np.random.default_rng(2)
    strength = {}
    stains: tuple[tuple[Stain, float], ...] = (("q", 0.0), ("g", 250.0))
    for stain, background in stains:
        look = Appearance(stain=stain, background=background, gain_spread=0.0, overlap=0.0)
        for name in ("4", "19"):
            drawn = [draw_chromosome(name, look, rng) for _ in range(5)]
            means = [abs(c.image[c.mask].mean() - background) for c in drawn]
            strength[stain, name] = np.mean(means)
    assert strength["q", "4"] > 1.4 * strength["q", "19"]
    # The heterochromatin next to the centromere of 19 is dark in G only.
    assert strength["g", "4"] > 1.2 * strength["g", "19"]


def test_bands_of_two_chromosomes_add_up() -> None:
    """A translocation needs bands of any origin in any order."""
    rng = np.random.default_rng(4)
    q_arm = tuple(band for band in bands_of("21") if band.arm == "q" and band.kind != "acen")
    joined = draw_bands((*bands_of("10"), *q_arm), "10", STRAIGHT, rng)
    alone = draw_chromosome("10", STRAIGHT, rng)
    other = draw_bands((*bands_of("21"),), "21", STRAIGHT, rng)
    gained = arc_length(joined) - arc_length(alone)
    assert 0.5 * arc_length(other) < gained < arc_length(other)
    with pytest.raises(ValueError, match="no centromere"):
        draw_bands(q_arm, "21", STRAIGHT, rng)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'23'.*1, 2, 3.*22, X, Y"):
        draw_chromosome("23", STRAIGHT, np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match=r"500.*400, 550, 850"):
        load_bands(500)
    with pytest.raises(UnknownNameError, match=r"'r'.*'q' or 'g'"):
        Appearance(stain="r")  # type: ignore[arg-type]


def test_karyotype_of_a_cell() -> None:
    sexes = set()
    for seed in range(3):
        cell = draw_cell(np.random.default_rng(seed))
        counts = Counter(chromosome.label for chromosome in cell)
        assert all(counts[name] == 2 for name in AUTOSOMES)
        sexes.add((counts["X"], counts["Y"]))
    assert sexes == {(2, 0), (1, 1)}
    trisomy = ["21", "21", "21", "X"]
    drawn = draw_cell(np.random.default_rng(0), karyotype=trisomy, stain="g")
    assert [chromosome.label for chromosome in drawn] == trisomy
    assert all(chromosome.image[0, 0] > 200 for chromosome in drawn)


def test_write_cell_hides_the_classes(tmp_path: Path) -> None:
    cell = draw_cell(np.random.default_rng(0), karyotype=CLASSES)
    write_cell(tmp_path / "cell", cell)
    with (tmp_path / "cell" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{number:02d}.png" for number in range(1, 25)]
    labels = [row["label"] for row in rows]
    assert Counter(labels) == Counter(chromosome.label for chromosome in cell)
    assert labels != [chromosome.label for chromosome in cell]
    names = {path.name for path in (tmp_path / "cell").iterdir()}
    assert names == {row["file"] for row in rows} | {"labels.csv"}
    for row in rows:
        image = read(tmp_path / "cell" / row["file"])
        same = [c.label for c in cell if np.array_equal(c.image, image)]
        assert same == [row["label"]]


def test_bioimlab_layout(tmp_path: Path) -> None:
    write_bioimlab_layout(tmp_path / "a", [6, 13], seed=1)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["13", "6"]
    pairs = {f"{number}{letter}.bmp" for number in range(1, 23) for letter in "ab"}
    female = {path.name for path in (tmp_path / "a" / "6").iterdir()}
    male = {path.name for path in (tmp_path / "a" / "13").iterdir()}
    assert female == {f"6 {name}" for name in pairs | {"23a.bmp", "23b.bmp"}}
    assert male == {f"13 {name}" for name in pairs | {"23.bmp", "24.bmp"}}
    image = read(tmp_path / "a" / "13" / "13 24.bmp")
    assert image.ndim == 2 and image.dtype == np.uint8

    write_bioimlab_layout(tmp_path / "b", 1, seed=1)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["1"]
    # A cell depends on the seed and its own number only.
    write_bioimlab_layout(tmp_path / "c", [6], seed=1)
    for path in (tmp_path / "c" / "6").iterdir():
        assert path.read_bytes() == (tmp_path / "a" / "6" / path.name).read_bytes()


@pytest.mark.parametrize("stain", ["q", "g"])
def test_a_metaphase_shows_its_chromosomes_in_their_outlines(stain: Stain) -> None:
    karyotype = ["1", "2", "21", "21", "21", "X", "Y"]
    drawn = draw_metaphase(
        np.random.default_rng(0), karyotype=karyotype, stain=stain, overlap=0, height=300, width=300
    )
    assert drawn.image.shape == (300, 300) and drawn.image.dtype == np.uint8
    assert sorted(drawn.labels) == sorted(karyotype)
    ground = np.median(drawn.image)
    signal = np.abs(drawn.image - ground)
    outlined = np.zeros((300, 300), np.uint8)
    for polygon in drawn.polygons:
        cv2.fillPoly(outlined, [np.round(polygon).astype(np.int32)], 1)
    inside, outside = signal[outlined > 0], signal[cv2.dilate(outlined, np.ones((13, 13))) == 0]
    assert inside.mean() > 20 * outside.mean()
    area = {}
    for label, polygon in zip(drawn.labels, drawn.polygons, strict=True):
        area[label] = cv2.contourArea(polygon.astype(np.float32))
    assert area["1"] > 2 * area["21"]
    again = draw_metaphase(
        np.random.default_rng(0), karyotype=karyotype, stain=stain, overlap=0, height=300, width=300
    )
    assert np.array_equal(drawn.image, again.image)


def test_a_metaphase_too_small_for_its_cell_is_refused() -> None:
    with pytest.raises(ChromozooError, match="60x60 pixels have no room for 46 chromosomes"):
        draw_metaphase(np.random.default_rng(0), height=60, width=60)
