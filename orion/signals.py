"""SIGINT and SIGTERM, from the first moment of `run` on: the first asks for an orderly stop, the second forces the
exit. Handlers run in the main thread between two of its steps, so they only post.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM)
EXIT_FORCED = 130
"""128 + SIGINT, as shells count it."""


class StopSignals:
    """What was asked for, and who is told. One of them exists in a process."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._on_stop: Callable[[str], None] | None = None
        self._on_force: Callable[[], None] | None = None

    def install(self) -> None:
        """Take over both signals."""
        for number in _STOPPING:
            signal.signal(number, self._handle)

    def connect(self, on_stop: Callable[[str], None], on_force: Callable[[], None]) -> None:
        """Call `on_stop` with the signal's name at the first, also when it came already; `on_force` at the second."""
        self._on_stop, self._on_force = on_stop, on_force
        if self.requested is not None:
            on_stop(self.requested)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.requested is not None:
            if self._on_force is not None:
                self._on_force()
            os._exit(EXIT_FORCED)
        self.requested = signal.Signals(number).name
        if self._on_stop is not None:
            self._on_stop(self.requested)


STOP_SIGNALS = StopSignals()
