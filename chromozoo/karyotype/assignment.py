"""Joint classification of the chromosomes of one cell.

A classifier that sees one chromosome at a time may find three 8s and one 9. A normal cell has two
of each autosome and XX or XY, so the least probable 8 is more likely the missing 9. Here one
maximum-likelihood assignment gives all chromosomes of a cell their classes: every *slot* of the
normal set takes at most one chromosome, a chromosome beyond the normal set pays a prior cost, and
so does an empty slot. Trisomies, monosomies and incomplete cells are therefore possible if the
evidence outweighs their prior, and they are reported as gains and losses.

Related work: class reassignment under the karyotype constraint (Poletti, Grisan, Ruggeri, "A
modular framework for the automatic classification of chromosomes in Q-band images", 2012), the
dispatch strategy of Varifocal-Net (Qin et al., arXiv:1810.05943), and the label redistribution of
EResNet (Wang et al. 2020). Those are heuristics; this module solves the assignment exactly, for
any number of chromosomes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.karyotype.iscn import CellError, iscn_string, normal_counts
from chromozoo.structures.arrays import BoolArray, FloatArray, IntArray

# Prior cost of one supernumerary or one missing chromosome in nats: -log(1/1000) = 6.9. About 3
# newborns in 1000 have a numerical abnormality (Hassold and Hunt 2001), the most frequent one
# (trisomy 21) about 1 in 700, so a thousandth is the order of magnitude for a given slot.
# Exchanging one class for another in a cell of 46 costs both (13.8 nats, odds of a million to one),
# which a well-calibrated network seldom claims.
DEFAULT_EXTRA_COST: float = float(-np.log(1e-3))
DEFAULT_MISSING_COST: float = float(-np.log(1e-3))

# A probability of exactly 0 (log -inf) is an underflowed float32 softmax, not a proof. It counts as
# the smallest normal float32.
LOG_PROBABILITY_FLOOR: float = float(np.log(np.finfo(np.float32).tiny))

# Log-probability of a forbidden class: far below any difference between two assignments of a cell.
_FORBIDDEN = 1e3 * LOG_PROBABILITY_FLOOR

# Rounding error by which the logarithm of a summed or averaged probability may exceed 0.
_LOG_ONE_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class CellAssignment:
    """The classes of all chromosomes of one cell.

    Attributes:
        labels: The ``N`` class names in the order of the input rows.
        classes: ``(N,)`` int64 class indices, read-only.
        sex: Sex chromosomes of the normal set that the cell is compared with, ``"XX"`` or ``"XY"``.
        supernumerary: Rows beyond the normal set, ascending: the least probable copies of each
            gained class.
        gains: Class names beyond the normal set, in the order of ``CLASSES``, with repeats.
        losses: Class names missing from the normal set, likewise.
        iscn: The karyotype as counted, see :func:`chromozoo.karyotype.iscn.iscn_string`.
        log_likelihood: The maximised objective in nats: the sum of the log-probabilities of the
            classes, minus the prior costs of supernumerary and missing chromosomes.
        abnormal: Whether there is a gain or a loss. This includes incomplete cells: the counts
            alone cannot distinguish a lost chromosome from one that was not segmented.
    """

    labels: tuple[str, ...]
    classes: IntArray
    sex: str
    supernumerary: tuple[int, ...]
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    iscn: str
    log_likelihood: float
    abnormal: bool


def assign_cell(
    log_probabilities: FloatArray,
    *,
    sex: str | None = None,
    extra_cost: float = DEFAULT_EXTRA_COST,
    missing_cost: float = DEFAULT_MISSING_COST,
) -> CellAssignment:
    """Assign classes to the chromosomes of one cell by maximum likelihood.

    Args:
        log_probabilities: ``(N, 24)`` natural log-probabilities (log-softmax) in the order of
            ``CLASSES``, one row for each chromosome, any ``N >= 1``; ``-inf`` is allowed.
        sex: ``"XX"`` or ``"XY"`` if known; None tries both and keeps the more likely one.
        extra_cost: Prior cost of a chromosome beyond the normal set, in nats, > 0.
        missing_cost: Prior cost of an empty slot of the normal set, in nats, > 0.

    Returns:
        The assignment with the highest likelihood times prior. If both sexes explain the cell
        equally well (45,X; 47,XXY), a cell with a Y is compared with XY, any other one with XX.

    Raises:
        CellError: Wrong shape, NaN, a row without a possible class, values above 0 (probabilities
            or logits instead of their logarithms), an unknown sex, or a cost that is not positive.
    """
    log_p = _check_log_probabilities(log_probabilities)
    for name, cost in (("extra_cost", extra_cost), ("missing_cost", missing_cost)):
        if not (np.isfinite(cost) and cost > 0):
            raise CellError(f"{name} is {cost}: give a positive number of nats, -log(prior)")
    if sex not in (None, "XX", "XY"):
        raise CellError(f"sex is {sex!r}: give 'XX', 'XY' or None (unknown)")

    solutions = [
        _solve_assignment(log_p, normal, extra_cost, missing_cost) for normal in _normal_sets(sex)
    ]
    classes, log_likelihood = max(solutions, key=lambda solution: solution[1])
    labels = tuple(CLASSES[index] for index in classes)
    counts = Counter(labels)
    if sex is None:
        # Except for ties, the better solution has a Y exactly if it was compared with XY.
        sex = "XY" if counts["Y"] else "XX"
    normal = normal_counts(sex)
    gains = tuple(name for name in CLASSES for _ in range(counts[name] - normal[name]))
    losses = tuple(name for name in CLASSES for _ in range(normal[name] - counts[name]))
    classes.flags.writeable = False
    return CellAssignment(
        labels=labels,
        classes=classes,
        sex=sex,
        supernumerary=_supernumerary_rows(log_p, classes, Counter(gains)),
        gains=gains,
        losses=losses,
        iscn=iscn_string(counts),
        log_likelihood=log_likelihood,
        abnormal=bool(gains or losses),
    )


def assignment_margins(
    log_probabilities: FloatArray,
    assignment: CellAssignment,
    *,
    sex: str | None = None,
    extra_cost: float = DEFAULT_EXTRA_COST,
    missing_cost: float = DEFAULT_MISSING_COST,
) -> FloatArray:
    """Return the log-likelihood that a cell loses if one chromosome has any other class.

    The class probabilities of one chromosome ignore doubts that the rest of the cell resolves or
    raises. Here the assigned class of each chromosome is forbidden in turn, and the cell is
    assigned again.

    Args:
        log_probabilities: As for :func:`assign_cell`.
        assignment: The result of :func:`assign_cell` for the same arguments.
        sex: As for :func:`assign_cell`.
        extra_cost: As for :func:`assign_cell`.
        missing_cost: As for :func:`assign_cell`.

    Returns:
        ``(N,)`` nats, 0 or more; near 0 if another assignment is nearly as likely.
    """
    log_p = _check_log_probabilities(log_probabilities)
    normals = _normal_sets(sex)
    margins = np.empty(len(log_p))
    for row, index in enumerate(assignment.classes):
        original = log_p[row, index]
        log_p[row, index] = _FORBIDDEN
        second = max(
            _solve_assignment(log_p, normal, extra_cost, missing_cost)[1] for normal in normals
        )
        log_p[row, index] = original
        margins[row] = max(assignment.log_likelihood - second, 0.0)
    return margins


def best_log_likelihoods(log_probabilities: FloatArray) -> FloatArray:
    """Return the log-likelihood of the best assignment for each class of each chromosome.

    Args:
        log_probabilities: As for :func:`assign_cell`; sex and costs have its defaults.

    Returns:
        ``(N, 24)`` nats: entry ``(i, k)`` is the log-likelihood of the best assignment of the cell
        in which chromosome ``i`` has class ``k``. The largest entry of each row equals the
        log-likelihood of :func:`assign_cell`.
    """
    log_p = _check_log_probabilities(log_probabilities)
    normals = _normal_sets(None)
    best = np.empty_like(log_p)
    for row in range(len(log_p)):
        original = log_p[row].copy()
        for index in range(len(CLASSES)):
            log_p[row] = _FORBIDDEN
            log_p[row, index] = original[index]
            best[row, index] = max(
                _solve_assignment(log_p, normal, DEFAULT_EXTRA_COST, DEFAULT_MISSING_COST)[1]
                for normal in normals
            )
        log_p[row] = original
    return best


def present_rows(
    log_probabilities: FloatArray,
    presence: FloatArray,
    *,
    sex: str | None = None,
    extra_cost: float = DEFAULT_EXTRA_COST,
    missing_cost: float = DEFAULT_MISSING_COST,
) -> BoolArray:
    """Return which detections of a cell are chromosomes, decided jointly with their classes.

    An uncertain detection that fills an empty slot of the cell with a probable class is more likely
    a chromosome than one that would be a third copy. Each row is either a chromosome, which adds
    log(presence), or a false detection, which adds log(1 - presence) and takes no slot.

    Args:
        log_probabilities: As for :func:`assign_cell`.
        presence: ``(N,)`` probability that the detection is a chromosome, 0..1.
        sex: As for :func:`assign_cell`.
        extra_cost: As for :func:`assign_cell`.
        missing_cost: As for :func:`assign_cell`.

    Returns:
        ``(N,)`` bool.

    Raises:
        CellError: As for :func:`assign_cell`; or ``presence`` is not ``(N,)`` within 0..1.
    """
    log_p = _check_log_probabilities(log_probabilities)
    presence = np.asarray(presence, np.float64)
    if presence.shape != log_p.shape[:1] or not ((presence >= 0) & (presence <= 1)).all():
        raise CellError(
            f"presence has the shape {presence.shape}, values {presence.min(initial=0):g} to "
            f"{presence.max(initial=0):g}: give one probability (0..1) for each of the "
            f"{len(log_p)} detections"
        )
    clipped = np.clip(presence, 1e-12, 1 - 1e-12)
    absent_cost = np.log(clipped / (1 - clipped))
    solutions = [
        _solve_assignment(log_p, normal, extra_cost, missing_cost, absent_cost)
        for normal in _normal_sets(sex)
    ]
    classes, _ = max(solutions, key=lambda solution: solution[1])
    present: BoolArray = classes >= 0
    return present


def _normal_sets(sex: str | None) -> list[dict[str, int]]:
    """Return the normal sets that a cell is compared with."""
    return [normal_counts(candidate) for candidate in (("XX", "XY") if sex is None else (sex,))]


def _check_log_probabilities(log_probabilities: FloatArray) -> FloatArray:
    """Return the input as float64 ``(N, 24)`` with the floor applied, or raise a CellError."""
    log_p = np.asarray(log_probabilities, dtype=np.float64)
    if log_p.ndim != 2 or log_p.shape[1] != len(CLASSES) or log_p.shape[0] == 0:
        raise CellError(
            f"log_probabilities has the shape {log_p.shape}: give (N, {len(CLASSES)}), one row "
            "for each of the N >= 1 chromosomes of one cell"
        )
    for problem, remedy in (
        (
            np.isnan(log_p).any(axis=1),
            "holds NaN: leave this chromosome out, or repair its image",
        ),
        (np.isneginf(log_p).all(axis=1), "is -inf for every class: give a log-softmax"),
        ((log_p > _LOG_ONE_TOLERANCE).any(axis=1), "has values above 0: give a log-softmax"),
    ):
        if problem.any():
            raise CellError(f"row {int(np.argmax(problem))} of log_probabilities {remedy}")
    return np.maximum(log_p, LOG_PROBABILITY_FLOOR)


def _solve_assignment(
    log_p: FloatArray,
    normal: Mapping[str, int],
    extra_cost: float,
    missing_cost: float,
    absent_cost: FloatArray | None = None,
) -> tuple[IntArray, float]:
    """Return the best classes ``(N,)`` for one normal set, and their log-likelihood in nats.

    With ``absent_cost`` ``(N,)``, a row may also be no chromosome at that cost, with class -1.
    """
    slot_classes = np.repeat(np.arange(len(CLASSES)), [normal[name] for name in CLASSES])
    # The total starts with the cost of all slots being empty; filling a slot saves its cost.
    in_normal_slot = -log_p[:, slot_classes] - missing_cost
    # The number of copies of a class is not limited, so a chromosome beyond the normal set takes
    # its own best class: one extra column for each chromosome covers every set of extras.
    best_class = log_p.argmax(axis=1)
    in_extra_slot = -log_p.max(axis=1, keepdims=True) + extra_cost
    cost = np.hstack([in_normal_slot, np.repeat(in_extra_slot, len(log_p), axis=1)])
    if absent_cost is not None:
        cost = np.hstack([cost, np.repeat(absent_cost[:, None], len(log_p), axis=1)])
    rows, columns = linear_sum_assignment(cost)  # rows is 0..N-1: there are more columns than rows
    normal_end, extra_end = len(slot_classes), len(slot_classes) + len(log_p)
    in_normal = slot_classes[np.minimum(columns, normal_end - 1)]
    classes = np.where(columns < normal_end, in_normal, best_class)
    classes = np.where(columns < extra_end, classes, -1)
    return classes, float(-cost[rows, columns].sum() - missing_cost * len(slot_classes))


def _supernumerary_rows(
    log_p: FloatArray, classes: IntArray, gains: Mapping[str, int]
) -> tuple[int, ...]:
    """Return the rows beyond the normal set: the least probable copies, as all cost the same."""
    extra: list[int] = []
    for name, surplus in gains.items():
        rows = np.flatnonzero(classes == CLASS_INDEX[name])
        ranked = rows[np.argsort(log_p[rows, CLASS_INDEX[name]], kind="stable")]
        extra += ranked[:surplus].tolist()
    return tuple(sorted(extra))
