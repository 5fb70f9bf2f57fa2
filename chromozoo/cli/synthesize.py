"""``chromozoo synthesize``: simulated chromosomes of known class, for trying things out."""

import argparse
from pathlib import Path

from chromozoo.classes import CLASSES
from chromozoo.errors import ChromozooError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where the cells are written, one folder each")
    parser.add_argument("--cells", type=int, default=1, help="number of cells (default 1)")
    parser.add_argument("--stain", choices=("q", "g"), default="q", help="Q-band or G-band")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--karyotype",
        nargs="+",
        metavar="CLASS",
        choices=CLASSES,
        help="classes of the chromosomes (default: a normal cell, 46,XX or 46,XY)",
    )


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    from chromozoo.synthetic import draw_cell, write_cell

    if arguments.cells < 1:
        raise ChromozooError(f"--cells {arguments.cells}: ask for at least one cell")
    if arguments.seed < 0:
        raise ChromozooError(f"--seed {arguments.seed}: give 0 or more")
    rng = np.random.default_rng(arguments.seed)
    for number in range(1, arguments.cells + 1):
        folder = arguments.folder / f"cell_{number:03d}"
        if folder.exists():
            raise ChromozooError(f"{folder} exists already; choose another folder or remove it")
        cell = draw_cell(rng, karyotype=arguments.karyotype, stain=arguments.stain)
        write_cell(folder, cell, seed=arguments.seed)
        print(f"{folder}: {len(cell)} chromosomes, classes in labels.csv")
    return 0
