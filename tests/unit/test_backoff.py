from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orion.backoff import Backoff


def test_delays_grow_by_the_factor_up_to_the_limit() -> None:
    delays = Backoff(first_s=0.5, factor=2, limit_s=3, jitter=0).delays(Random(0))
    assert list(islice(delays, 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(st.integers(), st.floats(0, 0.99))
def test_each_delay_stays_within_its_jitter(seed: int, jitter: float) -> None:
    plain = islice(Backoff(jitter=0).delays(Random(seed)), 12)
    spread = islice(Backoff(jitter=jitter).delays(Random(seed)), 12)
    for middle_s, delay_s in zip(plain, spread, strict=True):
        assert middle_s * (1 - jitter) * 0.999 <= delay_s <= middle_s * (1 + jitter) * 1.001


def test_two_streams_do_not_wait_the_same_time() -> None:
    backoff = Backoff()
    assert next(backoff.delays(Random(1))) != next(backoff.delays(Random(2)))


def test_a_new_iterator_begins_again() -> None:
    backoff = Backoff(jitter=0)
    list(islice(backoff.delays(Random(0)), 9))
    assert next(backoff.delays(Random(0))) == backoff.first_s


@pytest.mark.parametrize(
    "settings", [{"first_s": 0.0}, {"first_s": 40.0}, {"factor": 0.5}, {"jitter": 1.0}, {"jitter": -0.1}]
)
def test_delays_that_would_not_grow_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="delays"):
        Backoff(**settings)
