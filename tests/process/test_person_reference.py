from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.scoring import Score, load_reference, score_frame
from orion.messages import AttentionSettings, DetectorSpec, DetectRequest, Pixels
from workers.person import PersonDetector

WHOLE = AttentionSettings(mode="off")


@pytest.fixture(scope="module")
def detector(testdata: Path) -> Iterator[PersonDetector]:
    models = testdata / "models"
    paths = str(models / "yolo11n_fp32_640.onnx"), str(models / "yolo11n_fp32_320.onnx")
    detector = PersonDetector(DetectorSpec(*paths, 0.4, 0.45, ("person",), "cpu", 2))
    yield detector
    detector.close()


def frames(video: Path, step: int) -> Iterator[tuple[int, Pixels]]:
    capture = cv2.VideoCapture(str(video))
    number = 0
    while capture.grab():
        if number % step == 0:
            _, frame = capture.retrieve()
            yield number, np.asarray(frame, np.uint8)
        number += 1
    capture.release()


@pytest.mark.parametrize(
    ("name", "step"), [("one_by_one_person", 12), ("classroom", 9), ("store_aisle", 9), ("worker_zone", 9)]
)
def test_whole_frames_score_like_the_reference(testdata: Path, detector: PersonDetector, name: str, step: int) -> None:
    reference = load_reference(testdata / "reference" / f"{name}.yolo11n-640.json")
    total = Score()
    for number, frame in frames(testdata / "video" / f"{name}.mp4", step):
        outcome = detector.process(frame, DetectRequest("cam0", number / 10, settings=WHOLE))
        total += score_frame(outcome.detections.xywh, reference[number], confidence=0.4, iou=0.9)
    assert total.expected > 0
    assert total.recall >= 0.99
    assert total.extra_share <= 0.01


def test_the_four_people_at_the_bus(testdata: Path, detector: PersonDetector) -> None:
    bus = cv2.imread(str(testdata / "bus.jpg"))
    assert bus is not None
    outcome = detector.process(np.asarray(bus, np.uint8), DetectRequest("cam0", 0.0, settings=WHOLE))
    assert outcome.detections.confidence == pytest.approx([0.90, 0.83, 0.83, 0.57], abs=0.02)
    info = detector.info
    assert (info.model_name, info.model_size, [session.size for session in info.sessions]) == (
        "yolo11n",
        "n",
        [640, 320],
    )
    assert info.cost_ratio >= 1.5
