"""SIGINT, SIGTERM, and SIGHUP when the terminal goes, from the first moment of `run` on: the first asks for an orderly
stop, the second forces the exit. Handlers run in the main thread between two of its steps, so they only post. The other
commands heed Ctrl-C alone, in the same way.

A terminal and a service manager send them to children, too: those are born with the signals held back.
"""

import os
import runpy
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from orion.errors import EXIT_INTERRUPTED, EXIT_OK

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_PRESS_S = 0.3
"""The same signal so soon after the first is the same press: some send it to a process and once more to its group, as
timeout(1) does, and nobody presses a key again so fast to force an exit.
"""
_SHOW_CURSOR = "\x1b[?25h"
"""The live view hides it; see DECTCEM of console_codes(4)."""


@contextmanager
def held_back(numbers: Collection[signal.Signals] = STOPPING) -> Iterator[None]:
    """Hold signals back from this thread, and from a process that is started meanwhile until it lets them through.

    What comes meanwhile comes afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    came: list[int] = []
    handlers = {}
    # A thread of a library may take a signal, whose handler then runs in the main thread, masked or not.
    if threading.current_thread() is threading.main_thread():
        handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for late in came:
            signal.raise_signal(late)


def interruptible(action: Callable[[], int]) -> int:
    """Return the exit code of `action`, or 130 once Ctrl-C has ended it; Ctrl-C once more ends the process at once."""
    pressed_s: list[float] = []

    def handle(_number: int, _frame: FrameType | None) -> None:
        pressed_s.append(time.monotonic())
        if len(pressed_s) == 1:
            raise KeyboardInterrupt
        if pressed_s[-1] - pressed_s[0] >= SAME_PRESS_S:
            os._exit(EXIT_INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handle)
    try:
        return action()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def run_module(name: str) -> NoReturn:
    """Run a module as `python -m` does, interruptible, in a process that was started with SIGINT held back."""

    def run() -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        return EXIT_OK

    sys.exit(interruptible(run))


class StopSignals:
    """What was asked for, and who is told. One of them exists in a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.requested: str | None = None
        self._requested_s = 0.0
        self._clock = clock
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
        """Call `on_stop` with the signal's name at the first, also when it came already; `on_force` at the second, if
        that is not the same press.
        """
        self._on_stop, self._on_force = on_stop, on_force
        if self.requested is not None:
            on_stop(self.requested)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._let_terminal_go()
        name, now_s = signal.Signals(number).name, self._clock()
        if self.requested is None:
            self.requested, self._requested_s = name, now_s
            if self._on_stop is not None:
                self._on_stop(name)
        elif name != self.requested or now_s - self._requested_s >= SAME_PRESS_S:
            self._force(name)

    def _force(self, name: str) -> NoReturn:
        if self._on_force is not None:
            self._on_force()
        shown = _SHOW_CURSOR if 2 in self._terminals else ""
        text = f"{shown}forced exit: {name} came before the run had stopped in order\n"
        # One who does not read holds nothing up.
        with suppress(OSError):
            if select.select([], [2], [], 0)[1]:
                os.write(2, text.encode())
        os._exit(EXIT_INTERRUPTED)

    def _let_terminal_go(self) -> None:
        """Write into the void from now on: what is said on the way out would fail on a terminal that is gone."""
        void = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(void, descriptor)
        os.close(void)


STOP_SIGNALS = StopSignals()
