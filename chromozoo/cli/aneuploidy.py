"""``chromozoo aneuploidy``: evaluate the detection of gained and lost chromosomes."""

import argparse

from chromozoo.benchmark.aneuploidy import measure, table
from chromozoo.benchmark.publish import KINDS
from chromozoo.cli.options import add_device_option
from chromozoo.cli.output import add_output_option, check_output, write_rows
from chromozoo.data.catalogue import datasets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a classifier, see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--dataset",
        default="pki3",
        choices=sorted(datasets("classification")),
        help="data set (default: %(default)s)",
    )
    parser.add_argument("--stage", default="test", choices=("train", "val", "test"))
    parser.add_argument("--root", help="folder of the data (default: CHROMOZOO_DATA, data/)")
    add_device_option(parser)
    add_output_option(parser)


def run(arguments: argparse.Namespace) -> int:
    check_output(arguments.output)
    rows = measure(
        arguments.model,
        arguments.weights,
        arguments.dataset,
        arguments.stage,
        root=arguments.root,
        device=arguments.device,
    )
    write_rows(KINDS["aneuploidy"], rows, arguments.output, table)
    return 0
