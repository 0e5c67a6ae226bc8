"""How long to wait before each attempt to reach a source again: a value and an iterator, used by the capture threads,
which do the waiting. Nothing is kept between threads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing delays: `first_s`, times `factor` each, at most `limit_s`, each spread by `jitter` (0.2 = +-20 %).

    The jitter keeps the streams of one instance from knocking all at once at a camera server that comes back.
    """

    first_s: float = 0.5
    factor: float = 2.0
    limit_s: float = 30.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not (0 < self.first_s <= self.limit_s and self.factor >= 1 and 0 <= self.jitter < 1):
            raise ValueError(f"delays must be above zero and must not shrink: {self}")

    def delays(self, random: Random) -> Iterator[float]:
        """Yield delays in seconds, without end; take a new iterator after each success."""
        delay_s = self.first_s
        while True:
            yield delay_s * random.uniform(1 - self.jitter, 1 + self.jitter)
            delay_s = min(delay_s * self.factor, self.limit_s)
