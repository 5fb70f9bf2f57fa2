"""Fuzz test of all readers with damaged files.

Valid files are changed at random: bits, lengths, header fields, values of JSON, names and parts of
archives. Checksums are corrected, so that the code behind them is reached as well. Each reader must
return a result or raise a ``ChromozooError`` within seconds:

    python benchmarks/fuzz.py --count 20000 --seed 1
    python benchmarks/fuzz.py --seconds 3600 --kinds image,coco --keep found

The suite runs 2,000 of them (``tests/project/test_fuzz.py``). A failure is printed with the number
that reproduces it: ``--seed 1 --only 1234``.
"""

import argparse
import base64
import contextlib
import copy
import faulthandler
import hashlib
import io
import json
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from faster_coco_eval.core import mask as coco_mask
from PIL import Image
from torch import nn

from chromozoo.classes import SEX_CHROMOSOMES
from chromozoo.data import bioimlab, karyograms
from chromozoo.data import pki3 as gband_crops
from chromozoo.data.cil54816 import Cil54816Files
from chromozoo.data.io.coco import write_coco
from chromozoo.data.io.karyogram_export import extract_files
from chromozoo.data.io.metaphase_files import open_metaphases
from chromozoo.data.mfish import MFishFiles
from chromozoo.errors import ChromozooError
from chromozoo.images.karyogram_layout import LAYOUTS, RELATIVE_LENGTHS
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.reading import list_images, read_grey
from chromozoo.models.registry import get_model, register_model
from chromozoo.models.weights import storage as storage_weights
from chromozoo.structures.metaphase import Metaphase, MetaphaseFiles, find_faults
from chromozoo.structures.weights_entry import METADATA_KEY, STORAGES, WeightsEntry

# Processor time for one input; the slowest input takes a quarter of it on a slow machine.
LONGEST_SECONDS = 5.0
MODEL = "fuzz_network"

Random = np.random.Generator


# Changes of bytes

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
LARGE = (2**32, 2**40, 2**63 - 1)


def _flip(rng: Random, data: bytearray) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= 1 << int(rng.integers(8))


def _set_bytes(rng: Random, data: bytearray) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 5)):
        data[place] = int(rng.integers(256))


def _set_number(rng: Random, data: bytearray) -> None:
    """Change a field of a header, most often near the beginning or the end of the file."""
    size = int(rng.choice((1, 2, 4, 8)))
    near = min(len(data), int(rng.choice((64, 512, len(data)))))
    place = int(rng.integers(near))
    if rng.random() < 0.3:
        place = len(data) - 1 - place
    order = str(rng.choice(("little", "big")))
    value = (int(rng.choice(EXTREMES)) % 256**size).to_bytes(size, order)
    data[place : place + size] = value


def _truncate(rng: Random, data: bytearray) -> None:
    del data[int(rng.integers(len(data))) :]


def _insert(rng: Random, data: bytearray) -> None:
    place = int(rng.integers(len(data)))
    length = int(rng.choice((1, 2, 4, 16, 300)))
    data[place:place] = rng.bytes(length) if rng.random() < 0.7 else bytes(length)


def _remove(rng: Random, data: bytearray) -> None:
    place = int(rng.integers(len(data)))
    del data[place : place + int(rng.choice((1, 2, 4, 16, 300)))]


def _repeat(rng: Random, data: bytearray) -> None:
    first, last = sorted(rng.integers(0, len(data), 2).tolist())
    chunk = data[first : min(last, first + 2000)]
    place = int(rng.integers(len(data)))
    data[place:place] = chunk * int(rng.integers(1, 4))


BYTE_CHANGES = (_flip, _set_bytes, _set_number, _truncate, _insert, _remove, _repeat)


def changed_bytes(rng: Random, data: bytes) -> bytes:
    """Make one change or a few at random places."""
    changed = bytearray(data)
    for _ in range(int(rng.choice((1, 1, 1, 2, 4)))):
        if changed:
            BYTE_CHANGES[int(rng.integers(len(BYTE_CHANGES)))](rng, changed)
    return bytes(changed)


# Changes of values

DEEP, DIGITS = "@deep@", "@digits@"
TEXTS = ("", " ", "x", "12", "1e400", "nan", "..", "../x.png", "/dev/zero", "C:\\x\\a.png", "\0")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 0.5, 1e-320, 1e308, -1e308, 2**31, 2**63, 10**30),
    *(float("nan"), float("inf"), float("-inf")),
    *TEXTS,
    *("\ud800", "a" * 10_000, "ä", DEEP, DIGITS),
    *([], {}, [[]], [None], [[[]]], {"a": 1}, [1, 2], [[1, 2], [3, 4]], ["a"], list(range(3000))),
    *({"size": [80, 120], "counts": [9600]}, {"size": [80, 120], "counts": "zzz"}),
    *({"size": [10**6, 10**6], "counts": [10**12]}, {"size": ["80", "120"], "counts": "PP"}),
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _paths(item, (*path, number))


def changed_values(rng: Random, value: Any) -> Any:
    """Replace, remove, rename, exchange or repeat some values."""
    value = json.loads(json.dumps(value))
    for _ in range(int(rng.choice((1, 1, 2, 3)))):
        paths = [path for path in _paths(value) if path]
        if not paths:
            break
        *where, last = paths[int(rng.integers(len(paths)))]
        parent = value
        for step in where:
            parent = parent[step]
        other = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
        match int(rng.integers(8)):
            case 0:
                del parent[last]
            case 1 if isinstance(parent, dict):
                parent[str(other)[:50]] = parent.pop(last)
            case 2 if isinstance(parent, list):
                parent.insert(last, parent[last])
            case 3 if isinstance(parent[last], int | float):
                parent[last] = str(parent[last])
            case 4 if isinstance(parent[last], int | float):
                parent[last] *= float(rng.choice((-1, 0, 1.5, 1e6, 1e300)))
            case 5:
                parent[last] = [parent[last]]
            case _:
                parent[last] = other
    return value


def as_json(rng: Random, value: Any) -> bytes:
    """Return JSON with features that no Python value has: depth, digits, duplicate keys."""
    text = json.dumps(value)
    text = text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).replace(f'"{DIGITS}"', "9" * 5000)
    if rng.random() < 0.03 and text.startswith("{"):
        text = '{"images": [], "shapes": 3, ' + text[1:]
    encodings = ("utf-16", "utf-32", "utf-8-sig", "latin-1")
    encoding = "utf-8" if rng.random() < 0.9 else str(rng.choice(encodings))
    return text.encode(encoding, "replace")


def changed_json(rng: Random, data: bytes) -> bytes:
    """Change values of a JSON document, or its text."""
    if rng.random() < 0.15:
        return changed_bytes(rng, data)
    return as_json(rng, changed_values(rng, json.loads(data)))


def changed_xml(rng: Random, data: bytes) -> bytes:
    """Change the text or encoding of an XML document, or nest its entities."""
    text = data.decode()
    match int(rng.integers(6)):
        case 0:
            encoding = rng.choice(("foo", "utf-7", "utf-16", "cp037", "shift_jis", "x" * 99))
            return f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + data
        case 1:
            laughs = "".join(
                f'<!ENTITY l{k + 1} "{f"&l{k};" * 10}">' for k in range(int(rng.integers(1, 12)))
            )
            declared = f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{laughs}]>'
            return (declared + text.replace("A1", "&l9;")).encode()
        case 2:
            numbers = ("9" * 5000, "nan", "inf", "-1e999", "", "x", "1e300", "0", "-5", "٣")
            pieces = text.split(">")
            place = int(rng.integers(len(pieces)))
            head, _, tail = pieces[place].partition("<")
            pieces[place] = f"{rng.choice(numbers) if head else head}<{tail}"
            return ">".join(pieces).encode()
        case 3:
            return ("<a>" * int(rng.choice((10, 20_000))) + text).encode()
        case _:
            return changed_bytes(rng, data)


@cache
def _bomb() -> bytes:
    return zlib.compress(bytes(60_000_000))


@cache
def _zip_bomb() -> bytes:
    return zip_of({"7/zeros.png": bytes(100_000_000), "b.json": bytes(100_000_000)})


def changed_png(rng: Random, data: bytes) -> bytes:
    """Change a field of a PNG chunk and correct its checksum."""
    chunks = []
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    which = int(rng.choice((0, 0, 0, int(rng.integers(len(chunks))))))
    name, content = chunks[which]
    if content:
        chunks[which] = name, changed_bytes(rng, content)
    if rng.random() < 0.2:
        chunks.insert(int(rng.integers(len(chunks))), chunks[int(rng.integers(len(chunks)))])
    if rng.random() < 0.05:  # a compressed text much longer than its chunk
        chunks.insert(1, (b"zTXt", b"x\0\0" + _bomb()))
    return data[:8] + b"".join(
        struct.pack(">I", len(content)) + one + struct.pack(">I", zlib.crc32(one))
        for one, content in ((name + content, content) for name, content in chunks)
    )


def changed_tiff(rng: Random, data: bytes) -> bytes:
    """Change the tag, type, count or value of an entry of the first directory."""
    changed = bytearray(data)
    (start,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[start : start + 2])
    for _ in range(int(rng.integers(1, 4))):
        entry = start + 2 + 12 * int(rng.integers(count))
        offset, size = ((0, 2), (2, 2), (4, 4), (8, 4), (8, 4))[int(rng.integers(5))]
        value = int(rng.choice((*EXTREMES, 3, 4, 5, 7, 8, 12, 16, 32, 50000, len(data) - 1)))
        field = slice(entry + offset, entry + offset + size)
        changed[field] = (value % 256**size).to_bytes(size, "little")
    return bytes(changed)


def changed_image(rng: Random, data: bytes) -> bytes:
    """Change an image by its format, or at random places."""
    if rng.random() < 0.5:
        with contextlib.suppress(struct.error, ValueError, IndexError):
            if data.startswith(b"\x89PNG"):
                return changed_png(rng, data)
            if data.startswith(b"II*\0"):
                return changed_tiff(rng, data)
    return changed_bytes(rng, data)


NAMES = (
    *("2/2 1a.bmp", "2/2 25a.bmp", f"2/2 {'9' * 5000}.bmp", f"{'9' * 5000}/{'9' * 5000} 1.bmp"),
    *("p1_1/1_1.png", "p1_1/99_1.png", "x.3.png", f"x.{'3' * 99}.png", "7/a.png", "25/a.png"),
    *("X/a.png", "٣/a.png", "../7/a.png", "/7/a.png", "7\\b.png", "7/a.png", "a.png", "..png"),
    *("labels.csv", "A0101XYD.png", "A0101XYK.png", "b/A0101XYD.png", "1.jpg", "1.xml", "c/1.xml"),
    *("7/ä.png", "a" * 3000 + ".png", "a\nb.json", ".json", "annotations.json", "b.json"),
)


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # duplicate names
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def changed_zip(rng: Random, data: bytes) -> bytes:
    """Change names, or flags, version, method, sizes and checksums in the heads of the entries."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if rng.random() < 0.6:
        for name in [*files]:
            if rng.random() < 0.4:
                files[str(rng.choice(NAMES))] = files.pop(name)
    method = int(rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
    data = zip_of(files, method)
    if rng.random() < 0.02:
        return _zip_bomb()
    if rng.random() < 0.3:
        return data
    if rng.random() < 0.4:
        return changed_bytes(rng, data)
    changed = bytearray(data)
    place = changed.find(b"PK\x01\x02")
    while place >= 0:
        # Version, flags, method, checksum, sizes, lengths of names, offset.
        offset, size = ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (42, 4))[
            int(rng.integers(8))
        ]
        if rng.random() < 0.5:
            value = int(rng.choice((*EXTREMES, 0x800, 99, 2**32 - 2)))
            changed[place + offset : place + offset + size] = (value % 256**size).to_bytes(
                size, "little"
            )
        if rng.random() < 0.2 and place + 48 < len(changed):
            changed[place + 9] |= 0x08  # names are UTF-8 ...
            changed[place + 46] = 0xFF  # ... and this one is not
        place = changed.find(b"PK\x01\x02", place + 4)
    return bytes(changed)


def changed_safetensors(rng: Random, data: bytes) -> bytes:
    """Change values of the header and the entry, and correct lengths and hashes."""
    if rng.random() < 0.2:
        return changed_bytes(rng, data)
    (length,) = struct.unpack("<Q", data[:8])
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.6:
        entry = json.loads(header["__metadata__"][METADATA_KEY])
        entry = changed_values(rng, entry)
        header["__metadata__"][METADATA_KEY] = as_json(rng, entry).decode("latin-1")
    else:
        header = changed_values(rng, header)
    if rng.random() < 0.3:
        tensors = changed_bytes(rng, tensors)
        with contextlib.suppress(KeyError, TypeError, ValueError, RecursionError):
            entry = json.loads(header["__metadata__"][METADATA_KEY])
            entry["data_sha256"] = hashlib.sha256(tensors).hexdigest()
            header["__metadata__"][METADATA_KEY] = json.dumps(entry)
    text = as_json(rng, header)
    length = len(text) if rng.random() < 0.9 else int(rng.choice((*EXTREMES, *LARGE)))
    return struct.pack("<Q", length) + text + tensors


def changed_checkpoint(rng: Random, data: bytes) -> bytes:
    """Change the arguments, the tensors or the pickle of a checkpoint."""
    if rng.random() < 0.15:
        return changed_bytes(rng, data)
    if rng.random() < 0.4:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        name = next(name for name in files if name.endswith("data.pkl"))
        files[name] = changed_bytes(rng, files[name])
        return zip_of(files, zipfile.ZIP_STORED)
    checkpoint = torch.load(io.BytesIO(data), weights_only=True)
    arguments = changed_values(rng, checkpoint["hyper_parameters"])
    if isinstance(arguments, dict) and rng.random() < 0.2:
        arguments[VALUES[int(rng.integers(15))]] = 1
    checkpoint["hyper_parameters"] = arguments
    if rng.random() < 0.4:
        state = checkpoint["state_dict"]
        key = str(rng.choice([*state]))
        state[key] = (
            *(torch.zeros(1).expand(10**12), state[key].to(torch.int8), state[key] * np.nan),
            *(3, "x", state[key].reshape(-1), state[key].to_sparse(), torch.zeros(0)),
        )[int(rng.integers(8))]
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


# Valid files


class Network(nn.Module):
    """A small network with its width as an argument of the builder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.fc = nn.Linear(width, 24)


class Model(nn.Module):
    """The parts of a built model that the loading of weights uses."""

    def __init__(self, width: int = 4, preset: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.transforms = ChromosomePreset(**(preset or {}))
        self.network = Network(width)


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Register the small network as a model of the zoo."""
    from chromozoo.models import registry

    def fuzz_network(**kwargs: Any) -> Model:
        return Model(**kwargs)

    register_model(task="classification", paper="none")(fuzz_network)
    try:
        yield
    finally:
        del registry._REGISTERED[MODEL]


def _entry() -> WeightsEntry:
    return WeightsEntry(
        model=MODEL,
        tag="toy",
        classes=["1", "2"],
        input_size=[112, 48],
        init_args={"width": 4, "preset": {"height": 112, "width": 48, "views": ["upright"]}},
        preprocessing={"height": 112},
        dataset="toy_v1",
        split="toy_v1",
        split_sha256="0" * 64,
        config="configs/toy.yaml",
        seed=0,
        training="none",
        versions={"torch": "2"},
        licence_code="Apache-2.0",
        licence_data="CC0",
        licence_weights="CC0",
        created="2026-01-01",
        conformal={"alone": {"0.01": 1.5}},
    )


def _encoded(image: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(image: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def _images() -> list[bytes]:
    rng = np.random.default_rng(0)
    grey = np.full((80, 120), 10, np.uint8)
    grey[10:40, 30:45] = 180
    deep = grey.astype(np.uint16) * 201 + rng.integers(0, 50, grey.shape).astype(np.uint16)
    colour = np.dstack([grey, grey // 2, grey])
    exif = Image.Exif()
    exif[0x112] = 6
    return [
        _encoded(grey, "PNG"),
        _encoded(deep, "PNG"),
        _encoded(colour, "PNG"),
        _encoded(np.dstack([colour, grey]), "PNG"),
        _encoded(grey, "JPEG", exif=exif),
        _encoded(colour, "JPEG"),
        _encoded(grey, "BMP"),
        _encoded(grey, "GIF"),
        _encoded(colour, "WEBP"),
        _encoded(grey, "JPEG2000"),
        _encoded(grey, "TIFF"),
        _tiff(deep, compression="zlib", predictor=True),
        _tiff(deep, byteorder=">"),
        _tiff(np.stack([deep, deep // 2, deep]), photometric="rgb", planarconfig="separate"),
        _tiff(grey.astype(np.float32), tile=(16, 16)),
        _tiff(np.stack([deep, deep]), photometric="minisblack", compression="lzw"),
        _tiff(np.stack([deep, deep]), imagej=True, metadata={"axes": "ZYX"}),
        _tiff(np.stack([grey, grey]), ome=True, metadata={"axes": "CYX"}),
    ]


def _coco(folder: Path) -> bytes:
    polygon = np.array([[30.0, 10], [45, 10], [45, 40], [30, 40]])
    image = np.full((80, 120), 10, np.float32)
    image[50:70, 20:90] = 180
    write_coco([Metaphase("a", image, [polygon], ["c"], "", ["c"])], folder / "coco")
    document = json.loads((folder / "coco" / "annotations.json").read_bytes())
    first = document["annotations"][0]
    mask = {"size": [80, 120], "counts": [5000, 20, 60, 20, 4500]}
    runs = coco_mask.encode(np.asfortranarray(image > 10).astype(np.uint8))
    text = {"size": [80, 120], "counts": runs["counts"].decode()}
    document["annotations"] += [
        first | {"id": 2, "segmentation": mask, "iscrowd": 1},
        first | {"id": 3, "iscrowd": 1},
        first | {"id": 4, "segmentation": text},
    ]
    return json.dumps(document).encode()


def _voc() -> bytes:
    ends = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{end}>{10 + 20 * k}</{end}>" for k, end in enumerate(ends))
        + "</bndbox></object>"
        for name in ("A1", "G22", "X")
    )
    size = "<size><width>120</width><height>80</height></size>"
    return f"<annotation>{size}{objects}</annotation>".encode()


def _karyogram() -> bytes:
    """Draw bars in the place and of the length of each chromosome."""
    page = np.full((460, 700), 250, np.uint8)
    for row, names in enumerate(LAYOUTS["denver"]):
        x, bottom = 20, 110 + row * 110
        for name in names:
            height = round(10 * RELATIVE_LENGTHS[name])
            for _ in range(1 if name in SEX_CHROMOSOMES else 2):
                page[bottom - height : bottom, x : x + 12] = 60
                x += 20
            x += 24
    return _encoded(page, "PNG")


# Readers


@dataclass(frozen=True)
class Kind:
    """A kind of file with its damage and its reader.

    Attributes:
        weight: Frequency relative to the other kinds.
        seeds: Valid files.
        change: Damages a file.
        read: Writes a file into a folder and reads it there.
    """

    weight: float
    seeds: list[bytes]
    change: Callable[[Random, bytes], bytes]
    read: Callable[[Path, bytes, Random], Any]


def _read_image(folder: Path, data: bytes, rng: Random) -> None:
    path = folder / f"a{rng.choice(('.png', '.tif', '.jpg'))}"
    path.write_bytes(data)
    choices: tuple[dict[str, Any], ...] = ({}, {}, {"page": 1}, {"channel": 1})
    for image in list_images(path, **choices[int(rng.integers(4))])[:3]:
        read_grey(image)


def _read_all(files: MetaphaseFiles) -> None:
    for key in files.keys():  # noqa: SIM118
        metaphase = files.read(key)
        if not find_faults(metaphase):
            metaphase.masks()


def _read_coco(folder: Path, data: bytes, rng: Random) -> None:
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(_images_once()[0])
    (folder / "annotations.json").write_bytes(data)
    _read_all(open_metaphases(folder))


def _read_one_json(folder: Path, data: bytes, rng: Random) -> None:
    (folder / "a.png").write_bytes(_images_once()[0])
    (folder / "b.json").write_bytes(data)
    _read_all(open_metaphases(folder if rng.random() < 0.8 else folder / "b.json"))


def _read_voc(folder: Path, data: bytes, rng: Random) -> None:
    (folder / "1.jpg").write_bytes(_images_once()[5])
    (folder / "1.xml").write_bytes(data)
    _read_all(Cil54816Files(folder))


def _read_map(folder: Path, data: bytes, rng: Random) -> None:
    (folder / "A0101XYD.png").write_bytes(_images_once()[0])
    (folder / "A0101XYK.png").write_bytes(data)
    _read_all(MFishFiles(folder))


def _read_zip(folder: Path, data: bytes, rng: Random) -> None:
    path = folder / "set.zip"
    path.write_bytes(data)
    readers: tuple[Callable[[], Any], ...] = (
        lambda: bioimlab.list_files(path),
        lambda: [gband_crops.list_files(path, layout) for layout in ("pki3", "cir-net")],
        lambda: gband_crops.list_files(path, "class-folders"),
        lambda: gband_crops.Pki3DataModule(path, "labels-csv").chromosomes(),
        lambda: _read_all(Cil54816Files(path)),
        lambda: _read_all(MFishFiles(path)),
        lambda: _read_all(open_metaphases(path)),
        lambda: karyograms.cut_karyograms(path),
    )
    errors = []
    for reader in readers:
        try:
            reader()
        except ChromozooError as error:
            errors.append(error)
    if len(errors) == len(readers):
        raise errors[-1]


def _read_table(folder: Path, data: bytes, rng: Random) -> None:
    (folder / "7").mkdir()
    (folder / "7" / "a.png").write_bytes(_images_once()[0])
    (folder / "labels.csv").write_bytes(data)
    found = gband_crops.Pki3DataModule(folder, "labels-csv").chromosomes()
    for _ in found.images():
        pass


def _read_weights(folder: Path, data: bytes, rng: Random) -> None:
    path = folder / "mine.safetensors"
    path.write_bytes(data)
    get_model(MODEL, weights=path)


def _read_checkpoint(folder: Path, data: bytes, rng: Random) -> None:
    path = folder / "last.ckpt"
    path.write_bytes(data)
    get_model(MODEL, weights=path)


def _read_entry(folder: Path, data: bytes, rng: Random) -> None:
    WeightsEntry.from_json(data, "entry.json")


FILE_NAMES = (
    *("..png", "...png", ".png", "labels.csv.png", "LABELS.CSV.png", "a b .png", "a:b.png"),
    *("x" * 251 + ".png", "é.png", "b\udcff.png", "\udce9" * 80 + ".png", "a\nb.png", "a\\b.png"),
    *("a.png", "%2e.png", "CON.png", "a.tif", "-o.png", "$(x).png"),
)


def _cut(folder: Path, data: bytes, rng: Random) -> None:
    (folder / "in").mkdir()
    names = rng.choice(len(FILE_NAMES), int(rng.integers(1, 3)), replace=False)
    paths = [folder / "in" / FILE_NAMES[k] for k in names]
    for path in paths:
        path.write_bytes(data)
    extract_files(paths, folder / "out")


_IMAGES: list[bytes] = []


def _images_once() -> list[bytes]:
    if not _IMAGES:
        _IMAGES.extend(_images())
    return _IMAGES


def _result(coco: bytes) -> bytes:
    document = json.loads(coco)
    rows = [
        {"class": "1", "segmentation": row["segmentation"]}
        for row in document["annotations"]
        if isinstance(row["segmentation"], dict)
    ]
    digest = hashlib.sha256(_images_once()[0]).hexdigest()
    content = {"sha256": digest, "part": None, "parts": 1}
    head = {"format": 2, "chromozoo": "0.1.0", "image": "a.png", "path": "/x/a.png"}
    size = {"width": 120, "height": 80}
    document = {**head, **size, "identity": {"content": content}, "chromosomes": rows}
    return json.dumps(document).encode()


def kinds(folder: Path) -> dict[str, Kind]:
    """Return all kinds of files by name.

    Args:
        folder: For files that have to be written first.
    """
    images, coco = _images_once(), _coco(folder)
    png = images[0]
    shapes = [{"label": "1", "points": [[30, 10], [45, 10], [45, 40], [30, 40]]}]
    labelme = {"shapes": shapes, "imagePath": "a.png", "imageHeight": 80, "imageWidth": 120}
    embedded = labelme | {"imageData": base64.b64encode(png).decode()}
    plane = np.zeros((80, 120), np.uint8)
    plane[10:40, 30:45], plane[20:30, 60:90], plane[22:28, 70:74] = 3, 24, 255
    network = Network(4)
    tensors = [
        storage_weights.save_weights(network, _entry(), folder, storage)[0].read_bytes()
        for storage in STORAGES
    ]
    checkpoint = io.BytesIO()
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": _entry().init_args}, checkpoint)
    xml = _voc()
    table = b"file,class,x,y,w,h,karyogram\n7/a.png,7,0,0,9,9,p_1.png\n"
    sets = (
        {"2/2 1a.bmp": images[6], "2/2 24.bmp": images[6]},
        {"p1_1/1_1.png": png, "x.3.png": png, "7/a.png": png, "labels.csv": table},
        {"1.jpg": images[5], "1.xml": xml, "A0101XYD.png": png, "A0101XYK.png": png},
        {"annotations.json": coco, "images/a.png": png},
        {"b.json": json.dumps(embedded).encode()},
    )
    both = [json.dumps(one).encode() for one in (labelme, embedded)]
    return {
        "image": Kind(6, images, changed_image, _read_image),
        "coco": Kind(4, [coco], changed_json, _read_coco),
        "labelme": Kind(2, both, changed_json, _read_one_json),
        "result": Kind(1, [_result(coco)], changed_json, _read_one_json),
        "voc": Kind(2, [xml], changed_xml, _read_voc),
        "map": Kind(0.5, [_encoded(plane, "PNG")], changed_image, _read_map),
        "zip": Kind(3, [zip_of(files) for files in sets], changed_zip, _read_zip),
        "table": Kind(0.5, [table], changed_bytes, _read_table),
        "weights": Kind(2.5, tensors, changed_safetensors, _read_weights),
        "checkpoint": Kind(2, [checkpoint.getvalue()], changed_checkpoint, _read_checkpoint),
        "entry": Kind(1, [_entry().to_json().encode()], changed_json, _read_entry),
        "karyogram": Kind(0.3, [_karyogram()], changed_image, _cut),
    }


# Runs


@dataclass(frozen=True)
class Outcome:
    """Result of reading one damaged file.

    Attributes:
        number: Reproduces the file, together with the seed of the run.
        kind: Name of the kind.
        result: ``"read"``, ``"refused"``, or the fault.
        seconds: Processor time.
        data: Content of the file.
    """

    number: int
    kind: str
    result: str
    seconds: float
    data: bytes

    @property
    def is_fault(self) -> bool:
        """Whether reading took too long or raised an error other than the project's own."""
        return self.result not in ("read", "refused") or self.seconds > LONGEST_SECONDS


def attempt(seed: int, number: int, all_kinds: dict[str, Kind], work: Path) -> Outcome:
    """Damage one file and read it.

    Args:
        seed: Together with the number, determines the file.
        number: Number of the attempt.
        all_kinds: Kinds to choose from.
        work: Folder for this attempt alone; it is removed afterwards.
    """
    rng = np.random.default_rng((seed, number))
    shares = np.array([kind.weight for kind in all_kinds.values()])
    name = str(rng.choice([*all_kinds], p=shares / shares.sum()))
    kind = all_kinds[name]
    data = kind.change(rng, kind.seeds[int(rng.integers(len(kind.seeds)))])
    work.mkdir()
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(work, data, rng)
        result = "read"
    except ChromozooError as error:
        # A message of the project gives the cause and then the remedy.
        result = "refused" if {":", ";"} & {*str(error)} else f"refused in few words: {error}"
    except Exception:
        result = traceback.format_exc(limit=-4)
    seconds = time.process_time() - start
    shutil.rmtree(work)
    return Outcome(number, name, result, seconds, data)


def peak_megabytes() -> float:
    """Return the peak memory of this process in MB; 0 where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1024 / (1024 if sys.platform == "darwin" else 1)


def main() -> int:
    """Damage files until the count or the time is reached, and print the faults."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--count", type=int, default=20_000, metavar="N", help="number of damaged files"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="a single file of that seed")
    parser.add_argument("--kinds", help="kinds of files, separated by commas (default: all)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for files with a fault")
    arguments = parser.parse_args()
    faulthandler.enable()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    wrong = 0
    end = time.monotonic() + (arguments.seconds or float("inf"))
    with tempfile.TemporaryDirectory() as folder, registered():
        chosen = kinds(Path(folder))
        if arguments.kinds:
            chosen = {name: chosen[name] for name in arguments.kinds.split(",")}
        before = peak_megabytes()
        numbers = range(arguments.count) if arguments.only is None else [arguments.only]
        for number in numbers:
            if time.monotonic() > end:
                break
            peak = peak_megabytes()
            outcome = attempt(arguments.seed, number, chosen, Path(folder, "work"))
            counts[f"{outcome.kind}: {outcome.result.partition(chr(10))[0][:9]}"] += 1
            if (grown := peak_megabytes() - peak) > 500:
                print(f"{number} {outcome.kind}: {grown:.0f} MB more")
            if outcome.is_fault or arguments.only is not None:
                wrong += outcome.is_fault
                print(f"{number} {outcome.kind} ({outcome.seconds:.1f} s): {outcome.result}")
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"{number}.{outcome.kind}").write_bytes(outcome.data)
        for line in sorted(counts):
            print(f"{line:<40} {counts[line]}")
        print(f"{wrong} faults of {counts.total()}; {peak_megabytes() - before:.0f} MB more memory")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
