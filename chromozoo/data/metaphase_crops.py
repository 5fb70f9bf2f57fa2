"""Metaphase crops: single chromosomes and chromosomes cut from metaphases, of three stains.

Classifiers of a karyotyper must be trained on crops of a segmenter (Wang et al. 2024, table I:
accuracy 95.2 % instead of 67.8 %). This data set therefore joins the single chromosomes of BioImLab
and Pki-3 and those that :class:`chromozoo.images.extract.Extraction` cuts from the metaphases of
BioImLab, M-FISH and CIL:54816: once by the annotated masks, where there are any, and once by the
masks that ``chr_fast`` predicts.

Source: the five data sets, of four laboratories: 73,890 crops.

Files: those of the five data sets in one folder.

Licence and reference: those of the five data sets; research use.

Example::

    dataset = MetaphaseCropsDataset("data", split="val")  # runs the segmenter on the first use
    item = dataset[0]
    item["image"].shape, item["label"]  # (1, 112, 48), class index 0 to 23
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from chromozoo.data import bioimlab_segmentation, cil54816, mfish
from chromozoo.data.base.chromosome_datamodule import ChromosomeDataModule
from chromozoo.data.base.chromosome_dataset import ChromosomeDataset, Chromosomes
from chromozoo.data.base.content_index import cached_facts
from chromozoo.data.base.crop_dataset import sha256_of
from chromozoo.data.base.verification import describe_classes, describe_split, find_split_faults
from chromozoo.data.bioimlab import BioImLabDataset
from chromozoo.data.catalogue import Verification
from chromozoo.data.cil54816 import cut_box
from chromozoo.data.io.archive import find_dataset
from chromozoo.data.karyotyping_truth import true_cells
from chromozoo.data.pki3 import Pki3Dataset
from chromozoo.data.splits import STAGES, Split, load_split
from chromozoo.images.extract import Extraction
from chromozoo.images.levels import measure_levels
from chromozoo.structures.instance import Instance, mask_iou
from chromozoo.structures.karyotyped_cell import Boxes, TrueCell
from chromozoo.structures.segmentation import Segmentation

# The segmenter of the karyotyper.
SEGMENTER, SEGMENTER_WEIGHTS = "chr_fast", "metaphase"
# Lower than in the karyotyper, because a chromosome is known to be there.
MIN_SCORE = 0.2
# Smallest IoU of a detection and its chromosome, of the masks or else of the boxes.
MIN_IOU = 0.5
SPLIT = "metaphase_crops_v2"
# Suffix in the split of cells whose chromosomes a segmenter cut out.
FOUND = ", found"
# The data sets of metaphases: prefix in the split and name in the catalogue.
METAPHASES = {"bioimlab": "bioimlab-segmentation", "mfish": "mfish", "cil": "cil54816"}

INSTRUCTIONS = """It consists of five data sets, which are all needed:
  chromozoo data info bioimlab
  chromozoo data info pki3
  chromozoo data info bioimlab-segmentation
  chromozoo data info mfish
  chromozoo data info cil54816"""


class MetaphaseCropsDataset(ChromosomeDataset):
    """Single chromosomes and crops of metaphases, of three stains; split by cell or patient.

    Chromosomes without a certain class are left out. A chromosome that the segmenter misses is cut
    by its annotated mask twice, or by its box where only boxes are known. There are no folds. The
    arguments are those of :class:`ChromosomeDataset`.
    """

    dataset_name = "metaphase-crops"
    split_name = SPLIT

    @classmethod
    def list_chromosomes(
        cls,
        root: str | os.PathLike[str] | None = None,
        fold: int | None = None,
        cache: Path | None = None,
    ) -> Chromosomes:
        from chromozoo.models.registry import get_weight

        split = cls.load_split(fold)
        singles = _list_singles(root, cache)
        weights_sha256 = get_weight(SEGMENTER, SEGMENTER_WEIGHTS).sha256
        cells_of_metaphases = cached_facts(
            f"{cls.dataset_name}-metaphases",
            _find_metaphases(root),
            lambda: _compute_facts(root),
            cache,
        )
        return _join(root, singles, cells_of_metaphases, weights_sha256, split)


class MetaphaseCropsDataModule(ChromosomeDataModule):
    """DataModule of :class:`MetaphaseCropsDataset`.

    Preparing the crops runs a segmenter for minutes; ``prepare_data`` does it once. The arguments
    are those of :class:`ChromosomeDataModule`; there are no folds.
    """

    dataset_class = MetaphaseCropsDataset
    stain = "q"


def _list_singles(
    root: str | os.PathLike[str] | None, cache: Path | None
) -> dict[str, Chromosomes]:
    """List the single chromosomes by the prefix of their cells in the split."""
    return {
        "single": BioImLabDataset.list_chromosomes(root, cache=cache),
        "pki3": Pki3Dataset.list_chromosomes(root, cache=cache),
    }


def _find_metaphases(root: str | os.PathLike[str] | None) -> list[Path]:
    """Return the paths of the data sets of metaphases.

    Raises:
        DatasetNotFoundError: One of them is not on this machine.
    """
    return [
        bioimlab_segmentation.find_path(root),
        find_dataset(mfish.FILE_NAME, mfish.INSTRUCTIONS, root),
        find_dataset(cil54816.FILE_NAME, cil54816.INSTRUCTIONS, root),
    ]


def _compute_facts(root: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Decode all metaphases and return the hashes of the data sets and the certain labels."""
    cells = [
        {"name": f"{name}{suffix}", "labels": cell.classes[cell.classes >= 0].tolist()}
        for name, _, cell in _read_metaphases(root)
        for suffix in _suffixes(cell)
    ]
    contents = [
        bioimlab_segmentation.contents_sha256(root),
        mfish.contents_sha256(root),
        cil54816.contents_sha256(root),
    ]
    return {"contents": contents, "cells": cells}


def _join(
    root: str | os.PathLike[str] | None,
    singles: dict[str, Chromosomes],
    facts: dict[str, Any],
    weights_sha256: str,
    split: Split,
) -> Chromosomes:
    """Join the single chromosomes and those of the metaphases."""
    labels = [single.labels for single in singles.values()]
    cells = [
        np.array([f"{name} {cell}" for cell in single.cells]) for name, single in singles.items()
    ]
    upright = [np.full(len(single.labels), name == "pki3") for name, single in singles.items()]
    for cell in facts["cells"]:
        labels.append(np.array(cell["labels"], np.int64))
        cells.append(np.full(len(cell["labels"]), cell["name"]))
        upright.append(np.zeros(len(cell["labels"]), bool))
    joined = np.concatenate(labels)

    def images() -> Iterator[tuple[str, NDArray[np.generic]]]:
        from chromozoo.models.registry import get_model

        for single in singles.values():
            yield from single.images()
        segmenter: Any = get_model(SEGMENTER, weights=SEGMENTER_WEIGHTS)
        for name, image, cell in _read_metaphases(root):
            yield from _cut_chromosomes(name, image, cell, segmenter)

    contents = [
        *(single.content_sha256 for single in singles.values()),
        *facts["contents"],
        weights_sha256,
        f"{Extraction()} {MIN_SCORE} {MIN_IOU}",
        # The joint labels are part of the package and not of a data set.
        str(joined.tolist()),
    ]
    return Chromosomes(
        joined,
        np.concatenate(cells),
        sha256_of(part.encode() for part in contents),
        images,
        split,
        np.concatenate(upright),
    )


def _read_metaphases(
    root: str | os.PathLike[str] | None,
) -> Iterator[tuple[str, NDArray[np.float32], TrueCell]]:
    """Yield the name in the split, the image and the cell of each metaphase of the split."""
    listed = {name.removesuffix(FOUND) for name in load_split(SPLIT).ids("all")}
    for prefix, dataset in METAPHASES.items():
        for stage in STAGES:
            for image, cell in true_cells(dataset, stage, root):
                if (name := f"{prefix} {cell.name}") in listed:
                    yield name, image, cell


def _suffixes(cell: TrueCell) -> tuple[str, ...]:
    """Return the suffixes of a cell's name in the split, one for each way of cutting it."""
    return (FOUND,) if isinstance(cell.instances, Boxes) else ("", FOUND)


def _cut_chromosomes(
    name: str, image: NDArray[np.float32], cell: TrueCell, segmenter: Any
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Cut the certain chromosomes of a metaphase by annotated masks, then by detections."""
    outlines = cell.instances
    signal = measure_levels(image).signal
    cut = Extraction()
    found = segmenter.segment(image, name).filter_by_score(MIN_SCORE)
    by_segmenter = cut(signal, found.crops, found.corners)
    rows = np.flatnonzero(cell.classes >= 0)
    if isinstance(outlines, Boxes):
        by_annotation = [cut_box(signal, box) for box in outlines.boxes]
        detected, annotated = (
            torch.from_numpy(np.float32(one)) for one in (found.boxes, outlines.boxes)
        )
        ious = box_iou(annotated, detected).numpy()
    else:
        assert isinstance(outlines, Segmentation)
        by_annotation = cut(signal, outlines.crops, outlines.corners)
        for row in rows:
            yield f"{name}, chromosome {row}", by_annotation[row]
        detections = _instances(found)
        ious = np.array(
            [[mask_iou(one, other) for other in detections] for one in _instances(outlines)]
        )
    for row in rows:
        best = int(np.argmax(ious[row])) if len(found) else 0
        is_found = bool(len(found)) and ious[row, best] >= MIN_IOU
        chromosome = by_segmenter[best] if is_found else by_annotation[row]
        yield f"{name}, found for chromosome {row}", chromosome


def _instances(segmentation: Segmentation) -> list[Instance]:
    return [
        Instance(crop, (int(row), int(column)), None, 1.0)
        for crop, (row, column) in zip(segmentation.crops, segmentation.corners, strict=True)
    ]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Count the chromosomes by class and split; the files are checked with the five data sets.

    Raises:
        DatasetNotFoundError: One of the five data sets is not on this machine.
    """
    from chromozoo.models.registry import get_weight

    split = load_split(SPLIT)
    with tempfile.TemporaryDirectory() as empty:  # hashes are computed, not taken from the index
        singles = _list_singles(root, Path(empty))
    weights_sha256 = get_weight(SEGMENTER, SEGMENTER_WEIGHTS).sha256
    found = _join(root, singles, _compute_facts(root), weights_sha256, split)
    cells, counts = np.unique(found.cells, return_counts=True)
    by_cell = dict(zip(cells.tolist(), counts.tolist(), strict=True))
    lines = [
        f"content sha256 {found.content_sha256}",
        f"{len(found.labels)} chromosomes",
        describe_classes(found.labels.tolist()),
        *describe_split(split, by_cell),
    ]
    path = bioimlab_segmentation.find_path(root)
    return Verification(path, tuple(lines), tuple(find_split_faults(split, by_cell)))
