"""Axes of a TIFF file: time, z and channels, from the metadata of several programs."""

import contextlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from chromozoo.images.contents import printable
from chromozoo.images.tiff.pages import Page
from chromozoo.images.tiff.tags import (
    MAX_METADATA_BYTES,
    MAX_NAME_LENGTH,
    MAX_PAGES,
    damage_error,
)


@dataclass(frozen=True)
class PageGroup:
    """Pages that share axes, in the order of these axes.

    Attributes:
        pages: One page for each index of the axes; or a single page, behind which all planes are
            stored without pages of their own.
        axes: Letters, the slowest first: T, Z, C, and others for separate images.
        shape: Length of each axis.
        channel_names: Names of the channels; empty if unknown.
    """

    pages: tuple[Page, ...]
    axes: str
    shape: tuple[int, ...]
    channel_names: tuple[str, ...] = ()


def group_pages(pages: Sequence[Page], file_bytes: int, file: Any, name: str) -> list[PageGroup]:
    """Group pages by the axes in the metadata; without metadata each page is a group.

    Metadata that do not fit the pages of the file are ignored.

    Args:
        pages: Full-size pages.
        file_bytes: Size of the file.
        file: The ``tifffile.TiffFile``.
        name: Name of the file in error messages.

    Raises:
        ImageError: Planes that should be stored behind a single page are missing.
    """
    separate = [PageGroup((page,), "", ()) for page in pages]
    for read_axes in (_read_ome, _read_imagej, _read_tifffile, _read_microscope_tags):
        # Metadata are free text, so an error of any kind means that there are no valid ones.
        with contextlib.suppress(Exception):
            if groups := read_axes(pages):
                break
    else:
        return separate
    for group in groups:
        planes = math.prod(group.shape)
        if len(pages) == 1 < planes:
            available = file_bytes - file.pages[pages[0].index].dataoffsets[0]
            if (
                planes > MAX_PAGES
                or not group.pages[0].is_contiguous
                or available < planes * pages[0].nbytes
            ):
                raise damage_error(name, f"it should hold {planes} planes, but some are missing")
        elif len(group.pages) != planes or len({page.size for page in group.pages}) != 1:
            return separate
    return groups


def _read_ome(pages: Sequence[Page]) -> list[PageGroup] | None:
    """Read OME-TIFF: images with planes in a declared order, or listed one by one (TiffData)."""
    text = pages[0].find_description(r"\s*<")
    if not text.rstrip().endswith("OME>") or len(text) > MAX_METADATA_BYTES or "<!DOCTYPE" in text:
        return None
    by_index = {page.index: page for page in pages}
    groups = []
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
        if count > len(pages):  # one file of a set of several
            return None
        order = [start + k for k in range(count)]
        for data in element.iterfind("{*}TiffData[@IFD]"):
            first = np.ravel_multi_index([int(data.get(f"First{a}", "0")) for a in axes], shape)
            for k in range(int(data.get("PlaneCount", "1"))):
                order[int(first) + k] = int(data.attrib["IFD"]) + k
        start += count
        planes = [by_index[index] for index in order]
        groups.append(PageGroup(tuple(planes), axes, shape, names))
    used = [page.index for group in groups for page in group.pages]
    return groups if sorted(used) == sorted(by_index) else None


def _read_imagej(pages: Sequence[Page]) -> list[PageGroup] | None:
    """Read ImageJ: T, Z, C in this order; a large stack has one page with all planes behind it."""
    text = pages[0].find_description("ImageJ=")
    if not text:
        return None
    pattern = r"^(images|frames|slices|channels)=(\d{1,9})\s*$"
    stated = dict(re.findall(pattern, text, re.MULTILINE))
    sizes = {key: int(stated.get(key, "1")) for key in ("frames", "slices", "channels", "images")}
    if sizes["channels"] in (pages[0].samples, pages[0].channels):
        sizes["channels"] = 1  # the channels are samples of each page
    shape = (sizes["frames"], sizes["slices"], sizes["channels"])
    if set(stated) == {"images"}:
        return [PageGroup(tuple(pages), "I", (sizes["images"],))]
    return [PageGroup(tuple(pages), "TZC", shape)]


def _read_tifffile(pages: Sequence[Page]) -> list[PageGroup] | None:
    """Read tifffile: the first page of a series has its shape and, if they were given, its axes."""
    groups = []
    start = 0
    while start < len(pages):
        page = pages[start]
        text = page.find_description(r'\{.*"shape":')
        if not text or len(text) > MAX_METADATA_BYTES:
            return None
        metadata = json.loads(text)
        shape = [int(size) for size in metadata["shape"]]
        count = math.prod(shape) // math.prod((*page.size, page.depth, page.samples))
        if count < 1 or (count > len(pages) - start and not metadata.get("truncated")):
            return None
        leading = 0
        while math.prod(shape[:leading]) < count:
            leading += 1
        axes = str(metadata.get("axes", ""))
        axes = axes[:leading].upper() if len(axes) == len(shape) else "Q" * leading
        groups.append(PageGroup(tuple(pages[start : start + count]), axes, tuple(shape[:leading])))
        start += count
    return groups


def _read_microscope_tags(pages: Sequence[Page]) -> list[PageGroup] | None:
    """Read the axes in the tags of MetaMorph and LSM files."""
    sizes = pages[0].axis_sizes
    return [PageGroup(tuple(pages), "".join(sizes), tuple(sizes.values()))] if sizes else None
