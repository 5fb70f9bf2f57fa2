"""What an image file holds: pages, z-planes, channels and frames, and the choice of one image.

A file with one image is read without a choice. Pages that are images of their own each give one
image. Of a z-stack, a time series or several channels one image has to be chosen, by its page or
channel, or as a projection: none is ever taken without a word.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ImageError

# `max` for bright chromosomes (fluorescence), `min` for dark ones (bright field).
PROJECTIONS = {"max": np.maximum, "min": np.minimum}

# One image above this is a mistake (a whole slide), not a chromosome or a metaphase.
MAX_PIXELS = 150_000_000
# All samples of one image, as they are decoded.
MAX_IMAGE_BYTES = 2**30
# Of all planes that are projected together.
MAX_PROJECTED_PIXELS = 10 * MAX_PIXELS

# Images with this share of the pixels of a large one are previews.
PREVIEW_SHARE = 1 / 16
LARGE_PIXELS = 2**16

HOW = "(Python: page=, channel=, projection=)"


@dataclass(frozen=True)
class Stack:
    """One image of a file, with all its frames, z-planes and channels.

    Attributes:
        load: Decodes the plane of a frame, z-plane and channel, each from 0: ``(H, W)``,
            ``(H, W, 3)`` or ``(H, W, 4)``.
        size: Height and width in pixels.
        frames: Moments of a time series or an animation.
        planes: z-planes.
        channels: Planes of several fluorochromes; red, green and blue of one image are none.
        names: Of the channels, where the file says.
        colours: 3 where a plane is red, green and blue, else 1.
    """

    load: Callable[[int, int, int], NDArray[np.generic]]
    size: tuple[int, int]
    frames: int = 1
    planes: int = 1
    channels: int = 1
    names: tuple[str, ...] = ()
    colours: int = 1


@dataclass(frozen=True)
class Selection:
    """One image that was chosen from a file.

    Attributes:
        layers: Stack, frame and z-plane of each plane that is projected; or the only one.
        page: From 1; None where there is one alone.
        channel: From 1; None where there is one alone.
        projection: A key of ``PROJECTIONS``; None where there is one plane.
    """

    layers: tuple[tuple[Stack, int, int], ...]
    page: int | None
    channel: int | None
    projection: str | None

    def load(self, name: str) -> NDArray[np.generic]:
        """Decodes and projects: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.

        Raises:
            ImageError: Planes to project are of different sizes or kinds, or far too many.
        """
        pixels = sum(stack.size[0] * stack.size[1] for stack, _, _ in self.layers)
        if pixels > MAX_PROJECTED_PIXELS:
            raise ImageError(
                f"{name}: {len(self.layers)} planes with {pixels} pixels are far too many to "
                f"project; choose one with --page {HOW}"
            )
        projected: NDArray[np.generic] | None = None
        for stack, frame, plane in self.layers:
            if self.channel is None or stack.channels == 1:
                array = stack.load(frame, plane, 0)
                if self.channel is not None:
                    array = _one_colour(array, self.channel - 1)
            else:
                array = stack.load(frame, plane, self.channel - 1)
            if projected is None:
                projected = array
                continue
            if projected.shape != array.shape or projected.dtype != array.dtype:
                raise ImageError(
                    f"{name}: {projected.shape} {projected.dtype} and {array.shape} {array.dtype} "
                    f"cannot be projected; choose one with --page {HOW}"
                )
            projected = PROJECTIONS[self.projection or "max"](projected, array)
        assert projected is not None  # there is at least one layer
        return projected


def _one_colour(array: NDArray[np.generic], colour: int) -> NDArray[np.generic]:
    if array.shape[2] == 4:
        return np.stack([array[..., colour]] * 3 + [array[..., 3]], axis=-1)
    return array[..., colour]


def choose(
    stacks: Sequence[Stack],
    name: str,
    page: int | None = None,
    channel: int | None = None,
    projection: str | None = None,
) -> list[Selection]:
    """The images that a file gives, one or several, in the order of the file.

    Args:
        stacks: What the file holds, at least one.
        name: What errors call the file.
        page: The only one that is wanted, from 1. Frames and z-planes count as pages: frame by
            frame, and in each from the first z-plane to the last.
        channel: From 1; of an image in colour 1 is red, 2 green and 3 blue.
        projection: ``"max"`` or ``"min"`` over the z-planes; where there are none over the frames;
            where there are none either over the pages. A single image stays as it is.

    Raises:
        ImageError: A choice is missing, or the file does not hold what was chosen. The message
            says what it holds and how to choose.
    """
    if projection is not None and projection not in PROJECTIONS:
        raise ImageError(
            f"{name}: projection {projection!r} is not known; give {' or '.join(PROJECTIONS)}"
        )
    for word, number in (("page", page), ("channel", channel)):
        if number is not None and not (_is_whole(number) and number >= 1):
            raise ImageError(f"{name}: {word} {number} is no {word}; they are counted from 1")
    images = _projected(stacks) if projection else _single(stacks)
    if page is not None and page > len(images):
        raise ImageError(
            f"{name}: there is no page {page}, the file holds {holdings(stacks)}"
            f"{' to project' if projection else ''}; {_leave_out('page', len(images))}"
        )
    chosen = list(enumerate(images, start=1))[
        slice(None) if page is None else slice(page - 1, page)
    ]
    deep = any(stack.planes > 1 for stack in stacks)
    moving = any(stack.frames > 1 for stack in stacks)
    layered = (moving and deep) if projection else (moving or deep)
    channels = max(stack.channels for _, layers in chosen for stack, _, _ in layers)
    wanted = []
    if len(chosen) > 1 and layered:
        or_projection = "" if projection else " or --projection max"
        wanted.append(f"--page N (1 to {len(images)}){or_projection}")
    if channels > 1 and channel is None:
        wanted.append(f"--channel N (1 to {channels})")
    if wanted:
        raise ImageError(
            f"{name}: holds {holdings(stacks)}, of which one image has to be chosen; give "
            f"{' and '.join(wanted)} {HOW}"
        )
    return [
        Selection(
            layers,
            page=number if len(images) > 1 else None,
            channel=_channel(layers, channel, name),
            projection=projection if len(layers) > 1 else None,
        )
        for number, layers in chosen
    ]


def only_one(stacks: Sequence[Stack], name: str) -> Selection:
    """The image of a file that holds one alone.

    Raises:
        ImageError: It holds several; the message says which and how to choose.
    """
    if len(stacks) == 1 and stacks[0].frames == stacks[0].planes == stacks[0].channels == 1:
        return Selection(((stacks[0], 0, 0),), None, None, None)
    selections = choose(stacks, name)
    if len(selections) > 1:
        raise ImageError(
            f"{name}: holds {holdings(stacks)}, of which one image has to be chosen; give --page N "
            f"(1 to {len(selections)}) or --projection max {HOW}, or save it as a file of its own"
        )
    return selections[0]


def holdings(stacks: Sequence[Stack]) -> str:
    """In words, such as ``"2 frames of 5 z-planes in 2 channels (FITC, DAPI)"``."""
    first = stacks[0]
    parts = [
        f"{number} {word}"
        for number, word in ((first.frames, "frames"), (first.planes, "z-planes"))
        if number > 1
    ]
    if len(stacks) > 1:
        parts.insert(0, f"{len(stacks)} pages")
    text = " of ".join(parts)
    if first.channels > 1:
        channels = f"{first.channels} channels"
        if any(first.names):
            channels += f" ({', '.join(first.names)})"
        text = f"{text} in {channels}" if text else channels
    return text or "one image"


def check_size(name: str, height: int, width: int, pixel_bytes: int = 1) -> None:
    """Before anything is allocated for an image: is it as large as a metaphase can be?

    Args:
        name: What errors call the image.
        height: In pixels, as the file claims.
        width: In pixels, as the file claims.
        pixel_bytes: Of all samples of a pixel.

    Raises:
        ImageError: It is far too large.
    """
    if height * width > MAX_PIXELS or height * width * pixel_bytes > MAX_IMAGE_BYTES:
        raise ImageError(
            f"{name}: far too large for a crop or metaphase ({width}x{height} pixels); cut the "
            "cell out first"
        )


def without_copies(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the images that are no preview and no reduced copy of the largest, by their sizes.

    A preview has at most a sixteenth of the pixels of a large image. Reduced copies halve it again
    and again, at least twice; one image of half the size may be another image.
    """
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    levels: dict[int, list[int]] = {}
    previews = set()
    for index, size in enumerate(sizes):
        level = round(np.log2(height / size[0]))
        step = 2**level
        if level and abs(size[0] - height / step) < 1 and abs(size[1] - width / step) < 1:
            levels.setdefault(level, []).append(index)
        share = size[0] * size[1] / (height * width)
        if share <= PREVIEW_SHARE and height * width >= LARGE_PIXELS:
            previews.add(index)
    if len(levels) > 1 and [(k, len(levels[k])) for k in sorted(levels)] == [
        (k, 1) for k in range(1, len(levels) + 1)
    ]:
        previews |= {index for (index,) in levels.values()}
    return [index for index in range(len(sizes)) if index not in previews]


def oriented(image: NDArray[np.generic], orientation: object) -> NDArray[np.generic]:
    """Turns and mirrors an image as its Orientation (TIFF, EXIF) says; others than 2 to 8 as 1."""
    turns: dict[object, Callable[[NDArray[np.generic]], NDArray[np.generic]]] = {
        2: np.fliplr,
        3: lambda image: np.rot90(image, 2),
        4: np.flipud,
        5: lambda image: image.swapaxes(0, 1),
        6: lambda image: np.rot90(image, -1),
        7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
        8: np.rot90,
    }
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else np.ascontiguousarray(turn(image))


def printable(text: str) -> str:
    """A text that any terminal and file takes: what is no character becomes its escape."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _leave_out(word: str, held: int) -> str:
    return f"leave the {word} out" + (f" or give 1 to {held} {HOW}" if held > 1 else "")


def _is_whole(number: object) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _single(stacks: Sequence[Stack]) -> list[tuple[tuple[Stack, int, int], ...]]:
    return [
        ((stack, frame, plane),)
        for stack in stacks
        for frame in range(stack.frames)
        for plane in range(stack.planes)
    ]


def _projected(stacks: Sequence[Stack]) -> list[tuple[tuple[Stack, int, int], ...]]:
    if any(stack.planes > 1 for stack in stacks):
        return [
            tuple((stack, frame, plane) for plane in range(stack.planes))
            for stack in stacks
            for frame in range(stack.frames)
        ]
    if any(stack.frames > 1 for stack in stacks):
        return [tuple((stack, frame, 0) for frame in range(stack.frames)) for stack in stacks]
    return [tuple((stack, 0, 0) for stack in stacks)]


def _channel(
    layers: tuple[tuple[Stack, int, int], ...], channel: int | None, name: str
) -> int | None:
    """The channel that has to be picked, None where the layers have one alone."""
    if channel is None:
        return None
    held = min(max(stack.channels, stack.colours) for stack, _, _ in layers)
    if channel > held:
        has = f"{held} channels" if held > 1 else "one channel"
        raise ImageError(
            f"{name}: there is no channel {channel}, the image has {has}; "
            f"{_leave_out('channel', held)}"
        )
    return channel if held > 1 else None
