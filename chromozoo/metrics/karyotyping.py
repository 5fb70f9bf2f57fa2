"""How good whole-cell karyotyping is: a metaphase in, every chromosome found and named.

The figures are those of Wang et al. 2024 (IEEE Access 12:46081), who had them judged by hand; here
they are computed. What is found is matched with what is outlined, and a name counts as right only
on a chromosome that was found. Intervals come from resampling whole images, for the chromosomes of
one metaphase are not independent.
"""

from collections import Counter
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
    percentile_interval,
    rounded,
)
from chromozoo.metrics.edits import EDIT_METRICS, EDITS, _edits, _match, _Overlap, _ratio
from chromozoo.structures.arrays import FloatArray, IntArray
from chromozoo.structures.karyotyped_cell import PredictedCell, Instances, TrueCell

BACKGROUND = len(CLASSES)  # of a chromosome that nobody found, and of a finding that is none
# The names of a cell are judged from this share of chromosomes with a certain class on.
MIN_CERTAIN = 0.8

NAMING_METRICS = (
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
# All that a report can have, in the order in which reports and result files show them.
METRICS = (
    *NAMING_METRICS,
    *(f"unassigned_{name}" for name in NAMING_METRICS),
    *REVIEW_METRICS,
    *EDIT_METRICS,
    *SEGMENTATION_METRICS,
)
# Least share of rightly named chromosomes, of the cells of table III of Wang et al. 2024.
CASES = {"cases_42": 42 / 46, "cases_37": 37 / 46, "cases_33": 33 / 46, "cases_fewer": 0.0}


@dataclass(frozen=True)
class CellResult:
    """One image in numbers of chromosomes.

    Attributes:
        name: Of the image.
        by_masks: Whether masks were matched, not boxes.
        is_named: Whether its names count, see :func:`evaluate_karyotyping`.
        true: Outlined chromosomes.
        found: Predictions.
        matched: Pairs of the two.
        certain: Outlined chromosomes whose names count; 0 unless ``is_named``.
        correct: Of these, found and rightly named.
        misnamed: Of these, found and wrongly named.
        edits: How many edits of each of :data:`EDITS` make the cell right, see
            :func:`evaluate_karyotyping`; relabel is 0 unless ``is_named``.
    """

    name: str
    by_masks: bool
    is_named: bool
    true: int
    found: int
    matched: int
    certain: int
    correct: int
    misnamed: int
    edits: Mapping[str, int]

    @property
    def wrong(self) -> int:
        """Of the certain chromosomes, those that were missed or wrongly named."""
        return self.certain - self.correct


@dataclass(frozen=True, eq=False)
class KaryotypingReport:
    """What :func:`evaluate_karyotyping` found.

    Attributes:
        metrics: Intervals by the names of :data:`METRICS`; without names given before assignment
            there is no ``unassigned_``, without flags no ``review_``.
        confusion: ``(25, 25)``, true class by given name in the order of ``CLASSES``, then
            background: chromosomes that were missed are in its column, false detections in its row.
        unassigned_confusion: The same without the cell assignment.
        cells: The images one by one.
    """

    metrics: Mapping[str, Interval]
    confusion: IntArray
    unassigned_confusion: IntArray | None
    cells: tuple[CellResult, ...]

    @property
    def geometry(self) -> str:
        """What was matched: ``"mask"``, ``"box"``, or ``"mixed"``."""
        ways = {cell.by_masks for cell in self.cells}
        return "mixed" if len(ways) > 1 else "mask" if ways.pop() else "box"

    @property
    def case_histogram(self) -> dict[str, int]:
        """The cells of table III of Wang et al. 2024, as numbers of cells by :data:`CASES`.

        Rightly named at least 42, 37 or 33 chromosomes of 46, or fewer; here the same shares of the
        certain chromosomes, for not every image shows 46.
        """
        shares = [cell.correct / cell.certain for cell in self.cells if cell.is_named]
        reached = [sum(share >= least for share in shares) for least in CASES.values()]
        counts = (more - fewer for fewer, more in pairwise([0, *reached]))
        return dict(zip(CASES, counts, strict=True))

    @property
    def wrong_histogram(self) -> dict[int, int]:
        """How many cells have how many wrong chromosomes (missed or misnamed), ascending."""
        counts = Counter(cell.wrong for cell in self.cells if cell.is_named)
        return dict(sorted(counts.items()))

    def to_row(self) -> dict[str, float | int | str]:
        """Counts and figures as the columns of a result file.

        Returns:
            ``{'n_images': 16, 'n_named_images': 14, 'n_chromosomes': 728, 'n_certain': 615,
            'geometry': 'mask', 'fka': 0.9317, 'fka_low': ..., 'fka_high': ..., ...,
            'cases_42': 10, ...}``, rounded to 4 decimals; NaN where a figure is not defined.
        """
        row: dict[str, float | int | str] = {
            "n_images": len(self.cells),
            "n_named_images": sum(cell.is_named for cell in self.cells),
            "n_chromosomes": sum(cell.true for cell in self.cells),
            "n_certain": sum(cell.certain for cell in self.cells),
            "geometry": self.geometry,
        }
        return row | rounded(self.metrics) | self.case_histogram


def evaluate_karyotyping(
    found: Iterable[PredictedCell],
    true: Iterable[TrueCell],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> KaryotypingReport:
    """Measures karyotyping on whole images.

    **Matching.** Predictions and true chromosomes are matched one to one at an IoU of masks of at
    least 0.5, or of boxes where either side has no masks. The pairs with the highest sum of IoU are
    taken (optimal assignment), not the next best one by one: where the boxes of crossing
    chromosomes cover each other, a greedy match may use up the one prediction that a neighbour
    needs, and it depends on the order. Names play no part in it, nor do scores.

    **Uncertain truth.** An image is *named* if at least 0.8 of its chromosomes have a certain
    class; the other images count for the segmentation alone. Within a named image, only chromosomes
    with a certain class count for the figures of naming; a prediction that matches one without is
    neither right nor wrong and left out. A prediction that matches nothing is a false detection.

    Figures of naming, over named images:

    - ``fka``, full karyotyping accuracy: correct / true chromosomes. Correct is what was found and
      rightly named.
    - ``fka_46``: correct / 46, as the paper divides, over the images with 46 outlined chromosomes.
      Those without a certain class are in the 46, so a perfect karyotyper may stay below 1.
    - ``oca``, only-classification accuracy: correct / predictions, false detections included.
    - ``macro_precision``, ``macro_recall``: mean over the classes that are present in the truth of
      TP / (TP + FP) and TP / (TP + FN), where a missed chromosome is a FN and a false detection a
      FP of the name it was given. ``macro_precision_found`` leaves false detections out, as the
      paper does: it calls a bad segment background, which makes it no FP of any class.
    - ``exact_match_rate``: share of the cells without error: every chromosome is found, also the
      uncertain ones, every certain one rightly named, and nothing else is found (WCR).
    - ``unassigned_...``: the same for ``unassigned_classes``, the names before the cell assignment.
    - ``review_share``: flagged / predictions. ``review_recall``: flagged errors / errors, an error
      being a prediction with a wrong name or a false detection. A missed chromosome cannot be
      flagged, and does not count.
    - ``edits``, ``edits_relabel``, ...: what a person has to do, mean number for a cell, as below.

    Figures of segmentation, over all images:

    - ``segmentation_recall``, ``segmentation_precision``: matched / true, matched / predictions.
    - ``count_error``, ``count_bias``: mean over images of |predictions - true| and of predictions -
      true, in chromosomes.

    **Edits** follow from who covers whom. Each chromosome and each prediction is dealt with once,
    in this order:

    1. *split*: a missed chromosome belongs to the prediction that covers the largest share of it,
       at least half. Where k chromosomes belong to one prediction (its match is one of them), k - 1
       cuts make k of it, if k is 2 or more.
    2. *merge*: a prediction without a match that has at least half of its pixels in a chromosome,
       and less than half of them in each larger piece of it, is a piece of this chromosome (of the
       one that holds most of it), as its match is. k pieces take k - 1 merges; without a match
       only if 2 or more pieces together cover at least half of it.
    3. *delete*: every other prediction without a match.
    4. *add*: every other missed chromosome, drawn by hand.
    5. *relabel*: every pair with a wrong name. What is cut off, merged or drawn is named in the
       same step. The name of an uncertain chromosome is not judged.

    Masks that match are taken as they are: correcting an edge is no edit.

    Figures are fractions, edits and counts are numbers. Where a figure is not defined, such as
    ``review_recall`` without errors, it is NaN, and resamples without it are left out of its
    interval. With a single image (for naming: a single named one) the interval is NaN.

    Args:
        found: One for each image, in the order of ``true``. Both may be generators; they are
            consumed together, one image at a time.
        true: The same images.
        n_bootstrap: Resamples of the images behind each interval; 0: no intervals (NaN).
        seed: Of the resampling.

    Raises:
        EvaluationError: No image, images that are not the same or of different size, arrays that do
            not fit together, a true chromosome without area, or classes out of range; the message
            names the image.
        ValueError: There are more images on one side than on the other.
    """
    images = [_compare(*pair) for pair in zip(found, true, strict=True)]
    if not images:
        raise EvaluationError("There is no image to evaluate: check the data set and the stage.")
    for what, there in (
        ("unassigned_classes", [image.unassigned_confusion is not None for image in images]),
        ("needs_review", [image.flags is not None for image in images]),
    ):
        if any(there) and not all(there):
            raise EvaluationError(
                f"Image {images[there.index(False)].cell.name!r} has no {what}, but others have: "
                "give it for all images or for none."
            )
    n_images = len(images)
    draws = bootstrap_counts(n_images, n_bootstrap, seed)
    cells = tuple(image.cell for image in images)
    is_named = np.array([cell.is_named for cell in cells])
    confusions = np.stack([image.confusion for image in images])
    samples = _naming_metrics(confusions, cells, draws)
    unassigned_confusion: IntArray | None = None
    if images[0].unassigned_confusion is not None:
        alone = np.stack(
            [
                image.unassigned_confusion
                for image in images
                if image.unassigned_confusion is not None
            ]
        )
        unassigned_confusion = alone.sum(axis=0)
        for name, values in _naming_metrics(alone, cells, draws).items():
            samples[f"unassigned_{name}"] = values
    if images[0].flags is not None:
        flags = np.array([image.flags for image in images if image.flags is not None])
        n_judged, n_flagged, n_errors, n_flagged_errors = (draws @ flags).T
        samples["review_share"] = _ratio(n_flagged, n_judged)
        samples["review_recall"] = _ratio(n_flagged_errors, n_errors)
    for kind in EDITS:
        numbers = np.array([cell.edits[kind] for cell in cells])
        samples[f"edits_{kind}"] = _ratio(draws @ (numbers * is_named), draws @ is_named)
    samples["edits"] = np.sum([samples[f"edits_{kind}"] for kind in EDITS], axis=0)
    samples |= _segmentation_metrics(cells, draws)

    return KaryotypingReport(
        metrics={
            name: percentile_interval(
                samples[name], n_images if name in SEGMENTATION_METRICS else int(is_named.sum())
            )
            for name in METRICS
            if name in samples
        },
        confusion=confusions.sum(axis=0),
        unassigned_confusion=unassigned_confusion,
        cells=cells,
    )


@dataclass(frozen=True, eq=False)
class _Image:
    """All that is kept of one image."""

    cell: CellResult
    confusion: IntArray  # (25, 25), all 0 unless the image is named
    unassigned_confusion: IntArray | None
    # Of the predictions whose names are judged: their number, how many are flagged, wrong, both.
    flags: IntArray | None


def _compare(found: PredictedCell, true: TrueCell) -> _Image:
    _check(found, true)
    overlap = _Overlap.of(found.instances, true.instances)
    if not overlap.true.all():
        raise EvaluationError(
            f"Image {true.name!r}: true chromosome {int(overlap.true.argmin())} has no area: leave "
            "it out."
        )
    matched = _match(overlap.iou())
    true_classes = np.asarray(true.classes, np.int64)
    n_true, n_found = overlap.shared.shape[1], overlap.shared.shape[0]
    certain = true_classes >= 0
    is_named = bool(n_true and certain.mean() >= MIN_CERTAIN)
    if not is_named:
        certain = np.zeros(n_true, bool)
    # The truth of each prediction, and which predictions are judged; -1 takes the one at the end.
    truth = np.append(true_classes, BACKGROUND)[matched]
    is_judged = np.append(certain, is_named)[matched]
    missed = true_classes[certain & ~np.isin(np.arange(n_true), matched)]

    def confusion(classes: NDArray[np.integer[Any]]) -> IntArray:
        counts: IntArray = np.zeros((BACKGROUND + 1, BACKGROUND + 1), np.int64)
        np.add.at(counts, (truth[is_judged], np.asarray(classes)[is_judged]), 1)
        counts[:, BACKGROUND] += np.bincount(missed, minlength=BACKGROUND + 1)
        return counts

    named = confusion(found.classes)
    is_wrong = is_judged & (truth != found.classes)
    misnamed = int((is_wrong & (matched >= 0)).sum())
    edits = _edits(overlap, matched) | {"relabel": misnamed}
    flags = None
    if found.needs_review is not None:
        chosen = (
            is_judged,
            is_judged & found.needs_review,
            is_wrong,
            is_wrong & found.needs_review,
        )
        flags = np.array([which.sum() for which in chosen], np.int64)
    return _Image(
        cell=CellResult(
            name=true.name,
            by_masks=overlap.by_masks,
            is_named=is_named,
            true=n_true,
            found=n_found,
            matched=int((matched >= 0).sum()),
            certain=int(certain.sum()),
            correct=int(np.trace(named)),
            misnamed=misnamed,
            edits={kind: edits[kind] for kind in EDITS},
        ),
        confusion=named,
        unassigned_confusion=None
        if found.unassigned_classes is None
        else confusion(found.unassigned_classes),
        flags=flags,
    )


def _check(found: PredictedCell, true: TrueCell) -> None:
    """Raises EvaluationError where the two cannot be compared."""
    name = f"Image {true.name!r}"
    if found.name != true.name:
        raise EvaluationError(
            f"{name} is compared with what was found in {found.name!r}: give both in one order."
        )
    if tuple(found.instances.shape) != tuple(true.instances.shape):
        raise EvaluationError(
            f"{name} is {tuple(true.instances.shape)}, what was found in it {found.instances.shape} "
            "(height, width): give both in pixels of the same image."
        )
    for side, outlines in (("true", true.instances), ("found", found.instances)):
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
            raise EvaluationError(f"{name}: a {side} mask is no bool array (h, w).")
    for what, classes, outlines, least in (
        ("true classes", true.classes, true.instances, -1),
        ("classes", found.classes, found.instances, 0),
        ("unassigned_classes", found.unassigned_classes, found.instances, 0),
    ):
        if classes is None:
            continue
        _check_length(name, what, classes, outlines)
        values = np.asarray(classes)
        if not np.issubdtype(values.dtype, np.integer) or (
            values.size and not (least <= values.min() and values.max() < len(CLASSES))
        ):
            raise EvaluationError(
                f"{name}: {what} must be integers {least}..{len(CLASSES) - 1}, indices into "
                "chromozoo.classes.CLASSES."
            )
    if found.needs_review is not None:
        _check_length(name, "needs_review", found.needs_review, found.instances)
        if np.asarray(found.needs_review).dtype != bool:
            raise EvaluationError(f"{name}: review must be bool, True where a human should look.")


def _check_length(name: str, what: str, values: NDArray[Any], outlines: Instances) -> None:
    if np.shape(values) != (len(outlines.boxes),):
        raise EvaluationError(
            f"{name}: {what} have shape {np.shape(values)} for {len(outlines.boxes)} chromosomes: "
            "give one for each."
        )


def _naming_metrics(
    confusions: IntArray, cells: tuple[CellResult, ...], draws: FloatArray
) -> dict[str, FloatArray]:
    """Each of NAMING_METRICS for each row of ``draws (n_samples, n_images)``."""
    n_images = len(cells)
    summed = (draws @ confusions.reshape(n_images, -1)).reshape(-1, *confusions.shape[1:])
    correct = np.diagonal(summed, axis1=1, axis2=2)[:, :BACKGROUND]
    n_true = summed[:, :BACKGROUND].sum(axis=2)
    n_predicted = summed[:, :, :BACKGROUND].sum(axis=1)
    n_found = summed[:, :BACKGROUND, :BACKGROUND].sum(axis=1)

    def macro(n: FloatArray) -> FloatArray:
        # A class that is present and never predicted has precision 0.
        each = np.where(n > 0, _ratio(correct, n), 0)
        return _ratio((each * (n_true > 0)).sum(axis=1), (n_true > 0).sum(axis=1))

    per_image = np.trace(confusions, axis1=1, axis2=2)
    is_named = np.array([cell.is_named for cell in cells])
    has_46 = np.array([cell.is_named and cell.true == DIPLOID_NUMBER for cell in cells])
    is_whole = is_named & np.array(
        [
            cell.matched == cell.true == cell.found and right == cell.certain
            for cell, right in zip(cells, per_image, strict=True)
        ]
    )
    n_correct = correct.sum(axis=1)
    return {
        "fka": _ratio(n_correct, n_true.sum(axis=1)),
        "fka_46": _ratio(draws @ (per_image * has_46), DIPLOID_NUMBER * (draws @ has_46)),
        "oca": _ratio(n_correct, n_predicted.sum(axis=1)),
        "macro_precision": macro(n_predicted),
        "macro_precision_found": macro(n_found),
        "macro_recall": macro(n_true),
        "exact_match_rate": _ratio(draws @ is_whole, draws @ is_named),
    }


def _segmentation_metrics(
    cells: tuple[CellResult, ...], draws: FloatArray
) -> dict[str, FloatArray]:
    """Each of SEGMENTATION_METRICS for each row of ``draws (n_samples, n_images)``."""
    counts = np.array([(cell.true, cell.found, cell.matched) for cell in cells], np.float64)
    n_true, n_found, n_matched = (draws @ counts).T
    difference = counts[:, 1] - counts[:, 0]
    return {
        "segmentation_recall": _ratio(n_matched, n_true),
        "segmentation_precision": _ratio(n_matched, n_found),
        "count_error": draws @ np.abs(difference) / draws.sum(axis=1),
        "count_bias": draws @ difference / draws.sum(axis=1),
    }
