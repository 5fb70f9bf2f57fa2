"""Preprocessing of metaphases: from any image to the input of a segmenter.

As for single chromosomes (:mod:`chromozoo.images.signal`), an image is converted to a signal image
in 0..1 with background 0 and bright chromosomes; G-band images are inverted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chromozoo.images.levels import Levels, measure_levels
from chromozoo.images.reading import ImageSource, read_grey

# Within this factor of the typical width, metaphases differ by contraction (all of BioImLab do),
# which the augmentation covers; other metaphases were taken with another objective.
WIDTH_RANGE = 1.75
# The median length of the detections in an image differs from the typical length by less than this
# factor for one microscope (27 of 29 images of CIL:54816). It needs at least MIN_FOR_ZOOM
# detections.
LENGTH_RANGE = 1.4
MIN_FOR_ZOOM = 10
# Limits of the arguments of a preset; no metaphase needs a larger canvas.
MAX_CANVAS_PIXELS = 30_000_000
MAX_NUMBER = 10_000
POSITIVE_ARGUMENTS = ("scale", "std", "max_pixels")


@dataclass(frozen=True, eq=False)
class PreparedMetaphase:
    """A metaphase prepared for a segmenter.

    Attributes:
        canvas: ``(h, w)`` uint8 signal image, background 0, at the working scale.
        scale: Canvas pixels per pixel of the image.
        shape: ``(H, W)`` of the image.
        warnings: Warnings about the image.
        levels: Grey levels of the image, or of its reduced copy if it was too large.
    """

    canvas: NDArray[np.uint8]
    scale: float
    shape: tuple[int, int]
    warnings: tuple[str, ...] = ()
    levels: Levels | None = None


@dataclass(frozen=True)
class MetaphasePreset:
    """Preprocessing of a metaphase, whose arguments are stored with the weights.

    Args:
        scale: Canvas pixels per pixel of an image like those of the training data. 1.0 keeps the
            scale of BioImLab (768x576, chromosomes about 14 pixels wide).
        typical_width: Width in pixels of the median chromosome in the training images. Images whose
            median width differs by more than a factor of 1.75 come from another camera and are
            rescaled to it. 0 disables rescaling.
        max_pixels: Maximum number of pixels of a canvas, which bounds the memory.
        mean, std: Normalisation of the signal (0..1).
        typical_length: Diagonal in canvas pixels of the median box that a segmenter detects in the
            training images, see :meth:`cell_zoom`; 0 if unknown.

    Example:
        >>> prepared = MetaphasePreset()("metaphase.png")
        >>> prepared.canvas.shape
        (576, 768)
    """

    scale: float = 1.0
    typical_width: float = 14.0
    max_pixels: int = 3_000_000
    mean: float = 0.05
    std: float = 0.15
    typical_length: float = 0.0

    def __post_init__(self) -> None:
        # The arguments may come from a damaged weights file.
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r}; give a number")
            highest = MAX_CANVAS_PIXELS if name == "max_pixels" else MAX_NUMBER
            lowest = 0 if name != "mean" else -MAX_NUMBER
            if not lowest <= value <= highest or (value == 0 and name in POSITIVE_ARGUMENTS):
                raise ValueError(f"{name} is {value!r}, which is out of range for a metaphase")

    def __call__(
        self,
        source: ImageSource,
        name: str | None = None,
        *,
        zoom: float = 1.0,
        levels: Levels | None = None,
    ) -> PreparedMetaphase:
        """Read and prepare an image.

        Args:
            source: Path, PIL image or array, see :func:`chromozoo.images.reading.read_grey`.
            name: Name of the image in errors and warnings; the path by default.
            zoom: Extra magnification, from :meth:`cell_zoom`.
            levels: Grey levels of this image, if they have been measured already. Otherwise they
                are measured, and warnings report what was repaired or excluded.

        Raises:
            ImageError: The image cannot be read. An image without foreground gives a black canvas
                and a warning.
        """
        grey = read_grey(source, name)
        name = name or (str(source) if isinstance(source, str | Path) else "image")
        height, width = grey.shape
        target_scale = self.scale * zoom
        warnings = []
        max_scale = (self.max_pixels / (height * width)) ** 0.5
        scale = min(target_scale, max_scale)
        if target_scale > max_scale and max_scale < 1:
            small = (
                _resize(grey, _scaled_size((height, width), max_scale))
                if levels is None
                else levels.signal
            )
            warnings.append(
                f"{name}: {width}x{height} pixels are more than one metaphase needs; reduced to "
                f"{small.shape[1]}x{small.shape[0]}, cut the cell out for exact outlines"
            )
            # All further steps use the reduced image: a slide scan has a hundred million pixels.
            grey = small
        if levels is None:
            levels = measure_levels(grey)
            warnings += [f"{name}: {text}" for text in (*levels.flags, *levels.alarms)]
        signal = levels.signal
        if not levels.is_found:
            warnings.append(f"{name}: nothing stands out of the background: no chromosomes")
        elif self.typical_width and (median_width := levels.width * width / signal.shape[1]):
            ratio = self.typical_width / median_width
            if not 1 / WIDTH_RANGE < ratio < WIDTH_RANGE:
                scale = min(target_scale * ratio, max_scale)
        size = _scaled_size((height, width), scale)
        if signal.shape != size:
            signal = np.clip(_resize(signal, size), 0, 1)
        canvas = np.round(signal * 255).astype(np.uint8)
        return PreparedMetaphase(canvas, scale, (height, width), tuple(warnings), levels)

    def cell_zoom(self, lengths: Sequence[float]) -> float:
        """Return the magnification at which an image should be segmented again.

        Detections estimate the pixel size better than measurements of the raw image, even if half
        of the chromosomes are missed, because a segmenter does not select them by size.

        Args:
            lengths: Diagonals of the detected boxes in canvas pixels.

        Returns:
            1.0 within a factor of 1.4 of the typical length, for fewer than 10 detections, or if
            the typical length is unknown.
        """
        if not self.typical_length or len(lengths) < MIN_FOR_ZOOM:
            return 1.0
        zoom = self.typical_length / float(np.median(lengths))
        return zoom if max(zoom, 1 / zoom) > LENGTH_RANGE else 1.0

    def normalise(self, canvas: Tensor) -> Tensor:
        """Normalise ``(..., 1, h, w)`` uint8 0..255 to float32 by mean and std."""
        return (canvas.float() / 255 - self.mean) / self.std

    def tensor(self, canvas: NDArray[np.uint8]) -> Tensor:
        """Return a normalised canvas: ``(h, w)`` uint8 to ``(1, h, w)`` float32."""
        return self.normalise(torch.from_numpy(canvas)[None])

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as stored with the weights."""
        return asdict(self)


def _scaled_size(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(round(shape[0] * scale), 1), max(round(shape[1] * scale), 1)


def _resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize an image ``(H, W)`` to ``(h, w)``."""
    method = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.float32)
