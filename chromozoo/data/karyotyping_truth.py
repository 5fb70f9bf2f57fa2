"""Ground truth of karyotyping: metaphases with instances and their classes."""

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASS_INDEX
from chromozoo.data.base.metaphase_dataset import SplitMetaphaseDataset
from chromozoo.data.bioimlab_segmentation import BioImLabSegmentationDataset
from chromozoo.data.cil54816 import Cil54816Dataset
from chromozoo.data.joint_labels import joint_labels
from chromozoo.data.mfish import MFishDataset
from chromozoo.errors import DatasetError
from chromozoo.structures.karyotyped_cell import Boxes, TrueCell
from chromozoo.structures.metaphase import Metaphase
from chromozoo.structures.segmentation import Segmentation

# The data sets with classes, by their names in the catalogue.
KARYOTYPED: dict[str, type[SplitMetaphaseDataset]] = {
    data.dataset_name: data for data in (BioImLabSegmentationDataset, MFishDataset, Cil54816Dataset)
}


def true_cells(
    dataset: str, stage: str, root: str | os.PathLike[str] | None = None
) -> Iterator[tuple[NDArray[np.float32], TrueCell]]:
    """Read the metaphases of one split of a data set one by one.

    - ``"bioimlab-segmentation"``: amodal masks with the classes of the joint labels
      (:mod:`chromozoo.data.joint_labels`), -1 where the class is uncertain.
    - ``"mfish"``: amodal masks derived from the class maps.
    - ``"cil54816"``: boxes.

    Args:
        dataset: One of :data:`KARYOTYPED`.
        stage: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        root: As for the data set.

    Yields:
        The image ``(H, W)`` float32 in the units of its file, and its cell in pixels of the image.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
        DatasetError: The data set has no classes, or a file is damaged or differs from the labelled
            one. The message names it.
    """
    if dataset not in KARYOTYPED:
        raise DatasetError(
            f"{dataset} has no classes for whole metaphases; use one of {', '.join(KARYOTYPED)}"
        )
    images = KARYOTYPED[dataset](root, stage)
    for index in range(len(images)):
        metaphase = images.metaphase(index)
        if dataset == "bioimlab-segmentation":
            classes = _find_joint_classes(metaphase)
        else:
            classes = np.array([CLASS_INDEX[name] for name in metaphase.labels], np.int64)
        yield metaphase.image, _make_cell(metaphase, classes)


def _find_joint_classes(metaphase: Metaphase) -> NDArray[np.int64]:
    labels = joint_labels().get(metaphase.key)
    if labels is None or labels.n_polygons != len(metaphase.polygons):
        raise DatasetError(
            f"{metaphase.source}: has {len(metaphase.polygons)} polygons, the joint labels "
            + ("lack the image" if labels is None else f"have {labels.n_polygons}")
            + "; they number the polygons of the published file: fetch it again"
        )
    return labels.classes


def _make_cell(metaphase: Metaphase, classes: NDArray[np.int64]) -> TrueCell:
    height, width = metaphase.image.shape
    if metaphase.boxes_only:
        boxes = [(*one.min(axis=0), *one.max(axis=0)) for one in metaphase.polygons]
        return TrueCell(
            metaphase.key, Boxes((height, width), np.array(boxes).reshape(-1, 4)), classes
        )
    masks = metaphase.masks()
    # `from_masks` drops masks without a pixel.
    is_visible = masks.any(axis=(1, 2))
    return TrueCell(metaphase.key, Segmentation.from_masks(masks[is_visible]), classes[is_visible])
