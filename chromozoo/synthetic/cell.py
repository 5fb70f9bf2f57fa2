"""Drawing of all chromosomes of a cell, and their image files."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from chromozoo.classes import AUTOSOMES, CLASS_INDEX, Stain
from chromozoo.files import replace_file
from chromozoo.synthetic.chromosome import Appearance, SyntheticChromosome, draw_chromosome


def draw_cell(
    rng: np.random.Generator,
    *,
    karyotype: Sequence[str] | None = None,
    stain: Stain = "q",
    appearance: Appearance | None = None,
) -> list[SyntheticChromosome]:
    """Draw the chromosomes of one cell, with one appearance but random bends, angles and noise.

    Args:
        rng: Source of randomness.
        karyotype: Class of each chromosome; None draws a normal 46,XX or 46,XY.
        stain: 'q' or 'g'; ignored if ``appearance`` is given.
        appearance: Appearance of the cell; None draws one.

    Returns:
        The chromosomes in the order of ``karyotype``.

    Raises:
        UnknownNameError: ``karyotype`` holds an unknown class.
    """
    if karyotype is None:
        karyotype = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "X" if rng.random() < 0.5 else "Y"]
    if appearance is None:
        appearance = Appearance.random(rng, stain)
    return [draw_chromosome(name, appearance, rng) for name in karyotype]


def write_cell(folder: Path, cell: Sequence[SyntheticChromosome], *, seed: int = 0) -> None:
    """Write the images of a cell as '01.png', '02.png', ..., shuffled to hide the classes.

    The classes are written to ``labels.csv`` (columns ``file`` and ``label``).

    Args:
        folder: Folder, which is created if it does not exist.
        cell: Chromosomes of one cell.
        seed: Seed of the shuffle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "label"])
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(cell)), start=1):
        name = f"{number:02d}.png"
        _write_image(folder / name, cell[index].image)
        writer.writerow([name, cell[index].label])
    replace_file(folder / "labels.csv", table.getvalue().encode())


def write_bioimlab_layout(folder: Path, cells: int | Sequence[int], seed: int) -> None:
    """Write a small Q-band data set in the layout of the BioImLab classification set.

    The files are ``<cell>/<cell> <class>[a|b].bmp``, with class 23 = X and 24 = Y; homologues are
    'a' and 'b', and X and Y of a male have no letter. Cells are alternately female and male.

    Args:
        folder: Folder, which is created if it does not exist.
        cells: Number of cells (numbered from 1), or their numbers.
        seed: Seed; the same seed gives the same pixels.
    """
    numbers = range(1, cells + 1) if isinstance(cells, int) else cells
    autosomes = np.repeat(AUTOSOMES, 2).tolist()
    for index, number in enumerate(numbers):
        karyotype = [*autosomes, "X", "X" if index % 2 == 0 else "Y"]
        cell = draw_cell(np.random.default_rng([seed, number]), karyotype=karyotype)
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        for place, chromosome in enumerate(cell):
            label = chromosome.label
            letter = "" if karyotype.count(label) == 1 else "ab"[karyotype[:place].count(label)]
            name = f"{number} {CLASS_INDEX[label] + 1}{letter}.bmp"
            _write_image(folder / str(number) / name, chromosome.image)


def _write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    _, data = cv2.imencode(path.suffix, image)
    replace_file(path, data.tobytes())
