"""A supervisor in the test's own process, with real worker processes, rings and capture threads; results in a list."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orion.capture import CaptureSettings
from orion.mailbox import Mailbox
from orion.messages import AttentionSettings, DetectorSpec, Pixels
from orion.posts import Post, StopRequested
from orion.restart import RestartPolicy
from orion.source import Source
from orion.sources import make_source
from orion.stream import RingMaker, Stream, StreamSettings
from orion.supervisor import Supervisor, SupervisorSettings
from orion.worker import WorkerSpec


class Collected:
    """An outlet that keeps everything, and stops the supervisor when `enough` says so."""

    def __init__(self, mailbox: Mailbox[Post]) -> None:
        self.results: list[dict[str, Any]] = []
        self.times_s: list[float] = []
        self.events: list[dict[str, Any]] = []
        self.event_times_s: list[float] = []
        self.enough: Callable[[], bool] = lambda: False
        self.limit_s = time.monotonic() + 60
        self.timed_out = False
        self._mailbox = mailbox

    def result(self, result: dict[str, Any], pixels: Callable[[], Pixels]) -> None:
        self.results.append(result)
        self.times_s.append(time.monotonic())
        if self.enough():
            self._mailbox.post(StopRequested("enough"))

    def event(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.event_times_s.append(time.monotonic())

    def tick(self, describe: Callable[[], dict[str, Any]]) -> None:
        if time.monotonic() > self.limit_s:
            self.timed_out = True
            self._mailbox.post(StopRequested("took too long"))

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        return [event for event in self.events if event.get("event") == name]

    def of(self, stream_id: str) -> list[dict[str, Any]]:
        """Return the results of one stream."""
        return [result for result in self.results if result["stream_id"] == stream_id]


def frame_sizes(results: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return width and height of the frame of each result."""
    metadata = [result["data"]["metadata"] for result in results]
    return [(one["frame_width"], one["frame_height"]) for one in metadata]


def run_through(supervisor: Supervisor, collected: Collected, steps: Iterator[bool]) -> None:
    """Run, with a look at `steps` at each result, until one of them says that it was the last."""
    collected.enough = lambda: next(steps, True)
    supervisor.run()


def scripted_workers(
    scripts: Sequence[str], memory: Path, detector_class: str = "tests.detectors:Scripted"
) -> list[WorkerSpec]:
    """Return one worker for each script."""
    return [
        WorkerSpec(
            f"w{number}",
            "harness",
            os.getpid(),
            detector_class,
            DetectorSpec(script, str(memory / f"w{number}.done"), 0.5, 0.45, ("person",), "cpu", 1),
            "error",
            "text",
        )
        for number, script in enumerate(scripts)
    ]


def stream_settings(stream_id: str, capture: CaptureSettings | None = None) -> StreamSettings:
    """Return what a stream is made with."""
    return StreamSettings(stream_id, "room", "", AttentionSettings(), capture or CaptureSettings())


@contextmanager
def supervised(
    workers: Sequence[WorkerSpec],
    sources: Sequence[str | Source] = ("demo:160x120@30",),
    *,
    capture: CaptureSettings | None = None,
    policy: RestartPolicy | None = None,
    frame_deadline_s: float | None = None,
    memory_limit_mb: float = float("inf"),
    start_deadline_s: float = 60.0,
) -> Iterator[tuple[Supervisor, Collected]]:
    """Build a supervisor; `run` it in the block. Closes it, and checks that every frame is accounted for."""
    run_id, mailbox = uuid.uuid4().hex[:12], Mailbox[Post]()
    rings = RingMaker("harness", run_id, 3, lambda text: None)
    streams = []
    for number, given in enumerate(sources):
        source = make_source(given) if isinstance(given, str) else given
        streams.append(Stream(stream_settings(f"cam{number}", capture), source, rings, mailbox))
    collected = Collected(mailbox)
    policy = policy or RestartPolicy(jitter=0.0)
    told = SupervisorSettings(
        "harness", "room", run_id, workers, frame_deadline_s, policy, memory_limit_mb, start_deadline_s
    )
    supervisor = Supervisor(told, streams, rings, mailbox, collected)
    try:
        yield supervisor, collected
    finally:
        assert supervisor.close(4.0), "a capture thread did not end"
        mailbox.close()
        for stream in streams:
            accounts = stream.ledger.accounts()
            assert accounts.balanced, accounts
            assert accounts.in_flight == 0, accounts
    assert not collected.timed_out, "not enough within the limit"
