"""Frames and the steps of loading a pair take turns; real threads, a clock that is handed in."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from workers.turns import OVERDUE_S, PASSED_OVER, PASSED_OVER_S, ROOM_S, Turns

LIMIT_S = 10.0
PERIOD_S = 0.2
"""On the clock that is handed in; a waiting step looks at that again after so much real time."""


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Runner:
    """Enters a context in a thread of its own, and leaves it when told."""

    def __init__(self, turn: Callable[[], AbstractContextManager[None]]) -> None:
        self._turn = turn
        self.inside = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._turn():
            self.inside.set()
            assert self._leave.wait(LIMIT_S)

    def is_held_back(self) -> bool:
        """Return whether it has not got its turn after a while."""
        return not self.inside.wait(0.05)

    def end(self) -> None:
        """Leave the context."""
        assert self.inside.wait(LIMIT_S)
        self._leave.set()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()


def streaming(clock: Clock) -> Turns:
    """Return turns that have just answered the last of a few frames that came one period after another."""
    turns = Turns(clock)
    for _ in range(5):
        clock.now_s += PERIOD_S
        with turns:
            pass
    return turns


def waiting_step(turns: Turns, clock: Clock, after_s: float) -> Runner:
    """Return a step that was asked for so long after the last frame, and waits."""
    clock.now_s += after_s
    step = Runner(turns.step)
    assert step.is_held_back()
    return step


def test_without_frames_each_step_is_made_at_once() -> None:
    turns = Turns(Clock())
    for _ in range(3):
        with turns.step():
            pass


def test_a_frame_waits_for_the_step_that_is_being_made_and_the_next_step_for_the_frame() -> None:
    clock = Clock()
    turns = Turns(clock)
    step = Runner(turns.step)
    assert step.inside.wait(LIMIT_S)
    frame = Runner(lambda: turns)
    assert frame.is_held_back()
    following = Runner(turns.step)
    step.end()
    assert frame.inside.wait(LIMIT_S)
    clock.now_s += OVERDUE_S
    assert following.is_held_back()
    frame.end()
    following.end()


def test_a_frame_does_not_wait_for_the_end_of_a_long_step() -> None:
    turns = Turns(Clock())
    step = Runner(turns.step)
    assert step.inside.wait(LIMIT_S)
    Runner(lambda: turns).end()
    step.end()


def test_steps_are_made_while_there_is_room_before_the_next_frame() -> None:
    clock = Clock()
    turns = streaming(clock)
    for _ in range(2):
        with turns.step():
            pass
    step = waiting_step(turns, clock, PERIOD_S - ROOM_S / 2)
    clock.now_s += ROOM_S
    frame = Runner(lambda: turns)
    assert frame.inside.wait(LIMIT_S)
    assert step.is_held_back()
    frame.end()
    step.end()


def test_a_frame_that_is_overdue_is_waited_for_no_longer() -> None:
    clock = Clock()
    turns = streaming(clock)
    step = waiting_step(turns, clock, PERIOD_S)
    clock.now_s += OVERDUE_S
    step.end()


def test_where_frames_leave_no_room_a_step_is_made_after_a_few() -> None:
    clock = Clock()
    turns = streaming(clock)
    step = waiting_step(turns, clock, PERIOD_S - ROOM_S / 2)
    for _ in range(PASSED_OVER):
        assert step.is_held_back()
        clock.now_s += ROOM_S
        with turns:
            clock.now_s += PERIOD_S - ROOM_S / 2
    step.end()


def test_long_frames_are_not_passed_over_one_after_the_other() -> None:
    clock = Clock()
    turns = streaming(clock)
    step = waiting_step(turns, clock, PERIOD_S)
    with turns:
        clock.now_s += PASSED_OVER_S
    step.end()


def test_a_frame_that_fails_gives_its_turn_back() -> None:
    clock = Clock()
    turns = streaming(clock)
    clock.now_s += PERIOD_S
    with pytest.raises(ZeroDivisionError), turns:
        _ = 1 / 0
    Runner(turns.step).end()
