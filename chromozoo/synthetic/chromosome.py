"""Drawing of one human chromosome of known class, as in a microscope crop.

The ISCN bands give the signal along the arc length of a smooth, bent axis. Two chromatids, tubes
with rounded ends, thin stalks and a constriction at the centromere, lie along the axis. Each pixel
gets the signal of its place on the nearest point of the axis, and then the point spread function,
shot noise, read noise and quantisation are applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from chromozoo.classes import Stain
from chromozoo.errors import UnknownNameError
from chromozoo.karyotype.bands import STAINS, Band, bands_of

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Appearance:
    """Appearance of all chromosomes of one cell: stain, optics and contraction.

    Lengths are in pixels and intensities in grey values (0..255) unless stated otherwise.

    Attributes:
        stain: 'q' (bright on dark) or 'g' (dark on light).
        band_level: Resolution of the ISCN band table: 400, 550 or 850.
        length: Axis length of chromosome 1; other lengths are relative to it.
        width: Width of an arm over both chromatids.
        length_spread: Relative standard deviation of the length of a single chromosome.
        bend: Standard deviation of the total bend of the axis in radians.
        tilt: Standard deviation of a random angle in degrees.
        gap: Distance between the chromatids, from 0 (one solid tube) to 1 (they only touch).
        constriction: Width of the centromere relative to the arm, 0..1.
        amplitude: Signal of the darkest G-band (brightest ordinary Q-band).
        base: Signal of a pale band relative to ``amplitude``, 0..1.
        gain_spread: Relative standard deviation of the brightness of a single chromosome.
        band_spread: Standard deviation of the stain of a single band, in units of full contrast.
        regional: Share of the signal that neighbouring bands share, 0..1.
        slip: Standard deviation of the shift between the two chromatids in pixels.
        overlap: Probability of a bright segment, as left by a crossing chromosome.
        blur: Sigma of the Gaussian point spread function.
        cut: Level of the blurred outline along which the crop is cut out, as segmented crops are;
            0 keeps the whole field.
        noise: Standard deviation of the read noise.
        photons: Detected photons per grey value, which determine the shot noise.
        background: Grey value of the background.
    """

    stain: Stain = "q"
    band_level: int = 550
    length: float = 78.0
    width: float = 12.2
    length_spread: float = 0.06
    bend: float = 0.35
    tilt: float = 20.0
    gap: float = 0.8
    constriction: float = 0.6
    amplitude: float = 235.0
    base: float = 0.17
    gain_spread: float = 0.1
    band_spread: float = 0.1
    regional: float = 0.65
    slip: float = 0.6
    overlap: float = 0.06
    blur: float = 1.8
    cut: float = 0.05
    noise: float = 0.4
    photons: float = 60.0
    background: float = 0.0

    def __post_init__(self) -> None:
        if self.stain not in STAINS:
            raise UnknownNameError(f"unknown stain {self.stain!r}; use 'q' or 'g'")

    @classmethod
    def random(cls, rng: np.random.Generator, stain: Stain = "q") -> "Appearance":
        """Draw the appearance of one cell.

        The Q ranges were tuned to the medians of size, brightness and blur of each class in the
        BioImLab set; the G ranges were set by visual comparison with the Pki-3 set.

        Args:
            rng: Source of randomness.
            stain: 'q' or 'g'.

        Raises:
            UnknownNameError: The stain is unknown.
        """
        length = float(np.clip(78.0 * np.exp(rng.normal(0.0, 0.2)), 48.0, 130.0))
        # A shorter chromosome of the same chromatin is wider.
        width = 12.2 * (78.0 / length) ** 0.25 * float(np.exp(rng.normal(0.0, 0.07)))
        is_q = stain == "q"
        return cls(
            stain=stain,
            band_level=int(rng.choice([400, 550, 850], p=[0.6, 0.35, 0.05])),
            length=length,
            width=width,
            length_spread=rng.uniform(0.03, 0.09),
            bend=rng.uniform(0.1, 0.6),
            tilt=rng.uniform(10.0, 35.0),
            gap=rng.uniform(0.5, 1.0),
            constriction=rng.uniform(0.4, 0.75),
            amplitude=float(np.clip(235.0 * np.exp(rng.normal(0.0, 0.23)), 110.0, 420.0))
            if is_q
            else rng.uniform(220.0, 310.0),
            base=rng.uniform(0.1, 0.24) if is_q else rng.uniform(0.28, 0.45),
            gain_spread=rng.uniform(0.03, 0.12),
            band_spread=rng.uniform(0.04, 0.15),
            regional=rng.uniform(0.5, 0.75) if is_q else rng.uniform(0.0, 0.35),
            slip=rng.uniform(0.2, 1.0),
            overlap=rng.uniform(0.0, 0.12) if is_q else 0.0,
            blur=rng.uniform(1.3, 2.1) if is_q else rng.uniform(0.7, 1.3),
            cut=rng.uniform(0.02, 0.2) if rng.random() < 0.9 else 0.0,
            noise=rng.uniform(0.1, 0.8) if is_q else rng.uniform(0.5, 4.0),
            photons=float(np.exp(rng.uniform(np.log(15.0), np.log(200.0)))),
            background=float(
                np.clip(rng.uniform(-2, 2) if is_q else rng.uniform(225, 285), 0, 255)
            ),
        )


@dataclass(frozen=True, eq=False)
class SyntheticChromosome:
    """A drawn chromosome with its ground truth.

    Attributes:
        image: uint8 (H, W).
        mask: bool (H, W), the chromosome before the blur.
        label: Class, '1'..'22', 'X' or 'Y'.
        angle: Degrees, counter-clockwise; 0 = long axis vertical with the p arm up.
        axis: float32 (N, 2), x and y of the medial axis from the p to the q telomere.
        centromere: x and y of the centromere.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    label: str
    angle: float
    axis: FloatArray
    centromere: tuple[float, float]

    @property
    def polarity(self) -> str:
        """Arm that is up in the image: 'p' or 'q'."""
        return "p" if np.cos(np.radians(self.angle)) >= 0 else "q"


def draw_chromosome(
    name: str,
    appearance: Appearance,
    rng: np.random.Generator,
    *,
    angle: float | None = None,
) -> SyntheticChromosome:
    """Draw a normal chromosome.

    Args:
        name: Class, '1'..'22', 'X' or 'Y'.
        appearance: Appearance of its cell.
        rng: Source of randomness for bend, brightness, polymorphisms and noise.
        angle: Degrees, counter-clockwise, 0 = p arm up. None draws one by ``appearance.tilt``.

    Raises:
        UnknownNameError: ``name`` is not a class.
    """
    bands = bands_of(name, appearance.band_level)
    return draw_bands(bands, name, appearance, rng, angle=angle)


def draw_bands(
    bands: Sequence[Band],
    label: str,
    appearance: Appearance,
    rng: np.random.Generator,
    *,
    angle: float | None = None,
) -> SyntheticChromosome:
    """Draw a chromosome with these bands, which may come from several classes.

    Args:
        bands: Bands from the p to the q telomere, with one centromere.
        label: Class of the result.
        appearance: Appearance of its cell.
        rng: Source of randomness.
        angle: See :func:`draw_chromosome`.

    Raises:
        ValueError: The bands have no centromere.
    """
    if not any(band.kind == "acen" for band in bands):
        raise ValueError(f"the bands of {label!r} have no centromere; include one of kind 'acen'")
    if angle is None:
        angle = rng.normal(0.0, appearance.tilt)
    length = _relative_length(bands) * appearance.length
    length = max(8.0, length * float(np.exp(rng.normal(0.0, appearance.length_spread))))
    count = max(16, round(length)) + 1
    place = np.linspace(0.0, 1.0, count, dtype=np.float32)

    signal, offset, radius, centromere = _draw_profiles(bands, place, length, appearance, rng)
    axis = _draw_axis(place, length, centromere, angle, appearance, rng)
    margin = 0.5 * appearance.width + 2.0 * appearance.blur + rng.uniform(1.0, 6.0)
    low = np.floor(axis.min(axis=0) - margin)
    axis -= low
    width, height = (int(size) for size in np.ceil(axis.max(axis=0) + margin) + 1)

    slip = rng.normal(0.0, appearance.slip)
    shape, brightness = _rasterise(axis, signal, offset, radius, slip, height, width)
    optical = np.asarray(cv2.GaussianBlur(shape * brightness, (0, 0), appearance.blur), np.float32)
    # Staining is uneven, so a slowly varying gain is applied.
    uneven = rng.normal(1.0, 0.06, (3, 3)).astype(np.float32)
    optical = optical * np.asarray(cv2.resize(uneven, (width, height)), np.float32)
    if appearance.cut > 0:
        optical[cv2.GaussianBlur(shape, (0, 0), appearance.blur) < appearance.cut] = np.nan
    image = _expose(optical, appearance, rng)
    x, y = (float(np.interp(centromere, place, axis[:, k])) for k in (0, 1))
    return SyntheticChromosome(image, shape > 0, label, float(angle), axis, (x, y))


def _relative_length(bands: Sequence[Band]) -> float:
    """Return the length relative to chromosome 1: the mean of the physical and the ISCN length.

    Compared with the median lengths of the 24 classes in the BioImLab training cells (less 5 pixels
    of blurred ends), its mean error is 0.012; that of either length alone is 0.015.
    """
    megabases, units = _extent(bands)
    megabases_1, units_1 = _chromosome_1_extent()
    return 0.5 * (megabases / megabases_1 + units / units_1)


def _extent(bands: Sequence[Band]) -> tuple[float, float]:
    """Return the length of the bands in megabases and in units of the ISCN ideogram."""
    return sum(band.megabases for band in bands), sum(band.stop - band.start for band in bands)


@cache
def _chromosome_1_extent() -> tuple[float, float]:
    return _extent(bands_of("1"))


def _draw_profiles(
    bands: Sequence[Band],
    place: FloatArray,
    length: float,
    appearance: Appearance,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Return signal, chromatid offset and chromatid radius along the axis, and the centromere."""
    # Cumulative widths, because a rearranged chromosome has bands of several tables.
    edges = np.cumsum([0.0] + [band.stop - band.start for band in bands])
    edges /= edges[-1]
    centromere = float(np.mean([edges[k : k + 2] for k, b in enumerate(bands) if b.kind == "acen"]))

    stain = np.array([b.fluorescence if appearance.stain == "q" else b.density for b in bands])
    # Heterochromatin differs between individuals and between homologues.
    variable = np.array([b.kind in ("gvar", "acen") for b in bands])
    level = np.where(
        variable,
        stain * rng.uniform(0.2, 1.5, len(bands)),
        stain + rng.normal(0.0, appearance.band_spread, len(bands)),
    )

    # The average of 4 samples per pixel keeps narrow bands from being missed.
    fine = (np.arange(4 * len(place)) + 0.5) / (4 * len(place))
    which = np.searchsorted(edges[1:-1], fine)
    density = level[which].reshape(len(place), 4).mean(axis=1)
    # Regions rich in pale bands are pale as a whole (isochores), so part of the signal is regional.
    regional = gaussian_filter1d(density, 0.08 * appearance.length, mode="nearest")
    density = (1.0 - appearance.regional) * density + appearance.regional * regional
    gain = appearance.amplitude * float(np.exp(rng.normal(0.0, appearance.gain_spread)))
    signal = gain * (appearance.base + (1.0 - appearance.base) * density)
    if rng.random() < appearance.overlap:
        centre, half = rng.random(), rng.uniform(3.0, 8.0) / length
        signal *= np.where(np.abs(place - centre) < half, rng.uniform(1.4, 2.2), 1.0)

    # Two chromatids of radius r at +-d from the axis: r + d is half the arm width, d / r the gap.
    half_width = 0.5 * appearance.width * float(np.exp(rng.normal(0.0, 0.05)))
    gap = float(np.clip(appearance.gap + rng.normal(0.0, 0.12), 0.1, 1.05))
    distance = np.abs(place - centromere) * length
    waist = np.exp(-0.5 * (distance / (0.25 * appearance.width)) ** 2)
    scale = 1.0 - (1.0 - appearance.constriction) * waist
    stalk = np.array([b.kind == "stalk" for b in bands])
    satellite = stalk.any() & np.array([b.kind == "gvar" and b.arm == "p" for b in bands])
    thin = np.where(stalk, 0.6, np.where(satellite, 0.8, 1.0))
    slow = np.interp(place, np.linspace(0, 1, 6), rng.normal(1.0, 0.05, 6))
    scale *= slow * gaussian_filter1d(thin[which].reshape(len(place), 4).mean(axis=1), 0.8)
    # Only at the centromere does cohesion hold the chromatids together.
    gap_here = gap * (1.0 - 0.8 * waist)
    radius = half_width * scale / (1.0 + gap_here)
    offset = radius * gap_here
    end = np.minimum(place, 1.0 - place) * length
    # The ends are blunter than a half circle.
    cap = np.maximum(0.7 * radius, 1.0)
    radius = radius * np.sqrt(np.clip(1.0 - np.clip(1.0 - end / cap, 0.0, 1.0) ** 2, 0.0, 1.0))
    return (
        signal.astype(np.float32),
        offset.astype(np.float32),
        np.maximum(radius, 1e-3).astype(np.float32),
        float(centromere),
    )


def _draw_axis(
    place: FloatArray,
    length: float,
    centromere: float,
    angle: float,
    appearance: Appearance,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the medial axis (N, 2) around 0: an arc, an S and a kink at the centromere."""
    # A short chromosome is as stiff as a long one, so it bends less over its length.
    bend = appearance.bend * float(np.clip(length / 45.0, 0.35, 1.6))
    if rng.random() < 0.1:  # some chromosomes are folded
        bend *= 2.5
    arc, wave, kink = rng.normal(0.0, (0.6 * bend, 0.12 * bend, 0.8 * bend))
    turn = arc * (place - 0.5) + wave * np.sin(2.0 * np.pi * place)
    turn += kink * 0.5 * np.tanh((place - centromere) * length / 2.5)
    turn -= turn.mean()
    heading = turn + np.radians(angle)
    # Heading 0 runs down the image; a counter-clockwise rotation moves the q arm right.
    step = np.stack([np.sin(heading), np.cos(heading)], axis=1) * (length / (len(place) - 1))
    path = np.cumsum(step, axis=0)
    centred: FloatArray = (path - path.mean(axis=0)).astype(np.float32)
    return centred


def _rasterise(
    axis: FloatArray,
    signal: FloatArray,
    offset: FloatArray,
    radius: FloatArray,
    slip: float,
    height: int,
    width: int,
) -> tuple[FloatArray, FloatArray]:
    """Return thickness (0..1) and signal (H, W) of each pixel, from its nearest axis point."""
    tangent = np.gradient(axis, axis=0)
    step = np.linalg.norm(tangent, axis=1, keepdims=True)
    tangent /= np.maximum(step, 1e-6)
    ys, xs = np.mgrid[0:height, 0:width]
    pixels = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float32)
    # |p - a|^2 without the term that does not depend on a is one matrix product.
    nearest = np.argmin((axis**2).sum(axis=1) - 2.0 * (pixels @ axis.T), axis=1)
    delta = pixels - axis[nearest]
    along = (delta * tangent[nearest]).sum(axis=1)
    across = delta[:, 0] * tangent[nearest, 1] - delta[:, 1] * tangent[nearest, 0]
    # Interpolating between axis points avoids steps at bends.
    spacing = float(step.mean())
    u = np.clip(nearest + along / spacing, 0.0, len(axis) - 1.0)
    grid = np.arange(len(axis), dtype=np.float32)
    d, r = (np.interp(u, grid, profile) for profile in (offset, radius))
    s = np.interp(u + slip * np.sign(across), grid, signal)
    inside = np.abs(along) <= 0.5 * spacing + 1.0
    thickness = np.clip(1.0 - ((np.abs(across) - d) / r) ** 2, 0.0, 1.0) ** 0.4 * inside
    return (
        thickness.reshape(height, width).astype(np.float32),
        s.reshape(height, width).astype(np.float32),
    )


def _expose(
    optical: FloatArray, appearance: Appearance, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Add shot noise, read noise and background, and quantise to 8 bits; NaN is background."""
    noise = rng.standard_normal(optical.shape, dtype=np.float32)
    noise *= np.sqrt(np.maximum(optical, 0.0) / appearance.photons + appearance.noise**2)
    signal = optical + noise
    signal[np.isnan(signal)] = 0.0
    level = appearance.background + (signal if appearance.stain == "q" else -signal)
    exposed: npt.NDArray[np.uint8] = np.clip(np.rint(level), 0, 255).astype(np.uint8)
    return exposed
