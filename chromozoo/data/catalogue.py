"""Catalogue of the data sets; importing it does not import torch."""

import difflib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from chromozoo.errors import UnknownNameError


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a data set.

    Attributes:
        name: Name of the data set, used in commands and in the ``dataset`` column of results.
        title: One line.
        task: ``"classification"``, ``"segmentation"`` or ``"detection"``.
        module: Dotted name of its module, which has ``INSTRUCTIONS`` and ``verify(root)``.
        dataset: Class name of its ``torch.utils.data.Dataset`` in the module.
        data_module: Class name of its LightningDataModule in the module.
        size: Its content in words.
        source: Its publisher.
        licence: Its licence, as far as known.
        tag: Tag of weights trained on it and suffix of configs; both data sets of BioImLab have the
            tag ``bioimlab``.
    """

    name: str
    title: str
    task: str
    module: str
    dataset: str
    data_module: str
    size: str
    source: str
    licence: str
    tag: str
    parts: tuple[str, ...] = ()

    def load_module(self) -> Any:
        """Import its module, and with it torch."""
        return import_module(self.module)

    def load_data(self, **arguments: Any) -> Any:
        """Return its LightningDataModule with these arguments."""
        return getattr(self.load_module(), self.data_module)(**arguments)


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="bioimlab",
            title="BioImLab Q-band single chromosomes",
            task="classification",
            module="chromozoo.data.bioimlab",
            dataset="BioImLabDataset",
            data_module="BioImLabDataModule",
            size="4,922 chromosomes of 107 cells, 24 classes",
            source="University of Padova, Biomedical Imaging Laboratory; Poletti, Grisan, "
            "Ruggeri 2008/2012",
            licence="public download, no licence stated: research use",
            tag="bioimlab",
        ),
        DatasetInfo(
            name="bioimlab-segmentation",
            title="BioImLab Q-band prometaphases",
            task="segmentation",
            module="chromozoo.data.bioimlab_segmentation",
            dataset="BioImLabSegmentationDataset",
            data_module="BioImLabSegmentationDataModule",
            size="150 images of 768x576 with 6,231 amodal polygons",
            source="images: University of Padova, Biomedical Imaging Laboratory; Poletti, Grisan, "
            "Ruggeri 2008/2012; polygons: Wang et al. 2023, doi 10.1016/j.bspc.2023.105199",
            licence="images: public download, no licence stated: research use; polygons: MPL-2.0",
            tag="bioimlab",
        ),
        DatasetInfo(
            name="metaphase-crops",
            title="BioImLab and Pki-3 chromosomes, and those cut from metaphases of three sets",
            task="classification",
            module="chromozoo.data.metaphase_crops",
            dataset="MetaphaseCropsDataset",
            data_module="MetaphaseCropsDataModule",
            size="73,890 crops: 28,545 single chromosomes, 11,762 of 275 metaphases, each twice, "
            "and 21,821 of 475 metaphases with boxes",
            source="BioImLab (University of Padova; Wang et al. 2023), Pki-3 (Ritter & Gao 2008), "
            "M-FISH (Advanced Digital Imaging Research 2000), CIL:54816 (Tseng et al. 2023)",
            licence="BioImLab: none stated, its polygons MPL-2.0; Pki-3, CIL:54816: not verified; "
            "M-FISH: free with its notice; together: research use",
            tag="metaphase",
            parts=("bioimlab", "pki3", "mfish", "cil"),
        ),
        DatasetInfo(
            name="pki3",
            title="Pki-3 G-band single chromosomes",
            task="classification",
            module="chromozoo.data.pki3",
            dataset="Pki3Dataset",
            data_module="Pki3DataModule",
            size="23,623 upright chromosomes of 514 karyotypes of 310 patients, 24 classes",
            source="University of Passau; Ritter & Gao 2008",
            licence="research use; licence not verified",
            tag="pki3",
        ),
        DatasetInfo(
            name="karyograms",
            title="Images of arranged karyograms, cut into single chromosomes",
            task="classification",
            module="chromozoo.data.karyograms",
            dataset="KaryogramDataset",
            data_module="KaryogramDataModule",
            size="your own images, about 46 chromosomes each",
            source="your own",
            licence="your own",
            tag="karyograms",
        ),
        DatasetInfo(
            name="mfish",
            title="M-FISH DAPI metaphases",
            task="segmentation",
            module="chromozoo.data.mfish",
            dataset="MFishDataset",
            data_module="MFishDataModule",
            size="163 images of about 645x517 with a 24-class map, many of them abnormal",
            source="Advanced Digital Imaging Research, PSI M-FISH image set 1, 2000",
            licence="free to use, copy, modify and distribute with its notice (mfish-README.txt)",
            tag="mfish",
        ),
        DatasetInfo(
            name="mixed-metaphases",
            title="BioImLab, M-FISH and CIL:54816 metaphases together: Q-band, DAPI and G-band",
            task="segmentation",
            module="chromozoo.data.mixed_metaphases",
            dataset="MixedMetaphasesDataset",
            data_module="MixedMetaphasesDataModule",
            size="1,074 training images, 238 with outlines and 836 with boxes",
            source="BioImLab (University of Padova; Wang et al. 2023), M-FISH (Advanced Digital "
            "Imaging Research 2000), CIL:54816 (Tseng et al. 2023)",
            licence="BioImLab: none stated, its polygons MPL-2.0; CIL:54816: not verified; M-FISH: "
            "free with its notice; together: research use",
            tag="metaphase",
            parts=("bioimlab", "mfish", "cil"),
        ),
        DatasetInfo(
            name="cil54816",
            title="CIL:54816 G-band metaphases with boxes",
            task="detection",
            module="chromozoo.data.cil54816",
            dataset="Cil54816Dataset",
            data_module="Cil54816DataModule",
            size="1,100 images of the published 5,000 with about 46 boxes each, 24 classes",
            source="Cell Image Library, doi 10.7295/W9CIL54816; Tseng et al. 2023, Scientific Data",
            licence="licence not verified",
            tag="cil",
        ),
        DatasetInfo(
            name="cil54816-crops",
            title="CIL:54816 G-band single chromosomes, cut from metaphases by their boxes",
            task="classification",
            module="chromozoo.data.cil54816",
            dataset="Cil54816CropsDataset",
            data_module="Cil54816CropsDataModule",
            size="50,534 crops of 1,100 metaphases, in their natural clutter, 24 classes",
            source="Cell Image Library, doi 10.7295/W9CIL54816; Tseng et al. 2023, Scientific Data",
            licence="licence not verified",
            tag="cil",
        ),
    )
}


TAGS = frozenset(info.tag for info in DATASETS.values())


def datasets(task: str) -> dict[str, DatasetInfo]:
    """Return the data sets of a task by name.

    Args:
        task: ``"classification"``, ``"segmentation"`` or ``"detection"``.
    """
    return {name: info for name, info in DATASETS.items() if info.task == task}


def training_sets(task: str) -> dict[str, DatasetInfo]:
    """Return the data sets for training models of a task by name.

    Segmenters can be trained on boxes alone.

    Args:
        task: ``"classification"`` or ``"segmentation"``.
    """
    return datasets(task) | (datasets("detection") if task == "segmentation" else {})


def dataset_of_tag(tag: str, task: str) -> DatasetInfo:
    """Return the data set of a task that weights with a tag were trained on.

    Raises:
        UnknownNameError: No such data set.
    """
    usable = training_sets(task)
    for info in usable.values():
        if info.tag == tag:
            return info
    known = ", ".join(info.tag for info in usable.values())
    raise UnknownNameError(f"no data set for {task} has the tag {tag!r}; known are {known}")


def dataset_info(name: str) -> DatasetInfo:
    """Return the description of one data set.

    Raises:
        UnknownNameError: No such data set.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS) or list(DATASETS)
        raise UnknownNameError(f"unknown data set {name!r}: did you mean {', '.join(close)}?")
    return DATASETS[name]


@dataclass(frozen=True)
class Verification:
    """Result of ``chromozoo data verify``.

    Attributes:
        path: Path of the data set.
        lines: Report with the hash and the counts by class and split.
        faults: One message for each fault, beginning with the file; empty for a complete data set.
    """

    path: Path
    lines: tuple[str, ...]
    faults: tuple[str, ...]
