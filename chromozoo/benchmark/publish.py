"""TODO docstring."""

import dataclasses
import math
from typing import Any

from chromozoo.benchmark.repository import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "classification.csv"


PUBLISHED = RESULTS.with_name("published.csv")


SEGMENTATION_RESULTS = RESULTS.with_name("segmentation.csv")


SEGMENTATION_PUBLISHED = RESULTS.with_name("published_segmentation.csv")


# The README shows the official test cells; validation rows stand in the CSV alone.
LEADERBOARD_SPLIT = "bioimlab_v1/test"


FOLDS_SPLIT = "bioimlab_v1/folds"


SEGMENTATION_SPLIT = "bioimlab_segmentation_v1/test"


README = ROOT / "README.md"


def publish(row: dict[str, Any]) -> None:
    """Carries a row of the repository's CSV into the weights entry, the card and the README."""
    from chromozoo.benchmark.cards import write_card
    from chromozoo.benchmark.tables import classification as leaderboard
    from chromozoo.metrics import classification as classification_metrics
    from chromozoo.metrics import segmentation as segmentation_metrics
    from chromozoo.models.registry import model_info
    from chromozoo.models.weights.index import weights_entries, write_entry

    is_classifier = model_info(row["model"]).task == "classification"
    metrics = classification_metrics.METRICS if is_classifier else segmentation_metrics.METRICS
    results = RESULTS if is_classifier else SEGMENTATION_RESULTS
    entry = weights_entries(row["model"]).get(row["weights"])
    if entry is not None and entry.sha256.startswith(row["weights_sha256"]):
        # JSON has no NaN.
        figures = {
            name: row[name]
            for name in metrics
            if row.get(name) is not None and not math.isnan(row[name])
        }
        result_row = {
            "file": results.relative_to(ROOT).as_posix(),
            "weights_sha256": row["weights_sha256"],
        }
        entry = dataclasses.replace(
            entry, metrics={**entry.metrics, row["split"]: figures}, result_row=result_row
        )
        write_entry(entry)
        print(f"card: {write_card(row['model'])}")
    if row["split"] == LEADERBOARD_SPLIT:
        update_readme()
    elif row["split"] == FOLDS_SPLIT:
        leaderboard.update_readme(README, "bioimlab-folds", folds_table())
    elif row["split"] == SEGMENTATION_SPLIT:
        update_segmentation_readme()
    if is_classifier:
        leaderboard.update_readme(README, "laboratories", laboratories_table())


def update_readme() -> None:
    """Makes the README's leaderboard anew from the CSVs."""
    from chromozoo.benchmark.tables import classification as leaderboard

    table = leaderboard_table()
    leaderboard.update_readme(README, "bioimlab", table)
    print(f"leaderboard: {README}")


def leaderboard_table() -> str:
    """The README's table of the official BioImLab test cells."""
    from chromozoo.benchmark.tables.classification import leaderboard_markdown, read_results

    return leaderboard_markdown(
        [*read_results(RESULTS), *read_results(PUBLISHED)], split=LEADERBOARD_SPLIT
    )


def folds_table() -> str:
    """The README's table of the cross-validation on BioImLab."""
    from chromozoo.benchmark.tables import classification as leaderboard

    return leaderboard.leaderboard_markdown(leaderboard.read_results(RESULTS), split=FOLDS_SPLIT)


def laboratories_table() -> str:
    """The README's table of classifiers on sets of several laboratories."""
    from chromozoo.benchmark.tables.classification import read_results
    from chromozoo.benchmark.tables.laboratories import classification_table

    return classification_table(read_results(RESULTS))


def update_segmentation_readme() -> None:
    """Makes the README's leaderboard of segmenters anew from the CSVs."""
    from chromozoo.benchmark.tables.classification import update_readme

    update_readme(README, "bioimlab-segmentation", segmentation_table())
    print(f"leaderboard: {README}")


def segmentation_table() -> str:
    """The README's table of the 16 official BioImLab test images."""
    from chromozoo.benchmark.tables.segmentation import leaderboard_markdown, read_results

    return leaderboard_markdown(
        [*read_results(SEGMENTATION_RESULTS), *read_results(SEGMENTATION_PUBLISHED)],
        split=SEGMENTATION_SPLIT,
    )
