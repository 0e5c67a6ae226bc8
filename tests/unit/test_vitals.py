"""Cameras that deliver, but not as they should: frozen, black, slow, irregular; and those that are well."""

import itertools
import random
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import pytest

from orion.messages import Pixels
from orion.vitals import FROZEN_AFTER_S, JUMP_OVER_AFTER_S, RHYTHM_WINDOW_S, Finding, Vitals

FPS = 25


@lru_cache(maxsize=64)
def noisy(index: int, level: int = 100) -> Pixels:
    """Return a still scene of 480p as a sensor sees it."""
    noise = np.random.default_rng(index).integers(-4, 5, (480, 640, 3), np.int8)
    return np.asarray(np.int8(level) + noise, np.uint8)


def findings(
    vitals: Vitals, pictures: Iterable[Pixels], begin_s: float = 0.0, fps: float = FPS
) -> list[tuple[float, Finding]]:
    """Show the pictures one after another; return what was found, and when."""
    found = []
    for index, picture in enumerate(pictures):
        now_s = begin_s + index / fps
        if (finding := vitals.seen(picture, now_s)) is not None:
            found.append((now_s, finding))
    return found


def test_a_still_scene_with_noise_is_well() -> None:
    assert findings(Vitals(None), (noisy(index) for index in range(10 * FPS)), fps=FPS / 6) == []


def test_a_still_scene_whose_noise_comes_with_key_pictures_alone_is_well() -> None:
    pictures = (noisy(index // (4 * FPS)) for index in range(40 * FPS))
    assert findings(Vitals(None), pictures) == []


def test_one_picture_for_ever_is_frozen_and_ends_with_the_next_new_one() -> None:
    vitals, same = Vitals(None), noisy(0)
    [(at_s, finding)] = findings(vitals, (same for _ in range(20 * FPS)))
    assert finding == Finding("frozen", "the same pictures for 15 s", "frozen")
    assert at_s == pytest.approx(FROZEN_AFTER_S, abs=0.1)
    assert findings(vitals, [noisy(1)], 20) == [(20, Finding("well", "it is not frozen any more", "well"))]


def test_the_few_pictures_that_an_encoder_makes_of_a_frozen_one_are_frozen() -> None:
    group = [noisy(index) for index in range(50)]
    [(at_s, finding)] = findings(Vitals(None), (group[index % 50] for index in range(20 * FPS)))
    assert finding.condition == "frozen"
    assert at_s == pytest.approx(2 + FROZEN_AFTER_S, abs=0.1)


def test_black_with_noise_is_found_and_ends_with_light() -> None:
    vitals = Vitals(None)
    [(_, finding)] = findings(vitals, (noisy(index, 4) for index in range(16 * 5)), fps=5)
    assert finding == Finding("frozen", "black pictures for 15 s", "frozen")
    assert [finding.condition for _, finding in findings(vitals, [noisy(1)], 16)] == ["well"]


def test_few_looks_and_gaps_prove_nothing() -> None:
    same = noisy(0)
    assert findings(Vitals(None), (same for _ in range(20)), fps=1 / 6) == []


def test_half_the_promised_rate_is_slow_and_ends_with_the_rate() -> None:
    vitals = Vitals(20.0)
    [(at_s, finding)] = [(n / 10, found) for n in range(150) if (found := vitals.passed(n / 10)) is not None]
    assert finding == Finding("slow", "10.0 pictures a second instead of 20.0 that the stream promises", "slow")
    assert at_s == pytest.approx(10, abs=0.2)
    after = [found for n in range(401) if (found := vitals.passed(15 + n / 20)) is not None]
    assert [found.condition for found in after] == ["well"]


@pytest.mark.parametrize("rhythm", [lambda n: n / 20, lambda n: n // 10 / 2, lambda n: n / 14], ids=str)
def test_steady_bursting_and_slightly_slow_streams_keep_their_promise(rhythm: Callable[[int], float]) -> None:
    vitals = Vitals(20.0)
    found = [found for n in range(900) if (found := vitals.passed(rhythm(n))) is not None]
    assert [one for one in found if one.condition == "slow"] == []


def passed(vitals: Vitals, times: Iterable[tuple[float, float | None]]) -> list[tuple[float, Finding]]:
    """Pass pictures over, each with its arrival and the camera's own time; return what was found, and when."""
    return [(now_s, found) for now_s, own_s in times if (found := vitals.passed(now_s, own_s)) is not None]


def arrivals(count: int, fps: float, held_s: float = 0.0, begin_s: float = 0.0) -> list[float]:
    """Return when pictures arrive that are held back until each multiple of `held_s`, 2 ms after one another then."""
    taken = [begin_s + n / fps for n in range(count)]
    if not held_s:
        return taken
    out, last_s = [], 0.0
    for at_s in taken:
        last_s = max(-(-at_s // held_s) * held_s, last_s + 0.002)
        out.append(last_s)
    return out


@pytest.mark.parametrize(("fps", "held_s"), [(10, 0.5), (25, 0.5), (15, 1.0), (30, 0.4), (20, 1.5)])
def test_bursts_are_irregular_within_two_windows_and_end(fps: float, held_s: float) -> None:
    vitals = Vitals(fps)
    assert passed(vitals, ((at_s, None) for at_s in arrivals(round(13 * fps), fps))) == []
    [(at_s, finding)] = passed(vitals, ((at_s, None) for at_s in arrivals(round(20 * fps), fps, held_s, 13.0)))
    assert finding.condition == finding.worst == "irregular"
    at_once = re.fullmatch(
        r"pictures come in bursts: nothing for up to [\d.]+ s, then about (\d+) at once", finding.reason
    )
    assert at_once is not None
    assert int(at_once[1]) == pytest.approx(fps * held_s, rel=0.2)
    assert at_s - 13.0 <= 2 * RHYTHM_WINDOW_S
    [(at_s, finding)] = passed(vitals, ((at_s, None) for at_s in arrivals(round(30 * fps), fps, 0.0, 34.0)))
    assert finding == Finding("well", "it is not irregular any more", "well")
    assert at_s - 34.0 <= 2 * RHYTHM_WINDOW_S + held_s


def late(fps: float, seed: int) -> Iterable[float]:
    """Yield the arrivals of a minute on a busy machine: now and then everything is late by up to 2 s, then at once."""
    chance = random.Random(seed)
    free_s = 0.0
    for n in range(round(60 * fps)):
        if chance.random() < 0.1 / fps:
            free_s = n / fps + chance.uniform(0.3, 2.0)
        yield max(n / fps, free_s) + chance.uniform(0, 0.5 / fps)


@pytest.mark.parametrize("seed", range(10))
def test_a_busy_machine_is_not_irregular(seed: int) -> None:
    for fps in (2, 10, 25):
        vitals = Vitals(None)
        times = sorted(late(fps, seed))
        assert passed(vitals, ((at_s, n / fps) for n, at_s in enumerate(times))) == []


def test_a_camera_of_few_pictures_and_pictures_in_pairs_are_not_irregular() -> None:
    assert passed(Vitals(1.0), ((n * 1.0, n * 1.0) for n in range(120))) == []
    assert passed(Vitals(0.2), ((n * 5.0, n * 5.0) for n in range(60))) == []
    # Two B pictures between two others come with the one after them.
    assert passed(Vitals(12.0), ((n // 3 / 4 + n % 3 / 200, n / 12) for n in range(900))) == []


@pytest.mark.parametrize("jump_s", [42.0, -42.0, 1.5, -1.5, 3600.0 * 13])
def test_a_clock_that_jumps_is_irregular_at_once_and_for_a_while(jump_s: float) -> None:
    vitals = Vitals(10.0)
    times = ((n / 10, n / 10 + (jump_s if n >= 50 else 0.0)) for n in range(300))
    [(at_s, finding), (over_s, over)] = passed(vitals, times)
    assert at_s == 5.0
    assert finding == Finding("irregular", f"the stream's clock jumped by {jump_s:+.1f} s", "irregular")
    assert over.condition == "well"
    assert over_s == pytest.approx(5 + JUMP_OVER_AFTER_S, abs=0.2)


def test_a_clock_that_jumps_to_and_fro_is_one_trouble() -> None:
    times = ((n / 10, n / 10 + 42.0 * (n // 30 % 2)) for n in range(600))
    assert [found.condition for _, found in passed(Vitals(10.0), times)] == ["irregular"]


def test_pictures_that_are_late_or_left_out_are_no_jump() -> None:
    # Nothing for 3 s; then what a buffer of 1 s held, at once; then the present, without what did not fit.
    own = [n / 10 for n in range(50)] + [n / 10 for n in range(50, 60)] + [n / 10 for n in range(80, 400)]
    came = [n / 10 for n in range(50)] + [8.0 + n / 1000 for n in range(10)] + [n / 10 for n in range(80, 400)]
    assert passed(Vitals(None), zip(came, own, strict=True)) == []
    # Half a minute late by 3 s, and back; the camera's quartz is fast, or slow.
    for drift in (1.0001, 0.9999):
        came = list(itertools.accumulate((n / 10 + (3.0 if 300 < n < 600 else 0.0) for n in range(3000)), max))
        assert passed(Vitals(None), ((at_s, n / 10 * drift) for n, at_s in enumerate(came))) == []
    # Every second picture left out, or half a minute of them.
    assert passed(Vitals(None), ((n / 10, n / 10) for n in range(0, 600, 2))) == []
    assert passed(Vitals(None), ((n / 10, n / 10) for n in itertools.chain(range(100), range(130, 400)))) == []


def test_a_stream_without_a_clock_has_none_that_jumps() -> None:
    assert passed(Vitals(None), ((n / 10, None if n % 3 else n / 10) for n in range(300))) == []


def test_no_trouble_hides_another() -> None:
    vitals, same = Vitals(10.0), noisy(0)

    def shown(begin_s: float, end_s: float, step_s: float, jump_s: float = 0.0, *, frozen: bool) -> list[Finding]:
        pictures = range(round((end_s - begin_s) / step_s))
        at = [begin_s + n * step_s for n in pictures]
        seen = ((noisy(n) if not frozen else same, at_s, at_s + jump_s) for n, at_s in zip(pictures, at, strict=True))
        return [found for one in seen if (found := vitals.seen(*one)) is not None]

    told = shown(0, 40, 0.2, frozen=True)
    assert [(one.condition, one.worst) for one in told] == [("slow", "slow"), ("frozen", "frozen")]
    told = shown(40, 45, 0.2, 42.0, frozen=True)
    assert [(one.condition, one.worst) for one in told] == [("irregular", "frozen")]
    told = shown(45, 60, 0.2, 42.0, frozen=False)
    assert [(one.condition, one.worst) for one in told] == [("slow", "slow"), ("slow", "slow")]
    told = shown(60, 100, 0.1, 42.0, frozen=False)
    assert told == [Finding("well", "it is not slow any more", "well")]
