"""Whose turn it is in a worker: a frame's, or a step of loading another pair (a file is opened, an inference warms or
times it). Run together, both take the same cores, and a frame takes up to three times as long. So a step waits until
a frame is done and the next is not expected too soon, and a frame waits for the rest of a step. Shared by the worker's
main thread and the thread that loads.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Turn = Callable[[], AbstractContextManager[None]]
"""Makes the context in which one step of loading a pair is made."""

AT_ONCE: Turn = nullcontext
"""The turn of one who has no frames to think of."""

ROOM_S = 0.02
"""Least time before the next frame in which a step is begun. Most steps take longer, but a frame that waits for the end
of one is late only by what is left of it."""

OVERDUE_S = 0.15
"""A frame that is so late is expected no more: the stream is paused, slow or lost."""

PATIENCE_S = 0.1
"""Longest that a frame waits for a step, since those of a large model take seconds."""

PASSED_OVER, PASSED_OVER_S = 3, 0.5
"""Most frames, and longest time but for the frame that is being answered, for which a step waits where there is never
room between two.
"""

_AWAITED_S = 0.002
"""A frame that comes so soon after the one before has waited for it, and nobody saw when it came."""
_INTERVALS = 3


class Turns:
    """Gives frames and the steps of loading a pair their turns, in that order of importance. It is the context in which
    a frame is answered; `step` makes that of a step.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._steps_waiting = 0
        self._in_frame = False
        """A frame is being answered, or waits for that."""
        self._in_step = False
        self._frames = 0
        """Answered so far."""
        self._came_s = self._done_s = -math.inf
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)

    # A frame's part runs before and after each inference, when all caches are cold: it is short, and asks the condition
    # only where somebody waits or must be waited for.

    def __enter__(self) -> None:
        """Begin to answer a frame, after the step that is being made, if that takes no longer than 0.1 s."""
        with self._lock:
            self._note(self._clock())
            self._in_frame = True
            if self._in_step:
                self._changed.wait_for(lambda: not self._in_step, PATIENCE_S)

    def __exit__(self, *_: object) -> None:
        """End the frame's turn, however it went."""
        with self._lock:
            self._in_frame = False
            self._frames += 1
            self._done_s = self._clock()
            if self._steps_waiting:
                self._changed.notify_all()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Make a step of loading a pair in this context, when there is room for it."""
        with self._changed:
            frames, asked_s = self._frames, self._clock()
            self._steps_waiting += 1
            while not self._has_room(self._clock(), self._frames - frames, asked_s):
                self._changed.wait(None if self._in_frame else max(0.0, self._overdue_s - self._clock()))
            self._steps_waiting -= 1
            self._in_step = True
        try:
            yield
        finally:
            with self._changed:
                self._in_step = False
                self._changed.notify_all()

    @property
    def _next_s(self) -> float:
        """When the next frame is expected: as soon as they came lately."""
        return self._came_s + min(self._intervals, default=0.0)

    @property
    def _overdue_s(self) -> float:
        return self._next_s + OVERDUE_S

    def _note(self, now_s: float) -> None:
        if now_s - self._done_s < _AWAITED_S:
            self._came_s = min(now_s, self._next_s)
            return
        if self._came_s > -math.inf:
            self._intervals.append(now_s - self._came_s)
        self._came_s = now_s

    def _has_room(self, now_s: float, passed: int, asked_s: float) -> bool:
        if self._in_frame:
            return False
        if passed >= PASSED_OVER or now_s - asked_s >= PASSED_OVER_S:
            return True
        return not self._next_s - ROOM_S < now_s < self._overdue_s
