"""The whole thing as a user starts it: real processes, shared memory, sessions; started, stopped and killed."""

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from benchmarks.rig import alive
from tests.instances import Instance, environment, running, until
from tests.servers import BlackHole
from tests.videos import write_video

SMALL = "demo:320x240@10"


def test_a_file_is_answered_frame_by_frame_and_accounted_for(tmp_path: Path) -> None:
    video = tmp_path / "clip.avi"
    write_video(video, frames=25)
    with running(tmp_path, "--source", str(video), "--every-frame", "--attention", "off") as instance:
        assert instance.process.wait(60) == 0, instance.errors()
        lines = instance.lines()
        assert [line["frame_seq"] for line in lines] == list(range(25))
        assert len({(line["run_id"], line["stream_id"], line["frame_seq"]) for line in lines}) == 25
        assert all(line["data"]["metadata"]["inference"] == "full" for line in lines)
        assert "25" in instance.errors()
        assert "p95" in instance.errors()
        assert instance.segments() == []


def test_results_on_stdout_leave_it_to_json_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orion", "run", "--source", SMALL, "--frames", "5", "--every-frame"]
    command += ["--results", "-", "--broker", "none", "--instance-id", f"out-{os.getpid()}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frame_seq"] for line in done.stdout.splitlines()] == list(range(5))


def test_two_streams_are_numbered_each(tmp_path: Path) -> None:
    options = ("--source", SMALL, "--source", "demo:160x120@10", "--frames", "8", "--every-frame")
    with running(tmp_path, *options) as instance:
        assert instance.process.wait(60) == 0, instance.errors()
        for stream_id in ("cam0", "cam1"):
            seqs = [line["frame_seq"] for line in instance.lines() if line["stream_id"] == stream_id]
            assert seqs == list(range(8))
        assert {line["worker_id"] for line in instance.lines()} <= {"w0", "w1"}


def test_latest_wins_and_numbers_tell_the_drops(tmp_path: Path) -> None:
    with running(tmp_path, "--source", "demo:640x480@200", "--frames", "400", "--attention", "off") as instance:
        assert instance.process.wait(60) == 0, instance.errors()
        seqs = [line["frame_seq"] for line in instance.lines()]
        assert seqs == sorted(set(seqs))
        assert len(seqs) < 400
        assert "superseded" in instance.errors()


def test_rate_and_pictures(tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    options = ("--source", "demo:320x240@30", "--frames", "180", "--rate", "5", "--save-frames", str(shots))
    # Wide enough for the summary to wrap no count.
    with running(tmp_path, *options, COLUMNS="120") as instance:
        assert instance.process.wait(60) == 0, instance.errors()
        # 180 frames at 30 Hz are six seconds; at 5 Hz that makes 30 frames taken and 150 skipped.
        assert any(f"{skipped} rate" in instance.errors() for skipped in (149, 150, 151)), instance.errors()
        assert 5 <= len(instance.lines()) <= 31
        names = {path.name for path in shots.iterdir()}
        assert names
        assert names <= {f"cam0-{line['frame_seq']:06d}.jpg" for line in instance.lines()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["starting", "loading", "running"])
def test_a_signal_stops_it_in_every_phase(tmp_path: Path, number: int, phase: str) -> None:
    with running(tmp_path, "--source", SMALL) as instance:
        if phase == "starting":
            until(lambda: "orion" in Path(f"/proc/{instance.pid}/cmdline").read_text(), "exec")
            until(lambda: _handles(instance.pid, signal.SIGTERM), "its handlers")
        elif phase == "loading":
            until(instance.children, "a worker")
        else:
            instance.await_results(3)
        began = time.monotonic()
        assert instance.stop(number) == 0, instance.errors()
        assert time.monotonic() - began < 5
        assert instance.segments() == []
        assert not list((tmp_path / "runtime" / "orion").glob("*")) if phase != "starting" else True


def test_a_terminal_that_is_closed_stops_it_like_any_other_signal(tmp_path: Path) -> None:
    main, terminal = os.openpty()
    command = [sys.executable, "-m", "orion", "run", "--source", SMALL, "--broker", "none", "--instance-id", "terminal"]
    surroundings = environment(tmp_path) | {"TERM": "xterm"}
    run = subprocess.Popen(
        ["setsid", "--ctty", *command], stdin=terminal, stdout=terminal, stderr=terminal, env=surroundings
    )
    os.close(terminal)
    shown = b""
    while b"cam0" not in shown:
        shown += os.read(main, 65536)
    os.close(main)
    assert run.wait(5) == 0
    assert not list(Path("/dev/shm").glob("orion.terminal.*"))


def _shown_on_a_terminal(folder: Path, instance_id: str, *options: str) -> str:
    """Run an instance to its end on a terminal of 120 columns; return what it showed, without control sequences."""
    main, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    command = [sys.executable, "-m", "orion", "run", "--instance-id", instance_id, *options]
    surroundings = environment(folder) | {"TERM": "xterm"}
    run = subprocess.Popen(command, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, env=surroundings)
    os.close(terminal)
    shown = b""
    try:
        # Reading a terminal that its last user has left is an error in Linux.
        with contextlib.suppress(OSError):
            while part := os.read(main, 65536):
                shown += part
        assert run.wait(60) == 0, shown
    finally:
        run.kill()
        run.wait()
        os.close(main)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "")


def test_a_terminal_shows_progress_where_results_go_and_at_the_end_what_was_measured(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=25)
    options = ("--source", "clip.avi", "--every-frame", "--attention", "off", "--results", "out.jsonl")
    view, _, summary = _shown_on_a_terminal(tmp_path, "shown", *options).rpartition("Stopped after ")
    results = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(results) == 25
    assert re.search(r"Results go to mqtt://127\.0\.0\.1:\d+ on care/inferences/shown/person_detection", view)
    assert "Results go to out.jsonl, one JSON object a line.\n" in view
    assert "Ctrl-C stops.\n" in view
    last = view.rpartition("stream  state")[2]
    assert re.search(r"cam0 +ended +25 +25 +0 +none ", last), "the last picture is not behind the summary"
    assert re.search(r"inference +[0-9.]+ / [0-9.]+ / [0-9.]+ ms", last)
    assert re.search(r"cam0 ━{40} 25/25 frames", last)
    # The counts and figures of the summary are those of the results; histograms are right to 1 %.
    assert re.search(r"s: the sources have ended\n", summary)
    assert re.search(r"cam0 +ended +25 +25 +0 +none +[0-9.]+ +-", summary)
    stages = {"preprocess": "preprocess_ms", "inference": "inference_ms", "postprocess": "postprocess_ms"}
    measured = {name: sorted(result["timing"][key] for result in results) for name, key in stages.items()}
    measured["wait for a worker"] = sorted(result["latency"]["queue_ms"] for result in results)
    measured["capture to result"] = sorted(result["latency"]["capture_to_result_ms"] for result in results)
    for name, times in measured.items():
        row = re.search(rf"^ {name} +([0-9.]+) +([0-9.]+) +([0-9.]+) *$", summary, re.MULTILINE)
        assert row is not None, summary
        nearest_ranks = [times[12], times[23], times[24]]
        # Shown with one decimal, two below 1 ms.
        assert [float(figure) for figure in row.groups()] == pytest.approx(nearest_ranks, rel=0.02, abs=0.06), name


def _handles(pid: int, number: int) -> bool:
    """Return whether a process catches a signal, from proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _connected_to(port: int) -> bool:
    """Return whether somebody has a connection to a local port, from proc_net_tcp(5)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(int(row[2].rpartition(":")[2], 16) == port and row[3] == "01" for row in rows)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_source_black_holed_in_a_native_call_does_not_hold_the_exit_up(tmp_path: Path, scheme: str) -> None:
    with BlackHole() as hole, running(tmp_path, "--source", f"{scheme}://127.0.0.1:{hole.port}/stream") as instance:
        until(instance.children, "a worker")
        until(lambda: _connected_to(hole.port), "a connection")
        began = time.monotonic()
        assert instance.stop() == 0, instance.errors()
        assert time.monotonic() - began < 5
        assert instance.segments() == []


def test_a_network_source_that_is_down_is_retried(tmp_path: Path) -> None:
    with running(tmp_path, "--source", "rtsp://user:secret@127.0.0.1:1/x", ORION_LOG__LEVEL="debug") as instance:
        until(lambda: instance.errors().count("next attempt in") >= 2, "two attempts")
        assert instance.errors().count("] stream_lost: ") == 1, "the same loss again is only counted"
        assert instance.process.poll() is None
        assert instance.stop() == 0
        assert "secret" not in instance.errors()


def test_a_file_begins_when_somebody_can_look_at_it(tmp_path: Path) -> None:
    """At its own pace half a second of it would be over when the models are loaded."""
    video = write_video(tmp_path / "v.mp4", 50)
    with running(tmp_path, "--source", str(video)) as instance:
        assert instance.await_results(1)[0]["frame_seq"] == 0
        assert instance.stop() == 0


def test_a_second_signal_forces_the_exit_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "--source", SMALL) as instance:
        instance.await_results(1)
        worker = next(iter(instance.children()))
        os.kill(worker, signal.SIGSTOP)
        instance.process.send_signal(signal.SIGINT)
        # Two that wait at once come in no order.
        until(lambda: "stopping: SIGINT" in instance.errors(), "the first signal's stop")
        instance.process.send_signal(signal.SIGTERM)
        assert instance.process.wait(10) == 130
        assert "forced exit: SIGTERM came before the run had stopped in order\n" in instance.errors()
        until(lambda: not alive(worker), "the stopped worker's end", 5)
        assert instance.segments() == []


def test_workers_are_gone_within_a_second_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    options = ("--source", SMALL, "--source", SMALL)
    with running(tmp_path, *options, broker="embedded") as instance:
        instance.await_results(4)
        children = instance.children()
        assert len(children) >= 2
        os.kill(next(iter(children)), signal.SIGSTOP)
        instance.process.kill()
        instance.process.wait(10)
        until(lambda: not any(map(alive, children)), f"the end of {children}", 1.0)
        until(lambda: instance.segments() == [], "the end of its segments")
        assert "resource_tracker" not in instance.errors()


def test_leftovers_of_a_killed_run_are_removed_and_nothing_of_others(tmp_path: Path) -> None:
    base = f"cam-{os.getpid()}"
    with running(tmp_path, "--source", SMALL, instance_id=f"{base}-2") as other:
        with running(tmp_path, "--source", SMALL, instance_id=base) as first:
            first.await_results(1)
            other.await_results(1)
            tracker = first.tracker()
            assert tracker is not None
            left, others = first.segments(), other.segments()
            # Without its tracker nothing cleans up behind the dead: that is what a power cut looks like.
            os.kill(tracker, signal.SIGKILL)
            first.process.kill()
            first.process.wait(10)
        assert [name for name in first.segments() if name in left] == left
        with running(tmp_path, "--source", SMALL, instance_id=base) as second:
            second.await_results(1)
            assert not set(left) & set(second.segments())
            assert set(others) <= set(other.segments())
            seen = len(other.lines())
            other.await_results(seen + 3)
            assert second.stop() == 0
        assert other.stop() == 0


def test_a_second_run_of_the_same_instance_names_the_first(tmp_path: Path) -> None:
    with running(tmp_path, "--source", SMALL) as first:
        first.await_results(1)
        command = [sys.executable, "-m", "orion", "run", "--instance-id", first.instance_id, "--broker", "none"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 4
        assert str(first.pid) in done.stderr
        assert first.stop() == 0


def _kill_worker(instance: Instance, number: int) -> None:
    os.kill(next(iter(instance.children())), number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_replaced(tmp_path: Path, number: int) -> None:
    with running(tmp_path, "--source", SMALL) as instance:
        seen = len(instance.await_results(3))
        _kill_worker(instance, number)
        instance.await_results(seen + 5)
        assert instance.stop() == 0, instance.errors()
        assert "starting again" in instance.errors()
        seqs = [line["frame_seq"] for line in instance.lines()]
        assert seqs == sorted(set(seqs)), "a frame was answered twice or out of order"


def test_every_frame_survives_the_death_of_its_worker(tmp_path: Path) -> None:
    with running(tmp_path, "--source", SMALL, "--every-frame", "--frames", "40", "--attention", "off") as instance:
        instance.await_results(5)
        _kill_worker(instance, signal.SIGKILL)
        assert instance.process.wait(60) == 0, instance.errors()
        assert [line["frame_seq"] for line in instance.lines()] == list(range(40))
