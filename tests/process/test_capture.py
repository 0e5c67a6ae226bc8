"""The capture thread with sources that fail on purpose: what it says of them, and how long it waits."""

import os
from collections.abc import Callable

from orion.backoff import Backoff
from orion.capture import Capture, CaptureEvent, CaptureSettings, StreamLost, StreamOpened
from orion.ledger import Ledger
from orion.messages import Pixels
from orion.ring import Ring
from orion.source import Source, SourceInfo
from tests.instances import until

DELAYS_S = (0.01, 0.02, 0.04, 0.08)
BACKOFF = Backoff(0.01, 2.0, 10.0, 0.0)


class Failing(Source):
    """A camera that delivers as many pictures as `script` says each time it is opened; None: it does not open."""

    kind = "network"

    def __init__(self, script: list[int | None]) -> None:
        super().__init__("rtsp://camera/stream")
        self._script = iter(script)
        self._left = 0

    def open(self) -> SourceInfo:
        left = next(self._script, None)
        if left is None:
            raise self.error("refused")
        self._left = left
        return SourceInfo(32, 16, None, None)

    def read(self, dst: Pixels) -> Pixels | None:
        self.skip()
        return dst

    def skip(self) -> bool:
        if not self._left:
            raise self.error("ended the stream")
        self._left -= 1
        return True

    def close(self) -> None:
        pass


class Posts:
    """Keeps what is posted."""

    def __init__(self) -> None:
        self.all: list[CaptureEvent] = []

    def post(self, item: CaptureEvent) -> None:
        self.all.append(item)

    def wake(self) -> None:
        pass


def posted(script: list[int | None], enough: Callable[[list[CaptureEvent]], bool]) -> list[CaptureEvent]:
    """Run a capture thread until it has posted enough."""
    posts, rings = Posts(), list[Ring]()

    def make_ring(width: int, height: int) -> Ring:
        rings.append(Ring(f"orion.capture.{os.getpid()}.{len(rings)}", width, height, 3))
        return rings[-1]

    capture = Capture("cam0", Failing(script), Ledger(), make_ring, posts, CaptureSettings(backoff=BACKOFF))
    capture.start()
    try:
        until(lambda: enough(posts.all), "posts")
    finally:
        capture.stop()
        assert capture.join(10)
        for ring in rings:
            ring.close()
    return posts.all


def lost(events: list[CaptureEvent]) -> list[StreamLost]:
    return [event for event in events if isinstance(event, StreamLost)]


def test_delays_grow_until_there_is_a_picture_again() -> None:
    events = posted([1, None, None, None, 2, None, None, None], lambda events: len(lost(events)) >= 8)
    delays_s = [event.retry_s for event in lost(events)[:8]]
    assert delays_s == [*DELAYS_S, *DELAYS_S]


def test_what_opens_and_delivers_nothing_is_not_told_as_back() -> None:
    events = posted([1, 0, 0, 1], lambda events: len(lost(events)) >= 5)
    kinds = [("opened", event.again) if isinstance(event, StreamOpened) else "lost" for event in events]
    assert kinds[:6] == [("opened", False), "lost", "lost", "lost", ("opened", True), "lost"]
    delays_s = [event.retry_s for event in lost(events)]
    assert delays_s[:5] == [*DELAYS_S[:3], *DELAYS_S[:2]]
