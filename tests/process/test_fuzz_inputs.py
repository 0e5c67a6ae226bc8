"""Broken input is accepted or refused with an error of ours, and nothing else comes of it: thousands of inputs for each
door, as many as FUZZ_INPUTS says. `python -m benchmarks.fuzz` tries a hundred thousand.
"""

import os

import pytest

from benchmarks import fuzz

INPUTS = int(os.environ.get("FUZZ_INPUTS", "1500"))


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_broken_input_is_survived(target: str) -> None:
    tally = fuzz.fuzz(target, INPUTS, seed=7)
    assert tally.failures == ()
    assert tally.count == INPUTS
    assert tally.accepted > 0
    assert tally.refused > INPUTS / 5
    assert tally.growth_mb < 512
