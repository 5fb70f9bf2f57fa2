"""``chromozoo calibrate``: calibrate the prediction sets of a classifier.

The thresholds of the sets are computed on validation cells; size and error rate of the sets are
measured on other cells. ``--output`` writes a copy of the weights file with the thresholds.
"""

import argparse
from pathlib import Path

from chromozoo.benchmark.calibration import calibrate, table
from chromozoo.benchmark.publish import KINDS
from chromozoo.cli.options import add_device_option
from chromozoo.cli.output import write_rows
from chromozoo.data.catalogue import datasets
from chromozoo.models.weights.storage import save_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a classifier, see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--dataset",
        choices=sorted(datasets("classification")),
        help="default: the data set that the weights were trained on",
    )
    parser.add_argument("--stage", default="test", choices=("val", "test"))
    parser.add_argument("--root", help="folder of the data (default: CHROMOZOO_DATA, data/)")
    add_device_option(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for a copy of the weights file with the thresholds, and calibration.csv",
    )


def run(arguments: argparse.Namespace) -> int:
    calibration = calibrate(
        arguments.model,
        arguments.weights,
        arguments.dataset,
        arguments.stage,
        root=arguments.root,
        device=arguments.device,
    )
    folder: Path | None = arguments.output
    if folder is None:
        write_rows(KINDS["calibration"], calibration.rows, None, table)
        return 0
    file, _ = save_weights(
        calibration.model.network, calibration.entry, folder, calibration.entry.storage
    )
    write_rows(KINDS["calibration"], calibration.rows, folder / "calibration.csv", table)
    print(f"{file}: weights with thresholds; use them with --weights {file}")
    return 0
