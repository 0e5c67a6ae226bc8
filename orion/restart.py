"""When a worker that ended is started again: limits as plain data, and one pure decision. The supervisor's thread asks,
the clock and the random numbers are handed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The limits. Delays grow from `first_delay_s` by `factor` to `longest_delay_s`, each give or take `jitter`."""

    immediate: int = 3
    """So many restarts within `window_s` come without delay."""
    window_s: float = 60.0
    limit: int = 10
    """More deaths than this within `limit_window_s` end it."""
    limit_window_s: float = 600.0
    boot_attempts: int = 3
    """So many failures to start in a row end it; nothing heals by itself there as a rule."""
    first_delay_s: float = 1.0
    factor: float = 2.0
    longest_delay_s: float = 30.0
    jitter: float = 0.2


@dataclass(frozen=True, slots=True)
class StartAgain:
    """Start a new process after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Start no new process; `reason` says which limit was passed."""

    reason: str


def after_death(policy: RestartPolicy, deaths_s: Sequence[float], now_s: float, random: Random) -> StartAgain | GiveUp:
    """Decide after a crash or a hang; `deaths_s` are the times of all deaths so far, this one included."""
    in_limit = sum(now_s - died < policy.limit_window_s for died in deaths_s)
    if in_limit > policy.limit:
        return GiveUp(f"{in_limit} deaths in {policy.limit_window_s:g} s")
    in_window = sum(now_s - died < policy.window_s for died in deaths_s)
    return StartAgain(_delay_s(policy, in_window - policy.immediate, random))


def after_boot_failure(policy: RestartPolicy, failures: int, random: Random) -> StartAgain | GiveUp:
    """Decide after a worker could not start for the `failures`-th time in a row."""
    if failures >= policy.boot_attempts:
        return GiveUp(f"could not start {failures} times in a row")
    return StartAgain(_delay_s(policy, failures, random))


def _delay_s(policy: RestartPolicy, step: int, random: Random) -> float:
    """Return nothing for the steps up to 0, then the growing, jittered delay."""
    if step <= 0:
        return 0.0
    delay_s = min(policy.first_delay_s * policy.factor ** (step - 1), policy.longest_delay_s)
    return delay_s * random.uniform(1 - policy.jitter, 1 + policy.jitter)
