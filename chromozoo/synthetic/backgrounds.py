"""Backgrounds and distractors for cut-and-paste synthesis."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.synthetic.pasting import (
    MARGIN,
    CutChromosome,
    Patch,
    disc,
    paste,
    transform_chromosome,
)

# Brighter ground is a nucleus or debris, on which chromosomes hardly ever lie.
BRIGHT_GROUND = 50


def remove_chromosomes(
    signal: NDArray[np.uint8], chromosomes: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Fill the chromosomes of a metaphase from their surroundings; nuclei, debris and haze remain.

    Args:
        signal: ``(H, W)`` uint8 signal image.
        chromosomes: ``(H, W)`` bool, mask of all chromosomes.
    """
    removed = cv2.dilate(chromosomes.astype(np.uint8), disc(MARGIN)).astype(np.float32)
    known = 1 - removed
    level = cv2.blur(signal * known, (41, 41)) / np.maximum(cv2.blur(known, (41, 41)), 1e-3)
    # The limit keeps the light of a neighbouring nucleus out of the hole.
    filled = np.where(removed > 0, np.minimum(level, BRIGHT_GROUND / 2), signal)
    return np.asarray(np.round(filled), np.uint8)


def draw_background(
    rng: np.random.Generator, backgrounds: Sequence[NDArray[np.uint8]], height: int, width: int
) -> NDArray[np.float32]:
    """Return a random, randomly mirrored part of a background.

    Without backgrounds the ground is dark with little noise.
    """
    if not backgrounds:
        grain = rng.standard_normal((height, width), np.float32)
        return np.asarray(np.maximum(grain + rng.uniform(0, 4), 0), np.float32)
    ground = backgrounds[int(rng.integers(len(backgrounds)))]
    rows, columns = max(height - ground.shape[0], 0), max(width - ground.shape[1], 0)
    if rows or columns:
        ground = np.pad(ground, ((0, rows), (0, columns)), mode="symmetric")
    top = rng.integers(ground.shape[0] - height + 1)
    left = rng.integers(ground.shape[1] - width + 1)
    part = ground[top : top + height, left : left + width]
    return part[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))].astype(np.float32)


def add_distractor(
    rng: np.random.Generator, canvas: NDArray[np.float32], chromosomes: Sequence[CutChromosome]
) -> None:
    """Add a nucleus, a speck of debris or a faint fragment of a chromosome."""
    kind = rng.choice(("nucleus", "debris", "fragment"), p=(0.2, 0.6, 0.2))
    place = rng.uniform((0, 0), canvas.shape[::-1])
    if kind == "nucleus":
        _add_ellipse(rng, canvas, place, rng.uniform(25, 60, size=2), rng.uniform(60, 255), 2.0)
    elif kind == "debris":
        _add_ellipse(rng, canvas, place, rng.uniform(1.0, 4.5, size=2), rng.uniform(30, 400), 0.8)
    else:
        cut = chromosomes[int(rng.integers(len(chromosomes)))]
        patch = transform_chromosome(
            rng, cut, rng.uniform(0.8, 1.2), cut.level * rng.uniform(0.2, 0.6)
        )
        along = np.add.outer(*(np.arange(side) - side / 2 for side in patch.mask.shape))
        # Too small to be annotated as a chromosome.
        kept = along < np.partition(along[patch.mask], 40)[40]
        patch.alpha = np.asarray(cv2.GaussianBlur(patch.mask * kept * 1.0, (5, 5), 1.2), np.float32)
        patch.move_to(place)
        paste(canvas, np.zeros(canvas.shape, np.uint8), patch, "max")


def _add_ellipse(
    rng: np.random.Generator,
    canvas: NDArray[np.float32],
    place: NDArray[np.float64],
    axes: NDArray[np.float64],
    level: float,
    softness: float,
) -> None:
    """Add a filled ellipse with a soft edge and uneven brightness."""
    half = int(axes.max() + 4 * softness) + 1
    column, row = (int(v) for v in place)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask = ((u / axes[0]) ** 2 + (v / axes[1]) ** 2 <= 1).astype(np.float32)
    grain = rng.standard_normal((max(half // 4, 2),) * 2, np.float32)
    uneven = 1 + 0.15 * cv2.resize(grain, mask.shape[::-1], interpolation=cv2.INTER_CUBIC)
    ellipse = level * cv2.GaussianBlur(mask, (0, 0), softness) * uneven
    patch = Patch(np.asarray(ellipse, np.float32), mask, mask > 0, np.zeros((1, 2)))
    patch.corner = np.array([column - half, row - half])
    image, part = patch.overlap_slices(*canvas.shape)
    canvas[image] += np.maximum(patch.light[part], 0)
