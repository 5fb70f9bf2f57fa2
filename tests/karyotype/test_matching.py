"""Classification by label feature vectors, by hand, and the command ``chromozoo match``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chromozoo.benchmark import matching as matching_benchmark
from chromozoo.benchmark.inference import predict
from chromozoo.cli.main import main as chromozoo
from chromozoo.data.bioimlab import BioImLabDataModule
from chromozoo.errors import ChromozooError
from chromozoo.karyotype.assignment import assign_cell
from chromozoo.karyotype.iscn import CellError
from chromozoo.karyotype.matching import (
    distances_to_log_probabilities,
    feature_distances,
    fit_temperature,
    head_size,
    label_feature_vectors,
    match_features,
    redistribute_labels,
)
from chromozoo.metrics.classification import evaluate_classification
from chromozoo.models import registry
from chromozoo.models.registry import get_model, register_model
from chromozoo.tasks.classification import ChromosomeClassifier

# A female cell: two of each of classes 0 to 22 (1 to X).
FEMALE = np.repeat(np.arange(23), 2)


def far(n: int) -> np.ndarray:
    """Return distances ``(n, 24)``, all 1."""
    return np.ones((n, 24))


# Distances


def test_distances_by_hand() -> None:
    queries, gallery = [[3.0, 4.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 1.0]]
    np.testing.assert_allclose(
        feature_distances(queries, gallery, "euclid"), [[4, np.sqrt(18)], [np.sqrt(13), 1]]
    )
    np.testing.assert_allclose(
        feature_distances(queries, gallery, "cosine"), [[0.4, 0.2], [1, 0]], atol=1e-15
    )


def test_cosine_distance_of_opposite_and_zero_vectors() -> None:
    found = feature_distances([[1.0, 0.0], [0.0, 0.0]], [[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(found, [[0, 2, 1], [1, 1, 1]])


def test_an_unknown_vector_is_infinitely_far() -> None:
    for metric in ("cosine", "euclid"):
        found = feature_distances([[1.0, 1.0]], [[np.nan, np.nan], [1.0, 1.0]], metric)
        assert np.isinf(found[0, 0]) and found[0, 1] == pytest.approx(0)


# Label feature vectors


def test_vectors_are_means_of_their_class() -> None:
    features = [[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]]
    vectors = label_feature_vectors(features, [4, 4, 23], gamma=1.5)
    assert vectors.shape == (24, 2)
    np.testing.assert_allclose(vectors[[4, 23]], [[3, 6], [7.5, 7.5]])
    assert np.isnan(vectors[[0, 22]]).all()


def test_a_class_without_a_vector_is_never_matched() -> None:
    vectors = label_feature_vectors([[1.0, 0.1], [0.1, 1.0]], [4, 23])
    labels, distances = match_features([[0.0, 1.0], [1.0, 0.0]], vectors)
    assert labels.tolist() == [23, 4]
    assert np.isinf(distances[:, [0, 22]]).all()
    # Nor after redistribution: the tail has class 23, and only class 4 of the head has a vector.
    assert redistribute_labels(distances[[0, 0]] + [[0], [0.5]], beta=1).tolist() == [4, 23]


def test_gamma_cancels_under_cosine_and_not_under_euclid() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.random((240, 8)), np.arange(240) % 24
    queries = rng.random((50, 8))
    plain, amplified = (label_feature_vectors(features, labels, gamma) for gamma in (1.0, 1.5))
    same, other = match_features(queries, plain)[0], match_features(queries, amplified)[0]
    np.testing.assert_array_equal(same, other)
    near, far_off = (
        match_features(queries, plain, "euclid")[0],
        match_features(queries, amplified, "euclid")[0],
    )
    assert (near != far_off).any()


@pytest.mark.parametrize("metric", ["cosine", "euclid"])
def test_perfect_features_give_every_class(metric: Any) -> None:
    vectors = label_feature_vectors(np.eye(24) * 3, np.arange(24))
    order = np.random.default_rng(0).permutation(46)
    labels, distances = match_features((np.eye(24) * 2)[FEMALE[order]], vectors, metric)
    np.testing.assert_array_equal(labels, FEMALE[order])
    temperature = fit_temperature(distances, FEMALE[order])
    cell = assign_cell(distances_to_log_probabilities(distances, temperature))
    np.testing.assert_array_equal(cell.classes, FEMALE[order])
    assert cell.iscn == "46,XX"
    # All distances are equal, so the head is the first 40, which separates no homologues.
    np.testing.assert_array_equal(
        redistribute_labels(match_features(np.eye(24)[FEMALE], vectors)[1]), FEMALE
    )


# Label redistribution


def test_redistribution_of_five_by_hand() -> None:
    d = far(5)
    d[0, 0], d[0, 9] = 0.10, 0.30  # head, class 0
    d[1, 0], d[1, 7] = 0.20, 0.25  # head, class 0 as well, which is allowed
    d[2, 2] = 0.15  # head, class 2
    d[3, 3], d[3, 5] = 0.12, 0.40  # head, class 3, which the tail takes: on to class 5
    d[4, 3], d[4, 6] = 0.50, 0.60  # the largest of the smallest distances: tail, class 3
    assert head_size(5) == 4  # 5 * 40 / 46 = 4.35
    assert redistribute_labels(d).tolist() == [0, 0, 2, 5, 3]
    # With three in the head, 1 is tail as well (0.20) and takes class 0 away from 0.
    assert redistribute_labels(d, beta=3).tolist() == [9, 0, 2, 5, 3]
    assert redistribute_labels(d, beta=5).tolist() == [0, 0, 2, 3, 3]
    assert redistribute_labels(d, beta=0).tolist() == [0, 0, 2, 3, 3]


def test_redistribution_of_a_whole_cell_by_hand() -> None:
    d = far(46)
    d[np.arange(46), FEMALE] = 0.1
    # Tail of six: both 21 (rows 40, 41), both X (44, 45), one 9 (16), one 14 that looks like 15.
    d[[40, 41, 44, 45, 16], FEMALE[[40, 41, 44, 45, 16]]] = [0.50, 0.51, 0.52, 0.53, 0.54]
    d[26] = 1
    d[26, [14, 13]] = [0.55, 0.60]
    # In the head: the other 9 (17) must leave, and finds 10; both 15 (28, 29) must, too.
    d[17, 9] = 0.2
    d[28, 16] = 0.3
    d[29, 13] = 0.3
    expected = FEMALE.copy()
    expected[26] = 14
    expected[17], expected[28], expected[29] = 9, 16, 13
    np.testing.assert_array_equal(redistribute_labels(d), expected)
    # The order of the chromosomes does not matter.
    order = np.random.default_rng(0).permutation(46)
    np.testing.assert_array_equal(redistribute_labels(d[order]), expected[order])


def test_redistribution_corrects_a_head_label_that_the_tail_has() -> None:
    """The intended case: both 16 are in the tail, so the 18 that looked like a 16 is corrected."""
    d = far(46)
    d[np.arange(46), FEMALE] = 0.1
    d[[30, 31], 15] = 0.5
    d[[0, 1, 2, 3], [0, 0, 1, 1]] = 0.45
    d[34, [15, 17]] = [0.05, 0.08]
    assert d.argmin(axis=1)[34] == 15
    np.testing.assert_array_equal(redistribute_labels(d), FEMALE)


def test_a_cell_of_one_chromosome() -> None:
    d = far(1)
    d[0, 20] = 0.5
    assert head_size(1) == 1
    for beta in (None, 0, 1):
        assert redistribute_labels(d, beta).tolist() == [20]
    assert assign_cell(distances_to_log_probabilities(d, 0.1)).labels == ("21",)


def test_ties_go_to_the_first() -> None:
    assert redistribute_labels(far(3), beta=3).tolist() == [0, 0, 0]
    # Rows 0 and 1 are the head; the tail takes class 0 from both.
    assert redistribute_labels(far(3), beta=2).tolist() == [1, 1, 0]


def test_a_head_without_classes_keeps_its_labels() -> None:
    d = far(26)
    d[np.arange(24), np.arange(24)] = 0.5  # the tail has every class
    d[24, 3] = d[25, 4] = 0.1
    assert redistribute_labels(d, beta=2).tolist() == [*range(24), 3, 4]


def test_the_head_scales_with_the_cell() -> None:
    assert [head_size(n) for n in (46, 47, 45, 92, 23)] == [40, 41, 39, 80, 20]
    assert head_size(46, beta=12) == 12


def test_assignment_beats_redistribution_for_a_third_copy() -> None:
    d = far(46)
    d[np.arange(46), FEMALE] = 0.1
    d[16, [7, 8]] = [0.05, 0.08]  # a 9 that looks more like an 8
    redistributed = redistribute_labels(d)
    assert np.bincount(redistributed)[7] == 3
    assert (redistributed == FEMALE).sum() == 45
    assigned = assign_cell(distances_to_log_probabilities(d, 0.05)).classes
    np.testing.assert_array_equal(assigned, FEMALE)


# Distances as probabilities


def test_log_probabilities_by_hand() -> None:
    d = np.full((1, 24), np.inf)
    d[0, :2] = [0.0, np.log(3) * 2]
    found = np.exp(distances_to_log_probabilities(d, temperature=2.0))
    np.testing.assert_allclose(found[0, :3], [0.75, 0.25, 0])


def test_the_temperature_is_that_of_the_data() -> None:
    """The fit finds the temperature of the distribution that the labels were drawn from."""
    rng = np.random.default_rng(0)
    d = rng.random((4000, 24))
    labels = np.array([rng.choice(24, p=p) for p in np.exp(distances_to_log_probabilities(d, 0.2))])
    assert fit_temperature(d, labels) == pytest.approx(0.2, rel=0.05)
    # A class without a vector does not affect the temperature.
    d[:, 23] = np.inf
    known = labels != 23
    assert fit_temperature(d, labels) == fit_temperature(d[known], labels[known])


def test_the_temperature_of_perfect_distances() -> None:
    d = far(46)
    d[np.arange(46), FEMALE] = 0
    assert 0 < fit_temperature(d, FEMALE) < 0.05
    assert fit_temperature(np.zeros((2, 24)), [0, 1]) > 0


# Bad input

NAN = [[1.0, 2.0], [1.0, np.nan]]
GOOD = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: feature_distances(NAN, GOOD), "queries: row 1 holds NaN"),
        (lambda: feature_distances(GOOD, NAN), "gallery: row 1 holds NaN"),
        (lambda: feature_distances([[np.inf, 1.0]], GOOD), "queries: row 0 holds NaN or infinity"),
        (lambda: feature_distances(GOOD, [[1.0]]), "2 features and the gallery 1"),
        (lambda: feature_distances([1.0, 2.0], GOOD), r"queries: shape \(2,\)"),
        (lambda: feature_distances(GOOD, [1.0, 2.0]), r"gallery: shape \(2,\)"),
        (lambda: feature_distances(np.empty((0, 2)), GOOD), r"queries: shape \(0, 2\)"),
        (lambda: feature_distances(GOOD, GOOD, "manhattan"), "'manhattan': use one of cosine"),
        (lambda: label_feature_vectors(NAN, [0, 1]), "features: row 1 holds NaN"),
        (lambda: label_feature_vectors(GOOD, [0]), r"shape \(1,\) for 2 chromosomes"),
        (lambda: label_feature_vectors(GOOD, [0, 24]), "class indices 0..23"),
        (lambda: label_feature_vectors(GOOD, [-1, 0]), "class indices 0..23"),
        (lambda: label_feature_vectors(GOOD, [0.0, 1.0]), "class indices 0..23"),
        (lambda: label_feature_vectors(GOOD, [0, 1], gamma=0), "gamma is 0"),
        (lambda: label_feature_vectors(GOOD, [0, 1], gamma=np.nan), "gamma is nan"),
        (lambda: match_features(GOOD, GOOD), r"\(2, 2\): give \(N, 24\)"),
        (lambda: match_features(NAN, np.ones((24, 2))), "row 1 holds NaN"),
        (lambda: redistribute_labels(np.ones((0, 24))), r"\(0, 24\)"),
        (lambda: redistribute_labels(far(2), beta=3), "beta is 3 in a cell of 2"),
        (lambda: redistribute_labels(far(2), beta=-1), "beta is -1"),
        (lambda: redistribute_labels(far(2) * np.nan), "row 0 of distances holds NaN"),
        (lambda: redistribute_labels(far(2) * np.inf), "nothing finite"),
        (lambda: redistribute_labels(-far(2)), "negative"),
        (lambda: distances_to_log_probabilities(far(2), 0), "temperature is 0"),
        (lambda: fit_temperature(far(2), [0]), r"shape \(1,\) for 2"),
        (lambda: fit_temperature(np.where(np.arange(24) < 1, np.inf, far(1)), [0]), "no chromo"),
    ],
)
def test_bad_input_is_refused(call: Any, said: str) -> None:
    with pytest.raises(CellError, match=said) as raised:
        call()
    assert isinstance(raised.value, ValueError)


# The command


class TinyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 5, stride=3)
        self.fc = nn.Linear(6, 24)

    def forward_features(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.stem(x)).mean(dim=(2, 3))

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class TinyStoring(TinyNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("label_features", torch.zeros(24, 6))
        self.register_buffer("label_features_set", torch.zeros(24, dtype=torch.bool))


class Tiny(ChromosomeClassifier):
    def __init__(self, stores: bool = False) -> None:
        self.save_hyperparameters()
        network = TinyStoring() if stores else TinyNetwork()
        super().__init__(network, 6, preset={"height": 32, "width": 16, "scale": 0.3})


class NoFeatures(ChromosomeClassifier):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), 1)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))

    @register_model(task="classification", paper="A. Uthor, 2026")
    def tiny_matcher(stores: bool = False, **_: Any) -> Tiny:
        """A tiny model."""
        return Tiny(stores)

    @register_model(task="classification", paper="A. Uthor, 2026")
    def tiny_blind() -> NoFeatures:
        """A model without features."""
        return NoFeatures()


def checkpoint(path: Path, model: ChromosomeClassifier) -> Path:
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, path)
    return path


def figures(row: dict[str, str]) -> dict[str, float]:
    return {name: float(row[name]) for name in matching_benchmark.FIGURES}


def test_the_command_writes_a_row_for_each_way(
    tiny: None, tiny_bioimlab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    weights = checkpoint(tmp_path / "tiny.ckpt", Tiny())
    results = tmp_path / "results" / "matching.csv"
    results.parent.mkdir()
    words = [
        "feature-matching",
        "tiny_matcher",
        "--weights",
        str(weights),
        "--root",
        str(tiny_bioimlab),
    ]
    words += ["--device", "cpu", "--output", str(results)]
    assert chromozoo(words) == 0
    shown = capsys.readouterr().out
    rows = matching_benchmark.read_rows(results)
    assert [(row["mode"], row["metric"]) for row in rows] == [
        ("softmax", ""),
        ("softmax+assignment", ""),
        *((m, "cosine") for m in ("lfv", "lfv+lrd", "lfv+assignment")),
        *((m, "euclid") for m in ("lfv", "lfv+lrd", "lfv+assignment")),
    ]
    for row in rows:
        assert row["split"] == "bioimlab_v1/val" and row["n_chromosomes"] == "46"
        assert row["weights"] == "tiny.ckpt" and len(row["weights_sha256"]) == 12
        assert row["input_size"] == "32x16" and row["tta"] == "4 flips"
        assert 0 <= float(row["accuracy"]) <= 1
        assert row["accuracy_low"] == ""  # one cell has no interval
        assert bool(row["beta"]) == (row["mode"] == "lfv+lrd")
        assert bool(row["temperature"]) == (row["mode"] == "lfv+assignment")
        assert f"| {row['mode']} | {row['metric']} | {row['beta']} |" in shown
    assert "selected on these cells" in shown

    # The rows equal the results of the library functions.
    model: Any = get_model("tiny_matcher", weights=weights)
    data = BioImLabDataModule(root=tiny_bioimlab, preset=model.transforms.to_dict())
    train, val = data.dataset("train"), data.dataset("val")
    report = evaluate_classification(predict(model, val)[0], val.labels, val.cells)
    for row, prefix in ((rows[0], ""), (rows[1], "assigned_")):
        for name, value in figures(row).items():
            assert value == pytest.approx(report.metrics[f"{prefix}{name}"].value, abs=1e-4)
    vectors = label_feature_vectors(matching_benchmark.extract_features(model, train), train.labels)
    features = matching_benchmark.extract_features(model, val)
    for row, metric in ((rows[2], "cosine"), (rows[5], "euclid")):
        labels, distances = match_features(features, vectors, metric)  # type: ignore[arg-type]
        assert float(row["accuracy"]) == pytest.approx((labels == val.labels).mean(), abs=1e-4)
        beta = matching_benchmark.choose_beta(distances, val.labels, val.cells)
        redistributed = redistribute_labels(distances, beta)
        lrd = rows[rows.index(row) + 1]
        assert lrd["beta"] == str(beta)
        assert float(lrd["accuracy"]) == pytest.approx(
            (redistributed == val.labels).mean(), abs=1e-4
        )

    # A second run replaces rows, also with another beta.
    assert chromozoo([*words, "--metric", "cosine", "--beta", "7"]) == 0
    again = matching_benchmark.read_rows(results)
    assert len(again) == len(rows)
    assert again[3]["beta"] == "7"
    assert again[6] == rows[6]
    assert not list(results.parent.glob("*.tmp"))

    # The test stage has its own rows.
    capsys.readouterr()
    assert chromozoo([*words, "--stage", "test", "--metric", "euclid"]) == 0
    rows = matching_benchmark.read_rows(results)
    assert [row["split"] for row in rows[8:]] == ["bioimlab_v1/test"] * 5
    assert "selected on these cells" not in capsys.readouterr().out


def test_stored_label_feature_vectors_are_measured(
    tiny: None, tiny_bioimlab: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Tiny(stores=True).eval()
    data = BioImLabDataModule(root=tiny_bioimlab, preset=model.transforms.to_dict())
    train = data.dataset("train")
    exact = label_feature_vectors(matching_benchmark.extract_features(model, train), train.labels)
    known = ~np.isnan(exact).any(axis=1)
    assert known.sum() == 23  # the training cell is female
    results = tmp_path / "matching.csv"

    def measured(name: str) -> list[dict[str, str]]:
        weights = checkpoint(tmp_path / name, model)
        words = [
            "feature-matching",
            "tiny_matcher",
            "--weights",
            str(weights),
            "--root",
            str(tiny_bioimlab),
        ]
        assert chromozoo([*words, "--device", "cpu", "--output", str(results)]) == 0
        return [row for row in matching_benchmark.read_rows(results) if row["weights"] == name]

    assert not [row for row in measured("unset.ckpt") if row["mode"] == "lfv-stored"]
    model.network.label_features[known] = torch.from_numpy(exact[known]).float()  # type: ignore[operator,index]
    model.network.label_features_set[known] = True  # type: ignore[operator,index]
    rows = {(row["mode"], row["metric"]): row for row in measured("set.ckpt")}
    for metric in ("cosine", "euclid"):
        assert figures(rows["lfv-stored", metric]) == figures(rows["lfv", metric])


def test_beta_is_the_best_one_nearest_to_40() -> None:
    d = far(46)
    d[np.arange(46), FEMALE] = 0.1
    cells = np.zeros(46, np.int64)
    # Equal distances: the tail is the last rows, and an even number of them is whole pairs.
    assert matching_benchmark.choose_beta(d, FEMALE, cells) == 40
    # Both 21 far off, and a 22 that looks like a 21: right with both in the tail, but not the
    # other 22 (beta 40 and 41) and not one X alone (43).
    d[40:42, 20] = 0.4
    d[42, [20, 21]] = [0.05, 0.08]
    right = [
        int((redistribute_labels(d, beta) == FEMALE).sum()) for beta in matching_benchmark.BETAS
    ]
    assert [beta for beta in matching_benchmark.BETAS if right[beta - 1] == 46] == [42, 44]
    assert matching_benchmark.choose_beta(d, FEMALE, cells) == 42


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no_such"], "unknown model 'no_such'"),
        (["tiny_matcher"], "has no weights"),
        (["tiny_matcher", "--weights", "no.ckpt"], "no.ckpt: no such file"),
        (["tiny_blind", "--weights", "blind.ckpt"], "tiny_blind gives no features"),
    ],
)
def test_the_command_reports_the_cause(
    words: list[str],
    said: str,
    tiny: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    blind = {"state_dict": {"network.x": torch.zeros(1)}, "hyper_parameters": {}}
    torch.save(blind, "blind.ckpt")
    monkeypatch.setattr("chromozoo.models.weights.storage.load_tensors", lambda *_: None)
    assert chromozoo(["feature-matching", *words, "--output", str(tmp_path / "x.csv")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("beta", ["0", "46", "half", "-3"])
def test_a_beta_out_of_range_is_refused(beta: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        chromozoo(["feature-matching", "eresnet", f"--beta={beta}"])
    assert stopped.value.code == 2
    assert "from 1 to 45" in capsys.readouterr().err


def test_a_file_of_another_kind_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ChromozooError, match=r"other\.csv: its columns"):
        matching_benchmark.add_rows(path, [])
    assert path.read_text() == "a,b\n1,2\n"
