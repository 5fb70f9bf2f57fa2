"""Decoding of planes of a TIFF file."""

import contextlib
import io
import logging
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chromozoo.errors import ImageError
from chromozoo.images.codestreams import jpeg2000_header, jpeg_size
from chromozoo.images.contents import apply_orientation
from chromozoo.images.tiff.pages import Page
from chromozoo.images.tiff.tags import (
    COLOURS,
    COMPRESSIONS,
    INK_SET_TAG,
    JPEG,
    JPEG2000,
    MAX_SAMPLES,
    MAX_TILE_PIXELS,
    MINISWHITE,
    ORIENTATION_TAG,
    PALETTE,
    PHOTOMETRIC_TAG,
    PNG,
    RGB,
    SEPARATED,
    UNSUPPORTED_PHOTOMETRICS,
    WEBP,
    YCBCR,
    damage_error,
)


class _LogFilter(logging.Filter):
    """Drops the log records of tifffile while this module reads a file in the same thread."""

    def __init__(self) -> None:
        super().__init__()
        self.state = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self.state, "is_reading", False)


_log_filter = _LogFilter()
logging.getLogger("tifffile").addFilter(_log_filter)


@contextlib.contextmanager
def silence_tifffile() -> Iterator[None]:
    """Drop log records of tifffile in this thread; damage is reported as an error instead."""
    before = getattr(_log_filter.state, "is_reading", False)
    _log_filter.state.is_reading = True
    try:
        yield
    finally:
        _log_filter.state.is_reading = before


class PlaneDecoder:
    """Decodes the planes of one file.

    Args:
        file: The ``tifffile.TiffFile``.
        name: Name of the file in error messages.
        file_bytes: Size of the file.
    """

    def __init__(self, file: Any, name: str, file_bytes: int) -> None:
        self.file = file
        self.name = name
        self.file_bytes = file_bytes

    def loader(
        self, planes: dict[tuple[int, int, int], tuple[Page, int]]
    ) -> Callable[[int, int, int], NDArray[np.generic]]:
        """Return a function that decodes by frame, z-plane and channel, each from 0."""

        def load(frame: int, plane: int, channel: int) -> NDArray[np.generic]:
            first = planes[0, 0, 0][0]
            z, depth = divmod(plane, first.depth)
            c, sample = divmod(channel, first.channels)
            page, number = planes[frame, z, c]
            with silence_tifffile():
                return self.decode(page, number, depth, sample)

        return load

    def decode(self, metadata: Page, number: int, depth: int, sample: int) -> NDArray[np.generic]:
        """Decode one plane: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``, upright.

        Args:
            metadata: The page.
            number: Number of the plane among those that are stored behind the page without pages
                of their own; 0 is the page itself.
            depth: z-plane within the page.
            sample: Channel within the page.
        """
        page = self.file.pages[metadata.index]
        self._check_page(page)
        samples = self._read_following(page, number) if number else page.asarray(maxworkers=1)
        separate, _, height, width, contiguous = page.shaped
        samples = samples.reshape(page.shaped)[:, depth]
        if separate > 1:
            samples = np.moveaxis(samples[..., 0], 0, -1)
        else:
            samples = samples.reshape(height, width, contiguous)
        image = self._to_image(samples, page, metadata, sample)
        return apply_orientation(image, page.tags.valueof(ORIENTATION_TAG))

    def _check_page(self, page: Any) -> None:
        """Check that a page is of a supported kind, and its data complete and not oversized."""
        name = self.name
        compression = int(page.compression)
        photometric = int(page.photometric)
        if compression not in COMPRESSIONS:
            kind = getattr(page.compression, "name", compression)
            raise ImageError(
                f"{name}: its compression {kind} is not supported; save it without compression"
            )
        if PHOTOMETRIC_TAG not in page.tags:
            raise damage_error(name, "it does not say what is black (PhotometricInterpretation)")
        if photometric not in COLOURS or (photometric == YCBCR and compression != JPEG):
            kind = UNSUPPORTED_PHOTOMETRICS.get(
                photometric, getattr(page.photometric, "name", photometric)
            )
            raise ImageError(
                f"{name}: its colours are stored as {kind}, which is not supported; export it as "
                "grey or RGB"
            )
        if photometric == YCBCR and page.planarconfig == 2:
            raise ImageError(f"{name}: planar YCbCr is not supported; export it as grey or RGB")
        if photometric == SEPARATED and page.tags.valueof(INK_SET_TAG, 1) != 1:
            raise ImageError(
                f"{name}: inks other than CMYK are not supported; export it as grey or RGB"
            )
        if page.dtype is None or page.dtype.kind not in "buif":
            raise ImageError(
                f"{name}: values of {page.bitspersample} bits in format {page.sampleformat!s} are "
                "not supported; export it as 8 or 16 bit"
            )
        if page.samplesperpixel > MAX_SAMPLES or page.samplesperpixel < COLOURS[photometric]:
            raise ImageError(
                f"{name}: {page.samplesperpixel} samples per pixel are not supported; export it as "
                "grey or RGB"
            )
        self._check_agreed_encoding(page, compression)
        if page.is_tiled:
            tile = page.tilelength * page.tilewidth * page.tiledepth
            if tile > max(
                4 * page.imagelength * page.imagewidth * page.imagedepth, MAX_TILE_PIXELS
            ):
                raise damage_error(name, f"tiles of {page.tilewidth}x{page.tilelength} pixels")
        segments = math.prod(page.chunked)
        offsets, counts = page.dataoffsets, page.databytecounts
        if not min(len(offsets), len(counts)) >= segments >= 1:
            raise damage_error(name, f"{segments} strips or tiles, but {len(offsets)} exist")
        for offset, count in zip(offsets[:segments], counts[:segments], strict=True):
            if count < 1 or offset < 8 or offset + count > self.file_bytes:
                raise damage_error(name, "the image data are incomplete")
        bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
        if compression == 1 and 8 * sum(counts[:segments]) < math.prod(page.shaped) * bits:
            raise damage_error(name, "the image data are incomplete")
        if compression in (JPEG, PNG, *JPEG2000, *WEBP):
            self._check_codestreams(page, segments)

    def _check_agreed_encoding(self, page: Any, compression: int) -> None:
        """Refuse encodings that programs, tifffile among them, write in contradictory ways."""
        bits = page.bitspersample
        is_big_endian = self.file.byteorder == ">"
        is_packed = bits not in (8, 16, 32, 64)
        if is_packed and page.predictor != 1:
            kind = f"{bits}-bit values with a predictor"
        elif is_packed and page.dtype.kind in "iu" and page.dtype.itemsize > 1 and is_big_endian:
            kind = f"big-endian {bits}-bit values"
        elif compression in JPEG2000 and page.dtype.itemsize > 1 and is_big_endian:
            kind = f"big-endian {bits}-bit values in JPEG 2000"
        elif compression in JPEG2000 and page.dtype.itemsize > 2:
            kind = f"{bits}-bit values in JPEG 2000"
        elif compression == JPEG and (bits != 8 or page.photometric == PALETTE):
            kind = f"{bits}-bit values in JPEG" if bits != 8 else "palettes in JPEG"
        elif bits == 1 and page.samplesperpixel > 1 and page.planarconfig == 1:
            kind = "1-bit colours"
        else:
            return
        raise ImageError(
            f"{self.name}: {kind} are not supported, because programs store them in different "
            "ways; export it again as 8 or 16 bit, little-endian"
        )

    def _check_codestreams(self, page: Any, segments: int) -> None:
        """Check that codes with a header of their own have the size of their strip or tile.

        The decoder would allocate the size that a header claims, and leave pixels of a smaller code
        empty.
        """
        tall = page.tilelength if page.is_tiled else page.rowsperstrip
        wide = page.tilewidth if page.is_tiled else page.imagewidth
        down, across = math.ceil(page.imagelength / tall), math.ceil(page.imagewidth / wide)
        stream = self.file.filehandle
        for index in range(segments):
            stream.seek(page.dataoffsets[index])
            data = stream.read(page.databytecounts[index])
            if page.compression == JPEG:
                height, width = jpeg_size(data)
            elif page.compression in JPEG2000:
                height, width = jpeg2000_header(data)[:2]
            else:
                with Image.open(io.BytesIO(data), formats=["PNG", "WEBP"]) as image:
                    width, height = image.size
            row, column = divmod(index % (down * across), across)
            # Segments at the edges may end with the image.
            rows_left, columns_left = page.imagelength - row * tall, page.imagewidth - column * wide
            if not (
                min(tall, rows_left) <= height <= tall and min(wide, columns_left) <= width <= wide
            ):
                raise damage_error(self.name, f"a strip or tile claims {width}x{height} pixels")

    def _read_following(self, page: Any, number: int) -> NDArray[np.generic]:
        """Read a plane that is stored behind its page."""
        stream = self.file.filehandle
        stream.seek(page.dataoffsets[0] + number * page.nbytes)
        data = stream.read(page.nbytes)
        if len(data) < page.nbytes:
            raise damage_error(self.name, f"plane {number + 1} is incomplete")
        return np.frombuffer(data, page.dtype.newbyteorder(self.file.byteorder))

    def _to_image(
        self, samples: NDArray[Any], page: Any, metadata: Page, sample: int
    ) -> NDArray[np.generic]:
        """Convert the samples ``(H, W, S)`` of a page to grey, RGB or RGBA."""
        if samples.dtype.kind == "b":
            samples = samples.astype(np.uint8)
        bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
        highest: Any = 1.0
        if samples.dtype.kind in "ui":
            highest = int(np.iinfo(samples.dtype).max) if samples.dtype.kind == "i" else 2**bits - 1
        if metadata.photometric == PALETTE:
            image = np.stack([part[samples[..., 0]] for part in page.colormap], axis=-1)
        elif metadata.photometric in (RGB, YCBCR):
            image = samples[..., :3]
            if metadata.samples > 4:
                raise ImageError(
                    f"{self.name}: an RGB image with {metadata.samples} samples per pixel is not "
                    "supported; export it as grey or RGB"
                )
        elif metadata.photometric == SEPARATED:
            image = _cmyk_to_rgb(samples[..., :4], highest)
        else:
            channels = [k for k in range(metadata.samples) if k != metadata.alpha]
            image = samples[..., channels[sample]][..., None]
        alpha = None if metadata.alpha is None else samples[..., metadata.alpha]
        if alpha is not None and metadata.is_premultiplied:
            image = _unmultiply_alpha(image, alpha, highest)
        if metadata.photometric == MINISWHITE:
            # Signed and float values have no defined white, so only their order is reversed.
            if image.dtype.kind == "u":
                image = highest - image
            else:
                image = ~image if image.dtype.kind == "i" else -image
        if bits in (1, 2, 4) and image.shape[2] == 1:
            image = image * np.uint8(255 // highest)
        is_grey = image.shape[2] == 1
        if alpha is None:
            return image[..., 0] if is_grey else image
        colours = np.repeat(image, 3, axis=2) if is_grey else image
        return np.concatenate([colours, alpha[..., None].astype(image.dtype)], axis=2)


def _cmyk_to_rgb(inks: NDArray[Any], highest: float) -> NDArray[Any]:
    """Convert CMYK to RGB with the formula of Pillow."""
    light = highest - inks.astype(np.float64)
    rgb: NDArray[Any] = (light[..., :3] * light[..., 3:] / highest).astype(np.float64)
    return (rgb.round() if inks.dtype.kind in "ui" else rgb).astype(inks.dtype)


def _unmultiply_alpha(image: NDArray[Any], alpha: NDArray[Any], highest: float) -> NDArray[Any]:
    """Divide colours by the alpha that they were multiplied by."""
    share = alpha.astype(np.float64)[..., None] / highest
    plain: NDArray[Any] = np.zeros(image.shape, np.float64)
    np.divide(image, share, out=plain, where=share > 0)
    plain = np.minimum(plain, highest)
    return (plain.round() if image.dtype.kind in "ui" else plain).astype(image.dtype)
