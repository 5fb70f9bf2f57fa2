"""``chromozoo abnormal``: how well gains and losses of chromosomes are found and named."""

import argparse
from pathlib import Path

from chromozoo.benchmark.aneuploidy import COLUMNS, KEY, RESULTS, TABLES, measure, table
from chromozoo.benchmark.publishing import destination
from chromozoo.benchmark.results_file import ResultsFile, as_text
from chromozoo.benchmark.tables.classification import update_readme
from chromozoo.data.catalogue import datasets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a classifier, see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--dataset", default="pki3", choices=sorted(datasets("classification")), help="%(default)s"
    )
    parser.add_argument("--stage", default="test", choices=("train", "val", "test"))
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--results",
        type=Path,
        help="CSV of the rows (default: that of the repository, for its own weights)",
    )


def run(arguments: argparse.Namespace) -> int:
    rows = measure(
        arguments.model,
        arguments.weights,
        arguments.dataset,
        arguments.stage,
        root=arguments.root,
        device=arguments.device,
    )
    to = destination(
        arguments.results,
        RESULTS,
        [(row["model"], row["weights"], row["weights_sha256"]) for row in rows],
    )
    if to.path is None:
        print(table([{column: as_text(row.get(column)) for column in COLUMNS} for row in rows]))
    else:
        file = ResultsFile(to.path, COLUMNS, KEY, "abnormal")
        file.add(rows)
        print(table(file.read()))
        if to.published:
            update_readme(TABLES, "aneuploidy", table(file.read()))
    print(to.say())
    return 0
