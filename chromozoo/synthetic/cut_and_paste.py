"""Cut-and-paste synthesis: new metaphases of real chromosomes, after Xie et al. 2019.

"Statistical karyotype analysis using CNN and geometric optimization", IEEE Access 7, section
III.A, itself after Dwibedi et al. 2017 ("Cut, paste and learn"): single chromosomes are pasted
onto backgrounds, with distractors, and the seams are blended by Gaussian, motion or box blur.

What differs: the chromosomes are cut from annotated metaphases and not from karyograms, so their
outlines are those of the annotators; they are pasted at every angle; contacts and crossings are
made on purpose, where Xie et al. avoid them; and where fluorescent chromosomes cross, light adds.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ChromozooError
from chromozoo.structures.metaphase import Metaphase
from chromozoo.structures.polygons import polygon_mask

# Light of a chromosome reaches this far beyond its outline.
RIM = 3
MARGIN = 2 * RIM
MIN_AREA = 30
BLENDINGS = ("gaussian", "motion", "box")
# Light adds in fluorescence, until the camera saturates; cameras and software also cut it off.
LIGHTS = ("add", "add", "add", "add", "max", "over")
TRIES = 12
# Of the ellipse of a cell in pixels; the training images of BioImLab have 145 to 330 (twice the
# spread of the middles of their chromosomes).
RADIUS = (170.0, 280.0)
# Ground brighter than this is a nucleus or debris. Chromosomes lie beside such, hardly ever on it.
BRIGHT_GROUND = 50
CHROMOSOME, GROUND = np.uint8(1), np.uint8(2)


@dataclass(frozen=True, eq=False)
class CutChromosome:
    """A chromosome cut out of a metaphase, or drawn.

    Attributes:
        signal: ``(h, w)`` uint8 signal image, with a margin.
        polygon: Outline ``(K, 2)`` in pixels of ``signal``.
        cell: Of the metaphase it comes from: those of one cell are alike in contraction and stain.
        level: Median signal of the cell's free chromosomes, 0..255.
    """

    signal: NDArray[np.uint8]
    polygon: NDArray[np.float64]
    cell: int = 0
    level: float = 128.0


@dataclass(frozen=True, eq=False)
class Bank:
    """What metaphases are composed of.

    Attributes:
        chromosomes: Free ones: they overlap no other and lie within their image.
        backgrounds: ``(H, W)`` uint8 signal images without chromosomes; nuclei and debris remain.
    """

    chromosomes: list[CutChromosome]
    backgrounds: list[NDArray[np.uint8]]


def cut_bank(
    metaphases: Iterable[tuple[NDArray[np.uint8], Sequence[NDArray[np.float64]]]],
    backgrounds: int = 20,
) -> Bank:
    """Cuts the free chromosomes and the first backgrounds out of training images.

    Args:
        metaphases: Signal image ``(H, W)`` uint8 and outlines of its chromosomes.
        backgrounds: Number of backgrounds to keep (Xie et al.: 20).
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
            around = cv2.dilate(own, _disc(MARGIN)) > 0
            if own.sum() >= MIN_AREA and not (counts[window] > own)[around].any():
                free.append((signal[window].copy(), polygon - (left, top), signal[window][own > 0]))
        if free:
            level = float(np.median(np.concatenate([inside for *_, inside in free])))
            chromosomes += [
                CutChromosome(patch, polygon, cell, level) for patch, polygon, _ in free
            ]
        if len(empty) < backgrounds:
            empty.append(_without(signal, counts > 0))
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
    """Composes one metaphase, or the part of one that a crop shows.

    Args:
        rng: All that is drawn follows from it.
        bank: Chromosomes to paste; without backgrounds the ground is dark with little noise.
        height: Of the image in pixels.
        width: Of the image in pixels.
        chromosomes: Number in the cell.
        overlap: Share of the chromosomes that are pasted across another or touching it.
        radius: Smallest and largest semi-axis of the ellipse that the cell is spread over.
        scale: Smallest and largest magnification, one for the cell.
        distractors: Fewest and most of a whole image of 768x576; a crop has its share.
        lights: One of these is drawn: what happens where light meets light, ``"add"``,
            ``"max"`` or ``"over"`` (the later chromosome hides the earlier).
        whole: The cell lies within the image, with all its chromosomes; else the image is a crop
            somewhere in the cell, and chromosomes reach out of it.

    Returns:
        Signal image ``(height, width)`` uint8, and the amodal outlines ``(K, 2)`` of the
        chromosomes. In a crop some of them may lie mostly outside. A chromosome for which there
        is no place is left out.
    """
    signal, placed = _compose(
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
    return signal, [piece.polygon + piece.corner for piece in placed]


def compose_cell(
    rng: np.random.Generator,
    chromosomes: Sequence[CutChromosome],
    height: int = 576,
    width: int = 768,
    overlap: float = 0.4,
    radius: tuple[float, float] = RADIUS,
) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]], list[int]]:
    """Composes one metaphase of just these chromosomes, on a dark ground without distractors.

    Returns:
        Signal image and outlines as :func:`compose`, and the index of each outline's chromosome.

    Raises:
        ChromozooError: There is no place for one of them.
    """
    signal, placed = _compose(
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
        [piece.polygon + piece.corner for piece in placed],
        [piece.number for piece in placed],
    )


def _compose(
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
) -> tuple[NDArray[np.uint8], "list[_Piece]"]:
    canvas = _background(rng, bank.backgrounds, height, width)
    share = height * width / (576 * 768)
    few, many = distractors
    for _ in range(rng.binomial(rng.integers(few, many + 1), min(share, 1.0))):
        _distract(rng, canvas, bank.chromosomes)
    # The cell's own: magnification, spread, middle, exposure.
    cell_scale = rng.uniform(*scale)
    axes = rng.uniform(*radius, size=2)
    size = np.array([width, height])
    if whole:
        axes = np.minimum(axes, size / 2)
        middle = size / 2 + rng.uniform(-1, 1, 2) * (size / 2 - axes)
    else:
        # The middle of the crop falls on any place of the cell, as in a crop of a real one.
        middle = size / 2 + _in_disc(rng) * axes
    light = str(rng.choice(list(lights)))
    covered = np.where(canvas > BRIGHT_GROUND, GROUND, np.uint8(0))
    placed: list[_Piece] = []
    cells = sorted({chromosome.cell for chromosome in bank.chromosomes})
    sources = set(rng.choice(cells, size=min(len(cells), int(rng.integers(1, 4))), replace=False))
    pool = [chromosome for chromosome in bank.chromosomes if chromosome.cell in sources]
    level = pool[rng.integers(len(pool))].level * rng.uniform(0.85, 1.15)
    for number in rng.choice(len(pool), size=chromosomes, replace=len(pool) < chromosomes):
        place = middle + _in_disc(rng) * axes
        meets = bool(placed) and rng.random() < overlap
        seed = int(rng.integers(2**63))
        # One outside a crop costs nothing more, and draws nothing that others depend on.
        reach = max(pool[number].signal.shape) * cell_scale / 2
        if not whole and ((place < -reach) | (place > size + reach)).any():
            continue
        own = np.random.default_rng(seed)
        piece = _turned(own, pool[number], cell_scale, level, light == "over")
        found = _join(own, piece, placed, covered, place, whole) if meets else False
        if found or _set_free(own, piece, covered, place, whole):
            _paste(canvas, covered, piece, light)
            piece.number = int(number)
            placed.append(piece)
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8), placed


def compose_metaphases(
    bank: Bank, count: int, seed: int = 0, chromosomes: int = 46, overlap: float = 0.4
) -> Iterator[Metaphase]:
    """Composes whole metaphases of 768x576 pixels, each following from the seed and its number.

    Args:
        bank: See :func:`cut_bank`.
        count: Number of metaphases.
        seed: Of all that is drawn.
        chromosomes: In each; where there is no place, some are left out.
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


class _Piece:
    """A turned chromosome: its light, soft edge, mask and outline, and where it is put."""

    def __init__(
        self,
        light: NDArray[np.float32],
        alpha: NDArray[np.float32],
        mask: NDArray[np.bool_],
        polygon: NDArray[np.float64],
    ) -> None:
        self.light = light
        self.alpha = alpha
        self.mask = mask
        self.near = cv2.dilate(mask.astype(np.uint8), _disc(2)) > 0
        self.polygon = polygon
        self.area = int(mask.sum())
        self.corner = np.zeros(2, np.int64)
        self.number = -1  # of its chromosome in the pool

    def put(self, middle: NDArray[np.float64]) -> None:
        """Puts the middle of the patch to ``(x, y)``."""
        self.corner = np.round(middle - np.array(self.mask.shape[::-1]) / 2).astype(np.int64)

    def point(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """A pixel ``(x, y)`` of the mask, in the patch."""
        pixels = np.flatnonzero(self.mask)
        row, column = divmod(int(rng.choice(pixels)), self.mask.shape[1])
        return np.array([column, row])

    def inside(self, height: int, width: int) -> bool:
        """Whether the whole outline lies within the image."""
        outline = self.polygon + self.corner
        return bool(outline.min() >= 0 and (outline.max(axis=0) <= (width, height)).all())

    def windows(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """What of the image the patch covers, and the same part of the patch."""
        (left, top), (h, w) = self.corner.tolist(), self.mask.shape
        rows = slice(min(max(top, 0), height), min(max(top + h, 0), height))
        columns = slice(min(max(left, 0), width), min(max(left + w, 0), width))
        return (rows, columns), (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )


def _turned(
    rng: np.random.Generator, cut: CutChromosome, scale: float, level: float, hides: bool = False
) -> _Piece:
    angle = rng.uniform(0, 2 * np.pi)
    stretch = scale * rng.uniform(0.95, 1.05, size=2)
    shear = rng.normal(0, 0.04)
    flip = rng.choice((-1.0, 1.0))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = (
        np.array([[cos, -sin], [sin, cos]])
        @ np.array([[1, shear], [0, 1]])
        @ np.diag(stretch * (flip, 1.0))
    )
    polygon = cut.polygon @ matrix.T
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    margin = int(np.ceil(MARGIN * scale))
    shift = margin - np.floor(low)
    width, height = (int(v) for v in np.ceil(high) - np.floor(low) + 2 * margin)
    warp = np.hstack([matrix, shift[:, None]])
    # OpenCV puts the origin into the middle of the first pixel.
    warp[:, 2] += matrix @ (0.5, 0.5) - 0.5
    signal = cv2.warpAffine(cut.signal, warp, (width, height), flags=cv2.INTER_LINEAR)
    polygon = polygon + shift
    mask = polygon_mask(polygon, height, width)
    core = mask.astype(np.float32)
    if not hides:
        # The haze around it is part of its light, but what hides would cut a dark seam with it.
        core = np.asarray(cv2.dilate(core, _disc(RIM - 1)), np.float32)
    alpha = _blend(rng, core)
    gain = np.float32(level / max(cut.level, 1.0) * rng.uniform(0.9, 1.1))
    return _Piece(signal.astype(np.float32) * gain, alpha, mask, polygon)


def _blend(rng: np.random.Generator, core: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softens the seam in one of the three ways of Xie et al."""
    kind = BLENDINGS[rng.integers(len(BLENDINGS))]
    if kind == "gaussian":
        return np.asarray(cv2.GaussianBlur(core, (5, 5), 1.2), np.float32)
    if kind == "box":
        return np.asarray(cv2.blur(core, (3, 3)), np.float32)
    line = np.zeros((5, 5), np.float32)
    ends = ((0, 2), (4, 2)), ((2, 0), (2, 4)), ((0, 0), (4, 4)), ((0, 4), (4, 0))
    start, end = ends[rng.integers(len(ends))]
    cv2.line(line, start, end, 1.0)
    return np.asarray(cv2.filter2D(core, -1, line / line.sum()), np.float32)


def _join(
    rng: np.random.Generator,
    piece: _Piece,
    placed: Sequence[_Piece],
    covered: NDArray[np.uint8],
    place: NDArray[np.float64],
    whole: bool,
) -> bool:
    """Puts a piece across the nearest chromosome, or beside it in touch. False: it does not fit."""
    distances = [
        np.abs(other.corner + other.polygon.mean(axis=0) - place).max() for other in placed
    ]
    other = placed[int(np.argmin(distances))]
    middle = np.array(piece.mask.shape[::-1]) / 2
    for _ in range(TRIES):
        target = other.corner + other.point(rng)
        if rng.random() < 0.5:
            piece.put(target - piece.point(rng) + middle)
            # Lying on each other they would be told apart by nobody.
            if _meets(piece, covered, 0.03, 0.45, whole, other.area):
                return True
        else:
            angle = rng.uniform(0, 2 * np.pi)
            way = np.array([np.cos(angle), np.sin(angle)])
            for distance in np.arange(0, 2 * middle.max() + max(other.mask.shape), 2):
                piece.put(target + way * distance)
                if _hits(piece, covered, piece.mask, CHROMOSOME) <= 0.03 * piece.area:
                    break
            if _hits(piece, covered, piece.near, CHROMOSOME) and _meets(
                piece, covered, 0, 0.03, whole
            ):
                return True
    return False


def _set_free(
    rng: np.random.Generator,
    piece: _Piece,
    covered: NDArray[np.uint8],
    place: NDArray[np.float64],
    whole: bool,
) -> bool:
    """Puts a piece where it touches nothing, as near to its place as there is room."""
    for attempt in range(2 * TRIES):
        piece.put(place + rng.normal(0, 6.0 * attempt, size=2))
        if (not whole or piece.inside(*covered.shape)) and not _hits(
            piece, covered, piece.near, CHROMOSOME | GROUND
        ):
            return True
    return False


def _meets(
    piece: _Piece,
    covered: NDArray[np.uint8],
    least: float,
    most: float,
    whole: bool,
    other_area: float = np.inf,
) -> bool:
    if whole and not piece.inside(*covered.shape):
        return False
    if _hits(piece, covered, piece.mask, GROUND):
        return False
    hits = _hits(piece, covered, piece.mask, CHROMOSOME)
    return least * piece.area <= hits <= most * min(piece.area, other_area)


def _hits(
    piece: _Piece, covered: NDArray[np.uint8], mask: NDArray[np.bool_], what: np.uint8
) -> int:
    """Pixels of the mask that other chromosomes, or bright ground, cover already."""
    image, patch = piece.windows(*covered.shape)
    return int(np.count_nonzero(((covered[image] & what) > 0) & mask[patch]))


def _paste(
    canvas: NDArray[np.float32], covered: NDArray[np.uint8], piece: _Piece, light: str
) -> None:
    image, patch = piece.windows(*covered.shape)
    alpha, ground = piece.alpha[patch], canvas[image]
    pasted = piece.light[patch] * alpha
    if light == "add":
        canvas[image] = ground + pasted
    elif light == "max":
        canvas[image] = np.maximum(ground, pasted)
    else:
        canvas[image] = ground * (1 - alpha) + pasted
    covered[image] |= piece.mask[patch] * CHROMOSOME


# Backgrounds and distractors


def _without(signal: NDArray[np.uint8], chromosomes: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A metaphase without its chromosomes, filled from around: nuclei, debris and haze remain."""
    gone = cv2.dilate(chromosomes.astype(np.uint8), _disc(MARGIN)).astype(np.float32)
    known = 1 - gone
    level = cv2.blur(signal * known, (41, 41)) / np.maximum(cv2.blur(known, (41, 41)), 1e-3)
    # A nucleus beside it would shine into the hole.
    filled = np.where(gone > 0, np.minimum(level, BRIGHT_GROUND / 2), signal)
    return np.asarray(np.round(filled), np.uint8)


def _background(
    rng: np.random.Generator, backgrounds: Sequence[NDArray[np.uint8]], height: int, width: int
) -> NDArray[np.float32]:
    """A part of a random background, mirrored at random; or a dark ground with little noise."""
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


def _distract(
    rng: np.random.Generator, canvas: NDArray[np.float32], chromosomes: Sequence[CutChromosome]
) -> None:
    """Adds a nucleus, a speck of debris or a faint piece of a chromosome."""
    kind = rng.choice(("nucleus", "debris", "piece"), p=(0.2, 0.6, 0.2))
    place = rng.uniform((0, 0), canvas.shape[::-1])
    if kind == "nucleus":
        _add_disc(rng, canvas, place, rng.uniform(25, 60, size=2), rng.uniform(60, 255), 2.0)
    elif kind == "debris":
        _add_disc(rng, canvas, place, rng.uniform(1.0, 4.5, size=2), rng.uniform(30, 400), 0.8)
    else:
        cut = chromosomes[int(rng.integers(len(chromosomes)))]
        piece = _turned(rng, cut, rng.uniform(0.8, 1.2), cut.level * rng.uniform(0.2, 0.6))
        along = np.add.outer(*(np.arange(side) - side / 2 for side in piece.mask.shape))
        # Small enough that nobody would outline it as a chromosome.
        kept = along < np.partition(along[piece.mask], 40)[40]
        piece.alpha = np.asarray(cv2.GaussianBlur(piece.mask * kept * 1.0, (5, 5), 1.2), np.float32)
        piece.put(place)
        _paste(canvas, np.zeros(canvas.shape, np.uint8), piece, "max")


def _add_disc(
    rng: np.random.Generator,
    canvas: NDArray[np.float32],
    place: NDArray[np.float64],
    axes: NDArray[np.float64],
    level: float,
    softness: float,
) -> None:
    """Adds a soft, uneven, filled ellipse."""
    half = int(axes.max() + 4 * softness) + 1
    column, row = (int(v) for v in place)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    mask = ((u / axes[0]) ** 2 + (v / axes[1]) ** 2 <= 1).astype(np.float32)
    grain = rng.standard_normal((max(half // 4, 2),) * 2, np.float32)
    uneven = 1 + 0.15 * cv2.resize(grain, mask.shape[::-1], interpolation=cv2.INTER_CUBIC)
    disc = level * cv2.GaussianBlur(mask, (0, 0), softness) * uneven
    piece = _Piece(np.asarray(disc, np.float32), mask, mask > 0, np.zeros((1, 2)))
    piece.corner = np.array([column - half, row - half])
    image, patch = piece.windows(*canvas.shape)
    canvas[image] += np.maximum(piece.light[patch], 0)


def _in_disc(rng: np.random.Generator) -> NDArray[np.float64]:
    """A point of the unit disc."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)]) * float(np.sqrt(rng.random()))


def _disc(radius: int) -> NDArray[np.uint8]:
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
