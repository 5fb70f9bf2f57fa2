"""Rotate & crop: rotation of a chromosome to upright, at its own scale.

Wang et al. 2024 (algorithm 1) rotate the image by the first Hough line of its Canny edges
(``method="hough"``). Two more robust methods are the principal axis of the chromosome's pixels
(``"pca"``, the default) and the smallest enclosing rectangle (``"minarearect"``). None of them
determines the polarity, that is which end is the p arm.

The scale is kept by default, because length is evidence for the class.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.images.signal import foreground

Method = Literal["pca", "hough", "minarearect", "none"]

# Not given in the paper. These detect the side edges of a chromosome of 15 px and more.
CANNY_THRESHOLDS = (60, 180)
HOUGH_VOTES = 12
# Pixels by which the blurred rim of a chromosome extends beyond its thresholded edge.
RIM = 2


class RotateCrop:
    """Rotates a signal image upright, crops it to the chromosome and clears its surroundings.

    Args:
        method: ``"pca"``, ``"hough"`` (falls back to pca without a line), ``"minarearect"``, or
            ``"none"`` (crop only).
        margin: Background pixels on each side, in output pixels.

    Example:
        >>> upright = RotateCrop()(signal)  # (H, W) -> (h, w), long axis vertical
    """

    def __init__(self, method: Method = "pca", margin: int = 1) -> None:
        if method not in ("pca", "hough", "minarearect", "none"):
            raise UnknownNameError(
                f"unknown method {method!r}; use pca, hough, minarearect or none"
            )
        self.method = method
        self.margin = margin

    def __call__(self, signal: NDArray[np.float32], scale: float = 1.0) -> NDArray[np.float32]:
        """Return the upright chromosome ``(h, w)`` float32 0..1, resampled once.

        Args:
            signal: Signal image ``(H, W)``.
            scale: Output pixels per input pixel.

        Raises:
            ImageError: The signal image is empty.
        """
        mask = foreground(signal)
        if not mask.any():
            raise ImageError(
                "the signal image shows no chromosome, only background; make it with "
                "signal_image, which checks this"
            )
        angle = self.tilt(signal, mask)
        rim = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8))
        height, width = signal.shape
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        points = np.argwhere(mask)[:, ::-1] @ turn[:, :2].T + turn[:, 2]
        low = np.floor(points.min(axis=0)) - self.margin
        size = np.ceil(points.max(axis=0)) + self.margin + 1 - low
        turn[:, 2] -= low
        # Shrinking without an area filter would alias the bands.
        source = np.asarray(signal * rim, np.float32)
        if scale < 1:
            blur = 0.5 * np.sqrt(1 / scale**2 - 1)
            source = np.asarray(cv2.GaussianBlur(source, (0, 0), blur), np.float32)
        upright = cv2.warpAffine(
            source,
            turn,
            (int(size[0]), int(size[1])),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        return np.asarray(upright, np.float32)

    def tilt(self, signal: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
        """Return the angle of the long axis from the vertical, clockwise, in degrees [-90, 90).

        Args:
            signal: Signal image ``(H, W)``.
            mask: The chromosome's pixels ``(H, W)`` bool.
        """
        if self.method == "none":
            return 0.0
        if self.method == "hough" and (angle := _hough_tilt(signal)) is not None:
            return angle
        points = np.argwhere(mask)[:, ::-1].astype(np.float32)
        if self.method == "minarearect":
            corners = cv2.boxPoints(cv2.minAreaRect(points))
            sides = np.diff(corners[:3], axis=0)
            return _angle_from_vertical(sides[np.argmax(np.hypot(sides[:, 0], sides[:, 1]))])
        offsets = points - points.mean(axis=0)
        _, axes = np.linalg.eigh(offsets.T @ offsets)
        return _angle_from_vertical(axes[:, -1])


def _angle_from_vertical(direction: NDArray[np.floating]) -> float:
    """Return the clockwise angle of a direction (x, y) from the vertical, with y down."""
    x, y = float(direction[0]), float(direction[1])
    angle = float(np.degrees(np.arctan2(x, -y)))
    return (angle + 90) % 180 - 90


def _hough_tilt(signal: NDArray[np.float32]) -> float | None:
    """Return the angle of the first Hough line from the vertical; None without a line."""
    edges = cv2.Canny(np.round(signal * 255).astype(np.uint8), *CANNY_THRESHOLDS)
    lines = cv2.HoughLines(edges, 1, np.pi / 180, HOUGH_VOTES)
    if lines is None:
        return None
    # theta is the angle of the line's normal, so it is also the line's angle from the vertical.
    theta = float(np.degrees(np.asarray(lines).reshape(-1, np.asarray(lines).shape[-1])[0, 1]))
    return (theta + 90) % 180 - 90
