"""When the next frame is taken: pure schedules with the time handed in. Used by the capture threads."""

_LATE_S = 1.0


class RateLimiter:
    """Takes `rate_hz` frames a second of whatever comes, exact on average and without bursts after a gap."""

    def __init__(self, rate_hz: float | None) -> None:
        self._period_s = 1 / rate_hz if rate_hz else 0.0
        self._next_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Return whether the frame at `now_s`, seconds of any steadily growing clock, is to be taken."""
        if not self._period_s:
            return True
        if self._next_s is None or now_s - self._next_s > self._period_s:
            # The first frame, or one after a gap: start the schedule anew instead of catching up.
            self._next_s = now_s
        if now_s < self._next_s:
            return False
        self._next_s += self._period_s
        return True


class RealTimePace:
    """Tells how long to wait so that pictures of a file come at the pace they were recorded at."""

    def __init__(self) -> None:
        self._offset_s: float | None = None

    def wait_s(self, stream_time_s: float, now_s: float) -> float:
        """Return how many seconds too early the picture of `stream_time_s` is at `now_s`; 0 when it is due.

        More than a second late, as after a suspended machine, the pace starts anew instead of rushing.
        """
        if self._offset_s is None or now_s - (stream_time_s + self._offset_s) > _LATE_S:
            self._offset_s = now_s - stream_time_s
        return max(0.0, stream_time_s + self._offset_s - now_s)
