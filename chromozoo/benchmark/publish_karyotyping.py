"""TODO docstring."""

from typing import Any

from chromozoo.benchmark import publish as publish_benchmark
from chromozoo.benchmark.repository import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "karyotyping.csv"


PUBLISHED = RESULTS.with_name("published_karyotyping.csv")


def table() -> str:
    """The README's table of the official BioImLab images."""
    from chromozoo.benchmark.tables.karyotyping import leaderboard_markdown, read_results

    return leaderboard_markdown(
        [*read_results(RESULTS), *read_results(PUBLISHED)],
        split=publish_benchmark.SEGMENTATION_SPLIT,
    )


def laboratories_table() -> str:
    """The README's table of other sets than the official one."""
    from chromozoo.benchmark.tables.karyotyping import read_results
    from chromozoo.benchmark.tables.laboratories import karyotyping_table

    return karyotyping_table(read_results(RESULTS))


def publish(row: dict[str, Any]) -> None:
    """Carries a row of the repository's CSV into the README."""
    from chromozoo.benchmark.tables.classification import update_readme

    if row["split"] == publish_benchmark.SEGMENTATION_SPLIT:
        update_readme(publish_benchmark.README, "karyotyping", table())
        print(f"leaderboard: {publish_benchmark.README}")
    update_readme(publish_benchmark.README, "karyotyping-laboratories", laboratories_table())
