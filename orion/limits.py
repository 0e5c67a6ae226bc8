"""What a worker is held to: how long a start and a frame may take, and how much memory it may have. Plain data and pure
decisions from measured times; the supervisor's thread asks.
"""

from dataclasses import dataclass

from orion.messages import DetectorInfo

_HUNG_FACTOR = 10
"""A frame is hung when it takes so many times the warm-up inference of the larger session ..."""
_HUNG_LEAST_S = 1.5
"""... but never sooner than this: a busy machine is slow, not stuck."""
_START_FACTOR = 6
"""A later start may take so many times the longest one so far ..."""
_START_LEAST_S = 2.5
"""... and at least this; after each that was late twice as much, so that a machine which has become slow is not taken
for a worker that is stuck for ever."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for a frame, None to go by measured times, MB of memory that is a worker's own, and seconds for a start
    of which nothing is known yet: what loads for the first time may compile for the machine.
    """

    frame_s: float | None = None
    memory_mb: float = float("inf")
    start_s: float = 60.0

    def frame_deadline_s(self, info: DetectorInfo) -> float:
        """Return how long a frame may take; from measured times, so it starts anew with another pair of models."""
        if self.frame_s is not None:
            return self.frame_s
        warm_s = max(session.warm_ms for session in info.sessions) / 1e3
        return max(_HUNG_LEAST_S, _HUNG_FACTOR * warm_s)

    def start_limit_s(self, longest_s: float | None, late: int) -> float:
        """Return how long a start may take: `longest_s` is the longest that succeeded, None before the first; the last
        `late` did not.
        """
        if longest_s is None:
            return self.start_s
        return min(self.start_s, max(_START_LEAST_S, _START_FACTOR * longest_s) * 2.0**late)
