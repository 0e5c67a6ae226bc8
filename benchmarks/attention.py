"""What attention finds and saves on reference videos, against every frame whole through the 640 session. Both take
turns on each frame of one run, so that a busy machine troubles both alike. Recall and precision are those against the
videos' reference files or, where a video has none, against what the 640 finds on whole frames from 0.2 on; a held box
must overlap by 0.85.
`inference_saved` is by the inference times in the results, `wall_saved` by the time that a frame took altogether, and
`cost_saved` counts inferences, a 640 for what the planner takes it for, so that nothing else on the machine shows.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from benchmarks.attention_view import SideBySide, Timeline, draw_timelines
from benchmarks.footage import frames
from benchmarks.inputs import default_pair, testdata
from benchmarks.report import Bar, Report, Row, describe_model, plot_file, publish
from benchmarks.scoring import HELD_IOU, Reference, Score, load_reference, score_frame, xywh
from orion.lookup import ModelPair
from orion.messages import AttentionSettings, DetectorSpec, DetectRequest, Outcome, Pixels
from workers.boxes import Boxes, confidences, corners, overlaps
from workers.motion import Watch, picture_step, sample
from workers.person import PersonDetector

CONFIDENCE = 0.4
FAINT = 0.2
"""Confidence from which references have boxes; those below `CONFIDENCE` are neither missed nor extra."""
IOU = 0.5
SAME_IOU = 0.3
"""Overlap from which a reference box is the one of the frame before."""
HEIGHTS = (0.0, 0.15, 0.3, 0.5, 1.0)
"""Limits of the classes of person height, as shares of the frame's height."""
WALL_AGREES = 1.3
"""Most that the savings in wall time and in reported inference time may differ."""
MOTION_MS = 0.3
"""Most that the motion check of a 1080p frame may take, median."""
KINDS = {"attention": AttentionSettings(), "always": AttentionSettings(mode="off")}

LIMITS = {
    "one_by_one_person": (0.995, 0.99, 3.5),
    "worker_zone": (0.99, 0.98, 3.0),
    "classroom": (0.99, 0.99, 2.5),
    "store_aisle": (0.98, 0.95, 2.0),
    "people": (8 / 9, 0.0, 1.5),
}
"""Recall, precision and inference time saved that each video is held to."""


@dataclass(slots=True)
class Run:
    """What was measured on one video. `answers` and `reference` have an entry for each frame, (N, 4) corners."""

    video: str
    frame_size: tuple[int, int]
    answers: list[Boxes] = field(default_factory=list)
    reference: Reference = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    score: Score = field(default_factory=Score)
    inference_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    wall_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    cost_saved: float = 0.0
    trial_share: float = 0.0


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


def plan_of(outcome: Outcome, frame_size: tuple[int, int]) -> str:
    """Return what was done with a frame: `held`, `crop 320`, `crops 320`, `whole 320`, `whole 640`, `check 640`."""
    crops = () if outcome.roi_processing is None else outcome.roi_processing.crops
    if not crops:
        return "held" if outcome.inference == "held" else "whole 640"
    last = crops[-1]
    whole = (last.width, last.height) == frame_size
    if len(crops) > 1:
        return "check 640" if last.model == 640 else f"crops {last.model}"
    return f"{'whole' if whole else 'crop'} {last.model}"


def _conclude(run: Run, detector: PersonDetector) -> None:
    stats = detector.attention_stats(f"{run.video} attention")
    ratio = detector.info.cost_ratio
    crops = [crop for outcome in run.outcomes if outcome.roi_processing for crop in outcome.roi_processing.crops]
    if stats is None:
        return
    spent = sum(ratio if crop.model == 640 else 1.0 for crop in crops) / (1 - stats.trial_share)
    run.cost_saved = len(run.outcomes) * ratio / spent
    run.trial_share = stats.trial_share


def newcomer_delays(answers: Sequence[Boxes], reference: Reference) -> list[int]:
    """Return for everybody who appears in the reference how many frames later an answer has them; the number of frames
    they could be seen for those whom none has.
    """
    delays: list[int] = []
    for number in range(1, len(reference)):
        before = _xyxy(reference[number - 1])
        people = _xyxy(reference[number][reference[number][:, 4] >= CONFIDENCE])
        new = people[overlaps(people, before).max(axis=1, initial=0.0) < SAME_IOU]
        delays += [_delay(box, answers[number:], reference[number:]) for box in new]
    return delays


def _delay(box: Boxes, answers: Sequence[Boxes], reference: Reference) -> int:
    for passed, (answer, known) in enumerate(zip(answers, reference, strict=True)):
        ratios = overlaps(box[None], _xyxy(known))[0]
        if ratios.max(initial=0.0) < SAME_IOU:
            return passed
        box = _xyxy(known)[ratios.argmax()]
        if overlaps(box[None], answer).max(initial=0.0) >= IOU:
            return passed
    return len(reference)


def _xyxy(reference: np.ndarray) -> Boxes:
    boxes: Boxes = np.concatenate([reference[:, :2], reference[:, :2] + reference[:, 2:4]], axis=1)
    return boxes


def summary(run: Run) -> Row:
    """Return the video's row of the report; delays of newcomers are in frames."""
    delays = newcomer_delays(run.answers, run.reference)
    p50, p95, most = np.percentile(delays, [50, 95, 100]).tolist() if delays else (None, None, None)
    return {
        "what": run.video,
        "frames": len(run.plans),
        "people": run.score.expected,
        "recall": round(run.score.recall, 4),
        "precision": round(1 - run.score.extra / max(run.score.found, 1), 4),
        "inference_saved": round(run.inference_ms["always"] / run.inference_ms["attention"], 2),
        "wall_saved": round(run.wall_ms["always"] / run.wall_ms["attention"], 2),
        "cost_saved": round(run.cost_saved, 2),
        "trial_share": round(run.trial_share, 3),
        "delay_p50": p50,
        "delay_p95": p95,
        "delay_max": most,
    }


def by_plan(run: Run) -> list[Row]:
    """Return how many of the video's frames each plan answered, and its recall there."""
    rows: list[Row] = []
    for plan, count in Counter(run.plans).most_common():
        score = Score()
        for used, answer, known in zip(run.plans, run.answers, run.reference, strict=True):
            if used == plan:
                found = np.concatenate([answer[:, :2], answer[:, 2:] - answer[:, :2]], axis=1).astype(np.int32)
                score += score_frame(found, known, confidence=CONFIDENCE, iou=IOU, held=plan == "held")
        share = round(count / len(run.plans), 3)
        what = f"{run.video}: {plan}"
        rows.append({"what": what, "frames": count, "share": share, "people": score.expected, "recall": score.recall})
    return rows


def by_height(runs: Sequence[Run]) -> list[Row]:
    """Return the recall of each plan against how tall people are in the frame."""
    counts: dict[tuple[str, int], list[int]] = {}
    for run in runs:
        for plan, answer, known in zip(run.plans, run.answers, run.reference, strict=True):
            least = HELD_IOU if plan == "held" else IOU
            for box in _xyxy(known[known[:, 4] >= CONFIDENCE]):
                share = (box[3] - box[1]) / run.frame_size[1]
                place = min(int(np.searchsorted(HEIGHTS, share, side="right")) - 1, len(HEIGHTS) - 2)
                tally = counts.setdefault((plan, place), [0, 0])
                tally[0] += int(overlaps(box[None], answer).max(initial=0.0) >= least)
                tally[1] += 1
    return [
        {"what": f"{plan}, {HEIGHTS[at]:.0%} to {HEIGHTS[at + 1]:.0%} tall", "people": of, "recall": hits / of}
        for (plan, at), (hits, of) in sorted(counts.items())
    ]


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
            recall, precision, saved = LIMITS[row["what"]]
            found += [
                Bar(f"{row['what']}: people missed", round(1 - row["recall"], 4), round(1 - recall, 4)),
                Bar(
                    f"{row['what']}: boxes beyond the reference",
                    round(1 - row["precision"], 4),
                    round(1 - precision, 4),
                ),
                Bar(
                    f"{row['what']}: share of inference time",
                    round(1 / row["inference_saved"], 3),
                    round(1 / saved, 3),
                ),
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
        str(pair.model_640), small, CONFIDENCE, 0.45, ("person",), arguments.provider, arguments.threads
    )
    detector, judge = PersonDetector(spec), PersonDetector(replace(spec, model_320=None, confidence=FAINT))
    runs = []
    for video in arguments.videos:
        with ExitStack() as stack:
            film = stack.enter_context(SideBySide(arguments.film, video)) if arguments.film else None
            runs.append(measure(detector, judge, video, arguments.frames, film))
    rows = [*(summary(run) for run in runs), motion_check()]
    settings = {"threads": arguments.threads, "provider": arguments.provider, "cost_ratio": detector.info.cost_ratio}
    detector.close()
    judge.close()
    files = {"640": pair.model_640, "320": pair.model_320}
    models = {size: describe_model(path) for size, path in files.items() if path is not None}
    details = [row for run in runs for row in by_plan(run)] + by_height(runs)
    publish(Report("attention", settings, rows + details, bars(rows), models))
    if arguments.plot is not None:
        draw_timelines([Timeline(run.video, run.frame_size, run.outcomes, run.plans) for run in runs], arguments.plot)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention", description="Attention on reference videos."
    )
    parser.add_argument("--videos", nargs="+", type=Path, metavar="FILE", help="default: those of the test data")
    parser.add_argument("--frames", type=int, metavar="N", help="stop each video after so many frames")
    parser.add_argument("--model", type=Path, metavar="FILE", help="the 640 (default: the test data's, or embedded)")
    parser.add_argument("--model-320", type=Path, metavar="FILE", help="the 320 that goes with --model")
    parser.add_argument("--provider", default="cpu", metavar="NAME", help="default cpu")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="boxes, crops and plan over time (extra `plot`)")
    parser.add_argument("--film", type=Path, metavar="FOLDER", help="also write side-by-side videos into this folder")
    arguments = parser.parse_args()
    if not arguments.videos:
        folder = testdata()
        if folder is None:
            parser.error("there is no test data: name videos with --videos")
        arguments.videos = sorted((folder / "video").glob("*.mp4"))
    return arguments


if __name__ == "__main__":
    main()
