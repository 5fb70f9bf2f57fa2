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
    )
}


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
