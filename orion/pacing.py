"""When the next frame is taken: pure schedules with the time handed in. Used by the capture threads."""

_LATE_S = 1.0


class RateLimiter:
    """Takes `rate_hz` frames a second of whatever comes, exact on average and without bursts after a gap."""

    def __init__(self, rate_hz: float | None) -> None:
        self.rate_hz = rate_hz
        """None takes every frame. May be set at any time, by any thread; the last frame that was taken still counts."""
        self._last_s: float | None = None
        """When the last frame was due."""
        self._rested = False

    def rest(self) -> None:
        """Note that no frame is taken for a while: what would have been due meanwhile is not made up for."""
        self._rested = True

    def restart(self) -> None:
        """Forget the frames of before: the clock is another one now."""
        self._last_s = None

    def take(self, now_s: float) -> bool:
        """Return whether the frame at `now_s`, seconds of any steadily growing clock, is to be taken."""
        rate_hz = self.rate_hz
        if rate_hz is None:
            self._last_s = now_s
            return True
        period_s = 1 / rate_hz
        due_s = now_s if self._last_s is None else self._last_s + period_s
        if now_s < due_s:
            return False
        if self._rested or now_s - due_s > 2 * period_s:
            # After a gap: start the schedule anew instead of catching up.
            self._last_s = now_s
        else:
            # An uneven source is made up for, by at most one frame.
            self._last_s = max(due_s, now_s - period_s)
        self._rested = False
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
