"""Sensitivity and specificity of the alarm for cells without a reliable karyotype.

Good validation metaphases (9 of 10 detected chromosomes have the right class) should keep their
bare karyotype. Cells of other laboratories without the bands of their class should lose it:

    python benchmarks/alarm.py bioimlab-segmentation mfish cil54816
    python benchmarks/alarm.py unbanded r-band g-hospital g-software

Each line shows the karyotype of a cell, the mean probability of its classes, the share of right
classes where they are known, and its alarms. A summary of each set follows.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASS_INDEX
from chromozoo.data.io.archive import find_dataset, open_archive
from chromozoo.data.karyotyping_truth import KARYOTYPED, true_cells
from chromozoo.images.reading import read_bytes
from chromozoo.karyotype.karyotyper import Karyotyper
from chromozoo.metrics.karyotyping import evaluate_karyotyping
from chromozoo.models.karyotyper import get_karyotyper
from chromozoo.models.registry import get_model
from chromozoo.structures.karyotyped_cell import PredictedCell

LABORATORIES = "other-laboratories.zip"
FIELDS = ("unbanded", "g-software-metaphases")
CROPS = ("r-band", "g-hospital", "g-software")
GOOD = 0.9
# A folder of r-band holds several cells: the digits after the third are the number of the cell.
NUMBER = re.compile(r"/(?P<label>[0-9XY]+)_(?P<number>\d{3})(?P<cell>\d*)\.png$")
Line = tuple[str, str, float, float, tuple[str, ...]]


def karyotype_validation(name: str, karyotyper: Karyotyper, root: str | None) -> Iterator[Line]:
    """Karyotype validation metaphases with known chromosomes."""
    for image, true in true_cells(name, "val", root):
        found = karyotyper.karyotype(image, true.name)
        classes = np.array([CLASS_INDEX[item.label] for item in found.chromosomes], np.int64)
        report = evaluate_karyotyping(
            [PredictedCell(true.name, found.segmentation, classes)], [true], n_bootstrap=1
        )
        cell = report.cells[0]
        right = cell.correct / max(cell.correct + cell.misclassified, 1)
        yield true.name, found.iscn, found.mean_probability, right, found.alarms


def karyotype_fields(name: str, karyotyper: Karyotyper, root: str | None) -> Iterator[Line]:
    """Karyotype metaphases without known classes."""
    with open_archive(find_dataset(LABORATORIES, "", root)) as archive:
        for file in sorted(archive.names()):
            if f"{name}/" in file and file.endswith((".jpg", ".A.png")):
                found = karyotyper.karyotype(read_bytes(archive.read(file), file), file)
                yield file, found.iscn, found.mean_probability, float("nan"), found.alarms


def classify_crops(name: str, model: str, weights: str, root: str | None) -> Iterator[Line]:
    """Classify single chromosomes, all of a cell together."""
    classifier: Any = get_model(model, weights=weights)
    cells: dict[str, list[tuple[str, NDArray[np.generic]]]] = defaultdict(list)
    with open_archive(find_dataset(LABORATORIES, "", root)) as archive:
        for file in sorted(archive.names()):
            if f"{name}/" in f"/{file}" and file.endswith(".png"):
                folder, _, stem = file.removesuffix(".png").rpartition("/")
                label = stem.partition("_")[0].upper()
                match = NUMBER.search(file) if name == "r-band" else None
                cell = f"{folder}-{match['cell']}" if match else folder
                cells[cell].append((label, read_bytes(archive.read(file), file)))
    for cell, items in cells.items():
        found = classifier.classify([image for _, image in items], as_cell=True)
        right = np.mean(
            [item.label == label for item, (label, _) in zip(found, items, strict=True)]
        )
        mean = float(np.mean([item.probability for item in found]))
        yield cell, found.cell.iscn, mean, float(right), found.alarms


def summarise(name: str, lines: Sequence[Line]) -> str:
    """Return the numbers of cells, of good cells, and of alarms among both."""
    alarmed = [line for line in lines if line[4]]
    text = f"{name}: {len(lines)} cells, {len(alarmed)} alarmed"
    if known := [line for line in lines if not np.isnan(line[3])]:
        good = [line for line in known if line[3] >= GOOD]
        lost = [line for line in good if line[4]]
        text += f"; of {len(good)} good ones {len(lost)}"
    return text


def main() -> None:
    """Measure the sets of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="+", choices=(*KARYOTYPED, *FIELDS, *CROPS))
    parser.add_argument("--cells", type=int, help="maximum number of each set")
    parser.add_argument("--classifier", default="chrnet4")
    parser.add_argument("--weights", default="DEFAULT")
    parser.add_argument("--root", help="folder of the data")
    arguments = parser.parse_args()
    karyotyper = get_karyotyper(
        classifier=arguments.classifier, classifier_weights=arguments.weights
    )
    summaries = []
    for name in arguments.sets:
        if name in CROPS:
            cells = classify_crops(name, arguments.classifier, arguments.weights, arguments.root)
        else:
            how = karyotype_validation if name in KARYOTYPED else karyotype_fields
            cells = how(name, karyotyper, arguments.root)
        lines = []
        for line in islice(cells, arguments.cells):
            lines.append(line)
            label, iscn, mean, right, alarms = line
            print(f"{label}  {iscn}  {mean:.2f}  {right:.2f}  {'; '.join(alarms)}", flush=True)
        summaries.append(summarise(name, lines))
    print("\n".join(summaries))


if __name__ == "__main__":
    main()
