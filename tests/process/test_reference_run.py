"""The main job on a real video from end to end, scored against reference detections."""

from pathlib import Path

import numpy as np

from benchmarks.scoring import Score, load_reference, score_frame
from tests.instances import running


def test_every_frame_of_a_real_video_scores_like_the_reference(testdata: Path, tmp_path: Path) -> None:
    models, video = testdata / "models", testdata / "video" / "one_by_one_person.mp4"
    pair = ("--model", str(models / "yolo11n_fp32_640.onnx"), "--model-320", str(models / "yolo11n_fp32_320.onnx"))
    options = ("--source", str(video), *pair, "--attention", "off", "--every-frame", "--confidence", "0.4")
    with running(tmp_path, *options) as instance:
        assert instance.process.wait(600) == 0, instance.errors()
        lines = instance.lines()
    assert [line["frame_seq"] for line in lines] == list(range(1394))
    assert {line["data"]["metadata"]["model_selected"] for line in lines} == {"640"}
    total = Score()
    reference = load_reference(testdata / "reference" / "one_by_one_person.yolo11n-640.json")
    for line, boxes in zip(lines, reference, strict=True):
        found = [tuple(detection["bbox"].values()) for detection in line["data"]["detections"]]
        total += score_frame(np.array(found, np.int32).reshape(-1, 4), boxes, confidence=0.4, iou=0.9)
    assert total.expected > 1000
    assert total.recall >= 0.99
    assert total.extra_share <= 0.01
