"""Metaphases whose chromosomes are outlined and named: what karyotyping is judged on.

Each set gives the image, ``(H, W)`` grey in the units of its file, and its cell in pixels of that
image, read one by one.
"""

import os
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASS_INDEX
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.bioimlab_segmentation import BioImLabSegmentationDataModule
from chromozoo.data.cil54816 import Cil54816DataModule
from chromozoo.data.joint_labels import joint_labels
from chromozoo.data.mfish import MFishDataModule
from chromozoo.errors import DatasetError
from chromozoo.structures.karyotyped_cell import Boxes, TrueCell
from chromozoo.structures.metaphase import Metaphase
from chromozoo.structures.segmentation import Segmentation

# The sets, by their names in the catalogue.
KARYOTYPED: dict[str, Callable[..., MetaphaseDataModule]] = {
    "bioimlab-segmentation": BioImLabSegmentationDataModule,
    "mfish": MFishDataModule,
    "cil54816": Cil54816DataModule,
}


def true_cells(
    dataset: str, stage: str, root: str | os.PathLike[str] | None = None
) -> Iterator[tuple[NDArray[np.float32], TrueCell]]:
    """The metaphases of one part of a set.

    - ``"bioimlab-segmentation"``: amodal masks, with the classes of the joint labels
      (:mod:`chromozoo.data.joint_labels`); -1 where no one is certain, in an image without
      counterpart cell everywhere.
    - ``"mfish"``: amodal masks made of the class maps.
    - ``"cil54816"``: boxes.

    Args:
        dataset: One of :data:`KARYOTYPED`.
        stage: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        root: As of the set's DataModule.

    Raises:
        DatasetNotFoundError: The set is not on this machine.
        DatasetError: The set has no classes; a file is damaged, or is not the one that was
            labelled. The message names it.
    """
    if dataset not in KARYOTYPED:
        raise DatasetError(
            f"{dataset} has no classes for whole metaphases; use one of {', '.join(KARYOTYPED)}"
        )
    data = KARYOTYPED[dataset](root)
    images = data.dataset(stage)
    for index in range(len(images)):
        metaphase = images.metaphase(index)
        if dataset == "bioimlab-segmentation":
            classes = _joint_classes(metaphase)
        else:
            classes = np.array([CLASS_INDEX[name] for name in metaphase.labels], np.int64)
        yield metaphase.image, _cell(metaphase, classes)


def _joint_classes(metaphase: Metaphase) -> NDArray[np.int64]:
    labels = joint_labels().get(metaphase.key)
    if labels is None or labels.polygons != len(metaphase.polygons):
        raise DatasetError(
            f"{metaphase.source}: has {len(metaphase.polygons)} polygons, the joint labels "
            + ("do not know the image" if labels is None else f"name {labels.polygons}")
            + "; they number the polygons of the published file: fetch it again"
        )
    return labels.classes


def _cell(metaphase: Metaphase, classes: NDArray[np.int64]) -> TrueCell:
    height, width = metaphase.image.shape
    if metaphase.boxes_only:
        boxes = [(*one.min(axis=0), *one.max(axis=0)) for one in metaphase.polygons]
        return TrueCell(
            metaphase.key, Boxes((height, width), np.array(boxes).reshape(-1, 4)), classes
        )
    masks = metaphase.masks()
    # Outlines without a pixel cannot be found, and `from_masks` leaves them out.
    is_visible = masks.any(axis=(1, 2))
    return TrueCell(metaphase.key, Segmentation.from_masks(masks[is_visible]), classes[is_visible])
