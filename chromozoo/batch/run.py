"""What ``karyotype`` and ``segment`` share: a folder of images, each with results of its own.

One bad image costs nothing but itself, an interrupted folder is taken up where it stopped, and what
was made of the same content by the same weights and options is not made again.
"""

import argparse
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from chromozoo.batch.images import digest, find_images, name_key, shown, without_page
from chromozoo.batch.results import FAILED, Results, absolute, content_of, natural
from chromozoo.batch.signals import Watch
from chromozoo.batch.worker import Message, build
from chromozoo.batch.worker_pool import Job, WorkerPool
from chromozoo.errors import ImageError, OutputError
from chromozoo.visualization.page import JSON, KARYOGRAM, OVERLAY

# After so many failures in a row for want of room the run stops: nor will the next one fit.
MAX_FULL = 3
ASKED_FOR = "as asked for"


class Expected(Protocol):
    """What the result of an image must say of itself to be one of now."""

    def __call__(self, about: Message, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Its identity without the image, from what the task says and from the result itself."""
        ...


@dataclass
class Outcome:
    """What became of the images.

    Attributes:
        done: Names of the results, in the order of the images; those done before are among them.
        before: Number of those that were done before.
        again: How many were done again, by the reason.
        failed: Messages, by the name of the results.
        left: Number of files that were not begun, or not finished.
        full: The message of a result that could not be written for want of room.
        signal: The number of the signal that ended the run.
    """

    done: list[str] = field(default_factory=list)
    before: int = 0
    again: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    full: str | None = None
    signal: int | None = None

    def summary(self) -> list[str]:
        """Lines that say what was done before or again, what failed, and what is left."""
        lines = [f"{count} done again: {reason}" for reason, count in sorted(self.again.items())]
        if self.failed:
            total = len(self.done) + len(self.failed)
            lines.append(f"{len(self.failed)} of {total} images failed:")
            lines += [f"  {message}" for message in self.failed.values()]
        if self.left:
            lines.append(f"{self.left} left: call the same again to go on")
        return lines

    def status(self) -> int:
        """Exit status of the command.

        Raises:
            OutputError: Results could not be written.
        """
        if self.full:
            raise OutputError(self.full)
        if self.signal is not None:
            return 128 + self.signal
        return 1 if self.failed or self.left else 0


class _NoRoomError(Exception):
    """One result after the other finds no room."""


class Batch:
    """One run of a command over images.

    Args:
        command: Its name.
        ending: Of the names of its results, where they are not the command's alone.
        arguments: As parsed.
        expected: See :class:`Expected`.
        of_all: Files about all images that the command writes.

    Attributes:
        results: Where the results lie.
        names: Of the results of each file, before the ending.
        outcome: What became of the images.

    Raises:
        ChromozooError: No image was given, or the results have no place.
    """

    def __init__(
        self,
        command: str,
        ending: str,
        arguments: argparse.Namespace,
        expected: Expected,
        of_all: Sequence[str] = (),
    ) -> None:
        self.arguments = arguments
        self.expected = expected
        found = find_images(arguments.paths)
        self.results = Results.open(command, ending, arguments.output, arguments.paths)
        for name in of_all:
            self.results.take_file(name)
        self.names = self.results.take_names(found.files)
        self.notes = [*found.notes(), *self.results.notes]
        self.outcome = Outcome(
            failed={shown(path): message for path, message in found.faults.items()}
        )
        self._files = {name_key(name): file for file, name in self.names.items()}
        # What is done, by the name of the file's results.
        self._done: dict[str, list[str]] = {name: [] for name in self.names.values()}
        self._reasons: dict[str, str] = {}
        self._contents: dict[str, str] = {}
        self._finished: set[str] = set()
        self._full = 0

    def run(
        self,
        task: str,
        settings: Mapping[str, Any],
        watch: Watch,
        idle: Callable[[str], None] = lambda name: None,
    ) -> Outcome:
        """Does what is not done yet.

        Args:
            task: See :func:`chromozoo.batch.worker.build`.
            settings: Of the task.
            watch: Of signals.
            idle: Is called with the name of each result that there is, when there is time.

        Raises:
            ChromozooError: The models cannot be loaded.
        """
        timeout, processes = self.arguments.timeout, min(self.arguments.processes, len(self.names))
        jobs: list[Job] = []
        with (
            progress(len(self.names)) as advance,
            WorkerPool(task, settings, processes=processes, timeout=timeout) as crew,
        ):
            # Those without any result surely wait; of the others the weights must be known.
            new = [name for name in self.names.values() if not self.results.parts(name, JSON)]
            crew.start(max(len(new), 1))
            jobs = self._jobs(crew.about())
            advance(len(self.names) - len(jobs))
            ready = self.done

            def tell(job: Job, message: Message) -> None:
                self._tell(job, message)
                if "done" in message:
                    ready.append(message["done"])
                if "finished" in message:
                    advance(1)

            def prepare() -> bool:
                if ready:
                    idle(ready.pop())
                return bool(ready)

            watch.gentle = True
            with contextlib.suppress(_NoRoomError):
                crew.work(jobs, tell, watch, prepare)
            watch.gentle = False
        for process in crew.ended:
            self.results.remove_unfinished(process)
        self.outcome.left = len(jobs) - len(self._finished)
        self.outcome.signal = watch.number
        self.outcome.done = self.done
        return self.outcome

    def run_on_nodes(self, task: str, settings: Mapping[str, Any]) -> Outcome | None:
        """The same by Lightning, on several machines that share the folder of the results.

        Returns:
            What became of the images, in the first of all processes; None in the others.
        """
        from chromozoo.batch.nodes import predict

        # As Lightning's launcher, or SLURM, numbers the processes of a machine.
        number = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
        made = build(task, {**settings, "number": int(number)})
        about = made.about()

        def work(job: Job) -> None:
            words = {**job.words, "settled": sorted(job.settled)}
            made.work(words, lambda message: self._tell(job, message))
            self._tell(job, {"finished": True})

        is_first, self.outcome.signal = predict(
            work, self._jobs(about), self.arguments.processes, self.arguments.nodes
        )
        if not is_first:
            return None
        # The other processes left their results, and messages where they failed.
        self.results.look_again()
        self._reasons.clear()
        before, self.outcome.before = self.outcome.before, 0
        for job in self._jobs(about):
            failed = self.results.parts(job.name, FAILED)
            for part in failed:
                self.outcome.failed[part] = self.results.failure(part)
            self.outcome.left += not failed
        self.outcome.before = before
        self.outcome.done = self.done
        return self.outcome

    @property
    def done(self) -> list[str]:
        """Names of the results that there are, in the order of the images."""
        return [part for parts in self._done.values() for part in sorted(parts, key=natural)]

    @property
    def title(self) -> str:
        """Name of the first path that was given."""
        return title_of(self.arguments.paths)

    def shown(self, name: str, part: str | None) -> str:
        """The path of the image of a result, as it was given now, and which of its images."""
        file = self._files[name_key(without_page(name)) if part else name_key(name)]
        return f"{shown(file)} ({part})" if part else shown(file)

    def earlier(self, ending: str = JSON) -> list[str]:
        """Names of results of this command in the folder that are of no image of this run."""
        ours = {name_key(name) for name in self.names.values()}
        now = set(self.done)
        return [
            part
            for part in self.results.written(ending)
            if part not in now and (ending == JSON or name_key(without_page(part)) not in ours)
        ]

    def _jobs(self, about: Message) -> list[Job]:
        """Work for the files that are not done."""
        jobs = []
        for file, name in self.names.items():
            same, reason, parts = self._compare(file, name, about)
            self._done[name] = list(same)
            self.outcome.before += len(same)
            if parts and len(same) == parts:
                continue
            if reason:
                self._reasons[name] = reason
            words = {"file": str(file), "path": absolute(file), "name": name}
            jobs.append(Job(name, shown(file), words, settled=set(same)))
        return jobs

    def _compare(self, file: Path, name: str, about: Message) -> tuple[list[str], str | None, int]:
        """What is done already of a file.

        Returns:
            Names of the results that are of its content, by these weights and options; else why
            they are not; and how many there must be.
        """
        documents = self.results.documents(name)
        if not documents:
            return [], None, 0
        if self.arguments.again:
            return [], ASKED_FOR, 0
        try:
            content = digest(file)
        except ImageError:
            return [], None, 0
        differ = {
            part: _difference(document, content, self.expected(about, document))
            for part, document in documents.items()
        }
        same = [part for part, reason in differ.items() if reason is None]
        if same:
            return same, None, int(content_of(documents[same[0]]).get("parts", 0))
        return [], next(iter(differ.values())), 0

    def _tell(self, job: Job, message: Message) -> None:
        """Keeps what is said of a job, and leaves a message where it failed."""
        if "sha256" in message:
            self._contents[job.name] = message["sha256"]
        if "done" in message:
            part = message["done"]
            self._full = 0
            self._done[job.name].append(part)
            with contextlib.suppress(OSError):
                self.results.remove(part, FAILED)
        elif "failed" in message:
            part = message["failed"]
            self.outcome.failed[part] = message["message"]
            try:
                self._leave_failure(job, part, message)
            except OSError as error:
                self._no_room(str(error))
            if message.get("full"):
                self._no_room(message["message"])
        elif "finished" in message:
            self._finished.add(job.name)
            self._tidy_up(job)
            if self._full >= MAX_FULL:
                raise _NoRoomError

    def _leave_failure(self, job: Job, part: str, message: Message) -> None:
        self.results.note_failure(part, message["message"], message.get("details", ""))
        if self._reasons.get(job.name) == ASKED_FOR:
            return  # what was made before is as good as it was
        # A result of another image, or of other weights, must not stand for what failed.
        stale = {part, *(self.results.documents(job.name) if part == job.name else ())}
        for name in stale.difference(self._done[job.name]):
            with contextlib.suppress(OSError):
                self.results.remove(name, JSON, KARYOGRAM, OVERLAY)

    def _tidy_up(self, job: Job) -> None:
        """Removes what is left of another image that had the place of this one."""
        done = self._done[job.name]
        # Where the place is another one, as that of one page, nothing was done again.
        again = set(done).intersection(self.results.parts(job.name, JSON))
        if again and (reason := self._reasons.get(job.name)):
            self.outcome.again[reason] += 1
        content = self._contents.get(job.name)
        with contextlib.suppress(OSError):
            for part, document in self.results.documents(job.name).items():
                if content and part not in done and content_of(document).get("sha256") != content:
                    self.results.remove(part, JSON, KARYOGRAM, OVERLAY)
            for part in self.results.parts(job.name, FAILED):
                if part not in self.outcome.failed:
                    self.results.remove(part, FAILED)

    def _no_room(self, message: str) -> None:
        self.outcome.full = message
        self._full += 1


def title_of(paths: Sequence[Path]) -> str:
    """Name of the first path, also where it is `.`."""
    return Path(os.path.realpath(paths[0])).name


def _difference(
    document: Mapping[str, Any], content: str, expected: Mapping[str, Any]
) -> str | None:
    """Why a result is not that of an image as it is now; None where it is."""
    if content_of(document).get("sha256") != content:
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
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; what it gives is called with what has been done."""
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
        shown_task = bar.add_task("Loading the models", total=total)

        def advance(count: int) -> None:
            bar.update(shown_task, description="Working", advance=count)

        yield advance
