from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from benchmarks.footage import frames
from benchmarks.scoring import Score, load_reference, score_frame, xywh
from orion.messages import AttentionSettings, Crop, DetectorSpec, DetectRequest, SessionSize
from workers.person import PersonDetector

WHOLE = AttentionSettings(mode="off")


@pytest.fixture(scope="module")
def detector(testdata: Path) -> Iterator[PersonDetector]:
    models = testdata / "models"
    paths = str(models / "yolo11n_fp32_640.onnx"), str(models / "yolo11n_fp32_320.onnx")
    detector = PersonDetector(DetectorSpec(*paths, 0.4, 0.45, ("person",), "cpu", 2))
    yield detector
    detector.close()


@pytest.mark.parametrize(("name", "step"), [("classroom", 9), ("store_aisle", 9), ("worker_zone", 9)])
def test_whole_frames_score_like_the_reference(testdata: Path, detector: PersonDetector, name: str, step: int) -> None:
    reference = load_reference(testdata / "reference" / f"{name}.yolo11n-640.json")
    total = Score()
    for number, time_s, frame in frames(testdata / "video" / f"{name}.mp4", step):
        outcome = detector.process(frame, DetectRequest("cam0", time_s, settings=WHOLE))
        total += score_frame(xywh(outcome.detections), reference[number], confidence=0.4, iou=0.9)
    assert total.expected > 0
    assert total.recall >= 0.99
    assert total.extra_share <= 0.01


@pytest.mark.parametrize("size", [640, 320])
def test_boxes_are_those_of_the_plain_path(testdata: Path, detector: PersonDetector, size: SessionSize) -> None:
    """The plain path: letterbox in floats, the file as it was exported, and every box of the head kept."""
    path = str(testdata / "models" / f"yolo11n_fp32_{size}.onnx")
    plain = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    lane = detector._pair.lanes[size]
    bus = np.asarray(cv2.imread(str(testdata / "bus.jpg")), np.uint8)
    for width, height in ((810, 1080), (1920, 1080), (3840, 2160), (640, 480)):
        frame = np.asarray(cv2.resize(bus, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        lane.letterbox.fill(frame, Crop(0, 0, width, height, size))
        head = lane.session.run()[0]
        inner = max(1, width * size // max(width, height)), max(1, height * size // max(width, height))
        left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
        canvas = np.full((size, size, 3), 114 / 255, np.float32)
        canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(frame, inner)[..., ::-1] / np.float32(255)
        expected = plain.run(None, {"images": canvas.transpose(2, 0, 1)[None]})[0][0]
        assert np.abs(head[4] - expected[4]).max() <= 0.005
        likely = expected[4] > 0.2
        assert likely.any()
        scale = max(width, height) / size
        assert np.abs(head[:4, likely] - expected[:4, likely]).max() * scale <= 1


def test_the_four_people_at_the_bus(testdata: Path, detector: PersonDetector) -> None:
    bus = cv2.imread(str(testdata / "bus.jpg"))
    assert bus is not None
    outcome = detector.process(np.asarray(bus, np.uint8), DetectRequest("cam0", 0.0, settings=WHOLE))
    assert [one.confidence for one in outcome.detections] == pytest.approx([0.90, 0.83, 0.83, 0.57], abs=0.02)
    info = detector.info
    assert (info.model_name, info.model_size, [session.size for session in info.sessions]) == (
        "yolo11n",
        "n",
        [640, 320],
    )
    assert info.cost_ratio >= 1.5
