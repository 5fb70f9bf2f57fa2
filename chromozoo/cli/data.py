"""``chromozoo data``: list, describe, verify, extract, compose and simulate data sets."""

import argparse
import sys
from pathlib import Path

from chromozoo.classes import CLASSES
from chromozoo.data.catalogue import DATASETS, dataset_info, datasets
from chromozoo.errors import ChromozooError
from chromozoo.folders import data_folders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="list the data sets that ChromoZoo reads")
    info = actions.add_parser(
        "info", help="print source, licence, layout and download of a data set"
    )
    info.add_argument("name")
    verify = actions.add_parser(
        "verify", help="read every file and count the chromosomes by class and split"
    )
    verify.add_argument("name")
    verify.add_argument("--root", help="folder of the data (default: CHROMOZOO_DATA, data/)")
    cut = actions.add_parser(
        "from-karyogram", help="cut arranged karyograms into labelled single chromosomes"
    )
    cut.add_argument("karyograms", nargs="+", type=Path, metavar="KARYOGRAM", help="an image")
    cut.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="new folder for the chromosomes"
    )
    cut.add_argument(
        "--layout",
        default="denver",
        choices=("denver",),
        help="denver: rows 1-5, 6-12, 13-18 and 19-22 X Y, homologues side by side",
    )
    cut.add_argument(
        "--overwrite", action="store_true", help="replace the folder of an earlier run"
    )
    compose = actions.add_parser(
        "compose", help="compose metaphases from chromosomes that are cut out of training images"
    )
    compose.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="new folder: COCO JSON and PNG"
    )
    compose.add_argument(
        "--count", type=int, required=True, metavar="N", help="number of metaphases"
    )
    compose.add_argument(
        "--from",
        dest="dataset",
        default="bioimlab-segmentation",
        choices=sorted(datasets("segmentation")),
        help="data set of the training images (default: %(default)s)",
    )
    compose.add_argument("--root", help="folder of the data (default: CHROMOZOO_DATA, data/)")
    compose.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    compose.add_argument(
        "--overlap",
        type=float,
        default=0.4,
        metavar="FRACTION",
        help="fraction of chromosomes that cross or touch another, 0 to 1 (default: %(default)s)",
    )
    compose.add_argument(
        "--chromosomes",
        type=int,
        default=46,
        metavar="N",
        help="chromosomes per metaphase (default: %(default)s)",
    )
    compose.add_argument(
        "--overwrite", action="store_true", help="replace the folder of an earlier run"
    )
    simulate = actions.add_parser("simulate", help="draw simulated chromosomes of known class")
    simulate.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder in which a folder is made for each cell",
    )
    simulate.add_argument(
        "--cells", type=int, default=1, help="number of cells (default: %(default)s)"
    )
    simulate.add_argument("--stain", choices=("q", "g"), default="q", help="q: Q-band; g: G-band")
    simulate.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    simulate.add_argument(
        "--karyotype",
        nargs="+",
        metavar="CLASS",
        choices=CLASSES,
        help="classes of the chromosomes (default: a normal cell, 46,XX or 46,XY)",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "simulate":
        return _simulate(arguments)
    if arguments.action == "from-karyogram":
        return _from_karyogram(arguments)
    if arguments.action == "compose":
        return _compose(arguments)
    if arguments.action == "list":
        for info in DATASETS.values():
            print(f"{info.name:<22} {info.task:<15} {info.title}: {info.size}")
        return 0
    info = dataset_info(arguments.name)
    module = info.load_module()
    if arguments.action == "info":
        print(f"{info.title}\n  {info.size}\n  source: {info.source}\n  licence: {info.licence}")
        print(f"  Dataset: {info.module}.{info.dataset}")
        print(f"  DataModule: {info.module}.{info.data_module}")
        print(module.INSTRUCTIONS.format(folder=data_folders()[0].absolute()))
        return 0
    report = module.verify(arguments.root)
    print(report.path, *report.lines, sep="\n  ")
    for fault in report.faults:
        print(f"  FAULT {fault}")
    print("  no faults" if not report.faults else f"  {len(report.faults)} faults")
    return 1 if report.faults else 0


def _from_karyogram(arguments: argparse.Namespace) -> int:
    from chromozoo.data.io.karyogram_export import LABELS, extract_files

    counts, errors = extract_files(
        arguments.karyograms, arguments.output, arguments.layout, arguments.overwrite
    )
    for path, count in counts.items():
        print(f"{path}: {count} chromosomes")
    for error in errors:
        print(f"chromozoo: error: {error}", file=sys.stderr)
    print(f"{arguments.output}: {sum(counts.values())} chromosomes, classes in {LABELS}")
    return 1 if errors else 0


def _compose(arguments: argparse.Namespace) -> int:
    for name, maximum in (("count", 1_000_000), ("chromosomes", 200)):
        if not 1 <= (number := getattr(arguments, name)) <= maximum:
            raise ChromozooError(f"--{name} {number}: give 1 to {maximum}")
    if not 0 <= arguments.overlap <= 1:
        raise ChromozooError(f"--overlap {arguments.overlap:g}: give a fraction from 0 to 1")
    if arguments.seed < 0:
        raise ChromozooError(f"--seed {arguments.seed}: give 0 or more")

    from chromozoo.data.io.coco import write_coco
    from chromozoo.synthetic.cut_and_paste import compose_metaphases

    info = dataset_info(arguments.dataset)
    module = info.load_data(root=arguments.root)
    metaphases = compose_metaphases(
        module.bank(),
        arguments.count,
        seed=arguments.seed,
        chromosomes=arguments.chromosomes,
        overlap=arguments.overlap,
    )
    count = write_coco(
        metaphases,
        arguments.output,
        f"composed by chromozoo of chromosomes of {info.name} ({info.licence})",
        arguments.overwrite,
    )
    print(f"{arguments.output}: {count} metaphases, masks in annotations.json")
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    import numpy as np

    from chromozoo.synthetic import draw_cell, write_cell

    if arguments.cells < 1:
        raise ChromozooError(f"--cells {arguments.cells}: give 1 or more")
    if arguments.seed < 0:
        raise ChromozooError(f"--seed {arguments.seed}: give 0 or more")
    rng = np.random.default_rng(arguments.seed)
    for number in range(1, arguments.cells + 1):
        folder = arguments.output / f"cell_{number:03d}"
        if folder.exists():
            raise ChromozooError(f"{folder} exists already; name another folder or remove it")
        cell = draw_cell(rng, karyotype=arguments.karyotype, stain=arguments.stain)
        write_cell(folder, cell, seed=arguments.seed)
        print(f"{folder}: {len(cell)} chromosomes, classes in labels.csv")
    return 0
