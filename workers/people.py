"""Who is known on a stream from one answer to the next: pure. Says which faint boxes are somebody known who stays, who
of before is who of now, and who is gone from an answer. Runs in the worker's main thread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from orion.messages import Detection, Detections, KnownPerson, Turn
from workers.boxes import Boxes, areas, corners, covered, overlaps, pair_up

SURE_ANSWERS, SURE_LOOKS = 3, 2
"""Somebody is known surely who was in so many answers in a row above the threshold, so many of them looked for: what
flashes up once, and is held, is no person that could vanish."""

STAYS_IOU = 0.3
STAYS_WITHIN = 0.35
"""A faint box is somebody known when it overlaps the last box so much, or its centre is so few body heights away."""
FOLLOWED_WITHIN = 0.6
"""A box is somebody known when its centre is so few body heights away ..."""
WALKING = 1.5
"""... and so many more for each second since (a quick walk is about 1.2 body heights a second)."""
MOST_FOLLOWED = 2.0
_BEFORE = 10.0
"""More than any likeness."""

COVERED_SHARE = 0.5
"""Somebody is hidden when another person's box covers so much of the last box."""
STROLLING = 0.3
"""Body heights a second from which somebody who is hidden is taken to walk on with who hides them."""

VELOCITY_S = 0.5
"""Time constant over which velocities are averaged."""
LENGTH_S = 10.0
"""That over which a body's height is forgotten: who walks away becomes smaller."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What becomes of who was known, by one answer: where in it they are, who is hidden, and who is missing."""

    pairs: dict[int, int]
    hidden: list[KnownPerson]
    missing: list[KnownPerson]
    leaving: list[KnownPerson]
    """On their way out when last seen, but not yet cut by the edge: looked for once, for they may have fallen."""
    unseen: list[KnownPerson]
    """Not in the answer of a cheap plan, which does not say that they are not there."""

    @property
    def lacking(self) -> list[KnownPerson]:
        """Who is looked for before the answer is given."""
        return [*self.missing, *self.leaving]


def boxes_of(people: Sequence[KnownPerson]) -> Boxes:
    """Return the last boxes of `people` as corners (N, 4), frame pixels."""
    sides = [(one.x, one.y, one.x + one.width, one.y + one.height) for one in people]
    boxes: Boxes = np.array(sides, np.float64).reshape(-1, 4)
    return boxes


def body_heights(boxes: Boxes) -> NDArray[np.float64]:
    """Return how long each person (N,) in pixels is taken to be: who lies is as long as wide."""
    lengths: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0)
    return lengths


def distances(before: Boxes, after: Boxes) -> NDArray[np.float64]:
    """Return how far (N, M) the centres are apart, in body heights of who was there `before`."""
    way = (before[:, None, :2] + before[:, None, 2:] - after[None, :, :2] - after[None, :, 2:]) / 2
    apart: NDArray[np.float64] = np.linalg.norm(way, axis=2) / np.maximum(body_heights(before), 1.0)[:, None]
    return apart


def likeness(before: Boxes, after: Boxes, within: float) -> NDArray[np.float64]:
    """Return how well (N, M) each of `before` goes with each of `after`, 0 where it cannot be the same person: neither
    overlaps nor is within so many body heights.
    """
    ratios, apart = overlaps(before, after), distances(before, after)
    possible = (ratios >= STAYS_IOU) | (apart <= within)
    like: NDArray[np.float64] = np.where(possible, 1e-6 + ratios + np.clip(1 - apart / within, 0, None), 0.0)
    return like


def admitted(found: Detections, places: Boxes, confidence: float, class_id: int) -> Detections:
    """Return `found` without the boxes under `confidence`, but for those of the class that are at one of `places`
    (N, 4), the last boxes of people, where no better box is: those are `kept`.
    """
    faint = [one for one in found if one.confidence < confidence]
    if not faint:
        return found
    firm = tuple(one for one in found if one.confidence >= confidence)
    theirs = tuple(one for one in faint if one.class_id == class_id)
    taken = {place for place, _ in pair_up(likeness(places, corners(firm), STAYS_WITHIN), 1e-9)}
    free = np.array([place for place in range(len(places)) if place not in taken], int)
    pairs = pair_up(likeness(places[free], corners(theirs), STAYS_WITHIN), 1e-9)
    kept = sorted((theirs[box] for _, box in pairs), key=lambda one: -one.confidence)
    return (*firm, *(replace(one, kept=True) for one in kept))


def followed(people: Sequence[KnownPerson], boxes: Boxes, passed_s: float) -> dict[int, int]:
    """Return which of `people` is at which of `boxes` (N, 4) of the next answer, `passed_s` later: who was seen before
    who was hidden, for who hides somebody is often nearer to their last box than to the own.
    """
    within = min(MOST_FOLLOWED, FOLLOWED_WITHIN + WALKING * max(0.0, passed_s))
    like = likeness(boxes_of(people), boxes, within)
    first = np.array([one.hidden_by is None for one in people], bool)
    like[first] += np.where(like[first] > 0, _BEFORE, 0.0)
    return dict(pair_up(like, 1e-9))


def seen(before: KnownPerson | None, now: Detection, passed_s: float, turn: Turn) -> KnownPerson:
    """Return who was found at `now`, by a look that was turned so: `before`, or somebody new."""
    length = float(max(now.width, now.height))
    if before is None:
        firm = 0 if now.kept else 1
        return KnownPerson(now.x, now.y, now.width, now.height, firm, firm, turn=turn, length=length)
    return replace(
        before,
        x=now.x,
        y=now.y,
        width=now.width,
        height=now.height,
        answers=min(SURE_ANSWERS, before.answers + (not now.kept)),
        looks=min(SURE_LOOKS, before.looks + (not now.kept)),
        velocity=_velocity(before, now, passed_s),
        turn=turn,
        hidden_by=None,
        length=max(length, before.length * math.exp(-passed_s / LENGTH_S)),
    )


def rested(person: KnownPerson, passed_s: float) -> KnownPerson:
    """Return somebody in an answer that was held: seen once more, and not moving."""
    if person.hidden_by is not None or (person.answers >= SURE_ANSWERS and not any(person.velocity)):
        return person
    left, upper, right, lower = person.velocity
    share = math.exp(-passed_s / VELOCITY_S) if abs(left) + abs(upper) + abs(right) + abs(lower) >= 1.0 else 0.0
    velocity = (share * left, share * upper, share * right, share * lower)
    return replace(person, answers=min(SURE_ANSWERS, person.answers + 1), velocity=velocity)


def _velocity(before: KnownPerson, now: Detection, passed_s: float) -> tuple[float, float, float, float]:
    if passed_s <= 0:
        return before.velocity
    weight = 1 - math.exp(-passed_s / VELOCITY_S)
    sides = zip(before.velocity, _sides(before), _sides(now), strict=True)
    left, upper, right, lower = (speed + weight * ((now - then) / passed_s - speed) for speed, then, now in sides)
    return left, upper, right, lower


def _sides(one: KnownPerson | Detection) -> tuple[int, int, int, int]:
    return one.x, one.y, one.x + one.width, one.y + one.height


def sure(person: KnownPerson) -> bool:
    """Return whether somebody was seen often enough to be looked for."""
    return person.answers >= SURE_ANSWERS and person.looks >= SURE_LOOKS


def hidden(person: KnownPerson, boxes: Boxes) -> int | None:
    """Return which of `boxes` (N, 4) of other people covers somebody who is not seen; None where none does."""
    mine = boxes_of((person,))
    shares = [float(covered(mine, box[None])[0]) for box in boxes if areas(box[None])[0] > 0]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return best if best is not None and shares[best] >= COVERED_SHARE else None


def carried(person: KnownPerson, before: KnownPerson, after: Detection) -> KnownPerson:
    """Return somebody hidden after who hides them went from `before` to `after`: who walked when last seen is taken to
    walk along, who stood is not.
    """
    left, _, right, _ = person.velocity
    # Along sideways alone: who falls behind somebody is quick, too, but downwards.
    if abs(left + right) / 2 < STROLLING * max(person.width, person.height):
        return person
    across = after.x + after.width // 2 - before.x - before.width // 2
    return replace(person, x=max(0, person.x + across))
