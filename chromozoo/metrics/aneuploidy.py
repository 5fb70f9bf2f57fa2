"""Numerical abnormality: are gains and losses of whole chromosomes found, and named rightly?

ConformalMode on the cells as they are, normal and not, and on cells that are made abnormal: a normal one
loses a chromosome, or gains one of another cell, or is left with 30. What is simulated is a gain or
loss that is constitutional; a chromosome that the segmenter missed looks the same.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chromozoo.classes import CLASSES
from chromozoo.karyotype.assignment import assign_cell
from chromozoo.karyotype.iscn import iscn_string
from chromozoo.metrics.bootstrap import Interval, bootstrap_counts, percentile_interval

NORMAL = ("46,XX", "46,XY")
# Of every normal cell, so many with a chromosome less, as many with one more, and as many of which
# so many chromosomes are left.
DRAWS = 10
LEFT = 30
KINDS = ("normal", "abnormal", "loss", "gain", "incomplete")


@dataclass(frozen=True)
class AneuploidyReport:
    """What :func:`evaluate_aneuploidy` found of the cells of one kind.

    Attributes:
        kind: ``"normal"`` and ``"abnormal"``: the cells as they are; ``"loss"``, ``"gain"`` and
            ``"incomplete"``: normal ones of which another was made.
        cells: Number of cells, real or made.
        detected: Share whose counted karyotype is not that of a normal cell. Of normal cells, 1 less
            this is the specificity; of the others this is the sensitivity.
        exact_karyotype: Share whose karyotype is counted as it is, so the gained or lost chromosome is named.
        accuracy: Share of the chromosomes that are named rightly.
    """

    kind: str
    cells: int
    detected: Interval
    exact_karyotype: Interval
    accuracy: Interval


def evaluate_aneuploidy(
    names_of: Callable[[NDArray[np.int64]], ArrayLike],
    labels: ArrayLike,
    cells: ArrayLike,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[AneuploidyReport]:
    """Assigns each cell, real and made, and compares its counted karyotype with the true one.

    Args:
        names_of: Gives the natural-log probabilities ``(K, 24)`` of the cell that K given rows make
            (:func:`chromozoo.benchmark.inference.cell_log_probabilities`).
        labels: ``(N,)`` true class indices.
        cells: ``(N,)`` ids of the cells.
        n_bootstrap: Resamples of the real cells behind each interval.
        seed: Of what is made, and of the resampling.

    Returns:
        A report for each kind of which there are cells, in the order of :data:`KINDS`.
    """
    true, ids = np.asarray(labels, np.int64), np.asarray(cells)
    # Of each kind: for each real cell the sums over what was made of it.
    found: dict[str, list[NDArray[np.float64]]] = {kind: [] for kind in KINDS}
    for kind, rows_of_one_cell in _made(true, ids, np.random.default_rng(seed)):
        sums = np.zeros(5)
        for rows in rows_of_one_cell:
            cell = assign_cell(np.asarray(names_of(rows), np.float64))
            sums += (
                1,
                cell.iscn not in NORMAL,
                cell.iscn == _karyotype(true[rows]),
                (cell.classes == true[rows]).sum(),
                len(rows),
            )
        found[kind].append(sums)
    reports = []
    for kind in KINDS:
        if found[kind]:
            table = np.stack(found[kind])
            sums = bootstrap_counts(len(table), n_bootstrap, seed) @ table
            detected, exact_karyotype = (
                percentile_interval(sums[:, column] / sums[:, 0], len(table)) for column in (1, 2)
            )
            accuracy = percentile_interval(sums[:, 3] / sums[:, 4], len(table))
            reports.append(
                AneuploidyReport(kind, int(table[:, 0].sum()), detected, exact_karyotype, accuracy)
            )
    return reports


def _made(
    labels: NDArray[np.int64], cells: NDArray[np.generic], rng: np.random.Generator
) -> Iterator[tuple[str, list[NDArray[np.int64]]]]:
    """Kind, and the rows of each cell made of one real cell; the real ones first."""
    by_cell = {cell: np.flatnonzero(cells == cell) for cell in np.unique(cells)}
    normal = []
    for rows in by_cell.values():
        is_normal = _karyotype(labels[rows]) in NORMAL
        yield ("normal" if is_normal else "abnormal"), [rows]
        if is_normal:
            normal.append(rows)
    if len(normal) < 2:
        return
    pool = np.concatenate(normal)
    for rows in normal:
        losses = []
        for label in _some(labels[rows], rng):
            lost = rng.choice(rows[labels[rows] == label])
            losses.append(rows[rows != lost])
        yield "loss", losses
        others = pool[~np.isin(pool, rows)]
        yield (
            "gain",
            [
                np.append(rows, rng.choice(others[labels[others] == label]))
                for label in _some(labels[others], rng)
            ],
        )
        yield "incomplete", [rng.permutation(rows)[:LEFT] for _ in range(DRAWS)]


def _some(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """DRAWS of the classes that there are, each as likely as another."""
    return rng.choice(np.unique(labels), DRAWS)


def _karyotype(labels: NDArray[np.int64]) -> str:
    return iscn_string(Counter(CLASSES[label] for label in labels))
