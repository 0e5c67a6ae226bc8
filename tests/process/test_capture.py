"""The capture thread with sources that fail on purpose: what it says of them, and how long it waits."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from orion.backoff import Backoff
from orion.capture import Capture, CaptureEvent, CaptureSettings, StreamFailed, StreamLost, StreamOpened, StreamResized
from orion.errors import SharedMemoryError
from orion.ledger import Frame, Ledger
from orion.messages import Pixels
from orion.ring import Ring, RingView
from orion.source import Source, SourceInfo
from orion.sources import make_source
from tests.instances import until
from tests.servers import MjpegServer
from tests.videos import jpeg

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


class Faulty(Failing):
    """A camera whose decoder raises what no source should, where its pictures end."""

    def skip(self) -> bool:
        if not self._left:
            raise ValueError("what nobody expects")
        return super().skip()


class Posts:
    """Keeps what is posted."""

    def __init__(self) -> None:
        self.all: list[CaptureEvent] = []

    def post(self, item: CaptureEvent) -> None:
        self.all.append(item)

    def wake(self) -> None:
        pass


class Rings:
    """Makes rings of three slots, after so many `failures`; closing it closes them."""

    def __init__(self, failures: int = 0) -> None:
        self._failures = failures
        self.sizes: dict[str, tuple[int, int]] = {}
        self._stack = ExitStack()

    def make(self, width: int, height: int) -> Ring:
        if self._failures:
            self._failures -= 1
            raise SharedMemoryError("shared memory too small")
        ring = Ring(f"orion.capture.{os.getpid()}.{len(self.sizes)}", width, height, 3)
        self.sizes[ring.name] = (width, height)
        self._stack.callback(ring.close)
        return ring

    def close(self) -> None:
        self._stack.close()


@contextmanager
def capturing(source: Source, ledger: Ledger, memory_failures: int = 0) -> Iterator[tuple[Posts, Rings]]:
    """Run a capture thread until the block ends."""
    posts, rings = Posts(), Rings(memory_failures)
    capture = Capture("cam0", source, ledger, rings.make, posts, CaptureSettings(backoff=BACKOFF))
    capture.play()
    capture.start()
    try:
        yield posts, rings
    finally:
        capture.stop()
        assert capture.join(10)
        rings.close()


def posted(script: list[int | None], enough: Callable[[list[CaptureEvent]], bool]) -> list[CaptureEvent]:
    """Run a capture thread until it has posted enough."""
    with capturing(Failing(script), Ledger()) as (posts, _):
        until(lambda: enough(posts.all), "posts")
    return posts.all


def test_a_picture_of_another_size_gets_a_ring_of_its_own_and_the_stream_goes_on() -> None:
    sizes = [(320, 240), (160, 120), (640, 480)]
    ledger = Ledger()
    taken: list[tuple[str, Frame]] = []

    def take() -> tuple[str, Frame]:
        lease = until(lambda: ledger.lease("w0"), "a frame")
        view = RingView(lease.slot.ring)
        assert view.read(lease.slot.index, lease.frame.generation).any(), "the picture is in the ring of its size"
        view.close()
        ledger.give_back(lease, "inferred")
        return lease.slot.ring, lease.frame

    pictures = [jpeg(index, *size) for size in sizes for index in range(8)]
    with MjpegServer(pictures) as server, capturing(make_source(server.uri), ledger) as (posts, rings):
        while len({ring for ring, _ in taken}) < 4:
            taken.append(take())
    assert list(rings.sizes.values())[:4] == [*sizes, sizes[0]]
    assert all(rings.sizes[ring] == (frame.width, frame.height) for ring, frame in taken)
    news = [ring != before for (before, _), (ring, _) in itertools.pairwise(taken)]
    assert [not frame.continuous for _, frame in taken] == [True, *news]
    assert ledger.take_drained() == list(rings.sizes)[:-1]
    assert ledger.accounts().balanced
    assert [event for event in posts.all if isinstance(event, StreamLost)] == []
    told = [(event.width, event.height) for event in posts.all if isinstance(event, StreamResized)]
    assert told[:3] == [*sizes[1:], sizes[0]]


def taken(ledger: Ledger, count: int) -> list[Frame]:
    """Lease and give back as many frames."""
    frames = []
    for _ in range(count):
        lease = until(lambda: ledger.lease("w0"), "a frame")
        ledger.give_back(lease, "inferred")
        frames.append(lease.frame)
    return frames


def test_the_first_frame_after_a_reconnect_does_not_continue_the_one_before() -> None:
    # Every frame waits for the one before it to be taken, so that none is superseded.
    ledger = Ledger(every_frame=True)
    with capturing(Failing([3, None, 2, 2]), ledger):
        frames = taken(ledger, 7)
    assert [frame.frame_seq for frame in frames] == list(range(7))
    assert [frame.continuous for frame in frames] == [False, True, True, False, True, False, True]


def test_the_first_frame_after_a_pause_does_not_continue_the_one_before() -> None:
    ledger = Ledger()
    with capturing(make_source("demo:64x64@60"), ledger):
        assert [frame.continuous for frame in taken(ledger, 3)] == [False, True, True]
        ledger.pause()
        before = ledger.accounts().dropped["paused"]
        until(lambda: ledger.accounts().dropped["paused"] > before, "a frame that is only counted")
        assert ledger.lease("w0") is None
        ledger.resume()
        assert [frame.continuous for frame in taken(ledger, 3)] == [False, True, True]


def test_a_thread_that_the_system_refuses_is_a_failure_until_there_is_another_source() -> None:
    posts, rings = Posts(), Rings()
    capture = Capture("cam0", Failing([5]), Ledger(), rings.make, posts, CaptureSettings(backoff=BACKOFF))
    usual = threading.stack_size(1 << 47)
    try:
        capture.start()
        capture.switch(Failing([5]))
    finally:
        threading.stack_size(usual)
    assert capture.over
    assert capture.join(0)
    assert [type(event) for event in posts.all] == [StreamFailed, StreamFailed]
    capture.switch(Failing([5]))
    until(lambda: any(isinstance(event, StreamOpened) for event in posts.all), "pictures")
    capture.stop()
    assert capture.join(10)
    rings.close()


def lost(events: list[CaptureEvent]) -> list[StreamLost]:
    return [event for event in events if isinstance(event, StreamLost)]


def test_delays_grow_until_there_is_a_picture_again() -> None:
    events = posted([1, None, None, None, 2, None, None, None], lambda events: len(lost(events)) >= 8)
    delays_s = [event.retry_s for event in lost(events)[:8]]
    assert delays_s == [*DELAYS_S, *DELAYS_S]


def test_what_opens_and_delivers_nothing_is_not_told_as_back() -> None:
    events = posted([1, 0, 0, 1], lambda events: len(lost(events)) >= 5)
    kinds = ["opened" if isinstance(event, StreamOpened) else "lost" for event in events]
    assert kinds[:6] == ["opened", "lost", "lost", "lost", "opened", "lost"]
    delays_s = [event.retry_s for event in lost(events)]
    assert delays_s[:5] == [*DELAYS_S[:3], *DELAYS_S[:2]]


def test_an_error_that_no_source_should_raise_is_a_loss_of_a_camera(caplog: pytest.LogCaptureFixture) -> None:
    with capturing(Faulty([2, 3, 1]), Ledger()) as (posts, _):
        until(lambda: len(lost(posts.all)) >= 5, "losses")
    assert [event for event in posts.all if isinstance(event, StreamFailed)] == []
    assert sum(isinstance(event, StreamOpened) for event in posts.all) == 3
    assert "source rtsp://camera/stream: cannot be read (ValueError, see the log)" in lost(posts.all)[0].reason
    assert caplog.text.count("ValueError: what nobody expects") == 1


@pytest.mark.parametrize(("script", "comes_up"), [([None, 5, 5], True), ([5, 5, 5], False)])
def test_memory_that_lacks_is_a_loss_where_the_camera_was_lost_before(script: list[int | None], comes_up: bool) -> None:
    with capturing(Failing(script), Ledger(), memory_failures=1) as (posts, _):
        until(lambda: any(isinstance(event, StreamOpened | StreamFailed) for event in posts.all), "posts")
    if comes_up:
        assert ["too small" in event.reason for event in lost(posts.all)][:2] == [False, True]
    else:
        (failed,) = posts.all
        assert isinstance(failed, StreamFailed)
        assert isinstance(failed.error, SharedMemoryError)


def test_a_source_whose_audience_never_came_leaves_nothing_to_the_one_after_it() -> None:
    posts, rings, ledger = Posts(), Rings(), Ledger()
    capture = Capture("cam0", make_source("demo:160x120@30"), ledger, rings.make, posts, CaptureSettings())
    capture.start()
    until(lambda: len(posts.all) == 1, "a source that delivers")
    capture.switch(make_source("demo:320x240@30"))
    until(lambda: len(posts.all) == 2, "the other one")
    assert ledger.lease("w0") is None
    capture.play()
    frame = until(lambda: ledger.lease("w0"), "a frame").frame
    capture.stop()
    assert capture.join(10)
    rings.close()
    assert (frame.width, frame.frame_seq) == (320, 0)


def test_a_stop_that_meets_a_switch_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    posts, rings = Posts(), Rings()
    capture = Capture("cam0", make_source("demo:160x120@30"), Ledger(), rings.make, posts, CaptureSettings())
    switching, go_on, switch = threading.Event(), threading.Event(), capture._take_next_source

    def slowly() -> bool:
        switching.set()
        assert go_on.wait(10)
        return switch()

    monkeypatch.setattr(capture, "_take_next_source", slowly)
    capture.start()
    until(lambda: posts.all, "a source that delivers")
    capture.switch(make_source("demo:160x120@30"))
    assert switching.wait(10)
    stopping = threading.Thread(target=capture.stop)
    stopping.start()
    stopping.join(0.2)
    go_on.set()
    stopping.join(10)
    assert capture.join(10)
    rings.close()
