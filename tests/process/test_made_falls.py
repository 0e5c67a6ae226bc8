"""Made falls before a real pair: who stands in them is surely found, who lies is found by a turned look, and attention
reports who fell, or that somebody vanished, all the time, which every frame whole through the 640 does not.
"""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cutouts import load_room
from benchmarks.fall_judge import SOON_S, THERE, answer, judge, play
from benchmarks.fall_looks import AROUND_HEIGHTS, crop_around, look, score_at
from benchmarks.fall_variants import Variant, variants
from benchmarks.made_falls import Scene, frames
from orion.messages import AttentionSettings, DetectorSpec, Turn
from tests.falls import SETTINGS, assert_nobody_is_lost, handful, length, verdict
from tests.process.test_benchmarks import report_of
from workers.boxes import Boxes
from workers.pair import SessionPair
from workers.person import PersonDetector
from workers.pipeline import whole_frame

SURE, KEEP = 0.5, 0.3


def spec(testdata: Path, confidence: float) -> DetectorSpec:
    models = testdata / "models"
    paths = str(models / "yolo11n_fp32_640.onnx"), str(models / "yolo11n_fp32_320.onnx")
    return DetectorSpec(*paths, confidence, 0.45, ("person",), "cpu", 1, KEEP)


@pytest.fixture(scope="module")
def pair(testdata: Path) -> Iterator[SessionPair]:
    pair = SessionPair.load(spec(testdata, KEEP))
    yield pair
    pair.close()


@pytest.fixture(scope="module")
def detector(testdata: Path) -> Iterator[PersonDetector]:
    detector = PersonDetector(spec(testdata, SURE))
    yield detector
    detector.close()


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


def test_attention_reports_who_stands_before_the_fall(testdata: Path, detector: PersonDetector) -> None:
    made = min(handful(), key=length)
    shots = takewhile(lambda shot: shot.truth.phase in {"gone", "up"}, frames(load_room(testdata), made))
    played = list(play(detector, shots, "made fall", SETTINGS))
    detector.forget("made fall")
    answers = [answer(shot, outcome) for shot, outcome in played]
    known = next(number for number, one in enumerate(answers) if one.found)
    assert all(one.found for one in answers[known:] if one.truth.visible >= THERE)
    assert sum(one.truth.visible > 0.9 for one in answers[:known]) <= 2
    found = judge(answers, SETTINGS.vanish_s or 0.0)
    assert (found.results, found.neither, found.lying_s) == (len(played), 0, 0)


@pytest.mark.parametrize("made", handful(), ids=lambda made: f"{made.seed} {made.kind} {made.direction}")
def test_who_falls_is_reported_or_missed_until_they_leave(
    testdata: Path, detector: PersonDetector, made: Variant
) -> None:
    found = verdict(detector, testdata, made)
    assert detector.attention_stats(f"made fall {made.seed}") is None
    # The first and last frame of who lies come up to one after, and two before, what the variant says.
    assert -3.01 / made.fps <= found.lying_s - made.lying_s <= 1.01 / made.fps
    assert found.results == Scene(load_room(testdata), made).script.count
    assert found.first_s is not None
    assert_nobody_is_lost(made, found)
    if made.kind == "free":
        assert found.silence_s <= SOON_S


def test_without_attention_who_falls_is_lost(testdata: Path, detector: PersonDetector) -> None:
    made = next(made for made in handful() if made.kind == "free")
    script = Scene(load_room(testdata), made).script
    shots = takewhile(lambda shot: shot.time_s < script.lies_s + 2, frames(load_room(testdata), made))
    last = [shot for shot in shots if shot.time_s > script.falls_s - 0.5]
    played = list(play(detector, last, "lost", AttentionSettings(mode="off")))
    detector.forget("lost")
    found = judge([answer(shot, outcome) for shot, outcome in played], 120)
    assert found.neither > 0
    with pytest.raises(AssertionError, match="said nobody for"):
        assert_nobody_is_lost(made, found)


def test_the_benchmark_tells_of_every_variant_and_group(testdata: Path) -> None:
    seed = next(made.seed for made in handful() if made.after == "stays")
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
