"""Run of ``karyotype`` or ``segment`` over many images, each with results of its own.

An image that fails does not stop the others. An interrupted run resumes where it stopped, and
results of the same content, weights and options are reused.
"""

import argparse
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from chromozoo.batch.file_names import name_key, strip_page
from chromozoo.batch.images import file_sha256, find_images, printable_path
from chromozoo.batch.results import (
    FAILED,
    ResultsFolder,
    absolute_path,
    image_content,
    natural_sort_key,
)
from chromozoo.batch.signals import SignalWatch
from chromozoo.batch.worker import Message, build_task
from chromozoo.batch.worker_pool import Job, WorkerPool
from chromozoo.errors import ImageError, OutputError
from chromozoo.visualization.page import JSON, KARYOGRAM, OVERLAY

# The run stops after this number of write errors in a row, because the next write fails, too.
MAX_DISK_ERRORS = 3
REQUESTED = "requested with --again"


class ExpectedIdentity(Protocol):
    """Function that returns the identity, without the image, of an up-to-date result."""

    def __call__(self, identity: Message, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return it from the identity of the task and the JSON of the result."""
        ...


@dataclass
class BatchSummary:
    """Counts and messages of a run.

    Attributes:
        done: Names of the results in the order of the images, with those of earlier runs.
        n_reused: Number of results that were reused from earlier runs.
        redone: Number of results that were made again, by reason.
        failed: Error messages by the name of the results.
        n_remaining: Number of files that were not started or not finished.
        disk_error: Message of a result that could not be written for lack of space, or None.
        stop_signal: Number of the signal that stopped the run, or None.
    """

    done: list[str] = field(default_factory=list)
    n_reused: int = 0
    redone: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    n_remaining: int = 0
    disk_error: str | None = None
    stop_signal: int | None = None

    def describe_reused(self) -> str:
        """Return the number of reused results in parentheses; empty if there are none."""
        return f" ({self.n_reused} were done before)" if self.n_reused else ""

    def summary_lines(self) -> list[str]:
        """Return lines about results that were made again, failed images and remaining files."""
        lines = [f"{count} done again: {reason}" for reason, count in sorted(self.redone.items())]
        if self.failed:
            total = len(self.done) + len(self.failed)
            lines.append(f"{len(self.failed)} of {total} images failed:")
            lines += [f"  {message}" for message in self.failed.values()]
        if self.n_remaining:
            lines.append(f"{self.n_remaining} left: call the same again to go on")
        return lines

    def exit_status(self) -> int:
        """Return the exit status of the command.

        Raises:
            OutputError: Results could not be written.
        """
        if self.disk_error:
            raise OutputError(self.disk_error)
        if self.stop_signal is not None:
            return 128 + self.stop_signal
        return 1 if self.failed or self.n_remaining else 0


class _DiskFullError(Exception):
    """Several results in a row could not be written for lack of space."""


class Batch:
    """One run of a command over images.

    Args:
        command: Name of the command.
        ending: Text added to the names of its results, empty for none.
        arguments: Parsed arguments.
        expected_identity: See :class:`ExpectedIdentity`.
        shared_files: Names of the files about all images that the command writes.

    Attributes:
        results: Folder of the results.
        names: Name of the results of each file, without the ending.
        summary: Counts and messages of the run.
        notes: Lines for the user about the images and the folder.

    Raises:
        ChromozooError: No path gives an image, or the folder of the results cannot be used.
    """

    def __init__(
        self,
        command: str,
        ending: str,
        arguments: argparse.Namespace,
        expected_identity: ExpectedIdentity,
        shared_files: Sequence[str] = (),
    ) -> None:
        self.arguments = arguments
        self.expected_identity = expected_identity
        images = find_images(arguments.paths)
        self.results = ResultsFolder.open(command, ending, arguments.output, arguments.paths)
        for name in shared_files:
            self.results.claim_file(name)
        self.names = self.results.assign_names(images.files)
        self.notes = [*images.describe_left_out(), *self.results.notes]
        self.summary = BatchSummary(
            failed={printable_path(path): message for path, message in images.errors.items()}
        )
        self._files = {name_key(name): file for file, name in self.names.items()}
        # Names of the finished results, by the name of the file's results.
        self._done: dict[str, list[str]] = {name: [] for name in self.names.values()}
        self._redo_reasons: dict[str, str] = {}
        self._sha256: dict[str, str] = {}
        self._finished_jobs: set[str] = set()
        self._n_disk_errors = 0

    def run(
        self,
        task: str,
        settings: Mapping[str, Any],
        watch: SignalWatch,
        on_idle: Callable[[str], None] = lambda name: None,
    ) -> BatchSummary:
        """Process the images that have no up-to-date results.

        Args:
            task: Dotted name of the task, see :func:`chromozoo.batch.worker.build_task`.
            settings: Settings of the task.
            watch: Watch of signals.
            on_idle: Called with the name of each finished result while the workers are busy.

        Raises:
            ChromozooError: The models cannot be loaded.
        """
        max_workers = min(self.arguments.processes, len(self.names))
        jobs: list[Job] = []
        with (
            progress_bar(len(self.names)) as advance,
            WorkerPool(
                task, settings, max_workers=max_workers, timeout=self.arguments.timeout
            ) as pool,
        ):
            # Images without any result need a worker; for the others the weights decide.
            new = [name for name in self.names.values() if not self.results.list_parts(name, JSON)]
            pool.start(max(len(new), 1))
            jobs = self._create_jobs(pool.load_identity())
            advance(len(self.names) - len(jobs))
            unread = self.done

            def on_message(job: Job, message: Message) -> None:
                self._handle(job, message)
                if "done" in message:
                    unread.append(message["done"])
                if "finished" in message:
                    advance(1)

            def read_next() -> bool:
                if unread:
                    on_idle(unread.pop())
                return bool(unread)

            watch.graceful = True
            with contextlib.suppress(_DiskFullError):
                pool.run(jobs, on_message, watch, read_next)
            watch.graceful = False
        for pid in pool.ended_pids:
            self.results.remove_partial_files(pid)
        self.summary.n_remaining = len(jobs) - len(self._finished_jobs)
        self.summary.stop_signal = watch.number
        self.summary.done = self.done
        return self.summary

    def run_on_nodes(self, task: str, settings: Mapping[str, Any]) -> BatchSummary | None:
        """Process the images on several machines that share the folder of the results.

        Returns:
            The summary in the first of all processes; None in the others.
        """
        from chromozoo.batch.nodes import run_on_all_nodes

        # Index of the process on its machine, set by Lightning's launcher or SLURM.
        index = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
        built = build_task(task, {**settings, "process_index": int(index)})
        identity = built.identity()

        def run_job(job: Job) -> None:
            built.run_job(job.to_message(), lambda message: self._handle(job, message))
            self._handle(job, {"finished": True})

        is_first, self.summary.stop_signal = run_on_all_nodes(
            run_job,
            self._create_jobs(identity),
            self.arguments.processes,
            self.arguments.nodes,
        )
        if not is_first:
            return None
        # The results and error messages of the other processes are read from the folder.
        self.results.clear_listing()
        self._redo_reasons.clear()
        n_reused, self.summary.n_reused = self.summary.n_reused, 0
        for job in self._create_jobs(identity):
            failed = self.results.list_parts(job.name, FAILED)
            for part in failed:
                self.summary.failed[part] = self.results.read_failure(part)
            self.summary.n_remaining += not failed
        self.summary.n_reused = n_reused
        self.summary.done = self.done
        return self.summary

    @property
    def done(self) -> list[str]:
        """Names of the finished results in the order of the images."""
        return [
            part for parts in self._done.values() for part in sorted(parts, key=natural_sort_key)
        ]

    @property
    def title(self) -> str:
        """Printable name of the first path."""
        return first_path_name(self.arguments.paths)

    def describe_image(self, name: str, part: str | None) -> str:
        """Return the printable path of a result's image in this run, with its page or channel."""
        file = self._files[name_key(strip_page(name)) if part else name_key(name)]
        return f"{printable_path(file)} ({part})" if part else printable_path(file)

    def list_earlier(self, ending: str = JSON) -> list[str]:
        """List the command's results in the folder that belong to no image of this run."""
        current = {name_key(name) for name in self.names.values()}
        done = set(self.done)
        return [
            part
            for part in self.results.list_names(ending)
            if part not in done and (ending == JSON or name_key(strip_page(part)) not in current)
        ]

    def _create_jobs(self, identity: Message) -> list[Job]:
        """Create a job for each file without up-to-date results."""
        jobs = []
        for file, name in self.names.items():
            valid, reason, n_parts = self._check_results(file, name, identity)
            self._done[name] = list(valid)
            self.summary.n_reused += len(valid)
            if n_parts and len(valid) == n_parts:
                continue
            if reason:
                self._redo_reasons[name] = reason
            payload = {"file": str(file), "path": absolute_path(file), "name": name}
            jobs.append(Job(name, printable_path(file), payload, finished_steps=set(valid)))
        return jobs

    def _check_results(
        self, file: Path, name: str, identity: Message
    ) -> tuple[list[str], str | None, int]:
        """Compare the existing results of a file with its content, the weights and the options.

        Returns:
            Names of the valid results, the reason if existing results are not valid, and the number
            of results that the file must have (0 if unknown).
        """
        documents = self.results.read_documents(name)
        if not documents:
            return [], None, 0
        if self.arguments.again:
            return [], REQUESTED, 0
        try:
            sha256 = file_sha256(file)
        except ImageError:
            return [], None, 0
        differences = {
            part: _find_difference(document, sha256, self.expected_identity(identity, document))
            for part, document in documents.items()
        }
        valid = [part for part, difference in differences.items() if difference is None]
        if valid:
            return valid, None, int(image_content(documents[valid[0]]).get("parts", 0))
        return [], next(iter(differences.values())), 0

    def _handle(self, job: Job, message: Message) -> None:
        """Record a message of a job, and write the error message of a failure."""
        if "sha256" in message:
            self._sha256[job.name] = message["sha256"]
        if "done" in message:
            part = message["done"]
            self._n_disk_errors = 0
            self._done[job.name].append(part)
            with contextlib.suppress(OSError):
                self.results.remove(part, FAILED)
        elif "failed" in message:
            part = message["failed"]
            self.summary.failed[part] = message["message"]
            try:
                self._write_failure(job, part, message)
            except OSError as error:
                self._count_disk_error(str(error))
            if message.get("disk_full"):
                self._count_disk_error(message["message"])
        elif "finished" in message:
            self._finished_jobs.add(job.name)
            self._remove_stale_results(job)
            if self._n_disk_errors >= MAX_DISK_ERRORS:
                raise _DiskFullError

    def _write_failure(self, job: Job, part: str, message: Message) -> None:
        self.results.write_failure(part, message["message"], message.get("details", ""))
        if self._redo_reasons.get(job.name) == REQUESTED:
            return  # the earlier result is still valid
        # A result of another content or other weights must not be taken for the failed one.
        stale = {part, *(self.results.read_documents(job.name) if part == job.name else ())}
        for name in stale.difference(self._done[job.name]):
            with contextlib.suppress(OSError):
                self.results.remove(name, JSON, KARYOGRAM, OVERLAY)

    def _remove_stale_results(self, job: Job) -> None:
        """Remove results of an earlier content of the file, and count the results made again."""
        done = self._done[job.name]
        # A result under a new name, as that of a single page, was not made again.
        redone = set(done).intersection(self.results.list_parts(job.name, JSON))
        if redone and (reason := self._redo_reasons.get(job.name)):
            self.summary.redone[reason] += 1
        sha256 = self._sha256.get(job.name)
        with contextlib.suppress(OSError):
            for part, document in self.results.read_documents(job.name).items():
                if sha256 and part not in done and image_content(document).get("sha256") != sha256:
                    self.results.remove(part, JSON, KARYOGRAM, OVERLAY)
            for part in self.results.list_parts(job.name, FAILED):
                if part not in self.summary.failed:
                    self.results.remove(part, FAILED)

    def _count_disk_error(self, message: str) -> None:
        self.summary.disk_error = message
        self._n_disk_errors += 1


def first_path_name(paths: Sequence[Path]) -> str:
    """Return the name of the first path, also for `.`."""
    return Path(os.path.realpath(paths[0])).name


def _find_difference(
    document: Mapping[str, Any], sha256: str, expected: Mapping[str, Any]
) -> str | None:
    """Return the reason why a result is not up to date, or None."""
    if image_content(document).get("sha256") != sha256:
        return "the image has changed"
    identity = document["identity"]
    if identity.get("models") != expected["models"]:
        return "other weights"
    if identity.get("options") != expected["options"]:
        before, now = identity.get("options") or {}, expected["options"]
        names = [name for name in now if before.get(name) != now[name]]
        return f"other options ({', '.join(names)})"
    if identity.get("software") != expected["software"]:
        return "another version of ChromoZoo"
    return None


@contextlib.contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yield a function that advances it by a count."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        row = bar.add_task("Loading the models", total=total)

        def advance(count: int) -> None:
            bar.update(row, description="Working", advance=count)

        yield advance
