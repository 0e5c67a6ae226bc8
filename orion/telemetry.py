"""Figures about the running instance: latency percentiles from histograms of fixed size, rates, and what each process
costs. Values are fed and read by the supervisor's thread.
"""

import math
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STAGES = ("queue", "preprocess", "inference", "postprocess", "worker", "capture_to_result")
"""In the order of a frame's journey; `worker` is all of a frame inside the worker. Those inside it are of frames that
were inferred, `queue` and `capture_to_result` of held ones, too.
"""

_STEP = math.log(1.02)
_SMALLEST_MS = 1e-3


class Histogram:
    """Counts of durations in buckets 2 % wide, so that percentiles are right to 1 % whatever the run's length."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._count = 0

    def add(self, duration_ms: float) -> None:
        """Count one duration in milliseconds."""
        bucket = round(math.log(max(duration_ms, _SMALLEST_MS)) / _STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def percentile(self, percent: float) -> float | None:
        """Return the duration in ms that `percent` of all do not pass (nearest rank); None when there is none."""
        rank = math.ceil(self._count * percent / 100)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= max(rank, 1):
                return math.exp(bucket * _STEP)
        return None

    def summary(self) -> dict[str, float | None]:
        """Return p50, p95 and p99 in ms, rounded to microseconds."""
        figures = {f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}
        return {name: None if value is None else round(value, 3) for name, value in figures.items()}


class Latencies:
    """One histogram for each stage."""

    def __init__(self) -> None:
        self._stages = {stage: Histogram() for stage in STAGES}

    def add(self, durations_ms: Mapping[str, float]) -> None:
        """Count one frame's durations by stage."""
        for stage, duration_ms in durations_ms.items():
            self._stages[stage].add(duration_ms)

    def summary(self) -> dict[str, dict[str, float | None]]:
        """Return the percentiles of each stage."""
        return {stage: histogram.summary() for stage, histogram in self._stages.items()}


class RateMeter:
    """Events a second over the last few seconds."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._times_s: deque[float] = deque()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._last_gap_s = 0.0
        self._count = 0

    def add(self, now_s: float) -> None:
        """Count one event."""
        if self._last_s is not None:
            self._last_gap_s = now_s - self._last_s
        self._first_s = now_s if self._first_s is None else self._first_s
        self._last_s = now_s
        self._count += 1
        self._times_s.append(now_s)
        self._expire(now_s)

    def rate_hz(self, now_s: float) -> float:
        """Return the present rate; 0 before the second event."""
        self._expire(now_s)
        if len(self._times_s) < 2:
            return 0.0
        # Between the first and the last when they are recent; up to now when events have stopped coming.
        mean_gap_s = (self._times_s[-1] - self._times_s[0]) / (len(self._times_s) - 1)
        silent_s = now_s - self._times_s[-1]
        return 1 / max(mean_gap_s, silent_s, 1e-9)

    @property
    def mean_hz(self) -> float:
        """Return the rate from the first event to the last; 0 before the second."""
        if self._first_s is None or self._last_s is None or self._count < 2:
            return 0.0
        return (self._count - 1) / max(self._last_s - self._first_s, 1e-9)

    def fresh(self, now_s: float) -> bool:
        """Return whether the last event still tells of now: it is not older than the window or, where events are rare,
        than twice the gap before it.
        """
        return self._last_s is not None and now_s - self._last_s <= max(self._window_s, 2 * self._last_gap_s)

    def _expire(self, now_s: float) -> None:
        while self._times_s and now_s - self._times_s[0] > self._window_s:
            self._times_s.popleft()


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the kernel says of a process: whether it is stopped (job control, SIGSTOP), and its memory.

    `own_mb` is what it alone holds, without files and shared memory that it maps, such as the rings.
    """

    stopped: bool
    own_mb: float


def vitals(pid: int) -> Vitals | None:
    """Return how a process is, from /proc (proc(5)); None when it is gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        own = int(pages[1]) - int(pages[2])
    except (OSError, IndexError, ValueError):
        return None
    return Vitals(state == "T", own * os.sysconf("SC_PAGE_SIZE") / 1e6)


def memory_mb(cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> float:
    """Return the memory that this machine has, or this container may use, in MB."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Without control groups of the second version, or where one says "max", the machine's memory is the limit.
    with suppress(OSError, ValueError):
        total = min(total, int(cgroup.read_text()))
    return total / 1e6


def process_usage(pid: int) -> dict[str, float] | None:
    """Return CPU seconds used and resident MB of a process, from /proc (proc(5)); None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    ticks = int(fields[11]) + int(fields[12])
    return {
        "cpu_s": round(ticks / os.sysconf("SC_CLK_TCK"), 2),
        "rss_mb": round(resident * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
    }
