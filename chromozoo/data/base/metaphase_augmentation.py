"""Augmentation of metaphase crops."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MetaphaseAugmentation:
    """Random affine maps and changes of grey values, as between cells, slides and exposures.

    Grey values are only multiplied or changed by a gamma curve, so the background of a signal image
    stays 0.

    Args:
        rotate: Largest rotation to either side in degrees.
        flips: Mirror one half of the crops.
        scale: Smallest and largest magnification.
        shear: Largest shear in degrees.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast.
        gamma: Largest exponent; the smallest is its inverse.
        blur: Largest standard deviation of the blur in pixels; a third of the crops are blurred.
        noise: Largest standard deviation of the noise, as a fraction of the full signal. The noise
            grows with the square root of the signal, like photon noise.
    """

    rotate: float = 180.0
    flips: bool = True
    scale: Sequence[float] = (0.8, 1.25)
    shear: float = 5.0
    brightness: float = 0.25
    contrast: float = 0.3
    gamma: float = 1.35
    blur: float = 1.2
    noise: float = 0.06

    def draw_matrix(
        self, rng: np.random.Generator, boxes_only: bool = False
    ) -> NDArray[np.float64]:
        """Draw an affine map ``(2, 2)`` of xy.

        Args:
            rng: Random generator.
            boxes_only: Rotate by quarter turns, or not at all where ``rotate`` is 0, and do not
                shear, so that axis-aligned boxes stay tight.
        """
        if boxes_only:
            return self._draw_quarter_turn(rng)
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        shear = np.tan(np.deg2rad(rng.uniform(-self.shear, self.shear)))
        flip = -1.0 if self.flips and rng.random() < 0.5 else 1.0
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        matrix: NDArray[np.float64] = turn @ [[1, shear], [0, 1]] @ np.diag([zoom * flip, zoom])
        return matrix

    def _draw_quarter_turn(self, rng: np.random.Generator) -> NDArray[np.float64]:
        turns = int(rng.integers(4)) if self.rotate else 0
        flip = -1.0 if self.flips and rng.random() < 0.5 else 1.0
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        turn = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
        matrix: NDArray[np.float64] = turn @ np.diag([zoom * flip, zoom])
        return matrix

    def expose(self, rng: np.random.Generator, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Change the grey values of a signal image ``(H, W)``."""
        values = np.linspace(0, 1, 256)
        values **= np.exp(rng.uniform(-1, 1) * np.log(self.gamma))
        values *= 1 + rng.uniform(-self.contrast, self.contrast) * (values - 0.5)
        values *= 1 + rng.uniform(-self.brightness, self.brightness)
        changed = np.clip(values * 255, 0, 255).astype(np.float32)[canvas]
        if self.blur and rng.random() < 1 / 3:
            deviation = rng.uniform(0.3, max(self.blur, 0.3))
            changed = np.asarray(cv2.GaussianBlur(changed, (0, 0), deviation), np.float32)
        if self.noise and rng.random() < 0.5:
            amplitude = np.float32(255 * rng.uniform(0, self.noise))
            grain = rng.standard_normal(canvas.shape, np.float32)
            changed = changed + amplitude * grain * np.sqrt(changed / 255)
        return np.clip(np.round(changed), 0, 255).astype(np.uint8)


IDENTITY = MetaphaseAugmentation(
    rotate=0, flips=False, scale=(1, 1), shear=0, brightness=0, contrast=0, gamma=1, blur=0, noise=0
)
