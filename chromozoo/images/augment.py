"""Augmentation of prepared crops through albumentations."""

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray


class Bend(A.ImageOnlyTransform):  # type: ignore[misc]
    """Bends an upright chromosome: its straight axis becomes a shallow arc.

    Args:
        sagitta: Largest height of the arc, of the canvas height; either side is as likely.
        p: Share of the images that are bent.
    """

    def __init__(self, sagitta: float = 0.08, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.sagitta = sagitta

    def get_params(self) -> dict[str, float]:
        return {"sagitta": self.py_random.uniform(-self.sagitta, self.sagitta)}

    def apply(self, img: NDArray[np.uint8], sagitta: float, **_: object) -> NDArray[np.uint8]:
        height, width = img.shape[:2]
        along = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
        # Minus 1/3, the mean of the square: the chromosome stays in the middle.
        across = np.float32(sagitta * height) * (along**2 - np.float32(1 / 3))
        x = np.arange(width, dtype=np.float32)[None] + across
        y = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, axis=1)
        bent = cv2.remap(img, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(bent, np.uint8)


class Turn(A.ImageOnlyTransform):  # type: ignore[misc]
    """CDA, the chromosome data augmentation of Lin et al. 2020 (section 3.2, equations 3 to 5).

    Turns every image about the middle of its canvas by a random multiple of ``step`` degrees, 0
    among them, and then moves it by random rows and columns. What comes in is 0, the background of
    a signal image; pixels are interpolated. The released code takes the nearest pixel, fills black
    although its images are dark on white, and has no offset. Lin et al. make all turns of every
    image beforehand; here each epoch draws one.

    Args:
        step: Degrees between two turns; a divisor of 360.
        offset: Largest offset in rows and in columns, of the canvas.

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
    """What another cell, another slide and another exposure would have changed.

    Grey values are only ever multiplied, so the background of a signal image stays 0.

    Args:
        rotate: Largest turn left or right in degrees: what the principal axis leaves of a bend.
        scale: Smallest and largest magnification: contraction differs between cells.
        shear: Largest shear in degrees.
        shift: Largest shift, of the canvas.
        brightness: Largest relative change of brightness; with it go gamma and sharpness. 0 leaves
            all of them alone.
        noise: Largest relative change of a single pixel.
        bend: Largest sagitta of the chromosome's axis, of the canvas height (:class:`Bend`).
        flips: Mirror both ways. Polarity is unknown after rotate & crop, so both ends must do.
        rotate_step: Degrees between the turns over the full circle of CDA (:class:`Turn`; Lin et
            al. 2020: 15), with offsets up to ``shift``; 0 leaves CDA out. It is meant for images
            that were not turned upright (preset: ``rotate_crop: none`` and a square canvas, for
            what is turned out of the canvas is lost). ``shear`` and ``bend`` follow the canvas and
            not such a chromosome: set them to 0.

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
    """One augmented copy of ``(H, W)`` uint8; what turning and shearing bring in is 0.

    The views of ``(H, W, views)`` all get the same turns, bends and changes of grey.
    """
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
