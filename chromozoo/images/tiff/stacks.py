"""Stacks of a TIFF file: its images with their frames, z-planes and channels."""

from typing import BinaryIO

import numpy as np
import tifffile

from chromozoo.images.contents import Stack
from chromozoo.images.tiff.axes import PageGroup, group_pages
from chromozoo.images.tiff.decode import PlaneDecoder, silence_tifffile
from chromozoo.images.tiff.pages import Page, check_page_chain, read_page, select_full_size_pages


def tiff_stacks(stream: BinaryIO, name: str) -> list[Stack]:
    """Return the images of a TIFF file; their pixels are decoded on demand.

    Previews, masks and reduced copies (pyramids) are left out.

    Args:
        stream: The file, which stays open while the stacks are loaded.
        name: Name of the file in error messages.

    Returns:
        One stack for each image, at least one.

    Raises:
        ImageError: The structure is damaged, or the image is far too large or of an unsupported
            kind. Other errors, raised by tifffile, mean damage.
    """
    count, file_bytes = check_page_chain(stream, name)
    with silence_tifffile():
        stream.seek(0)
        # The readers of LSM, ScanImage and NDPI trust the file; as plain TIFF it is checked.
        file = tifffile.TiffFile(
            stream, name="image.tif", is_lsm=False, is_scanimage=False, is_ndpi=False
        )
        pages = [read_page(file.pages[index], index, name) for index in range(count)]
    full_size = select_full_size_pages(pages, name)
    decoder = PlaneDecoder(file, name, file_bytes)
    groups = group_pages(full_size, file_bytes, file, name)
    return [stack for group in groups for stack in _build_stacks(group, decoder)]


def _build_stacks(group: PageGroup, decoder: PlaneDecoder) -> list[Stack]:
    """Return one stack for each separate image of a group of pages."""
    sizes = dict.fromkeys("TZC", 1)
    for axis, size in zip(group.axes, group.shape, strict=True):
        sizes[axis] = sizes.get(axis, 1) * size
    # Indices along other axes than T, Z and C -> (t, z, c) -> page, and number of the plane in it.
    images: dict[tuple[int, ...], dict[tuple[int, int, int], tuple[Page, int]]] = {}
    for number, index in enumerate(np.ndindex(*group.shape)):
        place = dict.fromkeys("TZC", 0)
        image = []
        for axis, size, k in zip(group.axes, group.shape, index, strict=True):
            if axis in place:
                place[axis] = place[axis] * size + k
            else:
                image.append(k)
        is_paged = len(group.pages) > 1
        stored = (group.pages[number], 0) if is_paged else (group.pages[0], number)
        images.setdefault(tuple(image), {})[place["T"], place["Z"], place["C"]] = stored
    stacks = []
    for planes in images.values():
        page = planes[0, 0, 0][0]
        channels = sizes["C"] * page.channels
        stack = Stack(
            load=decoder.loader(planes),
            size=page.size,
            frames=sizes["T"],
            planes=sizes["Z"] * page.depth,
            channels=channels,
            channel_names=group.channel_names if len(group.channel_names) == channels else (),
            colours=page.colours,
        )
        stacks.append(stack)
    return stacks
