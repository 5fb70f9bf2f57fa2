"""The grey levels of a metaphase: what is background, what a chromosome, and what neither.

Background, stain, contrast and scale are measured once for each image, by :func:`measure_levels`,
and everything else reads them. An ordinary image is measured as it is: the background is its most
frequent level, and the chromosomes are whatever departs further from it, to the bright or to the
dark side. What would spoil this is found first, and left out:

1. dead lines and hot pixels of the camera (:mod:`chromozoo.images.defects`);
2. a frame, or a screen around the field of view (:mod:`chromozoo.images.field`);
3. uneven light (:mod:`chromozoo.images.light`);
4. captions and scale bars (:mod:`chromozoo.images.caption`);
5. objects that are far brighter than the chromosomes: dirt and nuclei.

For the last, what stands out most is looked at: where its pieces do not look like chromosomes, and
what stands out next does, the first is left out.
"""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import Stain
from chromozoo.images.caption import find_caption
from chromozoo.images.defects import Defects, repair_defects
from chromozoo.images.field import Frame, find_frame, reduced
from chromozoo.images.light import Light, even_light

# Below this contrast (of the image's own full range) there is nothing but noise.
MIN_CONTRAST = 0.02
BRIGHTEST_PERCENTILE = 99.0
# What stands out of the background in fewer pixels than this is dust.
MIN_PIXELS = 100
# Pieces smaller than this say nothing of the width of chromosomes.
MIN_PIECE_PIXELS = 30
# A piece may be a chromosome from this area and width on, in pixels, and up to this width.
MIN_AREA, MIN_WIDTH, MAX_WIDTH = 40, 3.0, 60.0
# Area by the square of the width, which is 0.8 of a disc: a rod or a cluster of rods has more.
MIN_LENGTH = 1.7
# This many pieces that may be chromosomes, and long ones among them, are a cell. All of 393
# validation and training images of CIL:54816 have them, and 95 to 99 of 100 of M-FISH and BioImLab.
MIN_PIECES, MIN_LONG, MIN_LONG_SHARE = 12, 5, 0.4
# So many pieces may be a cell of contracted chromosomes, few of which are long: it takes so many
# long ones behind them to show that they are specks.
MIN_SHORT_PIECES, MIN_LONG_BEHIND = 24, 12
# What stands out so many times less than pieces that may be chromosomes, or covers a larger share
# of the image, is the grain of the background.
MAX_TIMES, MAX_COVER = 14.0, 0.15
# Fewer are taken for a cell where what is brighter has far fewer.
MIN_OTHER_PIECES, MIN_OTHER_LONG = 8, 4
# How often what stands out most is set aside, and how far around it nothing is looked at.
# Nothing is looked for in the rest where this share of the image is left out.
MAX_LOOKS, HALO, MAX_LEFT_OUT = 6, 7, 0.9
# Pixels around letters that are cut out with them.
CAPTION_RIM = 3
# The level of a piece, a percentile of its pixels; an object departs by this many times the level
# of the median chromosome, and a wide one by the second.
PIECE_PERCENTILE = 0.9
BRIGHT_OBJECT, BRIGHT_WIDE_OBJECT, WIDE = 1.8, 1.4, 2.5
# Single pixels of a chromosome, or of several that cross, depart by up to this many times of it.
BRIGHT_PIXEL = 2.5
# Only where objects would raise the brightest level by this factor are they left out, so ordinary
# images with a nucleus stay as the weights have learnt them: of 656 images of the three sets one in
# 28 has more.
MIN_RAISE = 1.5
# Pieces are looked at in a copy of fewer pixels than this.
LOOK_PIXELS = 1_200_000


@dataclass(frozen=True)
class Outliers:
    """What was left out of the levels for standing out far more than the chromosomes.

    Attributes:
        count: Number of objects.
        width: Of the widest, in pixels.
        times: Departure from the background of the strongest, by that of the brightest parts of
            the chromosomes.
        is_dark: Whether it is darker than the background.
    """

    count: int
    width: float
    times: float
    is_dark: bool

    def words(self) -> str:
        """What was left out."""
        many, kind = self.count != 1, "dark" if self.is_dark else "bright"
        return (
            f"{f'{self.count} {kind} objects' if many else f'a {kind} object'} "
            f"({'up to ' if many else ''}{self.width:.0f} px wide, {self.times:.1f} times as "
            f"{kind} as the chromosomes) {'were' if many else 'was'} left out of the grey levels"
        )


@dataclass(frozen=True, eq=False)
class Levels:
    """The grey levels of one image, as :func:`measure_levels` finds them.

    Attributes:
        low, high: Levels that one pixel in a thousand falls short of, and exceeds, in the units of
            the image; of what was not left out.
        background: The most frequent level.
        top: The level of the brightest part of a chromosome, which becomes 1 in the signal.
        stain: ``"g"`` where chromosomes are darker than the background, ``"q"`` where they are
            brighter, and by convention where nothing stands out.
        is_found: Whether anything stands out.
        width: Median width of what stands out, in pixels; 0 where nothing does.
        defects: Of the camera, mended.
        frame: What was cut off.
        light: How uneven the light was, before it was evened out; None where it was left as it is.
        letters: Number of letters and bars of captions and scales that were cut out.
        outliers: What was left out.
        alarms: Why the levels cannot be trusted, in words; empty where they can.
        signal: ``(H, W)`` float32 in 0..1, background and what was cut off 0.
    """

    low: float
    background: float
    high: float
    top: float
    stain: Stain
    is_found: bool
    width: float
    defects: Defects
    frame: Frame | None
    light: Light | None
    letters: int
    outliers: Outliers | None
    alarms: tuple[str, ...]
    signal: NDArray[np.float32] = field(repr=False)

    @property
    def flags(self) -> tuple[str, ...]:
        """What was odd and is mended, cut off or left out, in words; empty as a rule."""
        flags = [*self.defects.words()]
        flags += [odd.words() for odd in (self.frame, self.light) if odd is not None]
        if self.letters:
            many = f"{self.letters} letters and bars" if self.letters > 1 else "a letter or bar"
            flags.append(f"a caption or scale bar ({many}) was cut out")
        if self.outliers is not None:
            flags.append(self.outliers.words())
        return tuple(flags)

    def to_dict(self) -> dict[str, Any]:
        """All but the signal as plain values, as JSON takes them."""
        excluded: dict[str, Any] = {
            "dead_rows": self.defects.rows,
            "dead_columns": self.defects.columns,
            "hot_pixels": self.defects.hot_pixels,
            "letters": self.letters,
        }
        if self.frame is not None:
            excluded["frame"] = {
                "shape": self.frame.shape,
                "level": _rounded(self.frame.level),
                "share": round(self.frame.share, 4),
            }
        if self.outliers is not None:
            excluded["outliers"] = {
                "count": self.outliers.count,
                "width": round(self.outliers.width, 1),
                "times": round(self.outliers.times, 2),
                "is_dark": self.outliers.is_dark,
            }
        return {
            "low": _rounded(self.low),
            "background": _rounded(self.background),
            "high": _rounded(self.high),
            "top": _rounded(self.top),
            "stain": self.stain,
            "is_found": self.is_found,
            "chromosome_width": round(self.width, 2),
            "uneven_light": None if self.light is None else round(self.light.share, 3),
            "excluded": excluded,
            "flags": list(self.flags),
            "alarms": list(self.alarms),
        }


def measure_levels(grey: NDArray[np.float32]) -> Levels:
    """Measures the grey levels of a metaphase, and makes its signal.

    The 99th percentile of what stands out of the background becomes 1, so exposure and bit depth
    drop out.

    Args:
        grey: ``(H, W)`` in any units.

    Returns:
        The levels. Where nothing stands out, the signal is all 0.
    """
    clean, defects = repair_defects(grey)
    small = reduced(clean)
    frame = find_frame(clean, small)
    left_out = None if frame is None else ~frame.field
    even, light = even_light(clean, None if frame is None else frame.field, small)
    looks, caption = _looks(even, left_out)
    if not looks:
        low, high = float(clean.min()), float(clean.max())
        nothing = np.zeros(grey.shape, np.float32)
        return Levels(
            low, low, high, high, "q", False, 0.0, defects, frame, light, 0, None, (), nothing
        )
    chosen = _chosen(looks)
    look = looks[chosen]
    top, odd = _top(look)
    outliers = _outliers(looks[:chosen], look, odd, top)
    signal = np.asarray(np.clip(look.departure / np.float32(top), 0, 1), np.float32)
    cut = _either(left_out, caption.mask)
    if outliers is not None:
        cut = _either(cut, _specks(looks[:chosen], look))
    if cut is not None:
        signal[cut] = 0
    return Levels(
        low=look.low,
        background=look.background,
        high=look.high,
        top=look.background + (top if look.is_bright else -top),
        stain="q" if look.is_bright else "g",
        is_found=True,
        width=chromosome_width(signal, look.left_out if chosen else None),
        defects=defects,
        frame=frame,
        light=light,
        letters=caption.count,
        outliers=outliers,
        alarms=_alarms(look),
        signal=signal,
    )


def chromosome_width(signal: NDArray[np.float32], apart: NDArray[np.bool_] | None = None) -> float:
    """Median width in pixels of what stands out; 0 where nothing does.

    It is twice the median distance to the background along the middle lines, so a piece counts by
    its length: a hundred specks of dust have little of it, and so has a round nucleus.

    Args:
        signal: ``(H, W)`` in 0..1, background 0.
        apart: ``(H, W)`` bool, what is no chromosome; what touches it does not count either. None
            where that is nothing.
    """
    if apart is not None:
        signal = np.where(apart, np.float32(0), signal)
    eight_bit = np.round(signal * 255).astype(np.uint8)
    level, _ = cv2.threshold(
        cv2.GaussianBlur(eight_bit, (3, 3), 0), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU
    )
    # Otsu's threshold lies inside a blurred chromosome; 0.6 of it reaches the visible edge.
    inside = cv2.morphologyEx(
        (eight_bit > 0.6 * level).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)
    )
    if inside.all():
        return 0.0  # no background to be distant from
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    ridge = (distance >= cv2.dilate(distance, np.ones((3, 3), np.uint8))) & (distance > 1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    counted = stats[:, cv2.CC_STAT_AREA] >= MIN_PIECE_PIXELS
    if apart is not None:
        counted[labels[cv2.dilate(apart.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0]] = False
    ridge &= counted[labels]
    return float(2 * np.median(distance[ridge])) if ridge.any() else 0.0


@dataclass(frozen=True, eq=False)
class _Pieces:
    """What stands out, piece by piece, at the scale of the copy that was looked at.

    Attributes:
        labels: ``(h, w)`` int32, 0 background, else 1 + index of the piece.
        boxes: ``(N, 4)``, left, top, width and height in pixels of the image.
        areas: ``(N,)`` in pixels of the image.
        widths: ``(N,)`` of the widest place, in pixels of the image.
        levels: ``(N,)`` departure from the background.
        departures: ``(P,)`` of all pixels of all pieces.
        owners: ``(P,)`` index of the piece of each.
    """

    labels: NDArray[np.int32]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    widths: NDArray[np.float64]
    levels: NDArray[np.float64]
    departures: NDArray[np.float32]
    owners: NDArray[np.int64]

    @property
    def likely(self) -> NDArray[np.bool_]:
        """``(N,)``, which may be chromosomes."""
        return (self.areas >= MIN_AREA) & (self.widths >= MIN_WIDTH) & (self.widths <= MAX_WIDTH)

    @property
    def long(self) -> NDArray[np.bool_]:
        """``(N,)``, which of these are rods or clusters of rods."""
        return self.likely & (self.areas >= MIN_LENGTH * np.maximum(self.widths, 1) ** 2)

    @property
    def typical(self) -> NDArray[np.bool_]:
        """``(N,)``, which stand for the chromosomes; none where nothing looks like them."""
        for like in (self.long, self.likely):
            if int(like.sum()) >= MIN_LONG:
                return like
        return np.zeros(len(self.areas), bool)

    @property
    def typical_level(self) -> float:
        """Departure of the median chromosome; 0 where nothing looks like one."""
        like = self.typical
        return float(np.median(self.levels[like])) if like.any() else 0.0


@dataclass(frozen=True, eq=False)
class _Look:
    """What stands out of the background of an image, or of what is left of it.

    Attributes:
        low, background, high: See :class:`Levels`.
        is_bright: Whether it is brighter than the background.
        departure: ``(H, W)`` from the background, to that side.
        stands_out: ``(H, W)`` bool.
        left_out: ``(H, W)`` bool, what was not looked at; None where that is nothing.
        step: Every so many rows and columns, pieces were looked at.
        pieces: What stands out.
    """

    low: float
    background: float
    high: float
    is_bright: bool
    departure: NDArray[np.float32]
    stands_out: NDArray[np.bool_]
    left_out: NDArray[np.bool_] | None
    step: int
    pieces: _Pieces

    def where(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``(H, W)`` bool, where the pieces are that are chosen ``(N,)``."""
        mask = np.concatenate([[False], chosen])[self.pieces.labels]
        if self.step == 1:
            return mask
        size = self.departure.shape[::-1]
        whole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return np.asarray(whole) > 0

    @property
    def is_a_cell(self) -> bool:
        """Whether there is no doubt that most of it is chromosomes."""
        likely, long = int(self.pieces.likely.sum()), int(self.pieces.long.sum())
        return likely >= MIN_PIECES and long >= max(MIN_LONG, MIN_LONG_SHARE * likely)


@dataclass(frozen=True, eq=False)
class _Caption:
    """Letters and bars, and ``(H, W)`` bool, where they are; None where there are none."""

    count: int = 0
    mask: NDArray[np.bool_] | None = None

    def and_of(self, look: _Look) -> "_Caption":
        """With what a look shows."""
        pieces, shape = look.pieces, look.departure.shape
        highest = float(pieces.departures.max())
        letters = find_caption(
            pieces.boxes, pieces.areas, pieces.widths, pieces.levels, highest, (shape[0], shape[1])
        )
        if not letters.any():
            return self
        size = 2 * CAPTION_RIM * look.step + 1
        mask = look.where(letters).astype(np.uint8)
        found = np.asarray(cv2.dilate(mask, np.ones((size, size), np.uint8))) > 0
        count = self.count + int(letters.sum())
        return _Caption(count, found if self.mask is None else self.mask | found)


def _looks(
    grey: NDArray[np.float32], left_out: NDArray[np.bool_] | None
) -> tuple[list[_Look], _Caption]:
    """What stands out, then what stands out of the rest, and so on, until it is a cell."""
    looks: list[_Look] = []
    caption = _Caption()
    for _ in range(MAX_LOOKS):
        look = _look(grey, left_out)
        if look is None:
            break
        if (more := caption.and_of(look)) is not caption:
            caption = more
            left_out = _either(left_out, caption.mask)
            look = _look(grey, left_out)
            if look is None:
                break
        looks.append(look)
        if look.is_a_cell:
            break
        left_out = _either(left_out, _grown(look.stands_out, HALO))
        if left_out is not None and left_out.mean() > MAX_LEFT_OUT:
            break
    return looks, caption


def _either(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    if one is None or other is None:
        return one if other is None else other
    return one | other


def _look(grey: NDArray[np.float32], left_out: NDArray[np.bool_] | None) -> _Look | None:
    """What stands out of the background; None where nothing does."""
    levels = _levels(grey if left_out is None else grey[~left_out])
    if levels is None:
        return None
    low, background, high = levels
    is_bright = high - background >= background - low
    departure = grey - np.float32(background) if is_bright else np.float32(background) - grey
    span = max(high - background if is_bright else background - low, 1e-12)
    eight_bit = np.clip(departure * np.float32(255 / span), 0, 255).astype(np.uint8)
    blurred = cv2.GaussianBlur(eight_bit, (3, 3), 0)
    if left_out is None:
        level, _ = cv2.threshold(blurred, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        stands_out = eight_bit > level
    else:
        level, _ = cv2.threshold(blurred[~left_out], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        stands_out = (eight_bit > level) & ~left_out
    if int(np.count_nonzero(stands_out)) < MIN_PIXELS:
        return None
    step = int(np.ceil((grey.size / LOOK_PIXELS) ** 0.5))
    return _Look(
        low,
        background,
        high,
        bool(is_bright),
        departure,
        stands_out,
        left_out,
        step,
        _pieces(stands_out[::step, ::step], departure[::step, ::step], step),
    )


def _pieces(stands_out: NDArray[np.bool_], departure: NDArray[np.float32], step: int) -> _Pieces:
    mask = stands_out.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    distance = cv2.distanceTransform(np.pad(mask, 1, mode="edge"), cv2.DIST_L2, 3)[1:-1, 1:-1]
    owners = labels[stands_out].astype(np.int64) - 1
    departures = departure[stands_out]
    halves = np.zeros(count - 1)
    np.maximum.at(halves, owners, distance[stands_out])
    areas = stats[1:, cv2.CC_STAT_AREA].astype(np.float64)
    # Sorted by piece and level, so a percentile of each piece is one place in the whole.
    order = np.lexsort((departures, owners))
    starts = np.concatenate([[0], np.cumsum(areas)[:-1]])
    places = (starts + PIECE_PERCENTILE * (areas - 1)).astype(np.int64)
    levels = departures[order][places].astype(np.float64)
    return _Pieces(
        np.asarray(labels, np.int32),
        stats[1:, : cv2.CC_STAT_HEIGHT + 1].astype(np.float64) * step,
        areas * step**2,
        (2 * halves - 1) * step,
        levels,
        departures,
        owners,
    )


def _chosen(looks: list[_Look]) -> int:
    """The look that shows the chromosomes: the first, unless a later one shows a cell instead."""
    first = looks[0]
    if first.is_a_cell:
        return 0
    best = 0
    is_short = int(first.pieces.likely.sum()) >= MIN_SHORT_PIECES
    least = MIN_LONG_BEHIND if is_short else MIN_OTHER_LONG
    most = max(2 * int(first.pieces.long.sum()) + 2, least - 1)
    for number, look in enumerate(looks[1:], 1):
        long = int(look.pieces.long.sum())
        if float(look.stands_out.mean()) > MAX_COVER:
            continue
        is_faint = look.pieces.typical_level * MAX_TIMES < float(np.max(first.pieces.levels))
        if is_faint and int(first.pieces.likely.sum()) >= MIN_OTHER_PIECES:
            continue
        if long > most and int(look.pieces.likely.sum()) >= MIN_OTHER_PIECES:
            best, most = number, long
    return best


def _top(look: _Look) -> tuple[float, NDArray[np.bool_] | None]:
    """Departure of the brightest part of a chromosome.

    Second ``(P,)``, which of the pieces' pixels are of objects, where these would raise it; else
    None.
    """
    pieces = look.pieces
    inside = look.departure[look.stands_out] if look.step > 1 else pieces.departures
    top = max(float(np.percentile(inside, BRIGHTEST_PERCENTILE)), 1e-12)
    level = pieces.typical_level
    if not level:
        return top, None
    is_wide = pieces.widths > WIDE * float(np.median(pieces.widths[pieces.typical]))
    outlying = (pieces.levels > BRIGHT_OBJECT * level) | (
        is_wide & (pieces.levels > BRIGHT_WIDE_OBJECT * level)
    )
    odd = outlying[pieces.owners] | (pieces.departures > BRIGHT_PIXEL * level)
    rest = pieces.departures[~odd]
    if rest.size * look.step**2 < MIN_PIXELS:
        return top, None
    lower = max(float(np.percentile(rest, BRIGHTEST_PERCENTILE)), 1e-12)
    return (lower, odd) if top > MIN_RAISE * lower else (top, None)


def _specks(stronger: list[_Look], look: _Look) -> NDArray[np.bool_] | None:
    """``(H, W)`` bool, small round objects that are no chromosomes and touch none; None where none.

    A segmenter might take them for small chromosomes; nuclei it knows.
    """
    typical = look.pieces.typical
    if not typical.any():
        return None
    width = float(np.median(look.pieces.widths[typical]))
    specks: NDArray[np.bool_] | None = None
    for one in (*stronger, look):
        small = ~one.pieces.long & (one.pieces.widths <= WIDE * width)
        if one is look:
            small &= one.pieces.levels > BRIGHT_PIXEL * one.pieces.typical_level
        if small.any():
            specks = _either(specks, one.where(small))
    if specks is None:
        return None
    halo = _grown(specks, HALO)
    _, labels = cv2.connectedComponents(_grown(halo, 2).astype(np.uint8))
    is_alone = np.ones(int(labels.max()) + 1, bool)
    is_alone[labels[look.stands_out & ~specks]] = False
    is_alone[0] = False
    return np.asarray(halo & is_alone[labels])


def _grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1,) * 2)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel)) > 0


def _outliers(
    stronger: list[_Look], look: _Look, odd: NDArray[np.bool_] | None, top: float
) -> Outliers | None:
    """What was left out, of looks before the chosen one and of that one."""
    found = [(one.pieces, one.is_bright) for one in stronger]
    if odd is not None:
        mask = np.zeros(look.pieces.labels.shape, bool)
        mask[look.pieces.labels > 0] = odd
        pieces = _pieces(mask, look.departure[:: look.step, :: look.step], look.step)
        found.append((pieces, look.is_bright))
    if not found:
        return None
    count, width, level, is_dark = 0, 0.0, 0.0, False
    for pieces, is_bright in found:
        large = pieces.areas >= MIN_PIECE_PIXELS
        count += int(large.sum())
        width = max(width, float(pieces.widths.max()))
        if float(pieces.levels.max()) > level:
            level, is_dark = float(pieces.levels.max()), not is_bright
    return Outliers(max(count, 1), width, level / top, is_dark)


def _alarms(look: _Look) -> tuple[str, ...]:
    likely, long = int(look.pieces.likely.sum()), int(look.pieces.long.sum())
    if likely >= MIN_OTHER_PIECES or long >= MIN_LONG:
        return ()
    counts = f"{likely} of {len(look.pieces.areas)} pieces"
    reason = f"hardly anything that stands out of the background looks like chromosomes ({counts})"
    return (f"the grey levels are doubtful: {reason}",)


def _levels(grey: NDArray[np.float32]) -> tuple[float, float, float] | None:
    """Darkest level, background and brightest one; None where there is nothing but noise."""
    low, high = (float(value) for value in np.percentile(grey, (0.1, 99.9)))
    if high - low <= MIN_CONTRAST * max(abs(low), abs(high), 1e-12):
        # A few chromosomes in a large field are fewer than one pixel in a thousand.
        low, high = float(grey.min()), float(grey.max())
        if high - low <= MIN_CONTRAST * max(abs(low), abs(high), 1e-12):
            return None
    return low, _mode(grey, low, high), high


def _mode(grey: NDArray[np.float32], low: float, high: float) -> float:
    """The level that most pixels have, from a smoothed histogram of 256 steps."""
    counts, edges = np.histogram(grey, bins=256, range=(low, high))
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    peak = int(np.argmax(smooth))
    near = (grey >= edges[max(peak - 2, 0)]) & (grey <= edges[min(peak + 3, 256)])
    return float(np.median(grey[near]))


def _rounded(value: float) -> float:
    """To six digits: the units may be those of 16 bits, or of 0..1."""
    return float(f"{value:.6g}")
