"""What the supervisor keeps of who is known: who gets it, when it is dropped, since when somebody is gone."""

import logging
from typing import Any

import pytest
from msgspec.structs import replace

from orion.known import ATTEMPTS, Handed, KnownOnStream
from orion.ledger import Frame
from orion.messages import Known, KnownPerson, LearnedExit, Search, VanishedPerson

WALL_NS = 1_700_000_000_000_000_000
GONE = VanishedPerson(10, 20, 30, 40, 99.0)
SOMEBODY = KnownPerson(50, 20, 30, 60, 4, 2)
NOTHING = Handed(None, anew=False)


def frame(time_s: float = 100.0, **changes: Any) -> Frame:
    """Return a frame of the stream's second `time_s`; the wall clock runs as it does."""
    wall_ns = WALL_NS + round(time_s * 1e9)
    return replace(Frame(0, 0, 320, 240, 0, wall_ns, time_s, continuous=True), **changes)


def known(time_s: float = 100.0, *gone: VanishedPerson) -> Known:
    return Known(time_s, (SOMEBODY,), tuple(Search(one, 0, time_s) for one in gone))


def answer(stream: KnownOnStream, said: Known, process: str = "w0.0", **changes: Any) -> Handed:
    """Hand a frame out and take its answer; return what went with it."""
    one = frame(said.time_s, **changes)
    handed = stream.hand_out(process, one)
    stream.take(said, process, one)
    return handed


def test_only_another_process_gets_what_was_known_and_only_with_its_first_frame() -> None:
    stream = KnownOnStream()
    assert answer(stream, known(1.0)) == NOTHING
    assert answer(stream, known(2.0)) == NOTHING
    assert answer(stream, known(3.0), "w0.1") == Handed(known(2.0), anew=False)
    assert answer(stream, known(4.0), "w0.1") == NOTHING
    assert answer(stream, known(5.0), "w1.0") == Handed(known(4.0), anew=False)


def test_a_process_that_dies_of_the_first_frame_leaves_it_to_the_next() -> None:
    stream = KnownOnStream()
    answer(stream, known())
    assert [stream.hand_out(process, frame()).known for process in ("w0.1", "w0.1", "w0.2")] == [known()] * 3


def test_what_frames_fail_of_again_and_again_is_held_back(caplog: pytest.LogCaptureFixture) -> None:
    stream = KnownOnStream()
    answer(stream, known())
    with caplog.at_level(logging.WARNING):
        handed = [stream.hand_out("w0.1", frame()).known for _ in range(ATTEMPTS + 3)]
    assert handed == [known()] * ATTEMPTS + [None] * 3
    assert len(caplog.messages) == 1
    answer(stream, known(), "w0.1")
    assert stream.hand_out("w0.2", frame()).known == known(), "an answer ends it"


def test_a_process_that_was_told_to_forget_gets_it_back() -> None:
    stream = KnownOnStream()
    stream.let_go()
    answer(stream, known())
    stream.let_go()
    assert answer(stream, known()) == Handed(known(), anew=False)
    assert answer(stream, known()) == NOTHING


@pytest.mark.parametrize(
    ("said", "goes_along"),
    [
        (Known(5.0), False),
        (Known(5.0, people=(SOMEBODY,)), True),
        (Known(5.0, searches=(Search(GONE, 0, 5.0),)), True),
        (Known(5.0, exits=(LearnedExit(0.5, 0.5, 1, 0),)), True),
    ],
)
def test_nobody_is_not_worth_a_word(said: Known, goes_along: bool) -> None:
    stream = KnownOnStream()
    answer(stream, said)
    assert stream.hand_out("w0.1", frame()).known == (said if goes_along else None)


@pytest.mark.parametrize("size", [{"width": 640}, {"height": 480}])
def test_another_size_of_pictures_drops_it(size: dict[str, int]) -> None:
    stream = KnownOnStream()
    answer(stream, known(100.0, GONE))
    assert answer(stream, known(101.0), "w0.1", **size) == NOTHING
    assert stream.hand_out("w0.2", frame(**size)).known == known(101.0), "the new size is kept"


def test_an_answer_that_was_under_way_brings_nothing_back() -> None:
    stream = KnownOnStream()
    answer(stream, known(100.0, GONE))
    out = frame(101.0)
    stream.hand_out("w0.0", out)
    stream.drop()
    stream.take(known(101.0, GONE), "w0.0", out)
    assert (stream.vanished, stream.due()) == ((), [])
    assert stream.since_ns == {GONE: WALL_NS + 99 * 10**9}, "its result still tells of it"
    assert stream.hand_out("w0.1", frame()) == NOTHING
    stream.take(known(102.0), "w0.1", frame())
    assert stream.hand_out("w0.2", frame()).known == known(102.0)


def test_another_source_is_met_anew_and_frames_of_the_old_one_bring_nothing_back() -> None:
    stream = KnownOnStream()
    answer(stream, known(100.0, GONE))
    stream.hand_out("w0.0", frame(101.0))
    stream.expect(1)
    stream.take(known(101.0, GONE), "w0.0", frame(101.0))
    # The picture that was read meanwhile is of the old source, too.
    assert answer(stream, known(102.0, GONE)) == NOTHING
    assert (stream.vanished, stream.due()) == ((), [])
    assert answer(stream, known(5.0), source=1) == Handed(None, anew=True)
    assert answer(stream, known(6.0), source=1) == NOTHING
    assert stream.hand_out("w0.1", frame(source=1)) == Handed(known(6.0), anew=False)


def test_the_clock_of_another_source_may_begin_where_that_of_the_one_before_did() -> None:
    stream = KnownOnStream()
    answer(stream, known(100.0, GONE))
    assert stream.due() == [GONE]
    stream.expect(1)
    later_ns = frame(100.0).captured_wall_ns + 60 * 10**9
    answer(stream, known(100.0, GONE), source=1, captured_wall_ns=later_ns)
    assert dict(stream.since_ns) == {GONE: later_ns - 10**9}
    assert stream.due() == [GONE]


def test_of_two_changes_of_the_source_the_last_one_counts() -> None:
    stream = KnownOnStream()
    stream.expect(1)
    assert answer(stream, known(), source=1).anew
    stream.expect(2)
    answer(stream, known(101.0, GONE), source=1)
    assert stream.vanished == ()
    assert answer(stream, known(5.0), source=2).anew


def test_the_time_is_that_of_the_first_word_whatever_the_clocks_do() -> None:
    stream = KnownOnStream()
    answer(stream, known(100.0, GONE))
    assert dict(stream.since_ns) == {GONE: WALL_NS + 99 * 10**9}
    later = VanishedPerson(1, 2, 3, 4, 100.5)
    answer(stream, known(101.0, GONE, later), "w1.0", captured_wall_ns=5 * 10**9)
    assert dict(stream.since_ns) == {GONE: WALL_NS + 99 * 10**9, later: 4_500_000_000}
    answer(stream, known(102.0, later))
    assert dict(stream.since_ns) == {later: 4_500_000_000}


@pytest.mark.parametrize(("since_s", "before_s"), [(1e300, 0), (-1e300, 86_400), (100.0, 0), (101.0, 0)])
def test_a_time_that_cannot_be_is_bounded(since_s: float, before_s: int) -> None:
    stream = KnownOnStream()
    answer(stream, known(100.0, replace(GONE, since_s=since_s)))
    assert [*stream.since_ns.values()] == [frame(100.0).captured_wall_ns - before_s * 10**9]


def test_who_is_gone_for_a_second_is_told_once_across_processes() -> None:
    stream = KnownOnStream()
    other = replace(GONE, x=90, since_s=100.5)
    told = []
    for time_s, process in ((99.5, "w0.0"), (99.9, "w0.0"), (100.0, "w0.0"), (100.4, "w0.1"), (101.5, "w0.1")):
        answer(stream, known(time_s, GONE, *([other] if time_s > 100 else [])), process)
        told.append(stream.due())
    assert told == [[], [], [GONE], [], [other]]
    answer(stream, known(102.0))
    answer(stream, known(103.0, GONE))
    assert stream.due() == [GONE], "of whom nothing is known, nothing is remembered"
