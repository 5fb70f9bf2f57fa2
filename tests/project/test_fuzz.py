"""Fuzz test: damaged files give a result or an error of the project within seconds."""

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SEED, COUNT = 20, 2000
MAX_MEGABYTES = 1000


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    """The script `benchmarks/fuzz.py`, which runs for any time."""
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # where dataclasses look up their types
    spec.loader.exec_module(module)
    with module.registered():
        yield module
    del sys.modules["fuzz"]


@pytest.mark.filterwarnings("ignore:.*left out")
def test_valid_files_are_read(fuzz: ModuleType, tmp_path: Path) -> None:
    """Damaged copies of invalid files would never pass the first check."""
    refused = []
    for name, kind in fuzz.kinds(tmp_path).items():
        for number, seed in enumerate(kind.seeds):
            # The readers choose pages and channels at random, so one attempt may be refused.
            for attempt in range(8):
                work = tmp_path / f"{name}{number}-{attempt}"
                work.mkdir()
                try:
                    kind.read(work, seed, np.random.default_rng(attempt))
                    break
                except fuzz.ChromozooError as error:
                    last = error
            else:
                refused.append(f"{name} {number}: {last}")
    assert refused == []


def test_damaged_files_raise_errors_of_the_project_alone(fuzz: ModuleType, tmp_path: Path) -> None:
    kinds = fuzz.kinds(tmp_path)
    before = fuzz.peak_megabytes()
    outcomes = [fuzz.attempt(SEED, number, kinds, tmp_path / "work") for number in range(COUNT)]
    faults = [
        f"--seed {SEED} --only {one.number}, {one.kind}, {one.seconds:.1f} s: {one.result}"
        for one in outcomes
        if one.is_fault
    ]
    assert faults == []
    assert fuzz.peak_megabytes() - before < MAX_MEGABYTES
    # Every kind occurs, and files of it are both read and refused.
    assert {one.kind for one in outcomes} == {*kinds}
    counts = Counter((one.kind, one.result) for one in outcomes)
    assert all(counts[kind, "refused"] for kind in kinds)
    assert sum(counts[kind, "read"] > 0 for kind in kinds) >= len(kinds) - 2


def test_a_fault_is_reported(fuzz: ModuleType, tmp_path: Path) -> None:
    def fails(folder: Path, data: bytes, rng: np.random.Generator) -> None:
        raise KeyError("x")

    def refuses(folder: Path, data: bytes, rng: np.random.Generator) -> None:
        raise fuzz.ChromozooError("a.png: is damaged; export it again")

    for read, said in ((fails, "KeyError: 'x'"), (refuses, "refused")):
        kind = fuzz.Kind(1, [b"abc"], fuzz.changed_bytes, read)
        outcome = fuzz.attempt(0, 1, {"one": kind}, tmp_path / "work")
        assert outcome.is_fault == (read is fails) and said in outcome.result
        assert not (tmp_path / "work").exists()


def test_the_same_seed_damages_in_the_same_way(fuzz: ModuleType, tmp_path: Path) -> None:
    kinds = fuzz.kinds(tmp_path)
    for number in range(60):
        first, again = (fuzz.attempt(3, number, kinds, tmp_path / "work") for _ in range(2))
        same_zip = first.kind in ("zip", "checkpoint")  # these files hold the time
        assert first.kind == again.kind and (same_zip or first.data == again.data)
        assert first.result == again.result or same_zip
