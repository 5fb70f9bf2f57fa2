"""Preprocessing of single chromosomes: from any image to the input of a classifier.

Training, validation, hub, command line and export use the same preset, and its arguments are stored
with the weights, so that images are prepared in use exactly as in training.
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
from chromozoo.images.straighten import StraightenMethod, straighten
from chromozoo.images.straighten.curves import MARGIN

VIEWS = ("upright", "straight", "straight-xie", "crop")

# Chromosomes of a cell that the median length needs.
MIN_FOR_ZOOM = 20

INTEGERS = ("height", "width", "channels")
NUMBERS = (*INTEGERS, "scale", "mean", "std", "typical_length", "zoom_range")
# Limits of the arguments, which may come from a damaged weights file.
MAX_SIDE = 4096
MAX_SCALE = 32.0

# Increase it when `prepare` returns other pixels for the same arguments, to renew cached crops.
PREPARATION_VERSION = 1


@dataclass(frozen=True)
class ChromosomePreset:
    """Preprocessing of one chromosome's image to a normalised tensor.

    Args:
        height, width: Size of the canvas in pixels, 8 or more. A chromosome that does not fit is
            reduced.
        scale: Canvas pixels per pixel of the image. 1.0 keeps the scale of BioImLab.
        rotate_crop: Method of :class:`RotateCrop`; ``"none"`` keeps the image's angle.
        channels: 1, or 3 equal channels for RGB backbones.
        mean, std: Normalisation of the signal (0..1).
        typical_length: Length in pixels of the median chromosome of a cell in the training data,
            for :meth:`cell_zoom`; 0 if unknown.
        zoom_range: Cells whose median length differs from the typical length by less than this
            factor keep their scale; 1 rescales every cell.
        views: Views of one chromosome, each a channel: ``"upright"``; ``"straight"`` and
            ``"straight-xie"``, the upright chromosome straightened
            (:func:`chromozoo.images.straighten.straighten`); ``"crop"``, the upright chromosome cut
            to its box and resized to the canvas.
        stretch: Stretch every image to full contrast, which removes the influence of exposure and
            bit depth. False, for ablations, keeps the departure from the background divided by 255.

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
        # JSON and YAML give lists, but presets must be hashable.
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
                f"a canvas of {self.height}x{self.width} pixels is too small; give height "
                "and width of 8 or more"
            )

    def _set_numbers(self) -> None:
        """Convert each number to its type, so that 63 and 63.0 give the same cache key."""
        for name in NUMBERS:
            value = getattr(self, name)
            try:
                number = float(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} is {value!r}; give a number") from error
            highest = MAX_SCALE if name == "scale" else MAX_SIDE
            lowest = -highest if name == "mean" else 0
            if not lowest <= number <= highest or (name in ("scale", "std") and not number):
                raise ValueError(f"{name} is {value!r}, which is out of range for an image")
            if name in INTEGERS and number != int(number):
                raise ValueError(f"{name} is {value!r}; give an integer")
            object.__setattr__(self, name, int(number) if name in INTEGERS else number)

    def __call__(
        self, source: ImageSource, name: str | None = None, *, zoom: float = 1.0
    ) -> Tensor:
        """Read, prepare and normalise one image.

        Args:
            source: The image, see :func:`chromozoo.images.reading.read_grey`.
            name: Name of the image in error messages; the path by default.
            zoom: Extra magnification, from :meth:`cell_zoom`.

        Returns:
            ``(channels, height, width)`` float32; ``(views, height, width)`` with several views.

        Raises:
            ImageError: The image cannot be read or shows no chromosome.
        """
        return self.tensor(self.prepare(source, name, zoom=zoom))

    def prepare(
        self, source: ImageSource, name: str | None = None, *, zoom: float = 1.0
    ) -> NDArray[np.uint8]:
        """Return the canvas with the upright chromosome in its middle.

        The canvas does not depend on the epoch, so the DataModules cache it.

        Args:
            source: The image, see :func:`chromozoo.images.reading.read_grey`.
            name: Name of the image in error messages; the path by default.
            zoom: Extra magnification, which brings an image of another pixel size to the scale of
                the training data.

        Returns:
            ``(height, width)`` uint8; ``(height, width, views)`` with several views.
        """
        return self.draw(self.signal(source, name), zoom)

    def signal(self, source: ImageSource, name: str | None = None) -> NDArray[np.float32]:
        """Return the signal image of an image, the input of :meth:`draw` and :meth:`length_of`.

        Raises:
            ImageError: The image cannot be read or shows no chromosome.
        """
        grey = read_grey(source, name)
        path = str(source) if isinstance(source, str | Path) else "image"
        return signal_image(grey, name or path, self.stretch)

    def draw(self, signal: NDArray[np.float32], zoom: float = 1.0) -> NDArray[np.uint8]:
        """Return the canvas of a signal image, see :meth:`prepare`."""
        views = [self._draw_view(view, signal, self.scale * zoom) for view in self.views]
        return views[0] if len(views) == 1 else np.stack(views, axis=-1)

    def _draw_view(self, view: str, signal: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
        """Return the canvas of one view of a signal image."""
        turn = RotateCrop(self.rotate_crop)
        if view == "upright":
            return self._on_canvas(lambda scale: turn(signal, scale), scale)
        if view == "crop":
            box = RotateCrop(self.rotate_crop, margin=0)(signal, scale)
            small = box.shape[0] > self.height and box.shape[1] > self.width
            # Area interpolation keeps the bands of a reduced image, but shows enlarged pixels.
            method = cv2.INTER_AREA if small else cv2.INTER_LINEAR
            filled = cv2.resize(box, (self.width, self.height), interpolation=method)
            return np.round(np.asarray(filled) * 255).astype(np.uint8)
        method_name: StraightenMethod = "axis" if view == "straight" else "xie"
        return self._on_canvas(lambda scale: straighten(turn(signal, scale), method_name), scale)

    def _on_canvas(
        self, draw: Callable[[float], NDArray[np.float32]], scale: float
    ) -> NDArray[np.uint8]:
        """Return the canvas with the output of ``draw`` at this scale, or the largest that fits."""
        upright = draw(scale)
        fit = min(self.height / upright.shape[0], self.width / upright.shape[1])
        # The margins of very large images do not shrink with them, so a second step may be needed.
        # What then exceeds the canvas by at most the margin is background and is cut off.
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
        """Return the length of the chromosome along its long axis, in pixels of the image.

        Raises:
            ImageError: The image cannot be read or shows no chromosome.
        """
        return self.length_of(self.signal(source, name))

    @staticmethod
    def length_of(signal: NDArray[np.float32]) -> float:
        """Return the length of the chromosome in a signal image, see :meth:`length`."""
        return float(RotateCrop(margin=0)(signal).shape[0])

    def cell_zoom(self, lengths: Sequence[float]) -> float:
        """Return the magnification that brings a cell to the pixel size of the training data.

        Within a factor of 1.5 of the typical length, cells of one laboratory differ by contraction,
        which the augmentation covers; other cells come from another camera or objective. Models
        for several laboratories have a ``zoom_range`` of 1.

        Args:
            lengths: Lengths of all chromosomes of one cell, in pixels of their images.

        Returns:
            1.0 within ``zoom_range`` of the typical length, for fewer than 20 chromosomes, or if
            the typical length is unknown.
        """
        if not self.typical_length or len(lengths) < MIN_FOR_ZOOM:
            return 1.0
        zoom = self.typical_length / float(np.median(lengths))
        return zoom if max(zoom, 1 / zoom) > self.zoom_range else 1.0

    def normalise(self, canvas: Tensor) -> Tensor:
        """Normalise canvases by mean and std.

        Args:
            canvas: ``(..., 1, H, W)`` or ``(..., views, H, W)`` uint8, 0..255.

        Returns:
            ``(..., channels, H, W)`` or ``(..., views, H, W)`` float32.
        """
        signal = (canvas.float() / 255 - self.mean) / self.std
        if self.channels == 1:
            return signal
        return signal.expand(*signal.shape[:-3], self.channels, *signal.shape[-2:])

    def tensor(self, canvas: NDArray[np.uint8]) -> Tensor:
        """Return a normalised canvas: ``(channels, H, W)`` or ``(views, H, W)`` float32."""
        if canvas.ndim == 2:
            return self.normalise(torch.from_numpy(canvas)[None])
        return self.normalise(torch.from_numpy(canvas).permute(2, 0, 1).contiguous())

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as stored with the weights."""
        return asdict(self) | {"views": list(self.views)}

    @property
    def key(self) -> str:
        """Hash of the arguments of ``prepare``, without the normalisation: the key of the cache."""
        parts = [PREPARATION_VERSION, cv2.__version__.split(".")[0], self.height, self.width]
        # Later arguments are part of the key only if they are used, so that old caches stay valid.
        views = [] if self.views == ("upright",) else [self.views]
        zooms = [[self.typical_length, self.zoom_range]] if self.typical_length else []
        plain = [] if self.stretch else ["not stretched"]
        text = json.dumps([*parts, self.scale, self.rotate_crop, *views, *zooms, *plain])
        return hashlib.sha256(text.encode()).hexdigest()[:12]
