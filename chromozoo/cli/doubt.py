"""``chromozoo doubt``: how far a classifier knows what it does not know.

Finds the thresholds of its conformal sets on validation cells, stores them with the weights, and
measures the sets, and what is left to a human, on other cells. Those of packaged weights are stored
in their entry, those of a file of one's own in a copy of it (``--output``).
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from chromozoo.benchmark.calibration import COLUMNS, KEY, RESULTS, TABLES, measure, table
from chromozoo.benchmark.publishing import destination
from chromozoo.benchmark.results_file import ResultsFile, as_text
from chromozoo.benchmark.tables.classification import update_readme
from chromozoo.data.catalogue import datasets

if TYPE_CHECKING:
    pass


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
        help="folder for a copy of the weights file with the thresholds in it",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="CSV of the rows (default: that of the repository, for its own weights)",
    )


def run(arguments: argparse.Namespace) -> int:
    asked: Path | None = arguments.results
    # A CSV of one's own is for a look, and an installed package has none: both change nothing.
    repository = RESULTS.parent.is_dir() and (asked or RESULTS).resolve() == RESULTS.resolve()
    rows = measure(
        arguments.model,
        arguments.weights,
        arguments.dataset,
        arguments.stage,
        root=arguments.root,
        device=arguments.device,
        store=repository,
        output=arguments.output,
    )
    to = destination(
        asked,
        RESULTS,
        [(row["model"], row["weights"], row["weights_sha256"]) for row in rows],
    )
    if to.path is None:
        print(table([{column: as_text(row.get(column)) for column in COLUMNS} for row in rows]))
    else:
        file = ResultsFile(to.path, COLUMNS, KEY, "calibration")
        file.add(rows)
        print(table(file.read()))
        if to.published:
            update_readme(TABLES, "calibration", table(file.read()))
    print(to.say())
    return 0
