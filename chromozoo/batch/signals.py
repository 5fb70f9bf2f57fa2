"""Graceful stop of long commands on signals (Ctrl-C, ``kill``, ``docker stop``)."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

# SIGHUP is sent when the terminal is closed; Windows does not have it.
_WATCHED = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(BaseException):
    """The run was stopped by the signal ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class SignalWatch:
    """Handler of the signals that stop a run.

    Attributes:
        number: First signal that was received while ``graceful`` was set, or None.
        graceful: Whether the first signal is only recorded, so that the current image can be
            finished. Otherwise, and from the second signal on, :class:`Stopped` is raised.
    """

    number: int | None = None
    graceful: bool = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; Python calls this with its number."""
        if not self.graceful or self.number is not None:
            raise Stopped(number)
        self.number = number


@contextlib.contextmanager
def watch_signals() -> Iterator[SignalWatch]:
    """Watch for signals inside the context; in other threads than the main one do nothing."""
    watch = SignalWatch()
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    previous = {}
    try:
        for name in _WATCHED:
            number = getattr(signal, name, None)
            # A run under nohup continues when the terminal is closed.
            if number is not None and not (
                name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN
            ):
                previous[number] = signal.signal(number, watch.handle)
        yield watch
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
