"""Classification by distances to label feature vectors.

Paper: C. Wang et al., "Extended ResNet and Label Feature Vector Based Chromosome Classification",
IEEE Access 8:201098, 2020. A network computes a feature vector of each chromosome, and its softmax
is not used. Two ways lead from the features to classes:

* LFV: the nearest of 24 *label feature vectors*, the mean features of the classes
  (:func:`label_feature_vectors`, :func:`match_features`);
* LRd: *label redistribution*, a second round of matching among the chromosomes of a cell
  (:func:`redistribute_labels`).

The paper's third way, matching two images of the same cell, is not implemented, because no data set
has two. :func:`distances_to_log_probabilities` (ours) converts distances to the input of the exact
assignment of a cell, :func:`chromozoo.karyotype.assignment.assign_cell`.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
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
    """Return the distance of each query to each gallery vector.

    ``"euclid"`` is equation 6. ``"cosine"`` is 1 - cos, 0..2: equation 7 is the cosine similarity,
    which the paper minimises like a distance. The cosine distance of a zero vector is 1.

    Args:
        queries: ``(N, F)`` finite.
        gallery: ``(M, F)`` finite; a row of NaN stands for an unknown vector.
        metric: ``"cosine"`` or ``"euclid"``.

    Returns:
        ``(N, M)``, infinite for an unknown gallery vector.

    Raises:
        CellError: Empty inputs, different lengths, NaN or infinity, or an unknown metric.
    """
    if metric not in METRICS:
        raise CellError(f"unknown metric {metric!r}: use one of {', '.join(METRICS)}")
    a = _check_features(queries, "queries").astype(np.float64)
    vectors = _check_matrix(gallery, "gallery")
    known = np.flatnonzero(~np.isnan(vectors).all(axis=1))
    b = _check_features(vectors[known], "gallery").astype(np.float64)
    if a.shape[1] != b.shape[1]:
        raise CellError(
            f"queries have {a.shape[1]} features and the gallery {b.shape[1]}: take both from the "
            "same network"
        )
    distances = np.full((len(a), len(vectors)), np.inf)
    if metric == "euclid":
        distances[:, known] = cdist(a, b)
    else:
        distances[:, known] = np.clip(1 - _normalise_rows(a) @ _normalise_rows(b).T, 0, 2)
    return distances


def label_feature_vectors(features: ArrayLike, labels: ArrayLike, gamma: float = 1.0) -> FloatArray:
    """Return the mean feature vector of each class, times gamma (equation 4).

    The paper chooses gamma from 1 to 1.5, "to amplify the vector value". Gamma cancels in the
    cosine distance, which the paper adopts, and only affects the Euclidean one.

    Args:
        features: ``(N, F)`` finite.
        labels: ``(N,)`` class indices, 0..23.
        gamma: Factor > 0.

    Returns:
        ``(24, F)``; a class without chromosomes has a row of NaN and is never matched.

    Raises:
        CellError: Shapes that do not fit, NaN or infinity, invalid class indices, or a gamma that
            is not positive.
    """
    values = _check_features(features, "features")
    y = _check_labels(labels, len(values))
    if not (np.isfinite(gamma) and gamma > 0):
        raise CellError(f"gamma is {gamma}: give a number above 0; the paper uses 1 to 1.5")
    vectors = np.full((len(CLASSES), values.shape[1]), np.nan)
    for k in np.unique(y):
        vectors[k] = gamma * values[y == k].mean(axis=0, dtype=np.float64)
    return vectors


def match_features(
    features: ArrayLike, label_features: ArrayLike, metric: Metric = "cosine"
) -> tuple[IntArray, FloatArray]:
    """Find the nearest label feature vector of each chromosome.

    Args:
        features: ``(N, F)`` finite, any ``N >= 1``.
        label_features: ``(24, F)`` from :func:`label_feature_vectors`.
        metric: See :func:`feature_distances`.

    Returns:
        Class indices ``(N,)``, the first class for equal distances, and distances ``(N, 24)``.

    Raises:
        CellError: As :func:`feature_distances`, or not 24 label feature vectors.
    """
    distances = _check_distances(feature_distances(features, label_features, metric))
    return distances.argmin(axis=1).astype(np.int64), distances


def head_size(n: int, beta: int = PUBLISHED_BETA) -> int:
    """Return the size of the head among ``n`` chromosomes, scaled from ``beta`` of 46 (ours)."""
    return round(n * beta / DIPLOID_NUMBER)


def redistribute_labels(distances: ArrayLike, beta: int | None = None) -> IntArray:
    """Redistribute the labels of a cell in two rounds of matching (section II-D).

    Round 1 gives each chromosome its nearest class. The ``beta`` chromosomes with the smallest
    distances are the head, the others the tail. Classes found in the tail belong to the tail, all
    others to the head. Round 2 matches each part again with its own classes.

    It follows that labels of the tail never change, and that a head chromosome always loses a class
    that it shares with a tail chromosome, right or wrong: of two homologues in different parts, the
    nearer one loses its correct label. Nor is the number of copies of a class limited to two. The
    assignment of :mod:`chromozoo.karyotype.assignment` solves the intended problem.

    The paper does not cover ties, cells with other than 46 chromosomes, or a head without remaining
    classes. Ours: the first class or chromosome wins a tie; the head has :func:`head_size`
    chromosomes; chromosomes without a remaining class keep the one of round 1.

    Args:
        distances: ``(N, 24)``, 0 or more, infinite for a class without a vector; all chromosomes of
            one cell, any ``N >= 1``.
        beta: Size of the head, 0..N; None takes :func:`head_size`.

    Returns:
        Class indices ``(N,)``.

    Raises:
        CellError: Wrong shape, NaN, negative distances, a row without a finite distance, or a
            ``beta`` out of range.
    """
    d = _check_distances(distances)
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


def distances_to_log_probabilities(distances: ArrayLike, temperature: float) -> FloatArray:
    """Convert distances to log-probabilities: the log-softmax of ``-distance / temperature``.

    Ours. The normalisation shifts whole rows, so the assignment of a cell to a given normal set
    minimises the sum of distances; the temperature weighs distances against the prior costs of
    supernumerary and missing chromosomes.

    Args:
        distances: ``(N, 24)``, see :func:`redistribute_labels`.
        temperature: Temperature > 0, see :func:`fit_temperature`.

    Returns:
        ``(N, 24)`` natural log-probabilities.

    Raises:
        CellError: As :func:`redistribute_labels`, or a temperature that is not positive.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise CellError(f"temperature is {temperature}: give a number above 0")
    result: FloatArray = log_softmax(-_check_distances(distances) / temperature, axis=1)
    return result


def fit_temperature(distances: ArrayLike, labels: ArrayLike) -> float:
    """Fit the temperature of :func:`distances_to_log_probabilities` by maximum likelihood.

    Args:
        distances: ``(N, 24)`` of validation chromosomes, see :func:`redistribute_labels`.
        labels: ``(N,)`` class indices; chromosomes of a class without a vector are ignored.

    Returns:
        The temperature with the smallest mean negative log-likelihood, between 1/3000 and 20 times
        the mean distance.

    Raises:
        CellError: As :func:`redistribute_labels`, invalid class indices, or no chromosome whose
            class has a vector.
    """
    d = _check_distances(distances)
    y = _check_labels(labels, len(d))
    known = np.isfinite(d[np.arange(len(d)), y])
    if not known.any():
        raise CellError("no chromosome belongs to a class that has a label feature vector")
    d, y = d[known], y[known]
    # If all distances are 0, every temperature fits equally well.
    unit = float(d[np.isfinite(d)].mean()) or 1.0

    def loss(log_ratio: float) -> float:
        chosen = distances_to_log_probabilities(d, unit * np.exp(log_ratio))[np.arange(len(d)), y]
        return float(-chosen.mean())

    fit = minimize_scalar(loss, bounds=(-8.0, 3.0), method="bounded")
    return float(unit * np.exp(fit.x))


def _check_matrix(values: ArrayLike, name: str) -> NDArray[np.floating]:
    """Return ``(N, F)`` floating, or raise a CellError; large arrays are not copied needlessly."""
    matrix = np.asarray(values)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise CellError(f"{name}: shape {matrix.shape}; give (N, F), one row for each chromosome")
    return matrix if np.issubdtype(matrix.dtype, np.floating) else matrix.astype(np.float64)


def _check_features(values: ArrayLike, name: str) -> NDArray[np.floating]:
    """Return ``(N, F)`` floating and finite, or raise a CellError."""
    features = _check_matrix(values, name)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise CellError(
            f"{name}: row {int(np.argmin(finite))} holds NaN or infinity: leave this chromosome "
            "out, or repair its image or the weights"
        )
    return features


def _check_labels(values: ArrayLike, n: int) -> IntArray:
    """Return ``(n,)`` class indices, or raise a CellError."""
    labels = np.asarray(values)
    if labels.shape != (n,):
        raise CellError(f"labels have shape {labels.shape} for {n} chromosomes: give one for each")
    if not np.issubdtype(labels.dtype, np.integer) or not (
        labels.min() >= 0 and labels.max() < len(CLASSES)
    ):
        raise CellError(
            f"labels must be class indices 0..{len(CLASSES) - 1}: convert class names with "
            "chromozoo.classes.CLASS_INDEX"
        )
    return labels.astype(np.int64)


def _check_distances(values: ArrayLike) -> FloatArray:
    """Return ``(N, 24)`` valid distances, or raise a CellError."""
    d = np.asarray(values, dtype=np.float64)
    if d.ndim != 2 or d.shape[1] != len(CLASSES) or not len(d):
        raise CellError(
            f"distances have shape {d.shape}: give (N, {len(CLASSES)}), one row for each of the "
            "N >= 1 chromosomes"
        )
    # Unlike `d < 0`, this also finds NaN.
    bad = ~((d >= 0).all(axis=1) & np.isfinite(d).any(axis=1))
    if bad.any():
        raise CellError(
            f"row {int(np.argmax(bad))} of distances holds NaN or negative values, or nothing "
            "finite: give the result of feature_distances"
        )
    return d


def _normalise_rows(vectors: FloatArray) -> FloatArray:
    """Scale each row to length 1; zero rows stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: FloatArray = vectors / np.where(norms > 0, norms, 1)
    return result
