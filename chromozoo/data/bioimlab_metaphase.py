"""BioImLab, Q-band: chromosomes as a karyotyper meets them, cut out of metaphases.

A classifier must see in training what the segmenter will hand it (Wang et al. 2024, table I: 67.8 %
against 95.2 %). So the single chromosomes of the classification set are joined by those that
:class:`chromozoo.images.extract.Extraction` cuts from the metaphases of the segmentation set, once
through the outlines drawn by hand and once through what ``chr_fast`` finds; the joint labels name
them.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.data import bioimlab_segmentation
from chromozoo.data.bioimlab import BioImLabClassification
from chromozoo.data.catalogue import Verification
from chromozoo.data.crops import sha256_of
from chromozoo.data.joint_labels import UNCERTAIN, joint_labels
from chromozoo.data.karyotyped import true_cells
from chromozoo.data.single_chromosomes import Chromosomes, SingleChromosomes
from chromozoo.data.splits import load_split
from chromozoo.data.verification import class_line, split_faults, split_lines
from chromozoo.images.extract import Extraction
from chromozoo.images.metaphase import signal_metaphase
from chromozoo.karyotyping_metrics import TrueCell
from chromozoo.tasks.pieces import Piece, mask_iou
from chromozoo.tasks.segmentation import Segmentation

SEGMENTER = "chr_fast"
# What the segmenter is surer of than this is a chromosome, as in the karyotyper.
LEAST_SCORE = 0.5
# A found outline is that of a chromosome from this mask IoU on.
LEAST_OVERLAP = 0.5
SPLIT = "bioimlab_metaphase_v1"

INSTRUCTIONS = """It is made of two sets; both are needed:
  chromozoo data info bioimlab
  chromozoo data info bioimlab-segmentation"""


class BioImLabMetaphase(SingleChromosomes):
    """Single chromosomes, and those cut from metaphases by hand-drawn and by found outlines.

    Chromosomes without a certain joint label are left out. One that the segmenter does not find is
    shown by its hand-drawn outline twice. The arguments are those of
    :class:`chromozoo.data.single_chromosomes.SingleChromosomes`; there are no folds.
    """

    dataset_name = "bioimlab-metaphase"
    split_name = SPLIT
    stain = "q"

    def chromosomes(self) -> Chromosomes:
        from chromozoo.registry import get_weight

        single = BioImLabClassification(self.root).chromosomes()
        segmentation = bioimlab_segmentation.contents_sha256(self.root)
        split = load_split(bioimlab_segmentation.SPLIT)
        keys = {stage: split.ids(stage) for stage in ("train", "val", "test")}
        named = {key: joint_labels()[key].classes for ids in keys.values() for key in ids}
        certain = {key: classes[classes != UNCERTAIN] for key, classes in named.items()}

        def pictures() -> Iterator[tuple[str, NDArray[np.generic]]]:
            from chromozoo.registry import get_model

            yield from single.pictures()
            segmenter: Any = get_model(SEGMENTER, weights="DEFAULT")
            for stage in keys:
                for image, cell in true_cells("bioimlab-segmentation", stage, self.root):
                    yield from _cut(image, cell, segmenter)

        ways = ("", ", found")
        return Chromosomes(
            np.concatenate([single.labels, *(np.tile(one, 2) for one in certain.values())]),
            np.concatenate(
                [
                    np.array([f"cell {cell}" for cell in single.cells]),
                    *(
                        np.repeat([f"image {key}{way}" for way in ways], len(one))
                        for key, one in certain.items()
                    ),
                ]
            ),
            sha256_of(
                part.encode()
                for part in (
                    single.content_sha256,
                    segmentation,
                    get_weight(SEGMENTER).sha256,
                    f"{Extraction()} {LEAST_SCORE} {LEAST_OVERLAP}",
                    *(f"{key} {classes.tolist()}" for key, classes in named.items()),
                )
            ),
            pictures,
        )


def _cut(
    image: NDArray[np.float32], cell: TrueCell, segmenter: Any
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The certain chromosomes of a metaphase: by hand-drawn outlines, then by found ones."""
    drawn = cell.outlines
    assert isinstance(drawn, Segmentation)
    signal, _ = signal_metaphase(image)
    cut = Extraction()
    by_hand = cut(signal, drawn.crops, drawn.corners)
    found = segmenter.segment(image, cell.name).above(LEAST_SCORE)
    by_segmenter = cut(signal, found.crops, found.corners)
    theirs = _pieces(found)
    rows = np.flatnonzero(cell.classes != UNCERTAIN)
    for row in rows:
        yield f"image {cell.name}, polygon {row}", by_hand[row]
    ours = _pieces(drawn)
    for row in rows:
        overlaps = [mask_iou(ours[row], piece) for piece in theirs]
        best = int(np.argmax(overlaps)) if overlaps else 0
        is_found = bool(overlaps) and overlaps[best] >= LEAST_OVERLAP
        picture = by_segmenter[best] if is_found else by_hand[row]
        yield f"image {cell.name}, found for polygon {row}", picture


def _pieces(segmentation: Segmentation) -> list[Piece]:
    return [
        Piece(crop, (int(row), int(column)), None, 1.0)
        for crop, (row, column) in zip(segmentation.crops, segmentation.corners, strict=True)
    ]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Counts the chromosomes by class and split; the files are checked as those of the two sets.

    Raises:
        DatasetNotFoundError: One of the two sets is not on this machine.
    """
    found = BioImLabMetaphase(root).chromosomes()
    split = load_split(SPLIT)
    cells, counts = np.unique(found.cells, return_counts=True)
    by_cell = dict(zip(cells.tolist(), counts.tolist(), strict=True))
    lines = [
        f"content sha256 {found.content_sha256}",
        f"{len(found.labels)} chromosomes",
        class_line(found.labels.tolist()),
        *split_lines(split, by_cell, "cells or images"),
    ]
    faults = split_faults(split, by_cell, "cell or image")
    return Verification(bioimlab_segmentation.find(root), tuple(lines), tuple(faults))
