from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.scoring import xywh
from orion.messages import DetectorSpec, DetectRequest, Outcome, Pixels
from tests.models import picture, placed, seeing
from workers.person import PersonDetector

FRAMES = [(1920, 1080), (640, 480), (1280, 1024), (600, 600), (480, 854), (1080, 1920)]


def spec(path_640: Path, path_320: Path | None = None, **changes: Any) -> DetectorSpec:
    small = None if path_320 is None else str(path_320)
    return replace(DetectorSpec(str(path_640), small, 0.4, 0.45, ("person",), "cpu", 1), **changes)


def detect(path: Path, frame: Pixels, **changes: Any) -> Outcome:
    detector = PersonDetector(spec(path, **changes))
    outcome = detector.process(frame, DetectRequest("cam0", 0.0))
    detector.close()
    return outcome


def letterboxed(box: Sequence[float], width: int, height: int, side: int = 640) -> list[float]:
    """Map x, y, w, h of a frame to x1, y1, x2, y2 of the input, as Ultralytics does, independently of the code."""
    gain = min(side / width, side / height)
    inner = (int(width * gain + 1e-9), int(height * gain + 1e-9))
    pad = ((side - inner[0]) // 2, (side - inner[1]) // 2)
    x, y, w, h = box
    gx, gy = inner[0] / width, inner[1] / height
    return [x * gx + pad[0], y * gy + pad[1], (x + w) * gx + pad[0], (y + h) * gy + pad[1]]


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    near = np.maximum(a[:2], b[:2])
    far = np.minimum(np.add(a[:2], a[2:]), np.add(b[:2], b[2:]))
    common = np.clip(far - near, 0, None).prod()
    return float(common / (a[2] * a[3] + b[2] * b[3] - common))


@pytest.mark.parametrize(("width", "height"), FRAMES)
def test_boxes_come_back_where_the_model_saw_them(tmp_path: Path, width: int, height: int) -> None:
    """At the corners, along the edges, in the middle, 40 px and less."""
    wanted = []
    for w, h in ((40, 40), (97, 233), (7, 5), (2, 3)):
        for x in (0, (width - w) // 2, width - w):
            wanted += [(x, y, w, h) for y in (0, (height - h) // 2, height - h)]
    for start in range(0, len(wanted), 9):
        batch = wanted[start : start + 9]
        rows = [[*letterboxed(box, width, height), 0.9 - 0.05 * i, 0] for i, box in enumerate(batch)]
        outcome = detect(placed(tmp_path / f"m{start}.onnx", 640, rows), np.zeros((height, width, 3), np.uint8))
        assert len(outcome.detections) == len(batch)
        for box, found in zip(batch, xywh(outcome.detections), strict=True):
            edges = np.abs(
                np.subtract([*box[:2], box[0] + box[2], box[1] + box[3]], [*found[:2], *(found[:2] + found[2:])])
            )
            assert edges.max() <= 1
            assert min(box[2:]) < 40 or iou(box, found) >= 0.95


@pytest.mark.parametrize(("width", "height"), FRAMES)
def test_what_is_in_the_picture_is_found_there(tmp_path: Path, width: int, height: int) -> None:
    patches = [(0, 0, 120, 200), (width - 150, height // 3, 150, 140), (width // 4, height - 90, 200, 90)]
    outcome = detect(seeing(tmp_path / "seeing.onnx", 640), picture(width, height, patches))
    assert len(outcome.detections) == 3
    for patch in patches:
        assert max(iou(patch, found) for found in xywh(outcome.detections)) >= 0.95


def test_person_is_found_by_name_wherever_it_is_in_the_list(tmp_path: Path) -> None:
    rows = [[100, 200, 180, 300, 0.9, 0], [300, 200, 380, 300, 0.8, 1]]
    path = placed(tmp_path / "two.onnx", 640, rows, names=("cat", "person"))
    outcome = detect(path, np.zeros((640, 640, 3), np.uint8))
    assert xywh(outcome.detections).tolist() == [[300, 200, 80, 100]]
    assert [one.class_id for one in outcome.detections] == [1]


def test_the_suggestion_is_that_of_the_contract(tmp_path: Path) -> None:
    boxes = [(100, 200, 80, 150), (500, 180, 90, 160)]
    rows = [[*letterboxed(box, 1920, 1080), 0.9, 0] for box in boxes]
    outcome = detect(placed(tmp_path / "m.onnx", 640, rows), np.zeros((1080, 1920, 3), np.uint8))
    roi = outcome.suggested_roi
    assert roi is not None
    assert [round(v, 3) for v in (roi.x, roi.y, roi.width, roi.height)] == [0.033, 0.155, 0.293, 0.181]
