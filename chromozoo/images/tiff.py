"""TIFF files of microscopes and cameras, with every bit of their depth.

Pillow reduces 16-bit colours to 8 bits, leaves MinIsWhite as it is at 16 bits and sees the first
page alone; so tifffile and imagecodecs decode. What a header claims is checked before anything is
allocated, and what cannot be read as it was meant is refused by name.
"""

import contextlib
import io
import json
import logging
import math
import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from chromozoo.errors import ImageError
from chromozoo.images.codestreams import jpeg2000_header, jpeg_size
from chromozoo.images.contents import (
    Stack,
    check_size,
    oriented,
    printable,
    without_copies,
)

MAX_PAGES = 10_000
# Strips or tiles of a page.
MAX_SEGMENTS = 1_000_000
# Of a page's tags, so that a file does not spend the memory before its image is looked at.
MAX_TAG_BYTES = 2**28
MAX_TAGS = 4096
# Channels of one page.
MAX_SAMPLES = 64
# Characters of a description that is looked at, and of the name of a channel.
MAX_METADATA_BYTES = 2**25
MAX_NAME_LENGTH = 40
# A tile may be larger than its image, but not by much more than this.
TILE_PIXELS = 4096 * 4096

MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, SEPARATED, YCBCR = range(7)
PHOTOMETRICS = {
    4: "a mask",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "the raw mosaic of a camera",
    32844: "LogL",
    32845: "LogLuv",
    34892: "the raw data of a camera",
}
COLOURS = {MINISWHITE: 1, MINISBLACK: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3}
JPEG = 7
JPEG2000 = (33003, 33004, 33005, 34712)
PNG, WEBP = 34933, (50001, 34927)
# NONE, the fax codes, LZW, JPEG, Deflate, PackBits, JPEG 2000, LZMA, PNG, ZSTD, WebP.
COMPRESSIONS = {
    1, 2, 3, 4, 5, JPEG, 8, 32946, 32773, *JPEG2000, 34925, PNG, 50000, 34926, *WEBP
}  # fmt: skip
ASSOCIATED, UNASSOCIATED = 1, 2

# What the image is decoded by: a tag of these that cannot be read is damage.
IMAGE_TAGS = {
    254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325,
    332, 338, 339, 347, 32997, 32998,
}  # fmt: skip
# Those of them that have one whole number as their value.
SINGLE_TAGS = {254, 256, 257, 259, 262, 266, 274, 277, 284, 317, 322, 323, 332, 32997, 32998}
WHOLE_NUMBERS = {3, 4, 8, 9, 13, 16, 17, 18}
ABOUT_PAGES = {270, 330}  # the description, which may name axes, and SubIFDs
SEGMENT_TAGS = {273, 279, 324, 325}
# Those that tifffile reads at once.
READ_TAGS = IMAGE_TAGS | {270, 282, 283, 305, 330, 513, 514, 530, 33628, 42113, 50838, 50839}
TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
    17: 8, 18: 8,
}  # fmt: skip


class _Quiet(logging.Filter):
    """Keeps tifffile from logging about files that are being read here, in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self.reading, "now", False)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        before = getattr(self.reading, "now", False)
        self.reading.now = True
        try:
            yield
        finally:
            self.reading.now = before


_quiet = _Quiet()
logging.getLogger("tifffile").addFilter(_quiet)


@dataclass(frozen=True)
class _Page:
    """What is needed of a page before it is decoded; pages themselves are read again."""

    index: int
    size: tuple[int, int]
    depth: int
    samples: int
    alpha: int | None
    associated: bool
    photometric: int
    pixel_bytes: int
    nbytes: int
    contiguous: bool
    reduced: bool
    subfiles: bool
    descriptions: tuple[str, ...]
    extra: dict[str, int]

    def notes(self, pattern: str) -> str:
        """The description that begins as a pattern says; empty where there is none."""
        return next((text for text in self.descriptions if re.match(pattern, text)), "")

    @property
    def channels(self) -> int:
        """Samples that are no colours of one image."""
        if self.photometric not in (MINISWHITE, MINISBLACK):
            return 1
        return self.samples - (self.alpha is not None)

    @property
    def colours(self) -> int:
        return 1 if self.photometric in (MINISWHITE, MINISBLACK) else 3


def tiff_stacks(stream: BinaryIO, name: str) -> list[Stack]:
    """What a TIFF file holds; no pixel is decoded yet.

    Previews, masks and reduced copies (pyramids) are left out.

    Args:
        stream: The file, which stays open while the stacks are loaded.
        name: What errors call it.

    Returns:
        One stack for each image, at least one.

    Raises:
        ImageError: The structure is damaged, the image is far too large, or of a kind that is not
            read. Other errors, of tifffile, mean damage.
    """
    count, file_bytes = _walk(stream, name)
    with _quiet():
        stream.seek(0)
        # LSM, ScanImage and NDPI have readers that trust the file; as plain TIFF they are checked.
        file = tifffile.TiffFile(
            stream, name="image.tif", is_lsm=False, is_scanimage=False, is_ndpi=False
        )
        pages = [_page(file.pages[index], index, name) for index in range(count)]
    whole = _full_size(pages, name)
    reader = _Reader(file, name, file_bytes)
    return [stack for run in _runs(whole, file_bytes, file, name) for stack in run.stacks(reader)]


def _walk(stream: BinaryIO, name: str) -> tuple[int, int]:
    """Follows the chain of pages without reading what they claim.

    Returns:
        Number of pages and of the bytes of the file.

    Raises:
        ImageError: No chain, a loop or a break in it; too many pages; tags that are too large or
            lie outside the file.
    """
    file_bytes = stream.seek(0, io.SEEK_END)

    def read(offset: int, form: str) -> tuple[Any, ...]:
        stream.seek(offset)
        data = stream.read(struct.calcsize(form))
        try:
            return struct.unpack(form, data)
        except struct.error:
            raise _damaged(name, "a page lies beyond the end of the file") from None

    order = "<" if read(0, "2s")[0] == b"II" else ">"
    big = read(2, f"{order}H")[0] == 43
    entry = f"{order}HHQ8s" if big else f"{order}HHL4s"
    number, word = ("Q", "Q") if big else ("H", "L")
    (offset,) = read(8 if big else 4, order + word)
    seen: set[int] = set()
    total = 0
    while offset:
        if offset in seen:
            raise _damaged(name, "its pages refer to each other in a circle")
        if len(seen) == MAX_PAGES:
            raise ImageError(
                f"{name}: holds more than {MAX_PAGES} pages; save those that are wanted as files "
                "of their own"
            )
        seen.add(offset)
        (tags,) = read(offset, order + number)
        if tags > MAX_TAGS:
            raise _damaged(name, f"a page has {tags} tags")
        at = offset + struct.calcsize(order + number)
        for code, kind, values, value in struct.iter_unpack(
            entry, b"".join(read(at, f"{tags * struct.calcsize(entry)}s"))
        ):
            size = values * TYPE_BYTES.get(kind, 0)
            fits = size <= len(value) or (
                struct.unpack(order + word, value)[0] + size <= file_bytes
            )
            needed = code in IMAGE_TAGS or code in ABOUT_PAGES
            if (needed and not fits) or (code in IMAGE_TAGS and not size):
                raise _damaged(name, f"tag {code} cannot be read")
            if code in SINGLE_TAGS and (values != 1 or kind not in WHOLE_NUMBERS):
                raise _damaged(name, f"tag {code} is no single number")
            if code in SEGMENT_TAGS and values > MAX_SEGMENTS:
                raise _damaged(name, f"a page claims {values} strips or tiles")
            if code in READ_TAGS and fits:
                total += size
        if total > MAX_TAG_BYTES:
            raise ImageError(
                f"{name}: more than {MAX_TAG_BYTES >> 20} MB are no image but notes about it; "
                "export it again as PNG or TIFF"
            )
        (offset,) = read(at + tags * struct.calcsize(entry), order + word)
    if not seen:
        raise _damaged(name, "it holds no page")
    return len(seen), file_bytes


def _damaged(name: str, reason: str) -> ImageError:
    return ImageError(
        f"{name}: the file is damaged or not an image ({reason}); export it again as PNG or TIFF"
    )


def _page(page: Any, index: int, name: str) -> _Page:
    """What the tags of one page say, checked.

    Raises:
        ImageError: They make no image.
    """
    height, width, depth, samples = (
        int(value)
        for value in (page.imagelength, page.imagewidth, page.imagedepth, page.samplesperpixel)
    )
    if min(height, width, depth, samples) < 1:
        raise _damaged(name, f"an image of {width}x{height}x{depth} pixels")
    photometric = int(page.photometric)
    kinds = [int(kind) for kind in page.extrasamples]
    colours = COLOURS.get(photometric, 1)
    alpha = next(
        (colours + k for k, kind in enumerate(kinds) if kind in (ASSOCIATED, UNASSOCIATED)), None
    )
    reduced = bool(page.subfiletype & 5) or photometric == MASK
    pixel_bytes = samples * depth * (page.dtype.itemsize if page.dtype is not None else 1)
    plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1
    return _Page(
        index=index,
        size=(height, width),
        depth=depth,
        samples=samples,
        alpha=alpha if alpha is not None and alpha < samples else None,
        associated=alpha is not None and kinds[alpha - colours] == ASSOCIATED,
        photometric=photometric,
        pixel_bytes=max(pixel_bytes, 6 if photometric == PALETTE else 1),
        nbytes=page.nbytes if page.dtype is not None else 0,
        contiguous=plain and page.dtype is not None and page.is_contiguous,
        reduced=reduced,
        subfiles=bool(page.subifds),
        # A program may add its notes in a second one.
        descriptions=tuple(
            text for text in (page.description, page.description1) if isinstance(text, str)
        ),
        extra=_microscope(page, name) if index == 0 else {},
    )


def _microscope(page: Any, name: str) -> dict[str, int]:
    """Numbers of z-planes and frames that MetaMorph (STK) and Zeiss (LSM) files keep in a tag."""
    if (tag := page.tags.get(33629)) is not None:
        return {"Z": int(tag.count)}
    if (tag := page.tags.get(34412)) is not None:
        if page.compression != 1:
            raise ImageError(f"{name}: this is a compressed LSM file; export it as OME-TIFF")
        about = tag.value
        if isinstance(about, dict):
            sizes = {"T": about.get("DimensionTime", 1), "Z": about.get("DimensionZ", 1)}
            return {axis: int(size) for axis, size in sizes.items()}
    return {}


def _full_size(pages: Sequence[_Page], name: str) -> list[_Page]:
    """The pages that are images, without previews, masks and reduced copies of another page.

    Raises:
        ImageError: There is none but the preview of an image that lies elsewhere; or an image is
            far too large.
    """
    whole = [page for page in pages if not page.reduced]
    if not whole:
        if len(pages) > 1 or pages[0].subfiles or pages[0].photometric == MASK:
            raise ImageError(
                f"{name}: holds previews and masks but no full image at its top; export the image "
                "as PNG or TIFF"
            )
        whole = list(pages)  # nothing else is there: whoever wrote it set the wrong flag
    whole = [whole[index] for index in without_copies([page.size for page in whole])]
    for page in whole:
        check_size(name, *page.size, page.pixel_bytes)
    return whole


@dataclass(frozen=True)
class _Run:
    """Pages that belong together, in the order of their axes.

    Attributes:
        pages: One for each index of the axes; or one alone with all planes stored behind it.
        axes: Letters, the slowest first: T, Z, C, and others for images of their own.
        shape: Of the axes.
        names: Of the channels.
    """

    pages: tuple[_Page, ...]
    axes: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def contiguous(self) -> bool:
        """All planes may lie behind the first, without pages of their own."""
        return self.pages[0].contiguous

    def stacks(self, reader: "_Reader") -> list[Stack]:
        """One for each image of its own."""
        sizes = dict.fromkeys("TZC", 1)
        for axis, size in zip(self.axes, self.shape, strict=True):
            sizes[axis] = sizes.get(axis, 1) * size
        where: dict[tuple[int, ...], dict[tuple[int, int, int], tuple[_Page, int]]] = {}
        for number, index in enumerate(np.ndindex(*self.shape)):
            at = dict.fromkeys("TZC", 0)
            own = []
            for axis, size, k in zip(self.axes, self.shape, index, strict=True):
                if axis in at:
                    at[axis] = at[axis] * size + k
                else:
                    own.append(k)
            stored = (self.pages[number], 0) if len(self.pages) > 1 else (self.pages[0], number)
            where.setdefault(tuple(own), {})[at["T"], at["Z"], at["C"]] = stored
        found = []
        for planes in where.values():
            page = planes[0, 0, 0][0]
            channels = sizes["C"] * page.channels
            stack = Stack(
                load=reader.loader(planes),
                size=page.size,
                frames=sizes["T"],
                planes=sizes["Z"] * page.depth,
                channels=channels,
                names=self.names if len(self.names) == channels else (),
                colours=page.colours,
            )
            found.append(stack)
        return found


def _runs(pages: list[_Page], file_bytes: int, file: Any, name: str) -> list[_Run]:
    """Groups the pages by what the file says of its axes; each for itself where it says nothing.

    What the file says counts only where it fits the pages that are there.

    Raises:
        ImageError: Planes that should lie behind a single page are not there.
    """
    alone = [_Run((page,), "", ()) for page in pages]
    for described in (_ome, _imagej, _shaped, _counted):
        # Metadata are free text: whatever is wrong with them, they say nothing then.
        with contextlib.suppress(Exception):
            if runs := described(pages):
                break
    else:
        return alone
    for run in runs:
        planes = math.prod(run.shape)
        if len(pages) == 1 < planes:
            there = file_bytes - file.pages[pages[0].index].dataoffsets[0]
            if planes > MAX_PAGES or not run.contiguous or there < planes * pages[0].nbytes:
                raise _damaged(name, f"it should hold {planes} planes, but they are not all there")
        elif len(run.pages) != planes or len({page.size for page in run.pages}) != 1:
            return alone
    return runs


def _ome(pages: list[_Page]) -> list[_Run] | None:
    """OME-TIFF: images with their planes in a declared order, or plane by plane (TiffData)."""
    text = pages[0].notes(r"\s*<")
    if not text.rstrip().endswith("OME>") or len(text) > MAX_METADATA_BYTES or "<!DOCTYPE" in text:
        return None
    by_index = {page.index: page for page in pages}
    runs = []
    start = 0
    for element in ElementTree.fromstring(text).iterfind("{*}Image/{*}Pixels"):
        channels = element.findall("{*}Channel")
        samples = int(channels[0].get("SamplesPerPixel", "1")) if channels else 1
        axes = element.attrib["DimensionOrder"][:1:-1]
        sizes = {axis: int(element.attrib[f"Size{axis}"]) for axis in "TZC"}
        names = tuple(
            printable(channel.get("Name") or channel.get("Fluor") or "?")[:MAX_NAME_LENGTH]
            for channel in channels
        )
        sizes["C"] //= samples
        if pages[0].depth > 1:
            sizes["Z"] //= pages[0].depth
        if sizes["C"] > 1 and pages[0].channels == sizes["C"]:
            sizes["C"] = 1
        shape = tuple(sizes[axis] for axis in axes)
        count = math.prod(shape)
        if count > len(pages):  # one file of several that make the set
            return None
        order = [start + k for k in range(count)]
        for data in element.iterfind("{*}TiffData[@IFD]"):
            first = np.ravel_multi_index([int(data.get(f"First{a}", "0")) for a in axes], shape)
            for k in range(int(data.get("PlaneCount", "1"))):
                order[int(first) + k] = int(data.attrib["IFD"]) + k
        start += count
        planes = [by_index[index] for index in order]
        runs.append(_Run(tuple(planes), axes, shape, names))
    used = [page.index for run in runs for page in run.pages]
    return runs if sorted(used) == sorted(by_index) else None


def _imagej(pages: list[_Page]) -> list[_Run] | None:
    """ImageJ: T, Z and C in this order; large stacks have one page with all planes behind it."""
    text = pages[0].notes("ImageJ=")
    if not text:
        return None
    found = dict(re.findall(r"^(images|frames|slices|channels)=(\d{1,9})\s*$", text, re.MULTILINE))
    sizes = {key: int(found.get(key, "1")) for key in ("frames", "slices", "channels", "images")}
    if sizes["channels"] in (pages[0].samples, pages[0].channels):
        sizes["channels"] = 1  # they are the samples of each page
    shape = (sizes["frames"], sizes["slices"], sizes["channels"])
    if set(found) == {"images"}:
        return [_Run(tuple(pages), "I", (sizes["images"],))]
    return [_Run(tuple(pages), "TZC", shape)]


def _shaped(pages: list[_Page]) -> list[_Run] | None:
    """tifffile: each series begins with its shape and, where they were given, its axes."""
    runs = []
    start = 0
    while start < len(pages):
        page = pages[start]
        text = page.notes(r'\{.*"shape":')
        if not text or len(text) > MAX_METADATA_BYTES:
            return None
        about = json.loads(text)
        shape = [int(size) for size in about["shape"]]
        count = math.prod(shape) // math.prod((*page.size, page.depth, page.samples))
        if count < 1 or (count > len(pages) - start and not about.get("truncated")):
            return None
        own = 0
        while math.prod(shape[:own]) < count:
            own += 1
        axes = str(about.get("axes", ""))
        axes = axes[:own].upper() if len(axes) == len(shape) else "Q" * own
        runs.append(_Run(tuple(pages[start : start + count]), axes, tuple(shape[:own])))
        start += count
    return runs


def _counted(pages: list[_Page]) -> list[_Run] | None:
    sizes = pages[0].extra
    return [_Run(tuple(pages), "".join(sizes), tuple(sizes.values()))] if sizes else None


class _Reader:
    """Decodes planes of one file."""

    def __init__(self, file: Any, name: str, file_bytes: int) -> None:
        self.file = file
        self.name = name
        self.file_bytes = file_bytes

    def loader(
        self, planes: dict[tuple[int, int, int], tuple[_Page, int]]
    ) -> Callable[[int, int, int], NDArray[np.generic]]:
        """Reads by frame, z-plane and channel, each from 0."""

        def load(frame: int, plane: int, channel: int) -> NDArray[np.generic]:
            first = planes[0, 0, 0][0]
            z, depth = divmod(plane, first.depth)
            c, sample = divmod(channel, first.channels)
            page, number = planes[frame, z, c]
            with _quiet():
                return self.decode(page, number, depth, sample)

        return load

    def decode(self, about: _Page, number: int, depth: int, sample: int) -> NDArray[np.generic]:
        """One plane: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``, upright.

        Args:
            about: The page.
            number: Of the plane among those that are stored behind the page without pages of
                their own.
            depth: z-plane within the page.
            sample: Channel within the page.
        """
        page = self.file.pages[about.index]
        self._check(page)
        samples = self._hidden(page, number) if number else page.asarray(maxworkers=1)
        separate, _, height, width, contiguous = page.shaped
        samples = samples.reshape(page.shaped)[:, depth]
        if separate > 1:
            samples = np.moveaxis(samples[..., 0], 0, -1)
        else:
            samples = samples.reshape(height, width, contiguous)
        orientation = page.tags.valueof(274)
        return oriented(self._image(samples, page, about, sample), orientation)

    def _check(self, page: Any) -> None:
        """Of the kinds that are read, and all its data there and no larger than it says."""
        name = self.name
        compression = int(page.compression)
        photometric = int(page.photometric)
        if compression not in COMPRESSIONS:
            kind = getattr(page.compression, "name", compression)
            raise ImageError(
                f"{name}: compressed as {kind}, which is not read; save it without compression"
            )
        if 262 not in page.tags:
            raise _damaged(name, "it does not say what is black (PhotometricInterpretation)")
        if photometric not in COLOURS or (photometric == YCBCR and compression != JPEG):
            kind = PHOTOMETRICS.get(photometric, getattr(page.photometric, "name", photometric))
            raise ImageError(
                f"{name}: its colours are stored as {kind}, which is not read; export it as grey "
                "or RGB"
            )
        if photometric == YCBCR and page.planarconfig == 2:
            raise ImageError(f"{name}: planar YCbCr is not read; export it as grey or RGB")
        if photometric == SEPARATED and page.tags.valueof(332, 1) != 1:
            raise ImageError(f"{name}: inks other than CMYK are not read; export it as grey or RGB")
        if page.dtype is None or page.dtype.kind not in "buif":
            raise ImageError(
                f"{name}: values of {page.bitspersample} bits in format {page.sampleformat!s} are "
                "no grey values that are read; export it as 8 or 16 bit"
            )
        if page.samplesperpixel > MAX_SAMPLES or page.samplesperpixel < COLOURS[photometric]:
            raise ImageError(
                f"{name}: {page.samplesperpixel} samples a pixel are not read; export it as grey "
                "or RGB"
            )
        self._check_written(page, compression)
        if page.is_tiled:
            tile = page.tilelength * page.tilewidth * page.tiledepth
            if tile > max(4 * page.imagelength * page.imagewidth * page.imagedepth, TILE_PIXELS):
                raise _damaged(name, f"tiles of {page.tilewidth}x{page.tilelength} pixels")
        segments = math.prod(page.chunked)
        offsets, counts = page.dataoffsets, page.databytecounts
        if not min(len(offsets), len(counts)) >= segments >= 1:
            raise _damaged(name, f"{segments} strips or tiles, but {len(offsets)} are there")
        for offset, count in zip(offsets[:segments], counts[:segments], strict=True):
            if count < 1 or offset < 8 or offset + count > self.file_bytes:
                raise _damaged(name, "the image data are not all there")
        bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
        if compression == 1 and 8 * sum(counts[:segments]) < math.prod(page.shaped) * bits:
            raise _damaged(name, "the image data are not all there")
        if compression in (JPEG, PNG, *JPEG2000, *WEBP):
            self._check_codestreams(page, segments)

    def _check_written(self, page: Any, compression: int) -> None:
        """Kinds that programs write in ways that contradict each other, tifffile among them."""
        bits = page.bitspersample
        big = self.file.byteorder == ">"
        packed = bits not in (8, 16, 32, 64)
        if packed and page.predictor != 1:
            kind = f"{bits}-bit values with a predictor"
        elif packed and page.dtype.kind in "iu" and page.dtype.itemsize > 1 and big:
            kind = f"big-endian {bits}-bit values"
        elif compression in JPEG2000 and page.dtype.itemsize > 1 and big:
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
            f"{self.name}: {kind} are not read, as not all programs agree how they are stored; "
            "export it again as 8 or 16 bit, little-endian"
        )

    def _check_codestreams(self, page: Any, segments: int) -> None:
        """Codes with a header of their own have the size of their strip or tile.

        Larger ones would be allocated as they claim, smaller ones leave pixels empty.
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
            # Those at the edges may end with the image.
            rest_down, rest_across = page.imagelength - row * tall, page.imagewidth - column * wide
            if not (
                min(tall, rest_down) <= height <= tall and min(wide, rest_across) <= width <= wide
            ):
                raise _damaged(self.name, f"a strip or tile claims {width}x{height} pixels")

    def _hidden(self, page: Any, number: int) -> NDArray[np.generic]:
        stream = self.file.filehandle
        stream.seek(page.dataoffsets[0] + number * page.nbytes)
        data = stream.read(page.nbytes)
        if len(data) < page.nbytes:
            raise _damaged(self.name, f"plane {number + 1} is not all there")
        return np.frombuffer(data, page.dtype.newbyteorder(self.file.byteorder))

    def _image(
        self, samples: NDArray[Any], page: Any, about: _Page, sample: int
    ) -> NDArray[np.generic]:
        """Grey or colour of the samples ``(H, W, S)`` of a page."""
        if samples.dtype.kind == "b":
            samples = samples.astype(np.uint8)
        bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
        full: Any = 1.0
        if samples.dtype.kind in "ui":
            full = int(np.iinfo(samples.dtype).max) if samples.dtype.kind == "i" else 2**bits - 1
        if about.photometric == PALETTE:
            image = np.stack([part[samples[..., 0]] for part in page.colormap], axis=-1)
        elif about.photometric in (RGB, YCBCR):
            image = samples[..., :3]
            if about.samples > 4:
                raise ImageError(
                    f"{self.name}: {about.samples} samples a pixel, of which only red, green and "
                    "blue are known; export it as grey or RGB"
                )
        elif about.photometric == SEPARATED:
            image = _without_ink(samples[..., :4], full)
        else:
            channels = [k for k in range(about.samples) if k != about.alpha]
            image = samples[..., channels[sample]][..., None]
        alpha = None if about.alpha is None else samples[..., about.alpha]
        if alpha is not None and about.associated:
            image = _not_multiplied(image, alpha, full)
        if about.photometric == MINISWHITE:
            # Signed and float values have no white of their own: they only turn over.
            if image.dtype.kind == "u":
                image = full - image
            else:
                image = ~image if image.dtype.kind == "i" else -image
        if bits in (1, 2, 4) and image.shape[2] == 1:
            image = image * np.uint8(255 // full)
        grey = image.shape[2] == 1
        if alpha is None:
            return image[..., 0] if grey else image
        colours = np.repeat(image, 3, axis=2) if grey else image
        return np.concatenate([colours, alpha[..., None].astype(image.dtype)], axis=2)


def _without_ink(inks: NDArray[Any], full: float) -> NDArray[Any]:
    """RGB of CMYK, as Pillow reckons it."""
    light = full - inks.astype(np.float64)
    rgb: NDArray[Any] = (light[..., :3] * light[..., 3:] / full).astype(np.float64)
    return (rgb.round() if inks.dtype.kind in "ui" else rgb).astype(inks.dtype)


def _not_multiplied(image: NDArray[Any], alpha: NDArray[Any], full: float) -> NDArray[Any]:
    """Colours that were multiplied by their alpha, as they were before."""
    share = alpha.astype(np.float64)[..., None] / full
    plain: NDArray[Any] = np.zeros(image.shape, np.float64)
    np.divide(image, share, out=plain, where=share > 0)
    plain = np.minimum(plain, full)
    return (plain.round() if image.dtype.kind in "ui" else plain).astype(image.dtype)
