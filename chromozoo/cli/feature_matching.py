"""``chromozoo feature-matching``: classification by label feature vectors.

Compares the modes of Wang et al. 2020 (EResNet) for any classifier on the same cells:

* ``softmax``: the most probable class (the paper's DCNN);
* ``lfv``: the nearest label feature vector;
* ``lfv+lrd``: the same after label redistribution in each cell;
* ``softmax+assignment``, ``lfv+assignment`` (ours): the exact assignment of each cell;
* ``lfv-stored``: as ``lfv``, with the vectors that are stored in the weights, if any.

Label feature vectors are means over the training cells without augmentation; the paper uses
validation images. Beta (the head of the label redistribution) and the temperature that makes
distances comparable with prior costs are selected on the validation cells; the paper selects beta
on its test cells. Beta is searched from 1 to 45 of 46, and of equally good values the one nearest
to the paper's 40 is used. Features are averaged over the four mirror images, as probabilities are.
The paper's fifth mode, matching of two images of a cell, is left out, because the classification
set has one image of each cell.
"""

import argparse

from chromozoo.benchmark.matching import BETAS, CLASSIFICATION_SETS, measure, table
from chromozoo.benchmark.publish import KINDS
from chromozoo.cli.options import add_device_option
from chromozoo.cli.output import add_output_option, check_output, write_rows
from chromozoo.karyotype.matching import METRICS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag, weights file or checkpoint")
    parser.add_argument("--dataset", default="bioimlab", choices=CLASSIFICATION_SETS)
    parser.add_argument("--stage", default="val", choices=("val", "test"))
    parser.add_argument(
        "--metric", nargs="+", default=list(METRICS), choices=METRICS, help="default: all"
    )
    parser.add_argument(
        "--beta",
        type=_beta,
        default="auto",
        help="head of the label redistribution, of 46; auto: selected on the validation cells",
    )
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
        metrics=arguments.metric,
        beta=arguments.beta,
        root=arguments.root,
        device=arguments.device,
    )
    write_rows(KINDS["matching"], rows, arguments.output, table)
    if arguments.stage == "val":
        print("beta and temperature were selected on these cells: evaluate them with --stage test")
    return 0


def _beta(word: str) -> int | None:
    if word == "auto":
        return None
    if not word.isdecimal() or int(word) not in BETAS:
        raise argparse.ArgumentTypeError(
            f"{word!r}: give auto, or a whole number from {BETAS[0]} to {BETAS[-1]}"
        )
    return int(word)
