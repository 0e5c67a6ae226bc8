"""What the pipeline adds to a model: from a frame's capture stamp to its result in the supervisor, against plain
`session.run` on the same file, for both sizes, in blocks that alternate in one run. The supervisor, capture thread,
ring and worker are the real ones, in this process and its child; attention is off. The raw sessions live in a process
of their own, so that neither side's threads slow the other. One frame at a time: the next is captured a pause after the
last result, and raw runs keep the same pause, since a processor that has slept is slower for both.
"""

import argparse
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from benchmarks.child import Child, asked
from benchmarks.fixed import FixedDetector
from benchmarks.inputs import default_pair
from benchmarks.report import Bar, Report, Row, add_plot_option, describe_model, publish, spread
from orion import dispatch
from orion.capture import CaptureSettings
from orion.errors import SourceError
from orion.lookup import ModelPair
from orion.mailbox import Mailbox
from orion.messages import AttentionSettings, Crop, DetectorInfo, DetectorSpec, DetectRequest, Outcome, Pixels
from orion.posts import Post
from orion.source import Source, SourceInfo
from orion.sources import make_source
from orion.stream import RingMaker, Stream, StreamSettings
from orion.supervisor import Supervisor, SupervisorSettings
from orion.worker import WorkerSpec
from workers.pair import SessionPair
from workers.pipeline import infer

DETECTORS = {640: "workers.person:PersonDetector", 320: "benchmarks.pipeline:SmallDetector"}
"""What runs whole frames through the session of a size."""
OPTIONS = ("default", "orion")
"""Raw sessions with onnxruntime's own options, and with those of Orion's sessions (which hardly spin)."""

_LIMIT_S = 120.0
"""For anything that another process or thread owes, loading a model included."""
_UNCOUNTED = 2
"""Runs at the start of a block that only warm up."""
_PICTURES = 8
_PICTURES_APART = 25
_SLOTS = 4


class SmallDetector(FixedDetector):
    """Runs whole frames through the 320 session, which the pipeline itself keeps for regions."""

    def __init__(self, spec: DetectorSpec) -> None:
        cv2.setNumThreads(1)
        self._pair = SessionPair.load(spec)

    @property
    def info(self) -> DetectorInfo:
        """What is loaded."""
        return self._pair.info

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:  # noqa: ARG002 - no request matters here
        """Return who is in the frame, as the 320 session sees it."""
        start = time.perf_counter()
        height, width = frame.shape[:2]
        detections, timings = infer(self._pair, frame, Crop(0, 0, width, height, 320))
        total_ms = (time.perf_counter() - start) * 1e3
        return Outcome(detections, "full", 320, None, None, **msgspec.structs.asdict(timings), total_ms=total_ms)

    def close(self) -> None:
        """Let go of the sessions."""
        self._pair.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured, and how; a round is one block of runs on each side."""

    source: str
    threads: int
    rounds: int
    block: int
    pause_ms: float


class RawSessions:
    """The process that holds the raw sessions of one model file, by the names in `OPTIONS`."""

    def __init__(self, model: Path, size: int, plan: Plan) -> None:
        self.times_ms: dict[str, list[float]] = {name: [] for name in OPTIONS}
        self._child = Child(serve_raw, str(model), size, plan)

    def measure(self) -> None:
        """Run one block of each session."""
        for name, times_ms in self.times_ms.items():
            self._child.tell(name)
            times_ms.extend(self._child.answer())

    def close(self) -> None:
        """End the process by the end of its input."""
        self._child.close()


def serve_raw(end: Connection, model: str, size: int, plan: Plan) -> None:
    """Answer the name of a session with the times in ms of a block of runs; what the raw process runs."""
    runs = {"default": _default_run(model, size, plan.threads), "orion": _orion_run(model, size, plan.threads)}
    pause = threading.Event()
    for name in asked(end):
        run = runs[name]
        times_ms = []
        for _ in range(_UNCOUNTED + plan.block):
            pause.wait(plan.pause_ms / 1e3)
            start = time.perf_counter()
            run()
            times_ms.append((time.perf_counter() - start) * 1e3)
        end.send(times_ms[_UNCOUNTED:])


def _default_run(model: str, size: int, threads: int) -> Callable[[], object]:
    import onnxruntime  # noqa: PLC0415 - only the raw process may load it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    tensor = np.random.default_rng(0).random((1, 3, size, size), np.float32)
    inputs = {session.get_inputs()[0].name: tensor}
    return lambda: session.run(None, inputs)


def _orion_run(model: str, size: int, threads: int) -> Callable[[], object]:
    from workers.session import Session  # noqa: PLC0415 - only the raw process may load it

    session = Session(model, 640 if size == 640 else 320, "cpu", threads)
    session.tensor[:] = np.random.default_rng(0).integers(0, 256, session.tensor.shape, np.uint8)
    return session.run


class TurnSource(Source):
    """Shows a few pictures over and over, each a pause after the answer to the one before; the raw sessions have their
    turn before each block.
    """

    kind = "device"

    def __init__(self, pictures: Sequence[Pixels], plan: Plan, raw: RawSessions) -> None:
        super().__init__(plan.source)
        self.answered = threading.Semaphore(1)
        self._pictures = pictures
        self._plan = plan
        self._raw = raw
        self._count = 0
        self._closed = threading.Event()

    def open(self) -> SourceInfo:
        """Tell the pictures' size."""
        height, width = self._pictures[0].shape[:2]
        return SourceInfo(width, height, None, None)

    def read(self, dst: Pixels) -> Pixels | None:
        """Write the next picture when its turn has come. Raises SourceError when no answer comes."""
        if not self.answered.acquire(timeout=_LIMIT_S):
            raise self.error("no answer")
        block = _UNCOUNTED + self._plan.block
        if self._count == self._plan.rounds * block:
            return None
        if self._count % block == 0:
            self._raw.measure()
        self._closed.wait(self._plan.pause_ms / 1e3)
        dst[:] = self._pictures[self._count % len(self._pictures)]
        self._count += 1
        return dst

    def skip(self) -> bool:
        """Refuse: every picture counts."""
        raise SourceError("a benchmark's frames are not skipped")

    def close(self) -> None:
        """End a pause."""
        self._closed.set()


@dataclass(slots=True)
class Collector:
    """The outlet: keeps results and lets the source go on."""

    answered: threading.Semaphore
    results: list[dict[str, Any]] = field(default_factory=list)

    def result(self, result: dict[str, Any], pixels: Callable[[], Pixels]) -> None:  # noqa: ARG002 - nothing is painted
        """Keep one result."""
        self.results.append(result)
        self.answered.release()

    def event(self, event: dict[str, Any]) -> None:
        """Let events pass."""

    def tick(self, describe: Callable[[], dict[str, Any]]) -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one size gave: raw times by options, and the pipeline's results in order."""

    raw_ms: dict[str, list[float]]
    results: list[dict[str, Any]]


@contextmanager
def _supervisor(stream_source: TurnSource, outlet: Collector, specs: list[WorkerSpec]) -> Iterator[Supervisor]:
    run_id = uuid.uuid4().hex[:12]
    mailbox: Mailbox[Post] = Mailbox()
    with ExitStack() as stack:
        stack.callback(mailbox.close)
        rings = RingMaker("bench", run_id, _SLOTS, print)
        settings = StreamSettings("cam0", "bench", stream_source.uri, AttentionSettings(mode="off"), CaptureSettings())
        stream = Stream(settings, stream_source, rings, mailbox)
        supervisor = Supervisor(
            SupervisorSettings("bench", "bench", run_id, specs, None), [stream], rings, mailbox, outlet
        )
        stack.callback(supervisor.close, 5.0)
        yield supervisor


def measure_size(pair: ModelPair, size: int, plan: Plan, pictures: Sequence[Pixels]) -> Measured:
    """Run all rounds with one size. Raises OrionError or RuntimeError when frames are not answered as they should."""
    model = pair.model_640 if size == 640 else pair.model_320
    if model is None:
        raise RuntimeError("the pair has no 320 model")
    detector = DetectorSpec(
        model_640=str(pair.model_640),
        model_320=None if pair.model_320 is None else str(pair.model_320),
        confidence=0.4,
        iou=0.45,
        classes=("person",),
        provider="cpu",
        threads=plan.threads,
    )
    spec = WorkerSpec("w0", "bench", os.getpid(), DETECTORS[size], detector, "warning", "text")
    with ExitStack() as stack:
        raw = RawSessions(model, size, plan)
        stack.callback(raw.close)
        source = TurnSource(pictures, plan, raw)
        outlet = Collector(source.answered)
        supervisor = stack.enter_context(_supervisor(source, outlet, [spec]))
        supervisor.run()
    check(outlet.results, size, len(pictures), plan.rounds * (_UNCOUNTED + plan.block))
    return Measured(raw.times_ms, outlet.results)


def check(results: Sequence[dict[str, Any]], size: int, pictures: int, expected: int) -> None:
    """Raise RuntimeError unless every frame was answered, in order, by the right session, and equal pictures alike."""
    if [result["frame_seq"] for result in results] != list(range(expected)):
        raise RuntimeError(f"{len(results)} of {expected} frames were answered, or not in order")
    for seq, result in enumerate(results):
        if result["data"]["metadata"]["imgsz"] != size:
            raise RuntimeError(f"frame {seq} went through the wrong session")
        if result["data"]["detections"] != results[seq % pictures]["data"]["detections"]:
            raise RuntimeError(f"frame {seq} is not answered like frame {seq % pictures}, which is the same picture")


def rows_of(size: int, measured: Measured, plan: Plan) -> list[Row]:
    """Return the rows of one size: the raw sessions, the frame to its result, and the stages on the way."""
    block = _UNCOUNTED + plan.block
    counted = [result for seq, result in enumerate(measured.results) if seq % block >= _UNCOUNTED]
    parts = {f"raw, {name} options": times_ms for name, times_ms in measured.raw_ms.items()}
    parts["frame to result"] = [result["latency"]["capture_to_result_ms"] for result in counted]
    parts["- to the worker"] = [result["latency"]["queue_ms"] for result in counted]
    for stage in ("preprocess_ms", "inference_ms", "postprocess_ms"):
        parts[f"- {stage.removesuffix('_ms')}"] = [result["timing"][stage] for result in counted]
    parts["- back"] = [_way_back_ms(result) for result in counted]
    return [{"size": str(size), "part": name, **asdict(spread(times_ms))} for name, times_ms in parts.items()]


def _way_back_ms(result: dict[str, Any]) -> float:
    latency = result["latency"]
    elsewhere_ms: float = latency["queue_ms"] + result["timing"]["total_ms"]
    return float(latency["capture_to_result_ms"] - elsewhere_ms)


def _bars(rows: Sequence[Row]) -> list[Bar]:
    """Return the bars, which are for the 640 alone."""
    medians = {row["part"]: row["p50_ms"] for row in rows if row["size"] == "640"}
    return [
        Bar(f"640, frame to result against 1.05 raw ({name} options) + 1 ms, p50 in ms", found, 1.05 * raw + 1)
        for name in OPTIONS
        if (found := medians.get("frame to result")) and (raw := medians.get(f"raw, {name} options"))
    ]


def _pictures(uri: str) -> list[Pixels]:
    """Return a few pictures, spread over the first seconds of a source."""
    source = make_source(uri)
    info = source.open()
    try:
        return [picture for _ in range(_PICTURES) if (picture := _next_picture(source, info)) is not None]
    finally:
        source.close()


def _next_picture(source: Source, info: SourceInfo) -> Pixels | None:
    for _ in range(_PICTURES_APART - 1):
        source.skip()
    return source.read(np.empty((info.height, info.width, 3), np.uint8))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline", description="A frame, through to its result."
    )
    parser.add_argument("--sizes", nargs="+", type=int, choices=DETECTORS, default=list(DETECTORS), metavar="SIZE")
    parser.add_argument("--source", default="demo:1280x720@25", metavar="URI", help="default demo:1280x720@25")
    parser.add_argument("--model", type=Path, metavar="FILE", help="the 640 (default: the test data's, or embedded)")
    parser.add_argument("--model-320", type=Path, metavar="FILE", help="the 320 that goes with --model")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of a session (default: as `run` would)")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="turns of each side (default 30)")
    parser.add_argument("--block", type=int, default=5, metavar="N", help="counted runs in a turn (default 5)")
    parser.add_argument("--pause-ms", type=float, default=20.0, metavar="MS", help="before each run (default 20)")
    add_plot_option(parser)
    arguments = parser.parse_args()
    pair = ModelPair(arguments.model, arguments.model_320) if arguments.model else default_pair()
    _, threads = dispatch.shares(len(os.sched_getaffinity(0)), 1, None, arguments.threads)
    plan = Plan(arguments.source, threads, arguments.rounds, arguments.block, arguments.pause_ms)
    pictures = _pictures(plan.source)
    rows = [row for size in arguments.sizes for row in rows_of(size, measure_size(pair, size, plan, pictures), plan)]
    files = {"640": pair.model_640, "320": pair.model_320}
    models = {size: describe_model(path) for size, path in files.items() if path is not None}
    publish(Report("pipeline", asdict(plan), rows, _bars(rows), models), arguments.plot)


if __name__ == "__main__":
    main()
