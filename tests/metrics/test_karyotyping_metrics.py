"""Karyotyping metrics by hand, on cells of a few bars."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from chromozoo.metrics.bootstrap import EvaluationError
from chromozoo.metrics.edits import EDITS, shared_mask_areas
from chromozoo.metrics.karyotyping import (
    BACKGROUND,
    CLASSIFICATION_METRICS,
    METRICS,
    KaryotypingReport,
    classification_metrics,
    compare_image,
    evaluate_karyotyping,
    segmentation_metrics,
)
from chromozoo.structures.karyotyped_cell import Boxes, PredictedCell, TrueCell

SHAPE = (400, 400)
Place = tuple[int, int, int, int]  # y0, x0, y1, x1


@dataclass
class Masks:
    """The fields of a Segmentation that the metrics use."""

    boxes: np.ndarray
    crops: tuple[np.ndarray, ...]
    corners: np.ndarray
    shape: tuple[int, int] = SHAPE


def bars(*places: Place) -> Masks:
    """Return masks of rectangles."""
    boxes = np.array([(x0, y0, x1, y1) for y0, x0, y1, x1 in places], np.float32).reshape(-1, 4)
    crops = tuple(np.ones((y1 - y0, x1 - x0), bool) for y0, x0, y1, x1 in places)
    return Masks(boxes, crops, np.array([place[:2] for place in places], np.int64).reshape(-1, 2))


def grid(n: int) -> list[Place]:
    """Return places of bars that do not touch."""
    return [(y, x, y + 30, x + 10) for y in range(0, 400, 40) for x in range(0, 400, 20)][:n]


def pair(
    true: Masks | Boxes,
    true_classes: Any,
    found: Masks | Boxes,
    classes: Any,
    name: str = "5",
    **more: Any,
) -> tuple[PredictedCell, TrueCell]:
    return (
        PredictedCell(name, found, np.asarray(classes, np.int64), **more),
        TrueCell(name, true, np.asarray(true_classes, np.int64)),
    )


def evaluate(*pairs: tuple[PredictedCell, TrueCell], n_bootstrap: int = 0) -> KaryotypingReport:
    found, true = zip(*pairs, strict=True)
    return evaluate_karyotyping(found, true, n_bootstrap=n_bootstrap)


def values(report: KaryotypingReport) -> dict[str, float]:
    return {name: interval.value for name, interval in report.metrics.items()}


def by_hand() -> list[tuple[PredictedCell, TrueCell]]:
    """Return an image with enough certain classes, and one without.

    The first has the chromosomes 1, 1, 2, X and an uncertain one: the X is missed, one 1 is
    classified as 2, and there is a false detection of class 1. Without assignment all detected
    chromosomes are correct.
    """
    a, b, c, d, e, f = grid(6)
    first = pair(
        bars(a, b, c, d, e),
        [0, 0, 1, 22, -1],
        bars(f, e, c, b, a),
        [0, 5, 1, 1, 0],
        unassigned_classes=np.array([0, 5, 1, 0, 0]),
        needs_review=np.array([False, True, False, True, False]),
    )
    second = pair(
        bars(a, b, c),
        [-1, -1, 3],
        bars(a, b),
        [7, 8],
        name="10",
        unassigned_classes=np.array([7, 8]),
        needs_review=np.array([True, True]),
    )
    return [first, second]


def test_metrics_by_hand() -> None:
    report = evaluate(*by_hand())
    assert values(report) == pytest.approx(
        {
            "fka": 2 / 4,
            "fka_46": np.nan,
            "oca": 2 / 4,  # the prediction for the uncertain chromosome is ignored
            "macro_precision": (1 / 2 + 1 / 2 + 0) / 3,
            "macro_precision_found": (1 + 1 / 2 + 0) / 3,
            "macro_recall": (1 / 2 + 1 + 0) / 3,
            "exact_match_rate": 0,
            "unassigned_fka": 3 / 4,
            "unassigned_fka_46": np.nan,
            "unassigned_oca": 3 / 4,
            "unassigned_macro_precision": (2 / 3 + 1 + 0) / 3,
            "unassigned_macro_precision_found": 2 / 3,
            "unassigned_macro_recall": 2 / 3,
            "unassigned_exact_match_rate": 0,
            "review_share": 1 / 4,
            "review_recall": 1 / 2,
            "edits": 3,
            "edits_relabel": 1,
            "edits_split": 0,
            "edits_merge": 0,
            "edits_delete": 1,
            "edits_add": 1,
            "segmentation_recall": 6 / 8,
            "segmentation_precision": 6 / 7,
            "count_error": 1 / 2,
            "count_bias": -1 / 2,
        },
        nan_ok=True,
    )
    assert tuple(report.metrics) == METRICS
    first, second = report.cells
    assert (first.true, first.found, first.matched, first.certain) == (5, 5, 4, 4)
    assert (first.correct, first.misclassified, first.wrong) == (2, 1, 2)
    assert not second.has_classes and second.certain == second.edits["relabel"] == 0
    assert second.edits["add"] == 1  # not in the mean, as the image lacks certain classes


def test_confusion_has_background_as_row_and_column() -> None:
    report = evaluate(*by_hand())
    expected = np.zeros((25, 25), int)
    expected[0, 0] = expected[1, 1] = expected[0, 1] = 1
    expected[22, BACKGROUND] = expected[BACKGROUND, 0] = 1
    np.testing.assert_array_equal(report.confusion, expected)
    expected[0, :2] = 2, 0
    assert report.unassigned_confusion is not None
    np.testing.assert_array_equal(report.unassigned_confusion, expected)


def perfect(n: int, name: str, classes: Any = None) -> tuple[PredictedCell, TrueCell]:
    true_classes = np.arange(n) % 24 if classes is None else np.asarray(classes)
    predicted = np.maximum(true_classes, 0)
    order = np.random.default_rng(n).permutation(n)
    places = grid(n)
    shuffled = bars(*(places[k] for k in order))
    flags = np.zeros(n, bool)
    return pair(
        bars(*places),
        true_classes,
        shuffled,
        predicted[order],
        name,
        unassigned_classes=predicted[order],
        needs_review=flags,
    )


def test_a_perfect_prediction_has_no_error() -> None:
    uncertain = [-1, -1, *range(10)]
    cells = (perfect(46, "1"), perfect(47, "2"), perfect(12, "3", uncertain))
    report = evaluate(*cells, n_bootstrap=50)
    for name, interval in report.metrics.items():
        if name == "review_recall":  # there is no error to flag
            assert np.isnan(interval.value)
            continue
        is_cost = name.startswith(("edits", "count", "review_share"))
        assert interval.value == interval.low == interval.high == (0 if is_cost else 1), name
    assert report.case_histogram == {"cases_42": 3, "cases_37": 0, "cases_33": 0, "cases_fewer": 0}
    assert np.trace(report.confusion) == report.confusion.sum() == 46 + 47 + 10


def test_fka_46_counts_uncertain_chromosomes() -> None:
    classes = [*np.arange(44) % 24, -1, -1]
    report = evaluate(perfect(46, "1", classes), perfect(12, "2"))
    assert values(report)["fka_46"] == pytest.approx(44 / 46)
    assert values(report)["fka"] == values(report)["exact_match_rate"] == 1


def test_exact_match_needs_every_chromosome() -> None:
    """A missed uncertain chromosome, a false detection, a misclassification: each is an error."""
    found, true = perfect(12, "1", [-1, *range(1, 12)])
    places = grid(12)
    missed = pair(true.instances, true.classes, bars(*places[1:]), np.arange(1, 12))
    more = pair(true.instances, true.classes, bars(*places, grid(13)[12]), np.arange(13))
    wrong = pair(true.instances, true.classes, bars(*places), [*range(11), 23])
    whole = pair(found.instances, found.classes, found.instances, found.classes)
    assert values(evaluate(whole))["exact_match_rate"] == 1
    for cell in (missed, more, wrong):
        assert values(evaluate(cell))["exact_match_rate"] == 0
    assert values(evaluate(whole, missed, more, wrong))["exact_match_rate"] == 0.25
    assert values(evaluate(missed))["fka"] == 1


def test_classification_needs_enough_certain_chromosomes() -> None:
    enough = pair(bars(*grid(5)), [0, 1, 2, 3, -1], bars(*grid(5)), [0, 1, 2, 3, 4])
    too_few = pair(bars(*grid(5)), [0, 1, 2, -1, -1], bars(*grid(5)), [0, 1, 2, 3, 4])
    assert values(evaluate(enough))["fka"] == 1
    report = evaluate(too_few)
    figures = values(report)
    assert np.isnan(figures["fka"]) and np.isnan(figures["edits"])
    assert figures["segmentation_recall"] == 1
    assert report.confusion.sum() == 0
    # An image without chromosomes has no classes either.
    nothing = pair(bars(), [], bars(*grid(1)), [4])
    assert values(evaluate(enough, nothing))["oca"] == 1
    assert values(evaluate(enough, nothing))["segmentation_precision"] == 5 / 6
    assert values(evaluate(pair(bars(*grid(5)), [0, 1, 2, 3, 4], bars(), [])))["fka"] == 0


def test_case_histogram_is_that_of_table_iii() -> None:
    """46 chromosomes with 42, 41, 37, 36, 33 and 32 correct ones."""
    cells = []
    for right in (42, 41, 37, 36, 33, 32):
        found, true = perfect(46, str(right), np.arange(46) % 20)
        classes = np.where(np.arange(46) < right, found.classes, 23)
        cells.append((replace(found, classes=classes), true))
    report = evaluate(*cells)
    assert report.case_histogram == {"cases_42": 1, "cases_37": 2, "cases_33": 2, "cases_fewer": 1}


LONG, SHORT = (0, 0, 100, 10), (100, 0, 130, 10)  # one below the other
EDIT_CASES = {
    "two in one: split once": ([LONG, SHORT], [(0, 0, 130, 10)], {"split": 1}),
    "two halves in one: split once": (
        [(0, 0, 50, 10), (50, 0, 100, 10)],
        [(0, 0, 100, 10)],
        {"split": 1},
    ),
    "three in one: split twice": (
        [(0, 0, 40, 10), (40, 0, 80, 10), (80, 0, 120, 10)],
        [(0, 0, 120, 10)],
        {"split": 2},
    ),
    "three fragments of one: merged twice": (
        [LONG],
        [(0, 0, 34, 10), (34, 0, 67, 10), (67, 0, 100, 10)],
        {"merge": 2},
    ),
    "a fragment and its match": ([LONG], [(0, 0, 70, 10), (70, 0, 100, 10)], {"merge": 1}),
    "the same detected twice": ([LONG], [(0, 0, 90, 10), (1, 0, 88, 10)], {"delete": 1}),
    "two small fragments: redrawn": (
        [LONG],
        [(0, 0, 20, 10), (80, 0, 100, 10)],
        {"delete": 2, "add": 1},
    ),
    "one small fragment: redrawn": ([LONG], [(0, 0, 40, 10)], {"delete": 1, "add": 1}),
    "far too wide around one": ([LONG], [(0, 0, 100, 30)], {"delete": 1, "add": 1}),
    "missed": ([LONG, (0, 50, 30, 60)], [LONG], {"add": 1}),
    "dirt": ([LONG], [LONG, (200, 200, 210, 210)], {"delete": 1}),
    "dirt alone": ([], [LONG], {"delete": 1}),
    "nothing detected": ([LONG, SHORT], [], {"add": 2}),
    "halves of two": (
        [(0, 0, 100, 10), (100, 0, 200, 10)],
        [(60, 0, 140, 10)],
        {"delete": 1, "add": 2},
    ),
    "two in one and a fragment of one of them": (
        [LONG, SHORT],
        [(0, 0, 130, 10), (118, 0, 130, 10)],
        {"split": 1, "delete": 1},
    ),
}


@pytest.mark.parametrize("instances", [bars, None], ids=["masks", "boxes"])
@pytest.mark.parametrize("case", EDIT_CASES)
def test_edits_by_hand(case: str, instances: Any) -> None:
    true, found, expected = EDIT_CASES[case]
    lay = instances or (lambda *places: Boxes(SHAPE, bars(*places).boxes))
    cell = pair(lay(*true), np.arange(len(true)), lay(*found), np.zeros(len(found), int))
    edits = evaluate(cell).cells[0].edits
    assert {kind: n for kind, n in edits.items() if n and kind != "relabel"} == expected
    assert tuple(edits) == EDITS


def test_crossing_chromosomes_need_no_edit() -> None:
    """Their boxes overlap: by boxes alone, the second one would lie in the first."""
    crossed = bars((0, 40, 100, 50), (40, 0, 50, 100))
    figures = values(evaluate(pair(crossed, [0, 1], crossed, [0, 1])))
    assert figures["edits"] == 0 and figures["fka"] == 1
    bent = Masks(crossed.boxes[:1], (np.eye(100, dtype=bool),), np.array([[0, 0]]))
    straight = Masks(crossed.boxes[:1], (np.eye(100, dtype=bool)[::-1],), np.array([[0, 0]]))
    assert values(evaluate(pair(bent, [0], straight, [0])))["fka"] == 0
    boxes = Boxes(SHAPE, bent.boxes)
    by_boxes = evaluate(pair(boxes, [0], straight, [0]))
    assert values(by_boxes)["fka"] == 1 and by_boxes.geometry == "box"
    mixed = evaluate(pair(boxes, [0], straight, [0]), pair(bent, [0], bent, [0], name="6"))
    assert mixed.geometry == "mixed"


def test_matching_maximises_the_sum_of_iou() -> None:
    """The first prediction fits the first chromosome best, but the second one fits no other."""
    true = bars((0, 0, 30, 10), (10, 0, 40, 10))
    found = bars((4, 0, 34, 10), (0, 0, 22, 10))
    figures = values(evaluate(pair(true, [0, 1], found, [1, 0])))
    assert figures["fka"] == figures["segmentation_recall"] == 1


def test_shared_areas_use_the_corners_of_the_crops() -> None:
    rng = np.random.default_rng(0)
    sides = []
    for n in (12, 9):
        corners = rng.integers(0, 350, (n, 2))
        crops = tuple(rng.random(rng.integers(20, 50, 2)) < 0.6 for _ in range(n))
        sides.append(Masks(np.zeros((n, 4)), crops, corners))
    laid = [np.zeros((len(side.crops), *SHAPE), bool) for side in sides]
    for masks, side in zip(laid, sides, strict=True):
        for mask, crop, (y, x) in zip(masks, side.crops, side.corners, strict=True):
            mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    expected = np.einsum("phw,thw->pt", *(masks.astype(int) for masks in laid))
    assert (expected > 0).sum() > 3
    np.testing.assert_array_equal(shared_mask_areas(*sides), expected)


def noisy(rng: np.random.Generator, n: int, name: str) -> tuple[PredictedCell, TrueCell]:
    places = grid(n)
    classes = rng.integers(-1, 24, n) if n < 6 else rng.integers(0, 24, n)
    kept = rng.random(n) < 0.8
    found = bars(
        *(place for place, keep in zip(places, kept, strict=True) if keep), (390, 0, 399, 9)
    )
    given = np.append(np.where(rng.random(n) < 0.7, classes, 3), 2)[np.append(kept, True)]
    given = np.maximum(given, 0)
    return pair(
        bars(*places),
        classes,
        found,
        given,
        name,
        unassigned_classes=np.roll(given, 1),
        needs_review=rng.random(len(given)) < 0.3,
    )


def test_a_resample_is_the_evaluation_of_its_images() -> None:
    rng = np.random.default_rng(0)
    cells = [noisy(rng, n, str(n)) for n in (46, 20, 5, 30)]
    images = [compare_image(*cell) for cell in cells]
    draws = np.array([[2.0, 0, 1, 3]])
    repeated = evaluate(*(cells[k] for k in (0, 0, 2, 3, 3, 3)))
    confusions = np.stack([image.confusion for image in images])
    results = tuple(image.cell for image in images)
    metrics = classification_metrics(confusions, results, draws)
    metrics |= segmentation_metrics(results, draws)
    assert set(metrics) > set(CLASSIFICATION_METRICS)
    for name, value in metrics.items():
        assert value[0] == pytest.approx(repeated.metrics[name].value, nan_ok=True), name


def test_intervals_contain_the_value_and_are_reproducible() -> None:
    rng = np.random.default_rng(1)
    cells = [noisy(rng, int(n), str(k)) for k, n in enumerate(rng.integers(10, 47, 10))]
    cells.append(noisy(rng, 46, "46"))
    report = evaluate(*cells, n_bootstrap=200)
    for name, interval in report.metrics.items():
        if name.endswith("fka_46"):
            continue
        assert interval.low <= interval.value <= interval.high, name
    assert report.metrics["fka"].high - report.metrics["fka"].low > 0.02
    found, true = zip(*cells, strict=True)
    again = evaluate_karyotyping(iter(found), (cell for cell in true), n_bootstrap=200)
    assert again.to_row() == pytest.approx(report.to_row(), nan_ok=True)
    one = evaluate(cells[0], n_bootstrap=20).metrics
    assert np.isnan(one["fka"].low) and np.isnan(one["count_error"].high)


def test_a_row_has_plain_numbers() -> None:
    row = evaluate(*by_hand()).to_row()
    assert (row["n_images"], row["n_named_images"]) == (2, 1)
    assert (row["n_chromosomes"], row["n_certain"], row["geometry"]) == (8, 4, "mask")
    assert (row["fka"], row["macro_recall"], row["edits_add"], row["cases_fewer"]) == (
        0.5,
        0.5,
        1,
        1,
    )
    assert all(type(value) in (int, float, str) for value in row.values())


def test_without_assignment_and_flags_their_metrics_are_missing() -> None:
    report = evaluate(pair(bars(*grid(3)), [0, 1, 2], bars(*grid(3)), [0, 1, 2]))
    assert report.unassigned_confusion is None
    assert not [name for name in report.metrics if name.startswith(("unassigned", "review"))]


TRUE = TrueCell("5", bars(*grid(3)), np.array([0, 1, -1]))
FOUND = PredictedCell("5", bars(*grid(3)), np.array([0, 1, 2]))


@pytest.mark.parametrize(
    ("found", "true", "said"),
    [
        ({"name": "10"}, {}, "Image '5' is compared with the predictions for '10'"),
        (
            {"instances": replace(bars(*grid(3)), shape=(300, 400))},
            {},
            r"is \(400, 400\), its predictions \(300, 400\)",
        ),
        ({"classes": np.arange(2)}, {}, r"classes have shape \(2,\) for 3 chromosomes"),
        ({"classes": np.array([0, 1, 24])}, {}, r"classes must be integers 0\.\.23"),
        ({"classes": np.array([0, 1, -1])}, {}, r"classes must be integers 0\.\.23"),
        ({"classes": np.ones(3)}, {}, "classes must be integers"),
        ({"unassigned_classes": np.arange(4)}, {}, r"unassigned_classes have shape \(4,\)"),
        ({"needs_review": np.zeros(2, bool)}, {}, r"review have shape \(2,\)"),
        ({"needs_review": np.zeros(3)}, {}, "review must be bool"),
        ({}, {"classes": np.array([0, -2, 1])}, r"true classes must be integers -1\.\.23"),
        ({}, {"classes": np.arange(4)}, r"true classes have shape \(4,\) for 3"),
        ({"instances": Boxes(SHAPE, np.ones((3, 5)))}, {}, r"predicted boxes have shape \(3, 5\)"),
        ({"instances": Boxes(SHAPE, np.full((3, 4), np.nan))}, {}, "hold NaN"),
        (
            {"instances": replace(bars(*grid(3)), crops=bars(*grid(2)).crops)},
            {},
            "2 predicted masks, their corners and 3 boxes",
        ),
        (
            {},
            {"instances": replace(bars(*grid(3)), corners=np.zeros((2, 2), int))},
            "3 true masks, their corners",
        ),
        (
            {"instances": replace(bars(*grid(3)), crops=(np.ones((30, 10)),) * 3)},
            {},
            "a predicted mask is not a bool array",
        ),
        (
            {},
            {"instances": replace(bars(*grid(3)), crops=(np.zeros((30, 10), bool),) * 3)},
            "true chromosome 0 has no area",
        ),
        ({}, {"instances": Boxes(SHAPE, np.zeros((3, 4)))}, "true chromosome 0 has no area"),
    ],
)
def test_bad_cells_are_refused(found: dict[str, Any], true: dict[str, Any], said: str) -> None:
    with pytest.raises(EvaluationError, match=said) as refused:
        evaluate((replace(FOUND, **found), replace(TRUE, **true)))
    assert str(refused.value).startswith("Image '5'")


def test_all_or_no_images_have_flags_and_unassigned_classes() -> None:
    other = replace(FOUND, name="6", needs_review=np.zeros(3, bool)), replace(TRUE, name="6")
    with pytest.raises(EvaluationError, match="Image '5' has no needs_review, but others have"):
        evaluate((FOUND, TRUE), other)
    other = replace(FOUND, name="6", unassigned_classes=FOUND.classes), replace(TRUE, name="6")
    with pytest.raises(EvaluationError, match="Image '5' has no unassigned_classes"):
        evaluate(other, (FOUND, TRUE))


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="no images to evaluate"):
        evaluate_karyotyping([], [])
    with pytest.raises(ValueError, match="longer"):
        evaluate_karyotyping([FOUND], [TRUE, TRUE])
