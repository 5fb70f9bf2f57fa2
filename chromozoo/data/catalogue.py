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
        task: ``"classification"``, ``"segmentation"`` or ``"detection"``.
        module: Dotted name of the file that reads it.
        data_module: Class name of its LightningDataModule there.
        size: What it holds, in words.
        source: Who published it.
        licence: As far as it is known.
        tag: Of weights trained on it: both sets of BioImLab are ``bioimlab``.
        parts: Tags of the sets that it is made of, if it is made of others.
    """

    name: str
    title: str
    task: str
    module: str
    data_module: str
    size: str
    source: str
    licence: str
    tag: str
    parts: tuple[str, ...] = ()

    def load_module(self) -> Any:
        """The file that reads it (imports torch): has ``INSTRUCTIONS`` and ``verify(root)``."""
        return import_module(self.module)

    def load_data(self, **arguments: Any) -> Any:
        """Its LightningDataModule, made with these arguments."""
        return getattr(self.load_module(), self.data_module)(**arguments)


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="bioimlab",
            title="BioImLab Q-band single chromosomes",
            task="classification",
            module="chromozoo.data.bioimlab",
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
            data_module="Pki3DataModule",
            size="23,623 upright chromosomes of 514 karyotypes of 310 patients, 24 classes",
            source="University of Passau; Ritter & Gao 2008",
            licence="research use; licence not verified",
            tag="pki3",
        ),
        DatasetInfo(
            name="karyograms",
            title="Images of arranged karyograms, cut by the places of the classes",
            task="classification",
            module="chromozoo.data.karyograms",
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
    """The data sets of ``"classification"``, ``"segmentation"`` or ``"detection"``, by name."""
    return {name: info for name, info in DATASETS.items() if info.task == task}


def usable_for(task: str) -> dict[str, DatasetInfo]:
    """The data sets that models for ``"classification"`` or ``"segmentation"`` learn from, by name.

    A segmenter may learn from boxes alone.
    """
    return datasets(task) | (datasets("detection") if task == "segmentation" else {})


def dataset_of_tag(tag: str, task: str) -> DatasetInfo:
    """The data set of a task that weights with this tag were trained on.

    Raises:
        UnknownNameError: There is none.
    """
    usable = usable_for(task)
    for info in usable.values():
        if info.tag == tag:
            return info
    known = ", ".join(info.tag for info in usable.values())
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
