"""Trainings that commands start in a process of their own run in the test's process instead."""

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from chromozoo.cli.main import main
from chromozoo.training import runs


def train_inline(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the process of :func:`chromozoo.training.runs.train`; returns the called words."""
    calls: list[list[str]] = []

    def run(words: list[str], **_: Any) -> Any:
        assert words[1:3] == ["-m", "chromozoo.cli.main"]
        calls.append(words[3:])
        return SimpleNamespace(returncode=main(words[3:]))

    monkeypatch.setattr(runs, "subprocess", SimpleNamespace(run=run, Popen=subprocess.Popen))
    return calls
