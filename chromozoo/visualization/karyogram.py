"""Draws a karyogram: the chromosomes of one cell in the order in which a cytogeneticist reads them.

Four rows: groups A and B, group C, groups D and E, groups F and G with the sex chromosomes at the
end. Homologues stand side by side on one baseline, all at one scale, because length is evidence.
A gained chromosome stands as a further copy, a missing one leaves a dashed place, and a doubtful
name is marked by a frame, a question mark and its probability: never by colour alone.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chromozoo.classes import CLASSES, DENVER_GROUPS, SEX_CHROMOSOMES
from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.files import DISCLAIMER
from chromozoo.karyotype.iscn import normal_counts

# The karyogram's rows of groups. The sex chromosomes stand last, not in the groups of their size.
_SEX_GROUP = ""
_GROUPS: dict[str, tuple[str, ...]] = {
    letter: tuple(name for name in names if name not in SEX_CHROMOSOMES)
    for letter, names in DENVER_GROUPS.items()
} | {_SEX_GROUP: SEX_CHROMOSOMES}
_ROWS = (("A", "B"), ("C",), ("D", "E"), ("F", "G", _SEX_GROUP))

# All lengths from here on are pixels of the karyogram.
_WIDTH = 1400  # the least width: a row that cannot be scaled down to it widens the karyogram
_MARGIN = 48
_TALLEST = (130, 260)  # bounds for the longest chromosome of the cell, which fix the scale
_PLACE_WIDTH = 38  # the least width of one chromosome's place
_DOUBTFUL_WIDTH = 56  # the same with room for "? 62 %" above it
_COPY_GAP = 8
_CLASS_GAP = 26
_GROUP_GAP = 2 * _CLASS_GAP
_HEADROOM = 30  # above the longest chromosome of a row, for the mark of a doubtful one
_BASELINE_GAP = 8  # from its lowest end to the baseline
_ROW_FOOT = 70  # from the baseline to the next row: class numbers and group letter
_EMPTY_ROW = 70  # the height of a row that holds no chromosome
_FRAME = 4  # from a chromosome to its frame
_PADDING = 12  # around the words of an alarm
_LISTED_DOUBTFUL = 12  # more than this many are counted in the legend, not listed

# The band of an alarm: white on it can be read, and the words say what the colour says.
_ALARM = (176, 0, 32)
_CANNOT_BE_NAMED = "THESE NAMES CANNOT BE TRUSTED"

# This percentile of the cell's chromosome pixels is drawn fully stained: one exposure for the cell.
_EXPOSURE_PERCENTILE = 99

# Signal below this share of a chromosome's maximum is background when its margins are trimmed; so
# many image pixels of it are kept, lest a blurred edge be cut.
_BACKGROUND_SHARE = 0.08
_KEPT_MARGIN = 2


@dataclass(frozen=True, eq=False)
class KaryogramEntry:
    """One chromosome of a karyogram.

    Attributes:
        image: ``(H, W)`` float32 signal image, background 0, chromosome bright up to 1, upright
            with the p arm up. The images of one cell share one scale (micrometres per pixel).
        label: Its class, one of ``CLASSES``.
        probability: The probability of that class, 0..1.
        needs_review: Whether the reader should look twice; the probability is then written next to it.
        name: Where it came from, such as a file name; the legend lists it for a doubtful one.
        centromere: Its centromere in image pixels from the top, where it is known. A row in which
            all are known is aligned by the centromeres, any other row stands on its baseline.
    """

    image: np.ndarray
    label: str
    probability: float
    needs_review: bool = False
    name: str | None = None
    centromere: float | None = None


@dataclass(frozen=True)
class _Place:
    """Where one chromosome stands, or (``entry`` is None) the missing copy of a class."""

    label: str
    entry: int | None
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class _Band:
    """The baseline below the copies of one class, or the bracket below one group."""

    text: str
    left: float
    right: float
    y: float
    surplus: int = 0


@dataclass(frozen=True)
class _Layout:
    width: int
    bottom: float
    places: tuple[_Place, ...]
    classes: tuple[_Band, ...]
    groups: tuple[_Band, ...]


@dataclass(frozen=True)
class _Theme:
    """Grey of paper and stain, and the colours of the writing (colour-blind safe, Okabe-Ito)."""

    paper: int
    stain: int
    text: tuple[int, int, int]
    faint: tuple[int, int, int]
    mark: tuple[int, int, int]


_THEMES = {
    "light": _Theme(255, 0, (24, 28, 33), (140, 146, 154), (213, 94, 0)),
    "dark": _Theme(8, 255, (236, 238, 240), (128, 134, 142), (230, 159, 0)),
}


def draw_karyogram(
    chromosomes: Sequence[KaryogramEntry],
    *,
    title: str,
    iscn: str,
    footer: str,
    stain_background: Literal["dark", "light"] = "light",
    alarms: Sequence[str] = (),
) -> Image.Image:
    """Draws the karyogram of one cell.

    Args:
        chromosomes: All chromosomes of the cell, in any order; copies of one class stand side by
            side in this order.
        title: What the cell is, the first line.
        iscn: The karyotype, written large below the title.
        footer: What the reader should know of the origin (model, weights); the statement that it
            is for research only always follows it.
        stain_background: ``"light"`` draws dark bands on white, as of a G-banded cell; ``"dark"``
            draws bright bands on black, as of a fluorescent one.
        alarms: Why the names cannot be trusted, in words; written in a red band below the
            karyotype.

    Returns:
        An RGB image, 1400 pixels wide (wider if some class has very many copies).

    Raises:
        ImageError: There is no chromosome, an image is no finite 2-D array with some signal, or a
            centromere lies outside its image.
        UnknownNameError: A label is not one of ``CLASSES``, or the background is not known.
    """
    if stain_background not in _THEMES:
        raise UnknownNameError(f"stain_background is {stain_background!r}: give 'light' or 'dark'")
    theme = _THEMES[stain_background]
    crops = _trimmed(chromosomes, title)
    fonts = {size: ImageFont.load_default(size) for size in (15, 18, 20, 34)}

    doubtful = [
        f"{entry.label} ({entry.probability:.0%}{f', {entry.name}' if entry.name else ''})"
        for entry in sorted(chromosomes, key=lambda entry: CLASSES.index(entry.label))
        if entry.needs_review
    ]
    notes = [footer] if footer else []
    if doubtful:
        listed = "; ".join(doubtful[:_LISTED_DOUBTFUL])
        more = len(doubtful) - _LISTED_DOUBTFUL
        notes.insert(0, f"? doubtful: {listed}" + (f"; and {more} more" if more > 0 else ""))
    # An incomplete cell has a very long karyotype, which must not outweigh the image.
    iscn_size = 34 if len(_wrap(iscn, fonts[34])) <= 1 else 20
    header = [(line, 20) for line in _wrap(title, fonts[20])]
    header += [(line, iscn_size) for line in _wrap(iscn, fonts[iscn_size])]
    warned = [line for alarm in alarms for line in _wrap(_sentence(alarm), fonts[20], _PADDING)]
    if warned:
        warned.insert(0, _CANNOT_BE_NAMED)
    legend = [line for note in (*notes, DISCLAIMER) for line in _wrap(note, fonts[15])]

    header_bottom = _MARGIN * 0.75 + sum(size * 1.4 for _, size in header)
    band_top = header_bottom + 8
    if warned:
        header_bottom = band_top + 28 * len(warned) + 2 * _PADDING
    layout = _lay_out(chromosomes, crops, top=header_bottom)
    height = int(layout.bottom + 24 + len(legend) * 21 + _MARGIN * 0.6)
    canvas = np.full((height, layout.width), float(theme.paper), dtype=np.float32)
    inked = [crop.signal[crop.signal > _BACKGROUND_SHARE * crop.signal.max()] for crop in crops]
    exposure = float(np.percentile(np.concatenate(inked), _EXPOSURE_PERCENTILE))
    for place in layout.places:
        if place.entry is not None:
            _stain(canvas, crops[place.entry].signal / exposure, place, theme)
    image = Image.fromarray(canvas.round().astype(np.uint8)).convert("RGB")
    pen = ImageDraw.Draw(image)

    y = _MARGIN * 0.75
    for line, size in header:
        pen.text((_MARGIN, y), line, theme.text, fonts[size])
        y += size * 1.4
    if warned:
        pen.rectangle((_MARGIN, band_top, layout.width - _MARGIN, header_bottom), fill=_ALARM)
        for number, line in enumerate(warned):
            at = (_MARGIN + _PADDING, band_top + _PADDING + 28 * number)
            pen.text(at, line, "white", fonts[20])
    for place in layout.places:
        if place.entry is None:
            _dashed_box(pen, place, theme.faint)
        elif chromosomes[place.entry].needs_review:
            _mark_doubtful(pen, place, chromosomes[place.entry].probability, theme, fonts[15])
    for band in layout.classes:
        pen.line((band.left, band.y, band.right, band.y), theme.text, 2)
        middle = (band.left + band.right) / 2
        pen.text((middle, band.y + 7), band.text, theme.text, fonts[20], anchor="ma")
        if band.surplus:
            beside = (middle + fonts[20].getlength(band.text) / 2 + 5, band.y + 9)
            pen.text(beside, f"({band.surplus:+d})", theme.mark, fonts[15])
    for band in layout.groups:
        middle, half = (band.left + band.right) / 2, fonts[18].getlength(band.text) / 2 + 8
        pen.line((band.left, band.y - 5, band.left, band.y, middle - half, band.y), theme.faint, 1)
        pen.line(
            (band.right, band.y - 5, band.right, band.y, middle + half, band.y), theme.faint, 1
        )
        pen.text((middle, band.y), band.text, theme.faint, fonts[18], anchor="mm")
    y = layout.bottom + 24
    pen.line((_MARGIN, y - 10, layout.width - _MARGIN, y - 10), theme.faint, 1)
    for line in legend:
        pen.text((_MARGIN, y), line, theme.text, fonts[15])
        y += 21
    return image


@dataclass(frozen=True, eq=False)
class _Crop:
    """A chromosome without its margins; ``centromere`` in pixels from the new top, or None."""

    signal: np.ndarray
    centromere: float | None


def _trimmed(chromosomes: Sequence[KaryogramEntry], title: str) -> list[_Crop]:
    """Checks every entry and trims its empty margins."""
    if not chromosomes:
        raise ImageError(f"{title}: there is no chromosome to draw; give at least one entry")
    crops = []
    for index, entry in enumerate(chromosomes):
        name = entry.name or f"chromosome {index}"
        if entry.label not in CLASSES:
            close = difflib.get_close_matches(entry.label, CLASSES) or CLASSES
            raise UnknownNameError(
                f"{name}: {entry.label!r} is not a chromosome class; use {', '.join(close)}"
            )
        signal = np.asarray(entry.image, dtype=np.float32)
        if signal.ndim != 2 or signal.size == 0:
            raise ImageError(
                f"{name}: the image has the shape {signal.shape}; give a grey image (H, W)"
            )
        if not np.isfinite(signal).all() or signal.max() <= 0:
            raise ImageError(
                f"{name}: the image is empty or not finite; give a signal image in which the "
                "background is 0 and the chromosome is bright"
            )
        if entry.centromere is not None and not 0 <= entry.centromere <= signal.shape[0]:
            raise ImageError(
                f"{name}: the centromere at {entry.centromere} lies outside the image of "
                f"{signal.shape[0]} rows; give pixels from its top, or None"
            )
        ink = signal > _BACKGROUND_SHARE * signal.max()
        (top, bottom), (left, right) = (
            (max(0, int(inked[0]) - _KEPT_MARGIN), int(inked[-1]) + 1 + _KEPT_MARGIN)
            for inked in (np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0)))
        )
        centromere = None if entry.centromere is None else entry.centromere - top
        crops.append(_Crop(signal[top:bottom, left:right], centromere))
    return crops


def _lay_out(chromosomes: Sequence[KaryogramEntry], crops: list[_Crop], top: float) -> _Layout:
    """Finds the scale and the place of every chromosome, row by row from ``top`` down."""
    entries: dict[str, list[int | None]] = {name: [] for name in CLASSES}
    for index, entry in enumerate(chromosomes):
        entries[entry.label].append(index)
    counts = Counter(entry.label for entry in chromosomes)
    normal = normal_counts("XY" if counts["Y"] else "XX")
    for name in CLASSES:
        entries[name] += [None] * (normal[name] - counts[name])

    def place_width(entry: int | None, scale: float) -> float:
        if entry is None:
            return _PLACE_WIDTH
        least = _DOUBTFUL_WIDTH if chromosomes[entry].needs_review else _PLACE_WIDTH
        width: int = crops[entry].signal.shape[1]
        return max(width * scale + 2 * _FRAME, least)

    def class_width(name: str, scale: float) -> float:
        widths = [place_width(entry, scale) for entry in entries[name]] or [_PLACE_WIDTH]
        return sum(widths) + _COPY_GAP * (len(widths) - 1)

    def row_width(row: tuple[str, ...], scale: float) -> float:
        names = [name for letter in row for name in _GROUPS[letter]]
        gaps = _CLASS_GAP * (len(names) - len(row)) + _GROUP_GAP * (len(row) - 1)
        return sum(class_width(name, scale) for name in names) + gaps

    longest = max(crop.signal.shape[0] for crop in crops)
    least, most = (bound / longest for bound in _TALLEST)
    # The largest scale at which all rows fit; else the least, on a wider karyogram.
    for scale in np.linspace(most, least, 60).tolist():
        widest = max(row_width(row, scale) for row in _ROWS)
        if widest <= _WIDTH - 2 * _MARGIN:
            break
    width = max(_WIDTH, int(np.ceil(widest)) + 2 * _MARGIN)

    places: list[_Place] = []
    classes: list[_Band] = []
    groups: list[_Band] = []
    for row in _ROWS:
        inside = [i for letter in row for name in _GROUPS[letter] for i in entries[name]]
        lengths = {i: crops[i].signal.shape[0] for i in inside if i is not None}
        # What of a chromosome rises above the line of this row: its p arm, or all of it.
        centromeres = {i: crops[i].centromere for i in lengths}
        rises = {i: centromere for i, centromere in centromeres.items() if centromere is not None}
        if len(rises) < len(lengths):
            rises = {i: float(length) for i, length in lengths.items()}
        above = scale * max(rises.values(), default=0.0)
        below = scale * max((lengths[i] - rises[i] for i in lengths), default=0.0)
        row_height = max(above + below, _EMPTY_ROW)
        baseline = top + _HEADROOM + row_height + _BASELINE_GAP
        line = top + _HEADROOM + row_height - below

        # What a row leaves free is shared among its gaps, so that all rows end at both margins.
        gap_count = sum(len(_GROUPS[letter]) for letter in row) - len(row) + 2 * (len(row) - 1)
        stretch = (width - 2 * _MARGIN - row_width(row, scale)) / gap_count
        x = float(_MARGIN)
        for letter in row:
            group_left = x
            for name in _GROUPS[letter]:
                class_left = x
                seen = [scale * lengths[i] for i in entries[name] if i is not None]
                for copy in entries[name]:
                    wide = place_width(copy, scale)
                    if copy is None:
                        # As tall as its homologue, else as a typical chromosome of the row.
                        tall = max(seen, default=0.75 * row_height)
                        spot = (x, baseline - _BASELINE_GAP - tall, wide, tall)
                    else:
                        tall, broad = (scale * side for side in crops[copy].signal.shape)
                        up = scale * rises[copy]
                        spot = (x + (wide - broad) / 2, line - up, broad, tall)
                    places.append(_Place(name, copy, *spot))
                    x += wide + _COPY_GAP
                x = class_left + class_width(name, scale)
                surplus = counts[name] - normal[name]
                classes.append(_Band(name, class_left, x, baseline, surplus))
                x += _CLASS_GAP + stretch
            x -= _CLASS_GAP + stretch
            if letter != _SEX_GROUP:
                groups.append(_Band(letter, group_left, x, baseline + 48))
            x += _GROUP_GAP + 2 * stretch
        top = baseline + _ROW_FOOT
    return _Layout(width, top, tuple(places), tuple(classes), tuple(groups))


def _stain(canvas: np.ndarray, signal: np.ndarray, place: _Place, theme: _Theme) -> None:
    """Draws one chromosome into the grey canvas, in place."""
    left, top = round(place.left), round(place.top)
    size = (max(1, round(place.width)), max(1, round(place.height)))
    enlarged = size[1] > signal.shape[0]
    method = cv2.INTER_CUBIC if enlarged else cv2.INTER_AREA
    drawn = np.clip(cv2.resize(np.clip(signal, 0, 1), size, interpolation=method), 0, 1)
    window = canvas[top : top + size[1], left : left + size[0]]
    window[:] = theme.paper + (theme.stain - theme.paper) * drawn


def _mark_doubtful(
    pen: ImageDraw.ImageDraw,
    place: _Place,
    probability: float,
    theme: _Theme,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """A thin frame, and above it a question mark with the probability."""
    left, top = round(place.left) - _FRAME, round(place.top) - _FRAME
    right, bottom = left + round(place.width) + 2 * _FRAME, top + round(place.height) + 2 * _FRAME
    pen.rectangle((left, top, right, bottom), outline=theme.mark, width=2)
    middle = (left + right) / 2
    pen.text((middle, top - 3), f"? {probability:.0%}", theme.mark, font, anchor="md")


def _dashed_box(
    pen: ImageDraw.ImageDraw, place: _Place, colour: tuple[int, int, int], dash: int = 6
) -> None:
    """The outline of a missing chromosome."""
    left, top = round(place.left), round(place.top)
    right, bottom = left + round(place.width) - 1, top + round(place.height) - 1
    for x in range(left, right, 2 * dash):
        for y in (top, bottom):
            pen.line((x, y, min(x + dash, right), y), colour, 1)
    for y in range(top, bottom, 2 * dash):
        for x in (left, right):
            pen.line((x, y, x, min(y + dash, bottom)), colour, 1)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def _wrap(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, padding: int = 0
) -> list[str]:
    """Breaks text after spaces and commas (ISCN has no spaces), and longer words anywhere.

    The lines fit between the margins, and ``padding`` more on each side.
    """
    width = _WIDTH - 2 * (_MARGIN + padding)
    lines: list[str] = []
    for paragraph in text.splitlines():
        lines.append("")
        for word in re.split(r"(?<=[\s,])", paragraph):
            if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
                lines.append("")
            for letter in word:
                if font.getlength(lines[-1] + letter) > width:
                    lines.append("")
                lines[-1] += letter
    return [line.strip() for line in lines if line.strip()]
