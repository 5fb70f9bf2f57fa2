"""Reading images of any common kind into one grey array, with an error that names the file.

Formats are an allow-list of pure decoders: PNG, TIFF, JPEG, JPEG 2000, BMP, GIF and WebP, known by
their first bytes and never by their name. Nothing else is opened, least of all what runs a program
(EPS), fetches or interprets something. Pillow reads what it reads rightly; tifffile and imagecodecs
the rest: TIFF, JPEG 2000, and PNG of 16-bit colours.
"""

import io
import os
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from chromozoo.errors import ImageError
from chromozoo.images.codestreams import jpeg2000_header
from chromozoo.images.contents import (
    MAX_IMAGE_BYTES,
    Stack,
    check_size,
    choose,
    only_one,
    oriented,
    printable,
    without_copies,
)


@dataclass(frozen=True)
class ImagePage:
    """One image of a file that holds several, as :func:`images_of` lists them.

    Attributes:
        path: The file.
        page: Number of the page, frame or z-plane, from 1; None where there is one alone.
        channel: Number of the channel, from 1; None where there is one alone.
        projection: ``"max"`` or ``"min"`` over the z-planes; None where there is one alone.
    """

    path: Path
    page: int | None = None
    channel: int | None = None
    projection: str | None = None

    def __str__(self) -> str:
        parts = [f"page {self.page}"] if self.page is not None else []
        parts += [f"channel {self.channel}"] if self.channel is not None else []
        parts += [f"{self.projection} projection"] if self.projection is not None else []
        return f"{self.path} ({', '.join(parts)})" if parts else str(self.path)

    @property
    def suffix(self) -> str:
        """What sets its results apart from those of the file's other images: ``page2-max``."""
        parts = [f"page{self.page}"] if self.page is not None else []
        parts += [f"channel{self.channel}"] if self.channel is not None else []
        parts += [self.projection] if self.projection is not None else []
        return "-".join(parts)


ImageSource: TypeAlias = str | Path | ImagePage | Image.Image | NDArray[np.generic]

IMAGE_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".jp2", ".j2k"})

# A single chromosome of 3x3 pixels cannot be told from dust.
MIN_SIDE = 4
# Differences and sums of such values still fit into float32.
MAX_VALUE = 1e30
# Whole numbers up to here are exact in float32.
MAX_EXACT_INTEGER = 2**24
# Signed ones of 16 bits count as 24; beyond, the decoder's arithmetic is not exact.
MAX_JPEG2000_BITS = 24
# Pixels that are converted at a time: a slide's worth of float32 colours would fill the memory.
BLOCK = 2**22

HEAD = 16
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG, TIFF, JPEG, JPEG2000 = "PNG", "TIFF", "JPEG", "JPEG2000"
# Formats by their first bytes: those that are read, by their name in Pillow ...
READ = {
    PNG_START: PNG,
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
    b"\xff\xd8\xff": JPEG,
    b"\0\0\0\x0cjP  \r\n\x87\n": JPEG2000,
    b"\xff\x4f\xff\x51": JPEG2000,
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
}
# ... and those that are refused by their name.
REFUSED = {
    b"%!PS": "EPS or PostScript",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"%PDF": "PDF",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\x01\0\0\0": "EMF",
    b"8BPS": "PSD (Photoshop)",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"P1": "PNM",
    b"P2": "PGM",
    b"P3": "PPM",
    b"P4": "PBM",
    b"P5": "PGM",
    b"P6": "PPM",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"ZISRAWFILE": "CZI (Zeiss)",
    b"\x70\0\0\0": "LIF (Leica)",
    b"\xda\xce\xbe\x0a": "ND2 (Nikon)",
    b"\0\0\0\x0cjP  \x1a\x1a": "ND2 (Nikon)",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "GZIP",
    b"\x89HDF": "HDF5",
    b"SIMPLE  =": "FITS",
    b"\0\0\x01\0": "ICO",
}
# What Pillow may call an image of a format that is read.
OPENED = {*READ.values(), "MPO", "WEBP"}
MP_ENTRIES = 0xB002  # tag of an MPO: what each of its images is
ORIENTATION = 0x0112  # tag of TIFF and EXIF
# Where Pillow keeps what it takes the Orientation from.
EXIF = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
READABLE = "PNG, TIFF, JPEG, JPEG 2000, BMP, GIF or WebP"


def read_grey(source: ImageSource, name: str | None = None) -> NDArray[np.float32]:
    """Reads a path, PIL image or array as one grey plane.

    Args:
        source: A file path, or one image of a file (:class:`ImagePage`); a PIL image of any mode,
            which is read again from its file where it has not been loaded yet; or an array
            ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA of any integer or
            float type; or a tensor ``(H, W)`` or ``(C, H, W)`` of torch.
        name: What errors call the image; the path itself when None.

    Returns:
        ``(H, W)`` float32 in the units of the source (0..255 for 8 bit, 0..65535 for 16 bit),
        upright as its Orientation says. Of MinIsWhite the values are turned over: unsigned ones to
        their highest value less themselves, signed ones to their complement, floats to their
        negative. Whole numbers beyond 2**24, and doubles that vary little against their size, lose
        their lowest value, so that the signal is exact. Transparent pixels take the level that the
        rim of the visible part fades into.

    Raises:
        ImageError: The file is missing, empty, damaged, not an image, of a format or kind that is
            not read, or holds several images; the array has another shape or type, NaN, masked
            pixels, or a side below 4 pixels. The message begins with the name.
    """
    if isinstance(source, str | Path | ImagePage):
        name = printable(name or str(source))
        array = _read_file(source, name)
    elif isinstance(source, Image.Image):
        name = printable(name or "PIL image")
        with _decoding(name):
            array = _of_pil_image(source, name)
    else:
        name = printable(name or "array")
        array = _of_array(source, name)
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        raise ImageError(
            f"{name}: an image of shape {array.shape} cannot be read as grey; "
            "give (H, W), (H, W, 3) or (H, W, 4)"
        )
    if array.dtype.kind not in "buif":
        raise ImageError(
            f"{name}: values of type {array.dtype} are no grey values; give integers or floats"
        )
    if min(array.shape[:2]) < MIN_SIDE:
        raise ImageError(
            f"{name}: the image is {array.shape[1]}x{array.shape[0]} pixels, too small to show a "
            f"chromosome; give a crop of at least {MIN_SIDE}x{MIN_SIDE}"
        )
    check_size(name, *array.shape[:2])
    # Comparisons with NaN are false.
    if array.dtype.kind == "f" and not (
        float(array.min()) > -MAX_VALUE and float(array.max()) < MAX_VALUE
    ):
        raise ImageError(f"{name}: the image holds NaN or infinite values; mend it first")
    return _to_grey(array)


def images_of(
    path: str | Path,
    *,
    page: int | None = None,
    channel: int | None = None,
    projection: str | None = None,
) -> list[Path | ImagePage]:
    """The images that a file gives, each of which :func:`read_grey` takes; only headers are read.

    A file with one image gives its path. Pages that are images of their own give one each: those
    of a TIFF that names no axes, and full-size images of an MPO. Of z-planes, channels and
    frames (OME, ImageJ, tifffile, MetaMorph and LSM; animated PNG, GIF and WebP) one image has to
    be chosen. Previews, masks and the reduced copies of a pyramid are left out.

    Args:
        path: The file.
        page: The only one that is wanted, from 1. Frames and z-planes are pages, too.
        channel: From 1. Of an image in colour 1 is red, 2 green and 3 blue.
        projection: ``"max"`` (bright chromosomes) or ``"min"`` (dark ones) over the z-planes;
            where there are none over the frames, else over the pages. A file with one plane stays
            as it is.

    Raises:
        ImageError: The file cannot be read; a choice is missing, and the message says what the
            file holds and how to choose; or it does not hold what was chosen.
    """
    name = printable(str(path))
    with _opened(path, name) as stream, _decoding(name):
        selections = choose(_stacks(stream, name), name, page, channel, projection)
    return [
        ImagePage(Path(path), one.page, one.channel, one.projection)
        if (one.page, one.channel, one.projection) != (None, None, None)
        else Path(path)
        for one in selections
    ]


def read_bytes(data: bytes, name: str) -> NDArray[np.generic]:
    """Decodes an image file's bytes to ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``, upright.

    Raises:
        ImageError: Empty, damaged, not an image, of a format or kind that is not read, far too
            large, or several images.
    """
    name = printable(name)
    with _decoding(name):
        return only_one(_stacks(io.BytesIO(data), name), name).load(name)


def _read_file(source: str | Path | ImagePage, name: str) -> NDArray[np.generic]:
    page = source if isinstance(source, ImagePage) else ImagePage(Path(source))
    with _opened(page.path, name) as stream, _decoding(name):
        stacks = _stacks(stream, name)
        if (page.page, page.channel, page.projection) == (None, None, None):
            return only_one(stacks, name).load(name)
        found = choose(stacks, name, page.page, page.channel, page.projection)
        if len(found) > 1:
            return only_one(stacks, name).load(name)  # says that a page has to be chosen
        return found[0].load(name)


@contextmanager
def _opened(path: str | Path, name: str) -> Iterator[BinaryIO]:
    """Opens regular files alone: a FIFO would block, and a device do whatever it does."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = None
    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - of any text, even with NUL
            descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{name}: no such image file; check the path") from error
    except (OSError, ValueError) as error:  # no permission, a loop of links, a name too long, NUL
        reason = printable(str(getattr(error, "strerror", None) or error))
        raise ImageError(f"{name}: the file cannot be read ({reason}); check the path") from error
    if descriptor is None:
        raise ImageError(
            f"{name}: no such image file, but a folder or device; give the path of a file"
        )
    with open(descriptor, "rb") as stream:  # noqa: PTH123 - of a descriptor
        yield stream


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Decoders raise a dozen kinds of errors (SyntaxError among them), and warn, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: far too large for a crop or metaphase ({error}); cut the cell out first"
        ) from error
    except MemoryError as error:
        raise ImageError(
            f"{name}: there is not enough memory to decode the image; cut the cell out first"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError(
                f"{name}: the file cannot be read ({error.strerror}); check the disk"
            ) from error
        # Pillow's own words would name an object in memory.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "its header is broken" if unknown else printable(str(error))[:200]
        raise ImageError(
            f"{name}: the file is damaged or not an image ({reason}); "
            "export it again as PNG or TIFF"
        ) from error


def _stacks(stream: BinaryIO, name: str) -> list[Stack]:
    """What a file holds, by its headers; see :mod:`chromozoo.images.contents`.

    Raises:
        ImageError: It is empty, of a format that is not read, damaged or far too large.
    """
    stream.seek(0)
    head = stream.read(HEAD)
    if not head:
        raise ImageError(f"{name}: the file is empty (0 bytes); export the image again")
    kind = _format(head)
    if kind is None:
        refused = next((word for start, word in REFUSED.items() if head.startswith(start)), None)
        if head[4:8] == b"ftyp":
            refused = "HEIC, AVIF or video"
        elif refused is None and stream.seek(128) and stream.read(4) == b"DICM":
            refused = "DICOM"
        if refused is None:
            raise ImageError(
                f"{name}: the file is damaged or not an image (unknown format); export it again "
                "as PNG or TIFF"
            )
        raise ImageError(
            f"{name}: its format is {refused}, which is not opened, whatever it is called; export "
            f"it as {READABLE}"
        )
    if kind == TIFF:
        # Half a second that runs without a TIFF do not spend.
        from chromozoo.images.tiff import tiff_stacks

        return tiff_stacks(stream, name)
    return _raster_stacks(stream, kind, name)


def _format(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for start, kind in READ.items() if head.startswith(start)), None)


def _raster_stacks(stream: BinaryIO, kind: str, name: str) -> list[Stack]:
    """What a file of Pillow's formats holds: one image, an animation, or the images of an MPO."""
    stream.seek(0)
    image = Image.open(stream, formats=[kind])
    size = image.height, image.width
    # Of a PNG, Pillow drops the low bits of deep colours and knows transparent ones by halves.
    odd = kind == PNG and (
        (image.mode in ("RGB", "RGBA") and "16" in str(image.tile[0][3]))
        or ("transparency" in image.info and image.mode != "P")
    )
    bands = len(image.getbands())
    check_size(name, *size, 2 * bands if odd else bands)
    colours = 3 if bands >= 3 else 1
    if kind == JPEG2000:
        return [_jpeg2000(stream, image, name)]
    frames = int(getattr(image, "n_frames", 1))
    if frames == 1:

        def load(*_: int) -> NDArray[np.generic]:
            return _png(stream, image, odd) if kind == PNG else _pixels(image)

        return [Stack(load, size, colours=colours)]

    def frame(number: int) -> NDArray[np.generic]:
        stream.seek(0)
        with Image.open(stream, formats=[kind]) as whole:
            whole.seek(number)
            # The frames of a GIF come in several modes.
            return _pixels(whole.convert("RGBA") if kind == "GIF" else whole)

    if kind != JPEG:
        if odd:
            raise ImageError(
                f"{name}: an animation of 16 bits or with a transparent colour is not read; save "
                "its frames as files of their own"
            )
        return [Stack(lambda t, *_: frame(t), size, frames=frames, colours=colours)]
    sizes = []
    for number in range(frames):
        image.seek(number)
        sizes.append((image.height, image.width))
        check_size(name, *sizes[-1], len(image.getbands()))
    entries = getattr(image, "mpinfo", {}).get(MP_ENTRIES, [])
    kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
    return [
        Stack(lambda *_, number=number: frame(number), sizes[number], colours=colours)
        for number in without_copies(sizes)
        if not kinds[number].startswith("Large Thumbnail")
    ]


def _png(stream: BinaryIO, image: Image.Image, odd: bool) -> NDArray[np.generic]:
    _check_sums(stream)
    pixels = _pixels(image)
    if not odd:
        return pixels
    import imagecodecs

    stream.seek(0)
    array = np.asarray(imagecodecs.png_decode(stream.read()))
    return oriented(_with_colours(array), _orientation(image))


def _check_sums(stream: BinaryIO) -> None:
    """The checksums of a PNG, which loading ignores; Pillow's ``verify`` needs to open it twice.

    Raises:
        ValueError: One is wrong, or the file ends before its end.
    """
    stream.seek(len(PNG_START))
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


def _jpeg2000(stream: BinaryIO, image: Image.Image, name: str) -> Stack:
    stream.seek(0)
    data = stream.read(MAX_IMAGE_BYTES)
    height, width, components, bits = jpeg2000_header(data)
    deep = bits > 8
    check_size(name, height, width, components * (2 if deep else 1))
    if components > 4 or bits > MAX_JPEG2000_BITS:
        raise ImageError(
            f"{name}: {components} samples a pixel of {bits} bits are not read in JPEG 2000; "
            "export it as 8 or 16 bit, grey or RGB"
        )

    def load(*_: int) -> NDArray[np.generic]:
        if not deep:
            return _pixels(image)
        import imagecodecs

        return _with_colours(np.asarray(imagecodecs.jpeg2k_decode(data)))

    return Stack(load, (height, width), colours=3 if components >= 3 else 1)


def _with_colours(array: NDArray[Any]) -> NDArray[np.generic]:
    """Grey with alpha ``(H, W, 2)`` as RGBA; others as they are."""
    if array.ndim == 3 and array.shape[2] == 2:
        return array[..., [0, 0, 0, 1]]
    return array


def _pixels(image: Image.Image) -> NDArray[np.generic]:
    """Decodes an image of Pillow: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``, upright."""
    image.load()
    orientation = _orientation(image)
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        transparent = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "RGBa") or (
        image.mode in ("1", "L", "RGB") and "transparency" in image.info
    ):
        image = image.convert("RGBA")
    if image.mode == "1":
        image = image.convert("L")
    return oriented(np.asarray(image), orientation)


def _orientation(image: Image.Image) -> object:
    """Of a loaded image; None where its file says nothing of it."""
    if image.format != "TIFF" and EXIF.isdisjoint(image.info):
        return None  # asking Pillow takes a while
    return image.getexif().get(ORIENTATION)


def _of_pil_image(image: Image.Image, name: str) -> NDArray[np.generic]:
    """The pixels of a PIL image; those of its file where they have not been decoded yet.

    So that 16 bits, pages and all else come as from the file itself.

    Raises:
        ImageError: Its file has another format than those that are read, or holds several images,
            of which none was chosen with ``seek``.
    """
    check_size(name, image.height, image.width, len(image.getbands()))
    if not isinstance(image, ImageFile.ImageFile):
        return _pixels(image)
    waiting = bool(image.tile)
    if image.format not in OPENED and (waiting or isinstance(image, ImageFile.StubImageFile)):
        raise ImageError(
            f"{name}: its format is {image.format}, which is not opened; give it as {READABLE}"
        )
    stream: Any = getattr(image, "fp", None) or getattr(image, "_fp", None)
    if not hasattr(type(stream), "read") or getattr(stream, "closed", False):
        return _pixels(image)
    if not (waiting or getattr(image, "is_animated", False)):
        return _pixels(image)
    position = stream.tell()
    try:
        stacks = _stacks(stream, name)
        frame = image.tell()
        if frame == 0:
            chosen = only_one(stacks, name)
        elif sum(stack.frames * stack.planes for stack in stacks) == image.n_frames:  # type: ignore[attr-defined]
            (chosen,) = choose(stacks, name, page=frame + 1)
        else:
            waiting = False  # Pillow counts previews, too, and this may be one
        if waiting:
            return chosen.load(name)
    finally:
        stream.seek(position)
    return _pixels(image)


def _of_array(source: Any, name: str) -> NDArray[np.generic]:
    if isinstance(source, np.ma.MaskedArray):
        if np.ma.is_masked(source):
            raise ImageError(f"{name}: some pixels are masked; fill them first")
        source = source.data
    try:
        if hasattr(source, "detach") and hasattr(source, "cpu"):  # a tensor of torch
            source = source.detach().cpu()
            if str(source.dtype) == "torch.bfloat16":  # numpy has no such type
                source = source.float()
            source = source.numpy()
            if source.ndim == 3 and source.shape[0] in (1, 3, 4):
                source = np.moveaxis(source, 0, -1)  # torch has the colours first
        return np.asarray(source)
    except Exception as error:  # rows of unequal length, a sparse tensor, ...
        raise ImageError(
            f"{name}: this is no image ({printable(str(error))[:200]}); give an array (H, W)"
        ) from error


def _to_grey(array: NDArray[Any]) -> NDArray[np.float32]:
    """Luminance ``(H, W)``; where there is alpha, what is transparent takes the background."""
    if array.ndim == 2 or array.shape[2] == 1:
        plane = array if array.ndim == 2 else array[..., 0]
        return _as_float32(plane, _offset(plane))
    colour = array[..., :3]
    offset = _offset(colour)
    grey = np.empty(array.shape[:2], np.float32)
    rows = max(BLOCK // array.shape[1], 1)
    for top in range(0, array.shape[0], rows):
        part = slice(top, top + rows)
        grey[part] = cv2.cvtColor(_as_float32(colour[part], offset), cv2.COLOR_RGB2GRAY)
    if array.shape[2] == 4 and (opaque := array[..., 3] > 0).any() and not opaque.all():
        edge = cv2.dilate((~opaque).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        rim = grey[opaque & edge]
        # The rim shades from the chromosome into the background: its far end comes nearest to it.
        bright = np.median(grey[opaque]) >= np.median(rim)
        grey[~opaque] = np.percentile(rim, 5 if bright else 95)
    return grey


def _offset(array: NDArray[Any]) -> int | float | None:
    """What has to be taken off the values so that float32 keeps their differences; mostly None."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "iu" and size >= 4:
        low, high = int(array.min()), int(array.max())
        return low if low and max(abs(low), abs(high)) > MAX_EXACT_INTEGER else None
    if kind == "f" and size > 4:
        start, end = float(array.min()), float(array.max())
        return start if end > start and max(abs(start), abs(end)) > 256 * (end - start) else None
    return None


def _as_float32(array: NDArray[Any], offset: int | float | None) -> NDArray[np.float32]:
    if isinstance(offset, int):
        # Unsigned differences are right even where the signed ones would not fit.
        array = array.astype(np.uint64) - np.uint64(offset % 2**64)
    elif offset is not None:
        array = array - offset
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
