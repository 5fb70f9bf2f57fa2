"""Joint labels: classes of the outlined chromosomes of BioImLab's metaphases.

The segmentation set has outlines without classes, and the classification set has single chromosomes
without positions. ``bioimlab_v1.json`` joins them by registration of the pixels; its ``note``
describes the method. The labels are machine-derived and not reviewed by a cytogeneticist. The file
has labels only and no image data; they follow the order of the polygons of Wang et al. 2023 (doi
10.1016/j.bspc.2023.105199, MPL-2.0).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNCERTAIN = -1


@dataclass(frozen=True, eq=False)
class JointLabels:
    """The classes of the outlined chromosomes of one metaphase.

    Attributes:
        cell: Number of the cell in the classification set, which differs from that of the
            segmentation set; None where the classification set lacks the cell.
        classes: ``(N,)`` int64, read-only: index into ``chromozoo.classes.CLASSES`` of each polygon
            in the order of the labelme file, -1 where the class is uncertain.
    """

    cell: int | None
    classes: NDArray[np.int64]

    @property
    def n_polygons(self) -> int:
        """Number of outlined chromosomes."""
        return len(self.classes)


@cache
def joint_labels() -> Mapping[str, JointLabels]:
    """Return the labels of all 150 images by their names in the split, such as ``"24a"``."""
    file = resources.files(__name__) / "bioimlab_v1.json"
    images: dict[str, dict[str, Any]] = json.loads(file.read_bytes())["images"]
    labels = {}
    for key, image in images.items():
        # The name of a crop is class and copy, such as '3b', or the class alone, such as '24'.
        classes = np.array(
            [
                UNCERTAIN if crop == "-" else int(crop.rstrip("ab")) - 1
                for crop in image["crops"].split()
            ],
            np.int64,
        )
        classes.flags.writeable = False
        labels[key] = JointLabels(image["cell"], classes)
    return MappingProxyType(labels)
