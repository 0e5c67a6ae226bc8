"""Rates are exact on average and without bursts; files come at the pace they were recorded at."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orion.pacing import RateLimiter, RealTimePace


def taken(rate_hz: float | None, times_s: list[float]) -> list[float]:
    limiter = RateLimiter(rate_hz)
    return [now_s for now_s in times_s if limiter.take(now_s)]


def clock(fps: float, seconds: float, jitter: float = 0.0) -> list[float]:
    noise = random.Random(1)
    return [n / fps + noise.uniform(0, jitter / fps) for n in range(int(fps * seconds))]


@pytest.mark.parametrize("fps", [30, 61.7, 120])
@pytest.mark.parametrize("rate_hz", [0.01, 0.1, 1.0, 2.0, 3.7, 7.0, 9.9, 10.0, 24.0, 29.97, 45.0, 60.0])
def test_the_rate_is_met_within_a_percent(rate_hz: float, fps: float) -> None:
    seconds = max(60.0, 20 / rate_hz)
    count = len(taken(rate_hz, clock(fps, seconds, jitter=0.3)))
    assert count == pytest.approx(min(rate_hz, fps) * seconds, rel=0.01, abs=1)


def test_no_limit_takes_every_frame_and_so_does_a_limit_above_the_rate() -> None:
    times_s = clock(10, 10, jitter=0.5)
    assert taken(None, times_s) == times_s
    assert taken(60, times_s) == times_s


def test_a_gap_is_not_made_up_for() -> None:
    times_s = [n / 30 for n in range(300)] + [100 + n / 30 for n in range(30)]
    after = [now_s for now_s in taken(2.0, times_s) if now_s >= 100]
    assert len(after) == 2


@given(st.floats(0.01, 60), st.floats(0, 300))
def test_after_a_pause_frames_are_a_period_apart_again(rate_hz: float, pause_s: float) -> None:
    limiter, period_s = RateLimiter(rate_hz), 1 / rate_hz
    assert limiter.take(0.0)
    limiter.rest()
    found = [now_s for step in range(200) if limiter.take(now_s := pause_s + step * period_s / 20)]
    assert found[0] >= period_s * (1 - 1e-9)
    assert all(later - earlier >= period_s * 0.94 for earlier, later in pairwise(found))


@given(st.floats(0.01, 60), st.lists(st.floats(0.001, 5), min_size=1, max_size=200))
@settings(max_examples=100, deadline=None)
def test_never_more_than_one_above_the_rate_in_any_window(rate_hz: float, gaps_s: list[float]) -> None:
    times_s = [sum(gaps_s[: n + 1]) for n in range(len(gaps_s))]
    found = taken(rate_hz, times_s)
    for first in range(len(found)):
        for last in range(first + 1, len(found)):
            most = (found[last] - found[first]) * rate_hz + 2
            assert last - first <= most + 1e-6


def test_pictures_wait_until_they_are_due() -> None:
    pace = RealTimePace()
    assert pace.wait_s(5.0, 100.0) == 0
    assert pace.wait_s(5.1, 100.02) == pytest.approx(0.08)
    assert pace.wait_s(5.2, 100.3) == 0


def test_after_a_long_pause_the_pace_starts_anew() -> None:
    pace = RealTimePace()
    pace.wait_s(0.0, 0.0)
    assert pace.wait_s(0.1, 50.0) == 0
    assert pace.wait_s(0.2, 50.0) == pytest.approx(0.1)
