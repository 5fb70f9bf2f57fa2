"""The process that holds the models: what it does for one image, and how it is spoken to.

A command starts one (:mod:`chromozoo.batch.worker_pool`) or several and stays small itself: an image that
never ends, or that takes the process down with it, then costs itself and nothing else. Each line on
the standard input is a job and each on the standard output a message, as JSON.
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

from chromozoo.batch.images import digest, encodable, page_name, shown
from chromozoo.batch.results import with_option
from chromozoo.batch.signals import Stopped
from chromozoo.errors import ChromozooError, OutputError

if TYPE_CHECKING:
    from chromozoo.images.reading import ImagePage

Message = dict[str, Any]
Report = Callable[[Message], None]

_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl
# Errors of the system that the next image will meet, too.
FULL = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS"))


class Task(Protocol):
    """What a command does with each job."""

    def about(self) -> Message:
        """What the command must know of the models."""
        ...

    def work(self, job: Message, report: Report) -> None:
        """Does a job and reports each step before it begins; raises nothing."""
        ...


class ImageTask:
    """A task that reads one image after the other and writes the results of each.

    Args:
        settings: As :func:`chromozoo.cli.options.settings_of` gives them; ``reading`` are the
            arguments of :func:`chromozoo.images.reading.list_images`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.reading: dict[str, Any] = settings["reading"]
        self.folder = Path(settings["folder"])

    def about(self) -> Message:
        """What makes the results what they are, besides the image."""
        raise NotImplementedError

    def write(self, image: "Path | ImagePage", name: str, source: Message) -> None:
        """Makes the results of one image and writes them.

        Args:
            image: As :func:`chromozoo.images.reading.list_images` gave it.
            name: Of the results.
            source: What is to stand in the results of the image: ``shown``, ``path`` and
                ``content``, the part of the identity.
        """
        raise NotImplementedError

    def work(self, job: Message, report: Report) -> None:
        """Does one file, image by image.

        Before each it reports ``step``, its name, ``image``, how it is called in words, ``more``,
        whether others of the file follow, and ``times``, how many times the limit of one image it
        may take; afterwards ``done`` or ``failed`` with the name. A failure has a ``message``,
        perhaps ``details``, and ``full`` where the disk takes no more.
        """
        from chromozoo.images.reading import list_images

        file = Path(job["file"])
        with attempt(job["name"], shown(file), report) as attempted:
            # The content first: what changes while it is read is then another image.
            content = digest(file)
            images = list_images(file, **self.reading)
        if attempted.failed:
            return
        names = [
            job["name"] if isinstance(image, Path) else page_name(job["name"], image.suffix)
            for image in images
        ]
        waiting = [
            (image, name)
            for image, name in zip(images, names, strict=True)
            if name not in job["settled"]
        ]
        for number, (image, name) in enumerate(waiting, start=1):
            part = None if isinstance(image, Path) else image.suffix
            more = number < len(waiting)
            step = {"step": name, "image": shown(image), "more": more, "times": 1}
            report({**step, "sha256": content})
            with attempt(name, shown(image), report) as attempted:
                source = {
                    "shown": shown(image),
                    "path": shown(job["path"]),
                    "content": {"sha256": content, "part": part, "parts": len(images)},
                }
                self.write(image, name, source)
            if not attempted.failed:
                report({"done": name})


class Attempt:
    """Whether it failed."""

    failed = False


@contextmanager
def attempt(name: str, image: str, report: Report) -> Iterator[Attempt]:
    """Reports whatever goes wrong inside as the failure of one image.

    Args:
        name: Of the results.
        image: How messages call it.
        report: Takes the message.
    """
    attempted = Attempt()
    try:
        yield attempted
    except (Stopped, KeyboardInterrupt):
        raise
    except BaseException as error:  # also what libraries raise to leave the process
        attempted.failed = True
        report({"failed": name, **failure_of(error, image)})
        if _is_lack_of_memory(error):
            _make_room()


def failure_of(
    error: BaseException, image: str, details: str = "the file that ends in .failed.txt"
) -> Message:
    """Message of an error, for the user, with the name of the image and a remedy.

    Args:
        error: What was raised.
        image: How messages call the image.
        details: Where the traceback will be found, in words, of an error that nobody expected.
    """
    if isinstance(error, OutputError):
        cause = error.__cause__
        full = isinstance(cause, OSError) and cause.errno in FULL
        return {"message": encodable(with_option(error)), "full": full}
    if isinstance(error, ChromozooError):
        text = encodable(str(error))
        return {"message": text if text.startswith(image) else f"{image}: {text}"}
    if _is_lack_of_memory(error):
        words = "not enough memory for it; close other programs, or give a smaller image"
        return {"message": f"{image}: {words}"}
    reason = shown("".join(traceback.format_exception_only(error)).strip().splitlines()[-1])
    return {
        "message": f"{image}: internal error ({reason[:300]}); please report it, with {details}",
        "details": encodable("".join(traceback.format_exception(error))),
    }


def _is_lack_of_memory(error: BaseException) -> bool:
    """Whether memory was too small; torch and OpenCV say so in words alone."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(
        sign in words for sign in ("out of memory", "insufficient memory", "allocate memory")
    )


def _make_room() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def build(task: str, settings: Mapping[str, Any]) -> Task:
    """The task of a name such as ``chromozoo.cli.karyotype:KaryotypeTask``."""
    for module in settings.get("modules", ()):  # of models that the user's own program registered
        import_module(module)
    module, _, name = task.partition(":")
    made: Task = getattr(import_module(module), name)(settings)
    return made


def device_of(settings: Mapping[str, Any]) -> str:
    """Where the models of this process go: several processes share the GPUs among them."""
    import torch

    asked = str(settings.get("device", "auto"))
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and torch.cuda.device_count() > 1:
        return f"cuda:{int(settings['number']) % torch.cuda.device_count()}"
    return asked


def _end_with_the_command() -> None:
    """Asks Linux to end this process with the command, also where it is held by an image."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):  # a C library that has no such call
            ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)


def serve() -> None:
    """Does the jobs of the standard input until it ends."""
    _end_with_the_command()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # What is sent to all processes at once is for the command, which decides what is finished.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    messages = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print is no message

    def report(message: Message) -> None:
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
        task = build(setup["task"], setup["settings"])
        about = task.about()
    except ChromozooError as error:
        report({"refused": encodable(str(error))})
        return
    except BaseException as error:
        words = "there is not enough memory to load the models; close other programs"
        broken = encodable("".join(traceback.format_exception(error)))
        report({"refused": words} if _is_lack_of_memory(error) else {"broken": broken})
        return
    report({"ready": about})
    jobs: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    while True:
        job = jobs.get()
        task.work(job, report)
        report({"finished": True})


def _read_jobs(jobs: "queue.SimpleQueue[Message]") -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    # The command has ended, perhaps by force: nobody waits for what is under way.
    os._exit(0)
