"""How many of the people on the test videos each model finds on whole frames: the embedded pair and the YOLO11n pair,
against the reference detections, at the default confidence. It does not depend on time. Runs in one process.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.footage import frames
from benchmarks.inputs import default_pair, testdata
from benchmarks.report import Report, Row, describe_model, publish
from benchmarks.scoring import Reference, Score, load_reference, score_frame, xywh
from orion.config import PersonDetectorConfig
from orion.lookup import ModelPair, find_pair
from orion.messages import Crop, DetectorSpec, Pixels, SessionSize
from workers.pair import SessionPair
from workers.pipeline import infer

_SIZES: tuple[SessionSize, SessionSize] = (320, 640)
_CONFIDENCE, _IOU = 0.5, 0.5
_REFERENCE_CONFIDENCE = 0.4


def measure(videos: Path, every: int, pairs: dict[str, ModelPair]) -> list[Row]:
    """Return a row for each video, with the counts of each model and size over every `every`-th frame."""
    cv2.setNumThreads(1)
    loaded = {name: SessionPair.load(_spec(pair)) for name, pair in pairs.items()}
    rows = []
    for path in sorted((videos / "video").glob("*.mp4")):
        reference = load_reference(videos / "reference" / f"{path.stem}.yolo11n-640.json")
        rows.extend(_rows(path, reference, every, loaded))
    for pair in loaded.values():
        pair.close()
    return rows


def _spec(pair: ModelPair) -> DetectorSpec:
    small = None if pair.model_320 is None else str(pair.model_320)
    return DetectorSpec(str(pair.model_640), small, _CONFIDENCE, 0.45, ("person",), "cpu", 2)


def _rows(path: Path, reference: Reference, every: int, pairs: dict[str, SessionPair]) -> list[Row]:
    pictures = list(frames(path, every))
    rows = []
    for name, pair in pairs.items():
        for size in _SIZES:
            score = sum((_score(pair, size, frame, reference[number]) for number, _, frame in pictures), Score())
            rows.append(
                {"video": path.stem, "model": f"{name} {size}", "frames": len(pictures)}
                | asdict(score)
                | {"recall": round(score.recall, 3)}
            )
    return rows


def _score(pair: SessionPair, size: SessionSize, frame: Pixels, reference: NDArray[np.float64]) -> Score:
    height, width = frame.shape[:2]
    detections, _ = infer(pair, frame, Crop(0, 0, width, height, size))
    return score_frame(xywh(detections), reference, confidence=_REFERENCE_CONFIDENCE, iou=_IOU)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall", description="Who is found by which model.")
    parser.add_argument("--every", type=int, default=5, metavar="N", help="score every N-th frame (default 5)")
    every = parser.parse_args().every
    if every < 1:
        parser.error(f"argument --every: must be at least 1, not {every}")
    folder = testdata()
    if folder is None:
        sys.exit("needs the test data: a folder ../shared/testdata, or the one that ORION_TESTDATA names")
    pairs = {"embedded": find_pair(PersonDetectorConfig()), "YOLO11n": default_pair()}
    rows = measure(folder, every, pairs)
    models = {f"{name} 640": describe_model(pair.model_640) for name, pair in pairs.items()}
    settings = {"every": every, "confidence": _CONFIDENCE, "iou": _IOU, "reference_confidence": _REFERENCE_CONFIDENCE}
    publish(Report("recall", settings, rows, models=models))


if __name__ == "__main__":
    main()
