"""TIFF files of all kinds that tifffile can write of one image give the same signal.

Or they are refused, with an error that names the reason and the remedy; none differs in silence.
"""

import copy
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from chromozoo.errors import ImageError
from chromozoo.images.reading import ImagePage, list_images, read_grey

SHAPE = (24, 20)
SIGNAL = np.random.default_rng(0).random(SHAPE)
SIGNAL.flat[:2] = 0, 1
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Kind:
    """A type of values: how it stores and inverts the signal."""

    dtype: str
    low: float
    high: float
    bits: int | None = None

    def of(self, signal: NDArray[np.float64]) -> NDArray[Any]:
        if self.dtype == "bool":
            return signal > 0.5
        levels = self.low + signal * (self.high - self.low)
        if self.dtype[0] in "iu":
            # 2**64 - 1 and 2**63 - 1 are not doubles, so the next lower double is used.
            top = np.nextafter(float(np.iinfo(self.dtype).max), 0)
            return levels.round().clip(self.low, top).astype(self.dtype)
        return levels.astype(self.dtype)

    def turned(self, levels: NDArray[Any]) -> NDArray[Any]:
        """Values as MinIsWhite stores them."""
        if self.dtype[0] == "u":
            return np.asarray(self.dtype_full - levels)
        return ~levels if self.dtype[0] in "ib" else -levels

    @property
    def dtype_full(self) -> Any:
        full = 2**self.bits - 1 if self.bits else np.iinfo(self.dtype).max
        return np.dtype(self.dtype).type(full)


KINDS = {
    "bool": Kind("bool", 0, 1),
    "uint8": Kind("uint8", 0, 255),
    "4 bits": Kind("uint8", 0, 15, 4),
    "uint16": Kind("uint16", 0, 65535),
    "dim uint16": Kind("uint16", 100, 661),
    "12 in 16": Kind("uint16", 0, 4095),
    "12 bits": Kind("uint16", 0, 4095, 12),
    "uint32": Kind("uint32", 0, 2**32 - 1),
    "far uint32": Kind("uint32", 3_000_000_000, 3_000_001_000),
    "uint64": Kind("uint64", 0, 2**64 - 1),
    "int8": Kind("int8", -128, 127),
    "int16": Kind("int16", -32768, 32767),
    "int32": Kind("int32", -(2**31), 2**31 - 1),
    "int64": Kind("int64", -(2**63), 2**63 - 1),
    "float16": Kind("float16", 0, 1),
    "float32": Kind("float32", -3, 5),
    "float64": Kind("float64", 0, 1e6),
    "complex64": Kind("complex64", 0, 1),
}
COMPRESSIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "lzw": {"compression": "lzw"},
    "deflate": {"compression": "zlib"},
    "zstd": {"compression": "zstd"},
    "packbits": {"compression": "packbits"},
    "lzma": {"compression": "lzma"},
    "jpeg": {"compression": "jpeg", "compressionargs": {"level": 98}},
    "jpeg2000": {"compression": "jpeg2000", "compressionargs": {"level": 0}},
    "webp": {"compression": "webp", "compressionargs": {"lossless": True}},
    "png": {"compression": "png"},
    "lerc": {"compression": "lerc"},
    "jpegxl": {"compression": "jpegxl"},
}
REFUSED = {"lerc", "jpegxl"}
PHOTOMETRICS = ("minisblack", "miniswhite", "rgb", "palette")


@dataclass(frozen=True)
class Case:
    """Options for writing the image."""

    kind: str
    photometric: str
    compression: str
    planar: str
    order: str
    predictor: int | None
    tiled: bool
    pages: int
    bigtiff: bool


def drawn_cases() -> list[Case]:
    """Every type with every photometric and compression; other options are random."""
    rng = np.random.default_rng(20)
    cases = []
    for kind, photometric, compression in itertools.product(KINDS, PHOTOMETRICS, COMPRESSIONS):
        if compression == "jpeg" and KINDS[kind].bits:
            continue  # it has 8 bits whatever is asked for
        if photometric == "palette" and not kind.startswith(("uint8", "uint16", "4", "12")):
            continue
        # Options that tifffile ignores are not varied.
        for _ in range(2 if compression in ("none", "lzw", "deflate", "zstd") else 1):
            predictors = [None, 3 if kind.startswith("float") else 2]
            cases.append(
                Case(
                    kind,
                    photometric,
                    compression,
                    str(rng.choice(["contig", "separate"])),
                    str(rng.choice(["<", ">"])),
                    predictors[rng.integers(2)]
                    if compression in ("lzw", "deflate", "zstd")
                    else None,
                    bool(rng.integers(2)),
                    int(rng.integers(1, 3)),
                    bool(rng.integers(2)),
                )
            )
    return cases


def page_of(case: Case, number: int) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """Samples to write, expected grey levels, and options of the palette."""
    kind = KINDS[case.kind]
    signal = np.rot90(SIGNAL, 2) if number else SIGNAL
    levels = kind.of(signal)
    if case.photometric == "palette":
        shade_count = 2 ** (kind.bits or 8 * levels.itemsize)
        indices = np.random.default_rng(1).permutation(shade_count).astype(levels.dtype)
        colours = np.zeros((3, indices.size), np.uint16)
        shades = np.linspace(0, 65535, indices.size).round().astype(np.uint16)
        colours[:, indices] = shades
        return indices[levels], shades[levels].astype(float), {"colormap": colours}
    if case.photometric == "rgb":
        # Three different images, so that a swap is detected.
        colours = np.stack([levels, levels[::-1], levels[:, ::-1]], axis=-1)
        grey = colours.real.astype(float) @ LUMA
        return (colours if case.planar == "contig" else np.moveaxis(colours, -1, 0)), grey, {}
    grey = levels.astype(float) if levels.dtype.kind != "c" else levels.real.astype(float)
    if case.kind in ("bool", "4 bits"):
        grey *= 255 / kind.high
    return (kind.turned(levels) if case.photometric == "miniswhite" else levels), grey, {}


def write(case: Case, path: Path) -> list[NDArray[np.float64]] | None:
    """Write the file; return the grey levels of each page, or None if tifffile refuses."""
    kind = KINDS[case.kind]
    expected = []
    try:
        with tifffile.TiffWriter(path, byteorder=case.order, bigtiff=case.bigtiff) as file:
            for number in range(case.pages):
                samples, grey, options = page_of(case, number)
                file.write(
                    samples,
                    photometric=case.photometric,
                    planarconfig=case.planar if case.photometric == "rgb" else None,
                    predictor=case.predictor,
                    tile=(16, 16) if case.tiled else None,
                    bitspersample=kind.bits,
                    rowsperstrip=None if case.tiled else 7,
                    metadata=None,
                    **copy.deepcopy(COMPRESSIONS[case.compression]),  # tifffile adds to it
                    **options,
                )
                expected.append(grey)
    except Exception:
        return None
    return expected


def assert_same(found: NDArray[np.float32], grey: NDArray[np.float64], case: Case) -> None:
    span = grey.max() - grey.min()
    apart = found - found.min() - (grey - grey.min())
    if case.compression == "jpeg":
        assert np.abs(apart).mean() < 0.02 * span + 1, case
        return
    exact = case.photometric.startswith("minis") and np.dtype(KINDS[case.kind].dtype).itemsize <= 2
    # float32 has 24 bits, and three colours are added.
    assert np.abs(apart).max() <= (0 if exact else 3e-7 * span), case
    if exact:
        assert found.min() == grey.min(), case


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, str]:
    """Read each case that can be written: ``"read"`` or the error message."""
    folder = tmp_path_factory.mktemp("oracle")
    found: dict[Case, str] = {}
    for number, case in enumerate(drawn_cases()):
        path = folder / f"{number}.tif"
        expected = write(case, path)
        if expected is None:
            continue
        try:
            images = list_images(path)
            for image, grey in zip(images, expected, strict=True):
                assert_same(read_grey(image), grey, case)
            if case.pages > 1:
                assert images == [ImagePage(path, page + 1) for page in range(case.pages)]
                with pytest.raises(ImageError, match=f"holds {case.pages} pages"):
                    read_grey(path)
            found[case] = "read"
        except ImageError as error:
            found[case] = str(error)
    return found


def expected_refusal(case: Case) -> str:
    """Part of the expected error message; empty if the case has to be read."""
    bits = KINDS[case.kind].bits or (1 if case.kind == "bool" else 8)
    size = np.dtype(KINDS[case.kind].dtype).itemsize
    if case.kind == "complex64":
        return "values of 64 bits in format"
    if case.compression in REFUSED:
        return f"its compression {case.compression.upper()} is not supported"
    if case.kind == "bool" and case.predictor:
        return "1-bit values with a predictor"
    if case.kind == "bool" and case.photometric == "rgb" and case.planar == "contig":
        return "1-bit colours"
    if case.compression == "jpeg" and size > 1:
        return "12-bit values in JPEG"
    if case.compression == "jpeg" and case.photometric == "palette":
        return "palettes in JPEG"
    if case.compression == "jpeg2000" and size > 2:
        return "32-bit values in JPEG 2000"
    # tifffile swaps the bytes of these before it packs their bits.
    if case.compression == "jpeg2000" and size > 1 and case.order == ">":
        return "big-endian"
    return "big-endian 12-bit values" if bits == 12 and case.order == ">" else ""


def test_cases_give_the_signal_or_are_refused(outcomes: dict[Case, str]) -> None:
    refused = {case: message for case, message in outcomes.items() if message != "read"}
    assert len(outcomes) >= 500
    assert len(refused) >= 50
    assert len(outcomes) - len(refused) >= 400
    for case, message in outcomes.items():
        reason = expected_refusal(case)
        if reason:
            assert reason in message, (case, message)
            # The remedy follows the reason.
            assert ";" in message, message
            assert "save it" in message or "export it" in message, message
        else:
            assert message == "read", (case, message)


def test_cases_cover_all_kinds_and_compressions(outcomes: dict[Case, str]) -> None:
    read = [case for case, message in outcomes.items() if message == "read"]
    assert {case.kind for case in read} == set(KINDS) - {"complex64"}
    assert {case.compression for case in read} == set(COMPRESSIONS) - REFUSED
    assert {case.photometric for case in read} == set(PHOTOMETRICS)
    counts = Counter(
        (name, str(getattr(case, name)))
        for case in read
        for name in ("planar", "order", "predictor", "tiled", "pages", "bigtiff")
    )
    assert len(counts) == 13
    assert min(counts.values()) >= 10, counts
