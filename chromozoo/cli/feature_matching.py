"""``chromozoo feature-matching``: classify by label feature vectors, beside softmax.

The modes of Wang et al. 2020 (EResNet), for any classifier, on the same cells:

* ``softmax``: the most probable class (the paper's DCNN);
* ``lfv``: the nearest label feature vector;
* ``lfv+lrd``: the same after label redistribution in each cell;
* ``softmax+assignment``, ``lfv+assignment`` (ours): the exact assignment of each cell;
* ``lfv-stored``: as ``lfv``, with the vectors that the weights carry, where they do.

Label feature vectors are means over the TRAINING cells, not augmented; the paper took validation
images, which stay free for choosing here. Chosen on the validation cells are beta, the head of
the label redistribution, of all that the paper tried (1 to 45 of 46; of equally good ones the
nearest to its 40), and the temperature that makes distances comparable with prior costs. The paper
chose beta on its test cells. Features are averaged over the four mirror images, as probabilities
are. The paper's fifth way, matching two images of a cell, is left out: the classification set has
one image of each cell.
"""

import argparse

from chromozoo.benchmark.matching import BETAS, CLASSIFICATION_SETS, measure, table
from chromozoo.benchmark.publish import KINDS
from chromozoo.cli.output import add_output, check_output, write_rows
from chromozoo.karyotype.matching import METRICS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag, weights file or checkpoint")
    parser.add_argument("--dataset", default="bioimlab", choices=CLASSIFICATION_SETS)
    parser.add_argument("--stage", default="val", choices=("val", "test"))
    parser.add_argument("--metric", nargs="+", default=list(METRICS), choices=METRICS)
    parser.add_argument(
        "--beta",
        type=_beta,
        default="auto",
        help="head of the label redistribution, of 46; auto: the best on the validation cells",
    )
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    add_output(parser)


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
        print("beta and temperature were chosen on these cells: only test cells measure them")
    return 0


def _beta(word: str) -> int | None:
    if word == "auto":
        return None
    if not word.isdecimal() or int(word) not in BETAS:
        raise argparse.ArgumentTypeError(
            f"{word!r}: give auto, or a whole number from {BETAS[0]} to {BETAS[-1]}"
        )
    return int(word)
