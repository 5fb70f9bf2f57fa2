"""``chromozoo data list|info|verify|from-karyogram``."""

import argparse
import sys
from pathlib import Path

from chromozoo.data.archive import data_folders
from chromozoo.data.catalogue import DATASETS, dataset_info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="all data sets that ChromoZoo reads")
    info = actions.add_parser("info", help="source, licence, layout and how to get one")
    info.add_argument("name")
    verify = actions.add_parser("verify", help="read every file; counts by class and split")
    verify.add_argument("name")
    verify.add_argument("--root", help="folder of the data (default: CHROMOZOO_DATA, data/)")
    cut = actions.add_parser(
        "from-karyogram", help="cut arranged karyograms into labelled single chromosomes"
    )
    cut.add_argument("karyograms", nargs="+", type=Path, metavar="KARYOGRAM", help="a picture")
    cut.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="new folder of the chromosomes"
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


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "from-karyogram":
        return _from_karyogram(arguments)
    if arguments.action == "list":
        for info in DATASETS.values():
            print(f"{info.name:<12} {info.task:<15} {info.title}: {info.size}")
        return 0
    info = dataset_info(arguments.name)
    module = info.load_module()
    if arguments.action == "info":
        print(f"{info.title}\n  {info.size}\n  source: {info.source}\n  licence: {info.licence}")
        print(f"  DataModule: {info.module}.{info.data_module}")
        print(module.INSTRUCTIONS.format(folder=data_folders()[0].absolute()))
        return 0
    report = module.verify(arguments.root)
    print(report.path, *report.lines, sep="\n  ")
    for fault in report.faults:
        print(f"  FAULT {fault}")
    print("  whole" if not report.faults else f"  {len(report.faults)} faults")
    return 1 if report.faults else 0


def _from_karyogram(arguments: argparse.Namespace) -> int:
    from chromozoo.data.karyogram_extract import LABELS, extract_files

    counts, errors = extract_files(
        arguments.karyograms, arguments.output, arguments.layout, arguments.overwrite
    )
    for path, count in counts.items():
        print(f"{path}: {count} chromosomes")
    for error in errors:
        print(f"chromozoo: error: {error}", file=sys.stderr)
    print(f"{arguments.output}: {sum(counts.values())} chromosomes, classes in {LABELS}")
    return 1 if errors else 0
