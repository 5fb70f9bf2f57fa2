"""Conformal prediction sets: calibration, coverage and use."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from helpers.drawn_gband import pki3_files, write_files

from chromozoo.benchmark import calibration
from chromozoo.benchmark.repository import ROOT
from chromozoo.classes import CLASS_INDEX, CLASSES
from chromozoo.cli import doubt
from chromozoo.cli.main import main
from chromozoo.data.splits import load_split
from chromozoo.karyotype import conformal
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
from chromozoo.models.weights.storage import save_weights
from chromozoo.structures.weights_entry import WeightsEntry

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


@pytest.fixture(scope="module")
def drawn_pki3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pki-3 with three validation cells (138 chromosomes, enough for 1 %) and one test cell."""
    folder = tmp_path_factory.mktemp("data")
    split = load_split("pki3_v1")
    for cell in (*split.val[:3], *split.test[:1]):
        write_files(folder / "gband-pki3", pki3_files(cell))
    return folder


def test_the_command_measures_prediction_sets(
    drawn_pki3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "rows.csv"
    words = ["doubt", "chromozoo_small", "--weights", "bioimlab", "--dataset", "pki3"]
    words += ["--root", str(drawn_pki3), "--results", str(results)]
    assert main(words) == 0
    rows = list(csv.DictReader(results.open()))
    # 138 validation chromosomes are too few for 0.5 %.
    assert [(row["mode"], row["error_rate"]) for row in rows] == [
        ("alone", "0.01"),
        ("cell", "0.01"),
    ]
    for row in rows:
        assert row["n_chromosomes"] == "46" and row["n_cells"] == "1"
        # The drawn cells are all alike, so the error rate of the validation cells holds exactly.
        assert float(row["covered"]) >= 1 - float(row["error_rate"])
        assert 1 <= float(row["set_size"]) <= 24
    assert "| chromozoo_small | bioimlab | pki3_v1/test | cell | 1 |" in capsys.readouterr().out


def test_thresholds_are_stored_with_weights_of_the_same_data_set(
    drawn_pki3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[WeightsEntry] = []
    monkeypatch.setattr(calibration, "write_entry", written.append)
    # In cell mode the scores are expensive, and the same code stores their thresholds.
    monkeypatch.setattr(conformal, "best_log_likelihoods", lambda log_p: log_p)
    root = str(drawn_pki3)
    calibration.measure("chromozoo_small", "pki3", None, "test", root=root, store=True)
    (entry,) = written
    assert entry.tag == "pki3" and set(entry.conformal) == {"alone", "cell"}
    assert set(entry.conformal["alone"]) == {"0.1", "0.05", "0.02", "0.01"}
    calibration.measure("chromozoo_small", "cil", "pki3", "test", root=root, store=True)
    assert written == [entry]


def test_a_user_file_changes_no_packaged_entry(
    drawn_pki3: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The file has the tag of the packaged weights, but thresholds of its own."""
    model: Any = get_model("chromozoo_small", weights="pki3")
    model.network.fc.bias.data += 0.01
    file, _ = save_weights(model.network, model.weights_entry, tmp_path / "own", "fp16")
    written: list[WeightsEntry] = []
    results, tables = tmp_path / "shipped.csv", tmp_path / "tables.md"
    monkeypatch.setattr(calibration, "write_entry", written.append)
    monkeypatch.setattr(doubt, "RESULTS", results)
    monkeypatch.setattr(doubt, "TABLES", tables)
    monkeypatch.setattr(conformal, "best_log_likelihoods", lambda log_p: log_p)
    words = ["doubt", "chromozoo_small", "--root", str(drawn_pki3), "--weights", str(file)]
    assert main([*words, "--output", str(tmp_path / "calibrated")]) == 0
    shown = capsys.readouterr().out
    assert f"| chromozoo_small | {file.name} (own file) | pki3_v1/test | cell | 1 |" in shown
    assert "not added to" in shown
    assert not written and not results.exists() and not tables.exists()

    # The copy has the thresholds, and is the same network.
    (copied,) = (tmp_path / "calibrated").iterdir()
    calibrated: Any = get_model("chromozoo_small", weights=copied)
    thresholds = calibrated.weights_entry.conformal
    assert set(thresholds["cell"]) == {"0.1", "0.05", "0.02", "0.01"}
    original = model.network.state_dict()
    for key, value in calibrated.network.state_dict().items():
        rounded = original[key].half().float()
        assert np.array_equal(value, rounded) or (
            value.ndim < 2 and np.array_equal(value, original[key])
        )
    images = sorted((ROOT / "examples" / "cell_46XY").glob("*.png"))[:2]
    assert all(item.classes for item in calibrated.classify(images, error_rate=0.01))


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
    with (output / "predictions.csv").open() as table:
        first = next(csv.DictReader(table))
    assert first["class"] in first["classes"].split()
    assert main([*words, "--error-rate", "0.2"]) == 2
    assert "0.2" in capsys.readouterr().err
