"""Percentiles are right to a percent, rates follow what happens, and /proc is read as the kernel writes it."""

import os
import statistics
from random import Random

import pytest

from orion.telemetry import STAGES, Histogram, Latencies, RateMeter, process_usage


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


def test_held_results_count_as_next_to_nothing() -> None:
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


def test_process_usage_is_read_and_a_gone_process_has_none() -> None:
    usage = process_usage(os.getpid())
    assert usage is not None
    assert usage["cpu_s"] > 0
    assert 5 < usage["rss_mb"] < 5000
    assert process_usage(2**22 + 1) is None
