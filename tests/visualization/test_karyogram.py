"""Karyogram: layout, marks and texts."""

import dataclasses
import itertools
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image, ImageChops

from chromozoo.classes import CLASSES, DENVER_GROUPS
from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.karyotype.iscn import iscn_string, normal_counts
from chromozoo.visualization.karyogram import KaryogramEntry, _lay_out, _trim, draw_karyogram


def rod(length: int, width: int = 14, margin: int = 5) -> np.ndarray:
    """Return a uniform chromosome of signal 0.8 in an empty margin."""
    image = np.zeros((length + 2 * margin, width + 2 * margin), dtype=np.float32)
    image[margin:-margin, margin:-margin] = 0.8
    return image


def cell(sex: str = "XY") -> list[KaryogramEntry]:
    return [
        KaryogramEntry(rod(100 - 3 * CLASSES.index(name)), name, 0.99)
        for name, count in normal_counts(sex).items()
        for _ in range(count)
    ]


def draw(chromosomes: list[KaryogramEntry], **options: str) -> Image.Image:
    iscn = iscn_string(Counter(entry.label for entry in chromosomes))
    texts = {"title": "cell 1", "iscn": iscn, "footer": "drawn by a test"} | options
    return draw_karyogram(chromosomes, **texts)  # type: ignore[arg-type]


def dark_boxes(image: Image.Image) -> list[tuple[int, int, int, int]]:
    """Return left, top, right and bottom (inclusive) of every rod, left to right, row by row."""
    dark = (np.asarray(image.convert("L")) < 90).astype(np.uint8)
    opened = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((15, 15), np.uint8))  # removes text
    _, _, stats, _ = cv2.connectedComponentsWithStats(opened)
    boxes = [(int(x), int(y), int(x + w - 1), int(y + h - 1)) for x, y, w, h, _ in stats[1:]]
    return sorted(boxes, key=lambda box: (box[3], box[0]))


def places(chromosomes: list[KaryogramEntry]) -> tuple:
    return _lay_out(chromosomes, _trim(chromosomes, "cell"), top=0).places


def header_height(image: Image.Image, chromosomes: list[KaryogramEntry]) -> int:
    """Return the top of the layout, from the upper end of the first chromosome in the image."""
    kept_margin = 2
    first = next(place for place in places(chromosomes) if place.entry is not None)
    trimmed = _trim([chromosomes[first.entry]], "cell")[0].signal.shape[0]
    top = first.top + kept_margin * first.height / trimmed
    return round(min(box[1] for box in dark_boxes(image)) - top)


def orange(image: Image.Image) -> np.ndarray:
    """Return the pixels of review marks."""
    pixels = np.asarray(image).astype(int)
    return (pixels[..., 0] > 180) & (pixels[..., 2] < 80)


def changed_box(before: Image.Image, after: Image.Image) -> tuple[int, int, int, int]:
    assert before.size == after.size
    box = ImageChops.difference(before, after).getbbox()
    assert box is not None
    return box


def test_four_rows_have_the_46_chromosomes_in_reading_order() -> None:
    chromosomes = cell("XY")
    image = draw(chromosomes)
    assert (image.mode, image.width) == ("RGB", 1400)
    boxes = dark_boxes(image)
    assert len(boxes) == 46
    # Rows of one baseline: A and B, C, D and E, F and G with X and Y.
    ends = np.array([box[3] for box in boxes])
    row_of_box = np.cumsum(np.diff(ends, prepend=ends[0]) > 40)
    assert np.bincount(row_of_box).tolist() == [10, 14, 12, 10]
    # Lengths decrease from 1 to Y in this cell, so they show the order of the classes.
    reading = sorted(range(46), key=lambda i: (row_of_box[i], boxes[i][0]))
    heights = [boxes[i][3] - boxes[i][1] for i in reading]
    assert all(a >= b - 2 for a, b in itertools.pairwise(heights))
    assert heights[0] > 2 * heights[-1]


def test_the_order_of_the_entries_does_not_matter_and_all_are_at_one_scale() -> None:
    chromosomes = cell("XX")
    shuffled = [chromosomes[i] for i in np.random.default_rng(0).permutation(46)]
    assert draw(shuffled).tobytes() == draw(chromosomes).tobytes()
    scales = {
        round(place.height / _trim([entry], "")[0].signal.shape[0], 6)
        for place in places(chromosomes)
        for entry in [chromosomes[place.entry]]
    }
    assert len(scales) == 1


@pytest.mark.parametrize("centromeres", [False, True])
def test_a_row_is_aligned_by_its_baseline_or_by_its_centromeres(centromeres: bool) -> None:
    chromosomes = cell("XX")
    if centromeres:
        chromosomes = [
            dataclasses.replace(entry, centromere=entry.image.shape[0] * 0.4)
            for entry in chromosomes
        ]
    row_of = {
        name: row
        for row, letters in enumerate(("AB", "C", "DE", "FG"))
        for letter in letters
        for name in DENVER_GROUPS[letter]
    } | {"X": 3, "Y": 3}
    lines: dict[int, set[int]] = {}
    for place in places(chromosomes):
        entry = chromosomes[place.entry]
        scale = place.height / _trim([entry], "cell")[0].signal.shape[0]
        trimmed = 3  # two pixels of the margin of 5 are kept
        down = scale * (entry.centromere - trimmed) if centromeres else place.height
        lines.setdefault(row_of[place.label], set()).add(round(place.top + down))
    assert [len(lines[row]) for row in range(4)] == [1, 1, 1, 1]


def test_one_unknown_centromere_puts_its_row_on_the_baseline() -> None:
    chromosomes = [dataclasses.replace(entry, centromere=20.0) for entry in cell("XX")]
    chromosomes[0] = dataclasses.replace(chromosomes[0], centromere=None)
    ends = [place.top + place.height for place in places(chromosomes)]
    first_row, second_row = ends[:10], ends[10:24]
    assert max(first_row) - min(first_row) < 1e-6
    assert max(second_row) - min(second_row) > 10


def test_every_class_has_its_own_number_below_its_baseline() -> None:
    chromosomes = cell("XY")
    image = draw(chromosomes)
    layout = _lay_out(chromosomes, _trim(chromosomes, "cell"), top=0)
    header = header_height(image, chromosomes)
    grey = np.asarray(image.convert("L"))
    assert [band.text for band in layout.classes] == list(CLASSES)
    numbers = set()
    for band in layout.classes:
        x, y = round((band.left + band.right) / 2), round(band.y) + header
        assert (grey[y - 2 : y + 3, x - 15 : x + 15].min(axis=0) < 60).all()  # the baseline
        number = grey[y + 5 : y + 28, x - 15 : x + 15]
        assert (number < 120).sum() > 15
        numbers.add((number < 120).tobytes())
    assert len(numbers) == len(CLASSES)
    for band in layout.groups:
        x, y = round((band.left + band.right) / 2), round(band.y) + header
        assert (grey[y - 9 : y + 9, x - 8 : x + 8] < 180).sum() > 10
    assert [band.text for band in layout.groups] == list(DENVER_GROUPS)


def test_a_chromosome_that_needs_review_has_a_frame_and_its_probability() -> None:
    chromosomes = cell("XX")
    index = [entry.label for entry in chromosomes].index("8")
    assert not orange(draw(chromosomes)).any()
    chromosomes[index] = dataclasses.replace(
        chromosomes[index], needs_review=True, probability=0.62
    )
    image = draw(chromosomes)
    (place,) = [place for place in places(chromosomes) if place.entry == index]
    top = round(place.top) + header_height(image, chromosomes)
    bottom, left = top + round(place.height), round(place.left)
    right = left + round(place.width)
    marked = orange(image)
    for x in (left, right):
        side = marked[top:bottom, x - 6 : x + 7]
        assert side.any(axis=1).all()  # an unbroken line along the whole chromosome
    assert marked[top - 22 : top - 7, left - 15 : right + 15].sum() > 30
    marked[top - 26 : bottom + 7, left - 20 : right + 20] = False
    assert not marked.any()  # no other chromosome is marked

    # Another probability changes the text above the chromosome, not only the legend.
    chromosomes[index] = dataclasses.replace(chromosomes[index], probability=0.47)
    box = changed_box(image, draw(chromosomes))
    assert top - 26 < box[1] < top


def test_a_chromosome_that_needs_review_is_listed_in_the_legend() -> None:
    chromosomes = cell("XX")
    chromosomes[4] = dataclasses.replace(chromosomes[4], needs_review=True, name="one.png")
    first = draw(chromosomes)
    chromosomes[4] = dataclasses.replace(chromosomes[4], name="another.png")
    top = changed_box(first, draw(chromosomes))[1]
    assert top > first.height - 110


def test_a_gain_is_a_third_copy_and_a_loss_a_dashed_box() -> None:
    chromosomes = cell("XX")
    gained = [*chromosomes, chromosomes[[entry.label for entry in chromosomes].index("21")]]
    assert len(dark_boxes(draw(gained))) == 47
    copies = [place for place in places(gained) if place.label == "21"]
    assert [place.entry is None for place in copies] == [False, False, False]
    assert copies[0].left < copies[1].left < copies[2].left

    lost = [entry for entry in chromosomes if entry.label != "7"] + [
        KaryogramEntry(rod(82), "7", 0.9)
    ]
    image = draw(lost)
    assert len(dark_boxes(image)) == 45
    (missing,) = [place for place in places(lost) if place.entry is None]
    (there,) = [place for place in places(lost) if place.entry == len(lost) - 1]
    assert missing.label == "7"
    assert (missing.top, missing.height) == pytest.approx((there.top, there.height))
    # The layout begins below the header.
    header = header_height(image, lost)
    left, top = round(missing.left), round(missing.top + header)
    side = np.asarray(image.convert("L"))[top + 8 : top + 80, left - 1 : left + 2]
    drawn = (side < 200).any(axis=1)
    assert 0.3 < drawn.mean() < 0.7  # dashed, not a line
    inside = np.asarray(image)[top + 10 : top + 40, left + 5 : left + 25]
    assert (inside == 255).all()


@pytest.mark.parametrize(
    ("sex", "lost", "empty"),
    [
        ("XX", "", []),
        ("XY", "", []),
        ("XY", "Y", ["X"]),
        ("XY", "X", ["X"]),
        ("XX", "9", ["9"] * 2),
    ],
)
def test_only_losses_leave_a_dashed_box(sex: str, lost: str, empty: list[str]) -> None:
    chromosomes = [entry for entry in cell(sex) if entry.label != lost]
    assert [place.label for place in places(chromosomes) if place.entry is None] == empty


def test_exposure_is_common_to_the_cell() -> None:
    chromosomes = cell("XX")
    chromosomes[0] = dataclasses.replace(chromosomes[0], image=chromosomes[0].image / 2)
    first, second = (place for place in places(chromosomes) if place.label == "1")
    pixels = np.asarray(draw(chromosomes).convert("L")).astype(float)
    y = round(first.top + first.height / 2) + header_height(draw(chromosomes), chromosomes)
    faint = pixels[y, round(first.left + first.width / 2)]
    full = pixels[y, round(second.left + second.width / 2)]
    assert full < 5
    assert faint == pytest.approx(127, abs=8)


@pytest.mark.parametrize("count", [1, 30, 100])
def test_any_number_of_chromosomes_fits_without_overlap(count: int) -> None:
    chromosomes = [
        dataclasses.replace(entry, needs_review=True, name="a long file name.png")
        for entry in (cell("XY") * 3)[:count]
    ]
    image = draw(chromosomes, title="a long title, " * 40, footer="x" * 400)
    boxes = [(p.left, p.top, p.left + p.width, p.top + p.height) for p in places(chromosomes)]
    assert sum(place.entry is not None for place in places(chromosomes)) == count
    assert max(box[2] for box in boxes) < image.width
    assert max(box[3] for box in boxes) < image.height
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    # The margins are empty.
    assert (np.asarray(image)[:, -20:] == 255).all()


def test_very_many_copies_widen_the_image_and_stay_legible() -> None:
    chromosomes = [KaryogramEntry(rod(90), "1", 0.9) for _ in range(60)]
    image = draw(chromosomes)
    assert image.width > 1400
    assert len(dark_boxes(image)) == 60


def test_texts_are_drawn() -> None:
    chromosomes = cell()
    image = draw(chromosomes)
    assert changed_box(image, draw(chromosomes, title="cell 2"))[3] < 100
    assert changed_box(image, draw(chromosomes, iscn="46,XX"))[3] < 130
    assert changed_box(image, draw(chromosomes, footer="drawn by a tesT"))[1] > image.height - 90
    # Without a footer the disclaimer is still there, one line higher up.
    assert draw(chromosomes, footer="").height < image.height
    foot = np.asarray(draw(chromosomes, footer="").convert("L"))[-55:, 48:400]
    assert (foot < 120).sum() > 200


def test_alarms_are_in_a_box_below_the_karyotype() -> None:
    chromosomes = cell()
    plain = draw(chromosomes, iscn="46,XY?")
    reasons = (
        "the chromosomes show no bands; give a banded cell",
        "29 of 46 classes are uncertain",
    )

    def red_box(alarms: tuple[str, ...]) -> tuple[int, int, int, int, int]:
        image = draw_karyogram(
            chromosomes, title="cell 1", iscn="46,XY?", footer="x", alarms=alarms
        )
        pixels = np.asarray(image)
        red = (pixels == (176, 0, 32)).all(axis=2)
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        inside = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        written = int((inside.min(axis=2) > 200).sum())
        return (*(int(end) for end in (rows[0], rows[-1], columns[0], columns[-1])), written)

    assert not (np.asarray(plain) == (176, 0, 32)).all(axis=2).any()
    top, bottom, left, right, written = red_box(reasons)
    assert 80 < top < 130 and bottom - top > 80 and (left, right) == (48, 1400 - 48)
    assert written > 2_000  # white on red
    one = red_box(reasons[:1])
    assert one[1] < bottom and one[4] < written  # each reason has its line
    long = red_box((" ".join(["a long reason"] * 60),))
    assert long[1] > bottom and long[3] == right
    # All chromosomes are below it.
    alarmed = draw_karyogram(chromosomes, title="cell 1", iscn="46,XY?", footer="x", alarms=reasons)
    assert len(dark_boxes(alarmed.crop((0, bottom + 1, *alarmed.size)))) == 46


def test_invalid_entries_are_refused() -> None:
    good = rod(50)
    with pytest.raises(ImageError, match="cell 1: there are no chromosomes"):
        draw_karyogram([], title="cell 1", iscn="", footer="")
    for label in ("chr21", "23", "", "x"):
        with pytest.raises(UnknownNameError, match=r"a\.png: .* is not a chromosome class"):
            draw_karyogram(
                [KaryogramEntry(good, label, 0.9, name="a.png")], title="", iscn="", footer=""
            )
    for image in (np.zeros((9, 9)), np.full((9, 9), np.nan), np.ones((9, 9, 3)), np.ones((0, 4))):
        with pytest.raises(ImageError, match=r"b\.png: the image"):
            draw([KaryogramEntry(good, "1", 0.9), KaryogramEntry(image, "2", 0.9, name="b.png")])
    with pytest.raises(ImageError, match="chromosome 0: the centromere at 90"):
        draw([KaryogramEntry(good, "1", 0.9, centromere=90)])


def test_one_pixel_is_enough() -> None:
    assert draw([KaryogramEntry(np.ones((1, 1), dtype=np.float32), "Y", 0.5)]).width == 1400
