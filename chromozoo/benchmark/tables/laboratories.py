"""Tables of in-domain and cross-domain accuracy, over laboratories and stains."""

from collections.abc import Iterable, Mapping

from chromozoo.benchmark.tables.karyotyping import named
from chromozoo.benchmark.tables.markdown import percent, percent_value

# Columns of the table of classifiers, by data set.
CLASSIFICATION_SETS = {
    "bioimlab": "BioImLab, Q-band",
    "pki3": "Pki-3, G-band",
    "cil54816-crops": "CIL:54816, G-band, cut by boxes",
    "metaphase-crops": "metaphases of BioImLab and M-FISH, cut out",
}
HEAD = (
    "set",
    "segmenter",
    "classifier",
    "metaphases",
    "FKA (%)",
    "OCA (%)",
    "edits a cell",
    "flagged (%)",
    "errors flagged (%)",
)
KARYOTYPING_SETS = {"mfish": "M-FISH, DAPI", "cil54816": "CIL:54816, G-band"}


def classification_table(rows: Iterable[Mapping[str, str]]) -> str:
    """Each set of weights on the test part of each set that it was measured on.

    Weights that were measured on the official cells alone are left to the leaderboard.

    Args:
        rows: Of ``benchmarks/results/classification.csv``.
    """
    found: dict[tuple[str, str], dict[str, Mapping[str, str]]] = {}
    for row in rows:
        if row["split"].endswith("/test") and row["dataset"] in CLASSIFICATION_SETS:
            found.setdefault((row["model"], row["weights"]), {})[row["dataset"]] = row
    lines = [
        "| model | weights | " + " | ".join(CLASSIFICATION_SETS.values()) + " | polarity (%) |",
        "|---|---|" + "---|" * (len(CLASSIFICATION_SETS) + 1),
    ]
    for (model, weights), by_set in sorted(found.items()):
        if by_set.keys() <= {"bioimlab"}:
            continue
        cells = [_figures(by_set.get(name)) for name in CLASSIFICATION_SETS]
        with_polarity = [row for row in by_set.values() if row.get("polarity_accuracy")]
        polarity = percent(with_polarity[0], "polarity_accuracy") if with_polarity else "–"
        lines.append("| " + " | ".join([model, weights, *cells, polarity]) + " |")
    return "\n".join(lines)


def karyotyping_table(rows: Iterable[Mapping[str, str]]) -> str:
    """From the image to the karyotype, on the test parts of other sets than the official one.

    Args:
        rows: Of ``benchmarks/results/karyotyping.csv``.
    """
    lines = [
        f"| {' | '.join(HEAD)} |",
        "|---|---|---|---:|---|---|---:|---:|---:|",
    ]
    chosen = [
        row for row in rows if row["dataset"] in KARYOTYPING_SETS and row["split"].endswith("/test")
    ]
    for row in sorted(chosen, key=lambda row: (row["dataset"], -float(row["fka"]))):
        cells = [
            KARYOTYPING_SETS[row["dataset"]],
            named(row, "segmenter"),
            named(row, "classifier"),
            row["n_images"],
            percent(row, "fka"),
            percent(row, "oca"),
            f"{float(row['edits']):.1f}",
            percent_value(row, "review_share"),
            percent_value(row, "review_recall"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figures(row: Mapping[str, str] | None) -> str:
    if row is None:
        return "–"
    return f"{percent(row, 'accuracy')}; {percent_value(row, 'assigned_accuracy')}"
