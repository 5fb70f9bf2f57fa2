"""Aneuploidy metrics: detection of gains and losses of whole chromosomes.

Evaluates the real cells, normal and abnormal ones, and cells simulated from the normal ones: a cell
loses a chromosome, gains one from another cell, or keeps only 30. The simulation stands for
constitutional gains and losses; a chromosome that the segmenter missed looks the same.
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
from chromozoo.structures.arrays import FloatArray, IntArray

NORMAL = ("46,XX", "46,XY")
# Number of cells of each simulated kind for each normal cell, and chromosomes of an incomplete one.
N_SIMULATED = 10
N_INCOMPLETE = 30
KINDS = ("normal", "abnormal", "loss", "gain", "incomplete")


@dataclass(frozen=True)
class AneuploidyReport:
    """The result of :func:`evaluate_aneuploidy` for the cells of one kind.

    Attributes:
        kind: ``"normal"`` or ``"abnormal"`` for real cells; ``"loss"``, ``"gain"`` or
            ``"incomplete"`` for simulated ones.
        cells: Number of cells.
        detected: Share of cells whose predicted karyotype is not normal: the sensitivity; for
            normal cells 1 - specificity.
        exact_karyotype: Share of cells whose predicted karyotype equals the true one.
        accuracy: Share of correctly classified chromosomes.
    """

    kind: str
    cells: int
    detected: Interval
    exact_karyotype: Interval
    accuracy: Interval


def evaluate_aneuploidy(
    predict_cell: Callable[[IntArray], ArrayLike],
    labels: ArrayLike,
    cells: ArrayLike,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[AneuploidyReport]:
    """Evaluate the predicted karyotypes of real and simulated cells.

    Args:
        predict_cell: Returns natural log-probabilities ``(K, 24)`` of the cell that consists of
            the given K rows (:func:`chromozoo.benchmark.inference.cell_log_probabilities`).
        labels: ``(N,)`` true class indices.
        cells: ``(N,)`` cell ids.
        n_bootstrap: Number of resamples of the real cells for each interval.
        seed: Seed of the simulation and the resampling.

    Returns:
        A report for each kind that occurs, in the order of :data:`KINDS`.
    """
    true, ids = np.asarray(labels, np.int64), np.asarray(cells)
    # For each kind and real cell: the sums over the cells simulated from it.
    sums_of_kind: dict[str, list[FloatArray]] = {kind: [] for kind in KINDS}
    for kind, rows_of_cells in _simulate_cells(true, ids, np.random.default_rng(seed)):
        sums = np.zeros(5)
        for rows in rows_of_cells:
            cell = assign_cell(np.asarray(predict_cell(rows), np.float64))
            sums += (
                1,
                cell.iscn not in NORMAL,
                cell.iscn == _iscn(true[rows]),
                (cell.classes == true[rows]).sum(),
                len(rows),
            )
        sums_of_kind[kind].append(sums)
    reports = []
    for kind in KINDS:
        if sums_of_kind[kind]:
            table = np.stack(sums_of_kind[kind])
            samples = bootstrap_counts(len(table), n_bootstrap, seed) @ table
            detected, exact_karyotype = (
                percentile_interval(samples[:, column] / samples[:, 0], len(table))
                for column in (1, 2)
            )
            accuracy = percentile_interval(samples[:, 3] / samples[:, 4], len(table))
            reports.append(
                AneuploidyReport(kind, int(table[:, 0].sum()), detected, exact_karyotype, accuracy)
            )
    return reports


def _simulate_cells(
    labels: IntArray, cells: NDArray[np.generic], rng: np.random.Generator
) -> Iterator[tuple[str, list[IntArray]]]:
    """Yield each real cell, then for each normal cell those simulated from it.

    Yields:
        The kind, and the rows of each cell.
    """
    normal = []
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        is_normal = _iscn(labels[rows]) in NORMAL
        yield ("normal" if is_normal else "abnormal"), [rows]
        if is_normal:
            normal.append(rows)
    if len(normal) < 2:
        return
    pool = np.concatenate(normal)
    for rows in normal:
        losses = []
        for label in _draw_classes(labels[rows], rng):
            lost = rng.choice(rows[labels[rows] == label])
            losses.append(rows[rows != lost])
        yield "loss", losses
        others = pool[~np.isin(pool, rows)]
        gains = [
            np.append(rows, rng.choice(others[labels[others] == label]))
            for label in _draw_classes(labels[others], rng)
        ]
        yield "gain", gains
        yield "incomplete", [rng.permutation(rows)[:N_INCOMPLETE] for _ in range(N_SIMULATED)]


def _draw_classes(labels: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw ``N_SIMULATED`` of the classes in ``labels`` with equal probability."""
    return rng.choice(np.unique(labels), N_SIMULATED)


def _iscn(labels: IntArray) -> str:
    return iscn_string(Counter(CLASSES[label] for label in labels))
