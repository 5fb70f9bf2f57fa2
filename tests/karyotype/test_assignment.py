"""Cell-level assignment: optimal, invariant, and sensitive to numerical abnormalities."""

import itertools
from collections import Counter

import numpy as np
import pytest
from iscn_authenticator import validate_karyotype

from chromozoo.classes import AUTOSOMES, CLASS_INDEX, CLASSES
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.karyotype.assignment import (
    DEFAULT_EXTRA_COST,
    DEFAULT_MISSING_COST,
    assign_cell,
    assignment_margins,
    present_rows,
)
from chromozoo.karyotype.iscn import CellError, iscn_string, normal_counts


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def class_names(counts: dict[str, int]) -> list[str]:
    return [name for name in CLASSES for _ in range(counts.get(name, 0))]


def cell(
    sex: str = "XY",
    *,
    gain: str = "",
    lose: str = "",
    margin: float = 30.0,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[list[str], np.ndarray]:
    """Return true classes and log-probabilities; ``gain`` and ``lose`` are space-separated."""
    counts = Counter(normal_counts(sex))
    counts.update(gain.split())
    counts.subtract(lose.split())
    names = class_names(counts)
    rng = np.random.default_rng(seed)
    logits = noise * rng.standard_normal((len(names), len(CLASSES)))
    logits[np.arange(len(names)), [CLASS_INDEX[name] for name in names]] += margin
    order = rng.permutation(len(names))
    return [names[row] for row in order], log_softmax(logits[order])


def prior_cost(labels: tuple[str, ...], sex: str, extra_cost: float, missing_cost: float) -> float:
    counts, normal = Counter(labels), normal_counts(sex)
    extra = sum(max(0, counts[name] - normal[name]) for name in CLASSES)
    missing = sum(max(0, normal[name] - counts[name]) for name in CLASSES)
    return extra * extra_cost + missing * missing_cost


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("costs", [(6.9, 6.9), (1.0, 3.0), (0.2, 0.1)])
def test_assignment_is_the_optimum_over_all_labellings(
    seed: int, costs: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    allowed = ("21", "X", "Y")  # every other class is impossible: 3**6 labellings
    log_p = np.full((6, len(CLASSES)), -np.inf)
    columns = [CLASS_INDEX[name] for name in allowed]
    log_p[:, columns] = log_softmax(3.0 * rng.standard_normal((6, len(allowed))))
    best = max(
        sum(log_p[row, CLASS_INDEX[name]] for row, name in enumerate(labelling))
        - prior_cost(labelling, sex, *costs)
        for labelling in itertools.product(allowed, repeat=6)
        for sex in ("XX", "XY")
    )
    result = assign_cell(log_p, extra_cost=costs[0], missing_cost=costs[1])
    assert result.log_likelihood == pytest.approx(best, abs=1e-9)
    likelihood = sum(log_p[row, index] for row, index in enumerate(result.classes))
    assert likelihood - prior_cost(result.labels, result.sex, *costs) == pytest.approx(best)


def test_a_normal_cell_is_right_although_the_argmax_is_not() -> None:
    truth, log_p = cell("XY")
    for name, taken_for in (("9", "8"), ("16", "17"), ("Y", "22")):
        logits = np.zeros((1, len(CLASSES)))
        logits[0, [CLASS_INDEX[name], CLASS_INDEX[taken_for]]] = 7.0, 10.0
        log_p[truth.index(name)] = log_softmax(logits)[0]
    argmax = [CLASSES[index] for index in log_p.argmax(axis=1)]
    assert sum(a != b for a, b in zip(argmax, truth, strict=True)) == 3
    result = assign_cell(log_p)
    assert list(result.labels) == truth
    assert (result.iscn, result.sex, result.abnormal) == ("46,XY", "XY", False)
    assert result.supernumerary == result.gains == result.losses == ()


def test_noisy_normal_cells_have_far_fewer_errors_than_the_argmax() -> None:
    errors_of_argmax = errors_together = 0
    for seed in range(20):
        truth, log_p = cell("XX", margin=6.0, noise=1.5, seed=seed)
        expected = np.array([CLASS_INDEX[name] for name in truth])
        errors_of_argmax += int((log_p.argmax(axis=1) != expected).sum())
        errors_together += int((assign_cell(log_p).classes != expected).sum())
    assert errors_of_argmax > 30
    assert errors_together < errors_of_argmax / 4


@pytest.mark.parametrize(
    ("sex", "gain", "lose", "iscn", "compared_with"),
    [
        ("XX", "", "", "46,XX", "XX"),
        ("XY", "", "", "46,XY", "XY"),
        ("XX", "21", "", "47,XX,+21", "XX"),
        ("XY", "21 21", "", "48,XY,+21,+21", "XY"),
        ("XX", "21 8", "", "48,XX,+8,+21", "XX"),
        ("XX", "", "7", "45,XX,-7", "XX"),
        ("XX", "", "X", "45,X", "XX"),
        ("XY", "", "Y", "45,X", "XX"),
        ("XY", "", "X", "45,Y", "XY"),
        ("XY", "X", "", "47,XXY", "XY"),
        ("XX", "Y", "", "47,XXY", "XY"),
        ("XY", "Y", "", "47,XYY", "XY"),
        ("XX", "X", "", "47,XXX", "XX"),
        ("XX", "21", "X", "46,X,+21", "XX"),
        ("XX", "", "X X", "44,?", "XX"),
    ],
)
def test_confident_evidence_gives_the_abnormality(
    sex: str, gain: str, lose: str, iscn: str, compared_with: str
) -> None:
    truth, log_p = cell(sex, gain=gain, lose=lose)
    result = assign_cell(log_p)
    assert list(result.labels) == truth
    assert (result.iscn, result.sex) == (iscn, compared_with)
    assert result.abnormal == bool(gain or lose)
    # The normal set, plus the gains, minus the losses, gives the counts.
    recount = Counter(normal_counts(result.sex))
    recount.update(result.gains)
    recount.subtract(result.losses)
    assert recount == Counter(result.labels)
    assert sorted(result.labels[row] for row in result.supernumerary) == sorted(result.gains)


def test_a_given_sex_is_kept() -> None:
    _, log_p = cell("XY", lose="Y")
    result = assign_cell(log_p, sex="XY")
    assert (result.sex, result.losses, result.iscn) == ("XY", ("Y",), "45,X")
    assert assign_cell(log_p, sex="XX").losses == ("X",)
    # A confident Y is supernumerary if XX is given.
    _, log_p = cell("XX", gain="Y")
    assert assign_cell(log_p, sex="XX").gains == ("Y",)


@pytest.mark.parametrize(("factor", "iscn"), [(0.99, "46,XX"), (1.01, "46,X,+21")])
def test_evidence_must_outweigh_both_prior_costs(factor: float, iscn: str) -> None:
    truth, log_p = cell("XX")
    row = truth.index("X")
    odds = factor * (DEFAULT_EXTRA_COST + DEFAULT_MISSING_COST)
    log_p[row] = -np.inf
    log_p[row, [CLASS_INDEX["21"], CLASS_INDEX["X"]]] = log_softmax(np.array([[odds, 0.0]]))[0]
    result = assign_cell(log_p)
    assert result.iscn == iscn
    assert result.supernumerary == ((row,) if factor > 1 else ())


def test_the_copy_of_lowest_probability_is_supernumerary() -> None:
    truth, log_p = cell("XX", gain="21", margin=30.0)
    row = [index for index, name in enumerate(truth) if name == "21"][1]
    logits = np.zeros((1, len(CLASSES)))
    logits[0, CLASS_INDEX["21"]] = 20.0
    log_p[row] = log_softmax(logits)[0]
    assert assign_cell(log_p).supernumerary == (row,)


@pytest.mark.parametrize("count", [1, 2, 30, 45, 46, 47, 69, 92, 130])
def test_any_number_of_chromosomes_is_solved(count: int) -> None:
    names = (class_names(normal_counts("XX")) * 3)[:count]
    logits = np.zeros((count, len(CLASSES)))
    logits[np.arange(count), [CLASS_INDEX[name] for name in names]] = 30.0
    result = assign_cell(log_softmax(logits))
    assert list(result.labels) == names
    assert result.iscn.split(",")[0] == str(count)
    assert 46 + len(result.gains) - len(result.losses) == count
    assert len(result.supernumerary) == len(result.gains)
    assert result.abnormal == (count != 46)


def test_result_does_not_depend_on_the_order_of_the_chromosomes() -> None:
    _, log_p = cell("XX", gain="21 X", lose="5", margin=6.0, noise=1.5)
    order = np.random.default_rng(3).permutation(len(log_p))
    straight, shuffled = assign_cell(log_p), assign_cell(log_p[order])
    assert [straight.labels[row] for row in order] == list(shuffled.labels)
    assert straight.log_likelihood == pytest.approx(shuffled.log_likelihood)
    assert {int(order[row]) for row in shuffled.supernumerary} == set(straight.supernumerary)
    assert straight.iscn == shuffled.iscn


def test_input_is_not_changed_and_result_is_read_only() -> None:
    _, log_p = cell(margin=200.0)
    log_p[log_p < -100] = -np.inf
    before = log_p.copy()
    result = assign_cell(log_p)
    np.testing.assert_array_equal(log_p, before)
    assert [CLASSES[index] for index in result.classes] == list(result.labels)
    with pytest.raises(ValueError, match="read-only"):
        result.classes[0] = 3


def test_minus_infinity_is_no_proof() -> None:
    truth, log_p = cell("XX")
    log_p[log_p < -1] = -np.inf  # every class is certain
    row = truth.index("9")
    log_p[row] = -np.inf
    log_p[row, CLASS_INDEX["8"]] = 0.0
    # Even so, 87 nats against one class cannot outweigh a prior of 2 x 50 nats.
    assert assign_cell(log_p, extra_cost=50, missing_cost=50).iscn == "46,XX"
    assert assign_cell(log_p).iscn == "46,XX,+8,-9"


def test_the_error_for_nan_gives_the_row() -> None:
    _, log_p = cell()
    log_p[17, 3] = np.nan
    with pytest.raises(CellError, match=r"row 17 .*NaN") as caught:
        assign_cell(log_p)
    assert isinstance(caught.value, ChromozooError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("shape", [(46,), (46, 23), (24, 46), (0, 24), (1, 46, 24)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CellError, match=r"shape .* give \(N, 24\)"):
        assign_cell(np.full(shape, -3.0))


def test_values_above_0_and_impossible_rows_are_refused() -> None:
    _, log_p = cell()
    with pytest.raises(CellError, match="above 0"):
        assign_cell(np.exp(log_p))
    log_p[5] = -np.inf
    with pytest.raises(CellError, match=r"row 5 .*every class"):
        assign_cell(log_p)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sex": "X"}, "sex is 'X'"),
        ({"extra_cost": 0.0}, "extra_cost is 0.0"),
        ({"missing_cost": -1.0}, "missing_cost is -1.0"),
        ({"missing_cost": float("inf")}, "missing_cost is inf"),
    ],
)
def test_invalid_options_are_refused(options: dict, message: str) -> None:
    _, log_p = cell()
    with pytest.raises(CellError, match=message):
        assign_cell(log_p, **options)


def with_changes(sex: str, **changes: int) -> dict[str, int]:
    counts = {name: count for name, count in normal_counts(sex).items() if count}
    for name, change in changes.items():
        counts[name.removeprefix("c")] = counts.get(name.removeprefix("c"), 0) + change
    return counts


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (with_changes("XX"), "46,XX"),
        (with_changes("XY"), "46,XY"),
        (with_changes("XY", cX=-1, cY=1), "46,YY"),
        (with_changes("XX", c21=1), "47,XX,+21"),
        (with_changes("XX", cX=-1), "45,X"),
        (with_changes("XY", cY=-1), "45,X"),
        (with_changes("XY", cX=1), "47,XXY"),
        (with_changes("XY", cY=1), "47,XYY"),
        (with_changes("XX", cX=1), "47,XXX"),
        (with_changes("XX", c7=-1), "45,XX,-7"),
        (with_changes("XX", c21=1, c8=1), "48,XX,+8,+21"),
        (with_changes("XX", c21=2), "48,XX,+21,+21"),
        (with_changes("XY", c9=-2, c10=1, c2=-1), "44,XY,-2,-9,-9,+10"),
        (with_changes("XY", cX=1, c13=1), "48,XXY,+13"),
        (dict.fromkeys(CLASSES[:23], 3), "69,XXX"),
        (dict.fromkeys(CLASSES[:22], 4) | {"X": 2, "Y": 2}, "92,XXYY"),
        (dict.fromkeys(CLASSES[:22], 3) | {"X": 2, "Y": 1, "8": 4}, "70,XXY,+8"),
        (dict.fromkeys(CLASSES[:22], 1), "22,?," + ",".join(f"-{n}" for n in range(1, 23))),
        ({}, "0,?," + ",".join(f"-{n},-{n}" for n in range(1, 23))),
    ],
)
def test_iscn_strings(counts: dict[str, int], expected: str) -> None:
    assert iscn_string(counts) == expected


def test_margins_are_those_of_the_second_best_labelling() -> None:
    """By brute force over all labellings of a small set with three classes."""
    rng = np.random.default_rng(0)
    log_p = log_softmax(3 * rng.normal(size=(3, len(CLASSES))))
    log_p[:, 3:] -= 40  # three classes, so that all labellings can be tried
    assignment = assign_cell(log_p, sex="XX")
    normal = normal_counts("XX")

    def likelihood(labelling: tuple[int, ...]) -> float:
        counts = Counter(CLASSES[k] for k in labelling)
        extra = sum(max(counts[name] - normal[name], 0) for name in CLASSES)
        missing = sum(max(normal[name] - counts[name], 0) for name in CLASSES)
        fit = sum(log_p[row, k] for row, k in enumerate(labelling))
        return float(fit - extra * DEFAULT_EXTRA_COST - missing * DEFAULT_MISSING_COST)

    labellings = list(itertools.product(range(3), repeat=3))
    margins = assignment_margins(log_p, assignment, sex="XX")
    for row, margin in enumerate(margins):
        others = [one for one in labellings if one[row] != assignment.classes[row]]
        second = max(likelihood(one) for one in others)
        assert margin == pytest.approx(assignment.log_likelihood - second)


def test_a_margin_depends_on_the_whole_cell() -> None:
    names, log_p = cell("XX", margin=20.0)
    first = names.index("8")
    ninth = CLASS_INDEX["9"]
    # Alone it could be a 9 as well, but the cell already has two.
    log_p[first, ninth] = log_p[first, CLASS_INDEX["8"]]
    log_p = log_softmax(log_p)
    margins = assignment_margins(log_p, assign_cell(log_p))
    assert margins[first] == pytest.approx(DEFAULT_EXTRA_COST + DEFAULT_MISSING_COST, abs=0.1)
    assert margins.argmin() == first


def test_an_uncertain_detection_is_kept_if_it_fills_an_empty_slot() -> None:
    names, log_p = cell("XX", lose="8")
    assert len(names) == 45
    fits, third = cell("XX")[1][cell("XX")[0].index("8")], log_p[names.index("9")]
    both = np.vstack([log_p, fits, third])
    presence = np.r_[np.ones(45), 0.3, 0.3]
    assert present_rows(both, presence).tolist() == [True] * 46 + [False]
    # A certain third copy is kept; otherwise no gain could be found.
    presence[-1] = 1
    assert present_rows(both, presence).all()
    assert assign_cell(both).iscn == "47,XX,+9"


def test_presence_is_checked() -> None:
    _, log_p = cell("XX")
    for presence in (np.ones(3), np.full(len(log_p), 1.5)):
        with pytest.raises(CellError, match=r"give one probability \(0..1\)"):
            present_rows(log_p, presence)


def test_karyotypes_are_valid_by_iscn_2024() -> None:
    """Checked by an independent library, which refuses only karyotypes without an X."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        counts = dict.fromkeys(AUTOSOMES, 2) | {"X": 1, "Y": 1}
        for _ in range(rng.integers(6)):
            name = str(rng.choice(CLASSES))
            counts[name] = max(counts[name] + int(rng.choice([-1, 1])), 0)
        written = iscn_string(counts)
        result = validate_karyotype(written)
        if counts["X"]:
            assert result.valid, (written, result.errors)
        else:
            assert "X" in result.errors[0], (written, result.errors)


def test_iscn_refuses_unknown_classes_and_negative_counts() -> None:
    with pytest.raises(UnknownNameError, match="'23' is not a chromosome class"):
        iscn_string({"23": 1})
    with pytest.raises(CellError, match="chromosome 7 is counted -1 times"):
        iscn_string({"7": -1})
