"""A segmenter that needs no training: the bright connected components."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from chromozoo.models.weights.storage import save_weights
from chromozoo.structures.instance import Instance
from chromozoo.structures.weights_entry import WeightsEntry
from chromozoo.tasks.networks import SegmentationNetwork
from chromozoo.tasks.segmentation import ChromosomeSegmenter


class Components(SegmentationNetwork):
    """Detects bright connected components; the score grows with the area."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor([0.3]))

    def losses(self, images: list[Tensor], targets: list[Any]) -> dict[str, Tensor]:
        return {"none": self.level.sum()}

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        bright = (image[0] > self.level).numpy().astype(np.uint8)
        count, components = cv2.connectedComponents(bright)
        masks = [components == index for index in range(1, count)]
        return [
            Instance(mask, (0, 0), None, float(np.clip(mask.sum() / 900, 0, 0.99)))
            for mask in masks
        ]


class Tiny(ChromosomeSegmenter):
    """Correct where chromosomes do not touch."""

    def __init__(self) -> None:
        preset = {"typical_width": 0.0, "mean": 0.0, "std": 1.0}
        super().__init__(Components(), preset=preset, min_score=0.01)


def tiny_weights(folder: Path) -> Path:
    """Packaged weights of a model named ``tiny_segmenter``; see the fixture that registers it."""
    entry = WeightsEntry(
        model="tiny_segmenter",
        tag="bioimlab",
        classes=["chromosome"],
        input_size=[0, 0],
        init_args={},
        preprocessing={},
        dataset="none",
        split="none",
        split_sha256="",
        config="none.yaml",
        seed=0,
        training="none",
        versions={},
        licence_code="-",
        licence_data="-",
        licence_weights="-",
        created="2026-11-21",
    )
    path, _ = save_weights(Components(), entry, folder)
    return path
