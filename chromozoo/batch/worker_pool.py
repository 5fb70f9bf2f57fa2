"""The processes that hold the models, seen from the command: work is given and watched.

A process that an image takes too long in, or takes down with it, is replaced by a new one, and
that image alone fails.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from chromozoo.batch.signals import Watch
from chromozoo.batch.worker import Message
from chromozoo.errors import ChromozooError

# How long the image at hand may still take when the run is told to stop, of the 5 seconds in all.
GRACE_SECONDS = 2.5
# How often the clock is looked at, in seconds.
TICK = 0.2
# A process that is ended while it loads the models is replaced so often.
MAX_FAILED_STARTS = 2
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from chromozoo.batch.worker import serve; serve()"
)


@dataclass(eq=False)
class Job:
    """One piece of work, perhaps of several steps.

    Attributes:
        name: What its first step is called until the process names it.
        image: What it is about, in words.
        words: What the process gets.
        settled: Names of steps that are done, or that failed; they are left out.
        suspect: The step at which a process was ended once.
    """

    name: str
    image: str
    words: dict[str, Any]
    settled: set[str] = field(default_factory=set)
    suspect: str | None = None


class Worker:
    """One process; its messages go to the queue that all share."""

    def __init__(
        self,
        task: str,
        settings: Mapping[str, Any],
        inbox: "queue.Queue[tuple[Worker, Message]]",
        environment: Mapping[str, str],
    ) -> None:
        self.inbox = inbox
        self.ready = False
        self.job: Job | None = None
        self.step = ""
        self.image = ""
        self.more = True
        self.times = 1
        self.since = 0.0
        # A session of its own: Ctrl-C is for the command, which decides what is finished.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *(path or str(Path.cwd()) for path in sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._write({"task": task, "settings": dict(settings)})
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def number(self) -> int:
        """Of the process."""
        return self.process.pid

    def give(self, job: Job) -> None:
        """Sends a job."""
        self.job, self.step, self.image = job, job.name, job.image
        self.more, self.times = True, 1
        self.since = time.monotonic()
        self._write({**job.words, "settled": sorted(job.settled)})

    def kill(self) -> None:
        """Ends the process at once."""
        self.process.kill()

    def wait(self) -> None:
        """Returns when it has ended."""
        self.process.wait()

    def _write(self, words: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(words).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended: the message of that is on its way

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # something printed before the streams were parted
                continue
            self.inbox.put((self, message))
        self.inbox.put((self, {"ended": self.process.wait()}))


class WorkerPool:
    """Starts processes, gives them jobs, and tells what became of these.

    Args:
        task: What they do, see :func:`chromozoo.batch.worker.build`.
        settings: Of the task, as JSON takes them.
        processes: At most so many at once.
        timeout: Seconds that one step may take; 0 is no limit.
    """

    def __init__(
        self, task: str, settings: Mapping[str, Any], *, processes: int, timeout: float
    ) -> None:
        self.task = task
        self.settings = dict(settings)
        self.processes = processes
        self.timeout = timeout
        # No SimpleQueue: one that a signal meets at the end of its time waits for ever (3.11).
        self.inbox: queue.Queue[tuple[Worker, Message]] = queue.Queue()
        self.workers: list[Worker] = []
        self.ended: list[int] = []
        self._known: Message | None = None
        self._started = 0
        self._failed_starts = 0

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            worker.kill()
        while self.workers:
            self._bury(self.workers[0])

    def start(self, count: int) -> None:
        """Starts processes until there are so many, or as many as there may be."""
        while len(self.workers) < min(count, self.processes):
            settings = {**self.settings, "number": self._started}
            self.workers.append(Worker(self.task, settings, self.inbox, self._environment()))
            self._started += 1

    def _environment(self) -> dict[str, str]:
        """Each of several processes would take all cores, and they would wait for each other."""
        if self.processes == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        return {"OMP_NUM_THREADS": str(max(cores // self.processes, 1))}

    def about(self) -> Message:
        """What the task says of itself, once its models are loaded.

        Raises:
            ChromozooError: The task refuses, or the system ends each process that loads it.
        """
        self.start(1)
        while self._known is None:
            self._hear(*self.inbox.get())
            self.start(1)
        return self._known

    def work(
        self,
        jobs: Sequence[Job],
        tell: Callable[[Job, Message], None],
        watch: Watch,
        idle: Callable[[], bool] = lambda: False,
    ) -> list[Job]:
        """Does jobs, as many at once as there may be processes.

        Args:
            jobs: In their order.
            tell: Is called with each message of a job, and with ``{"finished": True}`` at its end.
            watch: Of signals; after the first one no job is begun, and those under way are given
                up after :data:`GRACE_SECONDS`.
            idle: Is called while there is nothing to do, until it returns False.

        Returns:
            The jobs that are not finished, in their order; none but after a signal.

        Raises:
            ChromozooError: As :meth:`about`.
        """
        left = {id(job): job for job in jobs}
        waiting = deque(jobs)
        suspects: deque[Job] = deque()
        until = None
        while left:
            if watch.number is not None:
                until = until or time.monotonic() + GRACE_SECONDS
                busy = any(worker.job for worker in self.workers)
                if not busy or time.monotonic() > until:
                    break
            else:
                self._give(waiting, suspects)
            for _, job, message in self._heard(idle):
                if "finished" in message:
                    left.pop(id(job))
                elif "again" in message:
                    (suspects if message["again"] == "alone" else waiting).appendleft(job)
                    continue
                tell(job, message)
        return list(left.values())

    def _give(self, waiting: deque[Job], suspects: deque[Job]) -> None:
        busy = [worker for worker in self.workers if worker.job]
        if not waiting and suspects and not busy:
            # Alone: another process may have been what the memory was too small for.
            waiting.append(suspects.popleft())
        self.start(len(busy) + len(waiting))
        for worker in self.workers:
            if waiting and worker.ready and worker.job is None:
                worker.give(waiting.popleft())

    def _heard(self, idle: Callable[[], bool]) -> list[tuple[Worker, Job, Message]]:
        """The next message, and what follows from the clock."""
        found = []
        try:
            worker, message = self.inbox.get(timeout=0 if idle() else TICK)
            found += self._hear(worker, message)
        except queue.Empty:
            pass
        now = time.monotonic()
        for worker in list(self.workers):
            limit = self.timeout * worker.times
            if worker.job and limit and now > worker.since + limit:
                self._bury(worker)
                words = f"took longer than {limit:g} seconds and was ended (--timeout)"
                found += self._failed(worker, words)
        return found

    def _hear(self, worker: Worker, message: Message) -> list[tuple[Worker, Job, Message]]:
        if worker not in self.workers:
            return []  # the last words of one that was ended
        job = worker.job
        if "ready" in message:
            worker.ready = True
            self._known = message["ready"]
            self._failed_starts = 0
        elif "refused" in message:
            raise ChromozooError(message["refused"])
        elif "broken" in message:
            raise RuntimeError(f"the process that works cannot start\n{message['broken']}")
        elif "ended" in message:
            self._bury(worker)
            how = _cause(message["ended"])
            if job is not None:
                return self._failed(worker, f"the process that worked on it was ended ({how})", job)
            if not worker.ready:
                self._failed_starts += 1
                # What the memory was too small for is not tried again while others work.
                self.processes = max(len(self.workers), 1)
                if self._failed_starts >= MAX_FAILED_STARTS and not self.workers:
                    raise ChromozooError(
                        f"the process that loads the models was ended ({how}), "
                        f"{self._failed_starts} times; there may be too little memory: close other "
                        "programs, or ask for fewer --processes"
                    )
        elif job is not None:
            worker.since = time.monotonic()
            if "step" in message:
                worker.step, worker.image = message["step"], message["image"]
                worker.more, worker.times = message["more"], message["times"]
            for key in ("done", "failed"):
                if key in message:
                    job.settled.add(message[key])
            if "finished" in message:
                worker.job = None
            return [(worker, job, message)]
        return []

    def _bury(self, worker: Worker) -> None:
        worker.kill()
        worker.wait()
        self.workers.remove(worker)
        self.ended.append(worker.number)

    def _failed(
        self, worker: Worker, words: str, by_itself: Job | None = None
    ) -> list[tuple[Worker, Job, Message]]:
        """What becomes of the job of a process that was ended.

        Args:
            worker: The process.
            words: Why it was ended.
            by_itself: Its job, where nobody here ended it: it is tried once more, alone, for what
                the system ends may have been the wrong one.
        """
        job = worker.job
        assert job is not None
        if by_itself is not None and job.suspect != worker.step:
            job.suspect = worker.step
            return [(worker, job, {"again": "alone"})]
        if by_itself is not None:
            words += " twice; there may be too little memory for it: give a smaller image"
        job.settled.add(worker.step)
        failed = {"failed": worker.step, "message": f"{worker.image}: {words}"}
        whole = worker.step == job.name and worker.more
        ending = {"finished": True} if whole or not worker.more else {"again": "soon"}
        return [(worker, job, failed), (worker, job, ending)]


def _cause(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
