"""Worker process that loads the models and runs the jobs of a command.

The command (:mod:`chromozoo.batch.worker_pool`) starts one or several workers and loads no model
itself, so that an image that hangs or crashes the process costs that image alone. Each line of the
standard input is a job and each line of the standard output is a message, both as JSON.
"""

import errno
import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from chromozoo.batch.file_names import page_name
from chromozoo.batch.images import escape_undecodable, file_sha256, printable_path
from chromozoo.batch.results import add_output_hint
from chromozoo.batch.signals import Stopped
from chromozoo.errors import ChromozooError, OutputError

if TYPE_CHECKING:
    from chromozoo.images.reading import ImagePage

Message = dict[str, Any]
SendMessage = Callable[[Message], None]

_PR_SET_PDEATHSIG = 1  # option of prctl
# System errors that make writing the next image fail, too.
DISK_ERRORS = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS"))


class Task(Protocol):
    """Work of a command in a worker process, with the models that it needs."""

    def identity(self) -> Message:
        """Return the identity of the results without the image, as JSON takes it."""
        ...

    def run_job(self, job: Message, send: SendMessage) -> None:
        """Run a job and send a message before and after each step; raise nothing."""
        ...


class ImageTask:
    """Base class of tasks that process one image after the other and write results of each.

    Args:
        settings: Settings from :func:`chromozoo.cli.options.task_settings`; ``reading`` are the
            arguments of :func:`chromozoo.images.reading.list_images`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.reading: dict[str, Any] = settings["reading"]
        self.folder = Path(settings["folder"])

    def identity(self) -> Message:
        """Return the identity of the results without the image."""
        raise NotImplementedError

    def write_results(self, image: "Path | ImagePage", name: str, source: Message) -> None:
        """Process one image and write its results.

        Args:
            image: Image from :func:`chromozoo.images.reading.list_images`.
            name: Name of the results.
            source: Description of the image for the results: ``shown`` (printable path), ``path``
                (absolute path) and ``content`` (part of the identity).
        """
        raise NotImplementedError

    def run_job(self, job: Message, send: SendMessage) -> None:
        """Process the images of one file.

        Before each image the message has ``step`` (name of the results), ``image`` (printable
        path), ``more_follow`` (whether other images of the file follow) and ``time_factor``
        (multiple of the time limit). Afterwards it has ``done`` or ``failed`` with the name; a
        failure has a ``message``, perhaps ``details``, and ``disk_full`` for a full disk.
        """
        from chromozoo.images.reading import list_images

        file = Path(job["file"])
        with catch_errors(job["name"], printable_path(file), send) as step:
            # Hashed before it is read: a file that changes in between then counts as changed.
            sha256 = file_sha256(file)
            images = list_images(file, **self.reading)
        if step.failed:
            return
        names = [
            job["name"] if isinstance(image, Path) else page_name(job["name"], image.suffix)
            for image in images
        ]
        remaining = [
            (image, name)
            for image, name in zip(images, names, strict=True)
            if name not in job["finished_steps"]
        ]
        for number, (image, name) in enumerate(remaining, start=1):
            part = None if isinstance(image, Path) else image.suffix
            more_follow = number < len(remaining)
            message = {"step": name, "image": printable_path(image), "more_follow": more_follow}
            send({**message, "time_factor": 1, "sha256": sha256})
            with catch_errors(name, printable_path(image), send) as step:
                source = {
                    "shown": printable_path(image),
                    "path": printable_path(job["path"]),
                    "content": {"sha256": sha256, "part": part, "parts": len(images)},
                }
                self.write_results(image, name, source)
            if not step.failed:
                send({"done": name})


class StepStatus:
    """Whether a step failed."""

    failed = False


@contextmanager
def catch_errors(name: str, image: str, send: SendMessage) -> Iterator[StepStatus]:
    """Send any error that is raised inside the context as the failure of one image.

    Args:
        name: Name of the results.
        image: Printable path of the image.
        send: Sends a message.
    """
    step = StepStatus()
    try:
        yield step
    except (Stopped, KeyboardInterrupt):
        raise
    except BaseException as error:  # also SystemExit, which some libraries raise
        step.failed = True
        send({"failed": name, **describe_failure(error, image)})
        if _is_out_of_memory(error):
            _free_memory()


def describe_failure(
    error: BaseException, image: str, details: str = "the file that ends in .failed.txt"
) -> Message:
    """Return the message of an error for the user, with the image and a remedy.

    Args:
        error: Error that was raised.
        image: Printable path of the image.
        details: Description of where the traceback of an unexpected error is stored.
    """
    if isinstance(error, OutputError):
        cause = error.__cause__
        disk_full = isinstance(cause, OSError) and cause.errno in DISK_ERRORS
        return {"message": escape_undecodable(add_output_hint(error)), "disk_full": disk_full}
    if isinstance(error, ChromozooError):
        text = escape_undecodable(str(error))
        return {"message": text if text.startswith(image) else f"{image}: {text}"}
    if _is_out_of_memory(error):
        remedy = "close other programs, or give a smaller image"
        return {"message": f"{image}: not enough memory for it; {remedy}"}
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    reason = printable_path(lines[-1])
    return {
        "message": f"{image}: internal error ({reason[:300]}); please report it, with {details}",
        "details": escape_undecodable("".join(traceback.format_exception(error))),
    }


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; torch and OpenCV say so in the message alone."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        phrase in text for phrase in ("out of memory", "insufficient memory", "allocate memory")
    )


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def build_task(task: str, settings: Mapping[str, Any]) -> Task:
    """Build the task of a dotted name.

    Args:
        task: Module and class, such as ``chromozoo.batch.karyotype_task:KaryotypeTask``.
        settings: Argument of the class. Its ``modules`` are imported first, because they register
            models of the user's own program.
    """
    for module in settings.get("modules", ()):
        import_module(module)
    module, _, name = task.partition(":")
    built: Task = getattr(import_module(module), name)(settings)
    return built


def select_device(settings: Mapping[str, Any]) -> str:
    """Return the device of this process; several processes are spread over the GPUs."""
    import torch

    device = str(settings.get("device", "auto"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.device_count() > 1:
        return f"cuda:{int(settings['process_index']) % torch.cuda.device_count()}"
    return device


def _end_with_parent() -> None:
    """Let Linux end this process with the command, even if an image hangs in C code."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):  # the C library may lack prctl
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve() -> None:
    """Run the jobs of the standard input until it ends."""
    _end_with_parent()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # The command handles signals that are sent to all its processes.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    messages = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # prints of libraries must not mix with the messages

    def send(message: Message) -> None:
        try:
            messages.write(json.dumps(message) + "\n")
            messages.flush()
        except OSError:  # the command has ended
            os._exit(0)

    line = sys.stdin.readline()
    if not line:
        return
    setup = json.loads(line)
    try:
        task = build_task(setup["task"], setup["settings"])
        identity = task.identity()
    except ChromozooError as error:
        send({"refused": escape_undecodable(str(error))})
        return
    except BaseException as error:
        if _is_out_of_memory(error):
            send({"refused": "there is not enough memory to load the models; close other programs"})
        else:
            send({"crashed": escape_undecodable("".join(traceback.format_exception(error)))})
        return
    send({"ready": identity})
    jobs: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    while True:
        job = jobs.get()
        task.run_job(job, send)
        send({"finished": True})


def _read_jobs(jobs: "queue.SimpleQueue[Message]") -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    # The command has ended, perhaps by force: nobody waits for the current job.
    os._exit(0)
