"""Made falls before a real pair: who stands in them is surely found, who lies is found by a turned look, and a fall
that is played through the detector is judged as it was answered.
"""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cutouts import load_room
from benchmarks.fall_judge import THERE, answer, judge, play
from benchmarks.fall_looks import AROUND_HEIGHTS, crop_around, look, score_at
from benchmarks.fall_variants import variants
from benchmarks.made_falls import Scene, frames
from orion.messages import DetectorSpec, Turn
from tests.falls import SETTINGS, handful, length, verdict
from tests.process.test_benchmarks import report_of
from workers.boxes import Boxes
from workers.pair import SessionPair
from workers.person import PersonDetector
from workers.pipeline import whole_frame

SURE, KEEP = 0.5, 0.3


def spec(testdata: Path, confidence: float) -> DetectorSpec:
    models = testdata / "models"
    paths = str(models / "yolo11n_fp32_640.onnx"), str(models / "yolo11n_fp32_320.onnx")
    return DetectorSpec(*paths, confidence, 0.45, ("person",), "cpu", 2, KEEP)


@pytest.fixture(scope="module")
def pair(testdata: Path) -> Iterator[SessionPair]:
    pair = SessionPair.load(spec(testdata, KEEP))
    yield pair
    pair.close()


def box_at(scene: Scene, time_s: float) -> Boxes:
    _, mask = scene.draw(time_s)
    box = scene.truth(scene.script.pose(time_s), mask).box
    assert box is not None
    return np.array(box, np.float64)


def test_who_stands_in_a_made_fall_is_surely_found(testdata: Path, pair: SessionPair) -> None:
    scores = []
    for made in variants(30):
        scene = Scene(load_room(testdata), made)
        time_s = (scene.script.stands_s + scene.script.falls_s) / 2
        picture, _ = scene.draw(time_s)
        scores.append(score_at(pair, picture, whole_frame(picture), 0, box_at(scene, time_s)))
    assert np.mean(np.array(scores) >= SURE) >= 0.95


def test_who_lies_in_full_view_is_found_by_the_look_that_turns_them_upright(testdata: Path, pair: SessionPair) -> None:
    for made in (made for made in handful() if made.kind == "free"):
        scene = Scene(load_room(testdata), made)
        standing, lying = (box_at(scene, time_s - 0.01) for time_s in (scene.script.falls_s, scene.script.rises_s))
        picture, _ = scene.draw(scene.script.rises_s - 0.01)
        crop = crop_around(standing, AROUND_HEIGHTS[0], (picture.shape[1], picture.shape[0]))
        upright: Turn = 90 if made.direction == "left" else -90
        assert score_at(pair, picture, crop, upright, lying) >= SURE
        scores = look(pair, picture, standing, lying, AROUND_HEIGHTS)
        assert scores.turned_around >= score_at(pair, picture, crop, upright, lying)
        assert scores.best >= scores.turned_whole >= KEEP


def test_attention_reports_who_stands_before_the_fall(testdata: Path) -> None:
    detector = PersonDetector(spec(testdata, SURE))
    made = min(handful(), key=length)
    shots = takewhile(lambda shot: shot.truth.phase in {"gone", "up"}, frames(load_room(testdata), made))
    played = list(play(detector, shots, "made fall", SETTINGS))
    detector.close()
    answers = [answer(shot, outcome) for shot, outcome in played]
    known = next(number for number, one in enumerate(answers) if one.found)
    assert all(one.found for one in answers[known:] if one.truth.visible >= THERE)
    assert sum(one.truth.visible > 0.9 for one in answers[:known]) <= 2
    found = judge(answers, SETTINGS.vanish_s or 0.0)
    assert (found.results, found.neither, found.lying_s) == (len(played), 0, 0)


def test_a_whole_fall_is_played_and_judged(testdata: Path) -> None:
    detector = PersonDetector(spec(testdata, SURE))
    made = min(handful(), key=length)
    found = verdict(detector, testdata, made)
    assert detector.attention_stats(f"made fall {made.seed}") is None
    detector.close()
    assert found.lying_s == pytest.approx(made.lying_s, abs=1.01 / made.fps)
    assert found.results == Scene(load_room(testdata), made).script.count
    assert 0 <= found.nobody_s <= found.silence_s <= found.lying_s


def test_the_benchmark_tells_of_every_variant_and_group(testdata: Path) -> None:
    seed = min(handful(), key=length).seed
    report = report_of("benchmarks.falls", "--only", str(seed), "--off", "--table", counted=False)
    assert report["settings"]["seeds"] == [seed]
    by_name = {row["what"]: row for row in report["results"] if "what" in row}
    total, on, off = (by_name[name] for name in ("all", "all, attention on", "all, off"))
    assert total["variants"] == 1
    assert total["moments"] >= 6
    assert 0 <= total["any"] <= 1
    assert on["results"] >= off["results"] > 0
    (row,) = (row for row in report["results"] if "variant" in row)
    assert row["silence_s"] == on["silence_max_s"]
    assert row["off_silence_s"] == off["silence_max_s"]
    assert len(report["bars"]) == 6
