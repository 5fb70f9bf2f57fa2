"""Images that Pillow opens: PNG, JPEG, JPEG 2000, BMP, GIF and WebP.

Pillow decodes what it decodes exactly; imagecodecs decodes deep PNG colours and deep JPEG 2000.
"""

import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chromozoo.errors import ImageError
from chromozoo.images.codestreams import jpeg2000_header
from chromozoo.images.contents import (
    MAX_IMAGE_BYTES,
    Stack,
    apply_orientation,
    check_size,
    full_size_indices,
)
from chromozoo.images.formats import JPEG, JPEG2000, PNG, PNG_SIGNATURE

# Signed values of 16 bits count as 24; the decoder's arithmetic is not exact for more.
MAX_JPEG2000_BITS = 24
MP_ENTRY_TAG = 0xB002  # MPO: kind of each of its images
ORIENTATION_TAG = 0x0112
# Keys under which Pillow stores metadata that may hold an Orientation.
ORIENTATION_SOURCES = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})


def raster_stacks(stream: BinaryIO, kind: str, name: str) -> list[Stack]:
    """Return the contents of a file: one image, an animation, or the images of an MPO.

    Args:
        stream: The file, which stays open while the stacks are loaded.
        kind: Pillow's name of its format.
        name: Name of the file in error messages.

    Raises:
        ImageError: The image is far too large or of an unsupported kind. Other errors, raised by
            Pillow, mean damage.
    """
    stream.seek(0)
    image = Image.open(stream, formats=[kind])
    size = image.height, image.width
    # Pillow drops the low bits of deep PNG colours, and handles transparent colours incompletely.
    needs_imagecodecs = kind == PNG and (
        (image.mode in ("RGB", "RGBA") and "16" in str(image.tile[0][3]))
        or ("transparency" in image.info and image.mode != "P")
    )
    bands = len(image.getbands())
    check_size(name, *size, 2 * bands if needs_imagecodecs else bands)
    colours = 3 if bands >= 3 else 1
    if kind == JPEG2000:
        return [_jpeg2000_stack(stream, image, name)]
    frames = int(getattr(image, "n_frames", 1))
    if frames == 1:

        def load(*_: int) -> NDArray[np.generic]:
            if kind == PNG:
                return _decode_png(stream, image, needs_imagecodecs)
            return pillow_pixels(image)

        return [Stack(load, size, colours=colours)]

    def load_frame(number: int) -> NDArray[np.generic]:
        stream.seek(0)
        with Image.open(stream, formats=[kind]) as animation:
            animation.seek(number)
            # The frames of a GIF come in several modes.
            return pillow_pixels(animation.convert("RGBA") if kind == "GIF" else animation)

    if kind != JPEG:
        if needs_imagecodecs:
            raise ImageError(
                f"{name}: an animation of 16 bits or with a transparent colour is not supported; "
                "save its frames as files of their own"
            )
        return [Stack(lambda t, *_: load_frame(t), size, frames=frames, colours=colours)]
    sizes = []
    for number in range(frames):
        image.seek(number)
        sizes.append((image.height, image.width))
        check_size(name, *sizes[-1], len(image.getbands()))
    entries = getattr(image, "mpinfo", {}).get(MP_ENTRY_TAG, [])
    kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
    return [
        Stack(lambda *_, number=number: load_frame(number), sizes[number], colours=colours)
        for number in full_size_indices(sizes)
        if not kinds[number].startswith("Large Thumbnail")
    ]


def pillow_pixels(image: Image.Image) -> NDArray[np.generic]:
    """Decode an image of Pillow: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``, upright."""
    image.load()
    orientation = _read_orientation(image)
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        is_transparent = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if is_transparent else "RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "RGBa") or (
        image.mode in ("1", "L", "RGB") and "transparency" in image.info
    ):
        image = image.convert("RGBA")
    if image.mode == "1":
        image = image.convert("L")
    return apply_orientation(np.asarray(image), orientation)


def _read_orientation(image: Image.Image) -> object:
    """Return the Orientation of a loaded image; None if its file has none."""
    if image.format != "TIFF" and ORIENTATION_SOURCES.isdisjoint(image.info):
        return None  # saves the slow call of getexif
    return image.getexif().get(ORIENTATION_TAG)


def _decode_png(
    stream: BinaryIO, image: Image.Image, needs_imagecodecs: bool
) -> NDArray[np.generic]:
    """Decode a PNG, with imagecodecs if Pillow would lose bits or transparency."""
    _verify_checksums(stream)
    pixels = pillow_pixels(image)
    if not needs_imagecodecs:
        return pixels
    import imagecodecs

    stream.seek(0)
    array = np.asarray(imagecodecs.png_decode(stream.read()))
    return apply_orientation(_expand_grey_alpha(array), _read_orientation(image))


def _verify_checksums(stream: BinaryIO) -> None:
    """Verify the checksums of a PNG; Pillow ignores them, and its ``verify`` reopens the file.

    Raises:
        ValueError: A checksum is wrong, or the file is truncated.
    """
    stream.seek(len(PNG_SIGNATURE))
    kind = b""
    while kind != b"IEND":
        head = stream.read(8)
        length = int.from_bytes(head[:4], "big")
        kind = head[4:]
        if len(head) < 8 or length > MAX_IMAGE_BYTES:
            raise ValueError("truncated PNG file")
        chunk = stream.read(length)
        if zlib.crc32(chunk, zlib.crc32(kind)) != int.from_bytes(stream.read(4), "big"):
            raise ValueError(f"broken PNG file (chunk {kind!r})")


def _jpeg2000_stack(stream: BinaryIO, image: Image.Image, name: str) -> Stack:
    """Return the stack of a JPEG 2000 image, which imagecodecs decodes beyond 8 bits."""
    stream.seek(0)
    data = stream.read(MAX_IMAGE_BYTES)
    height, width, components, bits = jpeg2000_header(data)
    is_deep = bits > 8
    check_size(name, height, width, components * (2 if is_deep else 1))
    if components > 4 or bits > MAX_JPEG2000_BITS:
        raise ImageError(
            f"{name}: JPEG 2000 with {components} samples per pixel of {bits} bits is not "
            "supported; export it as 8 or 16 bit, grey or RGB"
        )

    def load(*_: int) -> NDArray[np.generic]:
        if not is_deep:
            return pillow_pixels(image)
        import imagecodecs

        return _expand_grey_alpha(np.asarray(imagecodecs.jpeg2k_decode(data)))

    return Stack(load, (height, width), colours=3 if components >= 3 else 1)


def _expand_grey_alpha(array: NDArray[Any]) -> NDArray[np.generic]:
    """Expand grey with alpha ``(H, W, 2)`` to RGBA; return other arrays as they are."""
    if array.ndim == 3 and array.shape[2] == 2:
        return array[..., [0, 0, 0, 1]]
    return array
