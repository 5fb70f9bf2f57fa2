"""Augmentation of prepared crops through albumentations."""

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray


def training_augmentation(
    rotate: float = 10.0,
    scale: tuple[float, float] = (0.85, 1.18),
    shear: float = 6.0,
    shift: float = 0.05,
    brightness: float = 0.25,
    noise: float = 0.04,
    flips: bool = True,
) -> A.Compose:
    """What another cell, another slide and another exposure would have changed.

    Args:
        rotate: Largest turn left or right in degrees: what the principal axis leaves of a bend.
        scale: Smallest and largest magnification: contraction differs between cells.
        shear: Largest shear in degrees: a cheap stand-in for bending.
        shift: Largest shift, of the canvas.
        brightness: Largest relative change of brightness and of contrast; with it go gamma and
            sharpness. 0 leaves all of them alone.
        noise: Largest standard deviation of added noise, of the full range.
        flips: Mirror both ways. Polarity is unknown after rotate & crop, so both ends must do.

    Returns:
        An albumentations pipeline for uint8 ``(H, W)`` images.
    """
    steps: list[A.BasicTransform] = [
        A.Affine(
            rotate=(-rotate, rotate),
            scale=scale,
            shear={"x": (-shear, shear), "y": (0.0, 0.0)},
            translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
            keep_ratio=True,
            interpolation=cv2.INTER_LINEAR,
            fill=0,
            p=0.9,
        ),
    ]
    if brightness:
        steps += [
            A.RandomBrightnessContrast(brightness, brightness, p=0.5),
            A.RandomGamma((65, 150), p=0.5),
            A.OneOf(
                [A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(0.4, 1.0)), A.Sharpen((0.1, 0.4))],
                p=0.3,
            ),
        ]
    if noise:
        steps.append(A.GaussNoise(std_range=(0.0, noise), p=0.3))
    if flips:
        steps = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), *steps]
    return A.Compose(steps)


def apply(pipeline: A.Compose, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One augmented copy of ``(H, W)`` uint8; what turning and shearing bring in is 0."""
    augmented: NDArray[np.uint8] = pipeline(image=canvas)["image"]
    return augmented


def seed_worker(worker_id: int) -> None:
    """``worker_init_fn`` of a DataLoader: gives each worker and each epoch draws of its own.

    albumentations 2.0.8 seeds itself once, so without this two workers give the same draws and
    every epoch repeats them. torch's worker seed differs between workers and epochs and follows
    the run's seed.
    """
    info = torch.utils.data.get_worker_info()
    assert info is not None, "seed_worker runs in DataLoader workers only"
    # A data set that fixes its own seed draws the same however often the loader is begun.
    own = getattr(info.dataset, "seed", None)
    seed_pipeline(info.dataset, info.seed if own is None else own + 7919 * (worker_id + 1))


def seed_pipeline(dataset: object, seed: int) -> None:
    """Seeds the ``augmentation`` pipeline of a dataset, where it has one."""
    pipeline = getattr(dataset, "augmentation", None)
    if pipeline is not None:
        pipeline.set_random_seed(seed % 2**32)
