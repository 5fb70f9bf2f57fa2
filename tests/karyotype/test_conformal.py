"""Sets of classes that hold the right one but for a chosen share of errors."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from chromozoo.benchmark.repository import ROOT
from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.cli.main import main
from chromozoo.karyotype.assignment import assign_cell, best_with_each_class
from chromozoo.karyotype.conformal import (
    ConformalError,
    nonconformity_scores,
    prediction_sets,
    threshold,
    thresholds,
)
from chromozoo.karyotype.naming import to_predictions
from chromozoo.models.registry import get_model

NORMAL = np.array([*np.repeat(np.arange(22), 2), CLASS_INDEX["X"], CLASS_INDEX["Y"]])


def noisy(labels: np.ndarray, rng: np.random.Generator, spread: float = 1.3) -> np.ndarray:
    """Log-probabilities of a classifier that is right most of the time."""
    logits = rng.normal(0, spread, (len(labels), 24)) + 4 * np.eye(24)[labels]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("rate", [0.1, 0.05, 0.01])
def test_sets_hold_the_right_class_as_often_as_promised(rate: float) -> None:
    rng = np.random.default_rng(0)
    missed, sizes = [], []
    for _ in range(40):
        labels = rng.integers(0, 24, 1500)
        strange = nonconformity_scores(noisy(labels, rng))
        true = strange[np.arange(1500), labels]
        limit = threshold(thresholds(true[:500]), rate)
        kept = prediction_sets(strange[500:], limit)
        missed.append(1 - kept[np.arange(1000), labels[500:]].mean())
        sizes.append(kept.sum(axis=1).mean())
    # On the average over calibrations the rate is between (1 - 1 / 501) times it and it.
    assert np.mean(missed) == pytest.approx(rate, abs=3 * np.std(missed) / 40**0.5 + 1 / 501)
    assert 1 <= np.mean(sizes) < 10


def test_within_a_cell_less_is_left_open() -> None:
    rng = np.random.default_rng(0)
    cells = [noisy(NORMAL, rng) for _ in range(12)]
    found = {}
    for judged in ("alone", "cell"):
        strange = [nonconformity_scores(cell, judged) for cell in cells]
        true = np.concatenate([one[np.arange(46), NORMAL] for one in strange[:6]])
        limit = threshold(thresholds(true), 0.05)
        kept = np.concatenate([prediction_sets(one, limit) for one in strange[6:]])
        assert kept[np.arange(len(kept)), np.tile(NORMAL, 6)].mean() > 0.9
        found[judged] = kept.sum(axis=1).mean()
    assert found["cell"] < found["alone"]


def test_rates_that_the_number_does_not_allow_are_left_out() -> None:
    assert set(thresholds(np.arange(8))) == set()
    assert set(thresholds(np.arange(9))) == {"0.1"}
    assert thresholds(np.arange(9))["0.1"] == 8.0
    assert set(thresholds(np.arange(99))) == {"0.1", "0.05", "0.02", "0.01"}
    with pytest.raises(ConformalError, match=r"error rate of 0\.005.*known are 0\.1, 0\.05"):
        threshold({"0.1": 1.0, "0.05": 2.0}, 0.005)
    with pytest.raises(ConformalError, match="chromozoo calibrate"):
        threshold({}, 0.01)


def test_the_error_of_weights_without_thresholds_says_what_to_do() -> None:
    with pytest.raises(ConformalError, match=r"known are none: choose .*`chromozoo models`"):
        threshold({}, 0.01)


def test_a_set_is_never_empty() -> None:
    kept = prediction_sets([[3.0, 2.0, 5.0], [0.1, 4.0, 0.3]], limit=1.0)
    assert kept.tolist() == [[False, True, False], [True, False, True]]


def test_the_best_naming_with_each_name() -> None:
    """By brute force: each name alone is allowed, and the cell is assigned."""
    rng = np.random.default_rng(3)
    log_p = noisy(NORMAL[:12], rng)
    best = best_with_each_class(log_p)
    assert best.max(axis=1) == pytest.approx(assign_cell(log_p).log_likelihood)
    for row, name in ((0, 0), (3, 7), (11, 23)):
        only = log_p.copy()
        only[row] = -np.inf
        only[row, name] = log_p[row, name]
        assert best[row, name] == pytest.approx(assign_cell(only).log_likelihood)
    cell = nonconformity_scores(log_p, "cell")
    assert (cell >= -1e-9).all() and np.allclose(cell.min(axis=1), 0)


def test_named_chromosomes_carry_their_sets() -> None:
    log_p = np.full((3, 24), np.log(1e-4))
    log_p[0, 4], log_p[1, [4, 5]], log_p[2] = np.log(0.99), np.log(0.49), np.nan
    found = to_predictions(np.exp(log_p), ["a", "b", "bad"], {2: "unreadable"}, limit=-np.log(0.1))
    assert [item.classes for item in found] == [("5",), ("5", "6"), None]
    without = to_predictions(np.exp(log_p[:2]), ["a", "b"])
    assert [item.classes for item in without] == [None, None]


def test_classify_lists_the_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = get_model("chromozoo_small", weights="pki3")
    images = sorted((ROOT / "examples" / "cell_46XY").glob("*.png"))[:6]
    known = {"0.05": 0.5, "0.01": 4.0}
    model.weights_entry = dataclasses.replace(
        model.weights_entry,
        conformal={"alone": known, "cell": known},
    )
    narrow = model.classify(images, error_rate=0.05)
    wide = model.classify(images, error_rate=0.01)
    for one, other in zip(narrow, wide, strict=True):
        assert set(one.classes) <= set(other.classes) <= set(CLASSES)
        assert one.label in one.classes
    with pytest.raises(ConformalError, match=r"0\.2"):
        model.classify(images, error_rate=0.2)
    # What the shipped weights know.
    output = tmp_path / "named"
    words = ["classify", *map(str, images), "--model", "chromozoo_small", "--output", str(output)]
    assert main([*words, "--error-rate", "0.01"]) == 0
    document = json.loads((output / "predictions.json").read_text())
    assert all(item["class"] in item["classes"] for item in document["chromosomes"])
    header, first, *_ = (output / "predictions.csv").read_text().splitlines()
    assert header == "image,class,probability,needs_review,classes,error"
    assert first.split(",")[1] in first.split(",")[4].split()
    assert main([*words, "--error-rate", "0.2"]) == 2
    assert "error rate of 0.2" in capsys.readouterr().err
