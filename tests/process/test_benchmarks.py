"""Short runs of the benchmarks: they report in the promised form, and what they timed was done right. No figure is
held to a limit here.
"""

import json
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import pipeline, transport
from benchmarks.report import Bar, Report, plot_file, publish, spread, versions
from orion.messages import Pixels
from tests.conftest import REPOSITORY

MODELS = REPOSITORY / "models"


def report_of(*arguments: str, counted: bool = True) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    assert {"cpu", "cores", "memory_mb", "load"} <= report["machine"].keys()
    assert {"orion", "python", "numpy"} <= report["versions"].keys()
    assert any(name.startswith("onnxruntime") for name in report["versions"])
    for row in report["results"] if counted else []:
        assert row["count"] > 0
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    for bar in report["bars"]:
        assert bar["met"] == (bar["measured"] <= bar["limit"])
    return report


def test_a_package_that_is_not_installed_costs_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report._PACKAGES", ("numpy", "no-such-package"))
    assert "numpy" in versions()
    assert "no-such-package" not in versions()


def test_transport_reports_every_way_at_every_size() -> None:
    report = report_of("benchmarks.transport", "--sizes", "480p", "1080p", "--rounds", "2", "--block", "3")
    ways = [
        "ring, one copy",
        "ring, in place",
        "MsgPack on pipes",
        "multiprocessing.Queue",
        "copy alone",
        "socket alone",
    ]
    assert [(row["size"], row["way"]) for row in report["results"]] == [(s, w) for s in ("480p", "1080p") for w in ways]
    assert {row["count"] for row in report["results"]} == {6}
    assert [bar["limit"] for bar in report["bars"]] == [0.35, 0.1, 1.35, 0.0235]


def test_a_wrong_answer_is_not_timed() -> None:
    class Wrong:
        name = "wrong"

        def stage(self, picture: Pixels) -> None:
            pass

        def trip(self, picture: Pixels, number: int) -> transport.Answer:
            return transport.answer_to(picture, number + 1)

    with pytest.raises(RuntimeError, match=r"wrong: .* is not the answer to frame 1"):
        transport.measure_ways([Wrong()], (8, 6), transport.Plan(("480p",), 1, 1))


def test_an_answer_tells_pictures_apart() -> None:
    first, second = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6, 3), np.uint8)
    answers = [transport.answer_to(first, 1), transport.answer_to(second, 1), transport.answer_to(first, 2)]
    assert len({str(answer) for answer in answers}) == 3


def test_pipeline_reports_both_sizes() -> None:
    models = [str(MODELS / f"hog_person_{size}.onnx") for size in (640, 320)]
    arguments = ["--model", models[0], "--model-320", models[1], "--source", "demo:320x240@10"]
    counts = ["--rounds", "2", "--block", "2", "--pause-ms", "1"]
    report = report_of("benchmarks.pipeline", *arguments, *counts)
    assert {name: model["file"] for name, model in report["models"].items()} == {
        "640": "hog_person_640.onnx",
        "320": "hog_person_320.onnx",
    }
    assert {row["count"] for row in report["results"]} == {4}
    medians = {(row["size"], row["part"]): row["min_ms"] for row in report["results"]}
    for size in ("640", "320"):
        assert medians[size, "frame to result"] > medians[size, "- inference"]
        assert (size, "raw, default options") in medians
    assert len(report["bars"]) == 2


def test_hot_reload_reports_gaps_answers_and_what_is_left() -> None:
    report = report_of("benchmarks.hot_reload", "--changes", "2", "--asks", "3", "--more", "2")
    rows = {row["what"]: row for row in report["results"]}
    assert (rows["answer to a change of models"]["count"], rows["load of the pair"]["count"]) == (2, 2)
    assert rows["gap between results, around changes"]["drops"] >= 0
    for command in ("set_inference_rate", "set_attention_rois", "set_auto_focus_strategy"):
        assert rows[f"answer to {command}"]["count"] == 3
    names = [bar["name"] for bar in report["bars"]]
    for process in ("supervisor", "w0"):
        assert sum(name.startswith(f"{process}: ") for name in names) == 3


def test_detector_reports_every_kind_of_run() -> None:
    models = [str(MODELS / f"hog_person_{size}.onnx") for size in (640, 320)]
    arguments = ["--model", models[0], "--model-320", models[1], "--pictures", "720p", "--threads", "1"]
    counts = ["--providers", "cpu", "--rounds", "1", "--block", "2", "--idle-frames", "0"]
    counts += ["--workers", "2", "--turn-s", "0.1"]
    rows = {row["what"]: row for row in report_of("benchmarks.detector", *arguments, *counts, counted=False)["results"]}
    for size in ("640", "320"):
        for what in ("file as exported", "session.run", "frame to boxes", "alternated", "drop-in over pipes"):
            row = rows[f"{size} {what}"]
            assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p95_ms"]
        whole = rows[f"{size} frame to boxes"]
        assert min(whole[f"{what}_p50_ms"] for what in ("around", "cold", "hot", "resize")) > 0
        assert rows[f"{size} drop-in over pipes"]["transport_p50_ms"] > 0
        assert rows[f"{size} in 2 workers"]["frames_s"] > 0


def results_of(*boxes: int) -> list[dict[str, Any]]:
    return [
        {"frame_seq": seq, "data": {"metadata": {"imgsz": 640}, "detections": [box]}} for seq, box in enumerate(boxes)
    ]


def test_results_that_are_missing_wrong_or_unlike_are_refused() -> None:
    pipeline.check(results_of(1, 2, 1, 2), 640, 2, 4)
    with pytest.raises(RuntimeError, match="3 of 4 frames"):
        pipeline.check(results_of(1, 2, 1), 640, 2, 4)
    with pytest.raises(RuntimeError, match="not in order"):
        pipeline.check(results_of(1, 2)[::-1], 640, 2, 2)
    with pytest.raises(RuntimeError, match="wrong session"):
        pipeline.check(results_of(1, 2), 320, 2, 2)
    with pytest.raises(RuntimeError, match="frame 2 is not answered like frame 0"):
        pipeline.check(results_of(1, 2, 3), 640, 2, 3)


def test_percentiles_and_bars() -> None:
    found = spread([float(value) for value in range(1, 102)])
    assert (found.count, found.min_ms, found.p50_ms, found.p95_ms, found.p99_ms) == (101, 1, 51, 96, 100)
    assert Bar("at the limit", 1.0, 1.0).met
    assert not Bar("over it", 1.1, 1.0).met
    content = json.loads(Report("name", {"rounds": 1}, [{"way": "a", "p50_ms": 1.0}], [Bar("b", 2, 1)]).as_json())
    assert content["bars"] == [{"name": "b", "measured": 2, "limit": 1, "met": False}]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_shows_every_figure_however_narrow_the_window_is(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if terminal else "0")
    figures = {f"figure_{number}_ms": 1000.5 + number for number in range(9)}
    publish(Report("name", {}, [{"way": "a way of four words", **figures}, {"way": "another", "count": 17}]))
    shown = capsys.readouterr().err
    assert all(f"{value:.0f}" in shown for value in figures.values())
    assert ("a way of four words" in shown) is not terminal, "words are broken apart, figures are not"
    assert [line.split() for line in shown.splitlines() if "another" in line] == [["another", "17"]]


def test_a_report_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    publish(Report("name", {}, [{"way": "a", "p50_ms": 1.0}, {"way": "b", "p50_ms": 2.0}]), tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    assert json.loads(capsys.readouterr().out)["benchmark"] == "name"


def test_a_plot_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert plot_file(str(tmp_path / "plot.svg")) == tmp_path / "plot.svg"
    with pytest.raises(ArgumentTypeError, match=r"no such folder: '.*absent'"):
        plot_file(str(tmp_path / "absent" / "plot.svg"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ArgumentTypeError, match="plots need matplotlib"):
        plot_file(str(tmp_path / "plot.svg"))


def test_figures_from_numpy_are_reported_too() -> None:
    bars = [Bar("share", np.float64(0.5), np.float64(1.0))]
    (bar,) = json.loads(Report("any", {}, [], bars).as_json())["bars"]
    assert bar == {"name": "share", "measured": 0.5, "limit": 1.0, "met": True}


def test_recall_counts_every_model_on_every_video(testdata: Path) -> None:
    rows = report_of("benchmarks.recall", "--every", "60", counted=False)["results"]
    videos = {path.stem for path in (testdata / "video").glob("*.mp4")}
    models = {f"{name} {size}" for name in ("embedded", "YOLO11n") for size in (320, 640)}
    assert {(row["video"], row["model"]) for row in rows} == {(video, model) for video in videos for model in models}
    assert all(0 <= row["matched"] <= row["expected"] for row in rows)
    best = next(row for row in rows if (row["video"], row["model"]) == ("one_by_one_person", "YOLO11n 640"))
    assert best["recall"] >= 0.95
