"""SIGINT, SIGTERM, and SIGHUP when the terminal goes, from the first moment of `run` on: the first asks for an orderly
stop, the second forces the exit. Handlers run in the main thread between two of its steps, so they only post.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_FORCED = 130
"""128 + SIGINT, as shells count it."""


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
        for number in _STOPPING:
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
            os._exit(EXIT_FORCED)
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
