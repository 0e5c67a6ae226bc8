"""What the detector adds to a model inside the worker: a whole frame to its boxes, against `session.run` alone on the
same session and on the file as it was exported, for both sizes apart and alternated, by picture size, threads and
installed provider; then the processor time that a frame costs at 1 Hz, and the drop-in worker over its pipes. `ratio`
is that of a frame to `session.run`, of alternated to alone, of processor time at 1 Hz to that of frames in a row, of a
round trip to the inference in it. `around` is all but the inference, `hot` the same work in a row without inferences
between, when the caches still have it, and `resize` OpenCV's resize alone right after an inference. Blocks of each
kind take turns, so that a busy machine troubles all alike. Each combination of provider and threads has a process of
its own.
"""

import argparse
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import msgpack
import numpy as np
import onnxruntime

from benchmarks.inputs import default_pair
from benchmarks.report import Bar, Report, Row, add_plot_option, describe_model, publish, spread
from orion.lookup import ModelPair
from orion.messages import AttentionSettings, Crop, DetectorSpec, Pixels, SessionSize
from workers import check_image
from workers.decode import decode
from workers.letterbox import interpolation, place
from workers.pair import SessionPair
from workers.pipeline import infer
from workers.session import installed_providers
from workers.suggest import suggest_region

PICTURES = {"720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
AROUND_LIMITS_MS = {("1080p", "640"): 0.6, ("1080p", "320"): 0.3, ("4k", "640"): 0.7, ("4k", "320"): 0.35}
"""What may be spent around the inference of a frame on one thread."""
ALTERNATED_LIMIT = 1.15
"""A session alternated with the other, over the session alone."""

_UNCOUNTED = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured; a round is one block of runs of each kind."""

    pictures: Sequence[str]
    threads: Sequence[int]
    providers: Sequence[str]
    rounds: int
    block: int
    idle_frames: int


@dataclass(slots=True)
class Times:
    """Durations in ms of one kind of run: the inference in it, and the whole from frame to boxes."""

    inference: list[float]
    total: list[float]


class Subject:
    """A loaded pair, and the runs that are timed on it."""

    def __init__(self, pair: ModelPair, provider: str, threads: int) -> None:
        small = None if pair.model_320 is None else str(pair.model_320)
        spec = DetectorSpec(str(pair.model_640), small, 0.4, 0.45, ("person",), provider, threads)
        self.pair = SessionPair.load(spec)
        self.sizes: list[SessionSize] = sorted(self.pair.lanes, reverse=True)
        self._exported: dict[SessionSize, Callable[[], object]] = {}
        if self.pair.info.sessions[0].provider == "cpu":
            self._exported = {
                size: _exported_run(lane.session.card.path, size, threads) for size, lane in self.pair.lanes.items()
            }

    def exported(self, size: SessionSize, times: Times) -> None:
        """Time one inference on the file as it was exported, whose input is floats; on `cpu` alone."""
        if size in self._exported:
            start = time.perf_counter()
            self._exported[size]()
            times.total.append((time.perf_counter() - start) * 1e3)

    def raw(self, size: SessionSize, times: Times) -> None:
        """Time one inference without anything around it."""
        took_ms = self.pair.lanes[size].session.timed_run()
        times.inference.append(took_ms)
        times.total.append(took_ms)

    def resize(self, frame: Pixels, size: SessionSize, times: Times) -> None:
        """Time OpenCV's resize of a whole frame into kept memory, right after an inference."""
        placement = place(whole(frame, size))
        small = np.empty((placement.height, placement.width, 3), np.uint8)
        self.pair.lanes[size].session.run()
        start = time.perf_counter()
        cv2.resize(frame, (placement.width, placement.height), dst=small, interpolation=interpolation(placement))
        times.total.append((time.perf_counter() - start) * 1e3)

    def hot(self, frame: Pixels, size: SessionSize, times: Times) -> None:
        """Time all that surrounds an inference, with the answer of the last one in its place."""
        height, width = frame.shape[:2]
        lane = self.pair.lanes[size]
        raw = lane.session.run()
        for _ in range(_UNCOUNTED + 1):
            start = time.perf_counter()
            placement = lane.letterbox.fill(frame, whole(frame, size))
            detections = decode(raw, lane.rules, placement, (width, height))
            suggest_region(detections, (width, height), AttentionSettings().expansion)
            took_ms = (time.perf_counter() - start) * 1e3
        times.total.append(took_ms)

    def path(self, frame: Pixels, size: SessionSize, times: Times) -> None:
        """Time one whole frame, from its pixels to its boxes and the region that they suggest."""
        height, width = frame.shape[:2]
        start = time.perf_counter()
        detections, timings = infer(self.pair, frame, whole(frame, size))
        suggest_region(detections, (width, height), AttentionSettings().expansion)
        times.total.append((time.perf_counter() - start) * 1e3)
        times.inference.append(timings.inference_ms)


def measure(pair: ModelPair, provider: str, threads: int, plan: Plan) -> list[Row]:
    """Return the rows of one provider with that many threads."""
    cv2.setNumThreads(1)
    subject = Subject(pair, provider, threads)
    head: Row = {"provider": subject.pair.info.sessions[0].provider, "threads": str(threads)}
    rows: list[Row] = []
    for name in plan.pictures:
        frame = picture(*PICTURES[name])
        for size in subject.sizes:
            rows += [head | row for row in _measure_size(subject, frame, name, size, plan)]
    if len(subject.sizes) == 2:
        rows += [head | row for row in _alternate(subject, picture(*PICTURES["1080p"]), plan)]
    rows += [head | row for row in _idle(subject, plan)]
    return rows


def _measure_size(subject: Subject, frame: Pixels, name: str, size: SessionSize, plan: Plan) -> Iterator[Row]:
    exported, raw, path, resize, hot = (Times([], []) for _ in range(5))
    for _ in range(plan.rounds):
        for number in range(_UNCOUNTED + plan.block):
            subject.exported(size, exported if number >= _UNCOUNTED else Times([], []))
        for number in range(_UNCOUNTED + plan.block):
            subject.raw(size, raw if number >= _UNCOUNTED else Times([], []))
        for number in range(_UNCOUNTED + plan.block):
            subject.path(frame, size, path if number >= _UNCOUNTED else Times([], []))
        subject.resize(frame, size, resize)
        subject.hot(frame, size, hot)
    alone = spread(raw.total).p50_ms
    around = [total - inference for total, inference in zip(path.total, path.inference, strict=True)]
    if exported.total:
        yield _row(f"{size} file as exported", "", exported.total)
    yield _row(f"{size} session.run", "", raw.total)
    yield _row(f"{size} frame to boxes", name, path.total) | {
        "around_min_ms": spread(around).min_ms,
        "around_p50_ms": spread(around).p50_ms,
        "hot_p50_ms": spread(hot.total).p50_ms,
        "resize_p50_ms": spread(resize.total).p50_ms,
        "ratio": round(spread(path.total).p50_ms / alone, 3),
    }


def _alternate(subject: Subject, frame: Pixels, plan: Plan) -> Iterator[Row]:
    """Time frames that go to 640 and 320 in turn, against blocks of each alone."""
    alone = {size: Times([], []) for size in subject.sizes}
    turns = {size: Times([], []) for size in subject.sizes}
    for _ in range(plan.rounds):
        for size in subject.sizes:
            for _ in range(plan.block):
                subject.path(frame, size, alone[size])
        for _ in range(plan.block):
            for size in subject.sizes:
                subject.path(frame, size, turns[size])
    for size in subject.sizes:
        ratio = round(spread(turns[size].total).p50_ms / spread(alone[size].total).p50_ms, 3)
        yield _row(f"{size} alternated", "1080p", turns[size].total) | {"ratio": ratio}


def _idle(subject: Subject, plan: Plan) -> Iterator[Row]:
    """Tell the processor time of a frame at 1 Hz, whatever spins after it included, against that of frames in a row."""
    if plan.idle_frames < 1:
        return
    frame = picture(*PICTURES["1080p"])
    pause = threading.Event()
    for size in subject.sizes:
        subject.path(frame, size, Times([], []))
        cost_ms = []
        for wait_s in (0.0, 1.0):
            start = time.process_time()
            for _ in range(plan.idle_frames):
                subject.path(frame, size, Times([], []))
                pause.wait(wait_s)
            cost_ms.append((time.process_time() - start) * 1e3 / plan.idle_frames)
        yield {
            "what": f"{size} at 1 Hz",
            "picture": "1080p",
            "cpu_ms": round(cost_ms[1], 1),
            "ratio": round(cost_ms[1] / cost_ms[0], 3),
        }


def _exported_run(path: str, size: int, threads: int) -> Callable[[], object]:
    """Return one inference on the file itself, with the options of Orion's sessions that keep two from fighting."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    floats = np.full((1, 3, size, size), 0.45, np.float16 if given.type == "tensor(float16)" else np.float32)
    return lambda: session.run(None, {given.name: floats})


def whole(frame: Pixels, size: SessionSize) -> Crop:
    """Return the crop that is the whole frame, for the session of that size."""
    height, width = frame.shape[:2]
    return Crop(0, 0, width, height, size)


def _row(what: str, picture_name: str, times_ms: Sequence[float]) -> Row:
    times = spread(times_ms)
    return {
        "what": what,
        "picture": picture_name,
        "min_ms": times.min_ms,
        "p50_ms": times.p50_ms,
        "p95_ms": times.p95_ms,
    }


def picture(width: int, height: int) -> Pixels:
    """Return a frame with a few drawn persons, so that there are boxes to decode."""
    tiles = np.tile(check_image.draw(), (2, 2, 1))
    return np.asarray(cv2.resize(tiles, (width, height)), np.uint8)


def _bars(rows: Sequence[Row]) -> list[Bar]:
    bars = []
    for row in rows:
        size = row["what"].split()[0]
        limit = AROUND_LIMITS_MS.get((row["picture"], size))
        if limit is not None and "hot_p50_ms" in row and row["threads"] == "1" and row["provider"] == "cpu":
            name = f"{row['picture']} through {size}, one thread, around the inference, p50 in ms"
            bars.append(Bar(name, row["around_p50_ms"], limit))
            bars.append(Bar(f"{name}, without inferences between", row["hot_p50_ms"], limit))
        if row["what"].endswith("alternated") and row["provider"] == "cpu":
            bars.append(Bar(f"{row['what']} over alone, {row['threads']} threads", row["ratio"], ALTERNATED_LIMIT))
    return bars


def _dropin(pair: ModelPair, threads: int, plan: Plan) -> list[Row]:
    """Time frames of 1080p to the drop-in worker and their answers back, over real pipes."""
    command = [sys.executable, "-m", "workers", "--model", str(pair.model_640), "--provider", "cpu"]
    command += ["--threads", str(threads), "--confidence", "0.4"]
    if pair.model_320 is not None:
        command += ["--model-320", str(pair.model_320)]
    frame = picture(*PICTURES["1080p"])
    sizes: list[SessionSize] = [640] if pair.model_320 is None else [640, 320]
    rows = []
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet) as worker:
        for size in sizes:
            trips, around = [], []
            for number in range(_UNCOUNTED + plan.rounds * plan.block):
                trip_ms, inference_ms = _round_trip(worker, frame, size)
                if number >= _UNCOUNTED:
                    trips.append(trip_ms)
                    around.append(trip_ms - inference_ms)
            outside = spread(around)
            rows.append(
                {"provider": "cpu", "threads": str(threads)}
                | _row(f"{size} drop-in over pipes", "1080p", trips)
                | {"around_min_ms": outside.min_ms, "around_p50_ms": outside.p50_ms}
                | {"ratio": round(spread(trips).p50_ms / (spread(trips).p50_ms - outside.p50_ms), 3)}
            )
    return rows


def _round_trip(worker: "subprocess.Popen[bytes]", frame: Pixels, size: SessionSize) -> tuple[float, float]:
    """Return the ms from a packed frame to its unpacked answer, and those of the inference in it."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    height, width = frame.shape[:2]
    meta = {"seq": 0, "roi_processing": {"target_size": size, "crop_applied": True}}
    start = time.perf_counter()
    body = msgpack.packb({"frame_data": frame.tobytes(), "width": width, "height": height, "meta": meta})
    worker.stdin.write(len(body).to_bytes(4, "big") + body)
    worker.stdin.flush()
    length = int.from_bytes(worker.stdout.read(4), "big")
    answer = msgpack.unpackb(worker.stdout.read(length))
    trip_ms = (time.perf_counter() - start) * 1e3
    if answer["data"]["metadata"]["imgsz"] != size:
        raise RuntimeError(f"the drop-in worker answered with another session than {size}")
    return trip_ms, float(answer["timing"]["inference_ms"])


def _in_a_process(pair: ModelPair, plan: Plan) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    rows: list[Row] = []
    for provider in plan.providers:
        for threads in plan.threads:
            with context.Pool(1) as pool:
                rows += pool.apply(measure, (pair, provider, threads, plan))
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector", description="A frame, to its boxes.")
    parser.add_argument("--model", type=Path, metavar="FILE", help="the 640 (default: the test data's, or embedded)")
    parser.add_argument("--model-320", type=Path, metavar="FILE", help="the 320 that goes with --model")
    parser.add_argument("--pictures", nargs="+", choices=PICTURES, default=list(PICTURES), metavar="SIZE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="default 1 2")
    parser.add_argument("--providers", nargs="+", default=list(installed_providers()), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help="turns of every kind of run (default 6)")
    parser.add_argument("--block", type=int, default=5, metavar="N", help="counted runs in a turn (default 5)")
    parser.add_argument("--idle-frames", type=int, default=5, metavar="N", help="frames at 1 Hz (default 5, 0: none)")
    add_plot_option(parser)
    arguments = parser.parse_args()
    pair = ModelPair(arguments.model, arguments.model_320) if arguments.model else default_pair()
    plan = Plan(
        pictures=arguments.pictures,
        threads=arguments.threads,
        providers=arguments.providers,
        rounds=arguments.rounds,
        block=arguments.block,
        idle_frames=arguments.idle_frames,
    )
    rows = _in_a_process(pair, plan)
    rows += [row for threads in plan.threads for row in _dropin(pair, threads, plan)]
    files = {"640": pair.model_640, "320": pair.model_320}
    models = {size: describe_model(path) for size, path in files.items() if path is not None}
    publish(Report("detector", asdict(plan), rows, _bars(rows), models), arguments.plot)


if __name__ == "__main__":
    main()
