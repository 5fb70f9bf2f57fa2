"""The index of data sets: facts are computed once for each state of the files."""

import json
import os
import time
from pathlib import Path

import pytest

from chromozoo.data.base import content_index
from chromozoo.data.base.content_index import cached_facts


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A file that has not changed for long."""
    path = tmp_path / "set.zip"
    path.write_bytes(b"content")
    os.utime(path, (1_000_000, 1_000_000))
    return path


def count_calls(archive: Path, folder: Path, key: str = "") -> int:
    """How often the facts are computed in two calls that find the same."""
    calls = []

    def compute() -> dict[str, int]:
        calls.append(1)
        return {"size": archive.stat().st_size if archive.is_file() else 7}

    facts = [cached_facts("set", [archive], compute, folder, key) for _ in range(2)]
    assert facts[0] == facts[1]
    return len(calls)


def test_facts_are_computed_once(archive: Path, tmp_path: Path) -> None:
    assert count_calls(archive, tmp_path / "cache") == 1
    assert count_calls(archive, tmp_path / "cache") == 0
    (stored,) = (tmp_path / "cache").iterdir()
    assert stored.name.startswith("set-") and stored.name.endswith(".index.json")


@pytest.mark.parametrize("change", ["size", "time", "key", "code", "damage"])
def test_a_change_is_noticed(
    change: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    count_calls(archive, cache)
    if change == "size":
        archive.write_bytes(b"more content")
        os.utime(archive, (1_000_000, 1_000_000))
    elif change == "time":
        os.utime(archive, (1_000_000, 1_000_001))
    elif change == "code":
        monkeypatch.setattr(content_index, "_code_sha256", lambda: "other")
    elif change == "damage":
        (stored,) = cache.iterdir()
        stored.write_text(json.dumps([1]))
    assert count_calls(archive, cache, "other" if change == "key" else "") == 1


def test_a_file_in_a_folder_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "1").mkdir(parents=True)
    for name in ("1/a.png", "b.png"):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (1_000_000, 1_000_000))
    assert count_calls(folder, tmp_path / "cache") == 1
    (folder / "1" / "a.png").rename(folder / "1" / "c.png")
    assert count_calls(folder, tmp_path / "cache") == 1
    assert count_calls(folder, tmp_path / "cache") == 0


def test_files_that_have_just_changed_are_not_indexed(archive: Path, tmp_path: Path) -> None:
    """A second change within the step of the time stamps would not be noticed."""
    os.utime(archive, ns=(time.time_ns(), time.time_ns()))
    assert count_calls(archive, tmp_path / "cache") == 2


def test_a_change_while_the_file_is_read_is_not_indexed(archive: Path, tmp_path: Path) -> None:
    def compute() -> dict[str, int]:
        archive.write_bytes(b"changed meanwhile")
        os.utime(archive, (1_000_000, 1_000_000))
        return {"size": 7}

    assert cached_facts("set", [archive], compute, tmp_path / "cache") == {"size": 7}
    assert not list(tmp_path.glob("cache/*"))


def test_without_a_place_for_the_index_the_facts_are_computed(
    archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    assert count_calls(archive, tmp_path / "file" / "cache") == 2
