"""Classification metrics against values computed by hand."""

import math

import numpy as np
import pytest

from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.metrics.bootstrap import EvaluationError
from chromozoo.metrics.classification import (
    LABEL_METRICS,
    METRICS,
    Misclassification,
    accuracy_at_coverage,
    evaluate_classification,
)


def probabilities_for(predicted, confidence=1.0):
    """Rows with ``confidence`` on the predicted class and the rest spread over the others."""
    confidence = np.broadcast_to(confidence, len(predicted))
    p = np.repeat((1 - confidence)[:, None] / 23, 24, axis=1)
    p[np.arange(len(predicted)), predicted] = confidence
    return p


def karyotype(sex=("X", "Y")):
    """The 46 class indices of a normal cell."""
    return np.array(
        [CLASS_INDEX[str(k)] for k in range(1, 23) for _ in "ab"]
        + [CLASS_INDEX[name] for name in sex]
    )


@pytest.fixture
def small():
    """Cell a: 1 1 2 3, classified as 1 2 2 4. Cell b: 1 2, both correct."""
    targets = np.array([0, 0, 1, 2, 0, 1])
    predicted = np.array([0, 1, 1, 3, 0, 1])
    return probabilities_for(predicted, 0.8), targets, list("aaaabb")


def test_label_metrics_by_hand(small):
    report = evaluate_classification(*small, assignment=False)
    value = {name: interval.value for name, interval in report.metrics.items()}
    # Class 1: TP 2, FP 0, FN 1. Class 2: TP 2, FP 1, FN 0. Class 3: never predicted. Class 4 is
    # absent from the targets, so its false positive counts against class 3 only.
    assert value["accuracy"] == pytest.approx(4 / 6)
    assert value["macro_precision"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert value["macro_recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert value["macro_f1"] == pytest.approx((0.8 + 0.8 + 0) / 3)
    assert value["cell_accuracy"] == pytest.approx((2 / 4 + 2 / 2) / 2)
    assert value["cells_without_error"] == pytest.approx(1 / 2)
    assert list(value) == [*LABEL_METRICS, "ece"]
    assert (report.n_chromosomes, report.n_cells) == (6, 2)


def test_confusion_and_errors(small):
    report = evaluate_classification(*small, assignment=False)
    expected = np.zeros((24, 24), dtype=int)
    expected[0, 0], expected[0, 1], expected[1, 1], expected[2, 3] = 2, 1, 2, 1
    np.testing.assert_array_equal(report.confusion, expected)
    assert report.errors == (
        Misclassification(1, "a", "1", "2", pytest.approx(0.8)),
        Misclassification(3, "a", "3", "4", pytest.approx(0.8)),
    )
    assert report.assigned_confusion is None
    assert report.assigned_errors == ()


def test_ece_by_hand():
    # Bins of width 1/15: 0.95 and 1.0 are in the last one (14/15, 1], with 1 of 2 correct and a
    # mean confidence of 0.975; 0.6 = 9/15 is the end of bin 9 (8/15, 9/15], with one correct; 0.61
    # is in bin 10, with one wrong.
    targets = np.array([0, 1, 2, 3])
    predicted = np.array([0, 5, 2, 7])
    p = probabilities_for(predicted, np.array([0.95, 1.0, 0.6, 0.61]))
    report = evaluate_classification(p, targets, list("aabb"), assignment=False)
    expected = (2 * abs(0.5 - 0.975) + 1 * abs(1 - 0.6) + 1 * abs(0 - 0.61)) / 4
    assert report.metrics["ece"].value == pytest.approx(expected)


def test_ece_is_zero_if_confidence_equals_accuracy():
    targets = np.zeros(10, dtype=int)
    predicted = np.array([0] * 8 + [1] * 2)
    report = evaluate_classification(
        probabilities_for(predicted, 0.8), targets, [0] * 5 + [1] * 5, assignment=False
    )
    assert report.metrics["ece"].value == pytest.approx(0)


def test_accuracy_at_coverage_drops_low_confidence():
    targets = np.arange(10)
    predicted = targets.copy()
    predicted[[3, 4]] = 20, 20
    p = probabilities_for(predicted, np.array([0.9, 0.9, 0.9, 0.3, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]))
    assert accuracy_at_coverage(p, targets, 1.0) == pytest.approx(8 / 10)
    assert accuracy_at_coverage(p, targets) == pytest.approx(8 / 9)
    assert accuracy_at_coverage(p, targets, 0.8) == pytest.approx(1)
    with pytest.raises(EvaluationError, match="above 0"):
        accuracy_at_coverage(p, targets, 0)


def noisy_cells(n_cells, rng, repeats=1):
    """Cells of 46, each with its own error rate; ``repeats`` copies every chromosome."""
    targets, predicted, cells = [], [], []
    for cell in range(n_cells):
        y = karyotype()
        wrong = rng.random(46) < rng.uniform(0, 0.3)
        targets.append(np.repeat(y, repeats))
        predicted.append(np.repeat(np.where(wrong, (y + 1) % 24, y), repeats))
        cells += [cell] * 46 * repeats
    return probabilities_for(np.concatenate(predicted), 0.9), np.concatenate(targets), cells


def test_intervals_contain_their_value_and_repeat_with_the_seed():
    data = noisy_cells(12, np.random.default_rng(1))
    report = evaluate_classification(*data, assignment=False)
    for name, interval in report.metrics.items():
        assert interval.low <= interval.value <= interval.high, name
        assert interval.low < interval.high, name
    again = evaluate_classification(*data, assignment=False)
    other = evaluate_classification(*data, assignment=False, seed=1)
    assert report.metrics == again.metrics
    assert report.metrics != other.metrics


def test_more_chromosomes_of_the_same_cells_do_not_narrow_the_interval():
    once = evaluate_classification(*noisy_cells(8, np.random.default_rng(2)), assignment=False)
    tenfold = evaluate_classification(
        *noisy_cells(8, np.random.default_rng(2), repeats=10), assignment=False
    )
    for name in LABEL_METRICS:
        one, ten = once.metrics[name], tenfold.metrics[name]
        assert (ten.low, ten.high) == pytest.approx((one.low, one.high)), name


def test_one_bad_cell_widens_the_interval_far_more_than_scattered_errors():
    targets = np.tile(karyotype(), 10)
    cells = np.repeat(np.arange(10), 46)
    bad_cell = np.where(cells == 0, (targets + 1) % 24, targets)
    scattered = np.where(np.arange(460) % 10 == 0, (targets + 1) % 24, targets)
    wide, narrow = (
        evaluate_classification(probabilities_for(y), targets, cells, assignment=False).metrics[
            "accuracy"
        ]
        for y in (bad_cell, scattered)
    )
    assert wide.value == narrow.value == pytest.approx(0.9)
    # The bad cell is drawn k times with binomial k of (10, 1/10): 0 in 35 %, 3 or more in 7 %.
    assert (wide.low, wide.high) == pytest.approx((0.7, 1.0))
    assert narrow.high - narrow.low < 0.02


def test_bootstrap_averages_over_the_classes_of_the_resample():
    # One cell has only class 1, the other only class 2, all correct: a class that is absent from a
    # resample must not count as 0.
    report = evaluate_classification(
        probabilities_for([0, 0, 1, 1]), [0, 0, 1, 1], list("aabb"), assignment=False
    )
    assert report.metrics["macro_f1"].low == 1


def test_one_cell_has_no_interval():
    report = evaluate_classification(probabilities_for([0, 1]), [0, 2], [7, 7], assignment=False)
    assert report.metrics["accuracy"].value == 0.5
    assert math.isnan(report.metrics["accuracy"].low)
    assert math.isnan(report.to_row()["accuracy_high"])


def test_assignment_corrects_a_third_copy():
    # In each cell one 21 is more probably a 22, which makes three 22 and one 21.
    targets = np.tile(karyotype(), 3)
    cells = np.repeat(["a", "b", "c"], 46)
    p = probabilities_for(targets, 0.95)
    for start in (0, 46, 92):
        p[start + 40] = 0
        p[start + 40, [20, 21]] = 0.45, 0.55
    report = evaluate_classification(p, targets, cells)
    assert report.metrics["accuracy"].value == pytest.approx(45 / 46)
    assert report.metrics["cells_without_error"].value == 0
    for name in LABEL_METRICS:
        assert report.metrics[f"assigned_{name}"].value == 1, name
    assert [(e.true, e.predicted) for e in report.errors] == [("21", "22")] * 3
    assert report.assigned_errors == ()
    np.testing.assert_array_equal(
        np.diag(report.assigned_confusion), np.bincount(targets, minlength=24)
    )
    assert (*report.metrics, "polarity_accuracy") == METRICS


def test_assignment_keeps_cells_apart_whatever_the_row_order():
    # Two cells, shuffled together: 4 copies of each autosome in all, but 2 per cell.
    targets = np.concatenate([karyotype(), karyotype(("X", "X"))])
    cells = np.repeat([3, 11], 46)
    order = np.random.default_rng(0).permutation(92)
    p = probabilities_for(targets, 0.9)
    report = evaluate_classification(p[order], targets[order], cells[order])
    assert report.n_cells == 2
    assert report.metrics["assigned_accuracy"].value == 1


def test_row_has_rounded_fractions_for_every_metric(small):
    row = evaluate_classification(*small, assignment=False).to_row()
    assert row["n_chromosomes"] == 6
    assert row["n_cells"] == 2
    assert row["accuracy"] == 0.6667
    assert set(row) == {"n_chromosomes", "n_cells"} | {
        name + end for name in (*LABEL_METRICS, "ece") for end in ("", "_low", "_high")
    }


def broken(defect):
    p, y, cells = probabilities_for([0, 1, 2]), np.array([0, 1, 2]), ["a", "a", "b"]
    match defect:
        case "nan":
            p[1, 3] = np.nan
        case "logits":
            p[2] = np.linspace(-3, 3, 24)
        case "negative":
            p[2, :2] = -0.5, 0.5
        case "sum":
            p[0, 0] = 1.002
        case "classes":
            p = p[:, :23]
        case "targets":
            y = y[:2]
        case "range":
            y = np.array([0, 1, 24])
        case "names":
            y = np.array(["1", "2", "X"])
        case "cells":
            cells = cells[:2]
        case "empty":
            p, y, cells = p[:0], y[:0], []
    return p, y, cells


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("nan", "NaN.*first: row 1"),
        ("logits", "first: row 2.*softmax"),
        ("negative", "first: row 2"),
        ("sum", "first: row 0.*sum to 1"),
        ("classes", r"\(3, 23\)"),
        ("targets", "3 rows"),
        ("range", r"0\.\.23"),
        ("names", "CLASS_INDEX"),
        ("cells", "2 cell ids for 3 chromosomes"),
        ("empty", "no chromosomes"),
    ],
)
def test_bad_input_is_refused_with_the_cause(defect, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate_classification(*broken(defect), assignment=False)


def test_float16_softmax_is_accepted():
    p = np.random.default_rng(0).dirichlet(np.ones(24), size=50).astype(np.float16)
    report = evaluate_classification(
        p, np.arange(50) % len(CLASSES), np.arange(50) // 10, assignment=False
    )
    assert 0 <= report.metrics["ece"].value <= 1
