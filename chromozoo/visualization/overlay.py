"""Images of what a segmenter found: each chromosome outlined, tinted and numbered."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from chromozoo.errors import ImageError

if TYPE_CHECKING:
    from chromozoo.structures.segmentation import Segmentation

Colour = tuple[int, int, int]

# RGB; none is near the red of what was missed.
PALETTE: tuple[Colour, ...] = (
    (90, 170, 255),
    (255, 215, 60),
    (80, 220, 100),
    (240, 120, 240),
    (255, 150, 60),
    (70, 230, 230),
    (180, 140, 255),
    (190, 235, 70),
    (255, 165, 180),
    (60, 190, 160),
)
MISSED: Colour = (255, 45, 45)
FILL = 0.22
# Line width and height of the digits as shares of the shorter side of the image.
LINE_SHARE, TEXT_SHARE = 1 / 500, 1 / 46
MIN_TEXT_SIZE = 9
# On white, a colour must be darker than this to be seen, 0..255.
DARK_ENOUGH = 125.0
# Directions in which a place for a label is looked for, and how far off, in heights of the text.
DIRECTIONS, DISTANCES = 24, (0.25, 0.8, 1.5)


def draw_overlay(
    image: NDArray[Any],
    segmentation: "Segmentation",
    labels: Sequence[str] | None = None,
    missed: "Segmentation | None" = None,
) -> NDArray[np.uint8]:
    """Draws outlines over a metaphase.

    Chromosomes that are near each other or cross have different colours. Lines and digits follow
    the size of the image; colours are bright on a dark background and dark on a bright one.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` RGB in any units; its contrast is stretched.
        segmentation: Of this image.
        labels: Text beside each chromosome; None: numbers from 1, in the order of the segmentation.
        missed: True chromosomes that the segmentation lacks, drawn with thick red lines.

    Returns:
        ``(H, W, 3)`` uint8 RGB.

    Raises:
        ImageError: The image has another shape, or the segmentation is of another size.
    """
    image = np.asarray(image)
    if image.ndim != 2 and not (image.ndim == 3 and image.shape[2] == 3):
        raise ImageError(f"an image of shape {image.shape} cannot be drawn on; give (H, W[, 3])")
    for found in (segmentation, missed):
        if found is not None and found.shape != image.shape[:2]:
            raise ImageError(
                f"the segmentation is of an image of {found.shape[1]}x{found.shape[0]} pixels, "
                f"this one has {image.shape[1]}x{image.shape[0]}; give the image it was made of"
            )
    if labels is None:
        labels = [str(number) for number in range(1, len(segmentation) + 1)]
    canvas, is_bright = _displayed(image)
    side = min(canvas.shape[:2])
    line = max(round(side * LINE_SHARE), 1)
    palette = [_darker(colour) if is_bright else colour for colour in PALETTE]
    colours = [palette[index] for index in _distinct(segmentation.boxes, len(palette), 0.02 * side)]
    _outline(canvas, segmentation, colours, line)
    texts = list(zip(labels, colours, _contours(segmentation), strict=True))
    if missed is not None:
        red = _darker(MISSED) if is_bright else MISSED
        _outline(canvas, missed, [red] * len(missed), 2 * line)
    size = max(side * TEXT_SHARE, MIN_TEXT_SIZE)
    _write(canvas, texts, _occupied(segmentation, missed), size, "white" if is_bright else "black")
    return canvas


def _displayed(image: NDArray[Any]) -> tuple[NDArray[np.uint8], bool]:
    """As RGB, and whether the background is bright."""
    low, high = (float(value) for value in np.percentile(image, (0.1, 99.9)))
    scale = np.float32(255 / max(high - low, 1e-12))
    stretched = np.clip((image.astype(np.float32) - np.float32(low)) * scale, 0, 255)
    grey = stretched.astype(np.uint8)
    is_bright = high > low and float(np.median(grey)) > 127
    return (np.stack([grey] * 3, axis=2) if grey.ndim == 2 else grey), is_bright


def _darker(colour: Colour) -> Colour:
    luminance = float(np.dot(colour, (0.299, 0.587, 0.114)))
    factor = min(DARK_ENOUGH / luminance, 1)
    red, green, blue = (round(value * factor) for value in colour)
    return red, green, blue


def _distinct(boxes: NDArray[np.floating[Any]], n_colours: int, margin: float) -> list[int]:
    """A colour for each box, as rarely as can be that of one within ``margin`` pixels."""
    chosen: list[int] = []
    used = np.zeros(n_colours)
    for number, box in enumerate(boxes):
        earlier = boxes[:number]
        near = (
            (earlier[:, :2] < box[2:] + margin) & (earlier[:, 2:] > box[:2] - margin)
        ).all(axis=1)  # fmt: skip
        neighbours = np.bincount(np.array(chosen, int)[near], minlength=n_colours)
        colour = int(np.lexsort((used, neighbours))[0])
        used[colour] += 1
        chosen.append(colour)
    return chosen


def _outline(
    canvas: NDArray[np.uint8], found: "Segmentation", colours: Sequence[Colour], line: int
) -> None:
    for crop, (row, column), colour in zip(found.crops, found.corners, colours, strict=True):
        window = canvas[row : row + crop.shape[0], column : column + crop.shape[1]]
        window[crop] = (1 - FILL) * window[crop] + FILL * np.array(colour)
    # After all tints, so that lines stay clear where chromosomes cross.
    for crop, (row, column), colour in zip(found.crops, found.corners, colours, strict=True):
        parts, _ = cv2.findContours(
            crop.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(column, row)
        )
        cv2.drawContours(canvas, parts, -1, colour, line, cv2.LINE_AA)


def _contours(found: "Segmentation") -> list[NDArray[np.float64]]:
    """The longest outline ``(K, 2)`` xy of each chromosome."""
    outlines = []
    for crop, corner in zip(found.crops, found.corners, strict=True):
        parts, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outlines.append(max(parts, key=len)[:, 0].astype(np.float64) + corner[::-1])
    return outlines


def _occupied(*segmentations: "Segmentation | None") -> NDArray[np.bool_]:
    shape = next(found.shape for found in segmentations if found is not None)
    occupied = np.zeros(shape, bool)
    for found in segmentations:
        for crop, (row, column) in zip(found.crops, found.corners, strict=True) if found else ():
            occupied[row : row + crop.shape[0], column : column + crop.shape[1]] |= crop
    return occupied


def _write(
    canvas: NDArray[np.uint8],
    texts: Sequence[tuple[str, Colour, NDArray[np.float64]]],
    occupied: NDArray[np.bool_],
    size: float,
    halo: str,
) -> None:
    """Writes each text beside its outline, on as few chromosomes and other texts as can be."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    stroke = max(round(size / 9), 1)
    for text, colour, outline in texts:
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font, stroke_width=stroke)
        x, y = _place(outline, (right - left, bottom - top), occupied, size)
        draw.text(
            (x - left, y - top),
            text,
            fill=colour,
            font=font,
            stroke_width=stroke,
            stroke_fill=halo,
        )
        occupied[int(y) : int(y + bottom - top), int(x) : int(x + right - left)] = True
    canvas[:] = np.asarray(image)


def _place(
    outline: NDArray[np.float64],
    text: tuple[float, float],
    occupied: NDArray[np.bool_],
    size: float,
) -> tuple[int, int]:
    """Upper left corner of a text of ``text`` pixels (width, height)."""
    width, height = (int(np.ceil(side)) for side in text)
    limits = np.array(occupied.shape[::-1]) - (width, height)
    middle = outline.mean(axis=0)
    points = outline[np.linspace(0, len(outline) - 1, DIRECTIONS).astype(int)]
    away = points - middle
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    best, least = (0, 0), np.inf
    for distance in DISTANCES:
        # The middle of a text that just clears the outline, whatever its direction.
        reach = np.abs(away) @ (width / 2, height / 2) + distance * size
        for x, y in points + away * reach[:, None] - (width / 2, height / 2):
            column, row = (
                int(np.clip(v, 0, max(m, 0))) for v, m in zip((x, y), limits, strict=True)
            )
            cost = occupied[row : row + height, column : column + width].sum()
            if cost < least:
                best, least = (column, row), cost
        if not least:
            break
    return best
