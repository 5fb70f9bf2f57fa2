"""Names chromosomes by their distance to feature vectors whose class is known.

Paper: C. Wang et al., "Extended ResNet and Label Feature Vector Based Chromosome Classification",
IEEE Access 8:201098, 2020. A network gives a feature vector of each chromosome. Three ways lead
from there to names, and the network's softmax has no part in them:

* LFV: the nearest of 24 *label feature vectors*, the mean features of the classes
  (:func:`label_feature_vectors`, :func:`match`);
* LRd: *label redistribution*, a second round of matching among the chromosomes of a cell
  (:func:`redistribute_labels`);
* FVM: the nearest chromosome of another image of the same cell (:func:`match_cells`).

Distances can also go into the exact assignment of a cell: :func:`log_probabilities` makes of them
what :func:`chromozoo.karyotype.assignment.assign_cell` takes. That is ours, not the paper's.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment, minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import log_softmax

from chromozoo.classes import CLASSES, DIPLOID_NUMBER
from chromozoo.karyotype.iscn import CellError
from chromozoo.structures.arrays import FloatArray, IntArray

Metric = Literal["cosine", "euclid"]
METRICS: tuple[Metric, ...] = get_args(Metric)

# Section IV-E of the paper: the first 40 of 46 chromosomes form the head.
PUBLISHED_BETA = 40


def feature_distances(
    queries: ArrayLike, gallery: ArrayLike, metric: Metric = "cosine"
) -> FloatArray:
    """Distance of each query to each gallery vector.

    ``"euclid"`` is equation 6. ``"cosine"`` is 1 - cos, 0..2: equation 7 is the cosine similarity
    itself, which the paper minimises as if it were a distance. A vector of zeros has no
    direction; its cosine distance to all others is 1.

    Args:
        queries: ``(N, F)`` finite.
        gallery: ``(M, F)`` finite, except that a row of nothing but NaN stands for a vector that
            is not known.
        metric: ``"cosine"`` or ``"euclid"``.

    Returns:
        ``(N, M)``, infinite where the gallery vector is not known.

    Raises:
        CellError: Nothing to compare, lengths that differ, NaN or infinity, unknown metric.
    """
    if metric not in METRICS:
        raise CellError(f"unknown metric {metric!r}: use one of {', '.join(METRICS)}")
    a = _features(queries, "queries").astype(np.float64)
    vectors = _matrix(gallery, "gallery")
    known = np.flatnonzero(~np.isnan(vectors).all(axis=1))
    b = _features(vectors[known], "gallery").astype(np.float64)
    if a.shape[1] != b.shape[1]:
        raise CellError(
            f"queries have {a.shape[1]} features and the gallery {b.shape[1]}: take both from the "
            "same network"
        )
    distances = np.full((len(a), len(vectors)), np.inf)
    if metric == "euclid":
        distances[:, known] = cdist(a, b)
    else:
        distances[:, known] = np.clip(1 - _directions(a) @ _directions(b).T, 0, 2)
    return distances


def hausdorff(a: ArrayLike, b: ArrayLike, metric: Metric = "cosine") -> float:
    """Directed Hausdorff distance of equation 5: how far the loneliest vector of A is from B.

    ``max over x in A of min over y in B of ||x, y||``; it is not symmetric. The paper compares
    one vector with one vector, for which it is the base distance and nothing more, so matching
    here takes the base distance at once.

    Args:
        a: ``(N, F)`` finite.
        b: ``(M, F)`` finite.
        metric: Base distance, see :func:`feature_distances`.

    Raises:
        CellError: As :func:`feature_distances`.
    """
    return float(feature_distances(a, _features(b, "b"), metric).min(axis=1).max())


def label_feature_vectors(features: ArrayLike, labels: ArrayLike, gamma: float = 1.0) -> FloatArray:
    """Equation 4: the mean feature vector of each class, times gamma.

    The paper gives gamma as 1 to 1.5, "to amplify the vector value". Under the cosine distance,
    which it adopts, gamma cancels; it matters for Euclid only.

    Args:
        features: ``(N, F)`` finite.
        labels: ``(N,)`` class indices, 0..23.
        gamma: Above 0.

    Returns:
        ``(24, F)``; a class without a chromosome has a row of NaN and is never matched.

    Raises:
        CellError: Shapes that do not fit, NaN or infinity, labels that are no class index, or a
            gamma that is not above 0.
    """
    values = _features(features, "features")
    y = _labels(labels, len(values))
    if not (np.isfinite(gamma) and gamma > 0):
        raise CellError(f"gamma is {gamma}: give a number above 0, the paper 1 to 1.5")
    vectors = np.full((len(CLASSES), values.shape[1]), np.nan)
    for k in np.unique(y):
        vectors[k] = gamma * values[y == k].mean(axis=0, dtype=np.float64)
    return vectors


def match(
    features: ArrayLike, label_features: ArrayLike, metric: Metric = "cosine"
) -> tuple[IntArray, FloatArray]:
    """Gives each chromosome the class of the nearest label feature vector.

    Args:
        features: ``(N, F)`` finite, any ``N >= 1``.
        label_features: ``(24, F)`` of :func:`label_feature_vectors`.
        metric: See :func:`feature_distances`.

    Returns:
        Class indices ``(N,)``, of equal distances the first class, and the distances ``(N, 24)``.

    Raises:
        CellError: As :func:`feature_distances`, or not 24 label feature vectors.
    """
    distances = _distances(feature_distances(features, label_features, metric))
    return distances.argmin(axis=1).astype(np.int64), distances


def head_size(n: int, beta: int = PUBLISHED_BETA) -> int:
    """How many of ``n`` chromosomes form the head where ``beta`` of 46 do; rounding is ours."""
    return round(n * beta / DIPLOID_NUMBER)


def redistribute_labels(distances: ArrayLike, beta: int | None = None) -> IntArray:
    """Label redistribution, section II-D: two rounds of matching among the chromosomes of a cell.

    Round 1 gives each chromosome its nearest class. The ``beta`` chromosomes with the smallest
    distance are the head, the others the tail. The classes that the tail was given are the tail's,
    all other classes the head's. Round 2 matches each part again with its own classes alone.

    It follows that no name of the tail ever changes, and that a head chromosome must leave its
    class when a tail chromosome bears the same, rightly or not: of two homologues on different
    sides, the nearer one loses its right name. Nor does a class end up with two copies only.
    The assignment of :mod:`chromozoo.karyotype.assignment` is what the idea is after.

    The paper is silent on ties, on cells of other than 46 chromosomes, and on a head that has no
    class left. Ours: of equal distances the first class, or the chromosome that comes first, wins;
    the head is :func:`head_size` of the cell; chromosomes without a class keep that of round 1.

    Args:
        distances: ``(N, 24)``, not negative, infinite where a class has no vector; all
            chromosomes of one cell, any ``N >= 1``.
        beta: Size of the head, 0..N; None: :func:`head_size`.

    Returns:
        Class indices ``(N,)``.

    Raises:
        CellError: Wrong shape, NaN, negative distances, a row without any finite distance, or a
            beta out of range.
    """
    d = _distances(distances)
    if beta is None:
        beta = head_size(len(d))
    if not 0 <= beta <= len(d):
        raise CellError(
            f"beta is {beta} in a cell of {len(d)} chromosomes: give the size of the head, 0 to "
            f"{len(d)}"
        )
    labels: IntArray = d.argmin(axis=1).astype(np.int64)
    order = np.argsort(d.min(axis=1), kind="stable")
    head, tail = order[:beta], order[beta:]
    # The tail needs no second round: the nearest class of each is among the tail's classes.
    of_tail = np.isin(np.arange(len(CLASSES)), labels[tail])
    second = np.where(of_tail, np.inf, d[head])
    possible = np.isfinite(second).any(axis=1)
    labels[head[possible]] = second[possible].argmin(axis=1)
    return labels


def log_probabilities(distances: ArrayLike, temperature: float) -> FloatArray:
    """Distances as natural-log probabilities: the log-softmax of ``-distance / temperature``.

    Ours. The normalisation shifts whole rows, so the assignment of a cell to given places is the
    one with the smallest sum of distances; the temperature only weighs distances against the prior
    cost of an extra or a missing chromosome.

    Args:
        distances: ``(N, 24)``, see :func:`redistribute_labels`.
        temperature: Above 0, see :func:`fit_temperature`.

    Raises:
        CellError: As :func:`redistribute_labels`, or a temperature that is not above 0.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise CellError(f"temperature is {temperature}: give a number above 0")
    result: FloatArray = log_softmax(-_distances(distances) / temperature, axis=1)
    return result


def fit_temperature(distances: ArrayLike, labels: ArrayLike) -> float:
    """The temperature under which :func:`log_probabilities` explains the labels best.

    Args:
        distances: ``(N, 24)`` of validation chromosomes, see :func:`redistribute_labels`.
        labels: ``(N,)`` their class indices. Those of a class without a vector are left out.

    Returns:
        The minimum of the mean negative log-likelihood, between 1/3000 and 20 times the mean
        distance.

    Raises:
        CellError: As :func:`redistribute_labels`, labels that are no class index, or no
            chromosome whose class has a vector.
    """
    d = _distances(distances)
    y = _labels(labels, len(d))
    known = np.isfinite(d[np.arange(len(d)), y])
    if not known.any():
        raise CellError("no chromosome belongs to a class that has a label feature vector")
    d, y = d[known], y[known]
    # All distances 0: every temperature is as good.
    unit = float(d[np.isfinite(d)].mean()) or 1.0

    def loss(log_ratio: float) -> float:
        chosen = log_probabilities(d, unit * np.exp(log_ratio))[np.arange(len(d)), y]
        return float(-chosen.mean())

    fit = minimize_scalar(loss, bounds=(-8.0, 3.0), method="bounded")
    return float(unit * np.exp(fit.x))


@dataclass(frozen=True, eq=False)
class CellMatch:
    """Which chromosome of image B each chromosome of image A is, or is nearest to.

    Attributes:
        rows: ``(Na,)`` rows of B.
        labels: ``(Na,)`` class indices, those of the rows.
        distances: ``(Na,)`` distances to the rows.
    """

    rows: IntArray
    labels: IntArray
    distances: FloatArray


def match_cells(
    features_a: ArrayLike,
    features_b: ArrayLike,
    labels_b: ArrayLike,
    metric: Metric = "cosine",
    *,
    one_to_one: bool = False,
) -> CellMatch:
    """FVM: names the chromosomes of one image of a cell by those of another image of it.

    Args:
        features_a: ``(Na, F)`` finite, chromosomes to be named.
        features_b: ``(Nb, F)`` finite, named chromosomes of the same cell; Na and Nb may differ.
        labels_b: ``(Nb,)`` their class indices.
        metric: See :func:`feature_distances`.
        one_to_one: False: each takes the nearest, as in the paper. True (ours): every chromosome
            of B is taken at most once, with the smallest sum of distances; where A has more than
            B, those left over take the nearest.

    Raises:
        CellError: As :func:`feature_distances`, or labels that are no class index.
    """
    b = _features(features_b, "features_b")
    y = _labels(labels_b, len(b))
    distances = feature_distances(features_a, b, metric)
    rows = distances.argmin(axis=1).astype(np.int64)
    if one_to_one:
        taken, partners = linear_sum_assignment(distances)
        rows[taken] = partners
    return CellMatch(rows, y[rows], distances[np.arange(len(rows)), rows])


def _matrix(values: ArrayLike, what: str) -> NDArray[np.floating]:
    """``(N, F)`` floating, or a CellError. Not copied where it need not be: they can be large."""
    matrix = np.asarray(values)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise CellError(f"{what}: shape {matrix.shape}; give (N, F), one row for each chromosome")
    return matrix if np.issubdtype(matrix.dtype, np.floating) else matrix.astype(np.float64)


def _features(values: ArrayLike, what: str) -> NDArray[np.floating]:
    """``(N, F)`` floating and finite, or a CellError."""
    features = _matrix(values, what)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise CellError(
            f"{what}: row {int(np.argmin(finite))} holds NaN or infinity: leave this chromosome "
            "out, or mend its image or the weights"
        )
    return features


def _labels(values: ArrayLike, n: int) -> IntArray:
    labels = np.asarray(values)
    if labels.shape != (n,):
        raise CellError(f"labels have shape {labels.shape} for {n} chromosomes: give one for each")
    if not np.issubdtype(labels.dtype, np.integer) or not (
        labels.min() >= 0 and labels.max() < len(CLASSES)
    ):
        raise CellError(
            f"labels must be class indices 0..{len(CLASSES) - 1}: translate names with "
            "chromozoo.classes.CLASS_INDEX"
        )
    return labels.astype(np.int64)


def _distances(values: ArrayLike) -> FloatArray:
    d = np.asarray(values, dtype=np.float64)
    if d.ndim != 2 or d.shape[1] != len(CLASSES) or not len(d):
        raise CellError(
            f"distances have shape {d.shape}: give (N, {len(CLASSES)}), one row for each of the "
            "N >= 1 chromosomes"
        )
    # Not `d < 0`: NaN is to be found as well.
    bad = ~((d >= 0).all(axis=1) & np.isfinite(d).any(axis=1))
    if bad.any():
        raise CellError(
            f"row {int(np.argmax(bad))} of distances holds NaN or negative values, or nothing "
            "finite: give what feature_distances returns"
        )
    return d


def _directions(vectors: FloatArray) -> FloatArray:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: FloatArray = vectors / np.where(norms > 0, norms, 1)
    return result
