"""Cameras that deliver, but not as they should: frozen, black, slow; and those that are well."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from orion.messages import Pixels
from orion.vitals import FROZEN_AFTER_S, Finding, Vitals

FPS = 25


def noisy(index: int, level: float = 100.0) -> Pixels:
    """Return a still scene of 480p as a sensor sees it."""
    random = np.random.default_rng(index)
    return np.clip(random.normal(level, 2, (480, 640, 3)), 0, 255).astype(np.uint8)


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
    assert finding == Finding("frozen", "the same pictures for 15 s")
    assert at_s == pytest.approx(FROZEN_AFTER_S, abs=0.1)
    assert findings(vitals, [noisy(1)], 20) == [(20, Finding("well", "it is not frozen any more"))]


def test_the_few_pictures_that_an_encoder_makes_of_a_frozen_one_are_frozen() -> None:
    group = [noisy(index) for index in range(50)]
    [(at_s, finding)] = findings(Vitals(None), (group[index % 50] for index in range(20 * FPS)))
    assert finding.condition == "frozen"
    assert at_s == pytest.approx(2 + FROZEN_AFTER_S, abs=0.1)


def test_black_with_noise_is_found_and_ends_with_light() -> None:
    vitals = Vitals(None)
    [(_, finding)] = findings(vitals, (noisy(index, 4) for index in range(16 * 5)), fps=5)
    assert finding == Finding("frozen", "black pictures for 15 s")
    assert [finding.condition for _, finding in findings(vitals, [noisy(1)], 16)] == ["well"]


def test_few_looks_and_gaps_prove_nothing() -> None:
    same = noisy(0)
    assert findings(Vitals(None), (same for _ in range(20)), fps=1 / 6) == []


def test_half_the_promised_rate_is_slow_and_ends_with_the_rate() -> None:
    vitals = Vitals(20.0)
    [(at_s, finding)] = [(n / 10, found) for n in range(150) if (found := vitals.passed(n / 10)) is not None]
    assert finding == Finding("slow", "10.0 pictures a second instead of 20.0 that the stream promises")
    assert at_s == pytest.approx(10, abs=0.2)
    after = [found for n in range(401) if (found := vitals.passed(15 + n / 20)) is not None]
    assert [found.condition for found in after] == ["well"]


@pytest.mark.parametrize("rhythm", [lambda n: n / 20, lambda n: n // 10 / 2, lambda n: n / 14], ids=str)
def test_steady_bursting_and_slightly_slow_streams_keep_their_promise(rhythm: Callable[[int], float]) -> None:
    vitals = Vitals(20.0)
    assert [found for n in range(900) if (found := vitals.passed(rhythm(n))) is not None] == []
