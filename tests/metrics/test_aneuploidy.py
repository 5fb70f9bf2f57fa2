"""Aneuploidy metrics: detection and classification of gains and losses."""

from collections import Counter

import numpy as np

from chromozoo.classes import CLASS_INDEX
from chromozoo.metrics.aneuploidy import N_INCOMPLETE, N_SIMULATED, evaluate_aneuploidy

NORMAL = [*np.repeat(np.arange(22), 2).tolist(), CLASS_INDEX["X"], CLASS_INDEX["Y"]]


def certain(labels: list[int]) -> np.ndarray:
    """Return log-probabilities of a classifier that is correct and certain."""
    return np.log(np.full((len(labels), 24), 1e-6) + np.eye(24)[labels])


def test_a_certain_classifier_detects_every_gain_and_loss() -> None:
    cells = [NORMAL, NORMAL, [*NORMAL, 20], NORMAL[:-1]]
    labels = [label for cell in cells for label in cell]
    ids = np.repeat(["a", "b", "trisomy", "45,X"], [len(cell) for cell in cells])
    log_p = np.minimum(certain(labels), 0)
    reports = {
        one.kind: one for one in evaluate_aneuploidy(log_p.__getitem__, labels, ids, n_bootstrap=20)
    }
    assert Counter({kind: one.cells for kind, one in reports.items()}) == {
        "normal": 2,
        "abnormal": 2,
        "loss": 2 * N_SIMULATED,
        "gain": 2 * N_SIMULATED,
        "incomplete": 2 * N_SIMULATED,
    }
    assert reports["normal"].detected.value == 0 and reports["normal"].exact_karyotype.value == 1
    for kind in ("abnormal", "loss", "gain", "incomplete"):
        one = reports[kind]
        assert one.detected.value == one.exact_karyotype.value == one.accuracy.value == 1


def test_an_uninformed_classifier_detects_by_the_number_alone() -> None:
    rng = np.random.default_rng(0)
    labels = [label for _ in range(3) for label in rng.permutation(NORMAL).tolist()]
    ids = np.repeat([1, 2, 3], len(NORMAL))
    log_p = np.full((len(labels), 24), -np.log(24))
    reports = {
        one.kind: one for one in evaluate_aneuploidy(log_p.__getitem__, labels, ids, n_bootstrap=20)
    }
    assert "abnormal" not in reports
    # 46 chromosomes fill the 46 slots of a normal cell; the number shows one more or one fewer.
    assert reports["normal"].detected.value == 0
    assert reports["loss"].detected.value == reports["gain"].detected.value == 1
    assert reports["gain"].exact_karyotype.value < 0.3
    assert reports["normal"].accuracy.value < 0.3


def test_each_simulated_cell_is_predicted_as_a_cell() -> None:
    labels = np.array(NORMAL * 2)
    sizes = []

    def of_rows(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return np.minimum(certain(labels[rows].tolist()), 0)

    reports = evaluate_aneuploidy(of_rows, labels, np.repeat([0, 1], 46), n_bootstrap=20)
    assert Counter(sizes) == {
        46: 2,
        45: 2 * N_SIMULATED,
        47: 2 * N_SIMULATED,
        N_INCOMPLETE: 2 * N_SIMULATED,
    }
    assert all(one.accuracy.value == 1 for one in reports)
