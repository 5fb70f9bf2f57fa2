"""Which chromosome each outline of BioImLab's metaphases is: its two sets joined.

The segmentation set outlines chromosomes without naming them; the classification set names single
chromosomes without saying where they lay. ``bioimlab_v1.json`` joins them by registration of the
pixels. It is machine-derived and not reviewed by a cytogeneticist; its ``note`` says how. It holds
labels alone, no image data: they number the polygons of Wang et al. 2023 (doi
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
    """The names of the chromosomes that one metaphase outlines.

    Attributes:
        cell: Number of the cell in the classification set, or None where it has no counterpart.
            The numbers of the two sets differ.
        classes: ``(polygons,)`` int64, read-only: index into ``chromozoo.classes.CLASSES`` of each
            polygon in the order of the labelme file, -1 where none is certain.
    """

    cell: int | None
    classes: NDArray[np.int64]

    @property
    def polygons(self) -> int:
        """How many chromosomes the file outlines."""
        return len(self.classes)


@cache
def joint_labels() -> Mapping[str, JointLabels]:
    """The labels of all 150 images by key (``"5"``, ``"24a"``), as in the segmentation split."""
    file = resources.files(__name__) / "bioimlab_v1.json"
    images: dict[str, dict[str, Any]] = json.loads(file.read_bytes())["images"]
    labels = {}
    for key, image in images.items():
        # A crop is named as its file: class from 1 and copy, '3b', or '24' where there is one Y.
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
