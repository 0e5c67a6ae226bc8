"""Attention inside the detector, with small models that find bright patches: crops of pixels, boxes of the frame."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scoring import xywh
from orion.messages import AttentionSettings, DetectorSpec, DetectRequest, Outcome
from tests import models
from workers.pair import SessionPair
from workers.person import PersonDetector

WIDTH, HEIGHT = 960, 540
SETTINGS = AttentionSettings(cost_ratio=4.0)


def spec(folder: Path, *, small: bool = True) -> DetectorSpec:
    large = models.seeing(folder / "patch-640.onnx", 640)
    other = str(models.seeing(folder / "patch-320.onnx", 320)) if small else None
    return DetectorSpec(str(large), other, 0.4, 0.45, ("person",), "cpu", 1)


@pytest.fixture
def detector(tmp_path: Path) -> Iterator[PersonDetector]:
    detector = PersonDetector(spec(tmp_path))
    yield detector
    detector.close()


def see(detector: PersonDetector, number: int, left: int, stream_id: str = "cam0") -> Outcome:
    frame = models.picture(WIDTH, HEIGHT, [(left, 200, 60, 160)])
    return detector.process(frame, DetectRequest(stream_id, number / 10, settings=SETTINGS))


def test_boxes_from_crops_are_in_frame_pixels(detector: PersonDetector) -> None:
    outcomes = [see(detector, number, 300 + 8 * number) for number in range(12)]
    assert [outcome.inference for outcome in outcomes] == ["full"] + ["roi"] * 11
    for number, outcome in enumerate(outcomes):
        np.testing.assert_allclose(xywh(outcome.detections), [[300 + 8 * number, 200, 60, 160]], atol=2)
        assert outcome.model_selected == (320 if number else 640)
        assert outcome.inference_ms > 0
        assert outcome.suggested_roi is not None


def test_each_stream_has_its_own_attention_and_loses_it_when_forgotten(detector: PersonDetector) -> None:
    assert see(detector, 0, 300).inference == "full"
    assert see(detector, 0, 300, "cam1").inference == "full"
    assert see(detector, 1, 300).inference == "held"
    detector.forget("cam0")
    assert detector.attention_stats("cam0") is None
    assert see(detector, 2, 300).inference == "full"
    assert see(detector, 1, 300, "cam1").inference == "held"


def test_nothing_is_held_across_a_model_change(detector: PersonDetector, tmp_path: Path) -> None:
    see(detector, 0, 300)
    assert see(detector, 1, 300).inference == "held"
    detector.swap(SessionPair.load(spec(tmp_path)))
    changed = see(detector, 2, 300)
    assert changed.inference == "full"
    assert changed.roi_processing is not None
    assert changed.roi_processing.reason == "first"
    stats = detector.attention_stats("cam0")
    assert stats is not None
    assert dict(stats.reasons) == {"first": 2, "still": 1}


def test_a_model_without_a_320_runs_everything_through_the_640(tmp_path: Path) -> None:
    detector = PersonDetector(spec(tmp_path, small=False))
    outcomes = [see(detector, number, 300 + 8 * number) for number in range(6)]
    detector.close()
    assert {outcome.model_selected for outcome in outcomes} == {640}
    assert {outcome.inference for outcome in outcomes} == {"full"}
