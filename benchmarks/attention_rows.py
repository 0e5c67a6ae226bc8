"""What the answers to a video amount to, against its reference: rows of the attention benchmark. Pure; runs in the main
thread of the benchmark or of a test.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.report import Row
from benchmarks.scoring import HELD_IOU, Reference, Score, score_frame
from orion.messages import AttentionSettings, Outcome
from workers.boxes import Boxes, overlaps

CONFIDENCE = 0.4
"""Confidence from which a reference box must be found; fainter ones are neither missed nor extra."""
IOU = 0.5
SAME_IOU = 0.3
"""Overlap from which a reference box is the one of the frame before."""
HEIGHTS = (0.0, 0.15, 0.3, 0.5, 1.0)
"""Limits of the classes of person height, as shares of the frame's height."""
KINDS = {"attention": AttentionSettings(), "always": AttentionSettings(mode="off")}


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


def plan_of(outcome: Outcome, frame_size: tuple[int, int]) -> str:
    """Return what was done with a frame: `held`, `crop 320`, `crops 320`, `whole 320`, `whole 640`, `check 640`, or
    `search 640` where somebody was looked for beside that.
    """
    crops = () if outcome.roi_processing is None else outcome.roi_processing.crops
    if not crops:
        return "held" if outcome.inference == "held" else "whole 640"
    last, everything = crops[-1], [crop for crop in crops if (crop.width, crop.height) == frame_size]
    sought = outcome.roi_processing is not None and outcome.roi_processing.reason == "vanished"
    if sought or any(crop.model == 640 and crop is not last for crop in everything):
        return "search 640"
    if last in everything:
        return f"whole {last.model}" if len(crops) == 1 else "check 640"
    return "crops 320" if last.model == 320 and len(crops) > 1 else f"crop {last.model}"


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
        "extra": run.score.extra,
        "kept": sum(one.kept for outcome in run.outcomes for one in outcome.detections),
        "vanished": len({gone for outcome in run.outcomes for gone in outcome.known.vanished}),
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
