"""Reading of images of all common kinds as one grey plane, with errors that name the file.

Formats are an allow-list with pure decoders: PNG, TIFF, JPEG, JPEG 2000, BMP, GIF and WebP,
recognised by their first bytes (:mod:`chromozoo.images.formats`). No other format is opened, least
of all one that runs a program (EPS) or fetches data.
"""

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from chromozoo.errors import ImageError
from chromozoo.images.contents import (
    Stack,
    check_size,
    printable,
    select_images,
    select_single_image,
)
from chromozoo.images.formats import (
    HEAD_BYTES,
    PILLOW_FORMATS,
    SUPPORTED_NAMES,
    TIFF,
    supported_format,
    unsupported_format,
)
from chromozoo.images.grey import to_grey
from chromozoo.images.raster import pillow_pixels, raster_stacks


@dataclass(frozen=True)
class ImagePage:
    """One image of a file with several, as :func:`list_images` returns it.

    Attributes:
        path: The file.
        page: Number of the page, frame or z-plane, from 1; None if there is a single one.
        channel: Number of the channel, from 1; None if there is a single one.
        projection: ``"max"`` or ``"min"`` over the z-planes; None without a projection.
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
        """Suffix that distinguishes its results from the file's other images: ``page2-max``."""
        parts = [f"page{self.page}"] if self.page is not None else []
        parts += [f"channel{self.channel}"] if self.channel is not None else []
        parts += [self.projection] if self.projection is not None else []
        return "-".join(parts)


ImageSource: TypeAlias = str | Path | ImagePage | Image.Image | NDArray[np.generic]

IMAGE_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".jp2", ".j2k"})

# A chromosome of 3x3 pixels cannot be distinguished from dust.
MIN_SIDE = 4
# Differences and sums of such values still fit into float32.
MAX_VALUE = 1e30


def read_grey(source: ImageSource, name: str | None = None) -> NDArray[np.float32]:
    """Read a file, PIL image or array as one grey plane.

    Args:
        source: A file path, or one image of a file (:class:`ImagePage`); a PIL image of any mode,
            which is read again from its file unless it has been loaded; an array ``(H, W)``,
            ``(H, W, 1)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA of any integer or float type; or
            a torch tensor ``(H, W)`` or ``(C, H, W)``.
        name: Name of the image in error messages; the path by default.

    Returns:
        ``(H, W)`` float32 in the units of the source (0..255 for 8 bit, 0..65535 for 16 bit),
        upright according to its Orientation. MinIsWhite values are inverted: unsigned ones from
        their highest value, signed ones to their complement, floats to their negative. Integers
        beyond 2**24, and doubles that vary little compared with their size, are returned less their
        lowest value, so that differences are exact. Transparent pixels take the level that the rim
        of the visible part fades into.

    Raises:
        ImageError: The file is missing, empty, damaged, not an image, of an unsupported kind, or
            holds several images; the array has an unsupported shape or type, NaN, masked pixels, or
            a side below 4 pixels. The message begins with the name.
    """
    if isinstance(source, str | Path | ImagePage):
        name = printable(name or str(source))
        array = _read_file(source, name)
    elif isinstance(source, Image.Image):
        name = printable(name or "PIL image")
        with _image_errors(name):
            array = _read_pil_image(source, name)
    else:
        name = printable(name or "array")
        array = _read_array(source, name)
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        raise ImageError(
            f"{name}: an image of shape {array.shape} cannot be read as grey; "
            "give (H, W), (H, W, 3) or (H, W, 4)"
        )
    if array.dtype.kind not in "buif":
        raise ImageError(
            f"{name}: values of type {array.dtype} are not grey values; give integers or floats"
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
        raise ImageError(f"{name}: the image holds NaN or infinite values; replace them first")
    return to_grey(array)


def list_images(
    path: str | Path,
    *,
    page: int | None = None,
    channel: int | None = None,
    projection: str | None = None,
) -> list[Path | ImagePage]:
    """List the images of a file for :func:`read_grey`; only headers are read.

    A file with a single image gives its path. Pages that are separate images give one each: those
    of a TIFF without axes, and full-size images of an MPO. Of z-planes, channels and frames (OME,
    ImageJ, tifffile, MetaMorph and LSM; animated PNG, GIF and WebP) one image has to be selected.
    Previews, masks and the reduced copies of a pyramid are left out.

    Args:
        path: The file.
        page: Select this page only, from 1. Frames and z-planes count as pages.
        channel: Channel from 1; of a colour image 1 is red, 2 green and 3 blue.
        projection: ``"max"`` (bright chromosomes) or ``"min"`` (dark ones) over the z-planes;
            without z-planes over the frames, without either over the pages. A single plane is not
            changed.

    Raises:
        ImageError: The file cannot be read; a selection is missing, and the message lists the
            contents and the arguments; or the file does not hold the selected image.
    """
    name = printable(str(path))
    with _open_file(path, name) as stream, _image_errors(name):
        selections = select_images(_read_stacks(stream, name), name, page, channel, projection)
    return [
        ImagePage(Path(path), one.page, one.channel, one.projection)
        if (one.page, one.channel, one.projection) != (None, None, None)
        else Path(path)
        for one in selections
    ]


def read_bytes(data: bytes, name: str) -> NDArray[np.generic]:
    """Decode the bytes of an image file to ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``, upright.

    Raises:
        ImageError: The data are empty, damaged, not an image, of an unsupported kind, far too
            large, or hold several images.
    """
    name = printable(name)
    with _image_errors(name):
        return select_single_image(_read_stacks(io.BytesIO(data), name), name).load(name)


def _read_file(source: str | Path | ImagePage, name: str) -> NDArray[np.generic]:
    """Decode the image of a path, or one image of a file with several."""
    page = source if isinstance(source, ImagePage) else ImagePage(Path(source))
    with _open_file(page.path, name) as stream, _image_errors(name):
        stacks = _read_stacks(stream, name)
        if (page.page, page.channel, page.projection) == (None, None, None):
            return select_single_image(stacks, name).load(name)
        selections = select_images(stacks, name, page.page, page.channel, page.projection)
        if len(selections) > 1:
            return select_single_image(stacks, name).load(name)  # raises that a page is missing
        return selections[0].load(name)


@contextmanager
def _open_file(path: str | Path, name: str) -> Iterator[BinaryIO]:
    """Open a regular file; opening a FIFO would block, and a device may do anything."""
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
def _image_errors(name: str) -> Iterator[None]:
    """Turn the errors of decoders, a dozen kinds, into :class:`ImageError`; drop their warnings."""
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
        # Pillow's own message would name an object in memory.
        is_unknown = isinstance(error, UnidentifiedImageError)
        reason = "its header is broken" if is_unknown else printable(str(error))[:200]
        raise ImageError(
            f"{name}: the file is damaged or not an image ({reason}); "
            "export it again as PNG or TIFF"
        ) from error


def _read_stacks(stream: BinaryIO, name: str) -> list[Stack]:
    """Return the contents of a file from its headers; see :mod:`chromozoo.images.contents`.

    Raises:
        ImageError: The file is empty, of an unsupported format, damaged or far too large.
    """
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    if not head:
        raise ImageError(f"{name}: the file is empty (0 bytes); export the image again")
    kind = supported_format(head)
    if kind is None:
        unsupported = unsupported_format(head)
        if unsupported is None:
            raise ImageError(
                f"{name}: the file is damaged or not an image (unknown format); export it again "
                "as PNG or TIFF"
            )
        raise ImageError(
            f"{name}: its format is {unsupported}, which is not supported; export it as "
            f"{SUPPORTED_NAMES}"
        )
    if kind == TIFF:
        # The import takes half a second, which runs without TIFF files save.
        from chromozoo.images.tiff import tiff_stacks

        return tiff_stacks(stream, name)
    return raster_stacks(stream, kind, name)


def _read_pil_image(image: Image.Image, name: str) -> NDArray[np.generic]:
    """Return the pixels of a PIL image, from its file unless they have been decoded.

    Reading the file again keeps 16 bits and the choice of pages.

    Raises:
        ImageError: The file has an unsupported format, or holds several images and ``seek`` has
            selected none.
    """
    check_size(name, image.height, image.width, len(image.getbands()))
    if not isinstance(image, ImageFile.ImageFile):
        return pillow_pixels(image)
    is_undecoded = bool(image.tile)
    if image.format not in PILLOW_FORMATS and (
        is_undecoded or isinstance(image, ImageFile.StubImageFile)
    ):
        raise ImageError(
            f"{name}: its format is {image.format}, which is not supported; give it as "
            f"{SUPPORTED_NAMES}"
        )
    stream: Any = getattr(image, "fp", None) or getattr(image, "_fp", None)
    if not hasattr(type(stream), "read") or getattr(stream, "closed", False):
        return pillow_pixels(image)
    if not (is_undecoded or getattr(image, "is_animated", False)):
        return pillow_pixels(image)
    position = stream.tell()
    try:
        stacks = _read_stacks(stream, name)
        frame = image.tell()
        if frame == 0:
            selection = select_single_image(stacks, name)
        elif sum(stack.frames * stack.planes for stack in stacks) == image.n_frames:  # type: ignore[attr-defined]
            (selection,) = select_images(stacks, name, page=frame + 1)
        else:
            is_undecoded = False  # Pillow also counts previews, and this frame may be one
        if is_undecoded:
            return selection.load(name)
    finally:
        stream.seek(position)
    return pillow_pixels(image)


def _read_array(source: Any, name: str) -> NDArray[np.generic]:
    """Convert an array, a masked array without masked pixels or a torch tensor to an array."""
    if isinstance(source, np.ma.MaskedArray):
        if np.ma.is_masked(source):
            raise ImageError(f"{name}: some pixels are masked; fill them first")
        source = source.data
    try:
        if hasattr(source, "detach") and hasattr(source, "cpu"):  # a torch tensor
            source = source.detach().cpu()
            if str(source.dtype) == "torch.bfloat16":  # numpy has no such type
                source = source.float()
            source = source.numpy()
            if source.ndim == 3 and source.shape[0] in (1, 3, 4):
                source = np.moveaxis(source, 0, -1)  # torch has the channels first
        return np.asarray(source)
    except Exception as error:  # rows of unequal length, a sparse tensor, ...
        raise ImageError(
            f"{name}: this is not an image ({printable(str(error))[:200]}); give an array (H, W)"
        ) from error
