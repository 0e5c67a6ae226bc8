"""Whether sessions see: the known pictures go through the buffers and bindings that frames use, and must be answered as
a plain run of the same file on `cpu` answers them. Runs in the thread that loads a pair and then, between frames, in
the worker's main thread.
"""

import math
import time
from collections.abc import Callable, Sequence

from workers.expected import AGREEING_SCORE, Expected, best_boxes, expect, pictures, whole
from workers.lane import Lane, Lanes
from workers.nms import Box, overlap

AGREEING_IOU = 0.95
SHARE = 0.01
"""Most of the time that the periodic test may take."""
_COMPARED = 5
"""Boxes of a picture that must be found again, best first."""


def agree(expected: Sequence[Box], found: Sequence[Box], confidence: float) -> bool:
    """Return whether each of the best boxes on either side that reach `confidence` has one on the other at IoU 0.95
    with a score within 0.02, of its class; both come best first.
    """
    return _contains(found, expected, confidence) and _contains(expected, found, confidence)


def find_fault(lanes: Lanes) -> str | None:
    """Try every known picture on every session, each in a turn; return what is wrong, None where nothing is. Each
    session is told whether `cpu` sees the drawn person. Raises ModelError when a run, or the plain one, fails.
    """
    for lane in lanes.values():
        expected = expect(lane)
        fault = _find_fault(lane, expected)
        if fault is not None and not _same(expected, fresh := expect(lane, anew=True)):
            # What was remembered is not held against a session.
            fault = _find_fault(lane, fresh)
        if fault is not None:
            return fault
    return None


class PeriodicTest:
    """Tries the known pictures on the sessions of a pair again and again, one at a call."""

    def __init__(self, lanes: Lanes, period_s: float | None, clock: Callable[[], float]) -> None:
        self._steps = [(size, number) for size in lanes for number in range(len(pictures()))]
        self._lanes = lanes
        self._period_s = math.inf if period_s is None else period_s
        self._clock = clock
        self._next = 0
        self._round_s = clock() + self._period_s
        self.due_s = self._round_s
        """When the next picture is to be tried, by the clock."""

    def step(self) -> str | None:
        """Try one picture; return what is wrong, None where nothing is. Raises ModelError when the run fails."""
        began_s = self._clock()
        if self._next == 0:
            self._round_s = began_s
        size, number = self._steps[self._next]
        lane = self._lanes[size]
        fault = _fault(lane, expect(lane), number)
        self._next = (self._next + 1) % len(self._steps)
        round_s = self._round_s + self._period_s if self._next == 0 else began_s
        self.due_s = max(round_s, rested_s(began_s, self._clock()))
        return fault


def rested_s(began_s: float, ended_s: float) -> float:
    """Return when a picture may be tried after one that took from `began_s` to `ended_s`, so that all of them together
    take no more than a hundredth of the time.
    """
    return began_s + (ended_s - began_s) / SHARE


def _same(one: Expected, other: Expected) -> bool:
    if (one.confidence, one.sees) != (other.confidence, other.sees):
        return False
    pairs = zip(one.answers, other.answers, strict=True)
    return all(agree(boxes, others, one.confidence) for boxes, others in pairs)


def _find_fault(lane: Lane, expected: Expected) -> str | None:
    lane.session.sees = expected.sees
    if lane.session.provider != "cpu" and not expected.tells:
        return f"{lane.decoder.rules.size}: cpu finds nothing in a drawn picture by which to tell"
    for number in range(len(pictures())):
        with lane.session.turn():
            fault = _fault(lane, expected, number)
        if fault is not None:
            return fault
    return None


def _fault(lane: Lane, expected: Expected, number: int) -> str | None:
    """Try one picture, through the session's own buffers."""
    picture, boxes = pictures()[number], expected.answers[number]
    lane.letterbox.fill(picture.pixels, whole(picture, lane.decoder.rules.size))
    start = time.perf_counter()
    head = lane.session.run()
    lane.session.fastest_ms = min(lane.session.fastest_ms, (time.perf_counter() - start) * 1e3)
    found = best_boxes(head, lane.appearing, expected.confidence)
    confidence = expected.confidence
    others = [other for other in expected.answers if not agree(boxes, other, confidence)]
    if agree(boxes, found, confidence) and not any(agree(other, found, confidence) for other in others):
        return None
    said = f"{lane.decoder.rules.size}, {picture.name}"
    return f"{said}: expected {_described(boxes, confidence)}, found {_described(found, confidence)}"


def _contains(boxes: Sequence[Box], wanted: Sequence[Box], confidence: float) -> bool:
    return all(any(_alike(box, other) for other in boxes) for box in wanted[:_COMPARED] if box.confidence >= confidence)


def _alike(one: Box, other: Box) -> bool:
    return (
        one.class_id == other.class_id
        and abs(one.confidence - other.confidence) <= AGREEING_SCORE
        and overlap(one, other) >= AGREEING_IOU
    )


def _described(boxes: Sequence[Box], confidence: float) -> str:
    if not boxes or boxes[0].confidence < confidence:
        return "nobody"
    x1, y1, x2, y2, score, _ = boxes[0]
    return f"{score:.3f} at ({x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f})"
