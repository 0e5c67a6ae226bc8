"""What the detector adds to a model inside the worker: a whole frame to its boxes, against `session.run` alone on the
same session, for both sizes apart and alternated, by picture size, threads and installed provider; then the processor
time that a frame costs at 1 Hz. `ratio` is that of a frame to `session.run`, of alternated to alone, of processor time
at 1 Hz to that of frames in a row. Blocks of each kind take turns, so that a busy machine troubles all alike. Each
combination of provider and threads has a process of its own.
"""

import argparse
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.inputs import default_pair
from benchmarks.report import Bar, Report, Row, add_plot_option, describe_model, publish, spread
from orion.lookup import ModelPair
from orion.messages import AttentionSettings, Crop, DetectorSpec, Pixels, SessionSize
from workers import check_image
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

    def raw(self, size: SessionSize, times: Times) -> None:
        """Time one inference without anything around it."""
        took_ms = self.pair.lanes[size].session.timed_run()
        times.inference.append(took_ms)
        times.total.append(took_ms)

    def path(self, frame: Pixels, size: SessionSize, times: Times) -> None:
        """Time one whole frame, from its pixels to its boxes and the region that they suggest."""
        height, width = frame.shape[:2]
        start = time.perf_counter()
        detections, timings = infer(self.pair, frame, Crop(0, 0, width, height, size))
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
    raw, path = Times([], []), Times([], [])
    for _ in range(plan.rounds):
        for number in range(_UNCOUNTED + plan.block):
            subject.raw(size, raw if number >= _UNCOUNTED else Times([], []))
        for number in range(_UNCOUNTED + plan.block):
            subject.path(frame, size, path if number >= _UNCOUNTED else Times([], []))
    alone = spread(raw.total).p50_ms
    around = [total - inference for total, inference in zip(path.total, path.inference, strict=True)]
    yield _row(f"{size} session.run", "", raw.total)
    yield _row(f"{size} frame to boxes", name, path.total) | {
        "around_min_ms": spread(around).min_ms,
        "around_p50_ms": spread(around).p50_ms,
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
        if limit is not None and "around_p50_ms" in row and row["threads"] == "1" and row["provider"] == "cpu":
            name = f"{row['picture']} through {size}, one thread, around the inference, p50 in ms"
            bars.append(Bar(name, row["around_p50_ms"], limit))
        if row["what"].endswith("alternated") and row["provider"] == "cpu":
            bars.append(Bar(f"{row['what']} over alone, {row['threads']} threads", row["ratio"], ALTERNATED_LIMIT))
    return bars


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
    files = {"640": pair.model_640, "320": pair.model_320}
    models = {size: describe_model(path) for size, path in files.items() if path is not None}
    publish(Report("detector", asdict(plan), rows, _bars(rows), models), arguments.plot)


if __name__ == "__main__":
    main()
