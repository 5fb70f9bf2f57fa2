"""Drawn metaphases in the published layout of the BioImLab segmentation set."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chromozoo.structures.polygons import polygon_mask

# In bioimlab_segmentation_v1: three training, two validation and two test images.
TRAIN, VAL, TEST = ("2", "24a", "107c"), ("6", "115"), ("5", "10")
SHAPE = {"2": (160, 200), "24a": (160, 200), "107c": (180, 150), "6": (150, 220)}


def draw(key: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw eight bars of grey value 60 to 200 on a background of 10; two of them cross."""
    height, width = SHAPE.get(key, (160, 200))
    image = np.full((height, width), 10, np.uint8)
    rng = np.random.default_rng(sum(map(ord, key)))
    polygons = []
    for number in range(8):
        x, y = 20 + 45 * (number % 3), 25 + 42 * (number // 3)
        angle = np.deg2rad(rng.uniform(0, 180))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        bar = np.array([[-15, -6], [15, -6], [15, 6], [-15, 6]]) @ turn.T + (x, y)
        if number == 7:
            bar = polygons[6] @ [[0, 1], [-1, 0]]
            bar += polygons[6].mean(axis=0) - bar.mean(axis=0) + 3
        bar = bar.clip(0, (width, height)).round(1)
        image[polygon_mask(bar, height, width)] = rng.integers(60, 200)
        polygons.append(bar)
    return image, polygons


def write(folder: Path, key: str, polygons: Any = None) -> None:
    image, drawn = draw(key)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    outlines = [
        np.asarray(polygon).tolist() for polygon in (drawn if polygons is None else polygons)
    ]
    data = {
        "shapes": [{"label": "chr", "points": p, "shape_type": "polygon"} for p in outlines],
        "imageData": base64.b64encode(buffer.getvalue()).decode(),
        "imageHeight": image.shape[0],
        "imageWidth": image.shape[1],
    }
    (folder / f"original_{key}.json").write_text(json.dumps(data))


def write_all(folder: Path) -> None:
    """Write the images of the three parts, and one that the split excludes."""
    folder.mkdir()
    for key in (*TRAIN, *VAL, *TEST, "51"):
        write(folder, key)
