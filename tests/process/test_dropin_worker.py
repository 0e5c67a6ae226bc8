import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgpack
import numpy as np
import pytest

from tests.models import GREY, picture, placed, seeing

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
PATCHES = [(100, 60, 200, 300), (700, 100, 120, 200)]
META = {"instance_id": "orion-1", "room_id": "302", "seq": 7, "timestamp": "2026-01-01T00:00:00Z"}


class Orchestrator:
    """The original orchestrator's end of the pipes."""

    def __init__(self, *arguments: str, wait: bool = True) -> None:
        command = [sys.executable, "-m", "workers", "--provider", "cpu", "--threads", "1", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe)
        self.log = ""
        # A worker that never answers would block the test's reads for ever.
        self.watchdog = threading.Timer(TIMEOUT_S, self.process.kill)
        self.watchdog.start()
        if wait:
            self.read_log_until("ready")

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def read_log_until(self, what: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line.decode()
            if what in line.decode():
                return line.decode()
        raise AssertionError(f"the log ended without {what!r}:\n{self.log}")

    def write(self, data: bytes) -> None:
        self.stdin.write(data)
        self.stdin.flush()

    def send(self, message: Any) -> None:
        body = msgpack.packb(message)
        self.write(len(body).to_bytes(4, "big") + body)

    def send_frame(self, frame: Any, **roi: Any) -> None:
        meta: dict[str, Any] = META | ({"roi_processing": roi} if roi else {})
        height, width = frame.shape[:2]
        rgb = np.ascontiguousarray(frame[..., ::-1]).tobytes()
        self.send({"frame_data": rgb, "width": width, "height": height, "meta": meta})

    def receive(self) -> dict[str, Any]:
        length = int.from_bytes(self.stdout.read(4), "big")
        result: dict[str, Any] = msgpack.unpackb(self.stdout.read(length))
        return result

    def finish(self) -> tuple[int, bytes]:
        """Close the input, wait for the end, and return the exit code and what was left on stdout."""
        rest, log = self.process.communicate(timeout=TIMEOUT_S)
        self.log += log.decode()
        return self.process.returncode, rest

    def end(self) -> None:
        self.watchdog.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue


def small_pair(folder: Path, size: str = "n") -> tuple[str, str]:
    paths = [seeing(folder / f"yolo11{size}_{side}.onnx", side) for side in (640, 320)]
    return str(paths[0]), str(paths[1])


def start(folder: Path) -> Orchestrator:
    large, small = small_pair(folder)
    return Orchestrator("--model", large, "--model-320", small, "--confidence", "0.4")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Orchestrator]:
    orchestrator = start(tmp_path)
    yield orchestrator
    orchestrator.end()


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    """Return one worker for many tests: what one sends wrongly must not harm the next."""
    orchestrator = start(tmp_path_factory.mktemp("models"))
    yield orchestrator
    orchestrator.end()


def boxes(result: dict[str, Any]) -> list[list[int]]:
    return sorted([list(found["bbox"].values()) for found in result["data"]["detections"]])


def assert_near(found: list[list[int]], wanted: list[tuple[int, int, int, int]], pixels: int = 2) -> None:
    assert len(found) == len(wanted)
    assert np.abs(np.subtract(found, wanted)).max() <= pixels


def test_a_frame_is_answered_as_the_original_did(worker: Orchestrator) -> None:
    worker.send_frame(picture(960, 540, PATCHES))
    result = worker.receive()
    assert_near(boxes(result), PATCHES)
    assert (result["type"], result["instance_id"], result["room_id"], result["frame_seq"]) == (
        "person_detection", "orion-1", "302", 7,
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", result["timestamp"])
    assert result["data"]["count"] == 2
    metadata = result["data"]["metadata"]
    assert (metadata["frame_width"], metadata["frame_height"], metadata["model_selected"]) == (960, 540, "640")
    assert (metadata["model_name"], metadata["inference"], metadata["img_size"]) == ("yolo11n", "full", "640x640")
    assert result["timing"]["total_ms"] >= result["timing"]["inference_ms"] > 0
    assert result["suggested_roi"]["x"] == pytest.approx((100 - 720 * 0.075) / 960, abs=0.01)
    assert worker.finish() == (0, b"")


def test_nobody_is_kept_who_falls_under_the_threshold(hardened: Orchestrator) -> None:
    frame = picture(960, 540, PATCHES[:1])
    hardened.send_frame(frame)
    seen = hardened.receive()["data"]
    assert [found.keys() for found in seen["detections"]] == [{"bbox", "confidence"}]
    x, y, width, height = PATCHES[0]
    frame[y : y + height, x : x + width, 2] = GREY + round(0.35 * (255 - GREY))
    hardened.send_frame(frame)
    data = hardened.receive()["data"]
    assert (data["detections"], data["count"], data.keys()) == ([], 0, {"detections", "count", "metadata"})
    frame[y : y + height, x : x + width, 2] = GREY + round(0.45 * (255 - GREY))
    hardened.send_frame(frame)
    assert hardened.receive()["data"]["count"] == 1, "what is just above the threshold is seen"


def test_colours_reach_the_model_in_the_right_order(hardened: Orchestrator) -> None:
    """The patch is red; the model's first column is that of its first channel, which is red."""
    frame = np.full((540, 960, 3), GREY, np.uint8)
    frame[100:400, 200:400, 2] = 255
    hardened.send_frame(frame)
    assert_near(boxes(hardened.receive()), [(200, 100, 200, 300)])


def test_the_session_and_the_crop_are_those_that_the_frame_asks_for(hardened: Orchestrator) -> None:
    frame = picture(960, 540, PATCHES)
    hardened.send_frame(frame, target_size=320)
    result = hardened.receive()
    assert result["data"]["metadata"]["model_selected"] == "320"
    assert_near(boxes(result), PATCHES, 3)
    region = {"x": 0.5, "y": 0.1, "width": 0.5, "height": 0.6}
    hardened.send_frame(frame, target_size=320, crop_applied=False, merged_roi=region)
    result = hardened.receive()
    assert result["data"]["metadata"]["inference"] == "roi"
    assert_near(boxes(result), PATCHES[1:], 2)
    hardened.send_frame(frame, target_size=640, crop_applied=True, merged_roi=region)
    result = hardened.receive()
    assert result["data"]["metadata"]["inference"] == "full"
    assert_near(boxes(result), PATCHES)


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (b"\x00\x00\x00\x03\xc1\xc1\xc1", "not MsgPack"),
        (b"\x00\x00\x00\x00", "not MsgPack"),
        (b"\x00\x00\x00\x01\x05", "a message is a int, not a map"),
        (b"\x09\x00\x00\x00" + bytes(0x09000000), "larger than"),
        (b'{"command": "set_model_size", \n', "a line is not JSON"),
        (b'{"command": 5}\n', "a command has a name"),
        (b'{"command": "dance", "params": {}}\n', "command dance refused: unknown"),
        (b'{"command": "set_model_size", "params": {"size": "x"}}\n', "set_model_size refused: .* size x"),
    ],
)
def test_what_is_wrong_is_logged_and_the_stream_goes_on(hardened: Orchestrator, sent: bytes, logged: str) -> None:
    hardened.write(sent)
    line = hardened.read_log_until("refused")
    assert re.search(logged, line)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[ERROR\] ", line)
    hardened.send_frame(picture(960, 540, PATCHES))
    assert_near(boxes(hardened.receive()), PATCHES)


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0},
        {"width": True, "height": 1, "frame_data": b""},
        {"height": 541},
        {"height": None},
        {"frame_data": "text"},
        {"meta": [1]},
        {"meta": {"roi_processing": 3}},
        {"meta": {"roi_processing": {"merged_roi": {"x": 0.5, "y": 0, "width": 0.7, "height": 1}}}},
        {"meta": {"roi_processing": {"merged_roi": {"x": 0.5}}}},
    ],
)
def test_a_frame_that_is_none_is_refused(hardened: Orchestrator, changes: dict[str, Any]) -> None:
    frame = {"frame_data": bytes(960 * 540 * 3), "width": 960, "height": 540, "meta": META}
    hardened.send(frame | changes)
    hardened.read_log_until("message refused")
    hardened.send(frame)
    assert hardened.receive()["data"]["count"] == 0


@pytest.mark.parametrize("as_line", [True, False])
def test_a_reload_keeps_both_sessions(tmp_path: Path, worker: Orchestrator, as_line: bool) -> None:
    small_pair(tmp_path, "s")
    command = {"type": "command", "command": "set_model_size", "params": {"size": "s"}}
    if as_line:
        worker.write(json.dumps(command).encode() + b"\n")
    else:
        worker.send(command)
    worker.read_log_until("[INFO] command set_model_size done: yolo11s")
    for size in (320, 640):
        worker.send_frame(picture(960, 540, PATCHES), target_size=size)
        metadata = worker.receive()["data"]["metadata"]
        assert (metadata["model_selected"], metadata["model_name"]) == (str(size), "yolo11s")


def test_sigterm_ends_it_while_it_waits(worker: Orchestrator) -> None:
    worker.process.send_signal(signal.SIGTERM)
    assert worker.finish() == (0, b"")
    assert "SIGTERM" in worker.log


def test_the_end_of_input_inside_a_message_ends_it(worker: Orchestrator) -> None:
    worker.write(b"\x00\x01\x00\x00half")
    assert worker.finish() == (0, b"")


def test_a_closed_output_ends_it(worker: Orchestrator) -> None:
    worker.stdout.close()
    worker.send_frame(picture(960, 540, PATCHES))
    assert worker.process.wait(TIMEOUT_S) == 1
    worker.read_log_until("nobody reads")


def test_without_the_320_everything_runs_on_the_640(tmp_path: Path) -> None:
    large = placed(tmp_path / "one.onnx", 640, [[100, 200, 300, 400, 0.9, 0]])
    worker = Orchestrator("--model", str(large))
    worker.send_frame(np.zeros((640, 640, 3), np.uint8), target_size=320)
    result = worker.receive()
    worker.end()
    assert result["data"]["metadata"]["model_selected"] == "640"
    assert boxes(result) == [[100, 200, 200, 200]]


@pytest.mark.parametrize(
    ("arguments", "code", "logged"),
    [
        (["--model", "absent.onnx"], 4, "absent.onnx: expected an ONNX file, found none"),
        (["--model", "absent.onnx", "--confidence", "2"], 2, "--confidence"),
        ([], 2, "--model"),
    ],
)
def test_a_start_that_cannot_be_says_why(arguments: list[str], code: int, logged: str) -> None:
    worker = Orchestrator(*arguments, wait=False)
    assert worker.finish() == (code, b"")
    worker.end()
    assert logged in worker.log
