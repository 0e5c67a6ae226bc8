"""Models change everywhere or nowhere, whatever the workers do and in whatever order."""

import random

import pytest

from orion.messages import DetectorInfo, SessionInfo
from orion.swap import Loaded, Swap


def loaded(digest: str = "a") -> Loaded:
    session = SessionInfo("model.onnx", digest, 640, "cpu", 1.0, 1.0)
    return Loaded(DetectorInfo("yolo11n", "n", (session,), 1.0), 5.0)


def begun(*workers: str) -> Swap:
    swap = Swap()
    for worker in workers:
        swap.asked(worker)
    return swap


def test_all_commit_once_all_have_loaded() -> None:
    swap = begun("w0", "w1")
    swap.prepared("w0", loaded())
    assert swap.owing == {"w1"}
    swap.prepared("w1", loaded())
    assert swap.owing == {"w0", "w1"}
    swap.committed("w1")
    assert swap.owing == {"w0"}
    swap.committed("w0")
    assert swap.over
    assert not swap.reason


def test_one_that_cannot_stops_all() -> None:
    swap = begun("w0", "w1")
    swap.prepared("w0", loaded())
    swap.failed("w1", "no such file")
    assert (swap.phase, swap.reason) == ("aborted", "w1: no such file")
    swap.prepared("w1", loaded())
    assert swap.phase == "aborted"


@pytest.mark.parametrize("has_loaded", [False, True])
def test_one_that_dies_before_the_commit_stops_all(has_loaded: bool) -> None:
    swap = begun("w0", "w1")
    if has_loaded:
        swap.prepared("w0", loaded())
    swap.ended("w0", "was killed by signal 9")
    assert (swap.phase, swap.reason) == ("aborted", "w0 was killed by signal 9 while it prepared")


def test_one_that_dies_in_the_commit_does_not_hold_it_up() -> None:
    swap = begun("w0", "w1")
    swap.prepared("w0", loaded())
    swap.prepared("w1", loaded())
    swap.ended("w0", "hung")
    swap.committed("w1")
    assert swap.phase == "committed"


def test_one_that_starts_is_waited_for_unless_it_dies() -> None:
    swap = begun("w0")
    swap.starting("w1")
    swap.prepared("w0", loaded())
    assert swap.owing == {"w1"}
    swap.asked("w1")
    swap.prepared("w1", loaded())
    assert swap.phase == "committing"
    other = begun("w0")
    other.starting("w1")
    other.prepared("w0", loaded())
    other.ended("w1", "ended with code 1")
    assert other.phase == "committing"


def test_files_that_change_between_two_workers_stop_all() -> None:
    swap = begun("w0", "w1")
    swap.prepared("w0", loaded("a"))
    swap.prepared("w1", loaded("b"))
    assert swap.phase == "aborted"
    assert "different files" in swap.reason


def test_a_deadline_stops_it_only_before_the_commit() -> None:
    swap = begun("w0")
    swap.abort("too late")
    assert (swap.phase, swap.owing) == ("aborted", frozenset())
    late = begun("w0")
    late.prepared("w0", loaded())
    late.abort("too late")
    assert late.phase == "committing"


def test_nobody_can_be_left_behind() -> None:
    """Any order of anything: once it commits, every worker that lives has loaded; after an end nothing changes."""
    for seed in range(3000):
        chance = random.Random(seed)
        workers = [f"w{number}" for number in range(chance.randint(1, 4))]
        swap = begun(*workers)
        alive = set(workers)
        ended: str | None = None
        for _ in range(30):
            worker = chance.choice(workers)
            match chance.choices(("prepared", "committed", "ended", "failed"), (16, 8, 1, 1))[0]:
                case "prepared":
                    swap.prepared(worker, loaded())
                case "committed" if swap.phase == "committing":
                    swap.committed(worker)
                case "ended":
                    swap.ended(worker, "died")
                    alive.discard(worker)
                case "failed":
                    swap.failed(worker, "cannot")
            if swap.phase in {"committing", "committed"}:
                assert alive <= swap.loaded.keys()
            if ended is not None:
                assert swap.phase == ended
            ended = swap.phase if swap.over else None
