"""Defects of a camera, mended before anything is measured: dead lines and hot pixels.

A column that is always white, a saturated first row or a handful of hot pixels are no part of the
specimen, yet the brightest of the image. They are filled from their neighbours. What is wider than
a line or a pixel is left to :mod:`chromozoo.images.levels`.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Lines up to this many pixels wide are mended: narrower than any chromosome that shows bands.
MAX_LINE, MAX_LINE_IN_CROP = 8, 2
# A dead line stands out on both sides by this share of the image's range, along this share of its
# length: longer than any chromosome.
MIN_LINE_CONTRAST, MIN_LINE_SHARE = 0.05, 0.3
# Every so many rows and columns are enough to tell the background.
SAMPLED = 4
# The mean of a dead line departs from those around by this share of the range, and by this many
# times the usual difference.
MIN_PROFILE, PROFILE_SIGMAS = 0.02, 8.0
# A line that is dead at the level of the background stands out where it crosses something. It
# varies by this share of what those around vary, both sides of it have this share of the range, and
# they agree in this share of the rows where something is, in two pieces or more.
MAX_DEAD_SPREAD, MIN_ALIVE_SPREAD, MIN_AGREEMENT, MIN_CROSSINGS = 0.01, 0.02, 0.2, 2
# One dead line may hide another, which departs far less.
PASSES = 3
# A hot pixel departs from the median around it by this share of the range; fewer than the lower
# share of the pixels spoil nothing, more than the upper one are noise or a drawing.
HOT_CONTRAST, MIN_HOT_SHARE, MAX_HOT_SHARE = 0.5, 2e-4, 0.08
# So many pixels of three by three, the hot one among them, may be hot alike.
MAX_ALIKE = 3
# Percentiles between which the range of the others lies, and from how many pixels it is taken.
RANGE, RANGE_PIXELS = (0.1, 99.9), 150_000


@dataclass(frozen=True)
class Defects:
    """What was mended.

    Attributes:
        rows: Number of rows.
        columns: Number of columns.
        hot_pixels: Number of single pixels.
    """

    rows: int = 0
    columns: int = 0
    hot_pixels: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.columns or self.hot_pixels)

    def words(self) -> tuple[str, ...]:
        """One sentence for each kind."""
        found = []
        for number, name in ((self.rows, "row"), (self.columns, "column")):
            if number:
                found.append(
                    f"{_count(number, f'dead or saturated {name}')} of the camera filled from "
                    f"{'its' if number == 1 else 'their'} neighbours"
                )
        if self.hot_pixels:
            found.append(f"{_count(self.hot_pixels, 'hot or dead pixel')} filled from the median")
        return tuple(found)


def repair_defects(
    grey: NDArray[np.float32], *, is_crop: bool = False
) -> tuple[NDArray[np.float32], Defects]:
    """Fills dead lines and hot pixels from their neighbours.

    Args:
        grey: ``(H, W)`` in any units.
        is_crop: Whether it shows one chromosome, which may be narrow and cut closely: only what
            outshines it by far is mended, be it a single pixel.

    Returns:
        ``(H, W)``, the same array where nothing is wrong, and what was.
    """
    found, rows, columns = grey, 0, 0
    for _ in range(1 if is_crop else PASSES):
        down, across = _dead_columns(found, is_crop), _dead_columns(found.T, is_crop)
        if not down and not across:
            break
        if found is grey:
            found = grey.copy()
        _fill(found, down)
        _fill(found.T, across)
        columns += sum(stop - start for start, stop, _ in down)
        rows += sum(stop - start for start, stop, _ in across)
    found, hot_pixels = _without_hot_pixels(found, 0.0 if is_crop else MIN_HOT_SHARE)
    return found, Defects(rows, columns, hot_pixels)


# A run of columns, and the rows in which it is dead.
_Run = tuple[int, int, NDArray[np.bool_]]


def _dead_columns(grey: NDArray[np.float32], is_crop: bool) -> list[_Run]:
    """Runs of dead columns: first, behind the last, and ``(H,)`` bool, where they are dead."""
    width, max_line = grey.shape[1], MAX_LINE_IN_CROP if is_crop else MAX_LINE
    if width < 2 * max_line + 1:
        return []
    size = 2 * max_line + 1
    full = float(grey.max()) - float(grey.min())
    profile = grey.mean(axis=0, dtype=np.float64)
    departure = np.abs(profile - ndimage.median_filter(profile, size, mode="mirror"))
    usual = 1.4826 * float(np.median(departure))
    stand_out = departure > max(PROFILE_SIGMAS * usual, MIN_PROFILE * full, 1e-12)
    spread = grey.std(axis=0, dtype=np.float64)
    around = ndimage.median_filter(spread, size, mode="mirror")
    is_flat = (spread <= MAX_DEAD_SPREAD * around) & (around > 0)
    runs: list[_Run] = []
    kinds = [(stand_out, _dead_in_crop)] if is_crop else [(stand_out, _dead_in)]
    if not is_crop:
        kinds.append((is_flat, _dead_across))
    for candidates, is_dead in kinds:
        taken = np.zeros(width, bool)
        for start, stop, _ in runs:
            taken[start:stop] = True
        edges = np.flatnonzero(np.diff(np.pad((candidates & ~taken).astype(np.int8), 1)))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if stop - start <= max_line:
                dead = is_dead(grey, start, stop, full)
                if dead is not None:
                    runs.append((start, stop, dead))
    return runs


def _sides(grey: NDArray[np.float32], start: int, stop: int) -> list[NDArray[np.float32]]:
    """The columns ``(H,)`` on both sides of a run, not quite beside it; one at the border."""
    return [grey[:, column] for column in (start - 2, stop + 1) if 0 <= column < grey.shape[1]]


def _dead_in_crop(
    grey: NDArray[np.float32], start: int, stop: int, full: float
) -> NDArray[np.bool_] | None:
    """As :func:`_dead_in`, of lines that stand out as far as hot pixels."""
    return _dead_in(grey, start, stop, HOT_CONTRAST / MIN_LINE_CONTRAST * full)


def _dead_in(
    grey: NDArray[np.float32], start: int, stop: int, full: float
) -> NDArray[np.bool_] | None:
    """Rows in which columns stand out of both sides, to one side; None where these are few."""
    line, sides = grey[:, start:stop], np.stack(_sides(grey, start, stop))
    least = MIN_LINE_CONTRAST * full
    # It departs from the background, too: the gap between two upright chromosomes does not.
    background = float(np.median(grey[::SAMPLED, ::SAMPLED]))
    for dead in (
        line.min(axis=1) > np.maximum(sides.max(axis=0), background) + least,
        line.max(axis=1) < np.minimum(sides.min(axis=0), background) - least,
    ):
        # Gaps of a few pixels, where the line crosses something of its own level.
        closed = ndimage.binary_closing(np.pad(dead, 16, mode="edge"), np.ones(15, bool))[16:-16]
        labels, count = ndimage.label(closed)
        if not count:
            continue
        sizes = np.bincount(labels)[1:]
        if sizes.max() >= MIN_LINE_SHARE * len(dead):
            long = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.5 * sizes.max()))
            return np.ones(len(dead), bool) if long.mean() > 0.9 else long
    return None


def _dead_across(
    grey: NDArray[np.float32], start: int, stop: int, full: float
) -> NDArray[np.bool_] | None:
    """All rows, where columns of one level cut through what is seen on both sides of them."""
    sides = _sides(grey, start, stop)
    if len(sides) < 2:
        return None
    level = np.median(grey[:, start:stop])
    for sign in (1, -1):
        departures = [sign * (side - level) for side in sides]
        contrast = min(float(np.percentile(departure, 99)) for departure in departures)
        if contrast < MIN_ALIVE_SPREAD * full:
            continue
        left, right = (departure > 0.4 * contrast for departure in departures)
        _, crossings = ndimage.label(left & right)
        if (
            crossings >= MIN_CROSSINGS
            and (left & right).sum() >= MIN_AGREEMENT * (left | right).sum()
        ):
            return np.ones(grey.shape[0], bool)
    return None


def _fill(grey: NDArray[np.float32], runs: list[_Run]) -> None:
    """Interpolates over runs of columns, in place."""
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


def _without_hot_pixels(
    grey: NDArray[np.float32], min_share: float
) -> tuple[NDArray[np.float32], int]:
    found, total = grey, 0
    for _ in range(2):  # hot ones of several levels
        around = cv2.medianBlur(np.ascontiguousarray(found), 3)
        departure = cv2.absdiff(found, around)
        if float(departure.max()) <= 0:
            break
        step = int(np.ceil((grey.size / RANGE_PIXELS) ** 0.5))
        low, high = np.percentile(found[::step, ::step], RANGE)
        hot = departure > max(HOT_CONTRAST * float(high - low), 1e-12)
        share = float(hot.mean())
        if not min_share <= share <= MAX_HOT_SHARE or not hot.any():
            break
        _keep_single(hot, found)
        if not min_share <= float(hot.mean()):
            break
        found = np.where(hot, around, found)
        total += int(hot.sum())
    return found, total


def _keep_single(hot: NDArray[np.bool_], grey: NDArray[np.float32]) -> None:
    """Takes the corners of larger things, which have three neighbours alike, out of ``hot``."""
    rows, columns = np.nonzero(hot)
    around = np.pad(grey, 1, mode="edge")
    patches = np.stack(
        [around[rows + down, columns + across] for down in range(3) for across in range(3)]
    )
    middle = grey[rows, columns]
    apart = np.abs(patches - np.median(patches, axis=0))
    alike = np.abs(patches - middle) < 0.5 * apart[4]
    hot[rows, columns] = alike.sum(axis=0) <= MAX_ALIKE


def _count(number: int, name: str) -> str:
    return f"a {name}" if number == 1 else f"{number:,} {name}s"
