"""Drawn karyograms of a laboratory, with the place and class of each chromosome."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import AUTOSOMES
from chromozoo.images.karyogram_layout import LAYOUTS
from chromozoo.synthetic import Appearance, draw_chromosome

Box = tuple[float, float, float, float]
Truth = list[tuple[str, Box]]

MALE = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "Y"]
FEMALE = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "X"]
KARYOTYPES = {
    "46,XY": MALE,
    "46,XX": FEMALE,
    "47,XX,+21": [*FEMALE, "21"],
    "45,X": FEMALE[:-1],
    "45,XY,-13": [*MALE[:24], *MALE[25:]],
    "47,XY,+8": [*MALE, "8"],
}


def draw_chromosomes(karyotype: list[str], seed: int = 0) -> list[tuple[str, NDArray[np.uint8]]]:
    """Draw upright G-banded chromosomes, dark on light, with their classes."""
    return _draw_once(tuple(karyotype), seed)


@lru_cache
def _draw_once(karyotype: tuple[str, ...], seed: int) -> list[tuple[str, NDArray[np.uint8]]]:
    rng = np.random.default_rng(seed)
    look = Appearance(stain="g", bend=0.25, base=0.35, blur=1.0, background=255.0, noise=1.0)
    return [(name, draw_chromosome(name, look, rng, angle=0).image) for name in karyotype]


def draw_karyogram_page(
    karyotype: list[str],
    seed: int = 0,
    paper: int = 244,
    pair: int = 7,
    between: int = 34,
    touching: str = "",
) -> tuple[NDArray[np.uint8], Truth]:
    """Draw a page with title, rulers, numbers, a scale bar and a frame, with noise and JPEG."""
    rng = np.random.default_rng(seed)
    cell = draw_chromosomes(karyotype, seed)
    page = np.full((1100, 1300), paper, np.uint8)
    truth: Truth = []
    base, right = 110, 0
    for row in LAYOUTS["denver"]:
        base += max(image.shape[0] for name, image in cell if name in row) + 20
        x = 50
        for name in row:
            start = x
            for image in [image for label, image in cell if label == name]:
                ys, xs = np.nonzero(image < 225)
                own = image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
                height, width = own.shape
                window = page[base - height : base, x : x + width]
                window[:] = np.minimum(window, np.clip(own.astype(int) + paper - 255, 0, 255))
                truth.append((name, (x, base - height, width, height)))
                x += width + (pair if name != touching else 0)
            end = max(x, start + 30)
            cv2.line(page, (start, base + 9), (end - pair, base + 9), 0, 2)
            cv2.putText(
                page, name, ((start + end) // 2 - 12, base + 32), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 0
            )
            x = end + between
        right = max(right, x)
        base += 40
    cv2.putText(page, "Case 12-345  46,XY", (50, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, 0, 2)
    cv2.line(page, (right - 150, 40), (right - 60, 40), 0, 4)
    page = page[: base + 20, : right + 30].copy()
    cv2.rectangle(page, (6, 6), (page.shape[1] - 7, page.shape[0] - 7), 0, 2)
    noisy = np.clip(page + rng.normal(0, 2, page.shape), 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8), truth
