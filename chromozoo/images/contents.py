"""Contents of an image file (pages, frames, z-planes, channels), and the selection of images.

A file with a single image needs no selection, and each page that is a separate image gives one. Of
a z-stack, a time series or several channels the caller has to select an image by its page or
channel, or as a projection; no image is ever selected silently.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ImageError

# `max` for bright chromosomes (fluorescence), `min` for dark ones (bright field).
PROJECTIONS = {"max": np.maximum, "min": np.minimum}

# A larger image is a mistake (a whole slide), not a chromosome or a metaphase.
MAX_PIXELS = 150_000_000
# Decoded bytes of all samples of one image.
MAX_IMAGE_BYTES = 2**30
# Pixels of all planes of one projection.
MAX_PROJECTED_PIXELS = 10 * MAX_PIXELS

# An image with at most this share of the pixels of a large one is a preview.
PREVIEW_SHARE = 1 / 16
LARGE_PIXELS = 2**16

PYTHON_ARGUMENTS = "(Python: page=, channel=, projection=)"


@dataclass(frozen=True)
class Stack:
    """One image of a file, with its frames, z-planes and channels.

    Attributes:
        load: Function of a frame, a z-plane and a channel, each from 0, that decodes this plane:
            ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.
        size: Height and width in pixels.
        frames: Number of frames of a time series or an animation.
        planes: Number of z-planes.
        channels: Number of fluorochromes; the colours of an RGB image count as one channel.
        channel_names: Names of the channels; empty if unknown.
        colours: 3 for RGB planes, else 1.
    """

    load: Callable[[int, int, int], NDArray[np.generic]]
    size: tuple[int, int]
    frames: int = 1
    planes: int = 1
    channels: int = 1
    channel_names: tuple[str, ...] = ()
    colours: int = 1


@dataclass(frozen=True)
class Selection:
    """One image selected from a file.

    Attributes:
        layers: Stack, frame and z-plane of each plane of the projection, or of the single plane.
        page: Page from 1; None if the file has a single one.
        channel: Channel from 1; None if the image has a single one.
        projection: A key of ``PROJECTIONS``; None for a single plane.
    """

    layers: tuple[tuple[Stack, int, int], ...]
    page: int | None
    channel: int | None
    projection: str | None

    def load(self, name: str) -> NDArray[np.generic]:
        """Decode and project the image: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.

        Raises:
            ImageError: The planes of a projection differ in size or type, or are far too many.
        """
        pixels = sum(stack.size[0] * stack.size[1] for stack, _, _ in self.layers)
        if pixels > MAX_PROJECTED_PIXELS:
            raise ImageError(
                f"{name}: {len(self.layers)} planes with {pixels} pixels are far too many to "
                f"project; choose one with --page {PYTHON_ARGUMENTS}"
            )
        projected: NDArray[np.generic] | None = None
        for stack, frame, plane in self.layers:
            if self.channel is None or stack.channels == 1:
                array = stack.load(frame, plane, 0)
                if self.channel is not None:
                    array = _extract_colour(array, self.channel - 1)
            else:
                array = stack.load(frame, plane, self.channel - 1)
            if projected is None:
                projected = array
                continue
            if projected.shape != array.shape or projected.dtype != array.dtype:
                raise ImageError(
                    f"{name}: {projected.shape} {projected.dtype} and {array.shape} {array.dtype} "
                    f"cannot be projected; choose one with --page {PYTHON_ARGUMENTS}"
                )
            projected = PROJECTIONS[self.projection or "max"](projected, array)
        assert projected is not None  # there is at least one layer
        return projected


def _extract_colour(array: NDArray[np.generic], colour: int) -> NDArray[np.generic]:
    """Return one colour of ``(H, W, 3)`` as grey, or of ``(H, W, 4)`` as RGBA."""
    if array.shape[2] == 4:
        return np.stack([array[..., colour]] * 3 + [array[..., 3]], axis=-1)
    return array[..., colour]


def select_images(
    stacks: Sequence[Stack],
    name: str,
    page: int | None = None,
    channel: int | None = None,
    projection: str | None = None,
) -> list[Selection]:
    """Select images of a file, in the order of the file.

    Args:
        stacks: Contents of the file, at least one stack.
        name: Name of the file in error messages.
        page: Select this page only, from 1. Frames and z-planes count as pages: frame by frame,
            each from its first z-plane to the last.
        channel: Channel from 1; of a colour image 1 is red, 2 green and 3 blue.
        projection: ``"max"`` or ``"min"`` over the z-planes; without z-planes over the frames;
            without either over the pages. A single plane is not changed.

    Raises:
        ImageError: An argument is missing, or the file does not hold the selected image. The
            message lists the contents and the arguments.
    """
    if projection is not None and projection not in PROJECTIONS:
        raise ImageError(
            f"{name}: projection {projection!r} is not known; give {' or '.join(PROJECTIONS)}"
        )
    for word, number in (("page", page), ("channel", channel)):
        if number is not None and not (_is_integer(number) and number >= 1):
            raise ImageError(f"{name}: {word} {number} does not exist; {word}s are counted from 1")
    images = _list_projections(stacks) if projection else _list_planes(stacks)
    if page is not None and page > len(images):
        raise ImageError(
            f"{name}: there is no page {page}, the file holds {describe_contents(stacks)}"
            f"{' to project' if projection else ''}; {_suggest('page', len(images))}"
        )
    selected = list(enumerate(images, start=1))[
        slice(None) if page is None else slice(page - 1, page)
    ]
    has_planes = any(stack.planes > 1 for stack in stacks)
    has_frames = any(stack.frames > 1 for stack in stacks)
    has_layers = (has_frames and has_planes) if projection else (has_frames or has_planes)
    channels = max(stack.channels for _, layers in selected for stack, _, _ in layers)
    missing = []
    if len(selected) > 1 and has_layers:
        or_projection = "" if projection else " or --projection max"
        missing.append(f"--page N (1 to {len(images)}){or_projection}")
    if channels > 1 and channel is None:
        missing.append(f"--channel N (1 to {channels})")
    if missing:
        raise ImageError(
            f"{name}: holds {describe_contents(stacks)}; select one image with "
            f"{' and '.join(missing)} {PYTHON_ARGUMENTS}"
        )
    return [
        Selection(
            layers,
            page=number if len(images) > 1 else None,
            channel=_resolve_channel(layers, channel, name),
            projection=projection if len(layers) > 1 else None,
        )
        for number, layers in selected
    ]


def select_single_image(stacks: Sequence[Stack], name: str) -> Selection:
    """Return the only image of a file.

    Raises:
        ImageError: The file holds several; the message lists them and how to select one.
    """
    if len(stacks) == 1 and stacks[0].frames == stacks[0].planes == stacks[0].channels == 1:
        return Selection(((stacks[0], 0, 0),), None, None, None)
    selections = select_images(stacks, name)
    if len(selections) > 1:
        raise ImageError(
            f"{name}: holds {describe_contents(stacks)}; select one image with --page N (1 to "
            f"{len(selections)}) or --projection max {PYTHON_ARGUMENTS}, or save it as a file of "
            "its own"
        )
    return selections[0]


def describe_contents(stacks: Sequence[Stack]) -> str:
    """Return a text such as ``"2 frames of 5 z-planes in 2 channels (FITC, DAPI)"``."""
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
        if any(first.channel_names):
            channels += f" ({', '.join(first.channel_names)})"
        text = f"{text} in {channels}" if text else channels
    return text or "one image"


def check_size(name: str, height: int, width: int, pixel_bytes: int = 1) -> None:
    """Check that an image is no larger than a metaphase can be, before memory is allocated.

    Args:
        name: Name of the image in error messages.
        height: Height in pixels, from the header.
        width: Width in pixels, from the header.
        pixel_bytes: Bytes of all samples of a pixel.

    Raises:
        ImageError: The image is far too large.
    """
    if height * width > MAX_PIXELS or height * width * pixel_bytes > MAX_IMAGE_BYTES:
        raise ImageError(
            f"{name}: far too large for a crop or metaphase ({width}x{height} pixels); cut the "
            "cell out first"
        )


def full_size_indices(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Return the indices of the images that are neither previews nor reduced copies.

    A preview has at most a sixteenth of the pixels of a large image. Reduced copies halve the
    largest image repeatedly, at least twice; a single image of half the size may be another image.

    Args:
        sizes: Height and width of each image.
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


def apply_orientation(image: NDArray[np.generic], orientation: object) -> NDArray[np.generic]:
    """Turn and mirror an image by its Orientation (TIFF, EXIF); 2 to 8 change it, others do not."""
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
    """Return a text with unprintable characters replaced by their escapes."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _suggest(word: str, count: int) -> str:
    """Return a remedy for a page or channel that does not exist."""
    remedy = f"leave the {word} out"
    return f"{remedy} or give 1 to {count} {PYTHON_ARGUMENTS}" if count > 1 else remedy


def _is_integer(number: object) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _list_planes(stacks: Sequence[Stack]) -> list[tuple[tuple[Stack, int, int], ...]]:
    """Return each plane of each frame as an image of its own."""
    return [
        ((stack, frame, plane),)
        for stack in stacks
        for frame in range(stack.frames)
        for plane in range(stack.planes)
    ]


def _list_projections(stacks: Sequence[Stack]) -> list[tuple[tuple[Stack, int, int], ...]]:
    """Return the planes of each projection: over z-planes, else frames, else pages."""
    if any(stack.planes > 1 for stack in stacks):
        return [
            tuple((stack, frame, plane) for plane in range(stack.planes))
            for stack in stacks
            for frame in range(stack.frames)
        ]
    if any(stack.frames > 1 for stack in stacks):
        return [tuple((stack, frame, 0) for frame in range(stack.frames)) for stack in stacks]
    return [tuple((stack, 0, 0) for stack in stacks)]


def _resolve_channel(
    layers: tuple[tuple[Stack, int, int], ...], channel: int | None, name: str
) -> int | None:
    """Return the channel to extract; None if the layers have a single one."""
    if channel is None:
        return None
    count = min(max(stack.channels, stack.colours) for stack, _, _ in layers)
    if channel > count:
        has = f"{count} channels" if count > 1 else "one channel"
        raise ImageError(
            f"{name}: there is no channel {channel}, the image has {has}; "
            f"{_suggest('channel', count)}"
        )
    return channel if count > 1 else None
