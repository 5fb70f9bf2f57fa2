"""Pages of a TIFF file: checks of their chain and tags, and the choice of full-size images."""

import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from chromozoo.errors import ImageError
from chromozoo.images.contents import check_size, full_size_indices
from chromozoo.images.tiff.tags import (
    ASSOCIATED_ALPHA,
    COLOURS,
    DESCRIPTION_TAGS,
    IMAGE_TAGS,
    INTEGER_TYPES,
    LSM_TAG,
    MASK,
    MAX_PAGES,
    MAX_SEGMENTS,
    MAX_TAG_BYTES,
    MAX_TAGS,
    METAMORPH_TAG,
    MINISBLACK,
    MINISWHITE,
    PALETTE,
    READ_TAGS,
    SEGMENT_TAGS,
    SINGLE_TAGS,
    TYPE_BYTES,
    UNASSOCIATED_ALPHA,
    damage_error,
)


@dataclass(frozen=True)
class Page:
    """Metadata of a page that are needed before it is decoded.

    Attributes:
        index: Number of the page in the file, from 0.
        size: Height and width in pixels.
        depth: z-planes within the page.
        samples: Samples per pixel.
        alpha: Index of the alpha sample; None without one.
        is_premultiplied: Whether the colours are multiplied by their alpha.
        photometric: PhotometricInterpretation.
        pixel_bytes: Bytes of all samples of a pixel.
        nbytes: Bytes of the decoded page.
        is_contiguous: Whether the samples lie uncompressed in one block.
        is_reduced: Whether the page is a preview, a mask or a reduced copy.
        has_subfiles: Whether it has SubIFDs.
        descriptions: Its ImageDescription tags.
        axis_sizes: Numbers of frames and z-planes from tags of MetaMorph and LSM files.
    """

    index: int
    size: tuple[int, int]
    depth: int
    samples: int
    alpha: int | None
    is_premultiplied: bool
    photometric: int
    pixel_bytes: int
    nbytes: int
    is_contiguous: bool
    is_reduced: bool
    has_subfiles: bool
    descriptions: tuple[str, ...]
    axis_sizes: dict[str, int]

    def find_description(self, pattern: str) -> str:
        """Return the first description whose beginning matches a pattern; empty without one."""
        return next((text for text in self.descriptions if re.match(pattern, text)), "")

    @property
    def channels(self) -> int:
        """Number of samples that are separate channels, rather than colours of one image."""
        if self.photometric not in (MINISWHITE, MINISBLACK):
            return 1
        return self.samples - (self.alpha is not None)

    @property
    def colours(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.photometric in (MINISWHITE, MINISBLACK) else 3


def check_page_chain(stream: BinaryIO, name: str) -> tuple[int, int]:
    """Follow the chain of pages and check the claims of their tags, without reading pixels.

    Args:
        stream: The file.
        name: Name of the file in error messages.

    Returns:
        Number of pages, and size of the file in bytes.

    Raises:
        ImageError: The chain is missing, broken or circular; there are too many pages; tags are too
            large or lie outside the file.
    """
    file_bytes = stream.seek(0, io.SEEK_END)

    def read(offset: int, form: str) -> tuple[Any, ...]:
        stream.seek(offset)
        data = stream.read(struct.calcsize(form))
        try:
            return struct.unpack(form, data)
        except struct.error:
            raise damage_error(name, "a page lies beyond the end of the file") from None

    order = "<" if read(0, "2s")[0] == b"II" else ">"
    is_big_tiff = read(2, f"{order}H")[0] == 43
    entry = f"{order}HHQ8s" if is_big_tiff else f"{order}HHL4s"
    number, word = ("Q", "Q") if is_big_tiff else ("H", "L")
    (offset,) = read(8 if is_big_tiff else 4, order + word)
    seen: set[int] = set()
    total = 0
    while offset:
        if offset in seen:
            raise damage_error(name, "its pages refer to each other in a circle")
        if len(seen) == MAX_PAGES:
            raise ImageError(
                f"{name}: holds more than {MAX_PAGES} pages; save the required ones as files of "
                "their own"
            )
        seen.add(offset)
        (tags,) = read(offset, order + number)
        if tags > MAX_TAGS:
            raise damage_error(name, f"a page has {tags} tags")
        start = offset + struct.calcsize(order + number)
        for code, kind, values, value in struct.iter_unpack(
            entry, b"".join(read(start, f"{tags * struct.calcsize(entry)}s"))
        ):
            size = values * TYPE_BYTES.get(kind, 0)
            fits = size <= len(value) or (
                struct.unpack(order + word, value)[0] + size <= file_bytes
            )
            is_needed = code in IMAGE_TAGS or code in DESCRIPTION_TAGS
            if (is_needed and not fits) or (code in IMAGE_TAGS and not size):
                raise damage_error(name, f"tag {code} cannot be read")
            if code in SINGLE_TAGS and (values != 1 or kind not in INTEGER_TYPES):
                raise damage_error(name, f"tag {code} is not a single number")
            if code in SEGMENT_TAGS and values > MAX_SEGMENTS:
                raise damage_error(name, f"a page claims {values} strips or tiles")
            if code in READ_TAGS and fits:
                total += size
        if total > MAX_TAG_BYTES:
            raise ImageError(
                f"{name}: its metadata take more than {MAX_TAG_BYTES >> 20} MB; export it again as "
                "PNG or TIFF"
            )
        (offset,) = read(start + tags * struct.calcsize(entry), order + word)
    if not seen:
        raise damage_error(name, "it holds no page")
    return len(seen), file_bytes


def read_page(page: Any, index: int, name: str) -> Page:
    """Return the metadata of one page of tifffile, checked.

    Raises:
        ImageError: The tags do not describe an image.
    """
    height, width, depth, samples = (
        int(value)
        for value in (page.imagelength, page.imagewidth, page.imagedepth, page.samplesperpixel)
    )
    if min(height, width, depth, samples) < 1:
        raise damage_error(name, f"an image of {width}x{height}x{depth} pixels")
    photometric = int(page.photometric)
    kinds = [int(kind) for kind in page.extrasamples]
    colours = COLOURS.get(photometric, 1)
    alpha = next(
        (
            colours + k
            for k, kind in enumerate(kinds)
            if kind in (ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA)
        ),
        None,
    )
    pixel_bytes = samples * depth * (page.dtype.itemsize if page.dtype is not None else 1)
    is_plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1
    return Page(
        index=index,
        size=(height, width),
        depth=depth,
        samples=samples,
        alpha=alpha if alpha is not None and alpha < samples else None,
        is_premultiplied=alpha is not None and kinds[alpha - colours] == ASSOCIATED_ALPHA,
        photometric=photometric,
        pixel_bytes=max(pixel_bytes, 6 if photometric == PALETTE else 1),
        nbytes=page.nbytes if page.dtype is not None else 0,
        is_contiguous=is_plain and page.dtype is not None and page.is_contiguous,
        is_reduced=bool(page.subfiletype & 5) or photometric == MASK,
        has_subfiles=bool(page.subifds),
        # A program may add its metadata in a second description.
        descriptions=tuple(
            text for text in (page.description, page.description1) if isinstance(text, str)
        ),
        axis_sizes=_read_axis_sizes(page, name) if index == 0 else {},
    )


def select_full_size_pages(pages: Sequence[Page], name: str) -> list[Page]:
    """Return the pages that are images, without previews, masks and reduced copies.

    Raises:
        ImageError: There are only previews or masks, or an image is far too large.
    """
    full_size = [page for page in pages if not page.is_reduced]
    if not full_size:
        if len(pages) > 1 or pages[0].has_subfiles or pages[0].photometric == MASK:
            raise ImageError(
                f"{name}: holds previews and masks but no full image at its top; export the image "
                "as PNG or TIFF"
            )
        full_size = list(pages)  # a single page with the wrong flag
    full_size = [full_size[index] for index in full_size_indices([page.size for page in full_size])]
    for page in full_size:
        check_size(name, *page.size, page.pixel_bytes)
    return full_size


def _read_axis_sizes(page: Any, name: str) -> dict[str, int]:
    """Return the numbers of z-planes and frames in the tags of MetaMorph (STK) and LSM files."""
    if (tag := page.tags.get(METAMORPH_TAG)) is not None:
        return {"Z": int(tag.count)}
    if (tag := page.tags.get(LSM_TAG)) is not None:
        if page.compression != 1:
            raise ImageError(f"{name}: this is a compressed LSM file; export it as OME-TIFF")
        metadata = tag.value
        if isinstance(metadata, dict):
            sizes = {"T": metadata.get("DimensionTime", 1), "Z": metadata.get("DimensionZ", 1)}
            return {axis: int(size) for axis, size in sizes.items()}
    return {}
