"""Karyogram: the chromosomes of one cell, arranged by class.

There are four rows: groups A and B, group C, groups D and E, groups F and G followed by the sex
chromosomes. Homologues are next to each other on one baseline, all at one scale, because length is
evidence. A gained chromosome is a further copy, a missing one leaves a dashed box, and a chromosome
that needs review is marked with a frame, a question mark and its probability, never by colour
alone.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from chromozoo.classes import CLASSES, DENVER_GROUPS, SEX_CHROMOSOMES
from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.files import DISCLAIMER
from chromozoo.karyotype.iscn import normal_counts

Colour: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Groups by row. The sex chromosomes are last, not in the groups of their size.
_SEX_GROUP = ""
_GROUPS: dict[str, tuple[str, ...]] = {
    letter: tuple(name for name in names if name not in SEX_CHROMOSOMES)
    for letter, names in DENVER_GROUPS.items()
} | {_SEX_GROUP: SEX_CHROMOSOMES}
_ROWS = (("A", "B"), ("C",), ("D", "E"), ("F", "G", _SEX_GROUP))

# All lengths below are pixels of the karyogram.
_MIN_WIDTH = 1400  # a row that does not fit at the minimum scale widens the karyogram
_MARGIN = 48
_LONGEST_RANGE = (130, 260)  # limits for the longest chromosome of the cell, which set the scale
_PLACE_WIDTH = 38  # minimum width of the place of one chromosome
_REVIEW_PLACE_WIDTH = 56  # the same with room for "? 62 %" above it
_COPY_GAP = 8
_CLASS_GAP = 26
_GROUP_GAP = 2 * _CLASS_GAP
_HEADROOM = 30  # above the longest chromosome of a row, for the review mark
_BASELINE_GAP = 8  # from the lowest end of a chromosome to the baseline
_ROW_FOOT = 70  # from the baseline to the next row: class numbers and group letter
_EMPTY_ROW = 70  # height of a row without chromosomes
_FRAME = 4  # from a chromosome to its frame
_PADDING = 12  # around the text of the alarm box
_TITLE_LEADING, _ALARM_LEADING, _LEGEND_LEADING = 1.4, 28, 21  # line heights; of titles in sizes
_ALARM_GAP, _LEGEND_GAP = 8, 24
_MAX_LISTED = 12  # chromosomes listed in the legend as needing review

_FONT_SIZES = (15, 18, 20, 34)

# Grey values of paper and stain, and colours (colour-blind safe, Okabe-Ito). White text is legible
# on the alarm colour.
_PAPER, _STAIN = 255, 0
_TEXT: Colour = (24, 28, 33)
_FAINT: Colour = (140, 146, 154)
_REVIEW: Colour = (213, 94, 0)
_ALARM: Colour = (176, 0, 32)
_ALARM_TITLE = "UNRELIABLE KARYOTYPE"

# This percentile of the cell's chromosome pixels is drawn fully stained: one exposure for the cell.
_EXPOSURE_PERCENTILE = 99

# Signal below this fraction of a chromosome's maximum is background when margins are trimmed. This
# number of background pixels is kept, so that blurred edges are not cut.
_BACKGROUND_FRACTION = 0.08
_KEPT_MARGIN = 2


@dataclass(frozen=True, eq=False)
class KaryogramEntry:
    """One chromosome of a karyogram.

    Attributes:
        image: ``(H, W)`` signal image, background 0, chromosome bright up to 1, upright
            with the p arm up. The images of one cell share one scale (micrometres per pixel).
        label: Class, one of ``CLASSES``.
        probability: Probability of the class, 0..1.
        needs_review: Whether the chromosome is marked, with its probability.
        name: Name in the legend if the chromosome needs review, such as its file name.
        centromere: Row of the centromere in image pixels from the top; None if unknown. A row of
            the karyogram in which all centromeres are known is aligned by them, any other row by
            its baseline.
    """

    image: NDArray[np.floating[Any]]
    label: str
    probability: float
    needs_review: bool = False
    name: str | None = None
    centromere: float | None = None


def draw_karyogram(
    chromosomes: Sequence[KaryogramEntry],
    *,
    title: str,
    iscn: str,
    footer: str,
    alarms: Sequence[str] = (),
) -> Image.Image:
    """Draw the karyogram of one cell, with dark bands on white.

    Args:
        chromosomes: All chromosomes of the cell in any order; copies of one class keep this order.
        title: Name of the cell, the first line.
        iscn: Karyotype, in large letters below the title.
        footer: Origin of the karyotype (model, weights); the disclaimer follows it.
        alarms: Reasons why the classification is unreliable, in words; written in a red box below
            the karyotype.

    Returns:
        RGB image, 1400 pixels wide, or wider if a class has very many copies.

    Raises:
        ImageError: There are no chromosomes, an image is not a finite 2-D array with signal, or a
            centromere lies outside its image.
        UnknownNameError: A label is not one of ``CLASSES``.
    """
    crops = _trim(chromosomes, title)
    texts = _Texts.of(chromosomes, title, iscn, footer, alarms)
    layout = _lay_out(chromosomes, crops, top=texts.bottom)
    legend_height = _LEGEND_GAP + len(texts.legend) * _LEGEND_LEADING
    height = int(layout.bottom + legend_height + _MARGIN * 0.6)

    image = _draw_chromosomes(crops, layout, height)
    pen = ImageDraw.Draw(image)
    _draw_header(pen, texts, layout.width)
    for place in layout.places:
        if place.entry is None:
            _draw_missing(pen, place)
        elif chromosomes[place.entry].needs_review:
            _mark_review(pen, place, chromosomes[place.entry].probability, texts.fonts[15])
    for label in layout.classes:
        _draw_class_label(pen, label, texts)
    for label in layout.groups:
        _draw_group_label(pen, label, texts)
    _draw_legend(pen, texts, layout)
    return image


# Texts


@dataclass(frozen=True, eq=False)
class _Texts:
    """The lines above and below the chromosomes."""

    header: list[tuple[str, int]]  # line and font size
    alarms: list[str]
    legend: list[str]
    fonts: dict[int, Font]

    @classmethod
    def of(
        cls,
        chromosomes: Sequence[KaryogramEntry],
        title: str,
        iscn: str,
        footer: str,
        alarms: Sequence[str],
    ) -> "_Texts":
        """Break the texts into lines."""
        fonts: dict[int, Font] = {size: ImageFont.load_default(size) for size in _FONT_SIZES}
        # The karyotype of an incomplete cell is very long and must not dominate the image.
        iscn_size = 34 if len(_wrap(iscn, fonts[34])) <= 1 else 20
        header = [(line, 20) for line in _wrap(title, fonts[20])]
        header += [(line, iscn_size) for line in _wrap(iscn, fonts[iscn_size])]
        alarm_lines = [
            line for alarm in alarms for line in _wrap(_as_sentence(alarm), fonts[20], _PADDING)
        ]
        if alarm_lines:
            alarm_lines.insert(0, _ALARM_TITLE)
        notes = [note for note in (_review_note(chromosomes), footer, DISCLAIMER) if note]
        legend = [line for note in notes for line in _wrap(note, fonts[15])]
        return cls(header, alarm_lines, legend, fonts)

    @property
    def header_bottom(self) -> float:
        """Lower end of title and karyotype."""
        return _MARGIN * 0.75 + sum(size * _TITLE_LEADING for _, size in self.header)

    @property
    def bottom(self) -> float:
        """Lower end of all lines above the chromosomes."""
        if not self.alarms:
            return self.header_bottom
        return self.header_bottom + _ALARM_GAP + _ALARM_LEADING * len(self.alarms) + 2 * _PADDING


def _review_note(chromosomes: Sequence[KaryogramEntry]) -> str:
    """Return the list of the chromosomes that need review; empty if there are none."""
    listed = [
        f"{entry.label} ({entry.probability:.0%}{f', {entry.name}' if entry.name else ''})"
        for entry in sorted(chromosomes, key=lambda entry: CLASSES.index(entry.label))
        if entry.needs_review
    ]
    if not listed:
        return ""
    more = len(listed) - _MAX_LISTED
    note = f"? needs review: {'; '.join(listed[:_MAX_LISTED])}"
    return note + (f"; and {more} more" if more > 0 else "")


def _as_sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def _wrap(text: str, font: Font, padding: int = 0) -> list[str]:
    """Break text after spaces and commas (ISCN has no spaces), and longer words anywhere.

    The lines fit between the margins, with ``padding`` on each side.
    """
    width = _MIN_WIDTH - 2 * (_MARGIN + padding)
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


def _draw_header(pen: ImageDraw.ImageDraw, texts: _Texts, width: int) -> None:
    """Draw title and karyotype, and the alarms in a red box below them."""
    y = _MARGIN * 0.75
    for line, size in texts.header:
        pen.text((_MARGIN, y), line, _TEXT, texts.fonts[size])
        y += size * _TITLE_LEADING
    if texts.alarms:
        top = texts.header_bottom + _ALARM_GAP
        pen.rectangle((_MARGIN, top, width - _MARGIN, texts.bottom), fill=_ALARM)
        for number, line in enumerate(texts.alarms):
            corner = (_MARGIN + _PADDING, top + _PADDING + _ALARM_LEADING * number)
            pen.text(corner, line, "white", texts.fonts[20])


def _draw_legend(pen: ImageDraw.ImageDraw, texts: _Texts, layout: "_Layout") -> None:
    y = layout.bottom + _LEGEND_GAP
    pen.line((_MARGIN, y - 10, layout.width - _MARGIN, y - 10), _FAINT, 1)
    for line in texts.legend:
        pen.text((_MARGIN, y), line, _TEXT, texts.fonts[15])
        y += _LEGEND_LEADING


# Layout


@dataclass(frozen=True)
class _Place:
    """The place of one chromosome, or of a missing copy (``entry`` is None)."""

    label: str
    entry: int | None
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class _Label:
    """The label below the copies of one class, or below one group."""

    text: str
    left: float
    right: float
    y: float
    surplus: int = 0


@dataclass(frozen=True)
class _Layout:
    """The places and labels of the rows down to ``bottom``."""

    width: int
    bottom: float
    places: tuple[_Place, ...]
    classes: tuple[_Label, ...]
    groups: tuple[_Label, ...]


@dataclass(frozen=True, eq=False)
class _Crop:
    """A chromosome without its margins; ``centromere`` in pixels from the new top, or None."""

    signal: NDArray[np.float32]
    centromere: float | None


def _trim(chromosomes: Sequence[KaryogramEntry], title: str) -> list[_Crop]:
    """Check every entry and trim its empty margins."""
    if not chromosomes:
        raise ImageError(f"{title}: there are no chromosomes to draw; give at least one entry")
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
        inside = signal > _BACKGROUND_FRACTION * signal.max()
        (top, bottom), (left, right) = (
            (max(0, int(indices[0]) - _KEPT_MARGIN), int(indices[-1]) + 1 + _KEPT_MARGIN)
            for indices in (np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0)))
        )
        centromere = None if entry.centromere is None else entry.centromere - top
        crops.append(_Crop(signal[top:bottom, left:right], centromere))
    return crops


@dataclass(frozen=True, eq=False)
class _Copies:
    """The copies of each class, and their widths in the karyogram at a scale.

    Attributes:
        entries: Index of the entry of each copy by class; None for a missing copy.
        surplus: Number of gained (> 0) or missing (< 0) copies by class.
        crops: Crop of each entry.
        needs_review: Review mark of each entry.
    """

    entries: dict[str, list[int | None]]
    surplus: dict[str, int]
    crops: list[_Crop]
    needs_review: list[bool]

    @classmethod
    def of(cls, chromosomes: Sequence[KaryogramEntry], crops: list[_Crop]) -> "_Copies":
        """Sort the entries by class, and add the copies that are missing from the normal set."""
        entries: dict[str, list[int | None]] = {name: [] for name in CLASSES}
        for index, entry in enumerate(chromosomes):
            entries[entry.label].append(index)
        normal = normal_counts("XY" if entries["Y"] else "XX")
        surplus = {name: len(entries[name]) - normal[name] for name in CLASSES}
        for name in CLASSES:
            entries[name] += [None] * -surplus[name]
        return cls(entries, surplus, crops, [entry.needs_review for entry in chromosomes])

    def place_width(self, entry: int | None, scale: float) -> float:
        if entry is None:
            return _PLACE_WIDTH
        minimum = _REVIEW_PLACE_WIDTH if self.needs_review[entry] else _PLACE_WIDTH
        width: int = self.crops[entry].signal.shape[1]
        return max(width * scale + 2 * _FRAME, minimum)

    def class_width(self, name: str, scale: float) -> float:
        places = [self.place_width(entry, scale) for entry in self.entries[name]]
        return sum(places or [_PLACE_WIDTH]) + _COPY_GAP * (max(len(places), 1) - 1)

    def row_width(self, row: tuple[str, ...], scale: float) -> float:
        names = [name for letter in row for name in _GROUPS[letter]]
        gaps = _CLASS_GAP * (len(names) - len(row)) + _GROUP_GAP * (len(row) - 1)
        return sum(self.class_width(name, scale) for name in names) + gaps


def _lay_out(chromosomes: Sequence[KaryogramEntry], crops: list[_Crop], top: float) -> _Layout:
    """Compute the place of every chromosome, row by row from ``top`` down."""
    copies = _Copies.of(chromosomes, crops)
    scale, width = _choose_scale(copies)
    layout = _Layout(width, top, (), (), ())
    for row in _ROWS:
        layout = _add_row(layout, row, copies, scale)
    return layout


def _choose_scale(copies: _Copies) -> tuple[float, int]:
    """Return the largest scale at which all rows fit, and the width of the karyogram.

    If no scale fits, it is the smallest one, on a wider karyogram.
    """
    longest = max(crop.signal.shape[0] for crop in copies.crops)
    min_scale, max_scale = (limit / longest for limit in _LONGEST_RANGE)
    for scale in np.linspace(max_scale, min_scale, 60).tolist():
        widest = max(copies.row_width(row, scale) for row in _ROWS)
        if widest <= _MIN_WIDTH - 2 * _MARGIN:
            break
    return scale, max(_MIN_WIDTH, int(np.ceil(widest)) + 2 * _MARGIN)


def _add_row(layout: _Layout, row: tuple[str, ...], copies: _Copies, scale: float) -> _Layout:
    """Add the places and labels of one row of groups below a layout."""
    crops = copies.crops
    entries = [i for letter in row for name in _GROUPS[letter] for i in copies.entries[name]]
    lengths = {i: crops[i].signal.shape[0] for i in entries if i is not None}
    # Length of each chromosome above the common line of the row: its p arm, or all of it.
    centromeres = {i: crops[i].centromere for i in lengths}
    rises = {i: centromere for i, centromere in centromeres.items() if centromere is not None}
    if len(rises) < len(lengths):
        rises = {i: float(length) for i, length in lengths.items()}
    above = scale * max(rises.values(), default=0.0)
    below = scale * max((lengths[i] - rises[i] for i in lengths), default=0.0)
    row_height = max(above + below, _EMPTY_ROW)
    baseline = layout.bottom + _HEADROOM + row_height + _BASELINE_GAP
    line = layout.bottom + _HEADROOM + row_height - below

    # The free width of a row is shared among its gaps, so that all rows reach both margins.
    gap_count = sum(len(_GROUPS[letter]) for letter in row) - len(row) + 2 * (len(row) - 1)
    stretch = (layout.width - 2 * _MARGIN - copies.row_width(row, scale)) / gap_count
    places: list[_Place] = []
    classes: list[_Label] = []
    groups: list[_Label] = []
    x = float(_MARGIN)
    for letter in row:
        group_left = x
        for name in _GROUPS[letter]:
            class_left = x
            heights = [scale * lengths[i] for i in copies.entries[name] if i is not None]
            for entry in copies.entries[name]:
                place_width = copies.place_width(entry, scale)
                if entry is None:
                    # The height of its homologue, or of a typical chromosome of the row.
                    height = max(heights, default=0.75 * row_height)
                    box = (x, baseline - _BASELINE_GAP - height, place_width, height)
                else:
                    height, width = (scale * side for side in crops[entry].signal.shape)
                    box = (
                        x + (place_width - width) / 2,
                        line - scale * rises[entry],
                        width,
                        height,
                    )
                places.append(_Place(name, entry, *box))
                x += place_width + _COPY_GAP
            x = class_left + copies.class_width(name, scale)
            classes.append(_Label(name, class_left, x, baseline, copies.surplus[name]))
            x += _CLASS_GAP + stretch
        x -= _CLASS_GAP + stretch
        if letter != _SEX_GROUP:
            groups.append(_Label(letter, group_left, x, baseline + 48))
        x += _GROUP_GAP + 2 * stretch
    return _Layout(
        layout.width,
        baseline + _ROW_FOOT,
        (*layout.places, *places),
        (*layout.classes, *classes),
        (*layout.groups, *groups),
    )


# Drawing


def _draw_chromosomes(crops: Sequence[_Crop], layout: _Layout, height: int) -> Image.Image:
    """Draw all chromosomes with a common exposure."""
    inside = [crop.signal[crop.signal > _BACKGROUND_FRACTION * crop.signal.max()] for crop in crops]
    exposure = float(np.percentile(np.concatenate(inside), _EXPOSURE_PERCENTILE))
    canvas = np.full((height, layout.width), float(_PAPER), dtype=np.float32)
    for place in layout.places:
        if place.entry is not None:
            _draw_chromosome(canvas, crops[place.entry].signal / exposure, place)
    return Image.fromarray(canvas.round().astype(np.uint8)).convert("RGB")


def _draw_chromosome(
    canvas: NDArray[np.float32], signal: NDArray[np.float32], place: _Place
) -> None:
    """Draw one chromosome into the grey canvas, in place."""
    left, top = round(place.left), round(place.top)
    size = (max(1, round(place.width)), max(1, round(place.height)))
    method = cv2.INTER_CUBIC if size[1] > signal.shape[0] else cv2.INTER_AREA
    resized = np.clip(cv2.resize(np.clip(signal, 0, 1), size, interpolation=method), 0, 1)
    window = canvas[top : top + size[1], left : left + size[0]]
    window[:] = _PAPER + (_STAIN - _PAPER) * resized


def _mark_review(pen: ImageDraw.ImageDraw, place: _Place, probability: float, font: Font) -> None:
    """Draw a thin frame, and above it a question mark with the probability."""
    left, top = round(place.left) - _FRAME, round(place.top) - _FRAME
    right, bottom = left + round(place.width) + 2 * _FRAME, top + round(place.height) + 2 * _FRAME
    pen.rectangle((left, top, right, bottom), outline=_REVIEW, width=2)
    middle = (left + right) / 2
    pen.text((middle, top - 3), f"? {probability:.0%}", _REVIEW, font, anchor="md")


def _draw_missing(pen: ImageDraw.ImageDraw, place: _Place, dash: int = 6) -> None:
    """Draw the dashed box of a missing chromosome."""
    left, top = round(place.left), round(place.top)
    right, bottom = left + round(place.width) - 1, top + round(place.height) - 1
    for x in range(left, right, 2 * dash):
        for y in (top, bottom):
            pen.line((x, y, min(x + dash, right), y), _FAINT, 1)
    for y in range(top, bottom, 2 * dash):
        for x in (left, right):
            pen.line((x, y, x, min(y + dash, bottom)), _FAINT, 1)


def _draw_class_label(pen: ImageDraw.ImageDraw, label: _Label, texts: _Texts) -> None:
    """Draw the baseline of a class, its number, and its gain or loss."""
    pen.line((label.left, label.y, label.right, label.y), _TEXT, 2)
    middle = (label.left + label.right) / 2
    pen.text((middle, label.y + 7), label.text, _TEXT, texts.fonts[20], anchor="ma")
    if label.surplus:
        corner = (middle + texts.fonts[20].getlength(label.text) / 2 + 5, label.y + 9)
        pen.text(corner, f"({label.surplus:+d})", _REVIEW, texts.fonts[15])


def _draw_group_label(pen: ImageDraw.ImageDraw, label: _Label, texts: _Texts) -> None:
    """Draw the bracket of a group and its letter."""
    middle = (label.left + label.right) / 2
    half = texts.fonts[18].getlength(label.text) / 2 + 8
    for end, inner in ((label.left, middle - half), (label.right, middle + half)):
        pen.line((end, label.y - 5, end, label.y, inner, label.y), _FAINT, 1)
    pen.text((middle, label.y), label.text, _FAINT, texts.fonts[18], anchor="mm")
