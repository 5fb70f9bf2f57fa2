"""The preset: all that happens between a picture of a chromosome and a network's input.

Training, validation, hub, command line and export use this one object, and its arguments travel
with the weights, so a model never sees pictures prepared in another way than it learnt from.
"""

import hashlib
import json
from collections.abc import Sequence
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

FEWEST_FOR_ZOOM = 20
CONTRACTION_RANGE = 1.5

# Change it when `prepare` gives other pixels for the same arguments: cached crops are then remade.
PREPARATION_VERSION = 1


@dataclass(frozen=True)
class ChromosomePreset:
    """From any picture of one chromosome to a normalised tensor.

    Args:
        height, width: Canvas in pixels, 8 or more. A chromosome that does not fit is shrunk until
            it does.
        scale: Canvas pixels per pixel of the picture. 1.0 keeps the scale of BioImLab.
        rotate_crop: Method of :class:`RotateCrop`; ``"none"`` keeps the picture's angle.
        channels: 1, or 3 equal channels for networks that were born with colour.
        mean, std: Normalisation of the signal (0..1).
        typical_length: Length in pixels of the median chromosome of a cell in the training data;
            0 where it is not known. Serves :meth:`cell_zoom`.

    Example:
        >>> preset = ChromosomePreset(height=112, width=48)
        >>> preset("chromosome.png").shape
        torch.Size([1, 112, 48])
    """

    height: int = 112
    width: int = 48
    scale: float = 1.0
    rotate_crop: Method = "pca"
    channels: int = 1
    mean: float = 0.15
    std: float = 0.30
    typical_length: float = 0.0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 8:
            raise ValueError(
                f"a canvas of {self.height}x{self.width} pixels holds no chromosome; give height "
                "and width of 8 or more"
            )

    def __call__(
        self, source: ImageSource, name: str | None = None, *, zoom: float = 1.0
    ) -> Tensor:
        """Reads, prepares and normalises one picture: ``(channels, height, width)`` float32.

        Raises:
            ImageError: The picture cannot be read or shows nothing.
        """
        return self.normalise(torch.from_numpy(self.prepare(source, name, zoom=zoom))[None])

    def prepare(
        self, source: ImageSource, name: str | None = None, *, zoom: float = 1.0
    ) -> NDArray[np.uint8]:
        """The upright chromosome in the middle of its canvas: ``(height, width)`` uint8.

        This part is the same for every epoch, so the DataModules cache its result.

        Args:
            source: The picture, see :func:`chromozoo.images.reading.read_grey`.
            name: What errors call it; the path itself when None.
            zoom: Extra magnification, to bring a picture of another pixel size to the scale
                of the training data.
        """
        grey = read_grey(source, name)
        path = str(source) if isinstance(source, str | Path) else "image"
        signal = signal_image(grey, name or path)
        turn = RotateCrop(self.rotate_crop)
        scale = self.scale * zoom
        upright = turn(signal, scale)
        fit = min(self.height / upright.shape[0], self.width / upright.shape[1])
        # Once is enough but for very large pictures, whose margins do not shrink with them. What
        # then stands out by no more than the margin is background, and is cut.
        while fit < 1:
            scale *= fit * 0.98
            upright = turn(signal, scale)
            fit = min(
                (self.height + turn.margin) / upright.shape[0],
                (self.width + turn.margin) / upright.shape[1],
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
        """Length of the chromosome in pixels of the picture, along its long axis.

        Raises:
            ImageError: The picture cannot be read or shows nothing.
        """
        signal = signal_image(read_grey(source, name), name or str(source))
        return float(RotateCrop(margin=0)(signal).shape[0])

    def cell_zoom(self, lengths: Sequence[float]) -> float:
        """Magnification that brings a cell to the pixel size of the training data.

        Cells differ in contraction by less than a factor of 1.5 from the typical one, and the
        augmentation covers that; what is further off comes from another camera or objective.

        Args:
            lengths: Of all chromosomes of one cell, in pixels of their pictures.

        Returns:
            1.0 within the range, for fewer than 20 chromosomes (their median says little), and
            where the typical length is not known.
        """
        if not self.typical_length or len(lengths) < FEWEST_FOR_ZOOM:
            return 1.0
        zoom = self.typical_length / float(np.median(lengths))
        return zoom if max(zoom, 1 / zoom) > CONTRACTION_RANGE else 1.0

    def normalise(self, canvas: Tensor) -> Tensor:
        """``(..., 1, H, W)`` uint8 0..255 to ``(..., channels, H, W)`` float32, mean and std."""
        signal = (canvas.float() / 255 - self.mean) / self.std
        if self.channels == 1:
            return signal
        return signal.expand(*signal.shape[:-3], self.channels, *signal.shape[-2:])

    def to_dict(self) -> dict[str, Any]:
        """Plain arguments, as stored with the weights."""
        return asdict(self)

    @property
    def key(self) -> str:
        """Names what ``prepare`` does (not the normalisation): the cache's file name."""
        parts = [PREPARATION_VERSION, cv2.__version__.split(".")[0], self.height, self.width]
        text = json.dumps([*parts, self.scale, self.rotate_crop])
        return hashlib.sha256(text.encode()).hexdigest()[:12]
