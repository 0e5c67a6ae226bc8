"""Whether a camera that delivers is well: pictures that are new, not black, as many as it promised, each when it was
taken, by a clock that runs on. Pure decisions with the time handed in, for the capture threads; and what they mean for
those who ask who is there.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from orion.messages import Pixels

Condition = Literal["well", "frozen", "slow", "irregular"]

SEEING = frozenset({"running", "slow", "irregular"})
"""States of a stream whose newest answer tells who is there now: not of one that is frozen, lost or over."""

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
RHYTHM_WINDOW_S: Final = 10.0
_HELD_S: Final = 0.3
"""Longer than encoders with B pictures hold some back at usual rates."""
_HELD_PERIODS: Final = 2.5
_HELD_SHARE: Final = 0.7
_EVEN_SHARE: Final = 0.5
_LEAST_BURSTS: Final = 5
"""One hiccup of a network or a busy machine is no rhythm."""
_JUMP_S: Final = 1.0
_DRIFT: Final = 0.001
"""Seconds a second; ten times what the quartz of a cheap camera is off."""
JUMP_OVER_AFTER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What has become of a camera: the trouble that is new or left, or `well`; `reason` is for people.

    `worst` is the condition that it is in, which is another one if the new trouble is not its worst.
    """

    condition: Condition
    reason: str
    worst: Condition


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


class Rhythm:
    """Tells a camera, or a network, that holds pictures back and hands them over together, again and again."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._gaps_s: list[float] = []
        self._reason = ""

    def count(self, now_s: float) -> str:
        """Count a picture; return why the last whole window was one of bursts, empty if it was not."""
        if self._last_s is not None:
            self._gaps_s.append(now_s - self._last_s)
        self._last_s = now_s
        took_s = sum(self._gaps_s)
        if took_s >= RHYTHM_WINDOW_S:
            self._reason = self._judge(took_s)
            self._gaps_s = []
        return self._reason

    def _judge(self, took_s: float) -> str:
        least_s = max(_HELD_S, _HELD_PERIODS * took_s / len(self._gaps_s))
        held_s = [gap_s for gap_s in self._gaps_s if gap_s >= least_s]
        share = _EVEN_SHARE if self._reason else _HELD_SHARE
        if len(held_s) < _LEAST_BURSTS or sum(held_s) < share * took_s:
            return ""
        at_once = round(len(self._gaps_s) / len(held_s))
        return f"pictures come in bursts: nothing for up to {max(held_s):.1f} s, then about {at_once} at once"


class CameraClock:
    """Tells a camera whose own time jumps from one whose pictures are late, come all at once, or are left out.

    What is late has fallen behind the camera's time, and may catch up with it, but never gets ahead of it.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._ahead_s = 0.0
        """By how much the camera's time is ahead of ours when nothing is late."""
        self._jumped_s: float | None = None
        self._reason = ""

    def look(self, now_s: float, camera_s: float | None) -> str:
        """Return how the camera's time has jumped shortly before `now_s`; empty if it did not, or is not told."""
        if camera_s is not None:
            self._compare(now_s, camera_s)
        if self._jumped_s is not None and now_s - self._jumped_s >= JUMP_OVER_AFTER_S:
            self._jumped_s, self._reason = None, ""
        return self._reason

    def _compare(self, now_s: float, camera_s: float) -> None:
        ahead_s = camera_s - now_s
        if self._last is None:
            self._ahead_s = ahead_s
        else:
            last_s, last_camera_s = self._last
            jump_s = ahead_s - (last_camera_s - last_s)
            forward = jump_s > _JUMP_S and ahead_s - self._ahead_s > _JUMP_S
            if forward or camera_s < last_camera_s - _JUMP_S:
                self._ahead_s, self._jumped_s = ahead_s, now_s
                self._reason = f"the stream's clock jumped by {jump_s:+.1f} s"
            else:
                self._ahead_s = max(ahead_s, self._ahead_s - _DRIFT * (now_s - last_s))
        self._last = now_s, camera_s


_CONDITIONS: Final[dict[str, Condition]] = {
    "pictures": "frozen",
    "rate": "slow",
    "rhythm": "irregular",
    "clock": "irregular",
}
"""What may be wrong, the worst first."""


class Vitals:
    """One camera's condition since it was opened. `promised_hz` is the rate that it states, None if it states none.

    One trouble does not hide another: each is found once when it begins, and what is left when one ends.
    """

    def __init__(self, promised_hz: float | None) -> None:
        self._stillness = Stillness()
        self._rate = Rate(promised_hz)
        self._rhythm = Rhythm()
        self._clock = CameraClock()
        self._reasons = dict.fromkeys(_CONDITIONS, "")
        self._found: list[str] = []

    def passed(self, now_s: float, camera_s: float | None = None) -> Finding | None:
        """Take note of a picture that was passed over; return what has changed. `camera_s` is the camera's own time."""
        self._reasons["rate"] = self._rate.count(now_s)
        self._reasons["rhythm"] = self._rhythm.count(now_s)
        self._reasons["clock"] = self._clock.look(now_s, camera_s)
        return self._judge()

    def seen(self, pixels: Pixels, now_s: float, camera_s: float | None = None) -> Finding | None:
        """Take note of a picture that was read at `now_s`, a monotonic time; return what has changed."""
        self._reasons["pictures"] = self._stillness.look(pixels, now_s)
        return self.passed(now_s, camera_s)

    def _judge(self) -> Finding | None:
        """Return one thing that has changed; another one waits for the next picture."""
        wrong = [what for what, reason in self._reasons.items() if reason]
        worst: Condition = _CONDITIONS[wrong[0]] if wrong else "well"
        for what in wrong:
            if what not in self._found:
                self._found.append(what)
                return Finding(_CONDITIONS[what], self._reasons[what], worst)
        over = [_CONDITIONS[what] for what in self._found if what not in wrong]
        if not over:
            return None
        self._found = wrong
        left = self._reasons[wrong[0]] if wrong else f"it is not {' or '.join(dict.fromkeys(over))} any more"
        return Finding(worst, left, worst)
