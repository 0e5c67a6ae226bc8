"""Loads another pair of models in a worker while frames go on: a thread of its own for each attempt, whose result is
taken up by the worker's main thread between two frames. The main thread owns everything else here.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from orion.mailbox import Mailbox
from orion.messages import DetectorInfo, DetectorSpec, Prepare, Prepared, PrepareFailed


class Pair(Protocol):
    """Loaded sessions, as far as a worker is concerned."""

    @property
    def info(self) -> DetectorInfo:
        """Describe what is loaded."""

    def close(self) -> None:
        """Let the sessions go."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt that has ended: with a pair, or with the reason why there is none."""

    swap: int
    pair: Pair | None
    reason: str
    load_ms: float


class Loader:
    """At most one pair is loaded at a time, and at most one waits to be put in place. `load` raises what it likes."""

    def __init__(self, load: Callable[[DetectorSpec], Pair]) -> None:
        self._load = load
        self._ended: Mailbox[_Attempt] = Mailbox()
        self._wanted: Prepare | None = None
        self._running = False
        self._ready: _Attempt | None = None

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when `collect` has something to do."""
        return self._ended.fileno()

    @property
    def running(self) -> bool:
        """Return whether a thread is loading."""
        return self._running

    def prepare(self, message: Prepare) -> PrepareFailed | None:
        """Load a pair, after what is being loaded now; an older one that waits is let go. Return why it cannot be."""
        self._wanted = message
        self._let_go()
        return self._begin()

    def collect(self) -> Prepared | PrepareFailed | None:
        """Take up what the thread has left; return what the supervisor is to hear of it."""
        answer: Prepared | PrepareFailed | None = None
        for attempt in self._ended.take():
            self._running = False
            wanted = self._wanted is not None and self._wanted.swap == attempt.swap
            if not wanted:
                if attempt.pair is not None:
                    attempt.pair.close()
            elif attempt.pair is None:
                self._wanted = None
                answer = PrepareFailed(attempt.swap, attempt.reason)
            else:
                self._wanted, self._ready = None, attempt
                answer = Prepared(attempt.swap, attempt.pair.info, attempt.load_ms)
        return self._begin() or answer

    def commit(self, swap: int) -> Pair | None:
        """Return the pair that was prepared under this number, which is the caller's now."""
        if self._ready is None or self._ready.swap != swap:
            return None
        attempt, self._ready = self._ready, None
        return attempt.pair

    def abort(self, swap: int) -> None:
        """Let go of the pair of this number, loaded or not."""
        if self._wanted is not None and self._wanted.swap == swap:
            self._wanted = None
        if self._ready is not None and self._ready.swap == swap:
            self._let_go()

    def close(self) -> None:
        """Let go of what waits."""
        self._let_go()
        self._ended.close()

    def _let_go(self) -> None:
        attempt, self._ready = self._ready, None
        if attempt is not None and attempt.pair is not None:
            attempt.pair.close()

    def _begin(self) -> PrepareFailed | None:
        wanted = self._wanted
        if wanted is None or self._running or self._ready is not None:
            return None
        try:
            threading.Thread(target=self._run, args=(wanted,), name="loader", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            # Memory, or the number of threads, is at its end; the frames of the present pair may go on all the same.
            self._wanted = None
            return PrepareFailed(wanted.swap, str(error) or "out of memory")
        self._running = True
        return None

    def _run(self, message: Prepare) -> None:
        start = time.perf_counter()
        pair, reason = None, ""
        try:
            pair = self._load(message.spec)
        except Exception as error:  # noqa: BLE001 - the entry point of a thread: the reason must reach the supervisor
            reason = str(error)[:2000] or type(error).__name__
        self._ended.post(_Attempt(message.swap, pair, reason, (time.perf_counter() - start) * 1e3))
