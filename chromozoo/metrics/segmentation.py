"""Instance segmentation metrics with bootstrap intervals over images.

Average precision is COCO's, for boxes and for masks. RLE masks and IoUs come from faster-coco-eval,
and the tests compare every average precision with its ``COCOeval`` to 1e-9. Matching and
accumulation are reimplemented because the bootstrap needs the matches, which the library does not
return: predictions are matched once for each image, and a resample only accumulates them again.
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
    round_intervals,
)
from chromozoo.structures.arrays import BoolArray, FloatArray, IntArray

BACKEND = f"faster-coco-eval {version('faster-coco-eval')}"

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2)}
COCO_MAX_DETECTIONS = 100
# Predictions with a smaller score for a class do not count for that class.
MIN_CLASS_SCORE = 0.01
# A chromosome overlaps with another one if they share at least this share of its pixels.
OVERLAP_SHARE = 0.01

_ALL, _AT_50, _AT_75 = slice(None), slice(0, 1), slice(5, 6)
# Geometry, subset of the true chromosomes, and IoU thresholds that are averaged.
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
# Metrics of the predictions above the score threshold.
COUNT_METRICS = ("exact_match_rate", "relative_count_error", "count_error", "count_bias")
# Means over the classes, if the truth has classes and the model predicts them.
CLASS_METRICS = ("class_box_ap", "class_box_ap50", "class_box_ap75")
METRICS = (*PRECISION_METRICS, *CLASS_METRICS, *COUNT_METRICS)


class Detections(Protocol):
    """Predicted instances of one image, such as a ``Segmentation``."""

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
        """``(N,)`` class indices; used only if the truth has classes."""
        ...

    @property
    def class_probabilities(self) -> NDArray[np.floating[Any]] | None:
        """``(N, classes)`` class probabilities; None if only labels are known."""
        ...


@dataclass(frozen=True, eq=False)
class TrueChromosomes:
    """The true chromosomes of one image.

    Attributes:
        masks: ``(N, H, W)`` bool; filled boxes if only boxes are known.
        classes: ``(N,)`` class indices; None if classes are not evaluated.
        boxes_only: Whether the masks are boxes. Mask metrics are then undefined, and counts use
            the IoU of boxes.
    """

    masks: BoolArray
    classes: NDArray[np.integer[Any]] | None = None
    boxes_only: bool = False


@dataclass(frozen=True, eq=False)
class SegmentationReport:
    """The result of :func:`evaluate_segmentation`.

    Attributes:
        n_images: Number of images.
        n_chromosomes: Number of true chromosomes.
        max_detections: Number of predictions per image that count for average precision.
        score_threshold: Minimum score of the predictions for :data:`COUNT_METRICS`.
        metrics: Intervals by the names of :data:`METRICS`.
    """

    n_images: int
    n_chromosomes: int
    max_detections: int
    score_threshold: float
    metrics: Mapping[str, Interval]

    def to_row(self) -> dict[str, float | int]:
        """Return counts and metrics as the columns of a result file.

        Returns:
            ``{'n_images': 16, ..., 'box_ap': 0.7213, 'box_ap_low': ..., 'box_ap_high': ...}``,
            rounded to 4 decimals; NaN for an undefined metric.
        """
        row: dict[str, float | int] = {
            "n_images": self.n_images,
            "n_chromosomes": self.n_chromosomes,
            "max_detections": self.max_detections,
            "score_threshold": self.score_threshold,
        }
        return row | round_intervals(self.metrics)


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """The errors of one image.

    Attributes:
        missed: ``(m,)`` indices of the true chromosomes without a match.
        extra: ``(k,)`` indices of the predictions above the score threshold without a match.
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
    """Evaluate a segmenter on metaphase images.

    - ``box_ap``, ``mask_ap``: COCO's average precision, the mean over IoU .50:.05:.95 and 101
      recalls. ``..50``, ``..75``: at that IoU. ``..s``, ``..m``: for true chromosomes whose mask
      has at most 32^2, or 32^2 to 96^2, pixels, so they depend on the scale of the images.
    - ``mask_ap_overlap``, ``mask_ap50_overlap``: for true chromosomes that share at least 1 % of
      their pixels with another one. Predictions that match any other chromosome are ignored;
      predictions without any match count as errors here, too.
    - ``class_box_ap``, ``..50``, ``..75``: box average precision of each class, mean over the true
      classes. A prediction with class probabilities counts for each class, with its score times the
      class probability, as in other detectors.
    - ``exact_match_rate``: share of images without error: every chromosome is matched at mask IoU
      >= 0.5 by one prediction with at least ``score_threshold``, and no such prediction is
      unmatched.
    - ``relative_count_error``: mean over images of (missed + unmatched) / true chromosomes (AER).
    - ``count_error``, ``count_bias``: mean over images of |predicted - true| and of predicted -
      true, in chromosomes.

    For true chromosomes without predictions, precision is 0. Without true chromosomes (of the
    subset in question), precision and relative count error are NaN. Without images, all metrics
    are NaN.

    Args:
        predictions: Predictions of each image. A generator is consumed image by image, together
            with ``targets``, so only one image is in memory.
        targets: For each image ``(N, H, W)`` bool masks or :class:`TrueChromosomes`, all with
            classes or none. The box of a chromosome is the tight box of its mask.
        score_threshold: Minimum score of the predictions for :data:`COUNT_METRICS`.
        max_detections: Number of predictions per image that count for average precision, best
            first. None takes COCO's 100, or twice the largest number of chromosomes of an image if
            this number exceeds 100, as COCO's limit would then count detected chromosomes as
            missed.
        n_bootstrap: Number of resamples of the images for each interval; 0 for no intervals (NaN).
        seed: Seed of the resampling.

    Raises:
        EvaluationError: Arrays that do not fit together, scores that are not finite, or an empty
            true mask; the message gives the image.
        ValueError: The numbers of predictions and targets differ.
    """
    images = [
        compare_image(found, true, number)
        for number, (found, true) in enumerate(zip(predictions, targets, strict=True))
    ]
    n_images = len(images)
    counts = np.array([len(image.true_areas) for image in images], np.int64)
    if max_detections is None:
        max_count = int(counts.max(initial=0))
        is_enough = max_count <= COCO_MAX_DETECTIONS
        max_detections = COCO_MAX_DETECTIONS if is_enough else 2 * max_count
    draws = bootstrap_counts(n_images, n_bootstrap, seed)
    # Few images have few distinct resamples.
    distinct, draw_index = np.unique(draws, axis=0, return_inverse=True)

    samples = {}
    precisions: dict[tuple[str, str], FloatArray] = {}
    for name, (geometry, subset, thresholds) in _PRECISIONS.items():
        if (geometry, subset) not in precisions:
            curve = PrecisionCurve.of(images, geometry, subset, max_detections)
            values = np.array([curve.precision(draw) for draw in distinct])
            precisions[geometry, subset] = values[draw_index]
        samples[name] = precisions[geometry, subset][:, thresholds].mean(axis=1)
        if geometry == "mask" and any(image.boxes_only for image in images):
            samples[name] = np.full(len(draws), np.nan)
    by_class = _class_precision(images, distinct, max_detections)[draw_index]
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
    """Find the missed chromosomes and the unmatched predictions of one image.

    Args:
        prediction: Predictions of the image.
        masks: ``(N, H, W)`` bool, true masks.
        score_threshold: Minimum score of the predictions.

    Raises:
        EvaluationError: As :func:`evaluate_segmentation`.
    """
    image = compare_image(prediction, masks, 0)
    order = np.argsort(-np.asarray(prediction.scores, np.float64), kind="stable")
    matched = _match_above(image, score_threshold)
    return ImageErrors(
        missed=np.setdiff1d(np.arange(len(masks)), matched),
        extra=np.sort(order[: len(matched)][matched < 0]),
    )


@dataclass(frozen=True, eq=False)
class MatchedImage:
    """IoUs and areas of one image with G true chromosomes; D predictions sorted by score."""

    scores: FloatArray  # (D,)
    ious: dict[str, FloatArray]  # for "box" and "mask": (D, G)
    areas: dict[str, FloatArray]  # areas of predicted boxes and masks: (D,)
    true_areas: FloatArray  # areas of true masks: (G,)
    overlapping: BoolArray  # (G,)
    labels: NDArray[np.integer[Any]] | None  # (D,); None without true classes
    class_probabilities: FloatArray | None  # (D, classes); None if only labels are known
    true_labels: NDArray[np.integer[Any]] | None  # (G,)
    boxes_only: bool

    def of_class(self, label: int) -> "MatchedImage":
        """Return the true chromosomes and the predictions of one class."""
        is_true = self.true_labels == label
        if self.class_probabilities is None:
            scores, rows = self.scores, np.flatnonzero(self.labels == label)
        else:
            scores = self.scores * self.class_probabilities[:, label]
            rows = np.argsort(-scores, kind="stable")
            rows = rows[scores[rows] >= MIN_CLASS_SCORE]
        return replace(
            self,
            scores=scores[rows],
            ious={kind: values[rows][:, is_true] for kind, values in self.ious.items()},
            areas={kind: values[rows] for kind, values in self.areas.items()},
            true_areas=self.true_areas[is_true],
            overlapping=self.overlapping[is_true],
        )


def compare_image(
    found: Detections, true: BoolArray | TrueChromosomes, number: int
) -> MatchedImage:
    """Compute IoUs and areas of one image, or raise an EvaluationError."""
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
        raise EvaluationError(
            f"Image {number}: scores or boxes hold NaN or infinity: give finite values."
        )
    true_areas = masks.sum(axis=(1, 2)).astype(np.float64)
    if not true_areas.all():
        raise EvaluationError(
            f"Image {number}: true mask {int(true_areas.argmin())} has no pixels: leave it out."
        )
    order = np.argsort(-scores, kind="stable")
    rles, true_rles = _encode(predicted[order]), _encode(masks)
    boxes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])[order]
    # For a "crowd", COCO divides the intersection by the area of the first mask alone.
    shared = _iou(true_rles, true_rles, crowd=True)
    np.fill_diagonal(shared, 0)
    return MatchedImage(
        scores=scores[order],
        ious={"box": _iou(boxes, _tight_boxes(masks)), "mask": _iou(rles, true_rles)},
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


def _encode(masks: BoolArray) -> list[Any]:
    """Return the run-length encodings of masks."""
    if not len(masks):
        return []
    rles: list[Any] = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return rles


def _tight_boxes(masks: BoolArray) -> FloatArray:
    """Return the tight boxes ``(N, 4)`` xywh of masks with pixels."""
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


def _match_greedily(ious: FloatArray, ignored: BoolArray, thresholds: FloatArray) -> IntArray:
    """Match predictions and true chromosomes like COCO.

    Each prediction, best first, takes the unmatched true chromosome with the highest IoU; ignored
    ones are taken only if no other is possible.

    Args:
        ious: ``(D, G)``.
        ignored: ``(G,)`` bool, true chromosomes that do not count.
        thresholds: ``(T,)`` minimum IoUs.

    Returns:
        ``(T, D)`` index of the true chromosome of each prediction, -1 without a match.
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
        # For equal IoUs COCO takes the last one.
        best = n_true - 1 - np.where(possible, iou, -1.0)[:, ::-1].argmax(axis=1)
        taken = possible[rows, best]
        matched[taken, index] = best[taken]
        free[rows[taken], best[taken]] = False
    return matched


@dataclass(frozen=True, eq=False)
class PrecisionCurve:
    """The matches of all images, with D predictions sorted by score and T IoU thresholds."""

    image: IntArray  # (D,) image of each prediction
    true: BoolArray  # (T, D) true positives
    false: BoolArray  # (T, D) false positives; matches of ignored chromosomes are neither
    n_true: IntArray  # (I,) number of true chromosomes that count, by image

    @classmethod
    def of(
        cls, images: list[MatchedImage], geometry: str, subset: str, max_detections: int
    ) -> "PrecisionCurve":
        """Match the true chromosomes of a subset: a key of AREAS, or ``"overlapping"``."""
        low, high = AREAS.get(subset, AREAS["all"])
        scores, index = [np.zeros(0)], [np.zeros(0, np.int64)]
        true, false = ([np.zeros((len(IOU_THRESHOLDS), 0), bool)] for _ in range(2))
        n_true = []
        for number, image in enumerate(images):
            ignored = (image.true_areas < low) | (image.true_areas > high)
            if subset == "overlapping":
                ignored = ~image.overlapping
            matched = _match_greedily(
                image.ious[geometry][:max_detections], ignored, IOU_THRESHOLDS
            )
            areas = image.areas[geometry][:max_detections]
            of_other_size = (areas < low) | (areas > high)
            is_matched = matched >= 0
            counts = np.append(~ignored, False)[matched]  # -1 takes the appended entry
            scores.append(image.scores[:max_detections])
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
        """Return the average precision ``(T,)`` of a resample.

        Args:
            weights: ``(I,)`` number of copies of each image.
        """
        n_true = weights @ self.n_true
        if not n_true:
            return np.full(len(IOU_THRESHOLDS), np.nan)
        weight = weights[self.image]
        true, false = (np.cumsum(hits * weight, axis=1) for hits in (self.true, self.false))
        precision = true / (true + false + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Recalls that are not reached have precision 0.
        envelope = np.hstack([envelope, np.zeros((len(envelope), 1))])
        first = [np.searchsorted(recall, RECALLS) for recall in true / n_true]
        return np.asarray(np.take_along_axis(envelope, np.array(first), axis=1).mean(axis=1))


def _class_precision(
    images: list[MatchedImage], draws: FloatArray, max_detections: int
) -> FloatArray:
    """Return the mean box precision of the classes ``(n_draws, T)``; NaN without true classes."""
    known = [image.true_labels for image in images if image.true_labels is not None]
    if not known or len(known) < len(images):
        return np.full((len(draws), len(IOU_THRESHOLDS)), np.nan)
    by_class = []
    for label in np.unique(np.concatenate(known)):
        of_class = [image.of_class(int(label)) for image in images]
        curve = PrecisionCurve.of(of_class, "box", "all", max_detections)
        by_class.append([curve.precision(draw) for draw in draws])
    with warnings.catch_warnings():
        # A resample may have no chromosome of any class.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(np.array(by_class), axis=0))


def _match_above(image: MatchedImage, score_threshold: float) -> IntArray:
    """Match the predictions above the threshold at mask IoU 0.5; -1 without a match."""
    ious = image.ious["box" if image.boxes_only else "mask"][image.scores >= score_threshold]
    (matched,) = _match_greedily(ious, np.zeros(ious.shape[1], bool), IOU_THRESHOLDS[:1])
    return np.asarray(matched)


def _count_metrics(
    images: list[MatchedImage], counts: IntArray, draws: FloatArray, score_threshold: float
) -> dict[str, FloatArray]:
    """Return each of COUNT_METRICS ``(n_samples,)`` for ``draws (n_samples, n_images)``."""
    matched = [_match_above(image, score_threshold) for image in images]
    predicted = np.array([len(m) for m in matched], np.int64)
    errors = predicted + counts - 2 * np.array([np.count_nonzero(m >= 0) for m in matched], int)
    difference = (predicted - counts).astype(np.float64)
    not_empty, everywhere = counts > 0, np.ones(len(images), bool)
    metrics = {
        "exact_match_rate": (errors == 0, everywhere),
        "relative_count_error": (errors / np.maximum(counts, 1), not_empty),
        "count_error": (np.abs(difference), everywhere),
        "count_bias": (difference, everywhere),
    }
    with np.errstate(invalid="ignore"):  # 0 / 0 if no image has the metric
        return {
            name: draws @ np.where(defined, values, 0) / (draws @ defined)
            for name, (values, defined) in metrics.items()
        }
