"""Who is known on one stream and where they are: in the answer, hidden behind another, gone over an edge or through an
exit, or vanished, and then looked for until they are found or time is over. Decides, and looks at nothing itself. Runs
in the worker's main thread, one of each for a stream, on the stream's clock.
"""

import math
from collections.abc import Mapping
from operator import attrgetter

from msgspec.structs import replace

from orion.messages import Detection, Detections, Known, KnownPerson, Search, Turn, VanishedPerson
from workers.boxes import Boxes, corners, pair_up
from workers.exits import LearnedExits, at_edge, cut_off, in_exit, leaving, measured
from workers.people import (
    STAYS_WITHIN,
    SURE_ANSWERS,
    SURE_LOOKS,
    Assessment,
    admitted,
    boxes_of,
    carried,
    distances,
    followed,
    hidden,
    likeness,
    rested,
    seen,
    sure,
)
from workers.plans import Plan
from workers.scene import Observation
from workers.search import SearchBudget, advanced

LONG_LOSS_S = 30.0
"""After a camera was away so long nobody who was known is assumed to be there."""
SOUGHT_WITHIN = 1.2
"""Somebody who is looked for is found by a box that is so few body heights from the last one: a person who falls lands
about one away."""
WANDERING = 1.0
"""Who appears away from the edges is somebody who vanished so many body heights a second away, or nearer."""
MOST_SEARCHES, MOST_AT_ONCE = 8, 2
"""Of how many the search goes on at most, and in one frame: its looks must not make a worker pass for hung."""


class Whereabouts:
    """Everybody on one stream. `begin` opens a frame, `sought` says whom its full look lacks, `conclude` ends it."""

    def __init__(self) -> None:
        self.people: tuple[KnownPerson, ...] = ()
        self.searches: tuple[Search, ...] = ()
        self.exits = LearnedExits()
        self.budget = SearchBudget()
        self.looks = self.vanished = self.found_again = 0
        self._frame: Observation
        self._frame_size = (0, 0)
        self._first = True
        self._passed_s = 0.0
        self._time_s = -math.inf
        """When the last answer was."""
        self._sought: list[VanishedPerson] = []
        self._missing: list[KnownPerson] = []
        """Who is looked for in this frame: whose search goes on, and who was just lost."""
        self._known: Known | None = Known()

    def forget(self) -> None:
        """Forget everybody who is known or vanished, but not what was learned of the place."""
        self.people, self.searches = (), ()
        self._time_s = -math.inf
        self._known = None

    def adopt(self, known: Known) -> None:
        """Go on with what another process knew."""
        self.people, self.searches = known.people, known.searches
        self.exits = LearnedExits(known.exits)
        self._time_s = known.time_s
        self._known = known

    @property
    def known(self) -> Known:
        """Who is known after the last frame."""
        if self._known is None:
            self._known = Known(self._time_s, self.people, self.searches, self.exits.places)
        return self._known

    @property
    def places(self) -> Boxes:
        """Where people vanished, (N, 4) in frame pixels."""
        return boxes_of([_person(search) for search in self.searches])

    def begin(self, frame: Observation) -> None:
        """Open a frame: end the searches whose time is over, and forget everybody where the clock went
        back, the camera was away for long, or its pictures have another size.
        """
        passed_s = frame.time_s - self._time_s
        lost = not frame.continuous and LONG_LOSS_S < passed_s < math.inf
        if passed_s < 0 or lost or self._frame_size not in {(0, 0), frame.frame_size}:
            self.forget()
            passed_s = math.inf
        self._frame, self._frame_size = frame, frame.frame_size
        self._first = math.isinf(passed_s)
        self._passed_s = 0.0 if self._first else passed_s
        self._sought, self._missing = [], []
        self._expire()

    def _expire(self) -> None:
        limit_s = self._frame.settings.vanish_s
        going = [one for one in self.searches if limit_s and self._frame.time_s - one.person.since_s < limit_s]
        for over in self.searches:
            if over not in going and limit_s:
                self.exits.note(*self._normalized(_person(over)), appeared=False)
        self.searches = tuple(going)

    def admit(self, found: Detections) -> Detections:
        """Return `found` without faint boxes, but for those of people who are known or looked for: they are `kept`."""
        frame = self._frame
        if all(one.confidence >= frame.confidence for one in found):
            return found
        known = [*self.people, *(_person(search) for search in self.searches)]
        return admitted(found, boxes_of(known), frame.confidence, frame.class_id)

    def sought(self, found: Detections, bounds: Boxes, *, full: bool) -> list[tuple[KnownPerson, int]]:
        """Return whom to look for at once, and how many streaks of looks there were: who is missing in `found` of a
        `full` look inside `bounds` (4,), then whose search has come to its next streak, the longest waiting first. Who
        is one too many waits for the next frame.
        """
        if self._frame.settings.vanish_s is None:
            return []
        missing = self._assess(self._persons(found), bounds, full=True).lacking if full else []
        self._missing = missing[:MOST_AT_ONCE]
        due = [search for search in self.searches if self._frame.time_s >= search.next_s - 1e-6]
        due = sorted(due, key=attrgetter("next_s"))[: MOST_AT_ONCE - len(self._missing)]
        self._sought = [search.person for search in due]
        return [*((person, 0) for person in self._missing), *((_person(search), search.streaks) for search in due)]

    def unseen(self, found: Detections, bounds: Boxes) -> bool:
        """Return whether a look that was not full left open where somebody is: nobody hides them any more."""
        persons = self._persons(found)
        return len(self.people) > len(persons) and bool(self._assess(persons, bounds, full=False).unseen)

    def found_among(self, person: KnownPerson, found: Detections, present: Detections) -> Detection | None:
        """Return which box of a look around the last place of `person` is that person, the surest; None when none is.
        Those of who is `present` anyway are not.
        """
        frame = self._frame
        others = corners(present)
        free = [one for one in self._persons(found) if not likeness(others, corners((one,)), 0.2).any()]
        near = likeness(boxes_of((person,)), corners(tuple(free)), SOUGHT_WITHIN)
        best = max(
            (one for one, like in zip(free, near[0], strict=True) if like), key=attrgetter("confidence"), default=None
        )
        if best is None or best.confidence >= frame.confidence:
            return best
        return replace(best, kept=True)

    def conclude(self, answer: Detections, bounds: Boxes, plan: Plan, turns: Mapping[Detection, Turn]) -> None:
        """Take the frame's answer: who is where now, and who is looked for. `plan` is where it comes from, and `turns`
        says whom another look, turned, has found.
        """
        if plan.kind == "held" and not self._sought:
            self._rest()
            return
        persons = self._persons(answer)
        fate = self._assess(persons, bounds, full=plan.full)
        before = {there: self.people[who] for who, there in fate.pairs.items()}
        now = []
        for place, person in enumerate(persons):
            known = before.get(place)
            as_before = known.turn if known and plan.kind in {"held", "turned_640"} else 0
            turn = turns.get(person, as_before)
            one = measured(seen(known, person, self._passed_s, turn), bounds)
            now.append(self._welcome(one, bounds) if known is None else one)
        for lost in fate.missing:
            self._look_for(lost)
        self.people = tuple(self._recognize(one) for one in (*now, *fate.hidden, *fate.unseen))
        self._advance()
        self._time_s = self._frame.time_s
        self._known = None

    def _rest(self) -> None:
        """Take an answer that is the last one again."""
        self.people = tuple(self._recognize(rested(person, self._passed_s)) for person in self.people)
        self._time_s, self._known = self._frame.time_s, None

    def pay(self, cost: float, *, again: bool) -> None:
        """Take the cost of a look; one that sees somebody `again` as the last one did is no search."""
        self.looks += 1
        if not again:
            self.budget.pay(self._frame.time_s, cost)

    def affords(self, cost: float, interval_s: float, full_cost: float) -> bool:
        """Tell whether a look of that cost may be made."""
        return self.budget.allows(self._frame.time_s, cost, interval_s, full_cost)

    def _persons(self, found: Detections) -> Detections:
        return tuple(one for one in found if one.class_id == self._frame.class_id)

    def _assess(self, persons: Detections, bounds: Boxes, *, full: bool) -> Assessment:
        """Return what becomes of everybody known when `persons` are the answer."""
        boxes = corners(persons)
        pairs = followed(self.people, boxes, self._passed_s)
        rest = [who for who in range(len(self.people)) if who not in pairs]
        free = [place for place in range(len(persons)) if place not in pairs.values()]
        near = likeness(boxes_of([self.people[who] for who in rest]), boxes[free], SOUGHT_WITHIN)
        pairs |= {rest[who]: free[place] for who, place in pair_up(near, 1e-9)}
        fate = Assessment(pairs, [], [], [], [])
        for who in rest:
            person = self.people[who]
            if who not in pairs and sure(person):
                self._judge(person, persons, pairs, bounds, fate, full=full)
        return fate

    def _judge(
        self,
        person: KnownPerson,
        persons: Detections,
        pairs: Mapping[int, int],
        bounds: Boxes,
        fate: Assessment,
        *,
        full: bool,
    ) -> None:
        """Put somebody who is not in an answer where they belong."""
        over = person.hidden_by
        if over is not None and over in pairs:
            person = carried(person, self.people[over], persons[pairs[over]])
        by = hidden(person, corners(persons))
        if by is not None:
            fate.hidden.append(replace(person, hidden_by=by))
        elif not full:
            fate.unseen.append(replace(person, hidden_by=None))
        elif not (self._by_exit(person) or leaving(person, bounds, self._passed_s)):
            fate.missing.append(replace(person, hidden_by=None))
        elif not (self._by_exit(person) or cut_off(person, bounds, self._passed_s)):
            fate.leaving.append(replace(person, hidden_by=None))

    def _by_exit(self, person: KnownPerson) -> bool:
        exits = self._frame.settings.exits
        if exits:
            return in_exit(person, exits, self._frame_size)
        return self.exits.has(*self._normalized(person))

    def _look_for(self, person: KnownPerson) -> None:
        if self._frame.settings.vanish_s is None:
            return
        gone = VanishedPerson(person.x, person.y, person.width, person.height, max(self._time_s, 0.0))
        self.vanished += 1
        if person in self._missing:
            self._sought.append(gone)
        self.searches = (*self.searches, Search(gone, 0, self._frame.time_s, person.length))[-MOST_SEARCHES:]

    def _advance(self) -> None:
        """Set when those who were looked for in this frame, and not found, are looked for again."""
        now_s, sought = self._frame.time_s, self._sought
        self.searches = tuple(advanced(one, now_s) if one.person in sought else one for one in self.searches)

    def _welcome(self, newcomer: KnownPerson, bounds: Boxes) -> KnownPerson:
        """Return somebody new; who is found faint, or by a turned look, at the place of somebody vanished is them. Who
        is found there otherwise is them once that is sure: a box that flashes up ends no search.
        """
        coming = at_edge(newcomer, bounds) and not newcomer.turn
        # Who comes in over an edge beside somebody vanished is somebody else.
        near = likeness(self.places, boxes_of((newcomer,)), STAYS_WITHIN if coming else SOUGHT_WITHIN)[:, 0]
        if near.any() and (newcomer.turn or not newcomer.answers):
            self._find(self.searches[int(near.argmax())])
            return replace(newcomer, answers=SURE_ANSWERS, looks=SURE_LOOKS)
        exit_ = in_exit(newcomer, self._frame.settings.exits, self._frame_size)
        inside = bool(near.any()) or not (self._first or at_edge(newcomer, bounds))
        return replace(newcomer, inside=inside and not exit_)

    def _recognize(self, person: KnownPerson) -> KnownPerson:
        """Note of somebody who appeared inside the picture, once that is sure, who it is: the nearest who vanished, or
        somebody who came in there.
        """
        if not (person.inside and sure(person)):
            return person
        here, now_s = boxes_of((person,)), self._frame.time_s
        apart = distances(here, self.places)[0] if self.searches else ()
        possible = [
            (way, one)
            for way, one in zip(apart, self.searches, strict=True)
            if one.streaks and way <= SOUGHT_WITHIN + WANDERING * (now_s - one.person.since_s)
        ]
        if possible:
            self._find(min(possible, key=lambda pair: pair[0])[1])
        else:
            self.exits.note(*self._normalized(person), appeared=True)
        return replace(person, inside=False)

    def _find(self, search: Search) -> None:
        self.found_again += 1
        self.searches = tuple(one for one in self.searches if one is not search)

    def _normalized(self, person: KnownPerson) -> tuple[float, float]:
        width, height = self._frame_size
        return (person.x + person.width / 2) / width, (person.y + person.height / 2) / height


def _person(search: Search) -> KnownPerson:
    gone = search.person
    return KnownPerson(gone.x, gone.y, gone.width, gone.height, SURE_ANSWERS, SURE_LOOKS, length=search.length)
