"""The live view takes what comes over MQTT, whatever it is, and shows it in 80 columns."""

from typing import Any

import pytest
from rich.console import Console

from orion.mqtt import Lost, Received, Subscribed
from orion.watch import View, take


def result(stream_id: str = "cam0", people: int = 1, inference: str = "roi") -> dict[str, Any]:
    metadata = {"inference": inference, "model_selected": "320", "model_name": "yolo11n", "provider": "cpu"}
    return {
        "type": "person_detection",
        "stream_id": stream_id,
        "data": {"count": people, "metadata": metadata},
        "latency": {"capture_to_result_ms": 12.5},
    }


def vanished(*people: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = result(**more)
    return told | {"data": told["data"] | {"vanished": list(people)}}


def drawn(view: View, now_s: float) -> list[str]:
    console = Console(width=80, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(view.draw(now_s))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_results_show_as_one_line_a_stream() -> None:
    view = View("hall")
    for number in range(20):
        view.hear(result(), number / 10)
        view.hear(result("a-camera-with-a-name-of-many-letters", 0, "held"), number / 10)
    lines = drawn(view, 2.0)
    assert all(len(line) <= 80 for line in lines)
    # Latencies are right to 1 %.
    cam = next(line for line in lines if line.startswith("cam0"))
    assert cam.split() == ["cam0", "running", "10.0", "12.6", "12.6", "roi", "320", "1"]
    assert any("yolo11n on cpu" in line for line in lines)
    held, seen = view.lines(2.0)
    assert held.startswith("a-camera-with-a-: running, 10.0 results/s, p50 ")
    assert seen == "cam0: running, 10.0 results/s, p50 12.6 ms, p95 12.6 ms, plan roi 320, people 1"
    silent = next(line for line in drawn(view, 11.9) if line.startswith("cam0"))
    assert "silent 10 s" in silent
    assert silent.split()[-1] == "-"


def test_a_room_from_which_somebody_vanished_does_not_pass_for_empty() -> None:
    view = View("hall")
    long = "a-camera-with-a-name-of-many-letters"
    for number in range(20):
        view.hear(vanished({}, people=0), number / 10)
        view.hear(vanished({}, {}, stream_id=long, people=0, inference="full"), number / 10)
    lines = drawn(view, 2.0)
    assert all(len(line) <= 80 for line in lines)
    assert next(line for line in lines if line.startswith("cam0")).endswith(" 0 (1 vanished)")
    assert next(line for line in lines if line.startswith("a-cam")).endswith(" 0 (2 vanished)")
    assert list(view.lines(2.0))[1].endswith(", people 0 (1 vanished)")
    assert drawn(view, 11.9)[-1].split()[-1] == "-", "of old no more is known than of people"
    view.hear(vanished(people=1), 12.0)
    assert next(line for line in drawn(view, 12.0) if line.startswith("cam0")).endswith(" 1")


def test_telemetry_says_which_streams_there_are_and_how_they_are() -> None:
    view = View("hall")
    view.hear(result("gone"), 0.0)
    streams = [{"stream_id": "cam0", "state": "lost"}, {"stream_id": "cam1", "state": "running", "paused": True}]
    workers = [{"worker_id": "w0", "state": "idle", "restarts": 2}]
    view.hear({"type": "telemetry", "streams": streams, "workers": workers}, 1.0)
    text = "\n".join(drawn(view, 1.0))
    assert "gone" not in text
    assert "lost" in text
    assert "paused" in text
    assert "w0: idle, 2 restarts" in text


def test_an_answer_says_the_same_at_once() -> None:
    view = View("orion")
    data = {"streams": [{"stream_id": "cam0", "state": "running", "paused": True}], "workers": []}
    view.hear({"command_ack": "get_status", "status": "success", "data": data}, 0.0)
    assert any("cam0" in line and "paused" in line for line in drawn(view, 0.0))


def test_events_show_as_they_come() -> None:
    view = View("hall")
    event = {"event": "stream_lost", "stream_id": "cam0", "reason": "x" * 200, "timestamp": "2026-01-02T03:04:05.6Z"}
    assert str(view.hear(event, 0.0)).startswith("03:04:05 stream_lost cam0: xxx")
    lines = drawn(view, 0.0)
    assert all(len(line) <= 80 for line in lines)
    assert any(line.split()[:2] == ["cam0", "lost"] for line in lines)
    for _ in range(20):
        view.hear(event, 0.0)
    assert sum("stream_lost" in line for line in drawn(view, 0.0)) == 8


def test_results_do_not_hide_that_a_camera_is_odd() -> None:
    view = View("hall")
    event = {"stream_id": "cam0", "reason": "r", "timestamp": "2026-01-02T03:04:05.6Z"}

    def shown() -> str:
        return next(line for line in drawn(view, 0.0) if line.startswith("cam0"))

    def state() -> str:
        view.hear(result(), 0.0)
        return shown().split()[1]

    view.hear({"event": "stream_frozen", "state": "frozen", **event}, 0.0)
    assert state() == "frozen"
    view.hear({"event": "stream_irregular", "state": "frozen", **event}, 0.0)
    assert state() == "frozen"
    assert shown().split()[-1] == "-"
    view.hear({"event": "stream_irregular", "state": "irregular", **event}, 0.0)
    assert state() == "irregular"
    assert shown().split()[-1] == "1"
    view.hear({"event": "stream_restored", "state": "running", **event}, 0.0)
    assert state() == "running"
    view.hear({"event": "stream_lost", **event}, 0.0)
    assert shown().split()[-1] == "-"
    assert state() == "running"


def test_the_link_and_the_status_are_told_once_each() -> None:
    view = View("hall")
    assert "hall: not heard of yet" in drawn(view, 0.0)[0]
    online, offline = (f'{{"status": "{state}", "run_id": "r"}}'.encode() for state in ("online", "offline"))
    for signal, told in (
        (Lost("refused"), "no broker: refused"),
        (Subscribed(("care/health/hall",)), "the broker does not let us read care/health/hall"),
        (Subscribed(()), "connected"),
        (Received("care/status/hall", online, retained=True), "online"),
        (Received("care/status/hall", offline, retained=False), "offline"),
    ):
        assert take(view, signal, 0.0) == f"hall: {told}"
        assert f"hall: {told}" in drawn(view, 0.0)[0]
        assert take(view, signal, 0.0) is None


def test_silence_after_the_question_is_told_once() -> None:
    view = View("hall")
    assert take(view, Subscribed(()), 10.0) == "hall: connected"
    assert view.miss(14.9) is None
    assert str(view.miss(15.0)).startswith("hall: nobody of this id answers")
    assert view.miss(20.0) is None
    assert "nobody of this id answers" in drawn(view, 20.0)[0]
    view.hear(result(), 21.0)
    assert "hall: connected" in drawn(view, 21.0)[0]


def test_whoever_is_heard_is_not_missed() -> None:
    view = View("hall")
    take(view, Subscribed(()), 0.0)
    view.hear(result(), 1.0)
    assert view.miss(60.0) is None
    take(view, Subscribed(()), 60.0)
    take(view, Lost("refused"), 61.0)
    assert view.miss(120.0) is None, "without a link nobody can be heard"


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "person_detection"},
        {"type": "person_detection", "stream_id": "cam0", "data": 5},
        {"type": "person_detection", "stream_id": 5},
        result() | {"data": result()["data"] | {"vanished": 5}},
        {"type": "telemetry", "streams": [5, {}], "workers": [None]},
        {"type": "telemetry", "streams": None},
        {"event": 7},
        {"event": "stream_lost"},
        {"command_ack": "get_status", "status": "success", "data": {}},
    ],
)
def test_what_is_not_understood_is_left_out(message: dict[str, Any]) -> None:
    view = View("hall")
    view.hear(message, 0.0)
    drawn(view, 0.0)
