"""End-to-end karyotyping metrics: every chromosome of a metaphase is to be detected and classified.

The metrics are those of Wang et al. 2024 (IEEE Access 12:46081), who counted by hand; here they are
computed. Predictions are matched with the true chromosomes, and a class is correct only for a
detected chromosome. Intervals come from resampling images, because the chromosomes of one metaphase
are not independent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASSES, DIPLOID_NUMBER
from chromozoo.metrics.bootstrap import (
    EvaluationError,
    Interval,
    bootstrap_counts,
    divide,
    percentile_interval,
    round_intervals,
)
from chromozoo.metrics.edits import (
    EDIT_METRICS,
    EDITS,
    Overlap,
    count_edits,
    match_chromosomes,
)
from chromozoo.structures.arrays import FloatArray, IntArray
from chromozoo.structures.karyotyped_cell import Instances, PredictedCell, TrueCell

BACKGROUND = len(CLASSES)  # class of missed chromosomes and of false detections
# Share of chromosomes with a certain class that an image needs for the classification metrics.
MIN_CERTAIN = 0.8

CLASSIFICATION_METRICS = (
    "fka",
    "fka_46",
    "oca",
    "macro_precision",
    "macro_precision_found",
    "macro_recall",
    "exact_match_rate",
)
REVIEW_METRICS = ("review_share", "review_recall")
SEGMENTATION_METRICS = (
    "segmentation_recall",
    "segmentation_precision",
    "count_error",
    "count_bias",
)
# All metrics of a report, in the order of result files.
METRICS = (
    *CLASSIFICATION_METRICS,
    *(f"unassigned_{name}" for name in CLASSIFICATION_METRICS),
    *REVIEW_METRICS,
    *EDIT_METRICS,
    *SEGMENTATION_METRICS,
)
# Minimum share of correct chromosomes for the cases of table III of Wang et al. 2024.
CASES = {"cases_42": 42 / 46, "cases_37": 37 / 46, "cases_33": 33 / 46, "cases_fewer": 0.0}


@dataclass(frozen=True)
class CellResult:
    """Numbers of chromosomes of one image.

    Attributes:
        name: Name of the image.
        by_masks: Whether masks were matched; otherwise boxes.
        has_classes: Whether the image counts for the classification metrics, see
            :func:`evaluate_karyotyping`.
        true: True chromosomes.
        found: Predictions.
        matched: Matched pairs.
        certain: True chromosomes with a certain class; 0 unless ``has_classes``.
        correct: Detected and correctly classified chromosomes among ``certain``.
        misclassified: Detected and misclassified chromosomes among ``certain``.
        edits: Number of edits of each of :data:`EDITS`, see :func:`evaluate_karyotyping`;
            ``"relabel"`` is 0 unless ``has_classes``.
    """

    name: str
    by_masks: bool
    has_classes: bool
    true: int
    found: int
    matched: int
    certain: int
    correct: int
    misclassified: int
    edits: Mapping[str, int]

    @property
    def wrong(self) -> int:
        """Missed and misclassified chromosomes among ``certain``."""
        return self.certain - self.correct


@dataclass(frozen=True, eq=False)
class KaryotypingReport:
    """The result of :func:`evaluate_karyotyping`.

    Attributes:
        metrics: Intervals by the names of :data:`METRICS`; ``unassigned_`` and ``review_`` metrics
            only if the predictions have unassigned classes and review flags.
        confusion: ``(25, 25)`` counts by true and predicted class in the order of ``CLASSES``, then
            background: its column holds missed chromosomes, its row false detections.
        unassigned_confusion: ``confusion`` before the assignment of the cells; None without it.
        cells: Result of each image.
    """

    metrics: Mapping[str, Interval]
    confusion: IntArray
    unassigned_confusion: IntArray | None
    cells: tuple[CellResult, ...]

    @property
    def geometry(self) -> str:
        """Geometry of the matching: ``"mask"``, ``"box"``, or ``"mixed"``."""
        by_masks = {cell.by_masks for cell in self.cells}
        return "mixed" if len(by_masks) > 1 else "mask" if by_masks.pop() else "box"

    @property
    def case_histogram(self) -> dict[str, int]:
        """Numbers of cells by :data:`CASES`, as in table III of Wang et al. 2024.

        The paper counts cells with at least 42, 37 or 33 correct chromosomes of 46; here the same
        shares of the certain chromosomes count, because not every image has 46.
        """
        shares = [cell.correct / cell.certain for cell in self.cells if cell.has_classes]
        reached = [sum(share >= min_share for share in shares) for min_share in CASES.values()]
        counts = (more - fewer for fewer, more in pairwise([0, *reached]))
        return dict(zip(CASES, counts, strict=True))

    def to_row(self) -> dict[str, float | int | str]:
        """Return counts and metrics as the columns of a result file.

        Returns:
            ``{'n_images': 16, 'n_named_images': 14, 'n_chromosomes': 728, 'n_certain': 615,
            'geometry': 'mask', 'fka': 0.9317, 'fka_low': ..., 'fka_high': ..., ...,
            'cases_42': 10, ...}``, rounded to 4 decimals; NaN for an undefined metric.
        """
        row: dict[str, float | int | str] = {
            "n_images": len(self.cells),
            "n_named_images": sum(cell.has_classes for cell in self.cells),
            "n_chromosomes": sum(cell.true for cell in self.cells),
            "n_certain": sum(cell.certain for cell in self.cells),
            "geometry": self.geometry,
        }
        return row | round_intervals(self.metrics) | self.case_histogram


def evaluate_karyotyping(
    found: Iterable[PredictedCell],
    true: Iterable[TrueCell],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> KaryotypingReport:
    """Evaluate karyotyping on metaphase images.

    **Matching.** Predictions and true chromosomes are matched one to one at a mask IoU of at least
    0.5, or a box IoU if either side has no masks. The matching maximises the sum of IoU (optimal
    assignment). A greedy matching would depend on the order: where the boxes of crossing
    chromosomes overlap, it may use up the only prediction that fits a neighbour. Classes and scores
    do not affect the matching.

    **Uncertain truth.** Classification metrics use only images in which at least 0.8 of the
    chromosomes have a certain class, and within them only chromosomes with a certain class. A
    prediction that matches an uncertain chromosome is ignored; a prediction without a match is a
    false detection. Segmentation metrics use all images.

    Classification metrics:

    - ``fka``, full karyotyping accuracy: correct / true chromosomes, where a correct chromosome is
      detected and correctly classified.
    - ``fka_46``: correct / 46, as in the paper, over the images with 46 true chromosomes. The
      uncertain ones are among the 46, so a perfect karyotyper may stay below 1.
    - ``oca``, only-classification accuracy: correct / predictions, including false detections.
    - ``macro_precision``, ``macro_recall``: mean over the true classes of TP / (TP + FP) and
      TP / (TP + FN), where a missed chromosome is a FN and a false detection a FP of its class.
      ``macro_precision_found`` ignores false detections, as in the paper, which calls a bad segment
      background and thus no FP of any class.
    - ``exact_match_rate``: share of cells without error: every chromosome is detected, including
      uncertain ones, every certain one is correctly classified, and there are no false detections
      (WCR).
    - ``unassigned_...``: the same for ``unassigned_classes``, the classes before the assignment of
      the cell.
    - ``review_share``: flagged / predictions. ``review_recall``: flagged errors / errors, where an
      error is a misclassified prediction or a false detection. Missed chromosomes cannot be flagged
      and are not counted.
    - ``edits``, ``edits_relabel``, ...: mean number of manual corrections per cell, as below.

    Segmentation metrics:

    - ``segmentation_recall``, ``segmentation_precision``: matched / true, matched / predictions.
    - ``count_error``, ``count_bias``: mean over images of |predictions - true| and of predictions -
      true, in chromosomes.

    **Edits** follow from the overlap of predictions and true chromosomes. Each of them is edited
    once, in this order:

    1. *split*: a missed chromosome is assigned to the prediction that covers the largest share of
       it, at least half. A prediction that covers k >= 2 chromosomes (including its match) takes
       k - 1 splits.
    2. *merge*: a prediction without a match is a fragment of the chromosome that contains the
       largest share of its pixels, at least half, unless a larger fragment contains half of them.
       The match of the chromosome is a fragment, too. k fragments take k - 1 merges; without a
       match only if k >= 2 fragments together cover at least half of the chromosome.
    3. *delete*: every other prediction without a match.
    4. *add*: every other missed chromosome, drawn by hand.
    5. *relabel*: every misclassified pair. Chromosomes that are split, merged or added get their
       class in the same step. Uncertain classes are not relabelled.

    Matched masks are accepted; correcting an edge is not an edit.

    Rates are fractions, edits and counts are numbers. An undefined metric, such as
    ``review_recall`` without errors, is NaN, and resamples without it are ignored in its interval.
    The interval of a single image (for classification: a single one with certain classes) is NaN.

    Args:
        found: Predictions for each image, in the order of ``true``. Both may be generators; they
            are consumed together, one image at a time.
        true: True chromosomes of the same images.
        n_bootstrap: Number of resamples of the images for each interval; 0 for no intervals (NaN).
        seed: Seed of the resampling.

    Raises:
        EvaluationError: No images, different images or sizes, arrays that do not fit together, a
            true chromosome without area, or invalid classes; the message gives the image.
        ValueError: The numbers of images differ.
    """
    images = [compare_image(*pair) for pair in zip(found, true, strict=True)]
    if not images:
        raise EvaluationError("There are no images to evaluate: check the data set and the stage.")
    for field, given in (
        ("unassigned_classes", [image.unassigned_confusion is not None for image in images]),
        ("needs_review", [image.review_counts is not None for image in images]),
    ):
        if any(given) and not all(given):
            raise EvaluationError(
                f"Image {images[given.index(False)].cell.name!r} has no {field}, but others have: "
                "give it for all images or for none."
            )
    n_images = len(images)
    draws = bootstrap_counts(n_images, n_bootstrap, seed)
    cells = tuple(image.cell for image in images)
    has_classes = np.array([cell.has_classes for cell in cells])
    confusions = np.stack([image.confusion for image in images])
    samples = classification_metrics(confusions, cells, draws)
    unassigned_confusion: IntArray | None = None
    if images[0].unassigned_confusion is not None:
        unassigned = np.stack(
            [
                image.unassigned_confusion
                for image in images
                if image.unassigned_confusion is not None
            ]
        )
        unassigned_confusion = unassigned.sum(axis=0)
        for name, values in classification_metrics(unassigned, cells, draws).items():
            samples[f"unassigned_{name}"] = values
    if images[0].review_counts is not None:
        reviews = np.array([i.review_counts for i in images if i.review_counts is not None])
        n_evaluated, n_flagged, n_errors, n_flagged_errors = (draws @ reviews).T
        samples["review_share"] = divide(n_flagged, n_evaluated)
        samples["review_recall"] = divide(n_flagged_errors, n_errors)
    for kind in EDITS:
        numbers = np.array([cell.edits[kind] for cell in cells])
        samples[f"edits_{kind}"] = divide(draws @ (numbers * has_classes), draws @ has_classes)
    samples["edits"] = np.sum([samples[f"edits_{kind}"] for kind in EDITS], axis=0)
    samples |= segmentation_metrics(cells, draws)

    return KaryotypingReport(
        metrics={
            name: percentile_interval(
                samples[name], n_images if name in SEGMENTATION_METRICS else int(has_classes.sum())
            )
            for name in METRICS
            if name in samples
        },
        confusion=confusions.sum(axis=0),
        unassigned_confusion=unassigned_confusion,
        cells=cells,
    )


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The counts of one image.

    Attributes:
        cell: Numbers of chromosomes.
        confusion: ``(25, 25)``; 0 unless the image counts for the classification metrics.
        unassigned_confusion: ``confusion`` before the assignment of the cell; None without it.
        review_counts: ``(4,)`` numbers of evaluated, flagged, wrong, and flagged wrong predictions;
            None without review flags.
    """

    cell: CellResult
    confusion: IntArray
    unassigned_confusion: IntArray | None
    review_counts: IntArray | None


def compare_image(found: PredictedCell, true: TrueCell) -> ImageResult:
    """Match and count the chromosomes of one image, or raise an EvaluationError."""
    _check_inputs(found, true)
    overlap = Overlap.of(found.instances, true.instances)
    if not overlap.true.all():
        raise EvaluationError(
            f"Image {true.name!r}: true chromosome {int(overlap.true.argmin())} has no area: leave "
            "it out."
        )
    matched = match_chromosomes(overlap.iou())
    true_classes = np.asarray(true.classes, np.int64)
    n_true, n_found = overlap.shared.shape[1], overlap.shared.shape[0]
    certain = true_classes >= 0
    has_classes = bool(n_true and certain.mean() >= MIN_CERTAIN)
    if not has_classes:
        certain = np.zeros(n_true, bool)
    # The true class of each prediction, and whether it is evaluated; -1 takes the appended entry.
    target = np.append(true_classes, BACKGROUND)[matched]
    is_evaluated = np.append(certain, has_classes)[matched]
    missed = true_classes[certain & ~np.isin(np.arange(n_true), matched)]

    def confusion(classes: NDArray[np.integer[Any]]) -> IntArray:
        counts: IntArray = np.zeros((BACKGROUND + 1, BACKGROUND + 1), np.int64)
        np.add.at(counts, (target[is_evaluated], np.asarray(classes)[is_evaluated]), 1)
        counts[:, BACKGROUND] += np.bincount(missed, minlength=BACKGROUND + 1)
        return counts

    final_confusion = confusion(found.classes)
    is_wrong = is_evaluated & (target != found.classes)
    misclassified = int((is_wrong & (matched >= 0)).sum())
    edits = count_edits(overlap, matched) | {"relabel": misclassified}
    review_counts = None
    if found.needs_review is not None:
        subsets = (
            is_evaluated,
            is_evaluated & found.needs_review,
            is_wrong,
            is_wrong & found.needs_review,
        )
        review_counts = np.array([subset.sum() for subset in subsets], np.int64)
    return ImageResult(
        cell=CellResult(
            name=true.name,
            by_masks=overlap.by_masks,
            has_classes=has_classes,
            true=n_true,
            found=n_found,
            matched=int((matched >= 0).sum()),
            certain=int(certain.sum()),
            correct=int(np.trace(final_confusion)),
            misclassified=misclassified,
            edits={kind: edits[kind] for kind in EDITS},
        ),
        confusion=final_confusion,
        unassigned_confusion=None
        if found.unassigned_classes is None
        else confusion(found.unassigned_classes),
        review_counts=review_counts,
    )


def _check_inputs(found: PredictedCell, true: TrueCell) -> None:
    """Raise an EvaluationError if the two cannot be compared."""
    name = f"Image {true.name!r}"
    if found.name != true.name:
        raise EvaluationError(
            f"{name} is compared with the predictions for {found.name!r}: give both in one order."
        )
    if tuple(found.instances.shape) != tuple(true.instances.shape):
        raise EvaluationError(
            f"{name} is {tuple(true.instances.shape)}, its predictions {found.instances.shape} "
            "(height, width): give both in pixels of the same image."
        )
    for side, outlines in (("true", true.instances), ("predicted", found.instances)):
        boxes, crops, corners = outlines.boxes, outlines.crops, outlines.corners
        n = len(boxes)
        if np.shape(boxes) != (n, 4) or not np.isfinite(boxes).all():
            raise EvaluationError(
                f"{name}: {side} boxes have shape {np.shape(boxes)} or hold NaN: give finite "
                "xyxy (N, 4)."
            )
        if crops is None:
            continue
        if len(crops) != n or corners is None or corners.shape != (n, 2):
            raise EvaluationError(
                f"{name}: {len(crops)} {side} masks, their corners and {n} boxes do not fit "
                "together: give N of each, corners (N, 2)."
            )
        if any(crop.dtype != bool or crop.ndim != 2 for crop in crops):
            raise EvaluationError(f"{name}: a {side} mask is not a bool array: give (h, w).")
    for field, classes, outlines, lowest in (
        ("true classes", true.classes, true.instances, -1),
        ("classes", found.classes, found.instances, 0),
        ("unassigned_classes", found.unassigned_classes, found.instances, 0),
    ):
        if classes is None:
            continue
        _check_length(name, field, classes, outlines)
        values = np.asarray(classes)
        if not np.issubdtype(values.dtype, np.integer) or (
            values.size and not (lowest <= values.min() and values.max() < len(CLASSES))
        ):
            raise EvaluationError(
                f"{name}: {field} must be integers {lowest}..{len(CLASSES) - 1}, indices into "
                "chromozoo.classes.CLASSES."
            )
    if found.needs_review is not None:
        _check_length(name, "needs_review", found.needs_review, found.instances)
        if np.asarray(found.needs_review).dtype != bool:
            raise EvaluationError(
                f"{name}: needs_review must be bool, True for chromosomes that need review."
            )


def _check_length(name: str, field: str, values: NDArray[Any], outlines: Instances) -> None:
    if np.shape(values) != (len(outlines.boxes),):
        raise EvaluationError(
            f"{name}: {field} have shape {np.shape(values)} for {len(outlines.boxes)} chromosomes: "
            "give one for each."
        )


def classification_metrics(
    confusions: IntArray, cells: tuple[CellResult, ...], draws: FloatArray
) -> dict[str, FloatArray]:
    """Return each of CLASSIFICATION_METRICS for each row of ``draws (n_samples, n_images)``."""
    n_images = len(cells)
    summed = (draws @ confusions.reshape(n_images, -1)).reshape(-1, *confusions.shape[1:])
    correct = np.diagonal(summed, axis1=1, axis2=2)[:, :BACKGROUND]
    n_true = summed[:, :BACKGROUND].sum(axis=2)
    n_predicted = summed[:, :, :BACKGROUND].sum(axis=1)
    n_found = summed[:, :BACKGROUND, :BACKGROUND].sum(axis=1)

    def macro_average(n: FloatArray) -> FloatArray:
        # A true class that is never predicted has precision 0.
        each = divide(correct, n, undefined=0.0)
        return divide((each * (n_true > 0)).sum(axis=1), (n_true > 0).sum(axis=1))

    per_image = np.trace(confusions, axis1=1, axis2=2)
    has_classes = np.array([cell.has_classes for cell in cells])
    has_46 = np.array([cell.has_classes and cell.true == DIPLOID_NUMBER for cell in cells])
    is_exact = has_classes & np.array(
        [
            cell.matched == cell.true == cell.found and right == cell.certain
            for cell, right in zip(cells, per_image, strict=True)
        ]
    )
    n_correct = correct.sum(axis=1)
    return {
        "fka": divide(n_correct, n_true.sum(axis=1)),
        "fka_46": divide(draws @ (per_image * has_46), DIPLOID_NUMBER * (draws @ has_46)),
        "oca": divide(n_correct, n_predicted.sum(axis=1)),
        "macro_precision": macro_average(n_predicted),
        "macro_precision_found": macro_average(n_found),
        "macro_recall": macro_average(n_true),
        "exact_match_rate": divide(draws @ is_exact, draws @ has_classes),
    }


def segmentation_metrics(cells: tuple[CellResult, ...], draws: FloatArray) -> dict[str, FloatArray]:
    """Return each of SEGMENTATION_METRICS for each row of ``draws (n_samples, n_images)``."""
    counts = np.array([(cell.true, cell.found, cell.matched) for cell in cells], np.float64)
    n_true, n_found, n_matched = (draws @ counts).T
    difference = counts[:, 1] - counts[:, 0]
    return {
        "segmentation_recall": divide(n_matched, n_true),
        "segmentation_precision": divide(n_matched, n_found),
        "count_error": draws @ np.abs(difference) / draws.sum(axis=1),
        "count_bias": draws @ difference / draws.sum(axis=1),
    }
