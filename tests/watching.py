"""A supervisor that runs beside a test, which waits for what becomes of its cameras."""

import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orion.backoff import Backoff
from orion.capture import CaptureSettings
from orion.posts import StopRequested
from orion.supervisor import Supervisor
from tests.harness import Collected, scripted_workers, supervised
from tests.instances import until

LOST_WITHIN_S = 12
"""Five seconds of silence, five for the next attempt, and what a busy machine adds."""
ODD_WITHIN_S = 30
"""15 s of pictures of no use, or two windows of 10 s, and what a busy machine adds."""
_QUICK = CaptureSettings(backoff=Backoff(0.1, 1.5, 0.5))


@dataclass
class Running:
    """A supervisor that runs beside the test."""

    supervisor: Supervisor
    collected: Collected
    began_s: float = field(default_factory=time.monotonic)

    def await_event(self, name: str, within_s: float, stream_id: str = "cam0", count: int = 1) -> dict[str, Any]:
        """Wait for the `count`-th event of its kind of a stream; return it."""

        def found() -> list[dict[str, Any]] | None:
            events = [event for event in self.collected.named(name) if event["stream_id"] == stream_id]
            return events if len(events) >= count else None

        events: list[dict[str, Any]] = until(found, f"{name}; got {self.collected.events}", within_s)
        return events[count - 1]

    def await_results(self, count: int, stream_id: str = "cam0") -> None:
        """Wait for so many more results."""
        enough = len(self.collected.of(stream_id)) + count
        until(lambda: len(self.collected.of(stream_id)) >= enough, f"results of {stream_id}", 30)


@contextmanager
def watched(folder: Path, *sources: str) -> Iterator[Running]:
    """Run a supervisor with these sources and one worker in a thread, until the block ends."""
    with supervised(scripted_workers([""], folder), sources, capture=_QUICK) as (supervisor, collected):
        collected.limit_s = time.monotonic() + 120
        thread = threading.Thread(target=supervisor.run, name="supervisor")
        thread.start()
        try:
            yield Running(supervisor, collected)
        finally:
            supervisor.post(StopRequested("the test has ended"))
            thread.join(30)
            assert not thread.is_alive()


def check_not_held_up(running: Running, stream_id: str) -> None:
    """Check that the results of a stream of 20 Hz came without a gap that the others' trouble would explain."""
    results = running.collected
    times = [
        at for at, result in zip(results.times_s, results.results, strict=True) if result["stream_id"] == stream_id
    ]
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert statistics.median(gaps) < 0.1
    assert max(gaps) < 2
