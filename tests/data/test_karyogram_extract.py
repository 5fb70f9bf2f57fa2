"""Cutting karyograms: every chromosome gets the class of its place, or the image is refused."""

import csv
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from chromozoo.classes import AUTOSOMES, CLASSES
from chromozoo.cli.main import main
from chromozoo.data.karyogram_extract import (
    LAYOUTS,
    RELATIVE_LENGTHS,
    KaryogramCrop,
    extract_chromosomes,
    extract_files,
)
from chromozoo.data.pki3 import list_files
from chromozoo.errors import ChromozooError, ImageError, OutputError, UnknownNameError
from chromozoo.images.signal import signal_image
from chromozoo.synthetic import Appearance, draw_chromosome
from chromozoo.visualization import karyogram
from chromozoo.visualization.karyogram import KaryogramEntry, draw_karyogram

Box = tuple[float, float, float, float]
Truth = list[tuple[str, Box]]

EXAMPLE = Path(__file__).parents[2] / "docs" / "karyogram.png"
MALE = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "Y"]
FEMALE = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "X"]
KARYOTYPES = {
    "46,XY": MALE,
    "46,XX": FEMALE,
    "47,XX,+21": [*FEMALE, "21"],
    "45,X": FEMALE[:-1],
    "45,XY,-13": [*MALE[:24], *MALE[25:]],
    "47,XY,+8": [*MALE, "8"],
}


def chromosomes(karyotype: list[str], seed: int = 0) -> list[tuple[str, NDArray[np.uint8]]]:
    """Upright G-banded chromosomes, dark on light, with their classes."""
    rng = np.random.default_rng(seed)
    look = Appearance(stain="g", bend=0.25, base=0.35, blur=1.0, background=255.0, noise=1.0)
    return [(name, draw_chromosome(name, look, rng, angle=0).image) for name in karyotype]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[NDArray[np.uint8], Truth]]:
    """Draws our own karyogram of a karyotype; also says where each chromosome stands."""
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
            for number, (name, image) in enumerate(chromosomes(karyotype, seed))
        ]
        drawn = draw_karyogram(
            entries,
            title="cell 7",
            iscn="a karyotype",
            footer="drawn by a test",
        )
        if background == "dark":
            drawn = ImageOps.invert(drawn)
        truth = [
            (place.label, (place.left, place.top, place.width, place.height))
            for place in layouts[-1].places
            if place.entry is not None
        ]
        return np.asarray(drawn), truth

    return draw


def lab_karyogram(
    karyotype: list[str],
    seed: int = 0,
    paper: int = 244,
    pair: int = 7,
    between: int = 34,
    touching: str = "",
) -> tuple[NDArray[np.uint8], Truth]:
    """As a laboratory prints it: title, rulers, numbers, a scale bar, a frame; noise and JPEG."""
    rng = np.random.default_rng(seed)
    cell = chromosomes(karyotype, seed)
    page = np.full((1100, 1300), paper, np.uint8)
    truth: Truth = []
    base, right = 110, 0
    for row in LAYOUTS["denver"]:
        base += max(image.shape[0] for name, image in cell if name in row) + 20
        x = 50
        for name in row:
            start = x
            for image in [image for label, image in cell if label == name]:
                ys, xs = np.nonzero(image < 225)
                own = image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
                height, width = own.shape
                window = page[base - height : base, x : x + width]
                window[:] = np.minimum(window, np.clip(own.astype(int) + paper - 255, 0, 255))
                truth.append((name, (x, base - height, width, height)))
                x += width + (pair if name != touching else 0)
            end = max(x, start + 30)
            cv2.line(page, (start, base + 9), (end - pair, base + 9), 0, 2)
            cv2.putText(
                page, name, ((start + end) // 2 - 12, base + 32), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 0
            )
            x = end + between
        right = max(right, x)
        base += 40
    cv2.putText(page, "Case 12-345  46,XY", (50, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, 0, 2)
    cv2.line(page, (right - 150, 40), (right - 60, 40), 0, 4)
    page = page[: base + 20, : right + 30].copy()
    cv2.rectangle(page, (6, 6), (page.shape[1] - 7, page.shape[0] - 7), 0, 2)
    noisy = np.clip(page + rng.normal(0, 2, page.shape), 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8), truth


def check(crops: list[KaryogramCrop], truth: Truth) -> None:
    """Each chromosome was cut once, where it stands, and has the name of its place."""
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
    image, truth = lab_karyogram(KARYOTYPES[name], seed=len(name))
    check(extract_chromosomes(image, name), truth)


@pytest.mark.parametrize("scale", [0.75, 2.0])
def test_images_of_another_size(scale: float) -> None:
    image, truth = lab_karyogram(MALE)
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
    image, truth = lab_karyogram(MALE)
    check(extract_chromosomes(image.astype(np.uint16) * 257), truth)
    check(extract_chromosomes(np.dstack([image] * 3)), truth)


def test_a_image_in_false_colour() -> None:
    """A tinted stain is no mark: all of the ink is coloured."""
    image, truth = lab_karyogram(FEMALE)
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


# What a crop shows


def test_crops_keep_the_grey_values_and_show_one_chromosome() -> None:
    image, _ = lab_karyogram(MALE)
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
    crops = extract_chromosomes(lab_karyogram(KARYOTYPES["47,XX,+21"], seed=9)[0])
    copies = [crop for crop in crops if crop.label == "21"]
    assert [crop.copy for crop in copies] == ["a", "b", "c"]
    assert sorted(crop.box[0] for crop in copies) == [crop.box[0] for crop in copies]


# What is refused


def test_homologues_that_touch_are_parted() -> None:
    image, truth = lab_karyogram(MALE, seed=3, touching="9")
    check(extract_chromosomes(image), truth)


def test_homologues_that_lie_over_each_other_are_not_taken_for_one() -> None:
    image, truth = lab_karyogram(MALE, seed=3)
    (x, y, width, height), (second, *_) = [box for label, box in truth if label == "9"]
    between = image[int(y) : int(y + height), int(x + width / 2) : int(second + 8)]
    between[:] = 60
    with pytest.raises(ImageError, match=r"^p\.png: row 2: two chromosomes seem to touch at x \d+"):
        extract_chromosomes(image, "p.png")


def test_a_class_without_any_copy_is_not_guessed(
    drawn: Callable[..., tuple[NDArray[np.uint8], Truth]],
) -> None:
    """Nothing tells the empty place; the names of all that follow would be wrong."""
    image, _ = drawn([name for name in MALE if name != "8"])
    with pytest.raises(ImageError, match=r"row 2 shows 12 chromosomes, .* which class of 6 7 8"):
        extract_chromosomes(image)


def test_a_gain_between_even_gaps_is_not_guessed() -> None:
    image, _ = lab_karyogram(KARYOTYPES["47,XY,+8"], pair=20, between=4)
    with pytest.raises(ImageError, match="row 2 shows 15 chromosomes, and the gaps"):
        extract_chromosomes(image)


def test_too_many_in_a_row() -> None:
    image, _ = lab_karyogram([*MALE, "1", "2", "3"])
    with pytest.raises(ImageError, match="row 1 shows 13 chromosomes, which do not fit 1 2 3 4 5"):
        extract_chromosomes(image)


def test_a_missing_row() -> None:
    image, truth = lab_karyogram(MALE)
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
    """Its pieces were joined two by two, for a minute."""
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


def test_a_image_far_too_large_is_refused() -> None:
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


# Files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two karyograms, and two images that are none."""
    folder = tmp_path_factory.mktemp("karyograms")
    for name, karyotype in (("male.png", MALE), ("down.tif", KARYOTYPES["47,XX,+21"])):
        Image.fromarray(lab_karyogram(karyotype)[0]).save(folder / name)
    Image.fromarray(np.full((90, 90), 255, np.uint8)).save(folder / "blank.png")
    (folder / "text.png").write_text("no image")
    return folder


def test_command(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "crops"
    command = ["data", "from-karyogram", str(files / "male.png"), str(files / "down.tif")]
    assert main([*command, "--output", str(output)]) == 0
    assert "93 chromosomes" in capsys.readouterr().out
    rows = list(csv.DictReader((output / "labels.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["file", "class", "x", "y", "w", "h", "karyogram"]
    assert Counter(row["class"] for row in rows) == Counter(MALE + KARYOTYPES["47,XX,+21"])
    assert {row["karyogram"] for row in rows} == {"male.png", "down.tif"}
    written = {str(path.relative_to(output)) for path in output.rglob("*.png")}
    assert {row["file"] for row in rows} == written
    assert {"male/1a.png", "male/Ya.png", "down/21c.png", "down/Xb.png"} <= written
    for row in rows:
        with Image.open(output / row["file"]) as crop:
            assert crop.mode == "L" and crop.size == (int(row["w"]), int(row["h"]))
    assert [path.name for path in output.parent.iterdir()] == ["crops"]


def test_a_batch_goes_on_with_the_rest(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["blank.png", "missing.png", "male.png", "text.png"]
    paths = [str(files / name) for name in names]
    assert main(["data", "from-karyogram", *paths, "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "46 chromosomes" in captured.out
    for name in ("blank.png", "missing.png", "text.png"):
        assert f"{files / name}: " in captured.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["labels.csv", "male"]


def test_nothing_is_written_where_nothing_can_be_cut(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "from-karyogram", str(files / "blank.png"), "--output", str(tmp_path / "o")]
    assert main(command) == 2
    assert f"{files / 'blank.png'}: no chromosomes found" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("..png", "karyogram"),
        ("...png", "karyogram"),
        ("labels.csv.png", "karyogram_labels.csv"),
        ("LABELS.csv.png", "karyogram_LABELS.csv"),
        ("a. .png", "a"),
        ("a:b\nc.png", "a%3ab%ac"),
        ("é.png", "é"),
        ("b\udce9.png", "b%dce9"),
        (f"{'x' * 251}.png", None),
        (f"{'é' * 120}.png", None),
    ],
)
def test_any_name_of_a_file_gives_a_folder(
    name: str, folder: str | None, files: Path, tmp_path: Path
) -> None:
    """And the run goes on: the other image is cut, too."""
    path = tmp_path / name
    try:
        path.write_bytes((files / "male.png").read_bytes())
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes no such name")
    counts, errors = extract_files([path, files / "down.tif"], tmp_path / "out")
    assert counts == {path: 46, files / "down.tif": 47} and errors == []
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open(encoding="utf-8")))
    (made,) = {row["file"].partition("/")[0] for row in rows} - {"down"}
    assert made == folder or (folder is None and len(made.encode()) <= 200)
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows)
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert len(list_files(tmp_path / "out", "labels-csv")) == 93


def test_files_that_would_share_a_folder_are_named(files: Path, tmp_path: Path) -> None:
    for first, second in (("a.png", "a.tif"), ("A.png", "a.tif"), ("..png", "...png")):
        with pytest.raises(ChromozooError, match=r"would both be written to .*; rename one"):
            extract_files([tmp_path / first, tmp_path / second], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_costs_only_itself(files: Path, tmp_path: Path) -> None:
    paths = [Path("/"), tmp_path, tmp_path / ("x" * 300), Path("a\0b.png"), Path("\ud800.png")]
    counts, errors = extract_files([*paths, files / "male.png"], tmp_path / "out")
    assert list(counts.values()) == [46] and len(errors) == len(paths)
    assert all("; check the path" in error for error in errors)


@pytest.mark.parametrize("name", ["file/out", "x" * 300])
def test_an_output_that_cannot_be_written(name: str, files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"cannot be written .*; free space or choose another"):
        extract_files([files / "male.png"], tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_levels_that_no_png_holds_are_spread(tmp_path: Path) -> None:
    """An image of floats between 0 and 1 would become black."""
    image = lab_karyogram(MALE)[0]
    tifffile.imwrite(tmp_path / "floats.tif", image.astype(np.float32) / 255)
    tifffile.imwrite(tmp_path / "signed.tif", image.astype(np.int32) * 300 - 9000)
    tifffile.imwrite(tmp_path / "deep.tif", image.astype(np.uint16) * 257)
    names = ("floats", "signed", "deep")
    extract_files([tmp_path / f"{name}.tif" for name in names], tmp_path / "out")
    for path in (tmp_path / "out" / "deep").iterdir():
        deep, *others = (
            np.asarray(Image.open(tmp_path / "out" / name / path.name), float)
            for name in ("deep", "floats", "signed")
        )
        assert np.ptp(deep) > 10_000
        for other in others:
            assert np.corrcoef(deep.ravel(), other.ravel())[0, 1] > 0.9999


def test_a_broken_run_leaves_the_old_folder(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    extract_files([files / "male.png"], output)
    before = sorted(output.rglob("*"))

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        extract_files([files / "down.tif"], output, overwrite=True)
    assert sorted(output.rglob("*")) == before
    assert list(tmp_path.iterdir()) == [output]


def test_an_existing_folder_is_kept_unless_it_may_be_replaced(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    extract_files([files / "male.png"], output)
    with pytest.raises(ChromozooError, match="exists already; choose another folder"):
        extract_files([files / "down.tif"], output)
    assert (output / "male").is_dir()
    extract_files([files / "down.tif"], output, overwrite=True)
    assert sorted(path.name for path in output.iterdir()) == ["down", "labels.csv"]


def test_a_folder_of_something_else_is_never_replaced(files: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ChromozooError, match=r"holds no labels\.csv, so it is not replaced"):
        extract_files([files / "male.png"], tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_two_files_of_one_name(files: Path, tmp_path: Path) -> None:
    paths = [files / "male.png", tmp_path / "male.tif"]
    with pytest.raises(ChromozooError, match=r"male\.png and .*male\.tif would both be written"):
        extract_files(paths, tmp_path / "out")
