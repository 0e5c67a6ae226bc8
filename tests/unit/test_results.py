"""The published form of a result, field by field, and the file that results are written to."""

import array
import fcntl
import json
import os
import resource
import termios
from pathlib import Path

import pytest
from msgspec.structs import replace

from orion.errors import SourceError
from orion.ledger import Frame, Lease, Slot
from orion.messages import (
    Crop,
    Detection,
    DetectorInfo,
    FrameResult,
    InferenceKind,
    Known,
    Outcome,
    Region,
    RoiProcessing,
    Search,
    SessionInfo,
    VanishedPerson,
)
from orion.results import ResultWriter, publishable, timestamp
from tests.instances import until

IDENTITY = {"instance_id": "orion", "room_id": "room-01", "stream_id": "cam0", "run_id": "abc"}
FRAME = Frame(41, 2, 1920, 1080, 0, 1_700_000_000_123_456_789, 1.5, continuous=True)
LEASE = Lease(Slot("ring", 1), FRAME, "w0", 1)
INFO = DetectorInfo(
    "yolo11n",
    "n",
    (SessionInfo("/640", "aa", 640, "cpu", 1, 2), SessionInfo("/320", "bb", 320, "openvino", 1, 2)),
    3.5,
)
BOXES = (Detection(100, 200, 80, 150, 0.91234567, 0), Detection(500, 180, 90, 160, 0.5, 2))


def outcome(inference: InferenceKind = "full", roi: RoiProcessing | None = None) -> FrameResult:
    region = Region(0.0329427, 0.1548611, 0.2934895, 0.1810185)
    selected = roi.target_size if roi else 640
    return FrameResult(1, Outcome(BOXES, inference, selected, roi, region, 0.5, 20.0, 0.25, 20.75), 0.1)


def test_a_result_has_every_field() -> None:
    result = publishable(IDENTITY, LEASE, outcome(), INFO, None, 21.5, {})
    assert result["timestamp"] == "2023-11-14T22:13:20.123456Z"
    assert result["trace_id"] == "abc-cam0-41"
    assert (result["worker_id"], result["frame_seq"], result["type"]) == ("w0", 41, "person_detection")
    assert result["data"]["detections"] == [
        {"bbox": {"x": 100, "y": 200, "width": 80, "height": 150}, "confidence": 0.9123},
        {"bbox": {"x": 500, "y": 180, "width": 90, "height": 160}, "confidence": 0.5},
    ]
    assert result["data"]["count"] == 2
    assert result["data"]["vanished"] == []
    assert result["data"]["metadata"] == {
        "frame_width": 1920,
        "frame_height": 1080,
        "img_size": "640x640",
        "imgsz": 640,
        "model_name": "yolo11n",
        "model_size": "n",
        "model_sha256": "aa",
        "model_selected": "640",
        "provider": "cpu",
        "roi_attention": False,
        "inference": "full",
        "roi_processing": None,
        "processing_time_ms": 20.75,
    }
    assert result["timing"] == {
        "preprocess_ms": 0.5,
        "inference_ms": 20.0,
        "postprocess_ms": 0.25,
        "total_ms": 20.75,
    }
    assert result["latency"] == {"queue_ms": 0.1, "capture_to_result_ms": 21.5}
    assert {side: round(value, 3) for side, value in result["suggested_roi"].items()} == {
        "x": 0.033,
        "y": 0.155,
        "width": 0.293,
        "height": 0.181,
    }
    assert json.loads(json.dumps(result)) == result


def test_attention_is_told_with_the_session_that_was_used() -> None:
    crops = (Crop(1, 2, 30, 40, 320), Crop(5, 6, 30, 40, 640, turn=-90))
    roi = RoiProcessing(320, True, "auto_history", "simple", (), Region(0, 0, 0.5, 0.5), crops, (1, 2, 30, 40), "x")
    metadata = publishable(IDENTITY, LEASE, outcome("roi", roi), INFO, None, 1.0, {})["data"]["metadata"]
    assert metadata["roi_attention"] is True
    assert (metadata["model_selected"], metadata["model_sha256"], metadata["provider"]) == ("320", "bb", "openvino")
    assert metadata["roi_processing"]["crops"] == [
        {"x": 1, "y": 2, "width": 30, "height": 40, "model": 320, "turn": 0},
        {"x": 5, "y": 6, "width": 30, "height": 40, "model": 640, "turn": -90},
    ]
    assert metadata["roi_processing"]["crop"] == {"x": 1, "y": 2, "width": 30, "height": 40}
    assert metadata["roi_processing"]["merged_roi"] == {"x": 0, "y": 0, "width": 0.5, "height": 0.5}


def test_somebody_vanished_has_a_place_and_a_time() -> None:
    person = VanishedPerson(10, 20, 30, 40, 0.5)
    known = Known(1.5, searches=(Search(person, 3, 2.0),))
    answer = outcome()
    answer = replace(answer, outcome=replace(answer.outcome, known=known))
    data = publishable(IDENTITY, LEASE, answer, INFO, None, 1.0, {person: 1_700_000_000_000_000_000})["data"]
    assert data["vanished"] == [{"x": 10, "y": 20, "width": 30, "height": 40, "since": "2023-11-14T22:13:20.000000Z"}]
    assert data["count"] == 2


def test_only_a_kept_box_says_so() -> None:
    answer = outcome()
    boxes = (BOXES[0], replace(BOXES[1], confidence=0.31, kept=True))
    answer = replace(answer, outcome=replace(answer.outcome, detections=boxes))
    seen, kept = publishable(IDENTITY, LEASE, answer, INFO, None, 1.0, {})["data"]["detections"]
    assert "kept" not in seen
    assert (kept["kept"], kept["confidence"]) == (True, 0.31)


def test_classes_are_named_when_more_than_one_is_asked_for() -> None:
    result = publishable(IDENTITY, LEASE, outcome(), INFO, {0: "person", 2: "car"}, 1.0, {})
    assert [detection["class"] for detection in result["data"]["detections"]] == ["person", "car"]


def test_timestamps_are_rfc_3339_with_microseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1_700_000_000_000_000_000) == "2023-11-14T22:13:20.000000Z"


def test_the_writer_truncates_writes_in_order_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    writer = ResultWriter(str(path))
    for number in range(100):
        writer.write(json.dumps({"n": number}))
    assert writer.close(5.0)
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == list(range(100))
    assert writer.lost == 0


def test_a_target_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Is a directory"):
        ResultWriter(str(tmp_path))


def test_a_full_disk_is_counted_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    writer = ResultWriter("/dev/full")
    writer.write("{}")
    writer.write("{}")
    assert writer.close(5.0)
    assert writer.lost == 2
    assert "2 results could not be written to the results file: No space left on device" in caplog.text


def test_a_disk_that_fills_up_is_told_at_once_and_leaves_whole_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "out.jsonl"
    lines = [json.dumps({"n": number, "pad": "x" * 40}) for number in range(4)]
    room, rest = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = ResultWriter(str(path))
    try:
        # Room for one line and a half; the kernel takes the half, then refuses.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(lines[0]) * 3 // 2, rest))
        for line in lines[:3]:
            writer.write(line)
        until(lambda: writer.lost == 2, "two lost results")
        assert path.read_text() == f"{lines[0]}\n"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, rest))
    assert caplog.text.count("results cannot be written to the results file: File too large") == 1
    writer.write(lines[3])
    assert writer.close(5.0)
    assert path.read_text() == f"{lines[0]}\n{lines[3]}\n"
    assert "results are written again; 2 are not in the file" in caplog.text


def test_what_a_stopped_reader_never_took_is_lost(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        writer = ResultWriter(str(path))
        room = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
        for _ in range(room // 1024 + 10):
            writer.write("x" * 1023)
        until(lambda: _bytes_in(reader) == room, "a full pipe")
        assert writer.lost == 0, "the reader may yet go on"
        assert not writer.close(0.1)
        assert writer.lost == 10
    finally:
        os.close(reader)
    assert "10 results could not be written to the results file: the disk or the reader is too slow" in caplog.text
    assert writer.close(5.0)
    assert writer.lost == 10


def _bytes_in(pipe: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
