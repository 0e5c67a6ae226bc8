"""How answers to a made fall are judged: what a made fall gives when it is played through a detector, and how long who
lies was not reported, or not even missed. Pure but for `play`, which runs the detector in the caller's thread.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.made_falls import Shot, Truth
from orion.messages import AttentionSettings, DetectRequest, Outcome
from workers.boxes import Boxes, corners, overlaps
from workers.person import PersonDetector

SAME_IOU = 0.3
"""Overlap with the truth from which a box is that of the person."""
THERE = 0.5
"""Who stands is judged where so much of the body is visible; less there is of who comes or goes over the edge."""
SOON_S = 1.0
"""By then who lies is to be reported, or missed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one result said: whether the person is among its boxes, how many boxes are nobody's, and how many people it
    says have vanished.
    """

    time_s: float
    truth: Truth
    found: bool
    extra: int
    vanished: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the answers to one made fall amount to. Times are seconds, of the stream's clock."""

    results: int
    lying_s: float
    first_s: float | None
    """From the first result of who lies to the first that has them; None where none has."""
    silence_s: float
    """Longest time, while they lie, without them among the boxes."""
    nobody_s: float
    """Longest time, while they lie, with neither them nor somebody vanished; not what comes later than `vanish_s` after
    they were found last.
    """
    neither: int
    """Results that say neither, from the first that found them until they leave, up to `vanish_s` after they were found
    last.
    """
    vanished_after_s: float | None
    """In the longest silence, the time to the first result that says somebody vanished; None where none does."""
    vanished_s: float
    """Longest time, while they lie, throughout which somebody was said to have vanished."""
    left_vanished: int
    """Results that say somebody vanished after they left over the edge."""
    both: int
    """Results that have them and say that somebody vanished."""
    extra: int


def play(
    detector: PersonDetector, shots: Iterable[Shot], stream_id: str, settings: AttentionSettings
) -> Iterator[tuple[Shot, Outcome]]:
    """Yield every shot with what the detector makes of it as a frame of that stream, which it is to forget after it."""
    for shot in shots:
        yield shot, detector.process(shot.picture, DetectRequest(stream_id, shot.time_s, settings=settings))


def answer(shot: Shot, outcome: Outcome) -> Answer:
    """Return what `outcome` said of `shot`."""
    theirs = is_theirs(corners(outcome.detections), shot.truth)
    extra = len(theirs) - int(theirs.sum())
    return Answer(shot.time_s, shot.truth, bool(theirs.any()), extra, len(outcome.known.vanished))


def is_theirs(boxes: Boxes, truth: Truth) -> np.ndarray:
    """Tell for each of `boxes` (N, 4) whether (N,) it is the person's: it overlaps the box of what is visible by
    `SAME_IOU`, or has its centre inside.
    """
    if truth.box is None:
        return np.zeros(len(boxes), bool)
    person = np.array(truth.box, np.float64)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((middle >= person[:2]) & (middle <= person[2:])).all(axis=1)
    return np.asarray(inside | (overlaps(boxes, person[None])[:, 0] >= SAME_IOU))


def judge(answers: Sequence[Answer], vanish_s: float) -> Verdict:
    """Return what `answers`, in their order, amount to; nobody is to be missed later than `vanish_s` after they were
    found last.
    """
    lying = [number for number, one in enumerate(answers) if one.truth.phase == "lying"]
    said = [one.found or one.vanished > 0 for one in answers]
    late = _late(answers, vanish_s)
    silences = _stretches(answers, [not one.found for one in answers])
    silence = max(silences, key=_length, default=(0.0, 0.0))
    found_s = [answers[number].time_s for number in lying if answers[number].found]
    began_s = answers[lying[0]].time_s if lying else 0.0
    missed_s = [one.time_s for one in answers if one.vanished and silence[0] <= one.time_s < silence[1]]
    quiet = [not spoke and not over for spoke, over in zip(said, late, strict=True)]
    return Verdict(
        results=len(answers),
        lying_s=sum(_length(stretch) for stretch in _stretches(answers, [True] * len(answers))),
        first_s=found_s[0] - began_s if found_s else None,
        silence_s=_length(silence),
        nobody_s=max(map(_length, _stretches(answers, quiet)), default=0.0),
        neither=sum(is_quiet for is_quiet, here in zip(quiet, _known(answers), strict=True) if here),
        vanished_after_s=missed_s[0] - silence[0] if missed_s else None,
        vanished_s=max(map(_length, _stretches(answers, [one.vanished > 0 for one in answers])), default=0.0),
        left_vanished=sum(one.vanished > 0 for one in _after_leaving(answers)),
        both=sum(one.found and one.vanished > 0 for one in answers),
        extra=sum(one.extra for one in answers),
    )


def reported_soon(answers: Sequence[Answer], time_s: float) -> bool:
    """Tell whether a result from `time_s` on has the person within `SOON_S`."""
    return any(one.found for one in answers if time_s <= one.time_s <= time_s + SOON_S + 1e-9)


def _stretches(answers: Sequence[Answer], which: Sequence[bool]) -> list[tuple[float, float]]:
    """Return begin and end of every time, while the person lies, in which all results are of `which`: from the first of
    them to the next result that is not, or that is no longer of somebody who lies.
    """
    found: list[tuple[float, float]] = []
    begin_s: float | None = None
    for one, belongs in zip(answers, which, strict=True):
        if belongs and one.truth.phase == "lying":
            begin_s = one.time_s if begin_s is None else begin_s
        elif begin_s is not None:
            found.append((begin_s, one.time_s))
            begin_s = None
    if begin_s is not None:
        found.append((begin_s, answers[-1].time_s))
    return found


def _length(stretch: tuple[float, float]) -> float:
    return stretch[1] - stretch[0]


def _late(answers: Sequence[Answer], vanish_s: float) -> list[bool]:
    """Tell of each result whether it comes later than `vanish_s` after the person was found last."""
    last_s = -np.inf
    late = []
    for one in answers:
        last_s = one.time_s if one.found else last_s
        late.append(bool(np.isfinite(last_s)) and one.time_s - last_s > vanish_s)
    return late


def _known(answers: Sequence[Answer]) -> list[bool]:
    """Tell of each result whether somebody is there who was found before, and has not left nor is about to."""
    found, known = False, []
    for one in answers:
        found = found or one.found
        there = one.truth.phase in {"falling", "lying", "rising"} or one.truth.visible >= THERE
        known.append(found and there)
    return known


def _after_leaving(answers: Sequence[Answer]) -> list[Answer]:
    """Return the results after the last in which anything of the person is visible, where they left."""
    last = max((number for number, one in enumerate(answers) if one.truth.phase != "gone"), default=-1)
    return list(answers[last + 1 :])
