"""When a worker is started again, as plain numbers."""

from random import Random

import pytest

from orion.restart import GiveUp, RestartPolicy, StartAgain, after_boot_failure, after_death

POLICY = RestartPolicy(jitter=0.0)


def delays(policy: RestartPolicy, deaths_s: list[float]) -> list[float | str]:
    """Return what is decided at each of the deaths in turn."""
    found: list[float | str] = []
    for number, now_s in enumerate(deaths_s, 1):
        decision = after_death(policy, deaths_s[:number], now_s, Random(1))
        found.append(decision.delay_s if isinstance(decision, StartAgain) else "give up")
    return found


def test_the_first_three_in_a_minute_are_immediate_then_delays_grow_to_the_limit() -> None:
    assert delays(POLICY, [0, 1, 2, 3, 4, 5, 6, 7, 8]) == [0, 0, 0, 1, 2, 4, 8, 16, 30]


def test_deaths_that_are_far_apart_stay_immediate() -> None:
    assert delays(POLICY, [0, 61, 122, 183, 244, 305, 366]) == [0] * 7


def test_the_window_slides() -> None:
    assert delays(POLICY, [0, 1, 2, 59, 62]) == [0, 0, 0, 1, 0]


def test_too_many_in_the_long_window_end_it() -> None:
    found = delays(POLICY, [10.0 * n for n in range(12)])
    assert found[9] != "give up"
    assert found[10:] == ["give up", "give up"]
    decision = after_death(POLICY, [0.0] * 11, 0.0, Random(1))
    assert decision == GiveUp("11 deaths in 600 s")


def test_delays_are_jittered() -> None:
    policy, random = RestartPolicy(jitter=0.2), Random(7)
    several = {after_death(policy, [0.0] * 5, 0.0, random) for _ in range(50)}
    delays_s = [decision.delay_s for decision in several if isinstance(decision, StartAgain)]
    assert len(delays_s) > 40
    assert min(delays_s) >= 2 * 0.8
    assert max(delays_s) <= 2 * 1.2


@pytest.mark.parametrize(("failures", "expected"), [(1, StartAgain(1.0)), (2, StartAgain(2.0))])
def test_boot_failures_are_retried_a_little(failures: int, expected: StartAgain) -> None:
    assert after_boot_failure(POLICY, failures, Random(1)) == expected


def test_boot_failures_give_up_sooner_than_deaths() -> None:
    assert after_boot_failure(POLICY, 3, Random(1)) == GiveUp("could not start 3 times in a row")
    assert POLICY.boot_attempts < POLICY.limit
