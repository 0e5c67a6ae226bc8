"""The embedded broker through all its lives: one whose process has ended gets a successor on the same port, where
everybody looks for it. Part of the supervisor's thread, which drives it with `turn` and wakes up for its descriptors;
only the first start, before the loop, waits.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Protocol, Self

from orion.backoff import Backoff
from orion.broker import START_LIMIT_S, EmbeddedBroker, EmbeddedBrokerError
from orion.posts import BusEvent, Post

_log = logging.getLogger(__name__)

_BACKOFF = Backoff(first_s=0.5, factor=2.0, limit_s=30.0, jitter=0.2)
_STABLE_S = 60.0
"""A broker that listened for so long starts the delays anew."""


class Loop(Protocol):
    """The part of the supervisor that wakes it up."""

    def watch(self, descriptor: int) -> None:
        """Wake up when it is readable."""

    def unwatch(self, descriptor: int) -> None:
        """Stop that."""


@dataclass(frozen=True, slots=True)
class _Listening:
    since_s: float


@dataclass(frozen=True, slots=True)
class _Starting:
    deadline_s: float


@dataclass(frozen=True, slots=True)
class _Absent:
    start_s: float


class BrokerKeeper:
    """Owns the embedded broker; a context manager. `post` is told of a broker that was started again."""

    def __init__(
        self,
        post: Callable[[Post], None],
        broker: EmbeddedBroker | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._post = post
        self._broker = broker or EmbeddedBroker()
        self._clock = clock
        self._random = random or Random()
        self._delays = _BACKOFF.delays(self._random)
        self._loop: Loop | None = None
        self._state: _Listening | _Starting | _Absent = _Absent(0.0)
        self._down_since_s = 0.0
        self._last_end = ""
        self.port = 0
        """Where the broker listens, the same for all its lives."""
        self.url = ""
        """Its address as `--broker` takes it."""

    @property
    def pid(self) -> int | None:
        """Return the process id of the broker, None while there is none."""
        return None if isinstance(self._state, _Absent) else self._broker.process.pid

    def attach(self, loop: Loop) -> None:
        """Let the loop wake up when the broker ends; from now on it calls `turn`."""
        self._loop = loop
        loop.watch(self._broker.sentinel)

    def next_deadline_s(self) -> float:
        """Return when `turn` must be called at the latest."""
        match self._state:
            case _Starting(deadline_s=due_s) | _Absent(start_s=due_s):
                return due_s
            case _:
                return float("inf")

    def turn(self) -> None:
        """See to a broker that has ended or has come up; start what is due."""
        now_s = self._clock()
        match self._state:
            case _Listening(since_s=since_s) if not self._broker.process.is_alive():
                if now_s - since_s >= _STABLE_S:
                    self._delays = _BACKOFF.delays(self._random)
                self._down_since_s = now_s
                self._last_end = f"the embedded broker ended with code {self._broker.process.exitcode}"
                self._attached.unwatch(self._broker.sentinel)
                self._lay_down(self._last_end)
            case _Starting() if self._broker.report.poll():
                self._take_report()
            case _Starting(deadline_s=deadline_s) if now_s >= deadline_s:
                # Its report comes to an end with it, and tells the rest.
                self._broker.process.kill()
                self._state = _Starting(float("inf"))
            case _Absent(start_s=start_s) if now_s >= start_s:
                self._launch(now_s)
            case _:
                pass

    def __enter__(self) -> Self:
        self._broker.start()
        self.port, self.url = self._broker.port, self._broker.url
        self._state = _Listening(self._clock())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._broker.stop()

    @property
    def _attached(self) -> Loop:
        assert self._loop is not None
        return self._loop

    def _launch(self, now_s: float) -> None:
        self._broker = EmbeddedBroker(self.port, 1)
        try:
            self._broker.launch()
        except EmbeddedBrokerError as error:
            self._lay_down(str(error))
            return
        self._attached.watch(self._broker.report.fileno())
        self._state = _Starting(now_s + START_LIMIT_S)

    def _take_report(self) -> None:
        """Go on with a broker that listens; lay down one that does not."""
        self._attached.unwatch(self._broker.report.fileno())
        try:
            self._broker.take_report()
        except EmbeddedBrokerError as error:
            self._lay_down(str(error))
            return
        now_s = self._clock()
        self._attached.watch(self._broker.sentinel)
        self._state = _Listening(now_s)
        recovery_ms = round((now_s - self._down_since_s) * 1e3, 1)
        self._report("broker_restarted", reason=self._last_end, recovery_ms=recovery_ms)

    def _lay_down(self, reason: str) -> None:
        """Let go of a broker that is no use, and settle when the next one is started."""
        self._broker.stop()
        delay_s = next(self._delays)
        self._state = _Absent(self._clock() + delay_s)
        _log.error("%s; starting it again on port %d in %.1f s", reason, self.port, delay_s)

    def _report(self, event: str, **fields: Any) -> None:
        _log.warning("%s: %s", event, fields["reason"])
        self._post(BusEvent(event, fields))
