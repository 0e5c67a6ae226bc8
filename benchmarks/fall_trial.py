"""One made fall tried: played through a detector with attention on and off, and looked at now and then in every way
that might find who lies. Runs in the main thread of the benchmark or of one of its processes, which owns the sessions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.cutouts import Room
from benchmarks.fall_judge import SOON_S, THERE, Answer, Verdict, answer, judge, play, reported_soon
from benchmarks.fall_looks import Scores, look, score_at
from benchmarks.fall_variants import Variant
from benchmarks.made_falls import Shot, frames
from orion.messages import AttentionSettings, DetectRequest, Outcome
from workers.boxes import Boxes
from workers.pair import SessionPair
from workers.person import PersonDetector
from workers.pipeline import whole_frame

KEEP = 0.3
"""Confidence from which a look finds somebody who is known to be there, and up to which Orion keeps them."""
SURE = 0.5
"""Confidence from which somebody appears."""
_OFF_EVERY_S = 0.2
COST_RATIO = 4.0
"""A 640 inference over a 320 one, given to the planner so that every machine decides alike."""
_ON = AttentionSettings(cost_ratio=COST_RATIO)
_OFF = AttentionSettings(mode="off")
_VANISH_S = _ON.vanish_s or 0.0


@dataclass(frozen=True, slots=True)
class Effort:
    """What the results of a stream took: how many there were, and their inferences in milliseconds and in units of a
    320 one, trials not among those.
    """

    results: int = 0
    inference_ms: float = 0.0
    units: float = 0.0

    def __add__(self, other: "Effort") -> "Effort":
        return Effort(self.results + other.results, self.inference_ms + other.inference_ms, self.units + other.units)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one variant. `looks` and `reported` have an entry for each of these moments of lying: what each look
    scores, and whether attention reported them within `SOON_S`; `upright` has the score of a whole look for each
    before the fall.
    """

    variant: Variant
    on: Verdict
    off: Verdict | None
    looks: tuple[Scores, ...]
    reported: tuple[bool, ...]
    upright: tuple[float, ...]
    effort_on: Effort
    effort_off: Effort

    @property
    def findable(self) -> int:
        """How many of the looks' moments any of them found who lies."""
        return sum(scores.best >= KEEP for scores in self.looks)

    @property
    def missed(self) -> int:
        """How many of those attention did not report within `SOON_S`."""
        return sum(scores.best >= KEEP and not soon for scores, soon in zip(self.looks, self.reported, strict=True))


@dataclass(slots=True)
class _Notes:
    """What is noted while a variant is played."""

    on: list[Answer] = field(default_factory=list)
    off: list[Answer] = field(default_factory=list)
    effort_on: Effort = field(default_factory=Effort)
    effort_off: Effort = field(default_factory=Effort)
    looks: list[tuple[float, Scores]] = field(default_factory=list)
    upright: list[float] = field(default_factory=list)
    standing: Boxes | None = None
    """The last box (4,) in which they stood before the fall."""


def try_variant(
    detector: PersonDetector,
    pair: SessionPair,
    room: Room,
    variant: Variant,
    heights: Sequence[float],
    *,
    off: bool,
    look_every_s: float,
) -> Trial:
    """Play `variant` through `detector`, with attention on and, with `off`, off, and look at it with `pair`, in crops
    of so many `heights`, once in so many seconds.
    """
    notes, stream_id = _Notes(), f"fall {variant.seed}"
    looks_due, off_due = _every(look_every_s), _every(_OFF_EVERY_S)
    for shot, outcome in play(detector, frames(room, variant), stream_id, _ON):
        notes.on.append(answer(shot, outcome))
        notes.effort_on += effort(outcome)
        if off and off_due(shot.time_s):
            whole = detector.process(shot.picture, DetectRequest(f"{stream_id} off", shot.time_s, settings=_OFF))
            notes.off.append(answer(shot, whole))
            notes.effort_off += effort(whole)
        if looks_due(shot.time_s):
            _look(notes, pair, shot, heights)
        _remember(notes, shot)
    for name in (stream_id, f"{stream_id} off"):
        detector.forget(name)
    return _conclude(variant, notes)


def effort(outcome: Outcome) -> Effort:
    """Return what one result took, a 640 counting as `COST_RATIO` of a 320."""
    processing = outcome.roi_processing
    sizes = [crop.model for crop in processing.crops] if processing is not None else []
    if not sizes and outcome.inference != "held":
        sizes = [640]
    return Effort(1, outcome.inference_ms, sum(COST_RATIO if size == 640 else 1.0 for size in sizes))


def _remember(notes: _Notes, shot: Shot) -> None:
    """Note where they stood last before they fell."""
    if shot.truth.phase == "up" and shot.truth.box is not None and not notes.looks:
        notes.standing = np.array(shot.truth.box, np.float64)


def _look(notes: _Notes, pair: SessionPair, shot: Shot, heights: Sequence[float]) -> None:
    truth, picture = shot.truth, shot.picture
    if truth.box is None:
        return
    box = np.array(truth.box, np.float64)
    if truth.phase == "up" and truth.visible >= THERE and not notes.looks:
        notes.upright.append(score_at(pair, picture, whole_frame(picture), 0, box))
    if truth.phase == "lying" and notes.standing is not None:
        notes.looks.append((shot.time_s, look(pair, picture, notes.standing, box, heights)))


def _conclude(variant: Variant, notes: _Notes) -> Trial:
    """Judge what was noted. Looks in the last second of lying are left out: there was no time to report them."""
    last_s = max((one.time_s for one in notes.on if one.truth.phase == "lying"), default=0.0)
    looks = [(time_s, scores) for time_s, scores in notes.looks if time_s + SOON_S <= last_s]
    return Trial(
        variant=variant,
        on=judge(notes.on, _VANISH_S),
        off=judge(notes.off, _VANISH_S) if notes.off else None,
        looks=tuple(scores for _, scores in looks),
        reported=tuple(reported_soon(notes.on, time_s) for time_s, _ in looks),
        upright=tuple(notes.upright),
        effort_on=notes.effort_on,
        effort_off=notes.effort_off,
    )


def _every(period_s: float) -> Callable[[float], bool]:
    """Return what tells whether a time comes so much later than the last for which it said so."""
    last_s = -np.inf

    def due(time_s: float) -> bool:
        nonlocal last_s
        if time_s - last_s < period_s - 1e-9:
            return False
        last_s = time_s
        return True

    return due
