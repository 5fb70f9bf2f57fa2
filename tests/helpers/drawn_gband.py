"""Drawn G-band data sets in the published layouts of Pki-3 and CIL:54816."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from chromozoo.classes import CLASSES
from chromozoo.data.cil54816 import RIM
from chromozoo.data.splits import load_split

NAMES = [name for name in CLASSES[:22] for _ in range(2)] + ["X", "Y"]


def draw_image(number: int, lean: float = 0.0) -> bytes:
    """Draw a dark bar on white, darker in its upper part; the number changes its length."""
    image = np.full((64, 40), 255, np.uint8)
    image[8 : 40 + number, 15:25] = 120
    image[8:22, 15:25] = 20
    turn = cv2.getRotationMatrix2D((20, 30), lean, 1.0)
    image = np.asarray(cv2.warpAffine(image, turn, (40, 64), borderValue=255), np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def pki3_files(karyotype: str) -> dict[str, bytes]:
    seen: dict[str, int] = {}
    files = {}
    for number, name in enumerate(NAMES):
        seen[name] = seen.get(name, 0) + 1
        files[f"{karyotype}/{name}_{seen[name]}.png"] = draw_image(number // 3, lean=number - 20)
    return files


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_boxes(folder: Path) -> Path:
    """Write drawn metaphases in the layout of CIL:54816: two of each part of the split."""
    folder.mkdir()
    split = load_split("cil54816_v1")
    rng = np.random.default_rng(0)
    for key in (one for stage in ("train", "val", "test") for one in split.ids(stage)[:2]):
        image = rng.integers(225, 255, (128, 160)).astype(np.uint8)
        objects = ""
        for number, (x, y) in enumerate(((20, 20), (90, 40)), start=1):
            image[y : y + 60, x : x + 14] = 90
            outer = np.array([x, y, x + 14, y + 60]) + RIM * (-1, -1, 1, 1)
            corners = zip(("xmin", "ymin", "xmax", "ymax"), outer, strict=True)
            box = "".join(f"<{name}>{value}</{name}>" for name, value in corners)
            objects += f"<object><name>A{number}</name><bndbox>{box}</bndbox></object>"
        Image.fromarray(image).save(folder / f"{key}.jpg")
        size = "<size><width>160</width><height>128</height></size>"
        (folder / f"{key}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return folder
