"""Cut-and-paste synthesis of metaphases from real chromosomes, after Xie et al. 2019.

"Statistical karyotype analysis using CNN and geometric optimization", IEEE Access 7, section III.A,
itself after Dwibedi et al. 2017 ("Cut, paste and learn"): single chromosomes are pasted onto
backgrounds, with distractors, and the seams are blended by Gaussian, motion or box blur.

Differences from the paper: chromosomes are cut from annotated metaphases instead of karyograms, so
their outlines are those of the annotators; they are pasted at all angles; contacts and crossings
are created on purpose, whereas Xie et al. avoid them; and the light of crossing fluorescent
chromosomes adds up.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ChromozooError
from chromozoo.structures.metaphase import Metaphase
from chromozoo.structures.polygons import polygon_mask
from chromozoo.synthetic.backgrounds import (
    BRIGHT_GROUND,
    add_distractor,
    draw_background,
    remove_chromosomes,
)
from chromozoo.synthetic.pasting import (
    GROUND,
    MARGIN,
    CutChromosome,
    Patch,
    disc,
    paste,
    place_free,
    place_touching,
    transform_chromosome,
)

__all__ = [
    "RADIUS",
    "Bank",
    "CutChromosome",
    "compose",
    "compose_cell",
    "compose_metaphases",
    "cut_bank",
]

# Minimum area of a chromosome in pixels.
MIN_AREA = 30
# In fluorescence the light of crossing chromosomes adds up until the camera saturates; some cameras
# and programs limit it. The repetitions make addition the most frequent choice.
LIGHTS = ("add", "add", "add", "add", "max", "over")
# Semi-axes of the ellipse of a cell in pixels. The training images of BioImLab have 145 to 330
# (twice the standard deviation of the centres of their chromosomes).
RADIUS = (170.0, 280.0)


@dataclass(frozen=True, eq=False)
class Bank:
    """Chromosomes and backgrounds from which metaphases are composed.

    Attributes:
        chromosomes: Free chromosomes, which overlap no other and lie within their image.
        backgrounds: ``(H, W)`` uint8 signal images without chromosomes; nuclei and debris remain.
    """

    chromosomes: list[CutChromosome]
    backgrounds: list[NDArray[np.uint8]]


def cut_bank(
    metaphases: Iterable[tuple[NDArray[np.uint8], Sequence[NDArray[np.float64]]]],
    backgrounds: int = 20,
) -> Bank:
    """Cut the free chromosomes out of training images, and keep the first backgrounds.

    Args:
        metaphases: Signal image ``(H, W)`` uint8 and outlines of its chromosomes.
        backgrounds: Number of backgrounds (Xie et al.: 20).
    """
    chromosomes: list[CutChromosome] = []
    empty: list[NDArray[np.uint8]] = []
    for cell, (signal, polygons) in enumerate(metaphases):
        counts = np.zeros(signal.shape, np.uint8)
        masks = [polygon_mask(polygon, *signal.shape) for polygon in polygons]
        for mask in masks:
            counts += mask
        free = []
        for polygon, mask in zip(polygons, masks, strict=True):
            left, top = (int(v) for v in np.floor(polygon.min(axis=0)) - MARGIN)
            right, bottom = (int(v) for v in np.ceil(polygon.max(axis=0)) + MARGIN)
            if min(left, top) < 0 or right > signal.shape[1] or bottom > signal.shape[0]:
                continue
            window = np.s_[top:bottom, left:right]
            own = mask[window].astype(np.uint8)
            around = cv2.dilate(own, disc(MARGIN)) > 0
            if own.sum() >= MIN_AREA and not (counts[window] > own)[around].any():
                free.append((signal[window].copy(), polygon - (left, top), signal[window][own > 0]))
        if free:
            level = float(np.median(np.concatenate([inside for *_, inside in free])))
            chromosomes += [
                CutChromosome(patch, polygon, cell, level) for patch, polygon, _ in free
            ]
        if len(empty) < backgrounds:
            empty.append(remove_chromosomes(signal, counts > 0))
    return Bank(chromosomes, empty)


def compose(
    rng: np.random.Generator,
    bank: Bank,
    height: int,
    width: int,
    chromosomes: int = 46,
    overlap: float = 0.4,
    radius: tuple[float, float] = RADIUS,
    scale: tuple[float, float] = (0.85, 1.18),
    distractors: tuple[int, int] = (2, 6),
    lights: Sequence[str] = LIGHTS,
    whole: bool = True,
) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]]]:
    """Compose one metaphase, or the part of one that a crop shows.

    Args:
        rng: Source of randomness.
        bank: Chromosomes to paste; without backgrounds the ground is dark with little noise.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        chromosomes: Number of chromosomes of the cell.
        overlap: Share of the chromosomes that are pasted across or in contact with another, 0..1.
        radius: Minimum and maximum semi-axis of the ellipse of the cell.
        scale: Minimum and maximum magnification; one is drawn for the cell.
        distractors: Minimum and maximum number in an image of 768x576; a crop has its share.
        lights: Rules for the light of crossing chromosomes, of which one is drawn: ``"add"``,
            ``"max"`` or ``"over"`` (the later chromosome hides the earlier).
        whole: Whether the image shows the whole cell. Otherwise it is a crop of the cell, and
            chromosomes may reach out of it.

    Returns:
        Signal image ``(height, width)`` uint8, and the amodal outlines ``(K, 2)`` of the
        chromosomes, some of which may lie mostly outside of a crop. Chromosomes that do not fit
        are left out.
    """
    signal, placed = _compose_patches(
        rng,
        bank,
        height,
        width,
        chromosomes=chromosomes,
        overlap=overlap,
        radius=radius,
        scale=scale,
        distractors=distractors,
        lights=lights,
        whole=whole,
    )
    return signal, [patch.polygon + patch.corner for patch in placed]


def compose_cell(
    rng: np.random.Generator,
    chromosomes: Sequence[CutChromosome],
    height: int = 576,
    width: int = 768,
    overlap: float = 0.4,
    radius: tuple[float, float] = RADIUS,
) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]], list[int]]:
    """Compose one metaphase of exactly these chromosomes, on a dark ground without distractors.

    Args:
        rng: Source of randomness.
        chromosomes: Chromosomes to paste.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        overlap: See :func:`compose`.
        radius: See :func:`compose`.

    Returns:
        Signal image and outlines as :func:`compose`, and the index of each outline's chromosome.

    Raises:
        ChromozooError: One of them does not fit.
    """
    signal, placed = _compose_patches(
        rng,
        Bank(list(chromosomes), []),
        height,
        width,
        chromosomes=len(chromosomes),
        overlap=overlap,
        radius=radius,
        scale=(1.0, 1.0),
        distractors=(0, 0),
        lights=("add",),
        whole=True,
    )
    if len(placed) < len(chromosomes):
        raise ChromozooError(
            f"{width}x{height} pixels have no room for {len(chromosomes)} chromosomes: enlarge the "
            "image, or allow more overlap"
        )
    return (
        signal,
        [patch.polygon + patch.corner for patch in placed],
        [patch.number for patch in placed],
    )


def _compose_patches(
    rng: np.random.Generator,
    bank: Bank,
    height: int,
    width: int,
    *,
    chromosomes: int,
    overlap: float,
    radius: tuple[float, float],
    scale: tuple[float, float],
    distractors: tuple[int, int],
    lights: Sequence[str],
    whole: bool,
) -> tuple[NDArray[np.uint8], list[Patch]]:
    """Compose a metaphase; return its signal image and the placed patches."""
    canvas = draw_background(rng, bank.backgrounds, height, width)
    share = height * width / (576 * 768)
    min_count, max_count = distractors
    for _ in range(rng.binomial(rng.integers(min_count, max_count + 1), min(share, 1.0))):
        add_distractor(rng, canvas, bank.chromosomes)
    # Magnification, extent, middle and exposure of the cell.
    cell_scale = rng.uniform(*scale)
    axes = rng.uniform(*radius, size=2)
    size = np.array([width, height])
    if whole:
        axes = np.minimum(axes, size / 2)
        middle = size / 2 + rng.uniform(-1, 1, 2) * (size / 2 - axes)
    else:
        # The crop may lie anywhere in the cell, as a crop of a real image.
        middle = size / 2 + _random_disc_point(rng) * axes
    light = str(rng.choice(list(lights)))
    occupied = np.where(canvas > BRIGHT_GROUND, GROUND, np.uint8(0))
    placed: list[Patch] = []
    cells = sorted({chromosome.cell for chromosome in bank.chromosomes})
    sources = set(rng.choice(cells, size=min(len(cells), int(rng.integers(1, 4))), replace=False))
    pool = [chromosome for chromosome in bank.chromosomes if chromosome.cell in sources]
    level = pool[rng.integers(len(pool))].level * rng.uniform(0.85, 1.15)
    for number in rng.choice(len(pool), size=chromosomes, replace=len(pool) < chromosomes):
        place = middle + _random_disc_point(rng) * axes
        is_touching = bool(placed) and rng.random() < overlap
        seed = int(rng.integers(2**63))
        # A chromosome outside a crop is skipped; its own seed keeps the draws of the others.
        reach = max(pool[number].signal.shape) * cell_scale / 2
        if not whole and ((place < -reach) | (place > size + reach)).any():
            continue
        own_rng = np.random.default_rng(seed)
        patch = transform_chromosome(own_rng, pool[number], cell_scale, level, light == "over")
        is_placed = (
            place_touching(own_rng, patch, placed, occupied, place, whole) if is_touching else False
        )
        if is_placed or place_free(own_rng, patch, occupied, place, whole):
            paste(canvas, occupied, patch, light)
            patch.number = int(number)
            placed.append(patch)
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8), placed


def compose_metaphases(
    bank: Bank, count: int, seed: int = 0, chromosomes: int = 46, overlap: float = 0.4
) -> Iterator[Metaphase]:
    """Compose whole metaphases of 768x576 pixels, each reproducible from the seed and its number.

    Args:
        bank: Output of :func:`cut_bank`.
        count: Number of metaphases.
        seed: Seed of the randomness.
        chromosomes: Chromosomes of each metaphase; those that do not fit are left out.
        overlap: Share of them that cross or touch another.
    """
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        signal, polygons = compose(rng, bank, 576, 768, chromosomes=chromosomes, overlap=overlap)
        yield Metaphase(
            f"synthetic_{number + 1:05d}",
            signal.astype(np.float32),
            polygons,
            ["chromosome"] * len(polygons),
            "composed",
            [f"chromosome {k}" for k in range(len(polygons))],
        )


def _random_disc_point(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random point of the unit disc."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)]) * float(np.sqrt(rng.random()))
