"""SIGINT, SIGTERM, and SIGHUP when the terminal goes, from the first moment of `run` on: the first asks for an orderly
stop, the second forces the exit. Handlers run in the main thread between two of its steps, so they only post.

A terminal and a service manager send them to children, too: those are born with the signals held back.
"""

import os
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

from orion.errors import EXIT_INTERRUPTED

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back(numbers: Collection[signal.Signals] = STOPPING) -> Iterator[None]:
    """Hold signals back from this thread, and from a process that is started meanwhile until it lets them through.

    What comes meanwhile comes afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopSignals:
    """What was asked for, and who is told. One of them exists in a process."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._on_stop: Callable[[str], None] | None = None
        self._on_force: Callable[[], None] | None = None
        self._terminals: list[int] = []

    def install(self) -> None:
        """Take over the signals; SIGHUP stays ignored where it is, as under nohup."""
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        for number in STOPPING:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def connect(self, on_stop: Callable[[str], None], on_force: Callable[[], None]) -> None:
        """Call `on_stop` with the signal's name at the first, also when it came already; `on_force` at the second."""
        self._on_stop, self._on_force = on_stop, on_force
        if self.requested is not None:
            on_stop(self.requested)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._let_terminal_go()
        if self.requested is not None:
            if self._on_force is not None:
                self._on_force()
            os._exit(EXIT_INTERRUPTED)
        self.requested = signal.Signals(number).name
        if self._on_stop is not None:
            self._on_stop(self.requested)

    def _let_terminal_go(self) -> None:
        """Write into the void from now on: what is said on the way out would fail on a terminal that is gone."""
        void = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(void, descriptor)
        os.close(void)


STOP_SIGNALS = StopSignals()
