"""What cameras do wrong, by real servers: each fault is told as an event within the time that docs/operations.md names,
heals without a restart, and holds no other stream up.
"""

import itertools
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from orion.backoff import Backoff
from orion.capture import CaptureSettings
from orion.posts import StopRequested
from orion.supervisor import Supervisor
from tests.harness import Collected, scripted_workers, supervised
from tests.instances import until
from tests.servers import BlackHole, MjpegServer, RtspServer
from tests.videos import write_video

QUICK = CaptureSettings(backoff=Backoff(0.1, 1.5, 0.5))
LOST_WITHIN_S = 12
"""Five seconds of silence, five for the next attempt, and what a busy machine adds."""
ODD_WITHIN_S = 30
"""15 s of pictures of no use, or 10 s of too few, and what a busy machine adds."""


@dataclass
class Running:
    """A supervisor that runs beside the test."""

    supervisor: Supervisor
    collected: Collected
    began_s: float = field(default_factory=time.monotonic)

    def await_event(self, name: str, within_s: float, stream_id: str = "cam0", count: int = 1) -> dict[str, Any]:
        """Wait for an event of the first stream; return the last of them."""

        def found() -> list[dict[str, Any]] | None:
            events = [event for event in self.collected.named(name) if event["stream_id"] == stream_id]
            return events if len(events) >= count else None

        events: list[dict[str, Any]] = until(found, f"{name}; got {self.collected.events}", within_s)
        return events[-1]

    def await_results(self, count: int, stream_id: str = "cam0") -> None:
        """Wait for so many more results."""
        enough = len(self.collected.of(stream_id)) + count
        until(lambda: len(self.collected.of(stream_id)) >= enough, f"results of {stream_id}", 30)


@contextmanager
def watched(folder: Path, *sources: str) -> Iterator[Running]:
    """Run a supervisor with these sources and one worker in a thread, until the block ends."""
    with supervised(scripted_workers([""], folder), sources, capture=QUICK) as (supervisor, collected):
        collected.limit_s = time.monotonic() + 120
        thread = threading.Thread(target=supervisor.run, name="supervisor")
        thread.start()
        try:
            yield Running(supervisor, collected)
        finally:
            supervisor.post(StopRequested("the test has ended"))
            thread.join(30)
            assert not thread.is_alive()


def noisy(index: int, level: int = 120) -> bytes:
    """Return a JPEG of a still scene, as a sensor sees it."""
    random = np.random.default_rng(index)
    pixels = np.clip(random.normal(level, 3, (240, 320, 3)), 0, 255).astype(np.uint8)
    written, data = cv2.imencode(".jpg", pixels)
    assert written
    return data.tobytes()


class ScriptedCamera(MjpegServer):
    """An MJPEG camera that sends whatever `mode` says at the moment."""

    def __init__(self, fps: float = 20) -> None:
        super().__init__([], fps=fps)
        self.mode = "well"
        self._numbers = itertools.count()
        camera = self

        class Endless:
            def __iter__(self) -> Iterator[bytes]:
                while not camera.stopping.is_set():
                    yield camera.next_part()

        self.parts = Endless()  # type: ignore[assignment]

    def next_part(self) -> bytes:
        """Return the next picture, or what is none."""
        number = next(self._numbers)
        match self.mode:
            case "frozen":
                return noisy(0)
            case "black":
                return jpeg_of(0)
            case "garbage":
                return bytes(number % 251 for _ in range(2000))
            case "burst":
                self.stopping.wait(0.5 if number % 10 == 0 else -1)
        return noisy(number)


def jpeg_of(level: int) -> bytes:
    """Return a JPEG of one grey."""
    written, data = cv2.imencode(".jpg", np.full((240, 320, 3), level, np.uint8))
    assert written
    return data.tobytes()


def test_frozen_and_black_pictures_are_told_and_end(tmp_path: Path) -> None:
    with (
        ScriptedCamera() as frozen,
        ScriptedCamera() as black,
        ScriptedCamera() as still,
        watched(tmp_path, frozen.uri, black.uri, still.uri) as running,
    ):
        running.await_results(3)
        frozen.mode, black.mode, began_s = "frozen", "black", time.monotonic()
        event = running.await_event("stream_frozen", ODD_WITHIN_S)
        assert "the same pictures for 15 s" in event["reason"]
        assert time.monotonic() - began_s > 10
        assert "black pictures" in running.await_event("stream_frozen", ODD_WITHIN_S, "cam1")["reason"]
        states = {stream["stream_id"]: stream["state"] for stream in running.supervisor.describe()["streams"]}
        assert states == {"cam0": "frozen", "cam1": "frozen", "cam2": "running"}
        frozen.mode = black.mode = "well"
        running.await_event("stream_restored", 10)
        running.await_event("stream_restored", 10, "cam1")
        assert not [event for event in running.collected.events if event.get("stream_id") == "cam2"]


def test_garbage_is_lost_within_the_read_timeout_and_heals(tmp_path: Path) -> None:
    with ScriptedCamera() as camera, watched(tmp_path, camera.uri, "demo:160x120@20") as running:
        running.await_results(3)
        camera.mode = "garbage"
        assert "no picture that can be decoded" in running.await_event("stream_lost", LOST_WITHIN_S)["reason"]
        camera.mode = "well"
        running.await_event("stream_restored", LOST_WITHIN_S)
        running.await_results(3)
        check_not_held_up(running, "cam1")


def test_bursts_are_no_loss(tmp_path: Path) -> None:
    with ScriptedCamera(fps=100) as camera, watched(tmp_path, camera.uri) as running:
        camera.mode = "burst"
        running.await_results(40)
        results = running.collected.results
        stamps = [result["timestamp"] for result in results]
        assert stamps == sorted(stamps)
        assert running.collected.named("stream_lost") == []


def check_not_held_up(running: Running, stream_id: str) -> None:
    """Check that the results of a stream of 20 Hz came without a gap that the others' trouble would explain."""
    results = running.collected
    times = [
        at for at, result in zip(results.times_s, results.results, strict=True) if result["stream_id"] == stream_id
    ]
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert statistics.median(gaps) < 0.1
    assert max(gaps) < 2


def test_what_does_not_answer_is_told_and_delays_no_other(tmp_path: Path) -> None:
    with RtspServer(write_video(tmp_path / "camera.mp4", 20), login=("viewer", "right")) as server, BlackHole() as hole:
        closed = socket.create_server(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        sources = (
            f"rtsp://127.0.0.1:{port}/refused",
            f"rtsp://127.0.0.1:{hole.port}/silent",
            f"rtsp://viewer:wrong@127.0.0.1:{server.port}/stream",
            "demo:160x120@20",
        )
        with watched(tmp_path, *sources) as running:
            reasons = [running.await_event("stream_lost", LOST_WITHIN_S, f"cam{n}")["reason"] for n in range(3)]
            running.await_event("stream_lost", LOST_WITHIN_S, count=3)
            running.await_results(20, "cam3")
            check_not_held_up(running, "cam3")
            # What is held in a native call is let go, so that the test's own threads can end.
            hole.close()
    for reason, what in zip(reasons, ("Connection refused", "no answer in time", "user or password"), strict=True):
        assert what in reason
    assert "wrong@" not in json.dumps(running.collected.events)


def test_a_server_that_is_silent_for_a_while_is_lost_and_restored(tmp_path: Path) -> None:
    with (
        RtspServer(write_video(tmp_path / "camera.mp4", 900)) as server,
        watched(tmp_path, server.uri, "demo:160x120@20") as running,
    ):
        running.await_results(5)
        server.freeze()
        assert "nothing for 5 s" in running.await_event("stream_lost", LOST_WITHIN_S)["reason"]
        server.thaw()
        running.await_event("stream_restored", LOST_WITHIN_S)
        running.await_results(5)
        check_not_held_up(running, "cam1")


def test_half_the_promised_rate_is_told(tmp_path: Path) -> None:
    half = "qtdemux ! mpeg4videoparse ! identity sleep-time=100000 ! rtpmp4vpay"
    video = write_video(tmp_path / "camera.mp4", 900, fps=20)
    with RtspServer(video, elements=half) as server, watched(tmp_path, server.uri) as running:
        reason = running.await_event("stream_slow", ODD_WITHIN_S)["reason"]
    assert "instead of 20.0" in reason


def test_an_rtsp_stream_that_changes_size_within_goes_on(tmp_path: Path) -> None:
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(write_video(tmp_path / f"{w}.ts", 60, w, w * 3 // 4).read_bytes() for w in (320, 640)))
    elements = "tsdemux ! mpeg4videoparse ! rtpmp4vpay config-interval=1"
    with RtspServer(both, elements=elements) as server, watched(tmp_path, server.uri) as running:
        running.await_results(90)
        metadata = [result["data"]["metadata"] for result in running.collected.results]
        assert {(one["frame_width"], one["frame_height"]) for one in metadata} == {(320, 240)}
        assert running.collected.events[1:] == []


def test_a_file_that_ends_within_a_picture_ends_the_stream(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 30).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    with supervised(scripted_workers([""], tmp_path), (str(cut),), capture=CaptureSettings(every_frame=True)) as (
        supervisor,
        collected,
    ):
        supervisor.run()
        assert supervisor.stop_reason == "the sources have ended"
    assert 5 < len(collected.results) < 30
