"""BioImLab, Q-band: whole metaphases whose chromosomes are outlined and, mostly, named.

What karyotyping is judged on: the outlines of the segmentation set
(:mod:`chromozoo.data.bioimlab_segmentation`) with the classes of the joint labels
(:mod:`chromozoo.data.joint_labels`), which ship with the package.
"""

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from chromozoo.data.bioimlab_segmentation import BioImLabSegmentation
from chromozoo.data.joint_labels import joint_labels
from chromozoo.data.polygons import Metaphase, polygon_mask
from chromozoo.errors import DatasetError
from chromozoo.karyotyping_metrics import TrueCell
from chromozoo.tasks.segmentation import Segmentation


def true_cells(
    stage: str, root: str | os.PathLike[str] | None = None
) -> Iterator[tuple[NDArray[np.float32], TrueCell]]:
    """The metaphases of one part of ``bioimlab_segmentation_v1``, read one by one.

    Args:
        stage: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        root: As of :class:`BioImLabSegmentation`.

    Yields:
        The picture, ``(H, W)`` grey in the units of its file, and its cell: amodal masks in pixels
        of that picture, classes -1 where no one is certain (in an image without counterpart cell:
        everywhere).

    Raises:
        DatasetNotFoundError: The set is not on this machine.
        DatasetError: A file is damaged, or is not the one that was labelled; the message names it.
    """
    images = BioImLabSegmentation(root).dataset(stage)
    for index in range(len(images)):
        metaphase = images.metaphase(index)
        yield metaphase.image, _named(metaphase)


def _named(metaphase: Metaphase) -> TrueCell:
    labels = joint_labels().get(metaphase.key)
    if labels is None or labels.polygons != len(metaphase.polygons):
        raise DatasetError(
            f"{metaphase.source}: has {len(metaphase.polygons)} polygons, the joint labels "
            + ("do not know the image" if labels is None else f"name {labels.polygons}")
            + "; they number the polygons of the published file: fetch it again"
        )
    height, width = metaphase.image.shape
    masks = np.stack([polygon_mask(polygon, height, width) for polygon in metaphase.polygons])
    # Outlines without a pixel cannot be found, and `from_masks` leaves them out.
    is_visible = masks.any(axis=(1, 2))
    outlines = Segmentation.from_masks(masks[is_visible])
    return TrueCell(metaphase.key, outlines, labels.classes[is_visible])
