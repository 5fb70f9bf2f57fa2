"""How good a segmenter is on metaphases whose chromosomes are outlined, with intervals over images.

Average precision is COCO's, of boxes and of masks: RLE masks and IoUs come from faster-coco-eval,
and the tests hold every figure here against its ``COCOeval`` to 1e-9. Matching and accumulation
are written out because an interval needs what the library keeps to itself: predictions are matched
once for each image, and a resample of the images only adds up the matches again.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from chromozoo.metrics.bootstrap import (
    EvaluationError,
    Interval,
    bootstrap_counts,
    percentile_interval,
    rounded,
)
from chromozoo.structures.arrays import BoolArray, FloatArray, IntArray

BACKEND = f"faster-coco-eval {version('faster-coco-eval')}"

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2)}
COCO_MAX_DETECTIONS = 100
# What is less probable than this is not counted for a class.
MIN_CLASS_SCORE = 0.01
# A chromosome overlaps another one if they share at least this share of its pixels.
OVERLAP_SHARE = 0.01

_ALL, _AT_50, _AT_75 = slice(None), slice(0, 1), slice(5, 6)
# Geometry, the true chromosomes that count, and the IoU thresholds that are averaged.
_PRECISIONS = {
    "box_ap": ("box", "all", _ALL),
    "box_ap50": ("box", "all", _AT_50),
    "box_ap75": ("box", "all", _AT_75),
    "box_aps": ("box", "small", _ALL),
    "box_apm": ("box", "medium", _ALL),
    "mask_ap": ("mask", "all", _ALL),
    "mask_ap50": ("mask", "all", _AT_50),
    "mask_ap75": ("mask", "all", _AT_75),
    "mask_aps": ("mask", "small", _ALL),
    "mask_apm": ("mask", "medium", _ALL),
    "mask_ap_overlap": ("mask", "overlapping", _ALL),
    "mask_ap50_overlap": ("mask", "overlapping", _AT_50),
}
PRECISION_METRICS = tuple(_PRECISIONS)
# Of the predictions above the score threshold.
COUNT_METRICS = ("exact_match_rate", "relative_count_error", "count_error", "count_bias")
# Means over the classes, where the truth has them and the model tells them apart.
CLASS_METRICS = ("class_box_ap", "class_box_ap50", "class_box_ap75")
METRICS = (*PRECISION_METRICS, *CLASS_METRICS, *COUNT_METRICS)


class Detections(Protocol):
    """What a segmenter found in one image, such as a ``Segmentation``."""

    @property
    def masks(self) -> BoolArray:
        """``(N, H, W)`` bool."""
        ...

    @property
    def boxes(self) -> NDArray[np.floating[Any]]:
        """``(N, 4)`` xyxy in pixels."""
        ...

    @property
    def scores(self) -> NDArray[np.floating[Any]]:
        """``(N,)`` in 0..1."""
        ...

    @property
    def labels(self) -> NDArray[np.integer[Any]]:
        """``(N,)`` class indices; looked at only where the truth has classes."""
        ...

    @property
    def class_probabilities(self) -> NDArray[np.floating[Any]] | None:
        """``(N, classes)``, probability of each class; None where labels alone are known."""
        ...


@dataclass(frozen=True, eq=False)
class TrueChromosomes:
    """What is known of the chromosomes of one image.

    Attributes:
        masks: ``(N, H, W)`` bool; boxes, filled, where no more is known.
        classes: ``(N,)`` class indices; None where they are not judged.
        boxes_only: The masks are boxes: figures of masks are then not defined, and chromosomes
            count as found by their boxes.
    """

    masks: BoolArray
    classes: NDArray[np.integer[Any]] | None = None
    boxes_only: bool = False


@dataclass(frozen=True, eq=False)
class SegmentationReport:
    """What :func:`evaluate_segmentation` found.

    ``metrics`` maps the names of :data:`METRICS` to intervals; ``max_detections`` is the number of
    predictions of one image that the average precision looked at, best first.
    """

    n_images: int
    n_chromosomes: int
    max_detections: int
    score_threshold: float
    metrics: Mapping[str, Interval]

    def to_row(self) -> dict[str, float | int]:
        """Counts and metrics as the columns of a result file.

        Returns:
            ``{'n_images': 16, ..., 'box_ap': 0.7213, 'box_ap_low': ..., 'box_ap_high': ...}``,
            rounded to 4 decimals; NaN where a figure is not defined.
        """
        row: dict[str, float | int] = {
            "n_images": self.n_images,
            "n_chromosomes": self.n_chromosomes,
            "max_detections": self.max_detections,
            "score_threshold": self.score_threshold,
        }
        return row | rounded(self.metrics)


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """What is wrong in one image.

    Attributes:
        missed: ``(m,)`` indices of the true chromosomes that no prediction matches.
        extra: ``(k,)`` indices of the predictions above the score threshold that match none.
    """

    missed: IntArray
    extra: IntArray


def evaluate_segmentation(
    predictions: Iterable[Detections],
    targets: Iterable[BoolArray | TrueChromosomes],
    *,
    score_threshold: float = 0.5,
    max_detections: int | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> SegmentationReport:
    """Measures a segmenter on whole images.

    - ``box_ap``, ``mask_ap``: COCO's average precision, mean over IoU .50:.05:.95 and 101 recalls.
      ``..50``, ``..75``: at that IoU alone. ``..s``, ``..m``: of true chromosomes whose mask has at
      most 32^2, or 32^2 to 96^2, pixels, so they depend on the scale of the images.
    - ``mask_ap_overlap``, ``mask_ap50_overlap``: of true chromosomes that share at least 1 % of
      their pixels with another one. What is found of the others counts neither way; a prediction
      that matches nothing at all is an error here, too.
    - ``class_box_ap``, ``..50``, ``..75``: of the boxes of each class alone, mean over the classes
      that there are. A prediction with ``class_probabilities`` counts for each class, with its score
      times the probability of the class, as those of other detectors do.
    - ``exact_match_rate``: share of the images without error: every chromosome is matched at mask IoU
      >= 0.5 by one prediction of at least ``score_threshold``, and none of these is left over.
    - ``relative_count_error``: mean over images of (missed + left over) / true chromosomes (AER).
    - ``count_error``, ``count_bias``: mean over images of |predicted - true| and of predicted -
      true, in chromosomes.

    With true chromosomes and no prediction, precision is 0; without true chromosomes (of the kind
    that counts) precision and error ratio are NaN, and so is everything where there is no image.

    Args:
        predictions: One for each image. A generator is consumed image by image, together with
            ``targets``: only one image is held in memory.
        targets: Of each image the ``(N, H, W)`` bool masks, or :class:`TrueChromosomes`, all with
            classes or none. The box of a chromosome is the tight box of its mask.
        score_threshold: Least score of the predictions that the last four metrics look at.
        max_detections: Predictions of one image that count for average precision, best first.
            None: COCO's 100, or twice the most chromosomes of an image where one has more than
            100, for COCO's limit would then count chromosomes as missed that were found.
        n_bootstrap: Resamples of the images behind each interval; 0: no intervals (NaN).
        seed: Of the resampling.

    Raises:
        EvaluationError: Arrays that do not fit together, scores that are not finite, or a true
            mask without a pixel; the message says which image.
        ValueError: There are more predictions than targets, or fewer.
    """
    images = [
        _compare(found, true, number)
        for number, (found, true) in enumerate(zip(predictions, targets, strict=True))
    ]
    n_images = len(images)
    counts = np.array([len(image.true_areas) for image in images], np.int64)
    most = int(counts.max(initial=0))
    if max_detections is None:
        max_detections = 2 * most if most > COCO_MAX_DETECTIONS else COCO_MAX_DETECTIONS
    draws = bootstrap_counts(n_images, n_bootstrap, seed)
    # A few images have few different resamples.
    distinct, which_draw = np.unique(draws, axis=0, return_inverse=True)

    samples = {}
    precisions: dict[tuple[str, str], FloatArray] = {}
    for name, (geometry, which, thresholds) in _PRECISIONS.items():
        if (geometry, which) not in precisions:
            curve = _Curve.of(images, geometry, which, max_detections)
            values = np.array([curve.precision(draw) for draw in distinct])
            precisions[geometry, which] = values[which_draw]
        samples[name] = precisions[geometry, which][:, thresholds].mean(axis=1)
        if geometry == "mask" and any(image.boxes_only for image in images):
            samples[name] = np.full(len(draws), np.nan)
    by_class = _class_precision(images, distinct, max_detections)[which_draw]
    for name, thresholds in zip(CLASS_METRICS, (_ALL, _AT_50, _AT_75), strict=True):
        samples[name] = by_class[:, thresholds].mean(axis=1)
    samples |= _count_metrics(images, counts, draws, score_threshold)
    return SegmentationReport(
        n_images=n_images,
        n_chromosomes=int(counts.sum()),
        max_detections=max_detections,
        score_threshold=score_threshold,
        metrics={name: percentile_interval(samples[name], n_images) for name in METRICS},
    )


def image_errors(
    prediction: Detections, masks: BoolArray, score_threshold: float = 0.5
) -> ImageErrors:
    """Which chromosomes of an image are missed, and which predictions are left over.

    Args:
        prediction: Of one image.
        masks: ``(N, H, W)`` bool, the true ones.
        score_threshold: Predictions with less are not looked at.

    Raises:
        EvaluationError: As :func:`evaluate_segmentation`.
    """
    image = _compare(prediction, masks, 0)
    order = np.argsort(-np.asarray(prediction.scores, np.float64), kind="stable")
    matched = _matched_above(image, score_threshold)
    return ImageErrors(
        missed=np.setdiff1d(np.arange(len(masks)), matched),
        extra=np.sort(order[: len(matched)][matched < 0]),
    )


@dataclass(frozen=True, eq=False)
class _Image:
    """All that is kept of one image; its D predictions are sorted by score."""

    scores: FloatArray  # (D,)
    ious: dict[str, FloatArray]  # of 'box' and 'mask': (D, G)
    areas: dict[str, FloatArray]  # of the predicted boxes and masks: (D,)
    true_areas: FloatArray  # of the true masks: (G,)
    overlapping: BoolArray  # (G,)
    labels: NDArray[np.integer[Any]] | None  # (D,); None without classes
    class_probabilities: FloatArray | None  # (D, classes); None where labels alone are known
    true_labels: NDArray[np.integer[Any]] | None  # (G,)
    boxes_only: bool

    def of_class(self, label: int) -> "_Image":
        """What there is and what was found of one class."""
        there = self.true_labels == label
        if self.class_probabilities is None:
            scores, found = self.scores, np.flatnonzero(self.labels == label)
        else:
            scores = self.scores * self.class_probabilities[:, label]
            found = np.argsort(-scores, kind="stable")
            found = found[scores[found] >= MIN_CLASS_SCORE]
        return replace(
            self,
            scores=scores[found],
            ious={kind: values[found][:, there] for kind, values in self.ious.items()},
            areas={kind: values[found] for kind, values in self.areas.items()},
            true_areas=self.true_areas[there],
            overlapping=self.overlapping[there],
        )


def _compare(found: Detections, true: BoolArray | TrueChromosomes, number: int) -> _Image:
    if not isinstance(true, TrueChromosomes):
        true = TrueChromosomes(true)
    masks = true.masks
    predicted = np.asarray(found.masks)
    boxes = np.asarray(found.boxes, np.float64)
    scores = np.asarray(found.scores, np.float64)
    masks = np.asarray(masks)
    n = len(scores)
    if (
        masks.ndim != 3
        or predicted.shape != (n, *masks.shape[1:])
        or boxes.shape != (n, 4)
        or predicted.dtype != bool
        or masks.dtype != bool
    ):
        raise EvaluationError(
            f"Image {number}: predicted masks {predicted.dtype} {predicted.shape}, boxes "
            f"{boxes.shape} and scores {scores.shape} do not fit the true masks {masks.dtype} "
            f"{masks.shape}: give bool masks (N, H, W) of one size, boxes (N, 4), scores (N,)."
        )
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise EvaluationError(f"Image {number}: scores or boxes hold NaN or infinity.")
    true_areas = masks.sum(axis=(1, 2)).astype(np.float64)
    if not true_areas.all():
        raise EvaluationError(
            f"Image {number}: true mask {int(true_areas.argmin())} has no pixel: leave it out."
        )
    order = np.argsort(-scores, kind="stable")
    runs, true_runs = _runs(predicted[order]), _runs(masks)
    boxes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])[order]
    # With a 'crowd' of truth COCO divides by the area of the first mask alone.
    shared = _iou(true_runs, true_runs, crowd=True)
    np.fill_diagonal(shared, 0)
    return _Image(
        scores=scores[order],
        ious={"box": _iou(boxes, _boxes(masks)), "mask": _iou(runs, true_runs)},
        areas={
            "box": boxes[:, 2] * boxes[:, 3],
            "mask": predicted[order].sum(axis=(1, 2)).astype(np.float64),
        },
        true_areas=true_areas,
        overlapping=shared.max(axis=1, initial=0) >= OVERLAP_SHARE,
        labels=None if true.classes is None else np.asarray(found.labels)[order],
        class_probabilities=None
        if true.classes is None or found.class_probabilities is None
        else np.asarray(found.class_probabilities, np.float64)[order],
        true_labels=true.classes,
        boxes_only=true.boxes_only,
    )


def _runs(masks: BoolArray) -> list[Any]:
    if not len(masks):
        return []
    runs: list[Any] = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return runs


def _boxes(masks: BoolArray) -> FloatArray:
    """Tight boxes ``(N, 4)`` xywh of masks that have pixels."""
    sides = []
    for axis in (1, 2):
        inside: BoolArray = np.asarray(masks.any(axis=axis))
        first = inside.argmax(axis=1)
        sides.append((first, inside.shape[1] - inside[:, ::-1].argmax(axis=1) - first))
    (x, width), (y, height) = sides
    return np.stack([x, y, width, height], axis=1).astype(np.float64)


def _iou(predicted: Any, true: Any, crowd: bool = False) -> FloatArray:
    if not len(predicted) or not len(true):
        return np.zeros((len(predicted), len(true)))
    return np.asarray(coco_mask.iou(predicted, true, [int(crowd)] * len(true)), np.float64)


def _match(ious: FloatArray, ignored: BoolArray, thresholds: FloatArray) -> IntArray:
    """COCO's greedy matching.

    Every prediction, best first, takes the free truth of the highest IoU; one that is ignored only
    if no other is left.

    Args:
        ious: ``(D, G)``.
        ignored: ``(G,)``, true chromosomes that do not count.
        thresholds: ``(T,)``, least IoU.

    Returns:
        ``(T, D)``: the truth of each prediction, -1 for none.
    """
    n_predicted, n_true = ious.shape
    matched: IntArray = np.full((len(thresholds), n_predicted), -1, np.int64)
    if not n_true:
        return matched
    free = np.ones((len(thresholds), n_true), bool)
    rows = np.arange(len(thresholds))
    for index, iou in enumerate(ious):
        possible: BoolArray = free & (iou >= thresholds[:, None])
        counted: BoolArray = possible & ~ignored
        any_counted = counted.any(axis=1)
        possible[any_counted] = counted[any_counted]
        # Of equal IoUs COCO takes the last.
        best = n_true - 1 - np.where(possible, iou, -1.0)[:, ::-1].argmax(axis=1)
        taken = possible[rows, best]
        matched[taken, index] = best[taken]
        free[rows[taken], best[taken]] = False
    return matched


@dataclass(frozen=True, eq=False)
class _Curve:
    """The matches of all images, the predictions sorted by score: precision is a sum over them."""

    image: IntArray  # (D,) index of the image of each prediction
    true: BoolArray  # (T, D)
    false: BoolArray  # (T, D); what matches an ignored chromosome is neither
    n_true: IntArray  # (I,) chromosomes of each image that count

    @classmethod
    def of(cls, images: list[_Image], geometry: str, which: str, limit: int) -> "_Curve":
        """Of the true chromosomes ``which`` counts: a name of AREAS, or ``'overlapping'``."""
        low, high = AREAS.get(which, AREAS["all"])
        scores, index = [np.zeros(0)], [np.zeros(0, np.int64)]
        true, false = ([np.zeros((len(IOU_THRESHOLDS), 0), bool)] for _ in range(2))
        n_true = []
        for number, image in enumerate(images):
            ignored = (image.true_areas < low) | (image.true_areas > high)
            if which == "overlapping":
                ignored = ~image.overlapping
            matched = _match(image.ious[geometry][:limit], ignored, IOU_THRESHOLDS)
            areas = image.areas[geometry][:limit]
            of_other_size = (areas < low) | (areas > high)
            is_matched = matched >= 0
            counts = np.append(~ignored, False)[matched]  # -1 takes the one at the end
            scores.append(image.scores[:limit])
            index.append(np.full(len(areas), number))
            true.append(counts)
            false.append(~is_matched & ~of_other_size)
            n_true.append(np.count_nonzero(~ignored))
        order = np.argsort(-np.concatenate(scores), kind="stable")
        return cls(
            image=np.concatenate(index)[order],
            true=np.hstack(true)[:, order],
            false=np.hstack(false)[:, order],
            n_true=np.array(n_true, np.int64),
        )

    def precision(self, weights: FloatArray) -> FloatArray:
        """Average precision ``(T,)`` of a resample.

        Args:
            weights: ``(I,)``, how often each image is in it.
        """
        n_true = weights @ self.n_true
        if not n_true:
            return np.full(len(IOU_THRESHOLDS), np.nan)
        weight = weights[self.image]
        true, false = (np.cumsum(hits * weight, axis=1) for hits in (self.true, self.false))
        precision = true / (true + false + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Recalls that are never reached have precision 0.
        envelope = np.hstack([envelope, np.zeros((len(envelope), 1))])
        first = [np.searchsorted(recall, RECALLS) for recall in true / n_true]
        return np.asarray(np.take_along_axis(envelope, np.array(first), axis=1).mean(axis=1))


def _class_precision(images: list[_Image], draws: FloatArray, limit: int) -> FloatArray:
    """Box precision ``(n_draws, T)``, mean over the classes; NaN where the truth has none."""
    known = [image.true_labels for image in images if image.true_labels is not None]
    if not known or len(known) < len(images):
        return np.full((len(draws), len(IOU_THRESHOLDS)), np.nan)
    by_class = []
    for label in np.unique(np.concatenate(known)):
        curve = _Curve.of([image.of_class(int(label)) for image in images], "box", "all", limit)
        by_class.append([curve.precision(draw) for draw in draws])
    with warnings.catch_warnings():
        # A resample may have nothing of any class.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(np.array(by_class), axis=0))


def _matched_above(image: _Image, score_threshold: float) -> IntArray:
    """Truth of each prediction above the threshold, at IoU 0.5 of masks; -1 for none."""
    ious = image.ious["box" if image.boxes_only else "mask"][image.scores >= score_threshold]
    (matched,) = _match(ious, np.zeros(ious.shape[1], bool), IOU_THRESHOLDS[:1])
    return np.asarray(matched)


def _count_metrics(
    images: list[_Image], counts: IntArray, draws: FloatArray, score_threshold: float
) -> dict[str, FloatArray]:
    """Each of COUNT_METRICS for each row of ``draws (n_samples, n_images)``."""
    matched = [_matched_above(image, score_threshold) for image in images]
    predicted = np.array([len(m) for m in matched], np.int64)
    errors = predicted + counts - 2 * np.array([np.count_nonzero(m >= 0) for m in matched], int)
    difference = (predicted - counts).astype(np.float64)
    some, everywhere = counts > 0, np.ones(len(images), bool)
    figures = {
        "exact_match_rate": (errors == 0, everywhere),
        "relative_count_error": (errors / np.maximum(counts, 1), some),
        "count_error": (np.abs(difference), everywhere),
        "count_bias": (difference, everywhere),
    }
    with np.errstate(invalid="ignore"):  # 0 / 0 where no image has the figure
        return {
            name: draws @ np.where(defined, values, 0) / (draws @ defined)
            for name, (values, defined) in figures.items()
        }
