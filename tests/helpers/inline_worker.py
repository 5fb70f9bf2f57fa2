"""Commands whose work is done in the test's own process, or that run in one of their own."""

import json
import os
import queue
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chromozoo
from chromozoo.batch import worker_pool
from chromozoo.batch.worker import Message, build
from chromozoo.errors import ChromozooError


class InlineWorker:
    """Speaks as :class:`chromozoo.batch.worker_pool.Worker` does, without a process."""

    number = 0

    def __init__(
        self,
        task: str,
        settings: Mapping[str, Any],
        inbox: "queue.Queue[tuple[Any, Message]]",
        environment: Mapping[str, str],
    ) -> None:
        self.inbox = inbox
        self.ready = False
        self.job: worker_pool.Job | None = None
        self.step = self.image = ""
        self.more, self.times, self.since = True, 1, 0.0
        try:
            self.task = build(task, settings)
            self._report({"ready": self.task.about()})
        except ChromozooError as error:
            self._report({"refused": str(error)})

    def give(self, job: worker_pool.Job) -> None:
        self.job, self.step, self.image = job, job.name, job.image
        self.more, self.times, self.since = True, 1, float("inf")
        self.task.work({**job.words, "settled": sorted(job.settled)}, self._report)
        self._report({"finished": True})

    def kill(self) -> None:
        pass

    def wait(self) -> None:
        pass

    def _report(self, message: Message) -> None:
        # As it arrives through the pipe.
        self.inbox.put((self, json.loads(json.dumps(message))))


def start(
    command: str, task: str, *words: str | Path, **environment: str
) -> "subprocess.Popen[str]":
    """A command in a process, with another task; its output is one stream."""
    root = Path(chromozoo.__file__).resolve().parents[1]
    program = (
        f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'tests')!r}]\n"
        f"from chromozoo.cli import {command}; {command}.TASK = {task!r}\n"
        f"from chromozoo.cli.main import main; sys.exit(main([{command!r}, *sys.argv[1:]]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
