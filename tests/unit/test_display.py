"""What a person is shown: the live view, the lines without a terminal, and the summary, at many widths."""

import io
import logging
from typing import Any

import pytest
from rich.console import Console, RenderableType

from orion import display, log
from orion.display import Display, conclude, one_line, summary
from tests.instances import until

CALM = {"p50": None, "p95": None, "p99": None}
LATENCY = {
    "queue": {"p50": 0.113, "p95": 0.2, "p99": 0.3},
    "preprocess": {"p50": 1.11, "p95": 1.21, "p99": 1.31},
    "inference": {"p50": 41.04, "p95": 52.06, "p99": 63.08},
    "postprocess": {"p50": 0.41, "p95": 0.42, "p99": 0.43},
    "capture_to_result": {"p50": 44.4, "p95": 55.5, "p99": 66.6},
}
STREAM = {
    "stream_id": "hall",
    "state": "running",
    "frames": 400,
    "captured": 100,
    "inferred": 61,
    "held": 17,
    "dropped": {"superseded": 19, "paused": 2, "shutdown": 0},
    "fps": 9.87,
    "mean_fps": 7.65,
    "people": 2,
    "best_confidence": 0.876,
    "vanished": 0,
}


def state(latency: dict[str, Any] = LATENCY, **stream: Any) -> dict[str, Any]:
    """Return the state of an instance with one stream."""
    return {"uptime_s": 12.34, "models": {"model_name": "m"}, "latency_ms": latency, "streams": [STREAM | stream]}


def shown(renderable: RenderableType, width: int) -> list[str]:
    """Return the lines on a terminal of that width, none of which is wider, with single spaces."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [" ".join(line.split()) for line in lines]


def live(now: dict[str, Any] | None, width: int = 100) -> list[str]:
    """Return what the live view shows."""
    display = Display(["Results go to mqtt://here.", "Ctrl-C stops."])
    if now is not None:
        display.update(now)
    return shown(display._view(), width)


def bars(now: dict[str, Any]) -> list[str]:
    """Return the progress bars in the live view."""
    return [line for line in live(now) if line.endswith(" frames")]


def test_the_live_view_says_what_was_seen_how_fast_where_it_goes_and_how_to_stop() -> None:
    head, row, latency, _, first_note, last_note = live(state())
    assert head == "stream state captured inferred held dropped results/s people"
    assert row == "hall running 100 61 17 19 superseded, 2 paused 9.9 2 (0.88)"
    assert latency == "inference 41.0 / 52.1 / 63.1 ms capture to result 44.4 / 55.5 / 66.6 ms (p50 / p95 / p99)"
    assert (first_note, last_note) == ("Results go to mqtt://here.", "Ctrl-C stops.")


def test_a_source_with_an_end_has_a_progress_bar() -> None:
    lengths = []
    for captured in (0, 100, 200, 400, 401):
        [bar] = bars(state(captured=captured))
        assert bar.startswith("hall ")
        assert bar.endswith(f" {min(captured, 400)}/400 frames")
        lengths.append(bar.count("━"))
    assert lengths == [0, 10, 20, 40, 40]
    assert bars(state(frames=None)) == []


def test_before_the_first_word_of_a_worker_the_model_is_loading() -> None:
    assert live(None)[0] == "loading the model ..."
    assert live(state() | {"models": {}})[0] == "loading the model ..."


def test_a_line_for_logs_says_the_same() -> None:
    counts = "100 captured, 61 inferred, 17 held, dropped: 19 superseded, 2 paused"
    assert one_line(STREAM) == f"hall running: {counts}; 9.9 results/s; 2 person(s) now"


def test_who_is_there_is_not_said_where_nobody_can_tell() -> None:
    nobody: dict[str, Any] = {"state": "lost", "people": None, "best_confidence": None, "vanished": None}
    assert live(state(**nobody))[1] == "hall lost 100 61 17 19 superseded, 2 paused 9.9 -"
    assert one_line(STREAM | nobody).endswith("; - person(s) now")


def test_a_room_from_which_somebody_vanished_does_not_pass_for_empty() -> None:
    empty: dict[str, Any] = {"people": 0, "best_confidence": None, "vanished": 1}
    assert live(state(**empty))[1].endswith(" 9.9 0 (1 vanished)")
    assert live(state(vanished=2))[1].endswith(" 9.9 2 (0.88, 2 vanished)")
    assert one_line(STREAM | empty).endswith("; 0 person(s) now, 1 vanished")
    assert shown(summary(state(**empty), "shutdown"), 100)[2].endswith(" 7.7 0 (1 vanished)")
    assert display._people_cell(STREAM | empty).style == "bold red"
    assert display._people_cell(STREAM | {"people": 0, "best_confidence": None}).style == ""


def test_the_summary_has_the_counts_and_the_latency_of_each_stage() -> None:
    assert shown(summary(state(), "shutdown"), 100) == [
        "Stopped after 12.3 s: shutdown",
        "stream state captured inferred held dropped results/s people",
        "hall running 100 61 17 19 superseded, 2 paused 7.7 2 (0.88)",
        "latency (ms)",
        "stage p50 p95 p99",
        "wait for a worker 0.11 0.20 0.30",
        "preprocess 1.1 1.2 1.3",
        "inference 41.0 52.1 63.1",
        "postprocess 0.41 0.42 0.43",
        "capture to result 44.4 55.5 66.6",
    ]


def test_a_run_without_a_frame_is_summed_up_in_a_line() -> None:
    nothing = state(dict.fromkeys(LATENCY, CALM), captured=0)
    assert shown(summary(nothing, "hall failed"), 80) == ["Stopped after 12.3 s: hall failed"]


def test_programs_get_lines_and_summary_as_lines_of_the_log_and_no_hints(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "for_programs", lambda: True)
    monkeypatch.setattr(display, "_LINE_EVERY_S", 0.02)
    caplog.set_level(logging.INFO)
    shown = Display(["Ctrl-C stops."])
    shown.start()
    shown.update(state())
    until(lambda: caplog.messages, "a line")
    shown.close()
    assert set(caplog.messages) == {one_line(STREAM)}
    assert {vars(record)["stream"] for record in caplog.records} == {"hall"}
    caplog.clear()
    conclude(state(), "shutdown")
    head, line, latencies = caplog.messages
    assert (head, line) == ("stopped after 12.3 s: shutdown", one_line({**STREAM, "fps": STREAM["mean_fps"]}))
    assert "inference 41.0 / 52.1 / 63.1 ms" in latencies
    printed = capsys.readouterr()
    assert printed.out == ""
    assert not {"Ctrl-C stops.", one_line(STREAM)} & set(printed.err.splitlines()), "others may have logged"


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_nothing_is_cut_off_on_a_narrow_terminal(width: int) -> None:
    words = " ".join(shown(summary(state(), "shutdown"), width)).split()
    assert "…" not in "".join(words)
    for word in ("hall", "100", "61", "17", "19", "superseded,", "41.0", "52.1", "63.1", "44.4", "66.6"):
        assert word in words
    assert {"hall", "9.9", "Ctrl-C"} <= set(" ".join(live(state(), width)).split())
