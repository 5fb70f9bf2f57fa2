"""Training augmentation of chromosome crops, with albumentations."""

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray


class Bend(A.ImageOnlyTransform):  # type: ignore[misc]
    """Bends an upright chromosome: its straight axis becomes a shallow arc.

    Args:
        sagitta: Maximum height of the arc relative to the canvas height, to either side.
        p: Probability of bending an image.
    """

    def __init__(self, sagitta: float = 0.08, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.sagitta = sagitta

    def get_params(self) -> dict[str, float]:
        return {"sagitta": self.py_random.uniform(-self.sagitta, self.sagitta)}

    def apply(self, img: NDArray[np.uint8], sagitta: float, **_: object) -> NDArray[np.uint8]:
        height, width = img.shape[:2]
        along = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
        # 1/3 is the mean of the square; subtracting it keeps the chromosome in the middle.
        across = np.float32(sagitta * height) * (along**2 - np.float32(1 / 3))
        x = np.arange(width, dtype=np.float32)[None] + across
        y = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, axis=1)
        bent = cv2.remap(img, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(bent, np.uint8)


class Turn(A.ImageOnlyTransform):  # type: ignore[misc]
    """CDA, the chromosome data augmentation of Lin et al. 2020 (section 3.2, equations 3 to 5).

    Rotates an image about the middle of its canvas by a random multiple of ``step`` degrees,
    including 0, then shifts it by random rows and columns. New pixels are 0, the background of a
    signal image, and pixels are interpolated. The released code takes the nearest pixel, fills
    black although its images are dark on white, and has no offset. Lin et al. precompute all
    rotations of every image; here each epoch draws one.

    Args:
        step: Degrees between two rotations; a divisor of 360.
        offset: Maximum shift in rows and columns, relative to the canvas.

    Raises:
        ValueError: ``step`` does not divide 360.
    """

    def __init__(self, step: float = 15.0, offset: float = 0.05) -> None:
        super().__init__(p=1.0)
        if step <= 0 or 360 % step:
            raise ValueError(
                f"rotate_step {step:g} does not divide 360 degrees; give for example 15"
            )
        self.step = step
        self.offset = offset

    def get_params(self) -> dict[str, float]:
        return {
            "angle": self.step * self.py_random.randrange(round(360 / self.step)),
            "down": self.py_random.uniform(-self.offset, self.offset),
            "right": self.py_random.uniform(-self.offset, self.offset),
        }

    def apply(
        self, img: NDArray[np.uint8], angle: float, down: float, right: float, **_: object
    ) -> NDArray[np.uint8]:
        height, width = img.shape[:2]
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        turn[:, 2] += right * width, down * height
        turned = cv2.warpAffine(img, turn, (width, height), flags=cv2.INTER_LINEAR)
        return np.asarray(turned, np.uint8)


def training_augmentation(
    rotate: float = 10.0,
    scale: tuple[float, float] = (0.85, 1.18),
    shear: float = 6.0,
    shift: float = 0.05,
    brightness: float = 0.25,
    noise: float = 0.08,
    bend: float = 0.08,
    flips: bool = True,
    rotate_step: float = 0.0,
) -> A.Compose:
    """Return the training augmentation, which simulates other cells, slides and exposures.

    Grey values are only multiplied, so the background of a signal image stays 0.

    Args:
        rotate: Maximum rotation to either side in degrees, because the principal axis of a bent
            chromosome is not exact.
        scale: Minimum and maximum magnification, because contraction differs between cells.
        shear: Maximum shear in degrees.
        shift: Maximum shift relative to the canvas.
        brightness: Maximum relative change of brightness; it enables gamma and sharpness as well. 0
            disables all three.
        noise: Maximum relative change of a single pixel.
        bend: Maximum sagitta of the chromosome's axis relative to the canvas height
            (:class:`Bend`).
        flips: Mirror in both directions, because polarity is unknown after rotate & crop.
        rotate_step: Degrees between the rotations of CDA over the full circle (:class:`Turn`; Lin
            et al. 2020: 15), with shifts up to ``shift``; 0 disables CDA. It is meant for images
            that are not turned upright: ``rotate_crop: none`` in the preset, and a square canvas,
            because pixels outside the canvas are lost. Set ``shear`` and ``bend`` to 0, since they
            assume an upright chromosome.

    Returns:
        An albumentations pipeline for uint8 ``(H, W)`` images.
    """
    offset = 0.0 if rotate_step else shift
    steps: list[A.BasicTransform] = [
        A.Affine(
            rotate=(-rotate, rotate),
            scale=scale,
            shear={"x": (-shear, shear), "y": (0.0, 0.0)},
            translate_percent={"x": (-offset, offset), "y": (-offset, offset)},
            keep_ratio=True,
            interpolation=cv2.INTER_LINEAR,
            fill=0,
            p=0.9,
        ),
    ]
    if bend:
        steps.append(Bend(bend, p=0.5))
    if brightness:
        steps += [
            A.MultiplicativeNoise((1 - brightness, 1 + brightness), p=0.5),
            A.RandomGamma((65, 150), p=0.5),
            A.OneOf(
                [A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(0.4, 1.0)), A.Sharpen((0.1, 0.4))],
                p=0.3,
            ),
        ]
    if noise:
        steps.append(A.MultiplicativeNoise((1 - noise, 1 + noise), elementwise=True, p=0.3))
    if rotate_step:
        steps = [Turn(rotate_step, shift), *steps]
    if flips:
        steps = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), *steps]
    return A.Compose(steps)


def apply(pipeline: A.Compose, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an augmented copy of a canvas.

    Args:
        pipeline: Output of :func:`training_augmentation`.
        canvas: ``(H, W)`` uint8, or ``(H, W, views)``, whose views all get the same changes.
    """
    augmented: NDArray[np.uint8] = pipeline(image=canvas)["image"]
    return augmented


def seed_worker(worker_id: int) -> None:
    """Seed the augmentation in a worker; the ``worker_init_fn`` of a DataLoader.

    albumentations 2.0.8 seeds itself once, so without this function all workers and epochs repeat
    the same draws. torch's worker seed differs between workers and epochs and follows the run's
    seed.
    """
    info = torch.utils.data.get_worker_info()
    assert info is not None, "seed_worker runs in DataLoader workers only"
    # A data set with a fixed seed repeats its draws each time that the loader is started.
    fixed = getattr(info.dataset, "seed", None)
    seed_pipeline(info.dataset, info.seed if fixed is None else fixed + 7919 * (worker_id + 1))


def seed_pipeline(dataset: object, seed: int) -> None:
    """Seed the ``augmentation`` pipeline of a dataset, if it has one."""
    pipeline = getattr(dataset, "augmentation", None)
    if pipeline is not None:
        pipeline.set_random_seed(seed % 2**32)
