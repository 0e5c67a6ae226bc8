"""Whether a camera that delivers is well: pictures that are new, not black, and as many as it promised. Pure decisions
with the time handed in; used by the capture threads.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from orion.messages import Pixels

Condition = Literal["well", "frozen", "slow"]

FROZEN_AFTER_S: Final = 15.0
"""Longer than cameras let pass between two key pictures, at which even a still scene gets new noise."""
SLOW_WINDOW_S: Final = 10.0
_SLOW: Final = 0.6
_FAST_AGAIN: Final = 0.8
_GRID: Final = 16
"""Every 16th pixel of every 16th row is looked at."""
_BLACK: Final = 20
"""Of 255; noise of a covered sensor stays below."""
_KNOWN_PICTURES: Final = 256
"""More than cameras send from one key picture to the next."""
_LEAST_PICTURES: Final = 5
_GAP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What has become of a camera; `reason` is for people."""

    condition: Condition
    reason: str


class Stillness:
    """Tells pictures that come again and again, bit for bit, and black ones, from a scene in which nothing moves.

    A sensor has noise, so a still scene gives pictures never seen before, with each key picture at least. A camera
    that hangs sends one picture for ever; its encoder makes the same few of it again and again, soon all known.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._since_s: float | None = None
        self._last_s = 0.0
        self._pictures = 0
        self._lit = False

    def look(self, pixels: Pixels, now_s: float) -> str:
        """Return why the picture of `now_s`, height x width x 3 uint8, shows nothing new; empty if it is well."""
        sample = pixels[::_GRID, ::_GRID, 1]
        print_ = sample.tobytes()
        black = int(sample.max()) <= _BLACK
        new = print_ not in self._known
        self._known[print_] = None
        self._known.move_to_end(print_)
        if len(self._known) > _KNOWN_PICTURES:
            self._known.popitem(last=False)
        gap = now_s - self._last_s > _GAP_S
        self._last_s = now_s
        if self._since_s is None or gap or (new and not black) or black == self._lit:
            self._since_s, self._pictures, self._lit = now_s, 0, not black
        self._pictures += 1
        if now_s - self._since_s < FROZEN_AFTER_S or self._pictures < _LEAST_PICTURES:
            return ""
        return f"{'black' if black else 'the same'} pictures for {FROZEN_AFTER_S:.0f} s"


class Rate:
    """Tells a camera that sends too few pictures from one that keeps `promised_hz`; None promises nothing."""

    def __init__(self, promised_hz: float | None) -> None:
        self._promised_hz = promised_hz
        self._since_s: float | None = None
        self._pictures = 0
        self._reason = ""

    def count(self, now_s: float) -> str:
        """Count a picture; return why the last whole window was too slow, empty if it was not."""
        if self._promised_hz is None:
            return ""
        if self._since_s is None:
            self._since_s = now_s
            return ""
        self._pictures += 1
        took_s = now_s - self._since_s
        if took_s >= SLOW_WINDOW_S:
            rate_hz = self._pictures / took_s
            bar = (_FAST_AGAIN if self._reason else _SLOW) * self._promised_hz
            promised = f"{self._promised_hz:.1f} that the stream promises"
            self._reason = f"{rate_hz:.1f} pictures a second instead of {promised}" if rate_hz < bar else ""
            self._since_s, self._pictures = now_s, 0
        return self._reason


class Vitals:
    """One camera's condition since it was opened. `promised_hz` is the rate that it states, None if it states none."""

    def __init__(self, promised_hz: float | None) -> None:
        self._stillness = Stillness()
        self._rate = Rate(promised_hz)
        self._still = self._slow = ""
        self._condition: Condition = "well"

    def passed(self, now_s: float) -> Finding | None:
        """Take note of a picture that was passed over; return what has changed."""
        self._slow = self._rate.count(now_s)
        return self._judge()

    def seen(self, pixels: Pixels, now_s: float) -> Finding | None:
        """Take note of a picture that was read at `now_s`, a monotonic time; return what has changed."""
        self._still = self._stillness.look(pixels, now_s)
        return self.passed(now_s)

    def _judge(self) -> Finding | None:
        condition: Condition = "frozen" if self._still else "slow" if self._slow else "well"
        if condition == self._condition:
            return None
        before, self._condition = self._condition, condition
        return Finding(condition, self._still or self._slow or f"it is not {before} any more")
