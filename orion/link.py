"""A lasting link to a broker made of connections that come and go: dials, subscribes, notices silence, waits, dials
again. One thread owns a link and calls it. Name resolution, connect and TLS handshake can take long outside our
control, so each attempt runs in a short-lived thread of its own, one at a time, which hands itself back through `post`.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from random import Random

from orion.backoff import Backoff
from orion.mqtt import (
    Accepted,
    Connection,
    Endpoint,
    Lost,
    MqttError,
    Signal,
    Subscribed,
    TlsFilesError,
    Will,
)

_ANSWER_TIMEOUT_S = 5.0
"""Limit from CONNECT sent to the subscriptions answered."""
_STABLE_S = 0.5
"""A connection that lived so long starts the delays anew; a broker that throws us out at once is not hammered."""
_QUICK_RETRY_S = 0.2
_BACKOFF = Backoff(first_s=1.0, factor=2.0, limit_s=30.0, jitter=0.2)


class Dial:
    """One attempt to connect, in a daemon thread: a name server that never answers must not hold up the exit."""

    def __init__(self, connection: Connection, post: "Callable[[Dial], None]") -> None:
        self.connection = connection
        self.failure: str | None = None
        self._post = post
        self._lock = threading.Lock()
        self._finished = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="orion-bus-dial", daemon=True)
        self._thread.start()

    def abandon(self) -> None:
        """Let go of an attempt that is still under way; it cleans up by itself."""
        with self._lock:
            self._abandoned = True
            if self._finished:
                self.connection.close()

    def _run(self) -> None:
        try:
            self.connection.open()
        except (MqttError, TlsFilesError) as error:
            self.failure = str(error)
        except Exception as error:  # noqa: BLE001 - a thread's entry point: the next attempt may do better
            self.failure = f"{type(error).__name__}: {error}"
        with self._lock:
            self._finished = True
            if self._abandoned:
                self.connection.close()
            else:
                self._post(self)


class Link:
    """Keeps us connected and subscribed. `post` brings a finished Dial to the owner's thread, which calls `dialed`."""

    def __init__(
        self,
        endpoint: Endpoint,
        will: Will | None,
        subscriptions: Mapping[str, int],
        post: Callable[[Dial], None],
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._endpoint = endpoint
        self._will = will
        self._subscriptions = subscriptions
        self._post = post
        self._clock = clock
        self._random = random
        self._delays = self._fresh_delays()
        self._dial_at = float("-inf")
        self._dial: Dial | None = None
        self._connection: Connection | None = None
        self._accepted_at: float | None = None
        self._answer_by = float("inf")
        self._ready = False

    @property
    def connection(self) -> Connection | None:
        """Return the connection to publish on, or None while there is none that the broker has accepted."""
        return None if self._accepted_at is None else self._connection

    @property
    def ready(self) -> bool:
        """Return whether the broker has accepted us and answered our subscriptions."""
        return self._ready

    @property
    def trying(self) -> bool:
        """Return whether an attempt is under way that may soon succeed."""
        return not self._ready and (self._dial is not None or self._connection is not None)

    def interest(self) -> tuple[int, bool] | None:
        """Return the descriptor to wait on, always for reading, and whether for writing too; None if there is none."""
        if self._connection is None or self._connection.fileno() < 0:
            return None
        return self._connection.fileno(), self._connection.wants_write()

    def wakes_at(self) -> float:
        """Return when `pump` has something to do, if the descriptor stays silent."""
        if self._connection is not None:
            if self._connection.has_signals() or self._connection.fileno() < 0:
                return float("-inf")
            return min(self._answer_by, self._clock() + self._endpoint.keepalive_s / 4)
        return float("inf") if self._dial is not None else self._dial_at

    def dialed(self, dial: Dial) -> list[Signal]:
        """Take over a finished attempt."""
        if dial is not self._dial:
            return []
        self._dial = None
        if dial.failure is not None:
            dial.connection.close()
            return [self._lost(Lost(dial.failure))]
        self._connection = dial.connection
        self._answer_by = self._clock() + _ANSWER_TIMEOUT_S
        return []

    def pump(self, *, readable: bool, writable: bool) -> list[Signal]:
        """Read, write, dial if it is time, and return what happened. A Lost means that the next attempt is planned."""
        if self._connection is None:
            if self._dial is None and self._clock() >= self._dial_at:
                self._dial = Dial(Connection(self._endpoint, self._will), self._post)
            return []
        signals = self._connection.pump(readable=readable, writable=writable)
        if not signals and self._clock() >= self._answer_by:
            signals = [Lost(f"no answer within {_ANSWER_TIMEOUT_S:g} s")]
        return [self._understood(signal) for signal in signals]

    def close(self) -> None:
        """Leave at once; without a goodbye before, the broker publishes the will."""
        if self._dial is not None:
            self._dial.abandon()
            self._dial = None
        if self._connection is not None:
            self._connection.close()
        self._forget()

    def _understood(self, signal: Signal) -> Signal:
        match signal:
            case Accepted():
                assert self._connection is not None
                self._accepted_at = self._clock()
                self._connection.subscribe(self._subscriptions)
            case Subscribed():
                self._ready = True
                self._answer_by = float("inf")
            case Lost():
                return self._lost(signal)
        return signal

    def _lost(self, lost: Lost) -> Lost:
        if self._connection is not None:
            self._connection.close()
        if self._accepted_at is not None and self._clock() - self._accepted_at >= _STABLE_S:
            self._delays = self._fresh_delays()
        self._forget()
        self._dial_at = self._clock() + next(self._delays)
        return lost

    def _forget(self) -> None:
        self._connection = None
        self._accepted_at = None
        self._answer_by = float("inf")
        self._ready = False

    def _fresh_delays(self) -> Iterator[float]:
        quick_s = _QUICK_RETRY_S * self._random.uniform(0.8, 1.2)
        return chain([quick_s], _BACKOFF.delays(self._random))
