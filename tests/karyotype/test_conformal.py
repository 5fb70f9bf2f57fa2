"""Conformal prediction sets: calibration, coverage and use."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from chromozoo.benchmark.repository import ROOT
from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.cli.main import main
from chromozoo.karyotype.assignment import assign_cell, best_log_likelihoods
from chromozoo.karyotype.conformal import (
    ConformalError,
    ConformalMode,
    calibrate_thresholds,
    get_threshold,
    nonconformity_scores,
    prediction_sets,
)
from chromozoo.karyotype.predictions import to_predictions
from chromozoo.models.registry import get_model

NORMAL = np.array([*np.repeat(np.arange(22), 2), CLASS_INDEX["X"], CLASS_INDEX["Y"]])


def noisy(labels: np.ndarray, rng: np.random.Generator, spread: float = 1.3) -> np.ndarray:
    """Return log-probabilities of a classifier that is right most of the time."""
    logits = rng.normal(0, spread, (len(labels), 24)) + 4 * np.eye(24)[labels]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("rate", [0.1, 0.05, 0.01])
def test_sets_have_the_chosen_error_rate(rate: float) -> None:
    rng = np.random.default_rng(0)
    missed, sizes = [], []
    for _ in range(40):
        labels = rng.integers(0, 24, 1500)
        scores = nonconformity_scores(noisy(labels, rng))
        true = scores[np.arange(1500), labels]
        threshold = get_threshold(calibrate_thresholds(true[:500]), rate)
        sets = prediction_sets(scores[500:], threshold)
        missed.append(1 - sets[np.arange(1000), labels[500:]].mean())
        sizes.append(sets.sum(axis=1).mean())
    # The expected rate over calibrations is at most 1 / 501 below the chosen one.
    assert np.mean(missed) == pytest.approx(rate, abs=3 * np.std(missed) / 40**0.5 + 1 / 501)
    assert 1 <= np.mean(sizes) < 10


def test_sets_within_a_cell_are_smaller() -> None:
    rng = np.random.default_rng(0)
    cells = [noisy(NORMAL, rng) for _ in range(6)]
    sizes = {}
    for mode in get_args(ConformalMode):
        scores = [nonconformity_scores(cell, mode) for cell in cells]
        true = np.concatenate([one[np.arange(46), NORMAL] for one in scores[:3]])
        threshold = get_threshold(calibrate_thresholds(true), 0.05)
        sets = np.concatenate([prediction_sets(one, threshold) for one in scores[3:]])
        assert sets[np.arange(len(sets)), np.tile(NORMAL, 3)].mean() > 0.9
        sizes[mode] = sets.sum(axis=1).mean()
    assert sizes["cell"] < sizes["alone"]


def test_error_rates_need_enough_chromosomes() -> None:
    assert set(calibrate_thresholds(np.arange(8))) == set()
    assert set(calibrate_thresholds(np.arange(9))) == {"0.1"}
    assert calibrate_thresholds(np.arange(9))["0.1"] == 8.0
    assert set(calibrate_thresholds(np.arange(99))) == {"0.1", "0.05", "0.02", "0.01"}
    with pytest.raises(ConformalError, match=r"error rate 0\.005; available: 0\.1, 0\.05"):
        get_threshold({"0.1": 1.0, "0.05": 2.0}, 0.005)
    with pytest.raises(ConformalError, match=r"none; choose .*`chromozoo models`.*calibrate"):
        get_threshold({}, 0.01)


def test_a_set_is_never_empty() -> None:
    sets = prediction_sets([[3.0, 2.0, 5.0], [0.1, 4.0, 0.3]], threshold=1.0)
    assert sets.tolist() == [[False, True, False], [True, False, True]]


def test_the_best_likelihood_for_each_class() -> None:
    """By brute force: all other classes of one chromosome are forbidden."""
    rng = np.random.default_rng(3)
    log_p = noisy(NORMAL[:12], rng)
    best = best_log_likelihoods(log_p)
    assert best.max(axis=1) == pytest.approx(assign_cell(log_p).log_likelihood)
    for row, index in ((0, 0), (3, 7), (11, 23)):
        only = log_p.copy()
        only[row] = -np.inf
        only[row, index] = log_p[row, index]
        assert best[row, index] == pytest.approx(assign_cell(only).log_likelihood)
    cell = nonconformity_scores(log_p, "cell")
    assert (cell >= -1e-9).all() and np.allclose(cell.min(axis=1), 0)


def test_predictions_have_their_sets() -> None:
    log_p = np.full((3, 24), np.log(1e-4))
    log_p[0, 4], log_p[1, [4, 5]], log_p[2] = np.log(0.99), np.log(0.49), np.nan
    found = to_predictions(
        np.exp(log_p), ["a", "b", "bad"], {2: "unreadable"}, threshold=-np.log(0.1)
    )
    assert [item.classes for item in found] == [("5",), ("5", "6"), None]
    without = to_predictions(np.exp(log_p[:2]), ["a", "b"])
    assert [item.classes for item in without] == [None, None]


def test_classify_gives_prediction_sets(
    inline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = get_model("chromozoo_small", weights="pki3")
    images = sorted((ROOT / "examples" / "cell_46XY").glob("*.png"))[:6]
    thresholds = {"0.05": 0.5, "0.01": 4.0}
    model.weights_entry = dataclasses.replace(
        model.weights_entry, conformal={"alone": thresholds, "cell": thresholds}
    )
    narrow = model.classify(images, error_rate=0.05)
    wide = model.classify(images, error_rate=0.01)
    for one, other in zip(narrow, wide, strict=True):
        assert set(one.classes) <= set(other.classes) <= set(CLASSES)
        assert one.label in one.classes
    with pytest.raises(ConformalError, match=r"0\.2"):
        model.classify(images, error_rate=0.2)
    # The thresholds of the packaged weights.
    output = tmp_path / "classified"
    words = ["classify", *map(str, images), "--model", "chromozoo_small", "--output", str(output)]
    assert main([*words, "--error-rate", "0.01"]) == 0
    document = json.loads((output / "predictions.json").read_text())
    assert all(item["class"] in item["classes"] for item in document["chromosomes"])
    header, first, *_ = (output / "predictions.csv").read_text().splitlines()
    assert header == "image,class,probability,needs_review,classes,error"
    assert first.split(",")[1] in first.split(",")[4].split()
    assert main([*words, "--error-rate", "0.2"]) == 2
    assert "0.2" in capsys.readouterr().err
