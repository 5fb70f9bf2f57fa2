"""Repair of camera defects: dead lines and hot pixels.

A white column, a saturated first row or a few hot pixels are often the brightest pixels of an image
and would spoil its grey levels, so they are filled from their neighbours first. Wider artefacts are
handled by :mod:`chromozoo.images.levels`.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Maximum width in pixels of a dead line: narrower than any chromosome that shows bands.
MAX_LINE, MAX_LINE_IN_CROP = 8, 2
# A dead line differs from both sides by MIN_LINE_CONTRAST of the image's range, along at least
# MIN_LINE_SHARE of its length, which is longer than any chromosome.
MIN_LINE_CONTRAST, MIN_LINE_SHARE = 0.05, 0.3
# The background is estimated from every fourth row and column.
SAMPLING_STEP = 4
# The mean of a dead line departs from its neighbours' means by MIN_PROFILE of the range, and by
# PROFILE_SIGMAS times the usual difference.
MIN_PROFILE, PROFILE_SIGMAS = 0.02, 8.0
# A line that is dead at the background's level shows only where it crosses an object. Its standard
# deviation is at most MAX_DEAD_SPREAD of its neighbours'; both neighbours depart from it by
# MIN_ALIVE_SPREAD of the range; and of the rows in which one of them shows an object, both do in
# MIN_AGREEMENT, in MIN_CROSSINGS separate places.
MAX_DEAD_SPREAD, MIN_ALIVE_SPREAD, MIN_AGREEMENT, MIN_CROSSINGS = 0.01, 0.02, 0.2, 2
# A dead line may hide another one that departs less, so the search is repeated.
PASSES = 3
# A hot pixel departs from its 3x3 median by HOT_CONTRAST of the range. A smaller share of hot
# pixels than MIN_HOT_SHARE is harmless; a larger one than MAX_HOT_SHARE is noise or a drawing.
HOT_CONTRAST, MIN_HOT_SHARE, MAX_HOT_SHARE = 0.5, 2e-4, 0.08
# Maximum number of hot pixels in 3x3 pixels; more of them belong to a larger object.
MAX_SIMILAR = 3
# Percentiles that define the range, and the number of pixels that they are computed from.
RANGE, RANGE_PIXELS = (0.1, 99.9), 150_000


@dataclass(frozen=True)
class Defects:
    """Repaired defects of an image.

    Attributes:
        rows: Number of dead rows.
        columns: Number of dead columns.
        hot_pixels: Number of hot or dead pixels.
    """

    rows: int = 0
    columns: int = 0
    hot_pixels: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.columns or self.hot_pixels)

    def describe(self) -> tuple[str, ...]:
        """Return one sentence for each kind of defect."""
        sentences = []
        for number, name in ((self.rows, "row"), (self.columns, "column")):
            if number:
                lines = _format_count(number, f"dead or saturated {name}")
                owner = "its" if number == 1 else "their"
                sentences.append(f"{lines} of the camera filled from {owner} neighbours")
        if self.hot_pixels:
            sentences.append(
                f"{_format_count(self.hot_pixels, 'hot or dead pixel')} filled from the median"
            )
        return tuple(sentences)


def repair_defects(
    grey: NDArray[np.float32], *, is_crop: bool = False
) -> tuple[NDArray[np.float32], Defects]:
    """Fill dead lines and hot pixels from their neighbours.

    Args:
        grey: ``(H, W)`` in any units.
        is_crop: Whether the image is a crop of one chromosome, which may be narrow and tightly cut.
            Then defects have to outshine the chromosome by far, and a single pixel is repaired.

    Returns:
        ``(H, W)``, the same array if there are no defects; and the repaired defects.
    """
    repaired, rows, columns = grey, 0, 0
    for _ in range(1 if is_crop else PASSES):
        down, across = (
            _find_dead_columns(repaired, is_crop),
            _find_dead_columns(repaired.T, is_crop),
        )
        if not down and not across:
            break
        if repaired is grey:
            repaired = grey.copy()
        _fill_columns(repaired, down)
        _fill_columns(repaired.T, across)
        columns += sum(stop - start for start, stop, _ in down)
        rows += sum(stop - start for start, stop, _ in across)
    repaired, hot_pixels = _fill_hot_pixels(repaired, 0.0 if is_crop else MIN_HOT_SHARE)
    return repaired, Defects(rows, columns, hot_pixels)


# First column of a run, the column behind its last, and the rows ``(H,)`` in which it is dead.
_Run = tuple[int, int, NDArray[np.bool_]]


def _find_dead_columns(grey: NDArray[np.float32], is_crop: bool) -> list[_Run]:
    """Return the runs of dead columns."""
    width, max_line = grey.shape[1], MAX_LINE_IN_CROP if is_crop else MAX_LINE
    if width < 2 * max_line + 1:
        return []
    size = 2 * max_line + 1
    value_range = float(grey.max()) - float(grey.min())
    profile = grey.mean(axis=0, dtype=np.float64)
    departure = np.abs(profile - ndimage.median_filter(profile, size, mode="mirror"))
    usual = 1.4826 * float(np.median(departure))
    stands_out = departure > max(PROFILE_SIGMAS * usual, MIN_PROFILE * value_range, 1e-12)
    spread = grey.std(axis=0, dtype=np.float64)
    around = ndimage.median_filter(spread, size, mode="mirror")
    is_flat = (spread <= MAX_DEAD_SPREAD * around) & (around > 0)
    runs: list[_Run] = []
    kinds = [(stands_out, _find_dead_rows_in_crop if is_crop else _find_dead_rows)]
    if not is_crop:
        kinds.append((is_flat, _find_crossed_rows))
    for candidates, find_dead_rows in kinds:
        taken = np.zeros(width, bool)
        for start, stop, _ in runs:
            taken[start:stop] = True
        edges = np.flatnonzero(np.diff(np.pad((candidates & ~taken).astype(np.int8), 1)))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if stop - start <= max_line:
                dead = find_dead_rows(grey, start, stop, value_range)
                if dead is not None:
                    runs.append((start, stop, dead))
    return runs


def _neighbour_columns(
    grey: NDArray[np.float32], start: int, stop: int
) -> list[NDArray[np.float32]]:
    """Return the columns ``(H,)`` one pixel apart from a run on both sides; one at the border."""
    return [grey[:, column] for column in (start - 2, stop + 1) if 0 <= column < grey.shape[1]]


def _find_dead_rows_in_crop(
    grey: NDArray[np.float32], start: int, stop: int, value_range: float
) -> NDArray[np.bool_] | None:
    """Find dead rows as :func:`_find_dead_rows`, but with the contrast of hot pixels."""
    return _find_dead_rows(grey, start, stop, HOT_CONTRAST / MIN_LINE_CONTRAST * value_range)


def _find_dead_rows(
    grey: NDArray[np.float32], start: int, stop: int, value_range: float
) -> NDArray[np.bool_] | None:
    """Return the rows in which a run is brighter, or darker, than both sides; None if too few."""
    line, sides = grey[:, start:stop], np.stack(_neighbour_columns(grey, start, stop))
    contrast = MIN_LINE_CONTRAST * value_range
    # A gap between two upright chromosomes differs from both, but not from the background.
    background = float(np.median(grey[::SAMPLING_STEP, ::SAMPLING_STEP]))
    for dead in (
        line.min(axis=1) > np.maximum(sides.max(axis=0), background) + contrast,
        line.max(axis=1) < np.minimum(sides.min(axis=0), background) - contrast,
    ):
        # Close gaps of a few pixels, where the line crosses an object of its own level.
        closed = ndimage.binary_closing(np.pad(dead, 16, mode="edge"), np.ones(15, bool))[16:-16]
        labels, count = ndimage.label(closed)
        if not count:
            continue
        sizes = np.bincount(labels)[1:]
        if sizes.max() >= MIN_LINE_SHARE * len(dead):
            long = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.5 * sizes.max()))
            return np.ones(len(dead), bool) if long.mean() > 0.9 else long
    return None


def _find_crossed_rows(
    grey: NDArray[np.float32], start: int, stop: int, value_range: float
) -> NDArray[np.bool_] | None:
    """Return all rows if a run of one level cuts through objects on both sides; else None."""
    sides = _neighbour_columns(grey, start, stop)
    if len(sides) < 2:
        return None
    level = np.median(grey[:, start:stop])
    for sign in (1, -1):
        departures = [sign * (side - level) for side in sides]
        contrast = min(float(np.percentile(departure, 99)) for departure in departures)
        if contrast < MIN_ALIVE_SPREAD * value_range:
            continue
        left, right = (departure > 0.4 * contrast for departure in departures)
        _, crossings = ndimage.label(left & right)
        if (
            crossings >= MIN_CROSSINGS
            and (left & right).sum() >= MIN_AGREEMENT * (left | right).sum()
        ):
            return np.ones(grey.shape[0], bool)
    return None


def _fill_columns(grey: NDArray[np.float32], runs: list[_Run]) -> None:
    """Interpolate over runs of columns, in place."""
    dead = np.zeros(grey.shape[1], bool)
    for start, stop, _ in runs:
        dead[start:stop] = True
    for start, stop, rows in runs:
        left, right = start - 1, stop
        while left >= 0 and dead[left]:
            left -= 1
        while right < len(dead) and dead[right]:
            right += 1
        before = grey[rows, left] if left >= 0 else grey[rows, right]
        behind = grey[rows, right] if right < len(dead) else before
        for column in range(start, stop):
            share = np.float32((column - left) / (right - left))
            grey[rows, column] = (1 - share) * before + share * behind


def _fill_hot_pixels(
    grey: NDArray[np.float32], min_share: float
) -> tuple[NDArray[np.float32], int]:
    """Fill hot pixels from their 3x3 median; return the image and their number."""
    repaired, total = grey, 0
    for _ in range(2):  # weaker hot pixels show once the strongest are filled
        around = cv2.medianBlur(np.ascontiguousarray(repaired), 3)
        departure = cv2.absdiff(repaired, around)
        if float(departure.max()) <= 0:
            break
        step = int(np.ceil((grey.size / RANGE_PIXELS) ** 0.5))
        low, high = np.percentile(repaired[::step, ::step], RANGE)
        hot = departure > max(HOT_CONTRAST * float(high - low), 1e-12)
        share = float(hot.mean())
        if not min_share <= share <= MAX_HOT_SHARE or not hot.any():
            break
        _exclude_larger_objects(hot, repaired)
        if not min_share <= float(hot.mean()):
            break
        repaired = np.where(hot, around, repaired)
        total += int(hot.sum())
    return repaired, total


def _exclude_larger_objects(hot: NDArray[np.bool_], grey: NDArray[np.float32]) -> None:
    """Remove the corners of larger objects, which have three similar neighbours, from ``hot``."""
    rows, columns = np.nonzero(hot)
    around = np.pad(grey, 1, mode="edge")
    patches = np.stack(
        [around[rows + down, columns + across] for down in range(3) for across in range(3)]
    )
    middle = grey[rows, columns]
    apart = np.abs(patches - np.median(patches, axis=0))
    is_similar = np.abs(patches - middle) < 0.5 * apart[4]
    hot[rows, columns] = is_similar.sum(axis=0) <= MAX_SIMILAR


def _format_count(number: int, name: str) -> str:
    return f"a {name}" if number == 1 else f"{number:,} {name}s"
