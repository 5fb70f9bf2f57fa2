"""Rotate & crop: a chromosome at any angle becomes an upright one, at its own scale.

Wang et al. 2024 (algorithm 1) turn the image by the first Hough line of its Canny edges; that
is ``method="hough"``. Two robust methods stand beside it: the principal axis of the chromosome's
pixels (``"pca"``, the default) and the smallest enclosing rectangle (``"minarearect"``). Which end
is the p arm (polarity) stays open: no method of this file can know it.

The scale is never changed unless asked for: length is evidence for the class.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.images.signal import foreground

Method = Literal["pca", "hough", "minarearect", "none"]

# The paper gives no thresholds; these find the side edges of a chromosome of 15 px and more.
CANNY_THRESHOLDS = (60, 180)
HOUGH_VOTES = 12
# The blurred rim of a chromosome reaches this far beyond its thresholded edge.
RIM = 2


class RotateCrop:
    """Turns a signal image upright, cuts it to the chromosome and clears what is beside it.

    One object serves training, validation, hub and command line.

    Args:
        method: ``"pca"``, ``"hough"`` (falls back to pca where no line is found),
            ``"minarearect"``, or ``"none"`` (cut only).
        margin: Background pixels kept on each side, in output pixels.

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
        """Returns the upright chromosome ``(h, w)`` float32 0..1, resampled once.

        Args:
            signal: Signal image ``(H, W)``.
            scale: Output pixels per input pixel, both directions alike.

        Raises:
            ImageError: The signal image is empty.
        """
        mask = foreground(signal)
        if not mask.any():
            raise ImageError(
                "the signal image is all background, there is no chromosome; make it with "
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
        """Degrees in [-90, 90) by which the long axis leans from the vertical, clockwise positive.

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
            return _lean(sides[np.argmax(np.hypot(sides[:, 0], sides[:, 1]))])
        offsets = points - points.mean(axis=0)
        _, axes = np.linalg.eigh(offsets.T @ offsets)
        return _lean(axes[:, -1])


def _lean(direction: NDArray[np.floating]) -> float:
    """Clockwise lean from the vertical of a direction (x, y), y down."""
    x, y = float(direction[0]), float(direction[1])
    lean = float(np.degrees(np.arctan2(x, -y)))
    return (lean + 90) % 180 - 90


def _hough_tilt(signal: NDArray[np.float32]) -> float | None:
    edges = cv2.Canny(np.round(signal * 255).astype(np.uint8), *CANNY_THRESHOLDS)
    lines = cv2.HoughLines(edges, 1, np.pi / 180, HOUGH_VOTES)
    if lines is None:
        return None
    # theta is the angle of the line's normal; the line itself leans by theta from the vertical.
    theta = float(np.degrees(np.asarray(lines).reshape(-1, np.asarray(lines).shape[-1])[0, 1]))
    return (theta + 90) % 180 - 90
