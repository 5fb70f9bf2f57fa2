"""Pool of worker processes with a time limit and a restart after crashes.

A worker that exceeds the time limit or crashes is replaced by a new one, and only its current image
fails.
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

from chromozoo.batch.signals import SignalWatch
from chromozoo.batch.worker import Message
from chromozoo.errors import ChromozooError

# Time for the current images after a stop signal; the whole command must stop within 5 seconds.
GRACE_SECONDS = 2.5
# Interval between checks of the time limit.
POLL_SECONDS = 0.2
# Limit on workers that end in a row while they load the models.
MAX_FAILED_STARTS = 2
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from chromozoo.batch.worker import serve; serve()"
)


@dataclass(eq=False)
class Job:
    """Work on one file, in one or several steps.

    Attributes:
        name: Name of the first step, until the worker sends the name of a step.
        image: Printable path of the file.
        payload: Description of the job for the task.
        finished_steps: Names of the steps that are done or failed; they are skipped.
        suspect_step: Step at which a worker crashed once, or None.
    """

    name: str
    image: str
    payload: dict[str, Any]
    finished_steps: set[str] = field(default_factory=set)
    suspect_step: str | None = None

    def to_message(self) -> Message:
        """Return the job as the task takes it."""
        return {**self.payload, "finished_steps": sorted(self.finished_steps)}


class Worker:
    """One worker process; its messages go to a queue that all workers share.

    Args:
        task: Dotted name of the task, see :func:`chromozoo.batch.worker.build_task`.
        settings: Settings of the task.
        inbox: Queue of the messages, each with its worker.
        environment: Environment variables that are added to those of the command.
    """

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
        self.more_follow = True
        self.time_factor = 1
        self.step_start = 0.0
        # In a session of its own, so that Ctrl-C reaches the command alone.
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
    def pid(self) -> int:
        """Number of the process."""
        return self.process.pid

    def start_job(self, job: Job) -> None:
        """Send a job to the process."""
        self.job, self.step, self.image = job, job.name, job.image
        self.more_follow, self.time_factor = True, 1
        self.step_start = time.monotonic()
        self._write(job.to_message())

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()

    def wait(self) -> None:
        """Wait for the end of the process."""
        self.process.wait()

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            pass  # the process has ended; `_listen` sends the message of its end

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # printed by a library before `serve` redirected the output
                continue
            self.inbox.put((self, message))
        self.inbox.put((self, {"ended": self.process.wait()}))


class WorkerPool:
    """Starts workers, sends them jobs and forwards their messages.

    Args:
        task: Dotted name of the task, see :func:`chromozoo.batch.worker.build_task`.
        settings: Settings of the task, as JSON takes them.
        max_workers: Maximum number of workers.
        timeout: Time limit of one step in seconds; 0 for no limit.

    Attributes:
        ended_pids: Numbers of the processes that were ended.
    """

    def __init__(
        self, task: str, settings: Mapping[str, Any], *, max_workers: int, timeout: float
    ) -> None:
        self.task = task
        self.settings = dict(settings)
        self.max_workers = max_workers
        self.timeout = timeout
        # A SimpleQueue that is interrupted by a signal at its timeout can wait forever (3.11).
        self.inbox: queue.Queue[tuple[Worker, Message]] = queue.Queue()
        self.workers: list[Worker] = []
        self.ended_pids: list[int] = []
        self._identity: Message | None = None
        self._n_started = 0
        self._n_failed_starts = 0

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
            self._end_worker(self.workers[0])

    def start(self, count: int) -> None:
        """Start workers until there are ``count``, or the maximum number."""
        while len(self.workers) < min(count, self.max_workers):
            settings = {**self.settings, "process_index": self._n_started}
            self.workers.append(Worker(self.task, settings, self.inbox, self._environment()))
            self._n_started += 1

    def _environment(self) -> dict[str, str]:
        """Return a limit on threads, so that several workers do not compete for the cores."""
        if self.max_workers == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        return {"OMP_NUM_THREADS": str(max(cores // self.max_workers, 1))}

    def load_identity(self) -> Message:
        """Wait until a worker has loaded the models, and return the identity of the task.

        Raises:
            ChromozooError: The task cannot be built, or each worker ends while it loads the models.
        """
        self.start(1)
        while self._identity is None:
            self._handle(*self.inbox.get())
            self.start(1)
        return self._identity

    def run(
        self,
        jobs: Sequence[Job],
        on_message: Callable[[Job, Message], None],
        watch: SignalWatch,
        on_idle: Callable[[], bool] = lambda: False,
    ) -> list[Job]:
        """Run jobs, one at a time on each worker.

        Args:
            jobs: Jobs in their order.
            on_message: Called with each message of a job, and with ``{"finished": True}`` at its
                end.
            watch: Watch of signals; after the first signal no job is started, and running jobs are
                ended after :data:`GRACE_SECONDS`.
            on_idle: Called while the pool waits for messages, until it returns False.

        Returns:
            The unfinished jobs in their order; empty unless the run was stopped by a signal.

        Raises:
            ChromozooError: As :meth:`load_identity`.
        """
        unfinished = {id(job): job for job in jobs}
        waiting = deque(jobs)
        suspects: deque[Job] = deque()
        deadline = None
        while unfinished:
            if watch.number is not None:
                deadline = deadline or time.monotonic() + GRACE_SECONDS
                is_busy = any(worker.job for worker in self.workers)
                if not is_busy or time.monotonic() > deadline:
                    break
            else:
                self._assign_jobs(waiting, suspects)
            for job, message in self._receive(on_idle):
                if "finished" in message:
                    unfinished.pop(id(job))
                elif "retry" in message:
                    (suspects if message["retry"] == "alone" else waiting).appendleft(job)
                    continue
                on_message(job, message)
        return list(unfinished.values())

    def _assign_jobs(self, waiting: deque[Job], suspects: deque[Job]) -> None:
        busy = [worker for worker in self.workers if worker.job]
        if not waiting and suspects and not busy:
            # A suspect runs alone, because another worker may have used up the memory.
            waiting.append(suspects.popleft())
        self.start(len(busy) + len(waiting))
        for worker in self.workers:
            if waiting and worker.ready and worker.job is None:
                worker.start_job(waiting.popleft())

    def _receive(self, on_idle: Callable[[], bool]) -> list[tuple[Job, Message]]:
        """Return the next message of a job and the failures of the jobs that exceeded the limit."""
        received = []
        try:
            worker, message = self.inbox.get(timeout=0 if on_idle() else POLL_SECONDS)
            received += self._handle(worker, message)
        except queue.Empty:
            pass
        now = time.monotonic()
        for worker in list(self.workers):
            limit = self.timeout * worker.time_factor
            if worker.job and limit and now > worker.step_start + limit:
                self._end_worker(worker)
                reason = f"took longer than {limit:g} seconds and was ended (--timeout)"
                received += _fail_step(worker, worker.job, reason)
        return received

    def _handle(self, worker: Worker, message: Message) -> list[tuple[Job, Message]]:
        """Update the state of a worker, and return the messages of its job."""
        if worker not in self.workers:
            return []  # a late message of a worker that was ended
        job = worker.job
        if "ready" in message:
            worker.ready = True
            self._identity = message["ready"]
            self._n_failed_starts = 0
        elif "refused" in message:
            raise ChromozooError(message["refused"])
        elif "crashed" in message:
            raise RuntimeError(f"the worker process cannot start\n{message['crashed']}")
        elif "ended" in message:
            self._end_worker(worker)
            cause = _describe_exit(message["ended"])
            if job is not None:
                return _handle_crash(worker, job, cause)
            if not worker.ready:
                self._count_failed_start(cause)
        elif job is not None:
            worker.step_start = time.monotonic()
            if "step" in message:
                worker.step, worker.image = message["step"], message["image"]
                worker.more_follow = message["more_follow"]
                worker.time_factor = message["time_factor"]
            for key in ("done", "failed"):
                if key in message:
                    job.finished_steps.add(message[key])
            if "finished" in message:
                worker.job = None
            return [(job, message)]
        return []

    def _count_failed_start(self, cause: str) -> None:
        self._n_failed_starts += 1
        # If memory is too small for another worker, the remaining ones go on without it.
        self.max_workers = max(len(self.workers), 1)
        if self._n_failed_starts >= MAX_FAILED_STARTS and not self.workers:
            raise ChromozooError(
                f"the process that loads the models was ended ({cause}), "
                f"{self._n_failed_starts} times; there may be too little memory: close other "
                "programs, or ask for fewer --processes"
            )

    def _end_worker(self, worker: Worker) -> None:
        worker.kill()
        worker.wait()
        self.workers.remove(worker)
        self.ended_pids.append(worker.pid)


def _handle_crash(worker: Worker, job: Job, cause: str) -> list[tuple[Job, Message]]:
    """Retry a step alone after its first crash, and fail it after the second.

    The system may have ended the wrong process when memory ran out.
    """
    if job.suspect_step != worker.step:
        job.suspect_step = worker.step
        return [(job, {"retry": "alone"})]
    reason = (
        f"the process that worked on it was ended ({cause}) twice; there may be too little memory "
        "for it: give a smaller image"
    )
    return _fail_step(worker, job, reason)


def _fail_step(worker: Worker, job: Job, reason: str) -> list[tuple[Job, Message]]:
    """Return the failure of a worker's current step, and the retry or the end of its job."""
    job.finished_steps.add(worker.step)
    failure = {"failed": worker.step, "message": f"{worker.image}: {reason}"}
    # The images of a file are unknown until its first step; without them nothing can be retried.
    is_unread = worker.step == job.name and worker.more_follow
    ending = {"finished": True} if is_unread or not worker.more_follow else {"retry": "soon"}
    return [(job, failure), (job, ending)]


def _describe_exit(status: int) -> str:
    """Return the exit status of a process, or the name of the signal that ended it."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
