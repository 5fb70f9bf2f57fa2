"""Correction of uneven illumination: strong vignettes and gradients.

A segmenter expects one background level. With a vignette, the background in the corners may be as
dark as a chromosome in the middle, so a smooth surface is fitted to the background and removed. An
evenly lit image, which is the rule, is not changed by a single bit.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.images.field import downscale
from chromozoo.structures.arrays import FloatArray

# The background is estimated by medians of BLOCK x BLOCK pixels of a small copy.
BLOCK, MIN_BLOCKS = 8, 60
# Degrees of the fitted polynomials.
DEGREES = (2, 4)
# Quantiles of the blocks that a fit starts from: chromosomes may be bright, dark, or few.
QUANTILES = (0.5, 0.85, 0.15)
FIRST_STEPS, STEPS = 8, 16
# A block is explained by a surface if it is this near to it, in units of the contrast.
NEAR = 0.15
# Illumination is uneven if a surface explains MIN_EXPLAINED of the blocks, MIN_GAIN more of them
# than a single level does, and varies by MIN_VARIATION contrasts. The largest gain in 328
# validation and training images of BioImLab, M-FISH and CIL:54816 is 0.21.
MIN_GAIN, MIN_EXPLAINED, MIN_VARIATION = 0.25, 0.45, 0.3
# If a single level explains this share of the blocks, only one surface is fitted.
MAX_FLAT = 0.6
# A later surface replaces an earlier one if it explains this much more of the blocks.
MIN_BETTER = 0.03
# Percentile of the departures from the background that estimates the contrast of the chromosomes.
CONTRAST_PERCENTILE = 98.0
# The surface is divided out if its darkest part has more than this share of the brightest.
MIN_LIGHT = 0.05


@dataclass(frozen=True)
class Illumination:
    """Uneven illumination that was corrected.

    Attributes:
        share: Ratio of the darkest to the brightest part of the background, 0..1.
    """

    share: float

    def describe(self) -> str:
        """Return a sentence for the user."""
        return (
            f"uneven light was evened out: the darkest part of the background has {self.share:.0%} "
            "of the brightest"
        )


def correct_illumination(
    grey: NDArray[np.float32],
    field: NDArray[np.bool_] | None = None,
    small: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], Illumination | None]:
    """Correct uneven illumination.

    Dark chromosomes absorb a share of the light, so the image is divided by the fitted surface. If
    chromosomes are bright, the surface is subtracted.

    Args:
        grey: ``(H, W)`` in any units.
        field: ``(H, W)`` bool, mask of the field of view; the whole image by default.
        small: Output of :func:`~chromozoo.images.field.downscale`, if it has been computed already.

    Returns:
        ``(H, W)`` with one background, the same array where the light is even; and how uneven it
        was.
    """
    small = downscale(grey) if small is None else small
    within = np.ones(small.shape, bool)
    if field is not None:
        size = (small.shape[1], small.shape[0])
        within = cv2.resize(field.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    blocks, is_whole = _block_medians(small, within)
    values = blocks[is_whole]
    if values.size < MIN_BLOCKS:
        return grey, None
    level = _mode(values)
    if (np.abs(values - level) <= 0.01 * np.ptp(small[within])).mean() > 1 - MIN_GAIN:
        return grey, None  # a surface cannot explain much more
    best = _fit_best_surface(values, level, is_whole, small, within)
    if best is None:
        return grey, None
    degree, weights, contrast = best
    surface = (_polynomial_terms(blocks.shape, degree) @ weights).reshape(blocks.shape)
    fitted = surface[is_whole]
    near = NEAR * contrast
    explained = float((np.abs(values - fitted) < near).mean())
    gain = explained - float((np.abs(values - level) < near).mean())
    dark, bright = (float(value) for value in np.percentile(fitted, (1, 99)))
    if (
        explained < MIN_EXPLAINED
        or gain < MIN_GAIN
        or bright - dark < MIN_VARIATION * contrast
        or bright <= 0
    ):
        return grey, None
    light = _resize_surface(surface, grey.shape)
    middle = np.float32(np.median(fitted))
    is_dark = _is_dark((small - _resize_surface(surface, small.shape))[within])
    share = max(dark, 0.0) / bright
    if is_dark and share > MIN_LIGHT:
        light = np.maximum(light, np.float32(0.5 * dark))
        return np.asarray(grey * (middle / light), np.float32), Illumination(share)
    return np.asarray(grey - light + middle, np.float32), Illumination(share)


def _block_medians(
    small: NDArray[np.float32], within: NDArray[np.bool_]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the medians of blocks ``(h / 8, w / 8)``, and which lie entirely in the field."""
    rows, columns = (side // BLOCK for side in small.shape)

    def split(image: NDArray[Any]) -> NDArray[Any]:
        cut = image[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
        return cut.swapaxes(1, 2).reshape(rows, columns, BLOCK * BLOCK)

    medians: FloatArray = np.median(split(small), axis=2).astype(np.float64)
    return medians, np.asarray(split(within).all(axis=2))


def _polynomial_terms(shape: tuple[int, ...], degree: int) -> FloatArray:
    """Return the terms ``(h * w, terms)`` of a polynomial over blocks ``(h, w)``, from -1 to 1."""
    down, across = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    return np.stack(
        [(across**i * down**j).ravel() for i in range(degree + 1) for j in range(degree + 1 - i)],
        axis=1,
    )


def _resize_surface(surface: FloatArray, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize a surface over blocks ``(h, w)`` to the shape of an image.

    The blocks omit a few pixels at the end, so the surface is stretched by less than 2 %.
    """
    return np.asarray(
        cv2.resize(
            surface.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR
        ),
        np.float32,
    )


def _fit_best_surface(
    values: FloatArray,
    level: float,
    is_whole: NDArray[np.bool_],
    small: NDArray[np.float32],
    within: NDArray[np.bool_],
) -> tuple[int, FloatArray, float] | None:
    """Return the degree and weights of the best surface, and the contrast over it.

    None if the first surface explains hardly more than a single level.
    """
    fits: list[tuple[int, FloatArray, float, FloatArray]] = []
    for degree in DEGREES:
        all_terms = _polynomial_terms(is_whole.shape, degree)
        terms = all_terms[is_whole.ravel()]
        for quantile in QUANTILES:
            weights = _fit_surface(terms, values, quantile)
            surface = _resize_surface((all_terms @ weights).reshape(is_whole.shape), small.shape)
            apart = np.abs(small - surface)[within]
            contrast = float(np.percentile(apart, CONTRAST_PERCENTILE))
            departure = np.abs(values - terms @ weights)
            if not fits:
                explained = float((departure < NEAR * contrast).mean())
                flat = float((np.abs(values - level) < NEAR * contrast).mean())
                if flat > MAX_FLAT and explained - flat < MIN_GAIN / 2:
                    return None
            fits.append((degree, weights, contrast, departure))
    near = NEAR * min(contrast for _, _, contrast, _ in fits)
    best, best_share = fits[0][:3], -1.0
    for degree, weights, contrast, departure in fits:
        explained = float((departure < near).mean())
        if explained > best_share + MIN_BETTER:
            best, best_share = (degree, weights, contrast), explained
    return best


def _fit_surface(terms: FloatArray, values: FloatArray, quantile: float) -> FloatArray:
    """Return the weights ``(terms,)`` of a robust fit that starts from a quantile of the values."""
    usual = 1e-3 * float(np.ptp(values)) + 1e-12
    weight: FloatArray = np.ones(len(values))
    solved: FloatArray = np.zeros(terms.shape[1])
    for step in range(STEPS):
        scaled = terms * weight[:, None]
        solved = np.asarray(np.linalg.lstsq(scaled.T @ terms, scaled.T @ values, rcond=None)[0])
        apart = values - terms @ solved
        if step < FIRST_STEPS:
            weight = np.where(apart > 0, quantile, 1 - quantile) / np.maximum(np.abs(apart), usual)
        else:
            spread = 1.4826 * float(np.median(np.abs(apart))) + usual
            weight = np.clip(1 - (apart / (4 * spread)) ** 2, 0, None) ** 2
    return solved


def _mode(values: FloatArray) -> float:
    """Return the most frequent value, from a histogram of 64 bins."""
    counts, edges = np.histogram(values, bins=64)
    peak = int(np.argmax(np.convolve(counts, np.ones(3), mode="same")))
    near = (values >= edges[max(peak - 1, 0)]) & (values <= edges[min(peak + 2, 64)])
    return float(np.median(values[near]))


def _is_dark(departure: NDArray[np.float32]) -> bool:
    """Return whether the foreground is darker than the background."""
    low, high = (float(value) for value in np.percentile(departure, (0.5, 99.5)))
    return -low > high
