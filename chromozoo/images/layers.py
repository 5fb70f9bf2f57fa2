"""Layers of a metaphase: objects of decreasing contrast, and the layer of the chromosomes.

The first layer holds the objects that depart most from the background. If they do not look like a
cell, they are excluded and the next layer is measured in the rest of the image, and so on. Captions
and scale bars are excluded as soon as a layer shows them.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.images.caption import find_caption
from chromozoo.images.objects import MIN_TYPICAL, Objects, measure_objects

# Below this contrast, relative to the highest absolute grey value, an image shows only noise.
MIN_CONTRAST = 0.02
# A foreground of fewer pixels is dust.
MIN_PIXELS = 100
# Minimum numbers of plausible and of long objects of a cell, and share of long ones. All of 393
# validation and training images of CIL:54816 reach them, and 95 to 99 % of M-FISH and BioImLab.
MIN_OBJECTS, MIN_LONG_SHARE = 12, 0.4
# MIN_SHORT_OBJECTS plausible objects may be a cell of contracted, short chromosomes. Then a later
# layer replaces them only if it has MIN_LONG_BEHIND long objects.
MIN_SHORT_OBJECTS, MIN_LONG_BEHIND = 24, 12
# Minimum numbers of plausible and of long objects of a later layer that replaces the first.
MIN_LATER_OBJECTS, MIN_LATER_LONG = 8, 4
# A later layer that covers more than MAX_COVER of the image, or departs MAX_CONTRAST_RATIO times
# less than plausible objects, is the grain of the background.
MAX_CONTRAST_RATIO, MAX_COVER = 14.0, 0.15
# Maximum number of layers, and pixels around the objects of a layer that are excluded with them.
# The search ends when MAX_EXCLUDED of the image is excluded.
MAX_LAYERS, HALO, MAX_EXCLUDED = 6, 7, 0.9
# Pixels around letters that are excluded with them.
CAPTION_RIM = 3
# Maximum number of pixels of the copy in which objects are measured.
MAX_SEARCH_PIXELS = 1_200_000


@dataclass(frozen=True, eq=False)
class Layer:
    """Foreground of an image, or of the part of it that is not excluded.

    Attributes:
        low: Level that one pixel in a thousand falls short of.
        background: The most frequent level.
        high: Level that one pixel in a thousand exceeds.
        is_bright: Whether the foreground is brighter than the background.
        departure: ``(H, W)``, departure from the background to the side of the foreground.
        foreground: ``(H, W)`` bool.
        excluded: ``(H, W)`` bool, pixels outside the search; None if it covers the whole image.
        step: Objects were measured in every ``step``-th row and column.
        objects: Objects of the foreground.
    """

    low: float
    background: float
    high: float
    is_bright: bool
    departure: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    excluded: NDArray[np.bool_] | None
    step: int
    objects: Objects

    def mask_of(self, selected: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the mask ``(H, W)`` of the selected objects ``(N,)``."""
        mask = np.concatenate([[False], selected])[self.objects.labels]
        if self.step == 1:
            return mask
        size = self.departure.shape[::-1]
        full_size = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return np.asarray(full_size) > 0

    @property
    def is_cell(self) -> bool:
        """Whether most of the objects are certainly chromosomes."""
        plausible, long = int(self.objects.plausible.sum()), int(self.objects.long.sum())
        return plausible >= MIN_OBJECTS and long >= max(MIN_TYPICAL, MIN_LONG_SHARE * plausible)


@dataclass(frozen=True, eq=False)
class Caption:
    """Captions and scale bars of an image.

    Attributes:
        count: Number of letters and bars.
        mask: ``(H, W)`` bool; None without any.
    """

    count: int = 0
    mask: NDArray[np.bool_] | None = None

    def add_from(self, layer: Layer) -> "Caption":
        """Return the caption with the letters and bars of a layer; itself if there are none."""
        objects, shape = layer.objects, layer.departure.shape
        highest = float(objects.departures.max())
        letters = find_caption(
            objects.boxes,
            objects.areas,
            objects.widths,
            objects.levels,
            highest,
            (shape[0], shape[1]),
        )
        if not letters.any():
            return self
        size = 2 * CAPTION_RIM * layer.step + 1
        mask = layer.mask_of(letters).astype(np.uint8)
        dilated = np.asarray(cv2.dilate(mask, np.ones((size, size), np.uint8))) > 0
        count = self.count + int(letters.sum())
        return Caption(count, dilated if self.mask is None else self.mask | dilated)


def find_layers(
    grey: NDArray[np.float32], excluded: NDArray[np.bool_] | None
) -> tuple[list[Layer], Caption]:
    """Find the layers of an image, up to the first that is a cell.

    Args:
        grey: ``(H, W)`` in any units.
        excluded: ``(H, W)`` bool, pixels outside the field of view; None if there are none.

    Returns:
        The layers, none for an image without foreground; and the captions.
    """
    layers: list[Layer] = []
    caption = Caption()
    for _ in range(MAX_LAYERS):
        layer = _measure_layer(grey, excluded)
        if layer is None:
            break
        if (extended := caption.add_from(layer)) is not caption:
            caption = extended
            excluded = merge_masks(excluded, caption.mask)
            layer = _measure_layer(grey, excluded)
            if layer is None:
                break
        layers.append(layer)
        if layer.is_cell:
            break
        excluded = merge_masks(excluded, dilate(layer.foreground, HALO))
        if excluded is not None and excluded.mean() > MAX_EXCLUDED:
            break
    return layers, caption


def select_layer(layers: list[Layer]) -> int:
    """Return the index of the chromosomes' layer: the first, unless a later one shows a cell."""
    first = layers[0]
    if first.is_cell:
        return 0
    best = 0
    is_short = int(first.objects.plausible.sum()) >= MIN_SHORT_OBJECTS
    min_long = MIN_LONG_BEHIND if is_short else MIN_LATER_LONG
    best_long = max(2 * int(first.objects.long.sum()) + 2, min_long - 1)
    for number, layer in enumerate(layers[1:], 1):
        long = int(layer.objects.long.sum())
        if float(layer.foreground.mean()) > MAX_COVER:
            continue
        highest = float(np.max(first.objects.levels))
        is_faint = layer.objects.typical_level * MAX_CONTRAST_RATIO < highest
        if is_faint and int(first.objects.plausible.sum()) >= MIN_LATER_OBJECTS:
            continue
        if long > best_long and int(layer.objects.plausible.sum()) >= MIN_LATER_OBJECTS:
            best, best_long = number, long
    return best


def merge_masks(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """Return the union of two masks, each of which may be None for an empty mask."""
    if one is None or other is None:
        return one if other is None else other
    return one | other


def dilate(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Return a mask dilated by a disc of this radius."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1,) * 2)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel)) > 0


def _measure_layer(grey: NDArray[np.float32], excluded: NDArray[np.bool_] | None) -> Layer | None:
    """Return the foreground outside the excluded pixels; None if there is none."""
    levels = _measure_range(grey if excluded is None else grey[~excluded])
    if levels is None:
        return None
    low, background, high = levels
    is_bright = high - background >= background - low
    departure = grey - np.float32(background) if is_bright else np.float32(background) - grey
    span = max(high - background if is_bright else background - low, 1e-12)
    eight_bit = np.clip(departure * np.float32(255 / span), 0, 255).astype(np.uint8)
    blurred = cv2.GaussianBlur(eight_bit, (3, 3), 0)
    if excluded is None:
        level, _ = cv2.threshold(blurred, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        foreground = eight_bit > level
    else:
        level, _ = cv2.threshold(blurred[~excluded], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        foreground = (eight_bit > level) & ~excluded
    if int(np.count_nonzero(foreground)) < MIN_PIXELS:
        return None
    step = int(np.ceil((grey.size / MAX_SEARCH_PIXELS) ** 0.5))
    return Layer(
        low,
        background,
        high,
        bool(is_bright),
        departure,
        foreground,
        excluded,
        step,
        measure_objects(foreground[::step, ::step], departure[::step, ::step], step),
    )


def _measure_range(grey: NDArray[np.float32]) -> tuple[float, float, float] | None:
    """Return the lowest level, the background and the highest level; None for mere noise."""
    low, high = (float(value) for value in np.percentile(grey, (0.1, 99.9)))
    if high - low <= MIN_CONTRAST * max(abs(low), abs(high), 1e-12):
        # A few chromosomes in a large field have fewer than one pixel in a thousand.
        low, high = float(grey.min()), float(grey.max())
        if high - low <= MIN_CONTRAST * max(abs(low), abs(high), 1e-12):
            return None
    return low, _mode(grey, low, high), high


def _mode(grey: NDArray[np.float32], low: float, high: float) -> float:
    """Return the most frequent level, from a smoothed histogram of 256 bins."""
    counts, edges = np.histogram(grey, bins=256, range=(low, high))
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    peak = int(np.argmax(smooth))
    near = (grey >= edges[max(peak - 2, 0)]) & (grey <= edges[min(peak + 3, 256)])
    return float(np.median(grey[near]))
