"""Chromosomes as a karyotyper meets them, cut out of metaphases.

A classifier must see in training what the segmenter will hand it (Wang et al. 2024, table I: 67.8 %
against 95.2 %). So the single chromosomes of BioImLab are joined by those that
:class:`chromozoo.images.extract.Extraction` cuts from the metaphases of BioImLab and of M-FISH,
once through the outlines of the set and once through what ``chr_fast`` finds.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.data import bioimlab_segmentation, mfish
from chromozoo.data.bioimlab import BioImLabClassification
from chromozoo.data.catalogue import Verification
from chromozoo.data.crops import sha256_of
from chromozoo.data.karyotyped import true_cells
from chromozoo.data.single_chromosomes import Chromosomes, SingleChromosomes
from chromozoo.data.splits import STAGES, load_split
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
SPLIT = "metaphase_crops_v1"
# What the split calls them, and their names in the catalogue.
METAPHASES = {"bioimlab": "bioimlab-segmentation", "mfish": "mfish"}

INSTRUCTIONS = """It is made of three sets; all are needed:
  chromozoo data info bioimlab
  chromozoo data info bioimlab-segmentation
  chromozoo data info mfish"""


class MetaphaseCrops(SingleChromosomes):
    """Single Q-band chromosomes, and those cut from Q-band and DAPI metaphases; split by cell.

    Chromosomes without a certain class are left out. One that the segmenter does not find is shown
    by the outline of the set twice. The arguments are those of
    :class:`chromozoo.data.single_chromosomes.SingleChromosomes`; there are no folds.
    """

    dataset_name = "metaphase-crops"
    split_name = SPLIT
    stain = "q"

    def chromosomes(self) -> Chromosomes:
        from chromozoo.registry import get_weight

        single = BioImLabClassification(self.root).chromosomes()
        labels = [single.labels]
        cells = [np.array([f"single {cell}" for cell in single.cells])]
        for name, _, cell in self._metaphases():
            certain = cell.classes[cell.classes >= 0].astype(np.int64)
            for way in ("", ", found"):
                labels.append(certain)
                cells.append(np.full(len(certain), f"{name}{way}"))

        def pictures() -> Iterator[tuple[str, NDArray[np.generic]]]:
            from chromozoo.registry import get_model

            yield from single.pictures()
            segmenter: Any = get_model(SEGMENTER, weights="DEFAULT")
            for name, image, cell in self._metaphases():
                yield from _cut(name, image, cell, segmenter)

        contents = [
            single.content_sha256,
            bioimlab_segmentation.contents_sha256(self.root),
            mfish.contents_sha256(self.root),
            get_weight(SEGMENTER).sha256,
            f"{Extraction()} {LEAST_SCORE} {LEAST_OVERLAP}",
            # The joint labels are part of the package.
            str(np.concatenate(labels).tolist()),
        ]
        return Chromosomes(
            np.concatenate(labels),
            np.concatenate(cells),
            sha256_of(part.encode() for part in contents),
            pictures,
        )

    def _metaphases(self) -> Iterator[tuple[str, NDArray[np.float32], TrueCell]]:
        for prefix, dataset in METAPHASES.items():
            for stage in STAGES:
                for image, cell in true_cells(dataset, stage, self.root):
                    yield f"{prefix} {cell.name}", image, cell


def _cut(
    name: str, image: NDArray[np.float32], cell: TrueCell, segmenter: Any
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The certain chromosomes of a metaphase: by the set's outlines, then by found ones."""
    outlines = cell.outlines
    assert isinstance(outlines, Segmentation)
    signal, _ = signal_metaphase(image)
    cut = Extraction()
    by_set = cut(signal, outlines.crops, outlines.corners)
    found = segmenter.segment(image, name).above(LEAST_SCORE)
    by_segmenter = cut(signal, found.crops, found.corners)
    rows = np.flatnonzero(cell.classes >= 0)
    for row in rows:
        yield f"{name}, chromosome {row}", by_set[row]
    ours, theirs = _pieces(outlines), _pieces(found)
    for row in rows:
        overlaps = [mask_iou(ours[row], piece) for piece in theirs]
        best = int(np.argmax(overlaps)) if overlaps else 0
        is_found = bool(overlaps) and overlaps[best] >= LEAST_OVERLAP
        picture = by_segmenter[best] if is_found else by_set[row]
        yield f"{name}, found for chromosome {row}", picture


def _pieces(segmentation: Segmentation) -> list[Piece]:
    return [
        Piece(crop, (int(row), int(column)), None, 1.0)
        for crop, (row, column) in zip(segmentation.crops, segmentation.corners, strict=True)
    ]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Counts the chromosomes by class and split; the files are checked as those of the three sets.

    Raises:
        DatasetNotFoundError: One of the three sets is not on this machine.
    """
    found = MetaphaseCrops(root).chromosomes()
    split = load_split(SPLIT)
    cells, counts = np.unique(found.cells, return_counts=True)
    by_cell = dict(zip(cells.tolist(), counts.tolist(), strict=True))
    lines = [
        f"content sha256 {found.content_sha256}",
        f"{len(found.labels)} chromosomes",
        class_line(found.labels.tolist()),
        *split_lines(split, by_cell),
    ]
    path = bioimlab_segmentation.find(root)
    return Verification(path, tuple(lines), tuple(split_faults(split, by_cell)))
