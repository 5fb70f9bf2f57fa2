"""Reading of files: bit depths, pages, orientations, formats, and hostile headers."""

import contextlib
import io
import os
import random
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from chromozoo.errors import ImageError
from chromozoo.images.reading import ImagePage, list_images, read_bytes, read_grey

RNG = np.random.default_rng(5)
DEEP = RNG.integers(0, 2**16, (24, 20), dtype=np.uint16)
COLOUR = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], axis=-1)
GREY = (DEEP >> 8).astype(np.uint8)
LUMA = np.array([0.299, 0.587, 0.114])
STACK = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1], DEEP // 2, DEEP // 3])


def tiff(path: Path, array: NDArray[Any], **options: Any) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


def bytes_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# Bit depth


def luma(colour: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(colour[..., :3].astype(float) @ LUMA)


DEEP_FILES: dict[str, tuple[Callable[[Path], object], NDArray[np.float64]]] = {
    "rgb.png": (lambda path: path.write_bytes(imagecodecs.png_encode(COLOUR)), luma(COLOUR)),
    "rgba.png": (
        lambda path: path.write_bytes(imagecodecs.png_encode(np.dstack([COLOUR, DEEP | 1]))),
        luma(COLOUR),
    ),
    "la.png": (
        lambda path: path.write_bytes(imagecodecs.png_encode(np.dstack([DEEP, DEEP | 1]))),
        DEEP.astype(float),
    ),
    "grey.png": (lambda path: cv2.imwrite(str(path), DEEP), DEEP.astype(float)),
    "rgb.tif": (lambda path: tiff(path, COLOUR, photometric="rgb"), luma(COLOUR)),
    "planar.tif": (
        lambda path: tiff(
            path, np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate"
        ),
        luma(COLOUR),
    ),
    "rgba.tif": (
        lambda path: tiff(
            path, np.dstack([COLOUR, DEEP | 1]), photometric="rgb", extrasamples=["unassalpha"]
        ),
        luma(COLOUR),
    ),
    "la.tif": (
        lambda path: tiff(
            path,
            np.dstack([DEEP, DEEP | 1]),
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=["unassalpha"],
        ),
        DEEP.astype(float),
    ),
    "miniswhite.tif": (
        lambda path: tiff(path, 65535 - DEEP, photometric="miniswhite"),
        DEEP.astype(float),
    ),
    "rgb.jp2": (
        lambda path: path.write_bytes(imagecodecs.jpeg2k_encode(COLOUR, level=0)),
        luma(COLOUR),
    ),
    "12_bit.j2k": (
        lambda path: path.write_bytes(
            imagecodecs.jpeg2k_encode(DEEP >> 4, level=0, bitspersample=12, codecformat="j2k")
        ),
        (DEEP >> 4).astype(float),
    ),
    "signed.jp2": (
        lambda path: path.write_bytes(imagecodecs.jpeg2k_encode(DEEP.view(np.int16), level=0)),
        DEEP.view(np.int16).astype(float),
    ),
}


@pytest.mark.parametrize("name", DEEP_FILES)
@pytest.mark.parametrize("kind", [str, Path, Image.open])
def test_16_bits_are_kept(name: str, kind: Callable[[Path], Any], tmp_path: Path) -> None:
    write, grey = DEEP_FILES[name]
    write(tmp_path / name)
    if kind is Image.open:
        try:
            source = Image.open(tmp_path / name)
        except UnidentifiedImageError:
            return  # Pillow cannot open it: nobody hands it over so
    else:
        source = kind(tmp_path / name)
    assert np.abs(read_grey(source) - grey).max() <= 0.02


def test_dim_16_bit_colours_keep_their_levels(tmp_path: Path) -> None:
    """Pillow alone would keep 3 of 562 levels."""
    dim = np.linspace(100, 661, 24 * 24).round().reshape(24, 24).astype(np.uint16)
    path = tiff(tmp_path / "dim.tif", np.dstack([dim] * 3), photometric="rgb")
    assert len(np.unique(read_grey(path).round())) == 562


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_premultiplied_alpha_is_divided_out(
    kind: str, colours: int, dtype: type, tmp_path: Path
) -> None:
    full = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    colour = np.linspace(0.2, 0.8, 24 * 20).reshape(24, 20, 1).repeat(colours, axis=2)
    alpha = np.where(np.arange(20) % 2, 0.5, 1.0) * np.ones((24, 1))
    stored = np.concatenate(
        [colour * (alpha[..., None] if kind[0] == "a" else 1), alpha[..., None]], 2
    )
    stored = (stored * full).round(3 if full == 1 else 0).astype(dtype)
    path = tiff(
        tmp_path / "alpha.tif",
        stored,
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig="contig",
        extrasamples=[kind],
    )
    assert np.abs(read_grey(path) / full - colour[..., 0]).max() <= 0.012


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("colour", [0, 2])
def test_a_transparent_colour_of_a_png(depth: int, colour: int) -> None:
    """Transparent pixels take the level of the rim, whatever their value is."""
    if colour == 2 and depth < 8:
        return
    full = 2**depth - 1
    levels = np.full((16, 16), full, int)
    levels[6:10, 6:10] = 0
    hidden = 0
    levels[:, :4] = hidden
    shown = np.where(levels == hidden, hidden, full)
    samples = np.stack([shown] * (3 if colour == 2 else 1), -1).reshape(16, -1)
    rows = b""
    for row in samples:
        bits = "".join(format(value, f"0{depth}b") for value in row)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, colour, 0, 0, 0)),
            chunk(b"tRNS", struct.pack(">H", hidden) * (3 if colour == 2 else 1)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )
    grey = read_grey(read_bytes(data, "key.png"))
    # Only the top level is visible, so transparent pixels take it.
    assert grey.min() == grey.max() > 0


def test_a_palette_keeps_16_bits(tmp_path: Path) -> None:
    shades = RNG.permutation(2**16)[:256].astype(np.uint16)
    path = tiff(tmp_path / "p.tif", GREY, photometric="palette", colormap=np.stack([shades] * 3))
    assert np.abs(read_grey(path) - shades[GREY]).max() <= 0.02


def test_cmyk_of_16_bits(tmp_path: Path) -> None:
    inks = np.dstack([65535 - COLOUR, np.zeros_like(DEEP)])
    path = tiff(tmp_path / "cmyk.tif", inks, photometric="separated")
    assert np.abs(read_grey(path) - luma(COLOUR)).max() <= 0.02


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("low", [0, -3_000_000_000, 3_000_000_000, 2**60])
@pytest.mark.parametrize("kind", ["i", "u", "f"])
def test_levels_far_from_zero_keep_their_differences(kind: str, low: int, size: int) -> None:
    if (kind == "f" and size == 4) or (kind == "u" and low < 0) or (size == 4 and abs(low) > 2**31):
        return
    far = (GREY.astype(np.int64) + low).astype(f"{kind}{size}")
    if kind == "f" and low > 2**52:
        return
    grey = read_grey(far)
    assert np.array_equal(grey - grey.min(), GREY - float(GREY.min()))


# Pages


def test_separate_pages(tmp_path: Path) -> None:
    path = tiff(tmp_path / "cell.tif", STACK[:2], photometric="minisblack")
    images = list_images(path)
    assert images == [ImagePage(path, 1), ImagePage(path, 2)]
    assert [str(image) for image in images] == [f"{path} (page 1)", f"{path} (page 2)"]
    assert [image.suffix for image in images if isinstance(image, ImagePage)] == ["page1", "page2"]
    for image, plane in zip(images, STACK, strict=False):
        assert np.array_equal(read_grey(image), plane)
    with pytest.raises(ImageError, match=r"^.*cell.tif: holds 2 pages.*--page N.*page="):
        read_grey(path)
    with pytest.raises(ImageError, match="holds 2 pages"):
        read_bytes(path.read_bytes(), "cell.tif")
    assert list_images(path, page=2) == [ImagePage(path, 2)]
    assert list_images(path, projection="max") == [ImagePage(path, projection="max")]
    assert np.array_equal(read_grey(list_images(path, projection="max")[0]), STACK[:2].max(axis=0))
    with pytest.raises(ImageError, match="there is no page 3, the file holds 2 pages"):
        list_images(path, page=3)


def test_pages_of_different_sizes_and_kinds(tmp_path: Path) -> None:
    path = tmp_path / "crops.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(DEEP, photometric="minisblack")
        file.write(GREY[:17, :11], photometric="miniswhite")
        file.write(COLOUR[:9], photometric="rgb")
    first, second, third = list_images(path)
    assert np.array_equal(read_grey(first), DEEP)
    assert np.array_equal(read_grey(second), 255 - GREY[:17, :11])
    assert np.abs(read_grey(third) - luma(COLOUR[:9])).max() <= 0.02
    with pytest.raises(ImageError, match="cannot be projected"):
        read_grey(list_images(path, projection="max")[0])


ZCYX = np.stack([STACK[:3], STACK[1:4]], axis=1)  # 3 z-planes, 2 channels
STACKS: dict[str, Callable[[Path], Path]] = {
    "imagej": lambda path: tiff(path, ZCYX, imagej=True, metadata={"axes": "ZCYX"}),
    "imagej_behind": lambda path: tiff(
        path, ZCYX, imagej=True, metadata={"axes": "ZCYX"}, truncate=True
    ),
    "ome": lambda path: tiff(
        path, ZCYX, ome=True, metadata={"axes": "ZCYX"}, photometric="minisblack"
    ),
    "ome_c_first": lambda path: tiff(
        path, ZCYX.swapaxes(0, 1), ome=True, metadata={"axes": "CZYX"}, photometric="minisblack"
    ),
    "shaped": lambda path: tiff(path, ZCYX, metadata={"axes": "ZCYX"}, photometric="minisblack"),
    "shaped_behind": lambda path: tiff(
        path, ZCYX, metadata={"axes": "ZCYX"}, photometric="minisblack", truncate=True
    ),
    "shaped_with_text": lambda path: tiff(
        path,
        ZCYX,
        metadata={"axes": "ZCYX"},
        photometric="minisblack",
        description="DAPI and FITC",
    ),
    "older_shaped": lambda path: tiff(
        path,
        ZCYX,
        metadata=None,
        photometric="minisblack",
        description='{"axes": "ZCYX", "shape": [3, 2, 24, 20]}',
    ),
    "samples": lambda path: tiff(
        path,
        ZCYX,
        metadata={"axes": "ZSYX"},
        photometric="minisblack",
        planarconfig="separate",
    ),
}


@pytest.mark.parametrize("kind", STACKS)
def test_a_z_stack_with_channels(kind: str, tmp_path: Path) -> None:
    path = STACKS[kind](tmp_path / "stack.tif")
    for selection in ({}, {"page": 2}, {"channel": 1}):
        with pytest.raises(ImageError, match=r"holds 3 z-planes in 2 channels.*--") as caught:
            list_images(path, **selection)
        assert ("--page" in str(caught.value)) == ("page" not in selection)
        assert ("--channel" in str(caught.value)) == ("channel" not in selection)
    with pytest.raises(ImageError, match=r"--page N \(1 to 3\) or --projection max and"):
        read_grey(path)
    for z in range(3):
        for c in range(2):
            (image,) = list_images(path, page=z + 1, channel=c + 1)
            assert np.array_equal(read_grey(image), ZCYX[z, c])
    (image,) = list_images(path, channel=2, projection="max")
    assert isinstance(image, ImagePage)
    assert (str(image), image.suffix) == (f"{path} (channel 2, max projection)", "channel2-max")
    assert np.array_equal(read_grey(image), ZCYX[:, 1].max(axis=0))
    (image,) = list_images(path, channel=1, projection="min")
    assert np.array_equal(read_grey(image), ZCYX[:, 0].min(axis=0))
    with pytest.raises(ImageError, match="there is no channel 3, the image has 2 channels"):
        list_images(path, page=1, channel=3)
    with pytest.raises(ImageError, match="there is no page 4"):
        list_images(path, page=4, channel=1)


def test_channel_names(tmp_path: Path) -> None:
    path = tiff(
        tmp_path / "fish.ome.tif",
        STACK[:2],
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["FITC", "DAPI"]}},
    )
    with pytest.raises(
        ImageError, match=r"holds 2 channels \(FITC, DAPI\).*--channel N \(1 to 2\)"
    ):
        list_images(path)
    (image,) = list_images(path, channel=2)
    assert image == ImagePage(path, channel=2)
    assert np.array_equal(read_grey(image), STACK[1])


def test_a_time_series_and_scenes(tmp_path: Path) -> None:
    path = tiff(tmp_path / "t.tif", STACK, photometric="minisblack", metadata={"axes": "TYX"})
    with pytest.raises(ImageError, match="holds 5 frames"):
        list_images(path)
    assert np.array_equal(read_grey(ImagePage(path, 4)), STACK[3])
    path = tmp_path / "scenes.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for scene in (STACK[:2], STACK[2:4]):
            file.write(scene, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(ImageError, match="holds 2 pages of 2 z-planes"):
        list_images(path)
    assert np.array_equal(read_grey(list_images(path, page=3)[0]), STACK[2])
    both = list_images(path, projection="max")
    assert both == [ImagePage(path, 1, projection="max"), ImagePage(path, 2, projection="max")]
    assert np.array_equal(read_grey(both[1]), STACK[2:4].max(axis=0))


def test_a_volume_in_one_page(tmp_path: Path) -> None:
    path = tiff(
        tmp_path / "volume.tif", STACK, volumetric=True, tile=(16, 16, 16), photometric="minisblack"
    )
    with pytest.raises(ImageError, match="holds 5 z-planes"):
        list_images(path)
    assert np.array_equal(read_grey(ImagePage(path, 3)), STACK[2])
    assert np.array_equal(read_grey(ImagePage(path, projection="max")), STACK.max(axis=0))


def test_a_metamorph_stack(tmp_path: Path) -> None:
    """All planes lie behind a single page, and a tag has one value for each."""
    tags = [(33628, 4, 1, 0, True), (33629, 5, 5, (1, 1) * 5, True)]
    path = tiff(
        tmp_path / "m.tif",
        STACK,
        photometric="minisblack",
        metadata=None,
        truncate=True,
        extratags=tags,
    )
    with pytest.raises(ImageError, match="holds 5 z-planes"):
        list_images(path)
    assert np.array_equal(read_grey(ImagePage(path, 5)), STACK[4])


def test_a_zeiss_stack(tmp_path: Path) -> None:
    """Planes alternate with previews, and a record holds their number."""
    record = struct.pack("<IiiiiiiI", 0x400494C, 512, 20, 24, 5, 1, 1, 2) + bytes(480)
    path = tmp_path / "z.tif"
    with tifffile.TiffWriter(path, byteorder="<") as file:
        for number, plane in enumerate(STACK):
            tags = [] if number else [(34412, 7, len(record), record, True)]
            file.write(plane, photometric="minisblack", metadata=None, extratags=tags)
            file.write(plane[::4, ::4], photometric="minisblack", metadata=None, subfiletype=1)
    with pytest.raises(ImageError, match="holds 5 z-planes"):
        list_images(path)
    assert np.array_equal(read_grey(ImagePage(path, 4)), STACK[3])


def test_missing_planes_are_refused(tmp_path: Path) -> None:
    path = STACKS["imagej_behind"](tmp_path / "stack.tif")
    path.write_bytes(path.read_bytes()[: -DEEP.nbytes])
    with pytest.raises(ImageError, match="should hold 6 planes"):
        list_images(path)
    path = tiff(tmp_path / "pages.tif", STACK, photometric="minisblack", metadata=None)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        cut = file.pages[3].offset
    path.write_bytes(whole[:cut])
    with pytest.raises(ImageError, match="a page lies beyond the end of the file"):
        list_images(path)


def test_previews_masks_and_pyramids_are_left_out(tmp_path: Path) -> None:
    large = RNG.integers(0, 255, (320, 240), dtype=np.uint8)
    extras: dict[str, list[tuple[NDArray[Any], dict[str, Any]]]] = {
        "preview": [(large[::4, ::4], {"subfiletype": 1})],
        "mask": [(large > 9, {"subfiletype": 4})],
        "mask of a preview": [(large[::2, ::2] > 9, {"subfiletype": 5})],
        "unmarked pyramid": [(large[::2, ::2], {}), (large[::4, ::4], {}), (large[::8, ::8], {})],
        "unmarked preview": [(large[:60, :80], {})],
    }
    for name, pages in extras.items():
        for place in ("after", "before"):
            path = tmp_path / f"{name} {place}.tif"
            order = [(large, {}), *pages] if place == "after" else [*pages, (large, {})]
            with tifffile.TiffWriter(path) as file:
                for array, options in order:
                    file.write(array, photometric="minisblack", metadata=None, **options)
            assert list_images(path) == [path], name
            assert np.array_equal(read_grey(path), large), name
    half = tiff(tmp_path / "half.tif", large, photometric="minisblack", metadata=None)
    tiff(half, large[:160, :120], photometric="minisblack", metadata=None, append=True)
    assert len(list_images(half)) == 2, "one image of half the size may be another cell"
    path = tmp_path / "subifds.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(large, photometric="minisblack", subifds=1)
        file.write(large[::2, ::2], photometric="minisblack", subfiletype=1)
    assert np.array_equal(read_grey(path), large)


def test_a_file_of_previews_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "raw.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(GREY, photometric="minisblack", subfiletype=1, subifds=1)
        file.write(COLOUR, photometric="rgb")
    with pytest.raises(ImageError, match="previews and masks"):
        read_grey(path)
    alone = tiff(tmp_path / "alone.tif", GREY, subfiletype=1)
    assert np.array_equal(read_grey(alone), GREY)


ANIMATIONS = {"a.png": "PNG", "a.gif": "GIF", "a.webp": "WEBP"}


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations(name: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    options = {"lossless": True} if name == "a.webp" else {}
    path = tmp_path / name
    path.write_bytes(
        bytes_of(frames[0], ANIMATIONS[name], save_all=True, append_images=frames[1:], **options)
    )
    for source in (path, Image.open(path)):
        with pytest.raises(ImageError, match="holds 2 frames"):
            read_grey(source)
    with pytest.raises(ImageError, match="holds 2 frames"):
        list_images(path)
    for page in (1, 2):
        found = read_grey(ImagePage(path, page))
        assert np.abs(found - np.asarray(frames[page - 1])).max() <= 0.01
    found = read_grey(ImagePage(path, projection="max"))
    assert np.abs(found - np.maximum(GREY, GREY[::-1])).max() <= 0.01


def test_mpo_with_full_images_and_with_previews(tmp_path: Path) -> None:
    large = Image.fromarray(RNG.integers(0, 255, (320, 240), dtype=np.uint8))
    for name, second, expected in (
        ("two.jpg", large.rotate(180), 2),
        ("preview.jpg", large.resize((60, 80)), 1),
    ):
        path = tmp_path / name
        path.write_bytes(bytes_of(large, "MPO", save_all=True, append_images=[second], quality=95))
        assert len(list_images(path)) == expected
        found = [read_grey(image) for image in list_images(path)]
        assert np.abs(found[0] - np.asarray(large)).mean() < 4
        if expected == 2:
            assert np.abs(found[1] - np.asarray(second)).mean() < 12


def test_channel_of_a_colour_image(tmp_path: Path) -> None:
    """The blue of DAPI in a merged image."""
    path = tiff(tmp_path / "merged.tif", COLOUR, photometric="rgb")
    assert list_images(path) == [path]
    for channel in (1, 2, 3):
        (image,) = list_images(path, channel=channel)
        assert np.array_equal(read_grey(image), COLOUR[..., channel - 1])
    with pytest.raises(ImageError, match="there is no channel 4, the image has 3 channels"):
        list_images(path, channel=4)


def test_selections_do_not_change_a_single_image(tmp_path: Path) -> None:
    """One option can serve a folder with files of several kinds."""
    for path in (tiff(tmp_path / "a.tif", DEEP), tmp_path / "a.png"):
        if path.suffix == ".png":
            Image.fromarray(GREY).save(path)
        for selection in ({}, {"page": 1}, {"channel": 1}, {"projection": "max"}):
            assert list_images(path, **selection) == [path]
            assert list_images(str(path), **selection) == [path]
        with pytest.raises(ImageError, match="there is no page 2, the file holds one image; leave"):
            list_images(path, page=2)
        with pytest.raises(ImageError, match="there is no channel 2, the image has one channel; l"):
            list_images(path, channel=2)


@pytest.mark.parametrize(
    "selection",
    [{"page": 0}, {"page": -1}, {"page": True}, {"page": "2"}, {"channel": 0}, {"projection": "x"}],
)
def test_invalid_selections_are_refused(selection: dict[str, Any], tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", DEEP)
    with pytest.raises(ImageError):
        list_images(path, **selection)


def test_a_page_selected_in_pillow(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", STACK, photometric="minisblack")
    image = Image.open(path)
    with pytest.raises(ImageError, match="holds 5 pages"):
        read_grey(image)
    image.seek(3)
    assert np.array_equal(read_grey(image), STACK[3])


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "deep.png", "a.webp", "a.tif", "array"])
def test_orientation(orientation: int, name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = cv2.resize(GREY, (40, 48), interpolation=cv2.INTER_NEAREST)
    stored = Image.fromarray(upright)
    expected = Image.fromarray(upright)
    expected.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(expected)
    path = tmp_path / name
    source: Any = path
    if name == "a.tif":
        tiff(path, upright, extratags=[(274, 3, 1, orientation, True)])
    elif name == "deep.png":
        data = imagecodecs.png_encode(np.dstack([upright.astype(np.uint16) * 257] * 3))
        path.write_bytes(data[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + data[33:])
    elif name == "array":
        source = Image.open(io.BytesIO(bytes_of(stored, "PNG", exif=exif)))
        source.load()
    else:
        path.write_bytes(bytes_of(stored, name[2:].replace("jpg", "jpeg"), exif=exif, quality=100))
    found = read_grey(source) / (257 if name == "deep.png" else 1)
    assert found.shape == np.asarray(expected).shape
    assert np.abs(found - np.asarray(expected)).mean() < (6 if name == "a.webp" else 1)


# Formats


@pytest.fixture
def no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)


EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n{} loop\nshowpage\n%%EOF\n"
)
UNSUPPORTED = {
    "EPS": EPS,
    "PDF": b"%PDF-1.7\n",
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "EMF": b"\x01\0\0\0" + bytes(80),
    "PSD": b"8BPS\0\1" + bytes(40),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://x.invalid/"/></svg>',
    "PGM": b"P5 8 8 255\n" + bytes(64),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(40),
    "DICOM": bytes(128) + b"DICM" + bytes(40),
    "CZI": b"ZISRAWFILE" + bytes(40),
    "ZIP": b"PK\x03\x04" + bytes(40),
}


@pytest.mark.usefixtures("no_program")
@pytest.mark.parametrize("kind", UNSUPPORTED)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_unsupported_formats_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(UNSUPPORTED[kind])
    for read in (read_grey, list_images):
        with pytest.raises(ImageError, match=f"its format is {kind}.*export it as PNG, TIFF"):
            read(path)
    with pytest.raises(ImageError, match=f"its format is {kind}"):
        read_bytes(UNSUPPORTED[kind], name)


@pytest.mark.usefixtures("no_program")
def test_unsupported_formats_opened_by_pillow() -> None:
    with pytest.raises(ImageError, match="its format is EPS, which is not supported"):
        read_grey(Image.open(io.BytesIO(EPS)))
    ppm = Image.open(io.BytesIO(b"P6 8 8 255\n" + bytes(range(192))))
    with pytest.raises(ImageError, match="its format is PPM"):
        read_grey(ppm)
    ppm.load()  # what its owner has decoded is taken
    assert read_grey(ppm).shape == (8, 8)


# Hostile headers


def tiff_of(
    entries: list[tuple[int, int, int, int]], rest: bytes = b"", following: int = 0
) -> bytes:
    """A little-endian TIFF with one page: tags at offset 8, then the data."""
    body = struct.pack("<H", len(entries))
    for code, kind, count, value in sorted(entries):
        body += struct.pack("<HHLL", code, kind, count, value)
    return b"II*\0" + struct.pack("<L", 8) + body + struct.pack("<L", following) + rest


def claimed(**changes: int) -> list[tuple[int, int, int, int]]:
    values = {
        "width": 10, "height": 10, "bits": 8, "compression": 1, "photometric": 1, "offset": 8,
        "samples": 1, "rows": 10, "bytes": 100,
    } | changes  # fmt: skip
    codes = {
        "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262,
        "offset": 273, "samples": 277, "rows": 278, "bytes": 279, "tile_width": 322,
        "tile_height": 323, "tile_offset": 324, "tile_bytes": 325, "depth": 32997, "format": 339,
    }  # fmt: skip
    return [(codes[name], 4, 1, value) for name, value in values.items()]


def bomb(compress: Callable[[bytes], bytes], code: int, **changes: int) -> bytes:
    """A strip that decompresses to far more than the header claims."""
    packed = compress(bytes(2**26))
    entries = claimed(compression=code, bytes=len(packed), **changes)
    start = 8 + 2 + 12 * len(entries) + 4
    return tiff_of([e if e[0] != 273 else (273, 4, 1, start) for e in entries], packed)


def claim_of_jpeg2000() -> bytes:
    """The box claims 24x20 pixels, the code 60000x60000."""
    data = bytearray(imagecodecs.jpeg2k_encode(GREY, level=0))
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = struct.pack(">LL", 60_000, 60_000)
    return bytes(data)


def jpeg_claims_in_tiff() -> bytes:
    data = bytearray(bytes_of(Image.fromarray(GREY), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


def in_strip(data: bytes, code: int, **changes: int) -> bytes:
    entries = claimed(compression=code, bytes=len(data), width=20, height=24, rows=24, **changes)
    start = 8 + 2 + 12 * len(entries) + 4
    return tiff_of([e if e[0] != 273 else (273, 4, 1, start) for e in entries], data)


def many_pages(number: int) -> bytes:
    """Pages without tags in a long chain."""
    data = b"II*\0" + struct.pack("<L", 8)
    return data + b"".join(
        struct.pack("<HL", 0, 8 + 6 * (k + 1) if k < number - 1 else 0) for k in range(number)
    )


CLAIMS: dict[str, Callable[[], bytes]] = {
    "4 GiB": lambda: tiff_of(claimed(width=65536, height=65536)),
    "many samples": lambda: tiff_of(claimed(samples=60_000, width=12_000, height=12_000)),
    "deep": lambda: tiff_of(claimed(depth=2**31, width=1000, height=1000)),
    "no width": lambda: tiff_of(claimed(width=0)),
    "a huge tile": lambda: tiff_of(
        claimed(tile_width=2**17, tile_height=2**17, tile_offset=8, tile_bytes=100)
    ),
    "no tile": lambda: tiff_of(claimed(tile_width=0, tile_height=0, tile_offset=8, tile_bytes=9)),
    "many strips": lambda: tiff_of([(273, 4, 2**31, 8), *claimed()[:5], *claimed()[6:]]),
    "strips outside": lambda: tiff_of(claimed(offset=10**9)),
    "too few bytes": lambda: tiff_of(claimed(width=1000, height=1000), bytes(100)),
    "a long tag": lambda: tiff_of([*claimed(), (270, 2, 2**31, 8)]),
    "several widths": lambda: tiff_of([*claimed()[1:], (256, 3, 2, 2**16 + 1)]),
    "a width that is no number": lambda: tiff_of([*claimed()[1:], (256, 11, 1, 10)]),
    "a tag of no type": lambda: tiff_of([*claimed()[:4], (262, 99, 1, 1), *claimed()[5:]]),
    "a page in a circle": lambda: tiff_of(claimed(), bytes(200), following=8),
    "20,000 pages": lambda: many_pages(20_000),
    "deflate bomb": lambda: bomb(zlib.compress, 8),
    "zstd bomb": lambda: bomb(imagecodecs.zstd_encode, 50000),
    "lzma bomb": lambda: bomb(lambda data: imagecodecs.lzma_encode(data[: 2**24]), 34925),
    "JPEG 2000": claim_of_jpeg2000,
    "JPEG in TIFF": lambda: in_strip(jpeg_claims_in_tiff(), 7),
    "JPEG 2000 in TIFF": lambda: in_strip(claim_of_jpeg2000(), 34712),
    "a JPEG smaller than its strip": lambda: in_strip(
        bytes_of(Image.fromarray(GREY[:16]), "JPEG"), 7
    ),
    "a PNG on its side": lambda: in_strip(bytes_of(Image.fromarray(GREY.T), "PNG"), 34933),
    "PNG in TIFF": lambda: in_strip(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b""),
        34933,
    ),
    "chunk of PNG": lambda: (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR" + bytes(9)
    ),
    "BMP": lambda: b"BM" + struct.pack("<LLLLLLHHLL", 99, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0),
    "GIF": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + bytes(50),
    "JPEG": jpeg_claims_in_tiff,
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_header_claims_are_checked_before_decoding(kind: str, tmp_path: Path) -> None:
    """The time limit detects large allocations, as 4 GiB take seconds."""
    path = tmp_path / "claim.tif"
    path.write_bytes(CLAIMS[kind]())
    start = time.process_time()
    if kind.endswith("bomb"):
        # The headers claim less than the data hold, so the claim is decoded or the file refused.
        with contextlib.suppress(ImageError):
            assert read_grey(path).shape == (10, 10)
    else:
        for read in (lambda path: [read_grey(image) for image in list_images(path)], read_grey):
            with pytest.raises(ImageError, match=r"claim\.tif: .*;"):
                read(path)
    assert time.process_time() - start < 1


# Paths


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    loop = tmp_path / "loop.tif"
    loop.symlink_to(loop)
    folder = tmp_path / "folder.tif"
    folder.mkdir()
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    paths = [loop, folder, fifo, "/dev/zero", tmp_path / "a.png" / "b.png", "a\0b.png", "", "."]
    paths += [tmp_path / ("x" * 5000), tmp_path / "ghost.png"]
    for path in paths:
        for read in (read_grey, list_images):
            with pytest.raises(ImageError) as caught:
                read(path)
            assert str(caught.value).isprintable()
    (tmp_path / "locked").symlink_to("/proc/self/mem")
    with pytest.raises(ImageError):
        read_grey(tmp_path / "locked")


@pytest.mark.parametrize(
    "name", [b"caf\xe9.png", b"new\nline.png", b"\x1b[31mred.png", b"a\tb.png"]
)
def test_unprintable_names(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    Image.fromarray(GREY).save(path)
    assert np.array_equal(read_grey(path), GREY)
    path.write_bytes(b"broken")
    for read in (read_grey, list_images):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert str(caught.value).isprintable()
        assert str(caught.value).encode("utf-8")


# PIL images and arrays


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it opens
def test_damaged_files_opened_by_pillow() -> None:
    """Any first access to a damaged file raises an ImageError: size, mode, pixels or EXIF."""
    rng = random.Random(3)
    whole = {
        kind: bytes_of(Image.fromarray(GREY).resize((60, 80)), kind)
        for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM", "TGA")
    }
    opened = 0
    for _ in range(200):
        for data in whole.values():
            broken = bytearray(data)
            for _ in range(rng.choice([1, 3, 10])):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            try:
                image = Image.open(io.BytesIO(bytes(broken[: rng.randrange(20, len(broken))])))
            except Exception:
                continue
            opened += 1
            for _ in range(2):  # `classify` looks twice
                with contextlib.suppress(ImageError):
                    read_grey(image, "image 3")
    assert opened > 300


ARRAYS: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.from_numpy(GREY),
    "tensor with gradient": lambda: torch.from_numpy(GREY.astype(np.float32)).requires_grad_(),
    "bfloat16": lambda: torch.from_numpy(GREY.astype(np.float32)).to(torch.bfloat16),
    "one channel": lambda: torch.from_numpy(GREY)[None],
    "strided tensor": lambda: torch.from_numpy(GREY.T.copy()).T,
    "big-endian": lambda: GREY.astype(">i8"),
    "mirrored": lambda: np.ascontiguousarray(GREY[::-1])[::-1],
    "every second": lambda: np.repeat(GREY, 2, axis=1)[:, ::2],
    "read-only": lambda: np.broadcast_to(GREY, GREY.shape),
    "no pixel masked": lambda: np.ma.masked_array(GREY, mask=False),
    "matrix": lambda: np.asmatrix(GREY),
    "float16": lambda: GREY.astype(np.float16),
    "long double": lambda: GREY.astype(np.longdouble),
    "list": lambda: GREY.tolist(),
    "memory": lambda: memoryview(GREY),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("kind", ARRAYS)
def test_unusual_arrays(kind: str) -> None:
    found = read_grey(ARRAYS[kind]())
    assert np.abs(found - GREY).max() <= (1 if kind == "bfloat16" else 0)
    assert found.dtype == np.float32


BAD_ARRAYS: dict[str, Callable[[], Any]] = {
    "no dimension": lambda: np.array(5),
    "masked": lambda: np.ma.masked_array(GREY, mask=GREY > 100),
    "structured": lambda: np.zeros((9, 9), [("a", "u1"), ("b", "f4")]),
    "time": lambda: np.zeros((9, 9), "m8[s]"),
    "complex": lambda: GREY + 1j,
    "objects": lambda: GREY.astype(object),
    "bytes": lambda: b"not an array",
    "sparse": lambda: torch.eye(9).to_sparse(),
    "complex tensor": lambda: torch.ones(9, 9, dtype=torch.complex64),
    "endless": lambda: np.broadcast_to(np.uint8(1), (10**6, 10**6)),
    "NaN in alpha": lambda: np.dstack([GREY / 255] * 3 + [np.full(GREY.shape, np.nan)]),
    "a set": lambda: {1, 2},
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_bad_arrays_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match=r"^image 2: "):
        read_grey(BAD_ARRAYS[kind](), "image 2")


def test_tifffile_logs_outside_of_reading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Reading an image silences tifffile, but not for its other users."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of(claimed(offset=8, bytes=2**30, photometric=1), bytes(100)))
    with pytest.raises(ImageError):
        read_grey(path)
    assert not caplog.records
    with tifffile.TiffFile(io.BytesIO(tiff_of(claimed()[:5]))) as file:
        assert len(file.pages) == 1
    assert caplog.records
    assert capfd.readouterr().err == ""


@pytest.fixture(autouse=True)
def no_other_error() -> Iterator[None]:
    with np.errstate(all="raise"):
        yield
