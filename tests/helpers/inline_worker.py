"""Workers in the test's own process, and commands in a process of their own."""

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
from chromozoo.batch.worker import Message, build_task
from chromozoo.errors import ChromozooError


class InlineWorker:
    """Replaces :class:`chromozoo.batch.worker_pool.Worker` without starting a process."""

    pid = 0

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
        self.more_follow, self.time_factor, self.step_start = True, 1, 0.0
        try:
            self.task = build_task(task, settings)
            self._send({"ready": self.task.identity()})
        except ChromozooError as error:
            self._send({"refused": str(error)})

    def start_job(self, job: worker_pool.Job) -> None:
        self.job, self.step, self.image = job, job.name, job.image
        self.more_follow, self.time_factor, self.step_start = True, 1, float("inf")
        self.task.run_job(job.to_message(), self._send)
        self._send({"finished": True})

    def kill(self) -> None:
        pass

    def wait(self) -> None:
        pass

    def _send(self, message: Message) -> None:
        # Encoded and decoded as by the pipe of a real worker.
        self.inbox.put((self, json.loads(json.dumps(message))))


def start(
    command: str, task: str, *words: str | Path, **environment: str
) -> "subprocess.Popen[str]":
    """Start a command with another task in a process; stdout and stderr are one stream."""
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
