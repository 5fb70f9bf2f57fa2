"""Chromosomes as a karyotyper meets them, cut out of metaphases.

A classifier must see in training what the segmenter will hand it (Wang et al. 2024, table I: 67.8 %
against 95.2 %). So the single chromosomes of BioImLab and Pki-3 are joined by those that
:class:`chromozoo.images.extract.Extraction` cuts from the metaphases of BioImLab, M-FISH and
CIL:54816, once through the outlines of the set, where it has any, and once through what
``chr_fast`` finds. Together they show three stains and four laboratories.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from chromozoo.data import bioimlab_segmentation, cil54816, mfish
from chromozoo.data.base.chromosome_datamodule import ChromosomeDataModule, Chromosomes
from chromozoo.data.base.crops import sha256_of
from chromozoo.data.base.verification import class_line, split_faults, split_lines
from chromozoo.data.bioimlab import BioImLabDataModule
from chromozoo.data.catalogue import Verification
from chromozoo.data.cil54816 import cut_box
from chromozoo.data.karyotyped import true_cells
from chromozoo.data.pki3 import Pki3DataModule
from chromozoo.data.splits import STAGES, load_split
from chromozoo.images.extract import Extraction
from chromozoo.images.levels import measure_levels
from chromozoo.structures.instance import Instance, mask_iou
from chromozoo.structures.karyotyped_cell import Boxes, TrueCell
from chromozoo.structures.segmentation import Segmentation

# As in the karyotyper.
SEGMENTER, SEGMENTER_WEIGHTS = "chr_fast", "metaphase"
# Less sure than the karyotyper must be: here it is known that there is a chromosome.
MIN_SCORE = 0.2
# A found outline is that of a chromosome from this IoU on, of masks; of boxes if there are none.
MIN_OVERLAP = 0.5
SPLIT = "metaphase_crops_v2"
# What the split says after the name of a cell whose chromosomes a segmenter cut out.
FOUND = ", found"
# What the split calls them, and their names in the catalogue.
METAPHASES = {"bioimlab": "bioimlab-segmentation", "mfish": "mfish", "cil": "cil54816"}

INSTRUCTIONS = """It is made of five sets; all are needed:
  chromozoo data info bioimlab
  chromozoo data info pki3
  chromozoo data info bioimlab-segmentation
  chromozoo data info mfish
  chromozoo data info cil54816"""


class MetaphaseCropsDataModule(ChromosomeDataModule):
    """Single chromosomes, and those cut from metaphases, of three stains; split by cell or patient.

    Chromosomes without a certain class are left out. One that the segmenter does not find is shown
    by the outline of the set twice; by all that lies in its box where the set has boxes alone. The
    arguments are those of :class:`chromozoo.data.base.chromosome_datamodule.ChromosomeDataModule`; there are
    no folds.
    """

    dataset_name = "metaphase-crops"
    split_name = SPLIT
    stain = "q"

    def chromosomes(self) -> Chromosomes:
        from chromozoo.models.registry import get_weight

        singles = {
            "single": BioImLabDataModule(self.root).chromosomes(),
            "pki3": Pki3DataModule(self.root).chromosomes(),
        }
        labels = [single.labels for single in singles.values()]
        cells = [
            np.array([f"{name} {cell}" for cell in single.cells])
            for name, single in singles.items()
        ]
        upright = [np.full(len(single.labels), name == "pki3") for name, single in singles.items()]
        for name, _, cell in self._metaphases():
            certain = cell.classes[cell.classes >= 0].astype(np.int64)
            for way in _ways(cell):
                labels.append(certain)
                cells.append(np.full(len(certain), f"{name}{way}"))
                upright.append(np.zeros(len(certain), bool))

        def images() -> Iterator[tuple[str, NDArray[np.generic]]]:
            from chromozoo.models.registry import get_model

            for single in singles.values():
                yield from single.images()
            segmenter: Any = get_model(SEGMENTER, weights=SEGMENTER_WEIGHTS)
            for name, image, cell in self._metaphases():
                yield from _cut(name, image, cell, segmenter)

        contents = [
            *(single.content_sha256 for single in singles.values()),
            bioimlab_segmentation.contents_sha256(self.root),
            mfish.contents_sha256(self.root),
            cil54816.contents_sha256(self.root),
            get_weight(SEGMENTER, SEGMENTER_WEIGHTS).sha256,
            f"{Extraction()} {MIN_SCORE} {MIN_OVERLAP}",
            # The joint labels are part of the package.
            str(np.concatenate(labels).tolist()),
        ]
        return Chromosomes(
            np.concatenate(labels),
            np.concatenate(cells),
            sha256_of(part.encode() for part in contents),
            images,
            np.concatenate(upright),
        )

    def _metaphases(self) -> Iterator[tuple[str, NDArray[np.float32], TrueCell]]:
        listed = {one.removesuffix(FOUND) for one in load_split(SPLIT).ids("all")}
        for prefix, dataset in METAPHASES.items():
            for stage in STAGES:
                for image, cell in true_cells(dataset, stage, self.root):
                    if (name := f"{prefix} {cell.name}") in listed:
                        yield name, image, cell


def _ways(cell: TrueCell) -> tuple[str, ...]:
    """What is said after a cell's name of the ways in which its chromosomes are cut out."""
    return (FOUND,) if isinstance(cell.instances, Boxes) else ("", FOUND)


def _cut(
    name: str, image: NDArray[np.float32], cell: TrueCell, segmenter: Any
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The certain chromosomes of a metaphase: by the set's outlines, then by found ones."""
    outlines = cell.instances
    signal = measure_levels(image).signal
    cut = Extraction()
    found = segmenter.segment(image, name).filter_by_score(MIN_SCORE)
    by_segmenter = cut(signal, found.crops, found.corners)
    rows = np.flatnonzero(cell.classes >= 0)
    if isinstance(outlines, Boxes):
        by_set = [cut_box(signal, box) for box in outlines.boxes]
        theirs, ours = (torch.from_numpy(np.float32(one)) for one in (found.boxes, outlines.boxes))
        overlaps = box_iou(ours, theirs).numpy()
    else:
        assert isinstance(outlines, Segmentation)
        by_set = cut(signal, outlines.crops, outlines.corners)
        for row in rows:
            yield f"{name}, chromosome {row}", by_set[row]
        pieces = _pieces(found)
        overlaps = np.array(
            [[mask_iou(one, piece) for piece in pieces] for one in _pieces(outlines)]
        )
    for row in rows:
        best = int(np.argmax(overlaps[row])) if len(found) else 0
        is_found = bool(len(found)) and overlaps[row, best] >= MIN_OVERLAP
        chromosome = by_segmenter[best] if is_found else by_set[row]
        yield f"{name}, found for chromosome {row}", chromosome


def _pieces(segmentation: Segmentation) -> list[Instance]:
    return [
        Instance(crop, (int(row), int(column)), None, 1.0)
        for crop, (row, column) in zip(segmentation.crops, segmentation.corners, strict=True)
    ]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Counts the chromosomes by class and split; the files are checked as those of the five sets.

    Raises:
        DatasetNotFoundError: One of the five sets is not on this machine.
    """
    found = MetaphaseCropsDataModule(root).chromosomes()
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
