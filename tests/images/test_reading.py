"""Reading: all common kinds of images give the same crop, and bad ones an ImageError."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from chromozoo.errors import ImageError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.reading import read_grey
from chromozoo.synthetic import Appearance, draw_chromosome

LOOK = Appearance(bend=0.1, noise=0.0, photons=1e9, overlap=0.0)
GREY = draw_chromosome("3", LOOK, np.random.default_rng(0), angle=25).image
RGB = np.repeat(GREY[..., None], 3, axis=2)
OPAQUE = np.uint8(255) * (GREY > 0)
PRESET = ChromosomePreset(height=96, width=40)
PLAIN = PRESET.prepare(GREY)


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def difference(crop: np.ndarray, plain: np.ndarray = PLAIN) -> tuple[float, float]:
    apart = np.abs(crop.astype(float) - plain)
    return float(apart.max()), float(apart.mean())


def write_png(path: Path, **options: object) -> Path:
    Image.fromarray(GREY).save(path, **options)
    return path


def opened(path: Path) -> Image.Image:
    """A PIL image that is opened but not yet loaded."""
    return Image.open(io.BytesIO(path.read_bytes()))


def in_palette(grey: np.ndarray) -> Image.Image:
    return Image.fromarray(grey).convert("P")


FILES: dict[str, Callable[[Path], object]] = {
    "grey.png": write_png,
    "grey.bmp": write_png,
    "grey.tif": write_png,
    "UPPER.PNG": write_png,
    "with spaces ä.png": write_png,
    "rgb.png": lambda path: Image.fromarray(RGB).save(path),
    "rgb.bmp": lambda path: Image.fromarray(RGB).save(path),
    "palette.png": lambda path: in_palette(GREY).save(path),
    "colour_palette.gif": lambda path: Image.fromarray(RGB).save(path),
    "cmyk.tif": lambda path: Image.fromarray(RGB).convert("CMYK").save(path),
    "opaque_la.png": lambda path: Image.fromarray(GREY).convert("LA").save(path),
    "opaque_rgba.png": lambda path: Image.fromarray(RGB).convert("RGBA").save(path),
    "16_bit.png": lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path),
    "16_bit.tif": lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path),
    "12_bit.tif": lambda path: Image.fromarray(GREY.astype(np.uint16) * 16).save(path),
    "16_bit_rgb.png": lambda path: cv2.imwrite(str(path), RGB.astype(np.uint16) * 257),
    "32_bit.tif": lambda path: Image.fromarray(GREY.astype(np.int32) * 257).save(path),
    "float.tif": lambda path: Image.fromarray(GREY.astype(np.float32) / 255).save(path),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [str, Path, opened])
def test_files(name: str, kind: Callable[[Path], object], tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    largest, _ = difference(PRESET.prepare(kind(tmp_path / name)))  # type: ignore[arg-type]
    assert largest <= 2


def test_jpeg(tmp_path: Path) -> None:
    largest, mean = difference(PRESET.prepare(write_png(tmp_path / "a.jpg", quality=95)))
    assert largest <= 16
    assert mean < 1


ARRAYS = {
    "uint8": GREY,
    "uint16": GREY.astype(np.uint16) * 257,
    "int64": GREY.astype(np.int64),
    "float64 0..1": GREY / 255,
    "float16 0..1": (GREY / 255).astype(np.float16),
    "below zero": GREY.astype(np.float32) - 1000,
    "(H, W, 1)": GREY[..., None],
    "RGB": RGB,
    "opaque RGBA": np.dstack([RGB, np.full_like(GREY, 255)]),
    "read-only": np.broadcast_to(GREY, GREY.shape),
    "not contiguous": np.asfortranarray(GREY),
    "big-endian": (GREY.astype(np.uint16) * 257).astype(">u2"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays(kind: str) -> None:
    largest, _ = difference(PRESET.prepare(ARRAYS[kind]))
    assert largest <= 2


@pytest.mark.parametrize(
    "mode",
    [
        "L",
        "LA",
        "La",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "HSV",
        "I",
        "F",
        "I;16",
    ],
)
def test_pil_modes(mode: str) -> None:
    step = {"La": "LA", "RGBa": "RGBA", "HSV": "RGB"}.get(mode, "L")
    image = Image.fromarray(GREY).convert(step).convert(mode)
    largest, _ = difference(PRESET.prepare(image))
    assert largest <= 2


def test_binary_images(tmp_path: Path) -> None:
    plain = PRESET.prepare(np.uint8(255) * (GREY > 100))
    Image.fromarray(GREY > 100).save(tmp_path / "1_bit.png")
    for source in (GREY > 100, tmp_path / "1_bit.png", Image.fromarray(GREY > 100)):
        assert difference(PRESET.prepare(source), plain) == (0, 0)


@pytest.mark.parametrize("stain", ["bright", "dark"])
@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("file", ["rgba.png", "la.png", "array"])
def test_transparent_background_is_background(
    stain: str, hidden: int, file: str, tmp_path: Path
) -> None:
    """The value of transparent pixels does not matter."""
    visible = GREY if stain == "bright" else 255 - GREY
    shown = np.where(OPAQUE > 0, visible, np.uint8(hidden))
    rgba = np.dstack([shown, shown, shown, OPAQUE])
    source: np.ndarray | Path = rgba
    if file != "array":
        source = tmp_path / file
        image = Image.fromarray(rgba)
        (image.convert("LA") if file == "la.png" else image).save(source)
    # The cut leaves a rim of up to 5 % of the signal, the only hint at the background.
    largest, _ = difference(PRESET.prepare(source))
    assert largest <= 0.05 * 255


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    in_palette(GREY).save(tmp_path / "index.png", transparency=0)
    in_palette(GREY).save(tmp_path / "bytes.png", transparency=bytes([0] + [255] * 255))
    for name in ("index.png", "bytes.png"):
        largest, _ = difference(PRESET.prepare(tmp_path / name))
        assert largest <= 0.05 * 255


def test_units_of_the_source_are_kept() -> None:
    assert read_grey(GREY.astype(np.uint16) * 257).max() == int(GREY.max()) * 257
    assert read_grey(GREY).dtype == np.float32


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def shortened(path: Path, share: float) -> Path:
    write_png(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def flipped(path: Path) -> Path:
    write_png(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    return path


def uniform(path: Path, value: int, size: tuple[int, int] = (50, 30)) -> None:
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


BAD_FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing.png": ("no such image file", lambda path: None),
    "folder.png": ("no such image file", lambda path: path.mkdir()),
    "empty.png": ("empty", lambda path: path.write_bytes(b"")),
    "text.png": ("damaged or not an image", lambda path: path.write_text("not an image")),
    "bytes.bmp": ("damaged or not an image", lambda path: path.write_bytes(bytes(range(200)))),
    "half.png": ("damaged", lambda path: shortened(path, 0.5)),
    "header.png": ("damaged", lambda path: shortened(path, 0.05)),
    "half.bmp": ("damaged", lambda path: shortened(path, 0.5)),
    "nearly.bmp": ("damaged", lambda path: shortened(path, 0.97)),
    "half.tif": ("damaged", lambda path: shortened(path, 0.5)),
    "half.jpg": ("damaged", lambda path: shortened(path, 0.5)),
    "flipped.png": ("damaged", flipped),
    "black.png": ("uniform", lambda path: uniform(path, 0)),
    "white.png": ("uniform", lambda path: uniform(path, 255)),
    "grey.png": ("uniform", lambda path: uniform(path, 128)),
    "one_pixel.png": ("too small", lambda path: uniform(path, 9, (1, 1))),
    "3x200.png": ("too small", lambda path: uniform(path, 9, (200, 3))),
    "slide.png": ("cut the cell out", lambda path: path.write_bytes(png_of_size(15_001, 10_000))),
    "scan.png": ("cut the cell out", lambda path: path.write_bytes(png_of_size(60_000, 60_000))),
    # PIL would warn of a decompression bomb, but our limit is lower.
    "large.png": ("damaged", lambda path: path.write_bytes(png_of_size(14_900, 10_000))),
    "nan.tif": (
        "NaN",
        lambda path: Image.fromarray(np.full((50, 30), np.nan, np.float32)).save(path),
    ),
    "x" * 300 + ".png": ("cannot be read", lambda path: None),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("kind", [str, Path])
def test_errors_name_bad_files(name: str, kind: Callable[[Path], object], tmp_path: Path) -> None:
    reason, write = BAD_FILES[name]
    path = tmp_path / name
    write(path)
    with pytest.raises(ImageError) as caught:
        PRESET(kind(path))  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["half.png", "half.bmp", "half.jpg"])
def test_pil_images_of_bad_files(name: str, tmp_path: Path) -> None:
    """PIL opens a file without decoding it, so damage shows later."""
    image = opened(shortened(tmp_path / name, 0.6))
    with pytest.raises(ImageError, match="damaged"):
        PRESET(image)


def with_nan() -> np.ndarray:
    array = GREY / 255
    array[40, 20] = np.nan
    return array


BAD_ARRAYS = {
    "NaN": with_nan(),
    "infinite": np.where(GREY > 100, np.inf, GREY),
    "beyond float32": GREY * 1e300,
    "near the end of float32": GREY * np.float32(1e36) - np.float32(1e38),
    "no pixels": np.zeros((0, 0)),
    "no rows": np.zeros((0, 50, 3)),
    "no planes": np.zeros((50, 50, 0)),
    "two planes": np.dstack([GREY, GREY]),
    "planes first": np.repeat(GREY[None], 3, axis=0),
    "a stack": np.zeros((2, 50, 50, 3)),
    "one pixel": np.ones((1, 1)),
    "three columns": GREY[:, :3],
    "black": np.zeros((50, 50), np.uint8),
    "white": np.full((50, 50), 65535, np.uint16),
    "grey": np.full((50, 50, 3), 0.5),
    "all True": np.ones((50, 50), bool),
    "complex": GREY.astype(complex),
    "text": GREY.astype(str),
    "objects": np.full((50, 50), None),
    "dates": GREY.astype("M8[s]"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_errors_name_bad_arrays(kind: str) -> None:
    with pytest.raises(ImageError, match=r"^image 7: "):
        PRESET(BAD_ARRAYS[kind], "image 7")


@pytest.mark.parametrize("source", [None, 5, [[1, 2], [3]], object()])
def test_other_objects_are_refused(source: object) -> None:
    with pytest.raises(ImageError):
        PRESET(source)  # type: ignore[arg-type]
