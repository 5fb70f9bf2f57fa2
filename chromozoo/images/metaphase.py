"""Normalisation of whole metaphases: what every segmenter reads, whatever the microscope.

As for single chromosomes (:mod:`chromozoo.images.signal`), a picture becomes a *signal image*:
background 0, chromosomes bright, 0..1. Q-band and DAPI keep their sense, G-band is inverted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from chromozoo.classes import Stain
from chromozoo.images.reading import ImageSource, read_grey

# Below this contrast (of the image's own full range) there is nothing but noise.
LEAST_CONTRAST = 0.02
BRIGHTEST_PERCENTILE = 99.0
# What stands out of the background in fewer pixels than this is dust.
FEWEST_PIXELS = 100
# Pieces smaller than this say nothing of the width of chromosomes.
SMALLEST_PIECE = 30
# Metaphases of one microscope differ in contraction by less than this factor from the typical one
# (all of BioImLab do), and the augmentation covers that; others come from another objective.
WIDTH_RANGE = 1.75
# The median length of what is found differs between the cells of one microscope by less than this
# factor from the typical one (27 of 29 images of CIL:54816 do). Fewer say little of it.
LENGTH_RANGE = 1.4
FEWEST_FOR_ZOOM = 10


@dataclass(frozen=True)
class PreparedMetaphase:
    """A metaphase as a segmenter sees it.

    Attributes:
        canvas: ``(h, w)`` uint8 signal image, background 0, at the working scale.
        scale: Canvas pixels per pixel of the picture.
        shape: ``(H, W)`` of the picture.
        warnings: What a user should know of the picture.
    """

    canvas: NDArray[np.uint8]
    scale: float
    shape: tuple[int, int]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetaphasePreset:
    """From any picture of a metaphase to a network's input.

    Args:
        scale: Canvas pixels per pixel of a picture like those of the training data. 1.0 keeps the
            scale of BioImLab (768x576, chromosomes about 14 pixels wide).
        typical_width: Width in pixels of the median chromosome in the pictures of the training
            data; pictures in which it is off by more than a factor of 1.75 come from another camera
            and are brought to it. 0: never.
        typical_length: Diagonal in canvas pixels of the median box that a segmenter finds in the
            pictures of the training data, see :meth:`cell_zoom`; 0 where it is not known.
        largest_pixels: A canvas never has more pixels than this, so memory is bounded.
        mean, std: Normalisation of the signal (0..1).

    Example:
        >>> prepared = MetaphasePreset()("metaphase.png")
        >>> prepared.canvas.shape
        (576, 768)
    """

    scale: float = 1.0
    typical_width: float = 14.0
    largest_pixels: int = 3_000_000
    mean: float = 0.05
    std: float = 0.15
    typical_length: float = 0.0

    def __call__(
        self, source: ImageSource, name: str | None = None, *, zoom: float = 1.0
    ) -> PreparedMetaphase:
        """Reads and prepares a picture.

        Args:
            source: Path, PIL image or array, see :func:`chromozoo.images.reading.read_grey`.
            name: What errors and warnings call it; the path when None.
            zoom: Extra magnification, from :meth:`cell_zoom`.

        Raises:
            ImageError: The picture cannot be read. A picture that shows nothing is no error: its
                canvas is black, and a warning says so.
        """
        grey = read_grey(source, name)
        name = name or (str(source) if isinstance(source, str | Path) else "image")
        height, width = grey.shape
        wanted, drawn = self.scale * zoom, 1.0
        scale = wanted
        warnings = []
        room = (self.largest_pixels / (height * width)) ** 0.5
        if scale > room:
            # Before anything else is computed of it: a slide scan has a hundred million pixels.
            scale = drawn = room
            grey = _resize(grey, scale)
            warnings.append(
                f"{name}: {width}x{height} pixels are more than one metaphase needs; reduced to "
                f"{grey.shape[1]}x{grey.shape[0]}, cut the cell out for exact outlines"
            )
        signal, found = signal_metaphase(grey)
        if not found:
            warnings.append(f"{name}: nothing stands out of the background: no chromosomes")
        elif self.typical_width and (seen := chromosome_width(signal) / drawn):
            other = self.typical_width / seen
            if not 1 / WIDTH_RANGE < other < WIDTH_RANGE:
                scale = min(wanted * other, room)
        if scale != drawn:
            signal = np.clip(_resize(signal, scale / drawn), 0, 1)
        return PreparedMetaphase(
            np.round(signal * 255).astype(np.uint8), scale, (height, width), tuple(warnings)
        )

    def cell_zoom(self, lengths: Sequence[float]) -> float:
        """Magnification at which a picture should be looked at again.

        What a segmenter finds says more of the pixel size than any measure of the raw picture, even
        where it finds but half of the chromosomes, since their size is not what it looks for.

        Args:
            lengths: Diagonals of the boxes that were found, in canvas pixels.

        Returns:
            1.0 within a factor of 1.4 of the typical length, for fewer than 10, and where that is
            not known.
        """
        if not self.typical_length or len(lengths) < FEWEST_FOR_ZOOM:
            return 1.0
        zoom = self.typical_length / float(np.median(lengths))
        return zoom if max(zoom, 1 / zoom) > LENGTH_RANGE else 1.0

    def normalise(self, canvas: Tensor) -> Tensor:
        """``(..., 1, h, w)`` uint8 0..255 to float32, mean and std."""
        return (canvas.float() / 255 - self.mean) / self.std

    def tensor(self, canvas: NDArray[np.uint8]) -> Tensor:
        """A canvas ``(h, w)`` normalised: ``(1, h, w)`` float32."""
        return self.normalise(torch.from_numpy(canvas)[None])

    def to_dict(self) -> dict[str, Any]:
        """Plain arguments, as stored with the weights."""
        return asdict(self)


def signal_metaphase(grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
    """Turns a grey picture of a metaphase into a signal image.

    The background is the most frequent level; the chromosomes are whatever departs further from
    it, to the bright or to the dark side. The 99th percentile of what Otsu's threshold finds
    becomes 1, so exposure and bit depth drop out.

    Args:
        grey: ``(H, W)`` in any units.

    Returns:
        ``(H, W)`` float32 in 0..1, and whether anything stands out; where not, it is all 0.
    """
    nothing = np.zeros(grey.shape, np.float32), False
    levels = _levels(grey)
    if levels is None:
        return nothing
    low, background, high = levels
    brighter = high - background >= background - low
    departure = grey - background if brighter else background - grey
    span = max(high - background if brighter else background - low, 1e-12)
    eight_bit = np.clip(departure * (255 / span), 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(
        cv2.GaussianBlur(eight_bit, (3, 3), 0), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU
    )
    inside = departure[eight_bit > level]
    if inside.size < FEWEST_PIXELS:
        return nothing
    top = max(float(np.percentile(inside, BRIGHTEST_PERCENTILE)), 1e-12)
    signal: NDArray[np.float32] = np.clip(departure / top, 0, 1).astype(np.float32)
    return signal, True


def stain_of(grey: NDArray[np.float32]) -> Stain:
    """The stain that a picture ``(H, W)`` looks like.

    Light through a slide shows dark chromosomes on a light ground: ``"g"``, G-band. What fluoresces
    is bright on dark: ``"q"``, Q-band or DAPI; so is, by convention, what shows nothing.
    """
    levels = _levels(grey)
    if levels is None:
        return "q"
    low, background, high = levels
    return "q" if high - background >= background - low else "g"


def chromosome_width(signal: NDArray[np.float32]) -> float:
    """Median width in pixels of the pieces that stand out; 0 where nothing does.

    The width of a piece is twice the median distance to the background along its middle lines. A
    nucleus, or chromosomes that their haze joins, are one piece of many.
    """
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
    large = stats[:, cv2.CC_STAT_AREA] >= SMALLEST_PIECE
    ridge &= large[labels]
    if not ridge.any():
        return 0.0
    pieces = np.asarray(labels[ridge], np.int64)
    halves = ndimage.median(distance[ridge], pieces, np.unique(pieces))
    return float(2 * np.median(halves))


def _levels(grey: NDArray[np.float32]) -> tuple[float, float, float] | None:
    """Darkest level, background and brightest one; None where there is nothing but noise."""
    low, high = (float(value) for value in np.percentile(grey, (0.1, 99.9)))
    if high - low <= LEAST_CONTRAST * max(abs(low), abs(high), 1e-12):
        # A few chromosomes in a large field are fewer than one pixel in a thousand.
        low, high = float(grey.min()), float(grey.max())
        if high - low <= LEAST_CONTRAST * max(abs(low), abs(high), 1e-12):
            return None
    return low, _most_frequent(grey, low, high), high


def _most_frequent(grey: NDArray[np.float32], low: float, high: float) -> float:
    """The level that most pixels have, from a smoothed histogram of 256 steps."""
    counts, edges = np.histogram(grey, bins=256, range=(low, high))
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    peak = int(np.argmax(smooth))
    near = (grey >= edges[max(peak - 2, 0)]) & (grey <= edges[min(peak + 3, 256)])
    return float(np.median(grey[near]))


def _resize(image: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    height, width = (max(round(side * scale), 1) for side in image.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.float32)
