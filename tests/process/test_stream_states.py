"""What is told of a stream over its life: lost, restored, frozen, failed, changed and removed by command."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from orion import ring, vitals
from orion.backoff import Backoff
from orion.capture import CaptureSettings
from orion.errors import SharedMemoryError, SourceError
from orion.messages import Pixels
from orion.source import Source, SourceInfo
from orion.sources import make_source
from tests.harness import frame_sizes, run_through, scripted_workers, stream_settings, supervised
from tests.instances import LIMIT_S
from tests.videos import write_video

QUICK = CaptureSettings(backoff=Backoff(0.05, 1.0, 0.05))
DEMO = "demo:160x120@20"


class Camera(Source):
    """A camera at 20 Hz that does not open at its first `refusals`; `still` sends the same picture for ever."""

    kind = "network"

    def __init__(self, refusals: int = 0, *, still: bool = False) -> None:
        super().__init__("rtsp://camera/stream")
        self._refusals = refusals
        self._still = still
        self._noise = np.random.default_rng(1)
        self._never = threading.Event()

    def open(self) -> SourceInfo:
        if self._refusals:
            self._refusals -= 1
            raise self.error("refused")
        return SourceInfo(160, 120, None, None)

    def read(self, dst: Pixels) -> Pixels:
        self.skip()
        dst[:] = 99 if self._still else self._noise.integers(0, 255, dst.shape, np.uint8)
        return dst

    def skip(self) -> bool:
        self._never.wait(0.05)
        return True

    def close(self) -> None:
        pass


class Flapping(Camera):
    """A camera whose pictures have one size and another in turn, five of each."""

    SIZES = ((160, 120), (200, 150))

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()

    def read(self, dst: Pixels) -> Pixels:
        self.skip()
        width, height = self.SIZES[next(self._numbers) // 5 % 2]
        return self._noise.integers(0, 255, (height, width, 3), np.uint8)


class Stuck(Camera):
    """A camera that does not answer until it is `released`, and then refuses, or opens. As a context manager it is
    released at the end, so that a test which fails leaves no thread in it.
    """

    def __init__(self, *, opens: bool = False) -> None:
        super().__init__()
        self._opens = opens
        self.asked = threading.Event()
        self.released = threading.Event()

    def open(self) -> SourceInfo:
        self.asked.set()
        assert self.released.wait(LIMIT_S)
        if self._opens:
            return super().open()
        raise self.error("no answer in time")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.released.set()


def test_a_camera_that_is_down_at_the_start_is_told_as_restored(tmp_path: Path) -> None:
    with supervised(scripted_workers([""], tmp_path), [Camera(refusals=2)], capture=QUICK) as (supervisor, collected):
        collected.enough = lambda: len(collected.results) >= 3
        supervisor.run()
        assert supervisor.streams["cam0"].state == "running"
    told = [event["event"] for event in collected.events if "stream_id" in event]
    assert told == ["stream_lost", "stream_lost", "stream_restored"]


def test_the_state_tells_the_size_that_pictures_have_and_the_log_is_not_filled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: set[tuple[int, int]] = set()
    with supervised(scripted_workers([""], tmp_path), [Flapping()], capture=QUICK) as (supervisor, collected):

        def enough() -> bool:
            (stream,) = supervisor.describe()["streams"]
            told.add((stream["width"], stream["height"]))
            return len(collected.results) >= 20

        collected.enough = enough
        supervisor.run()
    assert told == set(Flapping.SIZES)
    assert set(frame_sizes(collected.results)) == told
    changes = [record for record in caplog.records if "from now on" in record.message]
    assert len(changes) >= 3
    # What is written again and again is collapsed from this level on.
    assert {record.levelno for record in changes} == {logging.WARNING}
    assert collected.named("stream_lost") == []


@pytest.mark.parametrize(("source", "trouble"), [(Camera(10**9), "stream_lost"), (Camera(still=True), "stream_frozen")])
def test_another_source_in_the_place_of_one_in_trouble_is_told_as_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Source, trouble: str
) -> None:
    monkeypatch.setattr(vitals, "FROZEN_AFTER_S", 0.3)
    with supervised(scripted_workers([""], tmp_path), [source, DEMO], capture=QUICK) as (supervisor, collected):

        def steps() -> Iterator[bool]:
            while not collected.named(trouble):
                yield False
            supervisor.streams["cam0"].change(stream_settings("cam0"), make_source(DEMO))
            while not collected.named("stream_restored"):
                yield False
            yield True

        run_through(supervisor, collected, steps())
        assert supervisor.streams["cam0"].state == "running"
    assert collected.events[-1]["event"] == "stream_restored"


def test_the_last_words_of_a_removed_camera_do_not_concern_the_one_that_has_its_id(tmp_path: Path) -> None:
    with supervised(scripted_workers([""], tmp_path), [DEMO]) as (supervisor, collected), Stuck() as stuck:

        def steps() -> Iterator[bool]:
            supervisor.add_stream(stream_settings("bed"), stuck)
            (thread,) = (thread for thread in threading.enumerate() if thread.name == "capture-bed")
            while not stuck.asked.is_set():
                yield False
            supervisor.remove_stream("bed")
            supervisor.add_stream(stream_settings("bed"), make_source(DEMO))
            while not collected.of("bed"):
                yield False
            stuck.released.set()
            while thread.is_alive():
                yield False
            # What it said lies in the mailbox, and is read before the next results come.
            enough = len(collected.of("bed")) + 3
            while len(collected.of("bed")) < enough:
                yield False
            yield True

        run_through(supervisor, collected, steps())
        assert supervisor.streams["bed"].state == "running"
    assert [event for event in collected.events if "stream_id" in event] == []


def test_a_camera_added_while_memory_lacks_comes_up_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = ring._allocate
    with supervised(scripted_workers([""], tmp_path), [DEMO], capture=QUICK) as (supervisor, collected):

        def steps() -> Iterator[bool]:
            while not collected.of("cam0"):
                yield False
            monkeypatch.setattr(ring, "_allocate", full)
            supervisor.add_stream(stream_settings("bed", QUICK), make_source(DEMO))
            while len(collected.named("stream_lost")) < 2:
                yield False
            monkeypatch.setattr(ring, "_allocate", allocate)
            while not collected.of("bed"):
                yield False
            yield True

        run_through(supervisor, collected, steps())
        assert supervisor.streams["bed"].state == "running"
    assert {event["stream_id"] for event in collected.named("stream_lost")} == {"bed"}
    assert "shared memory too small" in collected.named("stream_lost")[0]["reason"]
    assert [event["stream_id"] for event in collected.named("stream_restored")] == ["bed"]


def full(name: str, size: int) -> object:
    """Stand in for the allocation of a ring where there is no memory."""
    raise SharedMemoryError(f"shared memory too small for {size} bytes as {name}")


def test_a_source_set_by_command_before_there_was_a_ring_waits_for_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate, stuck = ring._allocate, Stuck(opens=True)
    with supervised(scripted_workers([""], tmp_path), [stuck, DEMO], capture=QUICK) as (supervisor, collected), stuck:

        def steps() -> Iterator[bool]:
            while not (stuck.asked.is_set() and collected.of("cam1")):
                yield False
            monkeypatch.setattr(ring, "_allocate", full)
            supervisor.streams["cam0"].change(stream_settings("cam0", QUICK), make_source(DEMO))
            stuck.released.set()
            while not any("too small" in event["reason"] for event in collected.named("stream_lost")):
                yield False
            monkeypatch.setattr(ring, "_allocate", allocate)
            while not collected.of("cam0"):
                yield False
            yield True

        run_through(supervisor, collected, steps())
        assert supervisor.streams["cam0"].state == "running"


def test_a_source_added_while_memory_lacks_ends_a_run_over_files_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CaptureSettings(every_frame=True)
    video = str(write_video(tmp_path / "room.mp4", 8))
    with supervised(scripted_workers([""], tmp_path), [video], capture=whole) as (supervisor, collected):

        def enough() -> bool:
            if len(collected.of("cam0")) == 3 and "bed" not in supervisor.streams:
                monkeypatch.setattr(ring, "_allocate", full)
                supervisor.add_stream(stream_settings("bed", whole), make_source(video))
            return False

        collected.enough = enough
        with pytest.raises(SourceError, match="too small"):
            supervisor.run()
    assert len(collected.of("cam0")) == 8, "the other source was not answered to its end"


@pytest.fixture
def no_video(tmp_path: Path) -> Source:
    """Return a file that is there and is no video."""
    path = tmp_path / "no-video.mp4"
    path.write_bytes(b"no video")
    return make_source(str(path))


def test_a_source_of_no_use_set_by_command_waits_for_another(
    tmp_path: Path, no_video: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    with supervised(scripted_workers([""], tmp_path), [DEMO]) as (supervisor, collected):
        stream = supervisor.streams["cam0"]
        looks: list[str] = []
        tick = collected.tick

        def look(describe: Callable[[], dict[str, Any]]) -> None:
            tick(describe)
            # Two looks have whole turns of the loop between them, in which it could find an end.
            looks.append(stream.state)
            if looks[-2:] == ["failed", "failed"]:
                stream.change(stream_settings("cam0"), make_source(DEMO))

        def enough() -> bool:
            if len(collected.results) == 3:
                stream.change(stream_settings("cam0"), no_video)
            return bool(collected.named("stream_restored"))

        collected.enough = enough
        monkeypatch.setattr(collected, "tick", look)
        supervisor.run()
        assert supervisor.stop_reason == "enough"
    assert [event["event"] for event in collected.events if "stream_id" in event] == ["stream_lost", "stream_restored"]
    assert collected.named("stream_lost")[0]["state"] == "failed"


def test_a_source_of_no_use_set_by_command_ends_a_run_over_files_with_the_reason(
    tmp_path: Path, no_video: Source
) -> None:
    whole = CaptureSettings(every_frame=True)
    files = [str(write_video(tmp_path / "other.mp4", 8)), DEMO]
    with supervised(scripted_workers(["", ""], tmp_path), files, capture=whole) as (supervisor, collected):

        def enough() -> bool:
            if len(collected.of("cam1")) == 3:
                supervisor.streams["cam1"].change(stream_settings("cam1", whole), no_video)
            return False

        collected.enough = enough
        with pytest.raises(SourceError, match="no video that can be decoded"):
            supervisor.run()
    assert len(collected.of("cam0")) == 8, "the other source was not answered to its end"
