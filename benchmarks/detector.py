"""What the detector adds to a model inside the worker: a whole frame to its boxes, against `session.run` alone on the
same session and on the file as it was exported, for both sizes apart and alternated, by picture size, threads and
installed provider; then the processor time that a frame costs at 1 Hz, several workers side by side, and the drop-in
worker over its pipes. `ratio` is that of a frame to `session.run`, of alternated to alone, of processor time at 1 Hz to
that of frames in a row, of a round trip to the inference in it.

`around` is all but the inference. The frame lies in shared memory, where another process has just written it, as it is
when a worker waits for its camera; `cold` is the same for a frame that was written before the last inference, which has
emptied the caches since, as it is when the camera is faster than the worker. `hot` is the same work in a row without
inferences between, and `resize` OpenCV's bilinear resize alone after an inference, of a frame just written. Blocks of
each kind take turns, so that a busy machine troubles all alike. Each combination of provider and threads has a process
of its own.
"""

import argparse
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from benchmarks import dropin_trips, several
from benchmarks.inputs import default_pair
from benchmarks.report import Bar, Report, Row, add_plot_option, describe_model, publish, spread
from benchmarks.subject import UNCOUNTED, Subject, Times, WrittenFrame, picture
from orion.lookup import ModelPair
from orion.messages import Pixels, SessionSize
from workers.runtime import installed_providers

PICTURES = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
AROUND_LIMITS_MS = {("1080p", "640"): 0.6, ("1080p", "320"): 0.3, ("4K", "640"): 0.7, ("4K", "320"): 0.35}
"""What may be spent around the inference of a frame on one thread."""
INFERENCE_MS = {"640": 37.0, "320": 9.5}
"""What the inference of YOLO11n took on one thread of the machine that these limits were set on. A machine on which it
takes longer has as much longer for the rest, so the limits are checked as shares of the inference too.
"""
ALTERNATED_LIMIT = 1.15
"""A session alternated with the other, over the session alone."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured; a round is one block of runs of each kind, and a turn of each group of workers."""

    pictures: Sequence[str]
    threads: Sequence[int]
    providers: Sequence[str]
    workers: Sequence[int]
    rounds: int
    block: int
    idle_frames: int
    turn_s: float


def measure(pair: ModelPair, provider: str, threads: int, plan: Plan) -> list[Row]:
    """Return the rows of one provider with that many threads."""
    cv2.setNumThreads(1)
    subject = Subject(pair, provider, threads)
    head: Row = {"provider": subject.pair.info.sessions[0].provider, "threads": str(threads)}
    rows: list[Row] = []
    for name in plan.pictures:
        with closing(WrittenFrame(picture(*PICTURES[name]))) as frame:
            for size in subject.sizes:
                rows += [head | row for row in _measure_size(subject, frame, name, size, plan)]
    if len(subject.sizes) == 2:
        rows += [head | row for row in _alternate(subject, picture(*PICTURES["1080p"]), plan)]
    rows += [head | row for row in _idle(subject, plan)]
    return rows


def _measure_size(subject: Subject, frame: WrittenFrame, name: str, size: SessionSize, plan: Plan) -> Iterator[Row]:
    exported, raw, path, cold, resize, hot = (Times([], []) for _ in range(6))
    for _ in range(plan.rounds):
        for number in range(UNCOUNTED + plan.block):
            subject.exported(size, exported if number >= UNCOUNTED else Times([], []))
        for number in range(UNCOUNTED + plan.block):
            subject.raw(size, raw if number >= UNCOUNTED else Times([], []))
        for number in range(UNCOUNTED + plan.block):
            frame.write()
            subject.path(frame.pixels, size, path if number >= UNCOUNTED else Times([], []))
        for number in range(UNCOUNTED + plan.block):
            subject.path(frame.pixels, size, cold if number >= UNCOUNTED else Times([], []))
        subject.raw(size, Times([], []))
        frame.write()
        subject.resize(frame.pixels, size, resize)
        subject.hot(frame.pixels, size, hot)
    if exported.total:
        yield _row(f"{size} file as exported", "", exported.total)
    yield _row(f"{size} session.run", "", raw.total)
    yield _row(f"{size} frame to boxes", name, path.total) | {
        "around_min_ms": spread(path.around).min_ms,
        "around_p50_ms": spread(path.around).p50_ms,
        "around_share": round(spread(path.around).p50_ms / spread(raw.total).p50_ms, 4),
        "cold_p50_ms": spread(cold.around).p50_ms,
        "hot_p50_ms": spread(hot.total).p50_ms,
        "resize_p50_ms": spread(resize.total).p50_ms,
        "ratio": round(spread(path.total).p50_ms / spread(raw.total).p50_ms, 3),
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


def _bars(rows: Sequence[Row]) -> list[Bar]:
    bars = []
    for row in rows:
        size = row["what"].split()[0]
        limit = AROUND_LIMITS_MS.get((row["picture"], size))
        if limit is not None and "hot_p50_ms" in row and row["threads"] == "1" and row["provider"] == "cpu":
            name = f"{row['picture']} through {size}, one thread, around the inference, p50 in ms"
            bars.append(Bar(name, row["around_p50_ms"], limit))
            share = f"{row['picture']} through {size}, one thread, around the inference, as a share of it"
            bars.append(Bar(share, row["around_share"], round(limit / INFERENCE_MS[size], 4)))
            bars.append(Bar(f"{name}, caches emptied", row["cold_p50_ms"], limit))
            bars.append(Bar(f"{name}, without inferences between", row["hot_p50_ms"], limit))
        if row["what"].endswith("alternated") and row["provider"] == "cpu":
            bars.append(Bar(f"{row['what']} over alone, {row['threads']} threads", row["ratio"], ALTERNATED_LIMIT))
    return bars


def _in_a_process(pair: ModelPair, plan: Plan) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    rows: list[Row] = []
    for provider in plan.providers:
        for threads in plan.threads:
            # A pool of the standard library's other kind could not start the process that writes frames.
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                rows += executor.submit(measure, pair, provider, threads, plan).result()
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector", description="A frame, to its boxes.")
    parser.add_argument("--model", type=Path, metavar="FILE", help="the 640 (default: the test data's, or embedded)")
    parser.add_argument("--model-320", type=Path, metavar="FILE", help="the 320 that goes with --model")
    parser.add_argument("--pictures", nargs="*", choices=PICTURES, default=list(PICTURES), metavar="SIZE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N", help="default 1 2")
    parser.add_argument("--providers", nargs="*", default=list(installed_providers()), metavar="NAME")
    parser.add_argument("--workers", nargs="+", type=int, default=[], metavar="N", help="also so many side by side")
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help="turns of every kind of run (default 6)")
    parser.add_argument("--block", type=int, default=5, metavar="N", help="counted runs in a turn (default 5)")
    parser.add_argument("--idle-frames", type=int, default=5, metavar="N", help="frames at 1 Hz (default 5, 0: none)")
    parser.add_argument("--turn-s", type=float, default=2.0, metavar="S", help="a turn of a group of workers (2)")
    add_plot_option(parser)
    arguments = parser.parse_args()
    pair = ModelPair(arguments.model, arguments.model_320) if arguments.model else default_pair()
    plan = Plan(
        pictures=arguments.pictures,
        threads=arguments.threads,
        providers=arguments.providers,
        workers=arguments.workers,
        rounds=arguments.rounds,
        block=arguments.block,
        idle_frames=arguments.idle_frames,
        turn_s=arguments.turn_s,
    )
    rows = _in_a_process(pair, plan)
    rows += several.measure(pair, plan.workers, plan.threads, plan.rounds, plan.turn_s)
    rows += [row for threads in plan.threads for row in dropin_trips.measure(pair, threads, plan.rounds * plan.block)]
    files = {"640": pair.model_640, "320": pair.model_320}
    models = {size: describe_model(path) for size, path in files.items() if path is not None}
    publish(Report("detector", asdict(plan), rows, _bars(rows), models), arguments.plot)


if __name__ == "__main__":
    main()
