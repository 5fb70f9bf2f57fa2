"""Draw one human chromosome of known class, as a microscope crop would show it.

The model: the ISCN bands give a signal along the arc length; a smooth, bent axis carries two
chromatids (tubes with rounded ends, thin stalks and a constriction at the centromere); every pixel
looks up its place (u along, v across) on the nearest point of the axis; then come the point spread
function, shot noise, read noise and quantisation.
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
    """What all chromosomes of one cell share: stain, optics and contraction.

    Lengths are pixels, intensities are grey values (0..255) unless said otherwise.

    Attributes:
        stain: 'q' (bright on dark) or 'g' (dark on light).
        band_level: ISCN table that is drawn: 400, 550 or 850.
        length: Axis length of chromosome 1; the others follow by their physical length.
        width: Width of an arm over both chromatids.
        length_spread: Relative standard deviation of the length of a single chromosome.
        bend: Standard deviation of the total turn of the axis in radians.
        tilt: Standard deviation of the angle in degrees when none is asked for.
        gap: Distance between the chromatids, 0 (one solid tube) .. 1 (they only touch).
        constriction: Width of the centromere relative to the arm, 0..1.
        amplitude: Signal of the darkest G band (brightest ordinary Q band).
        base: Signal of a pale band relative to ``amplitude``, 0..1.
        gain_spread: Relative standard deviation of the brightness of a single chromosome.
        band_spread: Standard deviation of the stain of a single band, in units of full contrast.
        regional: Share of the signal that neighbouring bands have in common, 0..1.
        slip: Standard deviation of the shift between the two chromatids in pixels.
        overlap: Probability that a piece is bright where another chromosome lay across.
        blur: Sigma of the Gaussian point spread function.
        cut: The crop is cut out along this level of the blurred outline, as a segmented crop is;
            0 keeps the whole field.
        noise: Standard deviation of the read noise.
        photons: Detected photons per grey value; fewer give more shot noise.
        background: Grey value without chromosome.
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
            raise UnknownNameError(f"stain {self.stain!r}: choose 'q' or 'g'.")

    @classmethod
    def random(cls, rng: np.random.Generator, stain: Stain = "q") -> "Appearance":
        """Draw the look of one cell.

        The Q ranges were tuned until size, brightness and blur had about the medians of each class
        in the BioImLab set; the G ranges were only set by eye, beside the Pki-3 set.

        Args:
            rng: Source of randomness.
            stain: 'q' or 'g'.

        Raises:
            UnknownNameError: There is no such stain.
        """
        length = float(np.clip(78.0 * np.exp(rng.normal(0.0, 0.2)), 48.0, 130.0))
        # The same chromatin in a shorter chromosome is wider.
        width = 12.2 * (78.0 / length) ** 0.25 * float(np.exp(rng.normal(0.0, 0.07)))
        dark = stain == "q"
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
            if dark
            else rng.uniform(220.0, 310.0),
            base=rng.uniform(0.1, 0.24) if dark else rng.uniform(0.28, 0.45),
            gain_spread=rng.uniform(0.03, 0.12),
            band_spread=rng.uniform(0.04, 0.15),
            regional=rng.uniform(0.5, 0.75) if dark else rng.uniform(0.0, 0.35),
            slip=rng.uniform(0.2, 1.0),
            overlap=rng.uniform(0.0, 0.12) if dark else 0.0,
            blur=rng.uniform(1.3, 2.1) if dark else rng.uniform(0.7, 1.3),
            cut=rng.uniform(0.02, 0.2) if rng.random() < 0.9 else 0.0,
            noise=rng.uniform(0.1, 0.8) if dark else rng.uniform(0.5, 4.0),
            photons=float(np.exp(rng.uniform(np.log(15.0), np.log(200.0)))),
            background=float(
                np.clip(rng.uniform(-2, 2) if dark else rng.uniform(225, 285), 0, 255)
            ),
        )


@dataclass(frozen=True, eq=False)
class SyntheticChromosome:
    """A drawn chromosome and all that is known about it.

    Attributes:
        image: uint8 (H, W).
        mask: bool (H, W), the chromosome before blur.
        label: Class, '1'..'22', 'X' or 'Y'.
        angle: Degrees, counter-clockwise as seen; 0 = long axis vertical with the p arm up.
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
        """The arm that is up in the image: 'p' or 'q'."""
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
        appearance: Look of its cell.
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
    """Draw a chromosome made of these bands: the core of `draw_chromosome`.

    Args:
        bands: From the p to the q telomere, of one or several classes, with one centromere.
        label: Class that the result carries.
        appearance: Look of its cell.
        rng: Source of randomness.
        angle: As in `draw_chromosome`.

    Raises:
        ValueError: There is no centromere among ``bands``.
    """
    if not any(band.kind == "acen" for band in bands):
        raise ValueError(f"the bands given for {label!r} hold no centromere (kind 'acen').")
    look = appearance
    if angle is None:
        angle = rng.normal(0.0, look.tilt)
    length = _relative_length(bands) * look.length
    length = max(8.0, length * float(np.exp(rng.normal(0.0, look.length_spread))))
    count = max(16, round(length)) + 1
    place = np.linspace(0.0, 1.0, count, dtype=np.float32)

    signal, offset, radius, centromere = _profiles(bands, place, length, look, rng)
    axis = _axis(place, length, centromere, angle, look, rng)
    margin = 0.5 * look.width + 2.0 * look.blur + rng.uniform(1.0, 6.0)
    low = np.floor(axis.min(axis=0) - margin)
    axis -= low
    width, height = (int(size) for size in np.ceil(axis.max(axis=0) + margin) + 1)

    slip = rng.normal(0.0, look.slip)
    shape, brightness = _rasterise(axis, signal, offset, radius, slip, height, width)
    optical = np.asarray(cv2.GaussianBlur(shape * brightness, (0, 0), look.blur), np.float32)
    # The stain never lies evenly: a slow gain over the crop.
    uneven = rng.normal(1.0, 0.06, (3, 3)).astype(np.float32)
    optical = optical * np.asarray(cv2.resize(uneven, (width, height)), np.float32)
    if look.cut > 0:
        optical[cv2.GaussianBlur(shape, (0, 0), look.blur) < look.cut] = np.nan
    image = _expose(optical, look, rng)
    x, y = (float(np.interp(centromere, place, axis[:, k])) for k in (0, 1))
    return SyntheticChromosome(image, shape > 0, label, float(angle), axis, (x, y))


def _relative_length(bands: Sequence[Band]) -> float:
    """Length relative to chromosome 1.

    Mean of physical and ISCN length: against the median lengths of the 24 classes in the BioImLab
    training cells (less 5 pixels of blurred ends) its mean error, 0.012, is smaller than that of
    the physical or the ISCN length alone, 0.015 each.
    """
    megabases, units = _extent(bands)
    megabases_1, units_1 = _extent_of_chromosome_1()
    return 0.5 * (megabases / megabases_1 + units / units_1)


def _extent(bands: Sequence[Band]) -> tuple[float, float]:
    return sum(band.megabases for band in bands), sum(band.stop - band.start for band in bands)


@cache
def _extent_of_chromosome_1() -> tuple[float, float]:
    return _extent(bands_of("1"))


def _profiles(
    bands: Sequence[Band],
    place: FloatArray,
    length: float,
    look: Appearance,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Signal, chromatid offset and chromatid radius along the axis, and the centromere (0..1)."""
    # Widths, not the table's own coordinates: a rearranged chromosome lists bands of several.
    edges = np.cumsum([0.0] + [band.stop - band.start for band in bands])
    edges /= edges[-1]
    centromere = float(np.mean([edges[k : k + 2] for k, b in enumerate(bands) if b.kind == "acen"]))

    stain = np.array([b.fluorescence if look.stain == "q" else b.density for b in bands])
    # Heterochromatin differs between people and between homologues.
    variable = np.array([b.kind in ("gvar", "acen") for b in bands])
    level = np.where(
        variable,
        stain * rng.uniform(0.2, 1.5, len(bands)),
        stain + rng.normal(0.0, look.band_spread, len(bands)),
    )

    # Average within each sample: at one sample per pixel a narrow band would else be hit or missed.
    fine = (np.arange(4 * len(place)) + 0.5) / (4 * len(place))
    which = np.searchsorted(edges[1:-1], fine)
    density = level[which].reshape(len(place), 4).mean(axis=1)
    # Regions rich in pale bands are pale as a whole (isochores): a part of the signal is regional.
    regional = gaussian_filter1d(density, 0.08 * look.length, mode="nearest")
    density = (1.0 - look.regional) * density + look.regional * regional
    gain = look.amplitude * float(np.exp(rng.normal(0.0, look.gain_spread)))
    signal = gain * (look.base + (1.0 - look.base) * density)
    if rng.random() < look.overlap:
        centre, half = rng.random(), rng.uniform(3.0, 8.0) / length
        signal *= np.where(np.abs(place - centre) < half, rng.uniform(1.4, 2.2), 1.0)

    # Two chromatids of radius r at +-d from the axis: r + d is half the arm width, d / r the gap.
    half_width = 0.5 * look.width * float(np.exp(rng.normal(0.0, 0.05)))
    gap = float(np.clip(look.gap + rng.normal(0.0, 0.12), 0.1, 1.05))
    distance = np.abs(place - centromere) * length
    waist = np.exp(-0.5 * (distance / (0.25 * look.width)) ** 2)
    scale = 1.0 - (1.0 - look.constriction) * waist
    stalk = np.array([b.kind == "stalk" for b in bands])
    satellite = stalk.any() & np.array([b.kind == "gvar" and b.arm == "p" for b in bands])
    thin = np.where(stalk, 0.6, np.where(satellite, 0.8, 1.0))
    slow = np.interp(place, np.linspace(0, 1, 6), rng.normal(1.0, 0.05, 6))
    scale *= slow * gaussian_filter1d(thin[which].reshape(len(place), 4).mean(axis=1), 0.8)
    # Cohesion holds the chromatids together at the centromere only.
    gap_here = gap * (1.0 - 0.8 * waist)
    radius = half_width * scale / (1.0 + gap_here)
    offset = radius * gap_here
    end = np.minimum(place, 1.0 - place) * length
    # Blunter than a half circle.
    cap = np.maximum(0.7 * radius, 1.0)
    radius = radius * np.sqrt(np.clip(1.0 - np.clip(1.0 - end / cap, 0.0, 1.0) ** 2, 0.0, 1.0))
    return (
        signal.astype(np.float32),
        offset.astype(np.float32),
        np.maximum(radius, 1e-3).astype(np.float32),
        float(centromere),
    )


def _axis(
    place: FloatArray,
    length: float,
    centromere: float,
    angle: float,
    look: Appearance,
    rng: np.random.Generator,
) -> FloatArray:
    """Medial axis, (N, 2) x and y around 0: an arc, an S and a kink at the centromere."""
    # A short chromosome is as stiff as a long one, so it turns less over its length.
    bend = look.bend * float(np.clip(length / 45.0, 0.35, 1.6))
    if rng.random() < 0.1:  # now and then one is folded over
        bend *= 2.5
    arc, wave, kink = rng.normal(0.0, (0.6 * bend, 0.12 * bend, 0.8 * bend))
    turn = arc * (place - 0.5) + wave * np.sin(2.0 * np.pi * place)
    turn += kink * 0.5 * np.tanh((place - centromere) * length / 2.5)
    turn -= turn.mean()
    heading = turn + np.radians(angle)
    # Heading 0 runs down the image; a counter-clockwise turn of the p arm moves the q arm right.
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
    """Thickness (0..1) and signal of every pixel, both (H, W), by its nearest axis point."""
    tangent = np.gradient(axis, axis=0)
    step = np.linalg.norm(tangent, axis=1, keepdims=True)
    tangent /= np.maximum(step, 1e-6)
    ys, xs = np.mgrid[0:height, 0:width]
    pixels = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float32)
    # |p - a|^2 without the term that does not depend on a: one matrix product.
    nearest = np.argmin((axis**2).sum(axis=1) - 2.0 * (pixels @ axis.T), axis=1)
    delta = pixels - axis[nearest]
    along = (delta * tangent[nearest]).sum(axis=1)
    across = delta[:, 0] * tangent[nearest, 1] - delta[:, 1] * tangent[nearest, 0]
    # Between two axis points the profiles are interpolated, else bends show steps.
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
    optical: FloatArray, look: Appearance, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Camera: shot noise, read noise, background, 8 bits. NaN is cut away: bare background."""
    noise = rng.standard_normal(optical.shape, dtype=np.float32)
    noise *= np.sqrt(np.maximum(optical, 0.0) / look.photons + look.noise**2)
    signal = optical + noise
    signal[np.isnan(signal)] = 0.0
    level = look.background + (signal if look.stain == "q" else -signal)
    exposed: npt.NDArray[np.uint8] = np.clip(np.rint(level), 0, 255).astype(np.uint8)
    return exposed
