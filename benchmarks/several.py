"""Workers side by side on one machine, each with a pair of its own, for `benchmarks.detector`: how many frames a second
they get through together, and how long each frame takes then. A process for each worker; groups of one, two and more
take turns, the others waiting meanwhile.
"""

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import cv2
import numpy as np

from benchmarks.child import Child, asked
from benchmarks.report import Row, spread
from benchmarks.subject import Subject, Times, picture
from orion.lookup import ModelPair
from orion.messages import SessionSize

_FRAME = (1920, 1080)


class Group:
    """Some workers that start together."""

    def __init__(self, pair: ModelPair, workers: int, threads: int) -> None:
        self.workers, self.threads = workers, threads
        self.rates: dict[SessionSize, list[float]] = {640: [], 320: []}
        self.times_ms: dict[SessionSize, list[float]] = {640: [], 320: []}
        self._children = [Child(_work, pair, threads) for _ in range(workers)]
        for child in self._children:
            child.answer()

    def measure(self, size: SessionSize, turn_s: float) -> None:
        """Let all of them work for a turn."""
        for child in self._children:
            child.tell((size, turn_s))
        answers: list[list[float]] = [child.answer() for child in self._children]
        self.rates[size].append(sum(len(times_ms) * 1e3 / sum(times_ms) for times_ms in answers))
        self.times_ms[size] += [time_ms for times_ms in answers for time_ms in times_ms]

    def close(self) -> None:
        """End the workers by the end of their input."""
        for child in self._children:
            child.close()


def measure(pair: ModelPair, workers: Sequence[int], threads: Sequence[int], rounds: int, turn_s: float) -> list[Row]:
    """Return a row for each number of workers, of threads in each, and size: `rounds` turns of `turn_s` seconds."""
    groups: list[Group] = []
    sizes: list[SessionSize] = [640] if pair.model_320 is None else [640, 320]
    try:
        groups += (Group(pair, count, each) for each in threads for count in workers)
        for _ in range(rounds):
            for size in sizes:
                for group in groups:
                    group.measure(size, turn_s)
    finally:
        for group in groups:
            group.close()
    return [_row(group, size) for size in sizes for group in groups]


def _row(group: Group, size: SessionSize) -> Row:
    times = spread(group.times_ms[size])
    return {
        "provider": "cpu",
        "threads": str(group.threads),
        "what": f"{size} in {group.workers} workers",
        "picture": "1080p",
        "min_ms": times.min_ms,
        "p50_ms": times.p50_ms,
        "p95_ms": times.p95_ms,
        "frames_s": round(float(np.median(group.rates[size])), 2),
    }


def _work(end: Connection, pair: ModelPair, threads: int) -> None:
    """Say when the pair is loaded, then work through whole frames for the time that is named; answer with theirs."""
    cv2.setNumThreads(1)
    subject = Subject(pair, "cpu", threads)
    frame = picture(*_FRAME)
    end.send([])
    for size, turn_s in asked(end):
        times = Times([], [])
        until = time.monotonic() + turn_s
        while not times.total or time.monotonic() < until:
            subject.path(frame, size, times)
        end.send(times.total)
