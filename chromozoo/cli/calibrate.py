"""``chromozoo calibrate``: calibrate the prediction sets of a classifier.

The thresholds of the sets are found on validation cells; the sets, and what they leave to a human,
are measured on other cells. ``--output`` writes a copy of the weights file that holds the
thresholds.
"""

import argparse
from pathlib import Path

from chromozoo.benchmark.calibration import calibrate, table
from chromozoo.benchmark.publish import KINDS
from chromozoo.cli.output import write_rows
from chromozoo.data.catalogue import datasets
from chromozoo.models.weights.storage import save_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a classifier, see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--dataset",
        choices=sorted(datasets("classification")),
        help="default: what the weights were trained on",
    )
    parser.add_argument("--stage", default="test", choices=("val", "test"))
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for a copy of the weights file with the thresholds, and calibration.csv",
    )


def run(arguments: argparse.Namespace) -> int:
    found = calibrate(
        arguments.model,
        arguments.weights,
        arguments.dataset,
        arguments.stage,
        root=arguments.root,
        device=arguments.device,
    )
    folder: Path | None = arguments.output
    if folder is None:
        write_rows(KINDS["calibration"], found.rows, None, table)
        return 0
    file, _ = save_weights(found.model.network, found.entry, folder, found.entry.storage)
    write_rows(KINDS["calibration"], found.rows, folder / "calibration.csv", table)
    print(f"{file}: the weights with their thresholds; use them with --weights {file}")
    return 0
