"""Percentiles are right to a percent, rates follow what happens, and /proc is read as the kernel writes it."""

import os
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from orion.telemetry import STAGES, Histogram, Latencies, RateMeter, memory_mb, process_usage, vitals


@pytest.mark.parametrize("scale_ms", [0.05, 3.0, 80.0, 4000.0])
def test_percentiles_are_right_to_a_percent(scale_ms: float) -> None:
    random, histogram = Random(3), Histogram()
    durations_ms = sorted(random.lognormvariate(0, 0.5) * scale_ms for _ in range(5000))
    for duration_ms in durations_ms:
        histogram.add(duration_ms)
    for percent in (50, 95, 99):
        exact = durations_ms[-(-len(durations_ms) * percent // 100) - 1]
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.011)
    assert histogram.percentile(50) == pytest.approx(statistics.median(durations_ms), rel=0.011)
    assert len(histogram) == 5000


def test_without_durations_there_are_no_percentiles() -> None:
    assert Histogram().summary() == {"p50": None, "p95": None, "p99": None}
    assert set(Latencies().summary()) == set(STAGES)


def test_a_duration_of_nothing_counts_as_the_least() -> None:
    histogram = Histogram()
    histogram.add(0.0)
    assert histogram.summary() == {"p50": 0.001, "p95": 0.001, "p99": 0.001}


def test_the_rate_follows_and_falls_when_events_stop() -> None:
    meter = RateMeter()
    assert meter.rate_hz(0.0) == 0
    for n in range(50):
        meter.add(n * 0.1)
    assert meter.rate_hz(4.9) == pytest.approx(10, rel=0.01)
    assert meter.rate_hz(6.9) == pytest.approx(0.5, rel=0.01)
    assert meter.rate_hz(20.0) == 0


def test_the_mean_rate_is_that_of_the_whole_run() -> None:
    meter = RateMeter()
    assert meter.mean_hz == 0
    meter.add(3.0)
    assert meter.mean_hz == 0
    for n in range(1, 100):
        meter.add(3.0 + n * 0.1)
    meter.add(3.0 + 50)
    assert meter.mean_hz == pytest.approx(100 / 50)


def test_an_event_is_fresh_until_it_is_older_than_the_window_or_than_two_gaps() -> None:
    meter = RateMeter(window_s=5.0)
    assert not meter.fresh(0.0)
    meter.add(0.0)
    assert (meter.fresh(5.0), meter.fresh(5.1)) == (True, False)
    meter.add(20.0)
    assert (meter.fresh(60.0), meter.fresh(60.1)) == (True, False)


def test_process_usage_is_read_and_a_gone_process_has_none() -> None:
    usage = process_usage(os.getpid())
    assert usage is not None
    assert usage["cpu_s"] > 0
    assert 5 < usage["rss_mb"] < 5000
    assert process_usage(2**22 + 1) is None


def test_a_process_that_is_stopped_is_seen_so() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            found = vitals(sleeper.pid)
            assert found is not None
            assert not found.stopped
            assert 0 < found.own_mb < 50
            sleeper.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
            stopped = vitals(sleeper.pid)
            assert stopped is not None
            assert stopped.stopped
        finally:
            sleeper.kill()
    assert vitals(sleeper.pid) is None


def test_shared_memory_is_not_a_processs_own() -> None:
    # In a process of its own, which does nothing else meanwhile.
    program = "import mmap; m = mmap.mmap(-1, 100_000_000); m[::4096] = m[::4096]; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        found, resident = vitals(process.pid), Path(f"/proc/{process.pid}/status").read_text("utf-8")
        process.communicate("\n")
    shared_kb = re.search(r"RssShmem:\s+(\d+) kB", resident)
    assert shared_kb is not None
    assert int(shared_kb[1]) > 90_000
    assert found is not None
    assert found.own_mb < 50


def test_a_containers_memory_is_the_limit(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    whole = memory_mb(limit)
    assert whole == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6)
    limit.write_text("max\n")
    assert memory_mb(limit) == whole
    limit.write_text("64000000\n")
    assert memory_mb(limit) == 64.0
