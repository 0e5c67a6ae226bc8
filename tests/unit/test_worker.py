"""What a worker does between frames, with the test at the supervisor's end of its socket."""

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from benchmarks.fixed import FixedDetector
from orion.messages import Blind, DetectorInfo, DetectRequest, Forget, Outcome, Pixels
from orion.wire import Channel
from orion.worker import Worker
from tests.detectors import INFO, OUTCOME


class Asked(FixedDetector):
    """Tells what it was asked, in order; its self-test is due when the test says."""

    info: DetectorInfo = INFO

    def __init__(self, wait_s: float, fault: str | None = None) -> None:
        self.asked: list[str] = []
        self.self_test_wait_s = wait_s
        self._fault = fault

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        return OUTCOME

    def forget(self, stream_id: str) -> None:
        self.asked.append(f"forget {stream_id}")

    def self_test(self) -> str | None:  # type: ignore[override]
        self.asked.append("test")
        return self._fault


@contextmanager
def running(detector: Asked) -> Iterator[tuple[Worker, Channel]]:
    ours, theirs = Channel.pair()
    worker, supervisor = Worker(Channel(theirs, blocking=True), detector), Channel(ours, blocking=False)
    with closing(worker), closing(supervisor):
        yield worker, supervisor


@pytest.mark.parametrize(
    ("wait_s", "asked"),
    [
        (math.inf, ["forget a", "forget b"]),
        (3600.0, ["forget a", "forget b"]),
        (0.0, ["forget a", "forget b", "test"]),
        (-5.0, ["forget a", "forget b", "test"]),
        (-11.0, ["test", "test", "test"]),
    ],
)
def test_a_test_gives_way_to_what_waits_but_not_for_ever(wait_s: float, asked: list[str]) -> None:
    detector = Asked(wait_s)
    with running(detector) as (worker, supervisor):
        for stream_id in ("a", "b"):
            assert supervisor.send(Forget(stream_id))
        for _ in asked:
            assert worker.step()
    assert detector.asked == asked


def test_a_worker_that_does_not_see_says_so_and_leaves() -> None:
    detector = Asked(0.0, "640, drawn person: expected 0.913 at (144, 210, 251, 480), found nobody")
    with running(detector) as (worker, supervisor):
        assert not worker.step()
        assert supervisor.receive() == Blind(str(detector._fault))
