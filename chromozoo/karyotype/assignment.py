"""Names the chromosomes of one cell together, because a cell is not 46 independent draws.

A classifier that looks at one chromosome at a time may find three 8s and one 9. A normal cell has
two of each autosome and XX or XY, so the least convincing 8 is more likely the missing 9. Here all
chromosomes of a cell take their names in one maximum-likelihood assignment: every normal place
(*slot*) takes at most one chromosome, a chromosome beyond the normal set pays a prior cost, and so
does a normal slot that stays empty. Trisomies, monosomies and incomplete cells are therefore
possible, but only on evidence that outweighs their prior, and using such a slot is the flag for a
numerical abnormality.

The idea in the literature: class reassignment under the karyotype constraint (Poletti, Grisan,
Ruggeri, "A modular framework for the automatic classification of chromosomes in Q-band images",
2012), the dispatch strategy of Varifocal-Net (Qin et al., arXiv:1810.05943), and the label
redistribution of EResNet (Wang et al. 2020). They use heuristics; the assignment is solved exactly
here, and for any number of chromosomes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.karyotype.iscn import CellError, iscn_string, normal_counts

# One extra or one missing chromosome, in nats: -log(1/1000) = 6.9. About 3 newborns in 1000 have a
# numerical abnormality (Hassold and Hunt 2001), the most frequent one (trisomy 21) about 1 in 700,
# so a thousandth is the order of one given slot. To exchange one name for another in a cell of 46
# costs both (13.8 nats, odds of a million to one), which an honest network seldom claims.
DEFAULT_EXTRA_COST: float = float(-np.log(1e-3))
DEFAULT_MISSING_COST: float = float(-np.log(1e-3))

# A probability of exactly 0 (log -inf) is a float32 softmax that underflowed, not a proof: it
# counts as the smallest normal float32.
LOG_PROBABILITY_FLOOR: float = float(np.log(np.finfo(np.float32).tiny))

# Far below whatever a whole cell can differ by.
_FORBIDDEN = 1e3 * LOG_PROBABILITY_FLOOR

# The rounding that the logarithm of a (summed, averaged) probability may leave above 0.
_LOG_ONE_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class CellAssignment:
    """The names of all chromosomes of one cell.

    Attributes:
        labels: The ``N`` class names, in the order of the rows that came in.
        classes: The same as indices into ``CLASSES``, ``(N,)`` int64, read-only.
        sex: The normal set that the cell is compared with, ``"XX"`` or ``"XY"``.
        supernumerary: Rows beyond the normal set, ascending: the least probable copies of a gained class.
        gains: Class names beyond the normal set, in the order of ``CLASSES``, with repeats.
        losses: Class names missing from the normal set, likewise.
        iscn: The karyotype as counted, see :func:`iscn_string`.
        log_likelihood: What was maximised, in nats: the sum of the log-probabilities of the names,
            less the prior costs of the extra and the missing chromosomes.
        abnormal: Whether a chromosome is extra or missing. An incomplete cell is abnormal, too:
            the numbers alone cannot tell a lost chromosome from one that was not segmented.
    """

    labels: tuple[str, ...]
    classes: np.ndarray
    sex: str
    supernumerary: tuple[int, ...]
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    iscn: str
    log_likelihood: float
    abnormal: bool


def assign_cell(
    log_probabilities: np.ndarray,
    *,
    sex: str | None = None,
    extra_cost: float = DEFAULT_EXTRA_COST,
    missing_cost: float = DEFAULT_MISSING_COST,
) -> CellAssignment:
    """Names the chromosomes of one cell by maximum-likelihood assignment.

    Args:
        log_probabilities: ``(N, 24)`` natural-log probabilities (a log-softmax) in the order of
            ``CLASSES``, one row for each chromosome, any ``N >= 1``. ``-inf`` is allowed.
        sex: ``"XX"`` or ``"XY"`` where it is known; None tries both and keeps the better.
        extra_cost: Prior cost of a chromosome beyond the normal set, in nats, > 0.
        missing_cost: Prior cost of an empty place in the normal set, in nats, > 0.

    Returns:
        The assignment with the highest likelihood times prior. Where both sexes explain the names
        equally well (45,X; 47,XXY), a cell with a Y is compared with XY, any other with XX.

    Raises:
        CellError: Wrong shape, NaN, no possible class in a row, values above 0 (probabilities or
            logits in place of their logarithms), an unknown sex, or a cost that is not positive.
    """
    log_p = _checked(log_probabilities)
    for name, cost in (("extra_cost", extra_cost), ("missing_cost", missing_cost)):
        if not (np.isfinite(cost) and cost > 0):
            raise CellError(f"{name} is {cost}: give a positive number of nats, -log(prior)")
    if sex not in (None, "XX", "XY"):
        raise CellError(f"sex is {sex!r}: give 'XX', 'XY' or None (unknown)")

    solutions = [
        _solve(log_p, normal_counts(candidate), extra_cost, missing_cost)
        for candidate in (("XX", "XY") if sex is None else (sex,))
    ]
    classes, log_likelihood = max(solutions, key=lambda solution: solution[1])
    labels = tuple(CLASSES[index] for index in classes)
    counts = Counter(labels)
    if sex is None:
        # The better solution has a Y exactly if it was compared with XY, but for ties.
        sex = "XY" if counts["Y"] else "XX"
    normal = normal_counts(sex)
    gains = tuple(n for n in CLASSES for _ in range(counts[n] - normal[n]))
    losses = tuple(n for n in CLASSES for _ in range(normal[n] - counts[n]))
    classes.flags.writeable = False
    return CellAssignment(
        labels=labels,
        classes=classes,
        sex=sex,
        supernumerary=_extra_rows(log_p, classes, Counter(gains)),
        gains=gains,
        losses=losses,
        iscn=iscn_string(counts),
        log_likelihood=log_likelihood,
        abnormal=bool(gains or losses),
    )


def assignment_margins(
    log_probabilities: np.ndarray,
    assignment: CellAssignment,
    *,
    sex: str | None = None,
    extra_cost: float = DEFAULT_EXTRA_COST,
    missing_cost: float = DEFAULT_MISSING_COST,
) -> np.ndarray:
    """How much likelihood the cell would lose if one chromosome had any other name.

    What a chromosome looks like alone says little of a doubt that the whole cell settles, and
    nothing of one that it raises; this asks the cell. Each name is forbidden in turn and the cell
    named anew.

    Args:
        log_probabilities: As given to :func:`assign_cell`, as are the last three.
        assignment: What that returned.
        sex: See there.
        extra_cost: See there.
        missing_cost: See there.

    Returns:
        ``(N,)`` nats, 0 or more; near 0 where another naming is nearly as good.
    """
    log_p = _checked(log_probabilities)
    normals = [normal_counts(candidate) for candidate in (("XX", "XY") if sex is None else (sex,))]
    margins = np.empty(len(log_p))
    for row, name in enumerate(assignment.classes):
        kept = log_p[row, name]
        log_p[row, name] = _FORBIDDEN
        second = max(_solve(log_p, normal, extra_cost, missing_cost)[1] for normal in normals)
        log_p[row, name] = kept
        margins[row] = max(assignment.log_likelihood - second, 0.0)
    return margins


def best_with_each_class(log_probabilities: np.ndarray) -> np.ndarray:
    """The likelihood of the best naming of a cell in which one chromosome has a given name.

    Args:
        log_probabilities: As given to :func:`assign_cell`; sex and costs are its defaults.

    Returns:
        ``(N, 24)`` nats, for each chromosome and each name that it may have; the largest of each
        row is the likelihood of :func:`assign_cell`.
    """
    log_p = _checked(log_probabilities)
    normals = [normal_counts(candidate) for candidate in ("XX", "XY")]
    best = np.empty_like(log_p)
    for row in range(len(log_p)):
        kept = log_p[row].copy()
        for name in range(len(CLASSES)):
            log_p[row] = _FORBIDDEN
            log_p[row, name] = kept[name]
            best[row, name] = max(
                _solve(log_p, normal, DEFAULT_EXTRA_COST, DEFAULT_MISSING_COST)[1]
                for normal in normals
            )
        log_p[row] = kept
    return best


def present_rows(
    log_probabilities: np.ndarray,
    presence: np.ndarray,
    *,
    sex: str | None = None,
    extra_cost: float = DEFAULT_EXTRA_COST,
    missing_cost: float = DEFAULT_MISSING_COST,
) -> np.ndarray:
    """Which of a cell's detections are chromosomes, judged together with their names.

    A doubtful detection that fills an empty place of the cell with a good name is likelier a
    chromosome than one that would be a third copy. Each row is either a chromosome, which counts
    log(presence), or nothing, which counts log(1 - presence) and leaves its place empty.

    Args:
        log_probabilities: As for :func:`assign_cell`, as are the last three.
        presence: ``(N,)`` probability that a detection is a chromosome at all, 0..1.
        sex: See there.
        extra_cost: See there.
        missing_cost: See there.

    Returns:
        ``(N,)`` bool.

    Raises:
        CellError: As there; or ``presence`` is not ``(N,)`` within 0..1.
    """
    log_p = _checked(log_probabilities)
    presence = np.asarray(presence, np.float64)
    if presence.shape != log_p.shape[:1] or not ((presence >= 0) & (presence <= 1)).all():
        raise CellError(
            f"presence has the shape {presence.shape}, values {presence.min(initial=0):g} to "
            f"{presence.max(initial=0):g}: give one probability (0..1) for each of the "
            f"{len(log_p)} detections"
        )
    certain = np.clip(presence, 1e-12, 1 - 1e-12)
    absent_cost = np.log(certain / (1 - certain))
    solutions = [
        _solve(log_p, normal_counts(candidate), extra_cost, missing_cost, absent_cost)
        for candidate in (("XX", "XY") if sex is None else (sex,))
    ]
    classes, _ = max(solutions, key=lambda solution: solution[1])
    present: np.ndarray = classes >= 0
    return present


def _checked(log_probabilities: np.ndarray) -> np.ndarray:
    """The input as float64 ``(N, 24)`` with the floor applied, or a CellError."""
    log_p = np.asarray(log_probabilities, dtype=np.float64)
    if log_p.ndim != 2 or log_p.shape[1] != len(CLASSES) or log_p.shape[0] == 0:
        raise CellError(
            f"log_probabilities has the shape {log_p.shape}: give (N, {len(CLASSES)}), one row "
            "for each of the N >= 1 chromosomes of one cell"
        )
    for problem, remedy in (
        (np.isnan(log_p).any(axis=1), "holds NaN: leave this chromosome out, or mend its image"),
        (np.isneginf(log_p).all(axis=1), "is -inf for every class: give a log-softmax"),
        ((log_p > _LOG_ONE_TOLERANCE).any(axis=1), "has values above 0: give a log-softmax"),
    ):
        if problem.any():
            raise CellError(f"row {int(np.argmax(problem))} of log_probabilities {remedy}")
    return np.maximum(log_p, LOG_PROBABILITY_FLOOR)


def _solve(
    log_p: np.ndarray,
    normal: Mapping[str, int],
    extra_cost: float,
    missing_cost: float,
    absent_cost: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """The best classes ``(N,)`` for one normal set, and their log-likelihood in nats.

    With ``absent_cost`` ``(N,)``, a row may also be nothing at that cost; its class is then -1.
    """
    slot_classes = np.repeat(np.arange(len(CLASSES)), [normal[name] for name in CLASSES])
    # Filling a normal slot saves the cost of its emptiness, which all slots together begin with.
    in_normal_slot = -log_p[:, slot_classes] - missing_cost
    # No limit is set to the copies of a class, so a chromosome in an extra slot simply takes its
    # own best class: one extra column for each chromosome holds every possible set of extras.
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


def _extra_rows(
    log_p: np.ndarray, classes: np.ndarray, gains: Mapping[str, int]
) -> tuple[int, ...]:
    """The rows beyond the normal set: all copies cost the same, so the least probable are named."""
    extra: list[int] = []
    for name, surplus in gains.items():
        rows = np.flatnonzero(classes == CLASS_INDEX[name])
        ranked = rows[np.argsort(log_p[rows, CLASS_INDEX[name]], kind="stable")]
        extra += ranked[:surplus].tolist()
    return tuple(sorted(extra))
