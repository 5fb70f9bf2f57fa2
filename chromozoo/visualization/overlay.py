"""Overlay of a segmentation on its metaphase: contours, tints and labels."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from chromozoo.errors import ImageError
from chromozoo.structures.segmentation import Segmentation

Colour: TypeAlias = tuple[int, int, int]

# RGB; none is close to the red of missed chromosomes.
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
TINT = 0.22
# Line width and text height as fractions of the shorter side of the image.
LINE_FRACTION, TEXT_FRACTION = 1 / 500, 1 / 46
MIN_TEXT_SIZE = 9
# Maximum luminance of a colour that is visible on white, 0..255.
MAX_LUMINANCE = 125.0
# Candidate positions of a label: number of directions, and distances in text heights.
N_DIRECTIONS, DISTANCES = 24, (0.25, 0.8, 1.5)


def draw_overlay(
    image: NDArray[Any],
    segmentation: Segmentation,
    labels: Sequence[str] | None = None,
    missed: Segmentation | None = None,
) -> NDArray[np.uint8]:
    """Draw contours and labels of chromosomes over a metaphase.

    Neighbouring and crossing chromosomes have different colours. Lines and text scale with the
    image; colours are bright on a dark background and dark on a bright one.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` RGB in any units; its contrast is stretched.
        segmentation: The chromosomes of the image.
        labels: Text next to each chromosome; None for numbers from 1 in the order of
            ``segmentation``.
        missed: Missed true chromosomes, drawn with thick red lines.

    Returns:
        ``(H, W, 3)`` uint8 RGB.

    Raises:
        ImageError: The image has another number of dimensions, or another size than a segmentation.
    """
    image = np.asarray(image)
    if image.ndim != 2 and not (image.ndim == 3 and image.shape[2] == 3):
        raise ImageError(f"the image has the shape {image.shape}; give (H, W) or (H, W, 3)")
    for drawn in (segmentation, missed):
        if drawn is not None and drawn.shape != image.shape[:2]:
            raise ImageError(
                f"the image has {image.shape[1]}x{image.shape[0]} pixels, its segmentation "
                f"{drawn.shape[1]}x{drawn.shape[0]}; give the segmented image"
            )
    if labels is None:
        labels = [str(number) for number in range(1, len(segmentation) + 1)]
    canvas, is_bright = _stretch_contrast(image)
    side = min(canvas.shape[:2])
    line = max(round(side * LINE_FRACTION), 1)
    palette = [_darken(colour) if is_bright else colour for colour in PALETTE]
    indices = choose_colours(segmentation.boxes, len(palette), 0.02 * side)
    colours = [palette[index] for index in indices]
    _draw_contours(canvas, segmentation, colours, line)
    texts = list(zip(labels, colours, _find_contours(segmentation), strict=True))
    if missed is not None:
        red = _darken(MISSED) if is_bright else MISSED
        _draw_contours(canvas, missed, [red] * len(missed), 2 * line)
    size = max(side * TEXT_FRACTION, MIN_TEXT_SIZE)
    halo = "white" if is_bright else "black"
    _draw_texts(canvas, texts, _occupied_pixels(segmentation, missed), size, halo)
    return canvas


def _stretch_contrast(image: NDArray[Any]) -> tuple[NDArray[np.uint8], bool]:
    """Return the image as uint8 RGB, and whether its background is bright."""
    low, high = (float(value) for value in np.percentile(image, (0.1, 99.9)))
    scale = np.float32(255 / max(high - low, 1e-12))
    stretched = np.clip((image.astype(np.float32) - np.float32(low)) * scale, 0, 255)
    grey = stretched.astype(np.uint8)
    is_bright = high > low and float(np.median(grey)) > 127
    return (np.stack([grey] * 3, axis=2) if grey.ndim == 2 else grey), is_bright


def _darken(colour: Colour) -> Colour:
    """Darken a colour so that it is visible on white."""
    luminance = float(np.dot(colour, (0.299, 0.587, 0.114)))
    factor = min(MAX_LUMINANCE / luminance, 1)
    red, green, blue = (round(value * factor) for value in colour)
    return red, green, blue


def choose_colours(boxes: NDArray[np.floating[Any]], n_colours: int, margin: float) -> list[int]:
    """Choose a colour index for each box, if possible another one than its neighbours.

    Args:
        boxes: ``(N, 4)`` xyxy.
        n_colours: Number of colours.
        margin: Boxes within this distance in pixels are neighbours.
    """
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


def _draw_contours(
    canvas: NDArray[np.uint8], segmentation: Segmentation, colours: Sequence[Colour], line: int
) -> None:
    """Tint the chromosomes and draw their contours, in place."""
    for crop, (row, column), colour in zip(
        segmentation.crops, segmentation.corners, colours, strict=True
    ):
        window = canvas[row : row + crop.shape[0], column : column + crop.shape[1]]
        window[crop] = (1 - TINT) * window[crop] + TINT * np.array(colour)
    # After all tints, so that the lines of crossing chromosomes stay visible.
    for crop, (row, column), colour in zip(
        segmentation.crops, segmentation.corners, colours, strict=True
    ):
        parts, _ = cv2.findContours(
            crop.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(column, row)
        )
        cv2.drawContours(canvas, parts, -1, colour, line, cv2.LINE_AA)


def _find_contours(segmentation: Segmentation) -> list[NDArray[np.float64]]:
    """Return the longest contour ``(K, 2)`` xy of each chromosome."""
    contours = []
    for crop, corner in zip(segmentation.crops, segmentation.corners, strict=True):
        parts, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        contours.append(max(parts, key=len)[:, 0].astype(np.float64) + corner[::-1])
    return contours


def _occupied_pixels(*segmentations: Segmentation | None) -> NDArray[np.bool_]:
    """Return the pixels ``(H, W)`` of all chromosomes."""
    shape = next(found.shape for found in segmentations if found is not None)
    occupied = np.zeros(shape, bool)
    for found in segmentations:
        for crop, (row, column) in zip(found.crops, found.corners, strict=True) if found else ():
            occupied[row : row + crop.shape[0], column : column + crop.shape[1]] |= crop
    return occupied


def _draw_texts(
    canvas: NDArray[np.uint8],
    texts: Sequence[tuple[str, Colour, NDArray[np.float64]]],
    occupied: NDArray[np.bool_],
    size: float,
    halo: str,
) -> None:
    """Draw each text next to its contour, with little overlap with chromosomes and other texts."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    stroke = max(round(size / 9), 1)
    for text, colour, contour in texts:
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font, stroke_width=stroke)
        x, y = _find_text_corner(contour, (right - left, bottom - top), occupied, size)
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


def _find_text_corner(
    contour: NDArray[np.float64],
    text_size: tuple[float, float],
    occupied: NDArray[np.bool_],
    size: float,
) -> tuple[int, int]:
    """Return the upper left corner (x, y) of a text with the least overlap.

    Args:
        contour: ``(K, 2)`` xy of the chromosome.
        text_size: Width and height of the text in pixels.
        occupied: ``(H, W)`` pixels of chromosomes and other texts.
        size: Font size in pixels.
    """
    width, height = (int(np.ceil(side)) for side in text_size)
    limits = np.array(occupied.shape[::-1]) - (width, height)
    middle = contour.mean(axis=0)
    points = contour[np.linspace(0, len(contour) - 1, N_DIRECTIONS).astype(int)]
    outward = points - middle
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    best, lowest_cost = (0, 0), np.inf
    for distance in DISTANCES:
        # Distance from the contour to the middle of a text that does not touch it.
        reach = np.abs(outward) @ (width / 2, height / 2) + distance * size
        for x, y in points + outward * reach[:, None] - (width / 2, height / 2):
            column, row = (
                int(np.clip(v, 0, max(m, 0))) for v, m in zip((x, y), limits, strict=True)
            )
            cost = occupied[row : row + height, column : column + width].sum()
            if cost < lowest_cost:
                best, lowest_cost = (column, row), cost
        if not lowest_cost:
            break
    return best
