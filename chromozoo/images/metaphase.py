"""Normalisation of whole metaphases: what every segmenter reads, whatever the microscope.

As for single chromosomes (:mod:`chromozoo.images.signal`), an image becomes a *signal image*:
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
from torch import Tensor

from chromozoo.classes import Stain
from chromozoo.images.levels import Levels, measure_levels
from chromozoo.images.reading import ImageSource, read_grey

# Metaphases of one microscope differ in contraction by less than this factor from the typical one
# (all of BioImLab do), and the augmentation covers that; others come from another objective.
WIDTH_RANGE = 1.75
# The median length of what is found differs between the cells of one microscope by less than this
# factor from the typical one (27 of 29 images of CIL:54816 do). Fewer say little of it.
LENGTH_RANGE = 1.4
MIN_FOR_ZOOM = 10
# Of the arguments of a preset. No metaphase needs a larger canvas.
MAX_CANVAS_PIXELS = 30_000_000
MAX_NUMBER = 10_000
POSITIVE = ("scale", "std", "max_pixels")


@dataclass(frozen=True, eq=False)
class PreparedMetaphase:
    """A metaphase as a segmenter sees it.

    Attributes:
        canvas: ``(h, w)`` uint8 signal image, background 0, at the working scale.
        scale: Canvas pixels per pixel of the image.
        shape: ``(H, W)`` of the image.
        warnings: What a user should know of the image.
        levels: Its grey levels; where it was reduced before anything else, those of the reduced
            one.
    """

    canvas: NDArray[np.uint8]
    scale: float
    shape: tuple[int, int]
    warnings: tuple[str, ...] = ()
    levels: Levels | None = None


@dataclass(frozen=True)
class MetaphasePreset:
    """From any image of a metaphase to a network's input.

    Args:
        scale: Canvas pixels per pixel of an image like those of the training data. 1.0 keeps the
            scale of BioImLab (768x576, chromosomes about 14 pixels wide).
        typical_width: Width in pixels of the median chromosome in the images of the training
            data; images in which it is off by more than a factor of 1.75 come from another camera
            and are brought to it. 0: never.
        typical_length: Diagonal in canvas pixels of the median box that a segmenter finds in the
            images of the training data, see :meth:`cell_zoom`; 0 where it is not known.
        max_pixels: A canvas never has more pixels than this, so memory is bounded.
        mean, std: Normalisation of the signal (0..1).

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
        # The arguments may come from a file of weights.
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r}; give a number")
            most = MAX_CANVAS_PIXELS if name == "max_pixels" else MAX_NUMBER
            least = 0 if name != "mean" else -MAX_NUMBER
            if not least <= value <= most or (value == 0 and name in POSITIVE):
                raise ValueError(f"{name} is {value!r}, which no metaphase can be prepared with")

    def __call__(
        self,
        source: ImageSource,
        name: str | None = None,
        *,
        zoom: float = 1.0,
        levels: Levels | None = None,
    ) -> PreparedMetaphase:
        """Reads and prepares an image.

        Args:
            source: Path, PIL image or array, see :func:`chromozoo.images.reading.read_grey`.
            name: What errors and warnings call it; the path when None.
            zoom: Extra magnification, from :meth:`cell_zoom`.
            levels: Grey levels of this image, measured before; None measures them, and warns of
                what was odd.

        Raises:
            ImageError: The image cannot be read. An image that shows nothing is no error: its
                canvas is black, and a warning says so.
        """
        grey = read_grey(source, name)
        name = name or (str(source) if isinstance(source, str | Path) else "image")
        height, width = grey.shape
        wanted = self.scale * zoom
        warnings = []
        room = (self.max_pixels / (height * width)) ** 0.5
        scale = min(wanted, room)
        if wanted > room and room < 1:
            small = (
                _resize(grey, _scaled_size((height, width), room))
                if levels is None
                else levels.signal
            )
            warnings.append(
                f"{name}: {width}x{height} pixels are more than one metaphase needs; reduced to "
                f"{small.shape[1]}x{small.shape[0]}, cut the cell out for exact outlines"
            )
            # Before anything else is computed of it: a slide scan has a hundred million pixels.
            grey = small
        if levels is None:
            levels = measure_levels(grey)
            warnings += [f"{name}: {words}" for words in (*levels.flags, *levels.alarms)]
        signal = levels.signal
        if not levels.is_found:
            warnings.append(f"{name}: nothing stands out of the background: no chromosomes")
        elif self.typical_width and (seen := levels.width * width / signal.shape[1]):
            other = self.typical_width / seen
            if not 1 / WIDTH_RANGE < other < WIDTH_RANGE:
                scale = min(wanted * other, room)
        size = _scaled_size((height, width), scale)
        if signal.shape != size:
            signal = np.clip(_resize(signal, size), 0, 1)
        canvas = np.round(signal * 255).astype(np.uint8)
        return PreparedMetaphase(canvas, scale, (height, width), tuple(warnings), levels)

    def cell_zoom(self, lengths: Sequence[float]) -> float:
        """Magnification at which an image should be looked at again.

        What a segmenter finds says more of the pixel size than any measure of the raw image, even
        where it finds but half of the chromosomes, since their size is not what it looks for.

        Args:
            lengths: Diagonals of the boxes that were found, in canvas pixels.

        Returns:
            1.0 within a factor of 1.4 of the typical length, for fewer than 10, and where that is
            not known.
        """
        if not self.typical_length or len(lengths) < MIN_FOR_ZOOM:
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
    """Turns a grey image of a metaphase into a signal image.

    Args:
        grey: ``(H, W)`` in any units.

    Returns:
        ``(H, W)`` float32 in 0..1, and whether anything stands out; where not, it is all 0. See
        :func:`chromozoo.images.levels.measure_levels`, which says more.
    """
    levels = measure_levels(grey)
    return levels.signal, levels.is_found


def stain_of(grey: NDArray[np.float32]) -> Stain:
    """The stain that an image ``(H, W)`` looks like, see :class:`chromozoo.images.levels.Levels`.

    Light through a slide shows dark chromosomes on a light ground: ``"g"``, G-band. What fluoresces
    is bright on dark: ``"q"``, Q-band or DAPI; so is, by convention, what shows nothing.
    """
    return measure_levels(grey).stain


def _scaled_size(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(round(shape[0] * scale), 1), max(round(shape[1] * scale), 1)


def _resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """An image ``(H, W)`` at another size ``(h, w)``."""
    method = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.float32)
