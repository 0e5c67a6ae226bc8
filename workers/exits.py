"""Where people leave and come: the edges of what is looked at, the exits that are named inside it, and those that are
learned from who vanishes and appears there again and again. Pure; runs in the worker's main thread.
"""

import math
from collections.abc import Sequence

from msgspec.structs import replace

from orion.messages import KnownPerson, LearnedExit, Polygon
from workers.boxes import EDGE_PX, Boxes

OUTWARD, TOGETHER = 0.1, 0.6
"""Body heights a second from which somebody walks towards an edge, with both sides alike, the one at least that share
as fast as the other: who falls towards it keeps one, the feet, nearly in its place ..."""
SINKING = 0.15
"""... and comes down by more than so many body heights a second."""
GONE_S = 0.4
"""Who would have reached the edge so soon after the next frame has left."""
SLIVER, NOTHING = 0.6, 0.3
"""Who leaves over an edge is cut by it until only the one share of them, or less, is left in view, or would be left of
the other by the next frame; who falls there is as long as before, or lies across it."""

COMING_IN = 0.08
"""Who is first seen so many body heights from the edge has come in over it."""

LEARNED = 3
"""How many people must have vanished at a place, and as many appeared, until it is an exit."""
SAME_PLACE = 0.08
"""Places less than that share of the frame apart are one."""
MOST_PLACES = 16


def leaving(person: KnownPerson, bounds: Boxes, passed_s: float) -> bool:
    """Return whether somebody who was last seen `passed_s` ago went over the edge of `bounds` (4,), frame pixels."""
    return cut_off(person, bounds, passed_s) or _heading_out(person, bounds, passed_s)


def cut_off(person: KnownPerson, bounds: Boxes, passed_s: float) -> bool:
    """Return whether the edge of `bounds` (4,) cut somebody, when last seen `passed_s` ago, down to what tells that
    they went over it.
    """
    left, _, right, _ = person.velocity
    wide, tall = person.uncut
    gaps, ahead_s = _gaps(person, bounds), passed_s + GONE_S
    for gap, outward in ((gaps[0], -right), (gaps[2], left)):
        rest = person.width - max(0.0, outward) * ahead_s
        if gap <= EDGE_PX and (person.width <= SLIVER * wide or rest <= NOTHING * wide):
            return True
    # Downwards go those who fall, too: at the lower edge nothing but being cut tells.
    return min(gaps[1], gaps[3]) <= EDGE_PX and max(person.width, person.height) <= SLIVER * max(wide, tall)


def _heading_out(person: KnownPerson, bounds: Boxes, passed_s: float) -> bool:
    left, upper, right, lower = person.velocity
    length = max(person.width, person.height)
    gaps, ahead_s = _gaps(person, bounds), passed_s + GONE_S
    for gap, near, far in ((gaps[0], -left, -right), (gaps[2], right, left)):
        outward = far >= max(OUTWARD * length, TOGETHER * near) and upper <= SINKING * length
        if gap > EDGE_PX and outward and gap <= far * ahead_s:
            return True
    return gaps[1] > EDGE_PX and -lower >= OUTWARD * length and gaps[1] <= -lower * ahead_s


def measured(person: KnownPerson, bounds: Boxes) -> KnownPerson:
    """Return somebody with how large they were when the edges of `bounds` (4,) did not cut them."""
    gaps = _gaps(person, bounds)
    wide, tall = person.uncut
    across, along = min(gaps[0], gaps[2]) <= EDGE_PX, min(gaps[1], gaps[3]) <= EDGE_PX
    width = max(wide, person.width) if across else person.width
    height = max(tall, person.height) if along else person.height
    return replace(person, uncut=(width, height))


def _gaps(person: KnownPerson, bounds: Boxes) -> tuple[float, float, float, float]:
    """Return how far the box is from the left, upper, right and lower edge."""
    left, top, right, bottom = (float(edge) for edge in bounds)
    return person.x - left, person.y - top, right - person.x - person.width, bottom - person.y - person.height


def at_edge(person: KnownPerson, bounds: Boxes) -> bool:
    """Return whether somebody's box touches the edge of `bounds` (4,), frame pixels, or nearly: who comes in is first
    seen when the next step is made.
    """
    return min(_gaps(person, bounds)) <= EDGE_PX + COMING_IN * max(person.width, person.height)


def in_exit(person: KnownPerson, exits: Sequence[Polygon], frame_size: tuple[int, int]) -> bool:
    """Return whether somebody's feet or middle lie in one of the normalized polygons."""
    width, height = frame_size
    across = (person.x + person.width / 2) / width
    middle, feet = (person.y + person.height / 2) / height, (person.y + person.height) / height
    # Feet that the frame cuts lie on its edge, and a door drawn down to the edge has them.
    return any(inside(across, place, exit_) for exit_ in exits for place in (middle, min(feet, 1.0) - 1e-6))


def inside(x: float, y: float, polygon: Polygon) -> bool:
    """Return whether a point lies in a polygon: whether a ray to the right crosses its sides an odd number of times."""
    odd = False
    for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            odd = not odd
    return odd


class LearnedExits:
    """Places inside the picture where people vanished and appeared, with counts; the busiest are kept."""

    def __init__(self, places: Sequence[LearnedExit] = ()) -> None:
        self.places = tuple(places)

    def note(self, x: float, y: float, *, appeared: bool) -> None:
        """Count somebody who vanished at a normalized place and was not found again, or who appeared there."""
        near = self._at(x, y)
        known = near or LearnedExit(x, y, 0, 0)
        times = known.vanished + known.appeared
        counted = LearnedExit(
            (known.x * times + x) / (times + 1),
            (known.y * times + y) / (times + 1),
            known.vanished + (not appeared),
            known.appeared + appeared,
        )
        others = [place for place in self.places if place is not near]
        busiest = sorted(others, key=lambda place: -(place.vanished + place.appeared))[: MOST_PLACES - 1]
        self.places = (*busiest, counted)

    def has(self, x: float, y: float) -> bool:
        """Return whether the place is an exit by now."""
        place = self._at(x, y)
        return place is not None and min(place.vanished, place.appeared) >= LEARNED

    def _at(self, x: float, y: float) -> LearnedExit | None:
        near = [place for place in self.places if math.hypot(place.x - x, place.y - y) < SAME_PLACE]
        return min(near, key=lambda place: math.hypot(place.x - x, place.y - y), default=None)
