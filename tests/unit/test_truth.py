"""How what Orion says is judged against what is true, on made-up results; and that the clips tell the truth."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report import Row
from benchmarks.truth import LIES_FROM, Findings, Person, Said, bars, collapse, demo, judge, row_of
from orion.messages import VanishedPerson

HERE, THERE = (100.0, 100.0, 150.0, 250.0), (300.0, 100.0, 350.0, 250.0)
GONE = VanishedPerson(300, 100, 50, 150, 0.0)


def person(who: int = 0, box: tuple[float, float, float, float] | None = HERE, *, in_view: bool = True) -> Person:
    return Person(who, box, in_view)


def results(*parts: tuple[Sequence[Person], Sequence[tuple[float, ...]], Sequence[VanishedPerson]]) -> list[Said]:
    """Return results a tenth of a second apart: who is there, the boxes, and who vanished."""
    return [
        Said(number / 10, tuple(people), np.array(boxes, np.float64).reshape(-1, 4), tuple(vanished))
        for number, (people, boxes, vanished) in enumerate(parts)
    ]


def test_a_box_finds_one_person_and_what_overlaps_nobody_is_extra() -> None:
    both = [person(0), person(1, THERE)]
    found = judge(results((both, [HERE, HERE], []), (both, [HERE, THERE], []), ([], [HERE], [])))
    assert (found.results, found.people, found.found, found.extra) == (3, 4, 3, 2)


def test_who_is_hardly_in_view_need_not_be_found_and_may_be() -> None:
    coming = [person(in_view=False)]
    found = judge(results((coming, [], []), (coming, [HERE], [])))
    assert found == Findings(2, 0, 0, 0, 0.0, 0.0, 0, 0, 0)


def test_where_only_presence_is_known_no_box_is_counted() -> None:
    somewhere = [person(box=None)]
    found = judge(results((somewhere, [THERE], []), (somewhere, [], []), (somewhere, [HERE], [])))
    assert (found.people, found.found, found.extra, found.neither) == (0, 0, 0, 1)
    assert found.silence_s == pytest.approx(0.1)


def test_a_silence_ends_with_a_box_or_who_leaves_and_saying_nobody_with_somebody_vanished_too() -> None:
    here = [person()]
    said = results(
        (here, [], []),
        (here, [], []),
        (here, [], [GONE]),
        (here, [], []),
        (here, [HERE], []),
        (here, [], []),
        ([], [], []),
    )
    found = judge(said)
    assert (found.silence_s, found.nobody_s, found.neither) == (0.4, 0.2, 4)
    later = judge(said, begins=3, settled=5)
    assert (later.silence_s, later.nobody_s, later.neither) == (0.1, 0.1, 1)
    assert judge(said[:2]).silence_s == 0.1


def test_who_is_said_to_have_vanished_is_counted_once() -> None:
    found = judge(results(*[([person()], [], [GONE])] * 3))
    assert (found.vanished, found.false_vanished, found.neither) == (1, 0, 0)


@pytest.mark.parametrize(
    ("people", "boxes"),
    [
        pytest.param([], [], id="nobody there"),
        pytest.param([person()], [HERE], id="everybody found"),
        pytest.param([person(), person(1, THERE, in_view=False)], [HERE], id="half over the edge"),
        pytest.param([person(box=None)], [THERE], id="found somewhere"),
    ],
)
def test_an_entry_is_false_where_nobody_in_view_lacks_a_box(
    people: list[Person], boxes: list[tuple[float, ...]]
) -> None:
    found = judge(results((people, boxes, [GONE]), *[(people, boxes, [GONE])] * 9))
    assert (found.vanished, found.false_vanished) == (1, 1)


def test_an_entry_of_somebody_about_to_leave_is_false_and_of_somebody_who_stays_is_not() -> None:
    lost: tuple[list[Person], list[tuple[float, ...]], list[VanishedPerson]] = ([person(1, THERE)], [], [GONE])
    nobody: tuple[list[Person], list[tuple[float, ...]], list[VanishedPerson]] = ([], [], [GONE])
    assert judge(results(*[lost] * 3, *[nobody] * 9)).false_vanished == 1
    assert judge(results(*[lost] * 6, *[nobody] * 9)).false_vanished == 0


def test_the_collapse_is_held_to_more_than_the_other_clips() -> None:
    def row(name: str, **figures: float) -> Row:
        return row_of(name, "on", Findings(300, 12, 12, 0, 0.0, 0.0, 0, 0, 0)) | figures

    assert all(bar.met for bar in bars([row("collapse"), row("demo scene")]))
    for name, bad in (("nobody_s", 1.1), ("false_vanished", 1), ("neither", 1)):
        assert sum(not bar.met for bar in bars([row("collapse", **{name: bad})])) == 1
    assert all(bar.met for bar in bars([row("demo scene", neither=1)]))
    assert bars([row("collapse", neither=1) | {"attention": "off"}]) == []


def test_the_demo_scene_tells_who_is_in_view() -> None:
    views = list(islice(demo().views(), 120))
    counts = [sum(one.in_view for one in view.people) for view in views]
    assert set(counts) == {0, 1, 2}
    entering = next(view for view in views if view.people)
    assert not entering.people[0].in_view
    assert all(one.box is not None and 0 <= one.box[0] < one.box[2] <= 768 for view in views for one in view.people)


def test_somebody_is_there_all_through_the_collapse(testdata: Path) -> None:
    clip = collapse(testdata)
    views = list(clip.views())
    assert len(views) == 300
    assert all(len(view.people) == 1 for view in views)
    boxes = {number: box for number, view in enumerate(views) if (box := view.people[0].box) is not None}
    assert len(boxes) == 12
    upright = {number for number, (x1, y1, x2, y2) in boxes.items() if y2 - y1 > 2 * (x2 - x1)}
    assert upright == {number for number in boxes if number < LIES_FROM}
    assert clip.settled == LIES_FROM
