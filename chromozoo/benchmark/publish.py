"""Publishing of result rows: CSV files, weights entries, model cards and tables of the repository.

Rows are published only if they were measured on packaged weights; everything else that shows a
figure is generated from them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chromozoo.benchmark import ablation, aneuploidy, calibration, matching
from chromozoo.benchmark.cards import card_path, write_card
from chromozoo.benchmark.provenance import is_packaged
from chromozoo.benchmark.repository import LEADERBOARD, RESULTS, ROOT
from chromozoo.benchmark.results_file import ResultsError, ResultsFile
from chromozoo.benchmark.tables import classification, karyotyping, laboratories, segmentation
from chromozoo.benchmark.tables.markdown import replace_table
from chromozoo.errors import ChromozooError
from chromozoo.metrics import classification as classification_metrics
from chromozoo.metrics import segmentation as segmentation_metrics
from chromozoo.models.weights.index import weights_entries, write_entry

# The leaderboards show the official test cells and images; other rows stand in the CSV files alone.
CLASSIFICATION_SPLIT = "bioimlab_v1/test"
FOLDS_SPLIT = "bioimlab_v1/folds"
SEGMENTATION_SPLIT = "bioimlab_segmentation_v1/test"
WEIGHTS_COLUMNS = (("model", "weights", "weights_sha256"),)


@dataclass(frozen=True)
class ResultKind:
    """One kind of result rows.

    Attributes:
        name: Stem of its CSV file in ``benchmarks/results``.
        columns: All columns of a row.
        key: Columns that identify what was measured.
        tables: Markdown tables that show its rows, by the name of their markers.
        weights: Columns of model, tag and sha256, for each of the weights that a row measures.
        metrics: Metrics that go into the weights entry, if any.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    tables: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    weights: tuple[tuple[str, str, str], ...] = WEIGHTS_COLUMNS
    metrics: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """CSV file of the repository."""
        return RESULTS / f"{self.name}.csv"


def classification_leaderboard() -> str:
    """Return the table of the official BioImLab test cells."""
    rows = classification.read_results(RESULTS / "classification.csv")
    published = classification.read_results(RESULTS / "published.csv")
    return classification.leaderboard_markdown([*rows, *published], split=CLASSIFICATION_SPLIT)


def folds_table() -> str:
    """Return the table of the cross-validation on BioImLab."""
    rows = classification.read_results(RESULTS / "classification.csv")
    return classification.leaderboard_markdown(rows, split=FOLDS_SPLIT)


def classifier_laboratories() -> str:
    """Return the table of classifiers on data sets of several laboratories."""
    return laboratories.classification_table(
        classification.read_results(RESULTS / "classification.csv")
    )


def segmentation_leaderboard() -> str:
    """Return the table of the 16 official BioImLab test images."""
    rows = segmentation.read_results(RESULTS / "segmentation.csv")
    published = segmentation.read_results(RESULTS / "published_segmentation.csv")
    return segmentation.leaderboard_markdown([*rows, *published], split=SEGMENTATION_SPLIT)


def karyotyping_leaderboard() -> str:
    """Return the table of karyotyping on the official BioImLab test images."""
    rows = karyotyping.read_results(RESULTS / "karyotyping.csv")
    published = karyotyping.read_results(RESULTS / "published_karyotyping.csv")
    return karyotyping.leaderboard_markdown([*rows, *published], split=SEGMENTATION_SPLIT)


def karyotyping_laboratories() -> str:
    """Return the table of karyotyping on the data sets of other laboratories."""
    return laboratories.karyotyping_table(karyotyping.read_results(RESULTS / "karyotyping.csv"))


def _table_of(module: Any, name: str) -> Callable[[], str]:
    def table() -> str:
        rows = ResultsFile(RESULTS / f"{name}.csv", module.COLUMNS, module.KEY, name).read()
        text: str = module.table(rows)
        return text

    return table


KINDS = {
    kind.name: kind
    for kind in (
        ResultKind(
            "classification",
            classification.RESULT_COLUMNS,
            classification.KEY_COLUMNS,
            {
                "bioimlab": classification_leaderboard,
                "bioimlab-folds": folds_table,
                "laboratories": classifier_laboratories,
            },
            metrics=classification_metrics.METRICS,
        ),
        ResultKind(
            "segmentation",
            segmentation.RESULT_COLUMNS,
            segmentation.KEY_COLUMNS,
            {"bioimlab-segmentation": segmentation_leaderboard},
            metrics=segmentation_metrics.METRICS,
        ),
        ResultKind(
            "karyotyping",
            karyotyping.RESULT_COLUMNS,
            karyotyping.KEY_COLUMNS,
            {
                "karyotyping": karyotyping_leaderboard,
                "karyotyping-laboratories": karyotyping_laboratories,
            },
            weights=(
                ("segmenter", "segmenter_weights", "segmenter_sha256"),
                ("classifier", "classifier_weights", "classifier_sha256"),
            ),
        ),
        ResultKind(
            "aneuploidy",
            aneuploidy.COLUMNS,
            aneuploidy.KEY,
            {"aneuploidy": _table_of(aneuploidy, "aneuploidy")},
        ),
        ResultKind(
            "calibration",
            calibration.COLUMNS,
            calibration.KEY,
            {"calibration": _table_of(calibration, "calibration")},
        ),
        ResultKind("matching", matching.COLUMNS, matching.KEY),
        ResultKind(
            "ablations",
            ablation.COLUMNS,
            ablation.KEY,
            {"ablations": lambda: ablation.tables(ablation.read_rows(RESULTS / "ablations.csv"))},
            weights=(),
        ),
    )
}


def kind_of_task(task: str) -> ResultKind:
    """Return the kind of rows of a model or data set by its task."""
    return KINDS["classification" if task == "classification" else "segmentation"]


def kind_of_file(path: Path) -> tuple[ResultKind, list[dict[str, str]]]:
    """Read a CSV file of result rows and tell its kind by its columns.

    Raises:
        ResultsError: The file is missing, or its columns are those of no kind.
    """
    if not path.is_file():
        raise ResultsError(f"{path}: no such file; measure with --output {path} first")
    for kind in KINDS.values():
        try:
            rows = ResultsFile(path, kind.columns, kind.key, kind.name).read()
        except ResultsError:
            continue
        if all(any(row[column] for row in rows) for column in kind.key[:1]):
            return kind, rows
    raise ResultsError(
        f"{path}: its columns are those of no kind of results ({', '.join(KINDS)}); give a file "
        "that --output of `benchmark`, `aneuploidy`, `calibrate` or `feature-matching` wrote"
    )


def require_packaged(kind: ResultKind, rows: Iterable[Mapping[str, Any]]) -> None:
    """Check that rows were measured on the packaged weights.

    Raises:
        ChromozooError: A row was measured on other weights; the message names them.
    """
    for row in rows:
        for model, tag, sha256 in kind.weights:
            if not is_packaged(row[model], row[tag], row[sha256]):
                raise ChromozooError(
                    f"{row[model]}, weights {row[tag]} ({row[sha256]}): are not packaged weights "
                    "of this repository, and only their results are published; package them with "
                    "`chromozoo zoo package` first"
                )


def planned_changes(kind: ResultKind, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the files that :func:`publish_rows` would change, with what changes in each."""
    changes = [f"{kind.path}: {len(rows)} rows added or replaced"]
    if kind.metrics:
        for model, tag in sorted({(row["model"], row["weights"]) for row in rows}):
            if tag in weights_entries(model):
                changes.append(f"entry {model}_{tag}.json: metrics")
                changes.append(f"{card_path(model)}: generated anew")
    if kind.tables:
        changes.append(f"{LEADERBOARD}: tables {', '.join(kind.tables)}")
    return changes


def publish_rows(
    kind: ResultKind, rows: Sequence[Mapping[str, Any]], *, dry_run: bool = False
) -> list[str]:
    """Add rows to the repository's results, and bring entries, cards and tables up to date.

    Args:
        kind: Kind of the rows.
        rows: Values by column.
        dry_run: Only list the changes.

    Returns:
        The changes in words, as made or as they would be.

    Raises:
        ChromozooError: A row was not measured on packaged weights.
    """
    require_packaged(kind, rows)
    changes = planned_changes(kind, rows)
    if dry_run:
        return changes
    add_rows(kind, kind.path, rows)
    if kind.metrics:
        for row in rows:
            _record_metrics(kind, row)
        for model in sorted({str(row["model"]) for row in rows}):
            write_card(model)
    update_tables([kind])
    return changes


def add_rows(kind: ResultKind, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows of a kind to a CSV file; rows of classification and segmentation are checked."""
    checked = {
        "classification": classification.append_row,
        "segmentation": segmentation.append_row,
        "karyotyping": karyotyping.append_row,
    }.get(kind.name)
    if checked is None:
        ResultsFile(path, kind.columns, kind.key, kind.name).add(rows)
        return
    for row in rows:
        checked(path, row)


def update_tables(kinds: Iterable[ResultKind] = tuple(KINDS.values())) -> None:
    """Generate the tables of the leaderboard file anew from the CSV files."""
    for kind in kinds:
        for name, table in kind.tables.items():
            replace_table(LEADERBOARD, name, table())


def row_metrics(kind: ResultKind, row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a row as a weights entry holds them: no missing ones, no NaN."""
    values = {name: row.get(name) for name in kind.metrics}
    numbers = {name: float(value) for name, value in values.items() if value not in (None, "")}
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def result_row(kind: ResultKind, sha256: str) -> dict[str, str]:
    """Return the reference from a weights entry to the rows that were measured on the weights."""
    return {"file": kind.path.relative_to(ROOT).as_posix(), "weights_sha256": sha256[:12]}


def _record_metrics(kind: ResultKind, row: Mapping[str, Any]) -> None:
    entry = weights_entries(row["model"]).get(row["weights"])
    if entry is None:
        return
    metrics = {**entry.metrics, row["split"]: row_metrics(kind, row)}
    changed = dataclasses.replace(entry, metrics=metrics, result_row=result_row(kind, entry.sha256))
    write_entry(changed)
