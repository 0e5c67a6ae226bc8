"""The looks for somebody who is missing: where, how turned, how often, and what they may cost. Pure; used by the
planner in the worker's main thread, on the stream's clock.
"""

from collections import deque
from dataclasses import dataclass

from msgspec.structs import replace

from orion.messages import Crop, Detection, Detections, KnownPerson, Search, Turn
from workers.plans import Plan

NARROW, WIDTHS = 1.5, (None, 2.5, 1.5, 10.0)
"""How many body heights wide the upright looks for somebody are, and the turned ones of one streak after the other: a
model may miss who lies at one scale and find them at the next."""
AROUND = 2.0
"""That of looks around somebody who was found by a turned look."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
"""Streaks of looks come half a second, a second, two, four and eight seconds after the first, then at the longest
distance."""
LYING_REACH, LYING_ABOVE = 1.3, 0.75
"""How far a look at who may have fallen goes from the feet, and above them, in body heights."""

SEARCH_SHARE = 0.05
WINDOW_S = 600.0
"""Looks for who vanished may cost that share of what every frame whole through the 640 session would, over so long."""


class SearchBudget:
    """Keeps the looks for who vanished under their share. Costs are inferences of the 320 session."""

    def __init__(self) -> None:
        self.spent = 0.0
        self._paid: deque[tuple[float, float]] = deque()

    def allows(self, time_s: float, cost: float, interval_s: float, full_cost: float) -> bool:
        """Tell whether a look of that cost may be made, with a frame each `interval_s` that would cost `full_cost`."""
        # What was paid later than now was paid by a clock that has gone back since.
        while self._paid and not 0 <= time_s - self._paid[0][0] < WINDOW_S:
            self._paid.popleft()
        limit = SEARCH_SHARE * full_cost * WINDOW_S / max(interval_s, 1e-3)
        return sum(paid for _, paid in self._paid) + cost <= limit

    def pay(self, time_s: float, cost: float) -> None:
        """Take the cost of a look that was made."""
        self.spent += cost
        self._paid.append((time_s, cost))


def advanced(search: Search, now_s: float) -> Search:
    """Return a search after another streak of looks, at `now_s`."""
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(max(search.streaks - 1, 0), 8))
    return replace(search, streaks=search.streaks + 1, next_s=now_s + wait_s)


@dataclass(frozen=True, slots=True)
class Look:
    """A look for somebody: how it is turned, and how many body heights wide it is."""

    person: KnownPerson
    turn: Turn
    bodies: float | None
    """How many body heights wide; None looks beside the feet."""
    again: bool = False
    """It is the look that found them before."""

    def crop(self, frame_size: tuple[int, int]) -> Crop:
        """Return what to look at."""
        if self.bodies is None:
            return fallen_crop(self.person, frame_size, self.turn)
        return search_crop(self.person, frame_size, self.turn, self.bodies)


class Seeking:
    """Whom to look for in a frame after its answer, and who was found."""

    def __init__(self, found: Detections, sought: list[tuple[KnownPerson, int]], source: Plan) -> None:
        self.found = found
        self.source = source
        """The plan that gave the answer."""
        self.turns: dict[Detection, Turn] = {}
        self._left = deque(look for person, streaks in sought for look in _looks_for(person, streaks))
        self._last: Look | None = None

    def following(self) -> "Look | None":
        """Return the next look; None when there is no other."""
        self._last = self._left.popleft() if self._left else None
        return self._last

    @property
    def person(self) -> KnownPerson:
        """Whom the last look was for."""
        assert self._last is not None
        return self._last.person

    def take(self, one: Detection) -> None:
        """Note that the person of the last look was found, so that no other look is needed."""
        assert self._last is not None
        self.found = tuple(sorted((*self.found, one), key=lambda box: -box.confidence))
        if self._last.turn:
            self.turns[one] = self._last.turn
        self._left = deque(look for look in self._left if look.person is not self.person)


def _looks_for(person: KnownPerson, streaks: int) -> list[Look]:
    """Return the looks of the next streak, after so many: upright and turned both ways."""
    wide = WIDTHS[streaks % len(WIDTHS)]
    looks = [Look(person, 0, NARROW), Look(person, 90, wide), Look(person, -90, wide)]
    return [Look(person, person.turn, AROUND, again=True), *looks] if person.turn else looks


def search_crop(person: KnownPerson, frame_size: tuple[int, int], turn: Turn, bodies: float) -> Crop:
    """Return where to look for somebody: a square of so many body heights around the last box, as far as the frame has
    it, and a quarter of the frame's longer side at least.
    """
    side = round(max(bodies * max(person.width, person.height), max(frame_size) / 4))
    x, y = person.x + (person.width - side) / 2, person.y + (person.height - side) / 2
    return _inside(round(x), round(y), (side, side), frame_size, turn)


def fallen_crop(person: KnownPerson, frame_size: tuple[int, int], turn: Turn) -> Crop:
    """Return where somebody lies who fell over their feet, with the head to the left for a turn of 90 degrees, to the
    right for -90: from the feet on, somewhat longer than the body.
    """
    length = max(person.width, person.height, person.length)
    size = round(LYING_REACH * length), round(length)
    x = person.x + person.width - size[0] if turn == 90 else person.x
    y = person.y + person.height - round(LYING_ABOVE * length)
    return _inside(x, y, size, frame_size, turn)


def _inside(x: int, y: int, size: tuple[int, int], frame_size: tuple[int, int], turn: Turn) -> Crop:
    (width, height), (across, down) = frame_size, size
    across, down = min(width, across), min(height, down)
    return Crop(min(max(0, x), width - across), min(max(0, y), height - down), across, down, 640, turn)
