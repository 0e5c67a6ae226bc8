"""What attention finds and saves on reference videos, against every frame whole through the 640 session. Both take
turns on each frame of one run, so that a busy machine troubles both alike. Recall and precision are those against the
videos' reference files or, where a video has none, against what the 640 finds on whole frames from 0.2 on; a held box
must overlap by 0.85. Who is known stays from `KEEP` on, as shipped. Against `CONFIDENCE` alone that costs one box
in 1500 that is nobody's, and saves 4.6x instead of 3.7x of the cost over all videos (`benchmarks.keeping`, which tells
it of other thresholds too).
`inference_saved` is by the inference times in the results, `wall_saved` by the time that a frame took altogether, and
`cost_saved` counts inferences, a 640 for what the planner takes it for, so that nothing else on the machine shows;
looks for who vanished and trials are among them. Nobody vanishes in the videos, so `vanished` counts false ones.
By truth, with attention on and off at the shipped thresholds, `benchmarks.truth` tells what the 640 is no judge of.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from benchmarks import truth
from benchmarks.attention_rows import CONFIDENCE, IOU, KINDS, Run, by_height, by_plan, plan_of, summary
from benchmarks.attention_view import SideBySide, Timeline, draw_timelines
from benchmarks.fall_trial import KEEP, SURE
from benchmarks.footage import frames
from benchmarks.inputs import default_pair, testdata
from benchmarks.report import Bar, Report, Row, describe_model, plot_file, publish
from benchmarks.scoring import Reference, load_reference, score_frame, xywh
from orion.lookup import ModelPair
from orion.messages import DetectorSpec, DetectRequest, Outcome, Pixels
from workers.boxes import confidences, corners
from workers.motion import Watch, picture_step, sample
from workers.person import PersonDetector

FAINT = 0.2
"""Confidence from which references have boxes."""
WALL_AGREES = 1.3
"""Most that the savings in wall time and in reported inference time may differ."""
MOTION_MS = 0.3
"""Most that the motion check of a 1080p frame may take, median."""
PARTS = ("reference", "truth")

LIMITS = {
    "one_by_one_person": (0.995, 0.99, 5.0, 0),
    "worker_zone": (0.99, 0.98, 3.0, 1),
    "classroom": (0.99, 0.99, 2.5, 1),
    "store_aisle": (0.98, 0.95, 2.0, 1),
    "people": (8 / 9, 0.0, 1.2, 1),
}
"""Recall, precision and cost saved that each video is held to, and how many people at most may be said to have
vanished. (In the 23 frames of `people` somebody is half in view at the edge, for whom one streak of looks is spent.)
"""


def measure(
    detector: PersonDetector, judge: PersonDetector, video: Path, limit: int | None, film: SideBySide | None
) -> Run:
    """Send every frame of `video` through attention and whole through the 640, in turns; `judge` makes references."""
    known = _reference(video)
    run = Run(video.stem, (0, 0))
    for number, time_s, frame in islice(frames(video), limit):
        run.frame_size = frame.shape[1], frame.shape[0]
        outcomes: dict[str, Outcome] = {}
        for kind in sorted(KINDS, reverse=bool(number % 2)):
            request = DetectRequest(f"{video.stem} {kind}", time_s, settings=KINDS[kind])
            start = time.perf_counter()
            outcomes[kind] = detector.process(frame, request)
            run.wall_ms[kind] += (time.perf_counter() - start) * 1e3
            run.inference_ms[kind] += outcomes[kind].inference_ms
        _note(run, outcomes["attention"], _judged(judge, frame) if known is None else known[number])
        if film is not None:
            film.add(frame, outcomes["always"], outcomes["attention"])
    _conclude(run, detector)
    return run


def _reference(video: Path) -> Reference | None:
    file = next((video.parent.parent / "reference").glob(f"{video.stem}.*.json"), None)
    return None if file is None else load_reference(file)


def _judged(judge: PersonDetector, frame: Pixels) -> np.ndarray:
    found = judge.process(frame, DetectRequest("judge", 0.0, settings=KINDS["always"])).detections
    return np.concatenate([xywh(found), confidences(found)[:, None]], axis=1)


def _note(run: Run, outcome: Outcome, known: np.ndarray) -> None:
    held = outcome.inference == "held"
    run.score += score_frame(xywh(outcome.detections), known, confidence=CONFIDENCE, iou=IOU, held=held)
    run.reference.append(known)
    run.answers.append(corners(outcome.detections))
    run.outcomes.append(outcome)
    run.plans.append(plan_of(outcome, run.frame_size))


def _conclude(run: Run, detector: PersonDetector) -> None:
    stats = detector.attention_stats(f"{run.video} attention")
    ratio = detector.info.cost_ratio
    crops = [crop for outcome in run.outcomes if outcome.roi_processing for crop in outcome.roi_processing.crops]
    if stats is None:
        return
    spent = sum(ratio if crop.model == 640 else 1.0 for crop in crops) / (1 - stats.trial_share)
    run.cost_saved = len(run.outcomes) * ratio / spent
    run.trial_share = stats.trial_share


def motion_check(rounds: int = 200) -> Row:
    """Time what the motion check of one 1080p frame takes: the picture, the comparison, movers, and what is kept."""
    random = np.random.default_rng(1)
    noise = random.integers(0, 12, (1080, 1920, 3), np.uint8)
    scene = np.full((1080, 1920, 3), 90, np.uint8) + noise
    moved = scene.copy()
    moved[300:900, 800:1000] = 200
    people = np.array([[780.0, 280.0, 1020.0, 920.0]])
    watch = Watch(sample(scene), picture_step(1920, 1080))
    took_ms = []
    for number in range(rounds):
        start = time.perf_counter()
        picture = sample(moved if number % 2 else scene)
        watch.compare(picture, 0.1).movers(people)
        watch.look(picture, people, people)
        took_ms.append((time.perf_counter() - start) * 1e3)
    p50, p95 = (float(share) for share in np.percentile(took_ms, [50, 95]))
    return {"what": "motion check at 1080p", "frames": rounds, "p50_ms": round(p50, 3), "p95_ms": round(p95, 3)}


def bars(rows: Sequence[Row]) -> list[Bar]:
    """Return what the videos are held to, as limits from above."""
    found = []
    for row in rows:
        if row["what"] in LIMITS:
            recall, precision, saved, vanished = LIMITS[row["what"]]
            found += [
                Bar(f"{row['what']}: people missed", round(1 - row["recall"], 4), round(1 - recall, 4)),
                Bar(
                    f"{row['what']}: boxes beyond the reference",
                    round(1 - row["precision"], 4),
                    round(1 - precision, 4),
                ),
                Bar(f"{row['what']}: share of the cost", round(1 / row["cost_saved"], 3), round(1 / saved, 3)),
                Bar(f"{row['what']}: people said to have vanished", row["vanished"], vanished),
            ]
        if "p50_ms" in row:
            found.append(Bar("motion check at 1080p, ms", row["p50_ms"], MOTION_MS))
            continue
        agree = row["inference_saved"] / row["wall_saved"]
        found.append(
            Bar(f"{row['what']}: inference against wall time saved", round(max(agree, 1 / agree), 3), WALL_AGREES)
        )
    return found


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    if not sys.stderr.isatty():
        os.environ.setdefault("COLUMNS", "150")
    pair = ModelPair(arguments.model, arguments.model_320) if arguments.model else default_pair()
    small = None if pair.model_320 is None else str(pair.model_320)
    spec = DetectorSpec(
        str(pair.model_640), small, CONFIDENCE, 0.45, ("person",), arguments.provider, arguments.threads, KEEP
    )
    settings = {"threads": arguments.threads, "provider": arguments.provider, "confidence_keep": KEEP}
    rows: list[Row] = []
    details: list[Row] = []
    proven: list[Row] = []
    if "reference" in arguments.by:
        runs, settings["cost_ratio"] = _compare(spec, arguments)
        rows = [*(summary(run) for run in runs), motion_check()]
        details = [row for run in runs for row in by_plan(run)] + by_height(runs)
        if arguments.plot is not None:
            draw_timelines(
                [Timeline(run.video, run.frame_size, run.outcomes, run.plans) for run in runs], arguments.plot
            )
    folder = testdata()
    if "truth" in arguments.by and folder is not None:
        detector = PersonDetector(replace(spec, confidence=SURE))
        proven = truth.measure(detector, folder, arguments.frames)
        detector.close()
    files = {"640": pair.model_640, "320": pair.model_320}
    models = {size: describe_model(path) for size, path in files.items() if path is not None}
    found = [*bars(rows), *truth.bars(proven)]
    publish(Report("attention", settings, rows + proven + details, found, models))


def _compare(spec: DetectorSpec, arguments: argparse.Namespace) -> tuple[list[Run], float]:
    """Return what came of every video, and what a 640 inference costs in units of a 320 one."""
    detector = PersonDetector(spec)
    judge = PersonDetector(replace(spec, model_320=None, confidence=FAINT, confidence_keep=None))
    runs = []
    for video in arguments.videos:
        with ExitStack() as stack:
            film = stack.enter_context(SideBySide(arguments.film, video)) if arguments.film else None
            runs.append(measure(detector, judge, video, arguments.frames, film))
    ratio = detector.info.cost_ratio
    detector.close()
    judge.close()
    return runs, ratio


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention", description="Attention on reference videos."
    )
    parser.add_argument("--videos", nargs="+", type=Path, metavar="FILE", help="default: those of the test data")
    parser.add_argument("--frames", type=int, metavar="N", help="stop each video after so many frames")
    parser.add_argument(
        "--by", nargs="+", choices=PARTS, help="what to measure against (default: both; with --videos the reference)"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="the 640 (default: the test data's, or embedded)")
    parser.add_argument("--model-320", type=Path, metavar="FILE", help="the 320 that goes with --model")
    parser.add_argument("--provider", default="cpu", metavar="NAME", help="default cpu")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="boxes, crops and plan over time (extra `plot`)")
    parser.add_argument("--film", type=Path, metavar="FOLDER", help="also write side-by-side videos into this folder")
    arguments = parser.parse_args()
    arguments.by = arguments.by or (("reference",) if arguments.videos else PARTS)
    folder = testdata()
    if folder is None and (not arguments.videos or "truth" in arguments.by):
        parser.error("there is no test data: name videos with --videos, and measure by the reference alone")
    if not arguments.videos and folder is not None:
        arguments.videos = sorted((folder / "video").glob("*.mp4"))
    return arguments


if __name__ == "__main__":
    main()
