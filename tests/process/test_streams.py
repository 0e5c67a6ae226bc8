"""Streams from source to results: pictures that change size, cameras that go and come back, memory that runs out."""

import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orion import ring
from orion.backoff import Backoff
from orion.capture import CaptureSettings
from orion.errors import OrionError, SharedMemoryError
from orion.stream import RingMaker
from orion.supervisor import Supervisor
from tests.conftest import missing
from tests.harness import frame_sizes, scripted_workers, supervised
from tests.instances import environment
from tests.servers import MjpegServer, RtspServer
from tests.videos import jpeg, write_video

QUICK = CaptureSettings(backoff=Backoff(0.1, 1.5, 0.5))


def test_a_picture_that_changes_size_gets_a_new_ring_and_the_stream_goes_on(tmp_path: Path) -> None:
    small, large, tall = (320, 240), (640, 480), (200, 400)
    parts = [jpeg(index, *size) for size in (small, large, tall) for index in range(15)]
    with (
        MjpegServer(parts, fps=30) as server,
        supervised(scripted_workers([""], tmp_path), (server.uri,)) as (supervisor, collected),
    ):

        def enough() -> bool:
            sizes = frame_sizes(collected.results)
            return len(set(sizes)) == 3 and sizes.count(small) > 25

        collected.enough = enough
        supervisor.run()
        seqs = [result["frame_seq"] for result in collected.results]
        assert seqs == sorted(set(seqs))
        assert set(frame_sizes(collected.results)) == {small, large, tall}
        own = list(Path("/dev/shm").glob(f"orion.harness.{supervisor.settings.run_id}.*"))
        assert len(own) <= 2, "rings of earlier sizes were not given back"
    assert collected.named("stream_lost") == []


def test_each_worker_is_logged_with_its_model_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    both = ("demo:160x120@30", "demo:160x120@30")
    with supervised(scripted_workers(["exit@5", ""], tmp_path), both) as (supervisor, collected):
        collected.enough = lambda: bool(collected.named("worker_restarted")) and bool(collected.of("cam1"))
        supervisor.run()
    for worker_id in ("w0", "w1"):
        assert caplog.text.count(f"{worker_id} uses the model") == 1
    assert len(collected.named("ready")) == 1


def test_a_camera_that_goes_away_is_lost_and_restored(tmp_path: Path) -> None:
    video = write_video(tmp_path / "camera.mp4", frames=600)
    with (
        RtspServer(video) as server,
        supervised(scripted_workers([""], tmp_path), (server.uri,), capture=QUICK) as (supervisor, collected),
    ):
        steps = iter(("stop", "start"))
        people: list[int | None] = []

        def next_step() -> bool:
            if len(collected.results) >= 10 and not collected.named("stream_lost"):
                server.stop()
            return len(collected.named("stream_restored")) == 1 and len(collected.results) > 20

        def start_again(event: dict[str, object]) -> None:
            collected.events.append(event)
            if event["event"] == "stream_lost":
                people.append(supervisor.describe()["streams"][0]["people"])
            if event["event"] == "stream_lost" and next(steps, None) == "stop":
                server.start()

        collected.enough = next_step
        collected.event = start_again  # type: ignore[method-assign]
        supervisor.run()
        assert supervisor.describe()["streams"][0]["people"] is not None
    assert set(people) == {None}
    lost = collected.named("stream_lost")
    assert lost[0]["stream_id"] == "cam0"
    assert lost[0]["reason"]


def test_latencies_of_stages_are_those_of_frames_that_were_inferred(tmp_path: Path) -> None:
    settings = CaptureSettings(every_frame=True, frames=20)
    workers = scripted_workers([""], tmp_path, "tests.detectors:Holding")
    with supervised(workers, capture=settings) as (supervisor, collected):
        supervisor.run()
        state = supervisor.describe()
    [stream] = state["streams"]
    assert (stream["inferred"], stream["held"]) == (5, 15)
    shown = {stage: figures["p50"] for stage, figures in state["latency_ms"].items()}
    took = {"preprocess": 0.1, "inference": 1.0, "postprocess": 0.1, "worker": 1.2}
    assert {stage: shown[stage] for stage in took} == pytest.approx(took, rel=0.011)
    all_ms = sorted(result["latency"]["capture_to_result_ms"] for result in collected.results)
    assert shown["capture_to_result"] == pytest.approx(all_ms[9], rel=0.011)
    assert stream["mean_fps"] == pytest.approx(19 / (collected.times_s[-1] - collected.times_s[0]), rel=0.05)


def test_jumps_of_the_wall_clock_change_the_timestamps_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day_ns = 86_400 * 10**9
    jumps = itertools.cycle((0, 400 * day_ns, -3 * day_ns, 10**9, -(10**9)))
    real_ns = time.time_ns

    def jumping_ns() -> int:
        return real_ns() + next(jumps)

    monkeypatch.setattr(time, "time_ns", jumping_ns)
    monkeypatch.setattr(time, "time", lambda: jumping_ns() / 1e9)
    settings = CaptureSettings(every_frame=True, frames=60, wall_ns=jumping_ns)
    with supervised(scripted_workers(["exit@20", ""], tmp_path), capture=settings) as (supervisor, collected):
        supervisor.run()
    assert [result["frame_seq"] for result in collected.results] == list(range(60))
    stamps = [result["timestamp"] for result in collected.results]
    assert stamps != sorted(stamps)
    assert len({stamp[:10] for stamp in stamps}) >= 3
    for result in collected.results:
        assert 0 <= result["latency"]["queue_ms"] <= result["latency"]["capture_to_result_ms"] < 30_000
    [restarted] = collected.named("worker_restarted")
    assert 0 <= restarted["recovery_ms"] < 30_000


def test_memory_for_fewer_slots_is_used_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    most = ring.bytes_needed(64, 48, 3)
    allocate = ring._allocate

    def limited(name: str, size: int) -> object:
        if size > most:
            raise SharedMemoryError("shared memory too small: 1 MB needed")
        return allocate(name, size)

    monkeypatch.setattr(ring, "_allocate", limited)
    warnings: list[str] = []
    maker = RingMaker("fewer", str(os.getpid()), 6, warnings.append)
    try:
        assert maker.make(64, 48).slots == 3
        assert warnings == ["shared memory too small: 1 MB needed. Going on with 3 slots instead of 6"]
        with pytest.raises(SharedMemoryError):
            maker.make(640, 480)
    finally:
        maker.close_all()
    with pytest.raises(SharedMemoryError, match="the instance stops"):
        maker.make(64, 48)


def run_with_little_memory(tmp_path: Path, kilobytes: int) -> subprocess.CompletedProcess[str]:
    """Run an instance that has a /dev/shm of its own, of this size."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        missing("root and the program unshare (Debian package util-linux), to mount a small /dev/shm")
    orion = f"{sys.executable} -m orion run --source demo:640x480@10 --frames 3 --every-frame --broker none"
    script = f"mount -t tmpfs -o size={kilobytes}k tmpfs /dev/shm && exec {orion} --instance-id little-{os.getpid()}"
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_too_little_shared_memory_ends_with_4_and_the_numbers(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run_with_little_memory(tmp_path, 1000)
    assert done.returncode == 4, done.stderr
    for text in ("3.7 MB needed", "MB free", "--shm-size"):
        assert text in done.stderr
    assert time.monotonic() - began < 30


def test_shared_memory_for_three_slots_only_is_enough(tmp_path: Path) -> None:
    done = run_with_little_memory(tmp_path, 3000)
    assert done.returncode == 0, done.stderr
    assert "Going on with 3 slots instead of 4" in done.stderr


def test_a_source_that_cannot_be_used_ends_it_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with supervised(scripted_workers([""], tmp_path), (str(broken),)) as (supervisor, _):
        with pytest.raises(OrionError, match=r"broken\.mp4") as caught:
            supervisor.run()
        assert caught.value.exit_code == 4


def segments(supervisor: Supervisor) -> list[Path]:
    return list(Path("/dev/shm").glob(f"orion.harness.{supervisor.settings.run_id}.*"))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_worker_that_starts_after_the_shared_memory_lost_its_name_gets_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, at_once: bool
) -> None:
    with supervised(scripted_workers([""], tmp_path)) as (supervisor, collected):
        lost: list[Path] = []
        killed: list[int] = []

        def enough() -> bool:
            if not lost and len(collected.results) >= 3:
                lost.extend(segments(supervisor))
                lost[0].unlink()
            pid = supervisor.crew.handles["w0"].pid
            if lost and not killed and pid is not None and (at_once or segments(supervisor)):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            restarted = collected.named("worker_restarted")
            return bool(restarted) and collected.results[-1]["timestamp"] > restarted[0]["timestamp"]

        collected.enough = enough
        supervisor.run()
        assert len(lost) == 1
        assert len(segments(supervisor)) == 1
        assert at_once or supervisor.streams["cam0"].ledger.accounts().dropped["worker_error"] == 0
    assert collected.named("stream_lost") == []
    assert caplog.text.count("another program has removed its shared memory") == 1


def test_shared_memory_without_a_name_is_used_while_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    allocate, asked = ring._allocate, itertools.count()

    def limited(name: str, size: int) -> object:
        if next(asked) in {1, 2}:
            raise SharedMemoryError("shared memory too small")
        return allocate(name, size)

    monkeypatch.setattr(ring, "_allocate", limited)
    with supervised(scripted_workers([""], tmp_path)) as (supervisor, collected):
        lost: list[Path] = []

        def enough() -> bool:
            if not lost:
                lost.extend(segments(supervisor))
                lost[0].unlink()
            return bool(segments(supervisor))

        collected.enough = enough
        supervisor.run()
        seqs = [result["frame_seq"] for result in collected.results]
        assert supervisor.streams["cam0"].ledger.accounts().dropped["worker_error"] == 0
    assert len(seqs) > 20, "results went on meanwhile"
    assert collected.named("stream_lost") == []
    assert caplog.text.count("shared memory too small") == 2
