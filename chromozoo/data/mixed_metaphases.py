"""Mixed metaphases: three data sets in one, for segmenters of several stains.

Source: Q-band of BioImLab and DAPI of M-FISH with outlines, G-band of CIL:54816 with boxes. All
become signal images, bright on black, in which the stains look much alike. Laboratories still
differ in contraction, sharpness, dirt and density of the chromosomes.

Files: those of :mod:`chromozoo.data.bioimlab_segmentation`, :mod:`chromozoo.data.mfish` and
:mod:`chromozoo.data.cil54816` in one folder.

Licence and reference: those of the three data sets; research use.

Example::

    dataset = MixedMetaphasesDataset("data", split="val")
    item = dataset[0]
    item["image"].shape, item["masks"].shape  # (1, h, w), (N, h, w)
"""

import os
from collections.abc import Mapping
from dataclasses import replace

from chromozoo.data import bioimlab_segmentation
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.base.metaphase_dataset import SplitMetaphaseDataset
from chromozoo.data.base.verification import describe_split, find_split_faults
from chromozoo.data.bioimlab_segmentation import BioImLabSegmentationDataset
from chromozoo.data.catalogue import Verification
from chromozoo.data.cil54816 import Cil54816Dataset
from chromozoo.data.mfish import MFishDataset
from chromozoo.data.splits import load_split
from chromozoo.structures.metaphase import Metaphase, MetaphaseFiles

SPLIT = "mixed_metaphases_v1"
# The data sets by the prefix of their images in the split.
SETS: dict[str, type[SplitMetaphaseDataset]] = {
    "bioimlab": BioImLabSegmentationDataset,
    "mfish": MFishDataset,
    "cil": Cil54816Dataset,
}
# Weights of the images in training. Few images have outlines.
REPEATS = {"bioimlab": 2, "mfish": 2, "cil": 1}

INSTRUCTIONS = """It consists of three data sets, which are all needed:
  chromozoo data info bioimlab-segmentation
  chromozoo data info mfish
  chromozoo data info cil54816"""


class MixedFiles:
    """The images of several data sets, named ``"<prefix> <name>"``.

    Args:
        sets: The data sets by prefix.
    """

    def __init__(self, sets: Mapping[str, MetaphaseFiles]) -> None:
        self.sets = dict(sets)

    def keys(self) -> list[str]:
        """Return the names of the images, one data set after the other."""
        return [f"{prefix} {key}" for prefix, files in self.sets.items() for key in files.keys()]  # noqa: SIM118

    def read(self, key: str) -> Metaphase:
        """Decode one image and its outlines, or boxes.

        Raises:
            DatasetError: The file is damaged; the message names it.
        """
        prefix, _, name = key.partition(" ")
        return replace(self.sets[prefix].read(name), key=key)


class MixedMetaphasesDataset(SplitMetaphaseDataset):
    """Metaphases of three data sets without classes, split as in each of them.

    Validation and test images have outlines; CIL:54816 is evaluated as a data set of its own. The
    arguments are those of :class:`SplitMetaphaseDataset`.
    """

    dataset_name = "mixed-metaphases"
    split_name = SPLIT

    @classmethod
    def open_files(cls, root: str | os.PathLike[str] | None = None) -> MixedFiles:
        return MixedFiles({prefix: data.open_files(root) for prefix, data in SETS.items()})


class MixedMetaphasesDataModule(MetaphaseDataModule):
    """DataModule of :class:`MixedMetaphasesDataset`.

    The arguments are those of :class:`MetaphaseDataModule`.
    """

    dataset_class = MixedMetaphasesDataset

    def training_keys(self) -> list[str]:
        keys = self.keys("train")
        return [key for key in keys for _ in range(REPEATS[key.partition(" ")[0]])]


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Count the images by split; the files are checked with the three data sets.

    Raises:
        DatasetNotFoundError: One of the three data sets is not on this machine.
        DatasetError: The list of a data set's files is damaged.
    """
    keys = MixedMetaphasesDataset.open_files(root).keys()
    split = load_split(SPLIT)
    counts = dict.fromkeys(keys, 1)
    lines = [f"{len(keys)} images", *describe_split(split, counts, "images", "images")]
    path = bioimlab_segmentation.find_path(root)
    return Verification(path, tuple(lines), tuple(find_split_faults(split, keys, "image")))
