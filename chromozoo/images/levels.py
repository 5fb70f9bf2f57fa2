"""Grey levels of a metaphase: background, chromosomes and excluded artefacts.

Background, stain, contrast and scale are measured once for each image, by :func:`measure_levels`,
and all other code reads them. The background is the most frequent level of the image, and the
chromosomes depart from it to the bright or to the dark side, whichever is further. An ordinary
image is measured without any change. Artefacts that would spoil the measurement are handled first:

1. dead lines and hot pixels of the camera (:mod:`chromozoo.images.defects`);
2. a frame, or a screen around the field of view (:mod:`chromozoo.images.field`);
3. uneven illumination (:mod:`chromozoo.images.illumination`);
4. captions and scale bars (:mod:`chromozoo.images.caption`);
5. objects that are far brighter than the chromosomes, such as dirt and nuclei
   (:mod:`chromozoo.images.layers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import Stain
from chromozoo.images.defects import Defects, repair_defects
from chromozoo.images.field import Frame, downscale, find_frame
from chromozoo.images.illumination import Illumination, correct_illumination
from chromozoo.images.layers import (
    HALO,
    MIN_LATER_OBJECTS,
    MIN_PIXELS,
    Layer,
    dilate,
    find_layers,
    merge_masks,
    select_layer,
)
from chromozoo.images.objects import MIN_TYPICAL, measure_objects

BRIGHTEST_PERCENTILE = 99.0
# Minimum area in pixels of an object that counts as an outlier or for the width of chromosomes.
MIN_COUNTED_PIXELS = 30
# An object is an outlier if it departs BRIGHT_OBJECT times as far as the median chromosome, or
# BRIGHT_WIDE_OBJECT times if it is WIDE times as wide.
BRIGHT_OBJECT, BRIGHT_WIDE_OBJECT, WIDE = 1.8, 1.4, 2.5
# Single pixels of a chromosome, or of several that cross, depart up to this many times as far.
BRIGHT_PIXEL = 2.5
# Outliers are excluded only if they would raise the brightest level by this factor, so that
# ordinary images with a nucleus keep the levels of the training data: one in 28 of 656 images of
# three data sets exceeds it.
MIN_RAISE = 1.5


@dataclass(frozen=True)
class Outliers:
    """Objects that depart much further from the background than the chromosomes.

    Attributes:
        count: Number of objects.
        width: Width of the widest, in pixels.
        times: Departure of the strongest, relative to the brightest parts of the chromosomes.
        is_dark: Whether the strongest is darker than the background.
    """

    count: int
    width: float
    times: float
    is_dark: bool

    def describe(self) -> str:
        """Return a sentence for the user."""
        is_plural, kind = self.count != 1, "dark" if self.is_dark else "bright"
        return (
            f"{f'{self.count} {kind} objects' if is_plural else f'a {kind} object'} "
            f"({'up to ' if is_plural else ''}{self.width:.0f} px wide, {self.times:.1f} times as "
            f"{kind} as the chromosomes) {'were' if is_plural else 'was'} left out of the grey "
            "levels"
        )


@dataclass(frozen=True, eq=False)
class Levels:
    """Grey levels of one image, measured by :func:`measure_levels`.

    Attributes:
        low: Level that one pixel in a thousand falls short of, in the units of the image, without
            excluded pixels.
        background: The most frequent level.
        high: Level that one pixel in a thousand exceeds, without excluded pixels.
        top: Level of the brightest part of a chromosome, which becomes 1 in the signal.
        stain: ``"g"`` if the chromosomes are darker than the background; ``"q"`` if they are
            brighter or there is no foreground.
        is_found: Whether there is a foreground.
        width: Median width of the foreground in pixels; 0 without one.
        defects: Repaired defects of the camera.
        frame: Frame that was cut off; None without one.
        light: Uneven illumination before its correction; None if it was not corrected.
        letters: Number of letters and bars that were cut out.
        outliers: Objects that were excluded from the levels; None if there were none.
        alarms: Reasons why the levels cannot be trusted; empty as a rule.
        signal: ``(H, W)`` float32 in 0..1; background and excluded pixels are 0.
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
    light: Illumination | None
    letters: int
    outliers: Outliers | None
    alarms: tuple[str, ...]
    signal: NDArray[np.float32] = field(repr=False)

    @property
    def flags(self) -> tuple[str, ...]:
        """Sentences about all artefacts that were repaired or excluded; empty as a rule."""
        flags = [*self.defects.describe()]
        flags += [item.describe() for item in (self.frame, self.light) if item is not None]
        if self.letters:
            count = f"{self.letters} letters and bars" if self.letters > 1 else "a letter or bar"
            flags.append(f"a caption or scale bar ({count}) was cut out")
        if self.outliers is not None:
            flags.append(self.outliers.describe())
        return tuple(flags)

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the signal as values that JSON can hold."""
        excluded: dict[str, Any] = {
            "dead_rows": self.defects.rows,
            "dead_columns": self.defects.columns,
            "hot_pixels": self.defects.hot_pixels,
            "letters": self.letters,
        }
        if self.frame is not None:
            excluded["frame"] = {
                "shape": self.frame.shape,
                "level": _round_level(self.frame.level),
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
            "low": _round_level(self.low),
            "background": _round_level(self.background),
            "high": _round_level(self.high),
            "top": _round_level(self.top),
            "stain": self.stain,
            "is_found": self.is_found,
            "chromosome_width": round(self.width, 2),
            "uneven_light": None if self.light is None else round(self.light.share, 3),
            "excluded": excluded,
            "flags": list(self.flags),
            "alarms": list(self.alarms),
        }


def measure_levels(grey: NDArray[np.float32]) -> Levels:
    """Measure the grey levels of a metaphase and compute its signal image.

    The 99th percentile of the foreground becomes 1, which removes the influence of exposure and bit
    depth.

    Args:
        grey: ``(H, W)`` in any units.

    Returns:
        The levels. Without a foreground the signal is 0 everywhere.
    """
    clean, defects = repair_defects(grey)
    small = downscale(clean)
    frame = find_frame(clean, small)
    excluded = None if frame is None else ~frame.field
    even, light = correct_illumination(clean, None if frame is None else frame.field, small)
    layers, caption = find_layers(even, excluded)
    if not layers:
        low, high = float(clean.min()), float(clean.max())
        empty = np.zeros(grey.shape, np.float32)
        return Levels(
            low, low, high, high, "q", False, 0.0, defects, frame, light, 0, None, (), empty
        )
    selected = select_layer(layers)
    layer, stronger = layers[selected], layers[:selected]
    top, outlying = _measure_top(layer)
    outliers = _measure_outliers(stronger, layer, outlying, top)
    signal = np.asarray(np.clip(layer.departure / np.float32(top), 0, 1), np.float32)
    removed = merge_masks(excluded, caption.mask)
    if outliers is not None:
        removed = merge_masks(removed, _find_specks(stronger, layer))
    if removed is not None:
        signal[removed] = 0
    return Levels(
        low=layer.low,
        background=layer.background,
        high=layer.high,
        top=layer.background + (top if layer.is_bright else -top),
        stain="q" if layer.is_bright else "g",
        is_found=True,
        width=chromosome_width(signal, layer.excluded if selected else None),
        defects=defects,
        frame=frame,
        light=light,
        letters=caption.count,
        outliers=outliers,
        alarms=_list_alarms(layer),
        signal=signal,
    )


def chromosome_width(
    signal: NDArray[np.float32], excluded: NDArray[np.bool_] | None = None
) -> float:
    """Return the median width of the chromosomes in pixels.

    It is twice the median distance to the background along the middle lines, so an object counts in
    proportion to its length: specks of dust and round nuclei have little weight.

    Args:
        signal: ``(H, W)`` in 0..1, background 0.
        excluded: ``(H, W)`` bool, pixels that are not chromosomes. Objects that touch them are
            excluded as well.

    Returns:
        Width in pixels; 0 without a foreground.
    """
    if excluded is not None:
        signal = np.where(excluded, np.float32(0), signal)
    eight_bit = np.round(signal * 255).astype(np.uint8)
    level, _ = cv2.threshold(
        cv2.GaussianBlur(eight_bit, (3, 3), 0), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU
    )
    # Otsu's threshold lies inside a blurred chromosome; 0.6 of it reaches the visible edge.
    inside = cv2.morphologyEx(
        (eight_bit > 0.6 * level).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)
    )
    if inside.all():
        return 0.0  # without a background there are no distances
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    ridge = (distance >= cv2.dilate(distance, np.ones((3, 3), np.uint8))) & (distance > 1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    is_counted = stats[:, cv2.CC_STAT_AREA] >= MIN_COUNTED_PIXELS
    if excluded is not None:
        near = cv2.dilate(excluded.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        is_counted[labels[near]] = False
    ridge &= is_counted[labels]
    return float(2 * np.median(distance[ridge])) if ridge.any() else 0.0


def _measure_top(layer: Layer) -> tuple[float, NDArray[np.bool_] | None]:
    """Return the departure of the brightest part of a chromosome, and the pixels of outliers.

    The outliers are ``(P,)`` bool among the pixels of the layer's objects; None if they would not
    raise the departure.
    """
    objects = layer.objects
    inside = layer.departure[layer.foreground] if layer.step > 1 else objects.departures
    top = max(float(np.percentile(inside, BRIGHTEST_PERCENTILE)), 1e-12)
    level = objects.typical_level
    if not level:
        return top, None
    is_wide = objects.widths > WIDE * float(np.median(objects.widths[objects.typical]))
    is_bright = (objects.levels > BRIGHT_OBJECT * level) | (
        is_wide & (objects.levels > BRIGHT_WIDE_OBJECT * level)
    )
    outlying = is_bright[objects.owners] | (objects.departures > BRIGHT_PIXEL * level)
    rest = objects.departures[~outlying]
    if rest.size * layer.step**2 < MIN_PIXELS:
        return top, None
    lower = max(float(np.percentile(rest, BRIGHTEST_PERCENTILE)), 1e-12)
    return (lower, outlying) if top > MIN_RAISE * lower else (top, None)


def _find_specks(stronger: Sequence[Layer], layer: Layer) -> NDArray[np.bool_] | None:
    """Return the mask ``(H, W)`` of small round outliers that touch no chromosome; None if empty.

    A segmenter might take them for small chromosomes, whereas it knows nuclei from its training.
    """
    typical = layer.objects.typical
    if not typical.any():
        return None
    width = float(np.median(layer.objects.widths[typical]))
    specks: NDArray[np.bool_] | None = None
    for one in (*stronger, layer):
        is_speck = ~one.objects.long & (one.objects.widths <= WIDE * width)
        if one is layer:
            is_speck &= one.objects.levels > BRIGHT_PIXEL * one.objects.typical_level
        if is_speck.any():
            specks = merge_masks(specks, one.mask_of(is_speck))
    if specks is None:
        return None
    halo = dilate(specks, HALO)
    _, labels = cv2.connectedComponents(dilate(halo, 2).astype(np.uint8))
    is_isolated = np.ones(int(labels.max()) + 1, bool)
    is_isolated[labels[layer.foreground & ~specks]] = False
    is_isolated[0] = False
    return np.asarray(halo & is_isolated[labels])


def _measure_outliers(
    stronger: Sequence[Layer], layer: Layer, outlying: NDArray[np.bool_] | None, top: float
) -> Outliers | None:
    """Return the outliers: objects of stronger layers, and outlying pixels of the selected one."""
    groups = [(one.objects, one.is_bright) for one in stronger]
    if outlying is not None:
        mask = np.zeros(layer.objects.labels.shape, bool)
        mask[layer.objects.labels > 0] = outlying
        departure = layer.departure[:: layer.step, :: layer.step]
        groups.append((measure_objects(mask, departure, layer.step), layer.is_bright))
    if not groups:
        return None
    count, width, level, is_dark = 0, 0.0, 0.0, False
    for objects, is_bright in groups:
        count += int((objects.areas >= MIN_COUNTED_PIXELS).sum())
        width = max(width, float(objects.widths.max()))
        if float(objects.levels.max()) > level:
            level, is_dark = float(objects.levels.max()), not is_bright
    return Outliers(max(count, 1), width, level / top, is_dark)


def _list_alarms(layer: Layer) -> tuple[str, ...]:
    """Return the reasons why the levels cannot be trusted."""
    plausible, long = int(layer.objects.plausible.sum()), int(layer.objects.long.sum())
    if plausible >= MIN_LATER_OBJECTS or long >= MIN_TYPICAL:
        return ()
    counts = f"{plausible} of {len(layer.objects.areas)} objects"
    reason = f"hardly anything that stands out of the background looks like chromosomes ({counts})"
    return (f"the grey levels are doubtful: {reason}",)


def _round_level(value: float) -> float:
    """Round to six digits, because the units may be those of 16 bits or of 0..1."""
    return float(f"{value:.6g}")
