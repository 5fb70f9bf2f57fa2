"""Augmentation of single chromosomes as a set of named arguments."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import albumentations as A

from chromozoo.images import augment


@dataclass(frozen=True)
class ChromosomeAugmentation:
    """Arguments of :func:`chromozoo.images.augment.training_augmentation`, which explains them.

    Args:
        rotate: Largest rotation to either side in degrees.
        scale: Smallest and largest magnification.
        shear: Largest shear in degrees.
        shift: Largest shift, as a fraction of the canvas.
        brightness: Largest relative change of brightness, with gamma and sharpness; 0 for none.
        noise: Largest relative change of a single pixel.
        bend: Largest sagitta of the chromosome's axis, as a fraction of the canvas height.
        flips: Mirror both ways.
        rotate_step: Step in degrees of rotations over the full circle; 0 for none.
    """

    rotate: float = 10.0
    scale: Sequence[float] = (0.85, 1.18)
    shear: float = 6.0
    shift: float = 0.05
    brightness: float = 0.25
    noise: float = 0.08
    bend: float = 0.08
    flips: bool = True
    rotate_step: float = 0.0

    def pipeline(self) -> A.Compose:
        """Return the albumentations pipeline for uint8 images ``(H, W)`` or ``(H, W, views)``."""
        return augment.training_augmentation(**asdict(self) | {"scale": tuple(self.scale)})
