"""What the two thresholds find and cost: `confidence`, from which who is new appears, and `confidence_keep`, from which
who is known stays. Every pair of them goes over the reference videos and the clips of which the truth is known, with
attention on; each look at a frame is run once, at the lowest threshold, for all that ask for it: boxes fainter than a
pair's `confidence_keep` suppress none of its boxes, so that leaving them out afterwards is the same. Runs in the main
thread, which owns the sessions.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from pathlib import Path

from benchmarks import truth
from benchmarks.attention_rows import CONFIDENCE, IOU
from benchmarks.fall_trial import COST_RATIO
from benchmarks.footage import frames
from benchmarks.inputs import default_pair, testdata
from benchmarks.report import Report, Row, describe_model, publish
from benchmarks.scoring import Score, load_reference, score_frame, xywh
from orion.messages import AttentionSettings, Crop, Detections, DetectorSpec, DetectRequest, Pixels, VanishedPerson
from workers.attention import Attended, Attention
from workers.boxes import corners
from workers.pair import SessionPair
from workers.pipeline import Timings, infer

SURE, KEEP = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4, 0.5)
_SETTINGS = AttentionSettings(cost_ratio=COST_RATIO)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A choice of both."""

    confidence: float
    keep: float


@dataclass(slots=True)
class Tally:
    """What one choice found so far."""

    score: Score = field(default_factory=Score)
    """Against the references."""
    kept: int = 0
    kept_by_truth: int = 0
    frames: int = 0
    """Of the reference videos."""
    units: float = 0.0
    """Inferences for them, in units of a 320 one, trials among them."""
    vanished: int = 0
    """People said to have vanished in the reference videos."""
    findings: list[truth.Findings] = field(default_factory=list)


class Looks:
    """All looks at one frame, each run once."""

    def __init__(self, pair: SessionPair, frame: Pixels) -> None:
        self._pair, self._frame = pair, frame
        self._found: dict[Crop, Detections] = {}

    def look(self, keep: float, crop: Crop) -> tuple[Detections, Timings]:
        """Return what `crop` shows from `keep` on."""
        if crop not in self._found:
            self._found[crop], _ = infer(self._pair, self._frame, crop)
        return tuple(one for one in self._found[crop] if one.confidence >= keep), Timings()


class Streams:
    """One stream, watched by attention with every choice of thresholds."""

    def __init__(self, pair: SessionPair, choices: Sequence[Thresholds]) -> None:
        self._pair = pair
        self.attention = {choice: Attention() for choice in choices}

    def process(self, frame: Pixels, time_s: float) -> dict[Thresholds, Attended]:
        """Return what each makes of the next frame."""
        looks, request = Looks(self._pair, frame), DetectRequest("keeping", time_s, settings=_SETTINGS)
        return {
            choice: attention.process(
                frame,
                request,
                partial(looks.look, choice.keep),
                COST_RATIO,
                confidence=choice.confidence,
                class_id=self._pair.class_id,
            )
            for choice, attention in self.attention.items()
        }


def score_video(pair: SessionPair, video: Path, tallies: dict[Thresholds, Tally], limit: int | None) -> None:
    """Add what each choice finds in a reference video."""
    reference = load_reference(video.parent.parent / "reference" / f"{video.stem}.yolo11n-640.json")
    streams = Streams(pair, list(tallies))
    units = dict.fromkeys(tallies, 0.0)
    vanished: dict[Thresholds, set[VanishedPerson]] = {choice: set() for choice in tallies}
    for number, time_s, frame in islice(frames(video), limit):
        for choice, seen in streams.process(frame, time_s).items():
            tally, held = tallies[choice], seen.inference == "held"
            boxes = xywh(seen.detections)
            tally.score += score_frame(boxes, reference[number], confidence=CONFIDENCE, iou=IOU, held=held)
            tally.kept += sum(one.kept for one in seen.detections)
            tally.frames += 1
            units[choice] += _units(seen)
            vanished[choice] |= set(seen.known.vanished)
    for choice, attention in streams.attention.items():
        tallies[choice].units += units[choice] / (1 - attention.stats.trial_share)
        tallies[choice].vanished += len(vanished[choice])


def _units(seen: Attended) -> float:
    crops = () if seen.roi_processing is None else seen.roi_processing.crops
    return sum(COST_RATIO if crop.model == 640 else 1.0 for crop in crops)


def judge_clip(pair: SessionPair, clip: truth.Clip, tallies: dict[Thresholds, Tally], limit: int | None) -> None:
    """Add what each choice says of a clip of which the truth is known."""
    streams = Streams(pair, list(tallies))
    said: dict[Thresholds, list[truth.Said]] = {choice: [] for choice in tallies}
    for view in islice(clip.views(), limit):
        for choice, seen in streams.process(view.picture, view.time_s).items():
            one = truth.Said(view.time_s, view.people, corners(seen.detections), seen.known.vanished)
            said[choice].append(one)
            tallies[choice].kept_by_truth += sum(box.kept for box in seen.detections)
    for choice, results in said.items():
        tallies[choice].findings.append(truth.judge(results, clip.begins, clip.settled))


def rows(tallies: dict[Thresholds, Tally]) -> list[Row]:
    """Return for every choice what it found of the references, and by truth."""
    names = [f"confidence {choice.confidence:g}, keep {choice.keep:g}" for choice in tallies]
    return [
        *({"what": name} | _agreement(tally) for name, tally in zip(names, tallies.values(), strict=True)),
        *({"what": f"{name}, by truth"} | _truth(tally) for name, tally in zip(names, tallies.values(), strict=True)),
    ]


def _agreement(tally: Tally) -> Row:
    return {
        "people": tally.score.expected,
        "recall": round(tally.score.recall, 4),
        "boxes": tally.score.found,
        "extra": tally.score.extra,
        "kept": tally.kept,
        "vanished": tally.vanished,
        "cost_saved": round(tally.frames * COST_RATIO / tally.units, 3) if tally.units else None,
    }


def _truth(tally: Tally) -> Row:
    people = sum(one.people for one in tally.findings)
    return {
        "true_boxes": people,
        "found_share": round(sum(one.found for one in tally.findings) / max(people, 1), 4),
        "extra": sum(one.extra for one in tally.findings),
        "kept": tally.kept_by_truth,
        "silence_s": max(one.silence_s for one in tally.findings),
        "nobody_s": max(one.nobody_s for one in tally.findings),
        "neither": sum(one.neither for one in tally.findings),
        "vanished": sum(one.vanished for one in tally.findings),
        "false_vanished": sum(one.false_vanished for one in tally.findings),
    }


def main() -> None:
    """Measure and report."""
    arguments, folder = _arguments()
    if not sys.stderr.isatty():
        os.environ.setdefault("COLUMNS", "150")
    # Who is known stays from `confidence` on at most.
    choices = [Thresholds(sure, keep) for sure, keep in product(arguments.confidence, arguments.keep) if keep <= sure]
    models, lowest = default_pair(), min(choice.keep for choice in choices)
    paths = str(models.model_640), None if models.model_320 is None else str(models.model_320)
    pair = SessionPair.load(DetectorSpec(*paths, lowest, 0.45, ("person",), "cpu", arguments.threads))
    tallies = {choice: Tally() for choice in choices}
    for video in sorted((folder / "video").glob("*.mp4")):
        score_video(pair, video, tallies, arguments.frames)
    for clip in truth.clips(folder):
        judge_clip(pair, clip, tallies, arguments.frames)
    pair.close()
    settings = {"threads": arguments.threads, "frames": arguments.frames, "cost_ratio": COST_RATIO}
    files = {"640": models.model_640, "320": models.model_320}
    described = {size: describe_model(path) for size, path in files.items() if path is not None}
    publish(Report("keeping", settings, rows(tallies), models=described))


def _arguments() -> tuple[argparse.Namespace, Path]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.keeping", description="What the thresholds find and cost."
    )
    parser.add_argument("--confidence", type=float, nargs="+", default=SURE, metavar="C", help="of who appears")
    parser.add_argument("--keep", type=float, nargs="+", default=KEEP, metavar="C", help="of who stays")
    parser.add_argument("--frames", type=int, metavar="N", help="stop each video and clip after so many frames")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default 1")
    arguments = parser.parse_args()
    if not any(keep <= sure for sure, keep in product(arguments.confidence, arguments.keep)):
        parser.error(f"no --keep of {arguments.keep} is at most a --confidence of {arguments.confidence}")
    folder = testdata()
    if folder is None:
        parser.error("needs the test data: a folder ../shared/testdata, or the one that ORION_TESTDATA names")
    return arguments, folder


if __name__ == "__main__":
    main()
