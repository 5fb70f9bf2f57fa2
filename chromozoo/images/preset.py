"""The preset: all that happens between an image of a chromosome and a network's input.

Training, validation, hub, command line and export use this one object, and its arguments travel
with the weights, so a model never sees images prepared in another way than it learnt from.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chromozoo.images.reading import ImageSource, read_grey
from chromozoo.images.rotate_crop import Method, RotateCrop
from chromozoo.images.signal import signal_image
from chromozoo.images.straighten import MARGIN, StraightenMethod, straighten

VIEWS = ("upright", "straight", "straight-xie", "crop")

MIN_FOR_ZOOM = 20

WHOLE_NUMBERS = ("height", "width", "channels")
NUMBERS = (*WHOLE_NUMBERS, "scale", "mean", "std", "typical_length", "zoom_range")
# No chromosome needs more; a damaged file of weights may ask for anything.
MAX_SIDE = 4096
MAX_SCALE = 32.0

# Change it when `prepare` gives other pixels for the same arguments: cached crops are then remade.
PREPARATION_VERSION = 1


@dataclass(frozen=True)
class ChromosomePreset:
    """From any image of one chromosome to a normalised tensor.

    Args:
        height, width: Canvas in pixels, 8 or more. A chromosome that does not fit is shrunk until
            it does.
        scale: Canvas pixels per pixel of the image. 1.0 keeps the scale of BioImLab.
        rotate_crop: Method of :class:`RotateCrop`; ``"none"`` keeps the image's angle.
        channels: 1, or 3 equal channels for networks that were born with colour.
        views: What a network sees of one chromosome, each view a channel: ``"upright"``;
            ``"straight"`` and ``"straight-xie"``, the upright chromosome straightened
            (:func:`chromozoo.images.straighten.straighten`); ``"crop"``, the upright chromosome cut
            to its box and stretched until it fills the canvas.
        mean, std: Normalisation of the signal (0..1).
        typical_length: Length in pixels of the median chromosome of a cell in the training data;
            0 where it is not known. Serves :meth:`cell_zoom`.
        zoom_range: Cells whose median chromosome is longer or shorter than that by less than this
            factor keep their scale; 1 brings every cell to the typical length.
        stretch: Stretch every image to full contrast: exposure and bit depth drop out. False
            keeps the departure from the background in units of the full range of 8 bits
            (value / 255); it is there to show what the stretching brings.

    Example:
        >>> preset = ChromosomePreset(height=112, width=48)
        >>> preset("chromosome.png").shape
        torch.Size([1, 112, 48])
        >>> ChromosomePreset(views=("upright", "straight"))("chromosome.png").shape
        torch.Size([2, 112, 48])
    """

    height: int = 112
    width: int = 48
    scale: float = 1.0
    rotate_crop: Method = "pca"
    channels: int = 1
    mean: float = 0.15
    std: float = 0.30
    typical_length: float = 0.0
    zoom_range: float = 1.5
    views: Sequence[str] = ("upright",)
    stretch: bool = True

    def __post_init__(self) -> None:
        # JSON and YAML give lists; presets are compared and hashed.
        views = (self.views,) if isinstance(self.views, str) else tuple(self.views)
        object.__setattr__(self, "views", views)
        self._set_numbers()
        if not views or len(set(views)) < len(views) or set(views) - set(VIEWS):
            raise ValueError(
                f"views are {list(views)}; give one or more of {', '.join(VIEWS)}, each once"
            )
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}; give 1 or 3")
        if len(views) > 1 and self.channels != 1:
            raise ValueError(
                f"channels is {self.channels} with {len(views)} views, but each view is one "
                "channel: set channels to 1"
            )
        if min(self.height, self.width) < 8:
            raise ValueError(
                f"a canvas of {self.height}x{self.width} pixels holds no chromosome; give height "
                "and width of 8 or more"
            )

    def _set_numbers(self) -> None:
        """Gives each number its type: 63 and 63.0 are one length, and one name of the cache."""
        for name in NUMBERS:
            value = getattr(self, name)
            try:
                number = float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} is {value!r}; give a number") from error
            most = MAX_SCALE if name == "scale" else MAX_SIDE
            least = -most if name == "mean" else 0
            if not least <= number <= most or (name in ("scale", "std") and not number):
                raise ValueError(f"{name} is {value!r}, which no image can be prepared with")
            if name in WHOLE_NUMBERS and number != int(number):
                raise ValueError(f"{name} is {value!r}; give a whole number")
            object.__setattr__(self, name, int(number) if name in WHOLE_NUMBERS else number)

    def __call__(
        self, source: ImageSource, name: str | None = None, *, zoom: float = 1.0
    ) -> Tensor:
        """Reads, prepares and normalises one image: ``(channels, height, width)`` float32.

        With several views, ``(views, height, width)``.

        Raises:
            ImageError: The image cannot be read or shows nothing.
        """
        return self.tensor(self.prepare(source, name, zoom=zoom))

    def prepare(
        self, source: ImageSource, name: str | None = None, *, zoom: float = 1.0
    ) -> NDArray[np.uint8]:
        """The upright chromosome in the middle of its canvas: ``(height, width)`` uint8.

        With several views, ``(height, width, views)``. This part is the same for every epoch, so
        the DataModules cache its result.

        Args:
            source: The image, see :func:`chromozoo.images.reading.read_grey`.
            name: What errors call it; the path itself when None.
            zoom: Extra magnification, to bring an image of another pixel size to the scale
                of the training data.
        """
        return self.draw(self.signal(source, name), zoom)

    def signal(self, source: ImageSource, name: str | None = None) -> NDArray[np.float32]:
        """The signal image of an image, what :meth:`draw` and :meth:`length_of` look at.

        Raises:
            ImageError: The image cannot be read or shows nothing.
        """
        grey = read_grey(source, name)
        path = str(source) if isinstance(source, str | Path) else "image"
        return signal_image(grey, name or path, self.stretch)

    def draw(self, signal: NDArray[np.float32], zoom: float = 1.0) -> NDArray[np.uint8]:
        """The canvas that :meth:`prepare` gives, of a signal image."""
        views = [self._view(view, signal, self.scale * zoom) for view in self.views]
        return views[0] if len(views) == 1 else np.stack(views, axis=-1)

    def _view(self, view: str, signal: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
        turn = RotateCrop(self.rotate_crop)
        if view == "upright":
            return self._on_canvas(lambda scale: turn(signal, scale), scale)
        if view == "crop":
            box = RotateCrop(self.rotate_crop, margin=0)(signal, scale)
            small = box.shape[0] > self.height and box.shape[1] > self.width
            # Shrinking by area keeps the bands; enlarging by area would show the pixels.
            method = cv2.INTER_AREA if small else cv2.INTER_LINEAR
            filled = cv2.resize(box, (self.width, self.height), interpolation=method)
            return np.round(np.asarray(filled) * 255).astype(np.uint8)
        method_name: StraightenMethod = "axis" if view == "straight" else "xie"
        return self._on_canvas(lambda scale: straighten(turn(signal, scale), method_name), scale)

    def _on_canvas(
        self, draw: Callable[[float], NDArray[np.float32]], scale: float
    ) -> NDArray[np.uint8]:
        """The image that ``draw`` gives at this scale, or at the largest that fits."""
        upright = draw(scale)
        fit = min(self.height / upright.shape[0], self.width / upright.shape[1])
        # Once is enough but for very large images, whose margins do not shrink with them. What
        # then stands out by no more than the margin is background, and is cut.
        while fit < 1:
            scale *= fit * 0.98
            upright = draw(scale)
            fit = min(
                (self.height + MARGIN) / upright.shape[0], (self.width + MARGIN) / upright.shape[1]
            )
        upright = upright[: self.height, : self.width]
        canvas = np.zeros((self.height, self.width), np.uint8)
        top = (self.height - upright.shape[0]) // 2
        left = (self.width - upright.shape[1]) // 2
        canvas[top : top + upright.shape[0], left : left + upright.shape[1]] = np.round(
            upright * 255
        )
        return canvas

    def length(self, source: ImageSource, name: str | None = None) -> float:
        """Length of the chromosome in pixels of the image, along its long axis.

        Raises:
            ImageError: The image cannot be read or shows nothing.
        """
        return self.length_of(self.signal(source, name))

    @staticmethod
    def length_of(signal: NDArray[np.float32]) -> float:
        """The length that :meth:`length` gives, of a signal image."""
        return float(RotateCrop(margin=0)(signal).shape[0])

    def cell_zoom(self, lengths: Sequence[float]) -> float:
        """Magnification that brings a cell to the pixel size of the training data.

        Cells of one laboratory differ in contraction by less than a factor of 1.5 from the typical
        one, and the augmentation covers that; what is further off comes from another camera or
        objective. Models of several laboratories have a ``zoom_range`` of 1.

        Args:
            lengths: Of all chromosomes of one cell, in pixels of their images.

        Returns:
            1.0 within the range, for fewer than 20 chromosomes (their median says little), and
            where the typical length is not known.
        """
        if not self.typical_length or len(lengths) < MIN_FOR_ZOOM:
            return 1.0
        zoom = self.typical_length / float(np.median(lengths))
        return zoom if max(zoom, 1 / zoom) > self.zoom_range else 1.0

    def normalise(self, canvas: Tensor) -> Tensor:
        """``(..., 1, H, W)`` uint8 0..255 to ``(..., channels, H, W)`` float32, mean and std.

        Views ``(..., V, H, W)`` keep their number.
        """
        signal = (canvas.float() / 255 - self.mean) / self.std
        if self.channels == 1:
            return signal
        return signal.expand(*signal.shape[:-3], self.channels, *signal.shape[-2:])

    def tensor(self, canvas: NDArray[np.uint8]) -> Tensor:
        """What ``prepare`` gives, normalised: ``(channels, H, W)`` or ``(views, H, W)`` float32."""
        if canvas.ndim == 2:
            return self.normalise(torch.from_numpy(canvas)[None])
        return self.normalise(torch.from_numpy(canvas).permute(2, 0, 1).contiguous())

    def to_dict(self) -> dict[str, Any]:
        """Plain arguments, as stored with the weights."""
        return asdict(self) | {"views": list(self.views)}

    @property
    def key(self) -> str:
        """Names what ``prepare`` does (not the normalisation): the cache's file name."""
        parts = [PREPARATION_VERSION, cv2.__version__.split(".")[0], self.height, self.width]
        # What came later is named only where it is used: caches of before stay valid.
        views = [] if self.views == ("upright",) else [self.views]
        zooms = [[self.typical_length, self.zoom_range]] if self.typical_length else []
        plain = [] if self.stretch else ["not stretched"]
        text = json.dumps([*parts, self.scale, self.rotate_crop, *views, *zooms, *plain])
        return hashlib.sha256(text.encode()).hexdigest()[:12]
