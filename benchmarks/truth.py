"""What Orion says of clips against what is true in them, with attention on and off: a person who collapses, as a human
sees it, the demo scene, which knows where its figures are, and a handful of made falls. Somebody is found by a box that
overlaps the true one by `SAME_IOU`; said nobody is said by a result with neither a box nor somebody vanished. Pure but
for `play`, which runs the detector in the main thread of the benchmark or a test.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.cutouts import load_room
from benchmarks.fall_judge import SAME_IOU, SOON_S, THERE
from benchmarks.fall_trial import COST_RATIO
from benchmarks.fall_variants import HANDFUL, Variant, variant
from benchmarks.footage import frames
from benchmarks.made_falls import Truth
from benchmarks.made_falls import frames as fall_frames
from benchmarks.report import Bar, Row
from orion.demo import DemoFormat
from orion.messages import AttentionSettings, DetectRequest, Pixels, VanishedPerson
from orion.scene import CYCLE_S, DemoScene
from workers.boxes import Boxes, corners, overlaps, pair_up
from workers.person import PersonDetector

SETTINGS = {"on": AttentionSettings(cost_ratio=COST_RATIO), "off": AttentionSettings(mode="off")}
COLLAPSE = "collapse"
FALLS_FROM, LIES_FROM = 200, 217
"""Frames of the collapse in which they begin to sink down, and from which they lie."""
DEMO = DemoFormat(768, 432, 5.0)
_LEAST_BREADTH = 0.2
"""At the edge a figure is in view from this width on, in its height: about half of the body."""
_LEAVES_S = 0.5
"""Who is out of view so soon was leaving over the edge."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of whom something is visible, and its box (x1, y1, x2, y2) in pixels; None where only that is known."""

    who: int
    box: tuple[float, float, float, float] | None
    in_view: bool = True
    """Enough of them is visible to be found; who comes or goes over the edge need not be, and may be."""


@dataclass(frozen=True, slots=True)
class View:
    """One frame: the time of the stream in seconds, the picture (H, W, 3) uint8 BGR, and who is there."""

    time_s: float
    picture: Pixels
    people: tuple[Person, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames with their truth. How long nobody was reported is counted from frame `begins` on, and which results lack
    them altogether from frame `settled` on.
    """

    name: str
    views: Callable[[], Iterator[View]]
    begins: int = 0
    settled: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What one result said, and who was there: boxes (N, 4) corners in pixels, and who is looked for."""

    time_s: float
    people: tuple[Person, ...]
    boxes: Boxes
    vanished: tuple[VanishedPerson, ...]

    @property
    def somebody(self) -> bool:
        """Whether anybody was in view."""
        return any(person.in_view for person in self.people)

    @property
    def nobody_said(self) -> bool:
        """Whether the result has neither a box nor somebody vanished."""
        return len(self.boxes) == 0 and not self.vanished

    @property
    def judgeable(self) -> bool:
        """Whether it is known where everybody was."""
        return all(person.box is not None for person in self.people)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the results of a clip amount to."""

    results: int
    people: int
    """True boxes of who is in view, over all frames."""
    found: int
    extra: int
    """Boxes that are nobody's, where it is known where everybody is."""
    silence_s: float
    """Longest time without a box while somebody was there."""
    nobody_s: float
    """Longest time with neither a box nor somebody vanished while somebody was there."""
    neither: int
    """Results that say neither while somebody was there."""
    vanished: int
    """People who were said to have vanished."""
    false_vanished: int
    """Those of them at whose vanishing nobody lacked a box who was in view and not about to leave it."""


def play(detector: PersonDetector, clip: Clip, settings: AttentionSettings, limit: int | None = None) -> list[Said]:
    """Return what `detector` says of every frame of `clip`, or of the first `limit` of them."""
    said = []
    for view in islice(clip.views(), limit):
        outcome = detector.process(view.picture, DetectRequest(clip.name, view.time_s, settings=settings))
        said.append(Said(view.time_s, view.people, corners(outcome.detections), outcome.known.vanished))
    detector.forget(clip.name)
    return said


def judge(said: Sequence[Said], begins: int = 0, settled: int = 0) -> Findings:
    """Return what the results amount to; times are counted from result `begins` on, `neither` from `settled` on."""
    found = [_found(one) for one in said]
    new = _newly_vanished(said)
    in_view = [{person.who for person in one.people if person.in_view and person.box} for one in said]
    return Findings(
        results=len(said),
        people=sum(map(len, in_view)),
        found=sum(len(who & there) for who, there in zip(found, in_view, strict=True)),
        extra=sum(len(one.boxes) - len(who) for one, who in zip(said, found, strict=True) if one.judgeable),
        silence_s=_longest(said[begins:], lambda one: len(one.boxes) == 0),
        nobody_s=_longest(said[begins:], lambda one: one.nobody_said),
        neither=sum(one.nobody_said and one.somebody for one in said[settled:]),
        vanished=len(new),
        false_vanished=sum(not _lacks_somebody(said[at:], found[at]) for at in new),
    )


def _found(one: Said) -> set[int]:
    """Return who has a box, one to one; somebody of whom only that they are there is known has any."""
    known = [person for person in one.people if person.box is not None]
    true = np.array([person.box for person in known], np.float64).reshape(-1, 4)
    found = {known[place].who for place, _ in pair_up(overlaps(true, one.boxes), SAME_IOU)}
    return found | {person.who for person in one.people if person.box is None and len(one.boxes)}


def _longest(said: Sequence[Said], which: Callable[[Said], bool]) -> float:
    """Return the longest time, while somebody is in view, in which all results are of `which`: from the first of them
    to the next that is not, or in which nobody is.
    """
    longest, begin_s = 0.0, None
    for one in said:
        if begin_s is not None:
            longest = max(longest, one.time_s - begin_s)
        if not (which(one) and one.somebody):
            begin_s = None
        elif begin_s is None:
            begin_s = one.time_s
    return round(longest, 3)


def _newly_vanished(said: Sequence[Said]) -> list[int]:
    """Return for everybody who vanished the place of the first result that says so."""
    known: set[VanishedPerson] = set()
    places = []
    for at, one in enumerate(said):
        new = set(one.vanished) - known
        places += [at] * len(new)
        known |= new
    return places


def _lacks_somebody(said: Sequence[Said], found: set[int]) -> bool:
    """Tell whether the first result has no box of somebody who is in view, and still is `_LEAVES_S` later."""
    first, end_s = said[0], said[0].time_s + _LEAVES_S
    later = next((one for one in said if one.time_s >= end_s), said[-1])
    there, staying = ({person.who for person in one.people if person.in_view} for one in (first, later))
    return bool(there & staying - found)


def collapse(testdata: Path) -> Clip:
    """Return the clip of a person who collapses and stays in view; of some frames a human says where they are."""
    boxes: dict[int, tuple[float, float, float, float]] = {}
    for number, people in json.loads((testdata / "care" / "collapse.people.json").read_text())["people"].items():
        ((x, y, width, height, _),) = people
        boxes[int(number)] = (x, y, x + width, y + height)

    def views() -> Iterator[View]:
        for number, time_s, picture in frames(testdata / "care" / "collapse.mp4"):
            yield View(time_s, picture, (Person(0, boxes.get(number)),))

    return Clip(COLLAPSE, views, FALLS_FROM, LIES_FROM)


def demo() -> Clip:
    """Return one cycle of the demo scene."""

    def views() -> Iterator[View]:
        scene = DemoScene(DEMO)
        for number in range(round(CYCLE_S * DEMO.fps)):
            picture = np.empty((DEMO.height, DEMO.width, 3), np.uint8)
            scene.render(number, picture)
            there = [(one.visit, one.xywh) for one in scene.figures(number)]
            people = [
                Person(visit, (x, y, x + width, y + height), in_view=width >= _LEAST_BREADTH * height)
                for visit, (x, y, width, height) in there
            ]
            yield View(number / DEMO.fps, picture, tuple(people))

    return Clip("demo scene", views)


def made_fall(testdata: Path, made: Variant) -> Clip:
    """Return a made fall."""

    def views() -> Iterator[View]:
        for shot in fall_frames(load_room(testdata), made):
            yield View(shot.time_s, shot.picture, _who_falls(shot.truth))

    return Clip(f"made fall {made.seed}, {made.kind} to the {made.direction}", views)


def _who_falls(truth: Truth) -> tuple[Person, ...]:
    """Return who is in a frame of a made fall; of who comes or goes over the edge less than `THERE` is visible."""
    if truth.box is None:
        return ()
    return (Person(0, truth.box, in_view=truth.phase != "up" or truth.visible >= THERE),)


def clips(testdata: Path) -> list[Clip]:
    """Return all clips of which the truth is known."""
    return [collapse(testdata), demo(), *map(partial(made_fall, testdata), map(variant, HANDFUL))]


def measure(detector: PersonDetector, testdata: Path, limit: int | None) -> list[Row]:
    """Return a row for every clip with attention on and off."""
    rows = []
    for clip in clips(testdata):
        for attention, settings in SETTINGS.items():
            found = judge(play(detector, clip, settings, limit), clip.begins, clip.settled)
            rows.append(row_of(clip.name, attention, found))
    return rows


def row_of(name: str, attention: str, found: Findings) -> Row:
    """Return a clip's row of the report."""
    return {
        "what": f"{name}, by truth",
        "attention": attention,
        "results": found.results,
        "true_boxes": found.people,
        "found_share": round(found.found / max(found.people, 1), 4),
        "extra": found.extra,
        "silence_s": found.silence_s,
        "nobody_s": found.nobody_s,
        "neither": found.neither,
        "vanished": found.vanished,
        "false_vanished": found.false_vanished,
    }


def bars(rows: Sequence[Row]) -> list[Bar]:
    """Return what results with attention on are held to, as limits from above."""
    found = []
    for row in (row for row in rows if row.get("attention") == "on"):
        found.append(Bar(f"{row['what']}: longest time that said nobody, s", row["nobody_s"], SOON_S))
        found.append(Bar(f"{row['what']}: false entries of vanished", row["false_vanished"], 0))
        if row["what"].startswith(COLLAPSE):
            found.append(Bar(f"{row['what']}: results that say neither", row["neither"], 0))
    return found
