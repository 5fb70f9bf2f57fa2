"""What the long commands do when they are told to stop (Ctrl-C, ``kill``, ``docker stop``)."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

# SIGHUP: the terminal is closed; Windows has none.
_WATCHED = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(BaseException):
    """The user or the system ended the run; ``number`` is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Watch:
    """What was heard.

    Attributes:
        number: The first signal that came while ``gentle`` was set.
        gentle: Whether a first signal is only noted, so that what is under way can be finished.
            Else, and from the second one on, it raises :class:`Stopped`.
    """

    number: int | None = None
    gentle: bool = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Is called by Python with the number of a signal."""
        if not self.gentle or self.number is not None:
            raise Stopped(number)
        self.number = number


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Watches for signals; elsewhere than in the main thread it hears none."""
    watch = Watch()
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = {}
    try:
        for name in _WATCHED:
            number = getattr(signal, name, None)
            # A run under nohup goes on when the terminal is closed.
            if number is not None and not (
                name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN
            ):
                before[number] = signal.signal(number, watch.hear)
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
