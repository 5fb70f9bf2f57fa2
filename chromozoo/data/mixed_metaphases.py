"""Metaphases of several laboratories and stains together, for a segmenter that serves them all.

Q-band of BioImLab and DAPI of M-FISH with their outlines, G-band of CIL:54816 with its boxes. All
become signal images, bright on black, so to a network the stains look much alike; what differs
between laboratories is contraction, sharpness, dirt, and how closely the chromosomes lie.
"""

import os
from collections.abc import Mapping
from dataclasses import replace

from chromozoo.data import bioimlab_segmentation
from chromozoo.data.base.metaphase_datamodule import MetaphaseDataModule
from chromozoo.data.base.verification import split_faults, split_lines
from chromozoo.data.bioimlab_segmentation import BioImLabSegmentationDataModule
from chromozoo.data.catalogue import Verification
from chromozoo.data.cil54816 import Cil54816DataModule
from chromozoo.data.mfish import MFishDataModule
from chromozoo.data.splits import load_split
from chromozoo.structures.metaphase import Metaphase, MetaphaseFiles

SPLIT = "mixed_metaphases_v1"
# What the split calls the sets, before the names of their images.
SETS: dict[str, type[MetaphaseDataModule]] = {
    "bioimlab": BioImLabSegmentationDataModule,
    "mfish": MFishDataModule,
    "cil": Cil54816DataModule,
}
# How often an image of each set is taken while one of CIL:54816 is taken once: there are few with
# outlines.
REPEATS = {"bioimlab": 2, "mfish": 2, "cil": 1}

INSTRUCTIONS = """It is made of three sets; all are needed:
  chromozoo data info bioimlab-segmentation
  chromozoo data info mfish
  chromozoo data info cil54816"""


class MixedMetaphasesDataModule(MetaphaseDataModule):
    """Metaphases of three sets, not told apart by class; split as each of them is.

    Outlined images alone validate and test: CIL:54816 is judged by its own DataModule. The
    arguments are those of :class:`chromozoo.data.base.metaphase_datamodule.MetaphaseDataModule`.
    """

    dataset_name = "mixed-metaphases"
    split_name = SPLIT

    def files(self) -> "MixedFiles":
        return MixedFiles({name: data(self.root).files() for name, data in SETS.items()})

    def training_keys(self) -> list[str]:
        keys = self.keys("train")
        return [key for key in keys for _ in range(REPEATS[key.partition(" ")[0]])]


class MixedFiles:
    """The images of several sets, each called ``"<set> <name>"``.

    Args:
        sets: By what their images' names begin with.
    """

    def __init__(self, sets: Mapping[str, MetaphaseFiles]) -> None:
        self.sets = dict(sets)

    def keys(self) -> list[str]:
        """Names of the images, set by set."""
        return [f"{name} {key}" for name, files in self.sets.items() for key in files.keys()]  # noqa: SIM118

    def read(self, key: str) -> Metaphase:
        """Decodes one image and its outlines, or boxes.

        Raises:
            DatasetError: It is damaged; the message names the file.
        """
        name, _, own = key.partition(" ")
        return replace(self.sets[name].read(own), key=key)


def verify(root: str | os.PathLike[str] | None = None) -> Verification:
    """Counts the images by split; the files are checked as those of the three sets.

    Raises:
        DatasetNotFoundError: One of the three sets is not on this machine.
        DatasetError: The list of a set's files is damaged.
    """
    keys = MixedMetaphasesDataModule(root).files().keys()
    split = load_split(SPLIT)
    counts = dict.fromkeys(keys, 1)
    lines = [f"{len(keys)} images", *split_lines(split, counts, "images", "images")]
    path = bioimlab_segmentation.find(root)
    return Verification(path, tuple(lines), tuple(split_faults(split, keys, "image")))
