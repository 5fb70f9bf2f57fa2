"""The data sets that ChromoZoo reads, described without importing torch."""

import difflib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from chromozoo.errors import UnknownNameError


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is opened.

    Attributes:
        name: Its one name: weights tag, config suffix, ``dataset`` column of a result row.
        title: One line.
        task: ``"classification"`` or ``"segmentation"``.
        module: Dotted name of the file that reads it.
        data_module: Class name of its LightningDataModule there.
        size: What it holds, in words.
        source: Who published it.
        licence: As far as it is known.
    """

    name: str
    title: str
    task: str
    module: str
    data_module: str
    size: str
    source: str
    licence: str

    @property
    def tag(self) -> str:
        """Of weights trained on it: both sets of BioImLab are ``bioimlab``."""
        return self.name.removesuffix("-segmentation")

    def load_module(self) -> Any:
        """The file that reads it (imports torch): has ``INSTRUCTIONS`` and ``verify(root)``."""
        return import_module(self.module)


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="bioimlab",
            title="BioImLab Q-band single chromosomes",
            task="classification",
            module="chromozoo.data.bioimlab",
            data_module="BioImLabClassification",
            size="4,922 chromosomes of 107 cells, 24 classes",
            source="University of Padova, Biomedical Imaging Laboratory; Poletti, Grisan, "
            "Ruggeri 2008/2012",
            licence="public download, no licence stated: research use",
        ),
        DatasetInfo(
            name="bioimlab-segmentation",
            title="BioImLab Q-band prometaphases",
            task="segmentation",
            module="chromozoo.data.bioimlab_segmentation",
            data_module="BioImLabSegmentation",
            size="150 images of 768x576 with 6,231 amodal polygons",
            source="images: University of Padova, Biomedical Imaging Laboratory; Poletti, Grisan, "
            "Ruggeri 2008/2012; polygons: Wang et al. 2023, doi 10.1016/j.bspc.2023.105199",
            licence="images: public download, no licence stated: research use; polygons: MPL-2.0",
        ),
    )
}


TAGS = frozenset(info.tag for info in DATASETS.values())


def datasets(task: str) -> dict[str, DatasetInfo]:
    """The data sets of ``"classification"`` or ``"segmentation"``, by name."""
    return {name: info for name, info in DATASETS.items() if info.task == task}


def dataset_of_tag(tag: str, task: str) -> DatasetInfo:
    """The data set of a task that weights with this tag were trained on.

    Raises:
        UnknownNameError: There is none.
    """
    for info in datasets(task).values():
        if info.tag == tag:
            return info
    known = ", ".join(info.tag for info in datasets(task).values())
    raise UnknownNameError(f"no data set for {task} has the tag {tag!r}; there are {known}")


def dataset_info(name: str) -> DatasetInfo:
    """What is known of one data set.

    Raises:
        UnknownNameError: There is none of this name.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS) or list(DATASETS)
        raise UnknownNameError(f"unknown data set {name!r}: did you mean {', '.join(close)}?")
    return DATASETS[name]


@dataclass(frozen=True)
class Verification:
    """What ``chromozoo data verify`` found.

    Attributes:
        path: The data set.
        lines: The report: hash, counts by class and split.
        faults: What is wrong, each naming the file; empty for a whole data set.
    """

    path: Path
    lines: tuple[str, ...]
    faults: tuple[str, ...]
