"""How answers to made falls are judged, on answers that are made up; and the way of a turned look back to the frame."""

import cv2
import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.fall_judge import Answer, answer, judge, reported_soon
from benchmarks.fall_looks import crop_around
from benchmarks.fall_trial import COST_RATIO, effort
from benchmarks.fall_variants import variant
from benchmarks.made_falls import Shot, Truth
from orion.messages import Crop, Detection, Known, Outcome, RoiProcessing, Search, Turn, VanishedPerson
from tests.falls import assert_nobody_is_lost
from workers.rotation import turned, turned_back

BOX = (100, 100, 200, 150)
UP, FALLING, LYING, RISING = (Truth(phase, BOX, 1.0) for phase in ("up", "falling", "lying", "rising"))
LEAVING, GONE = Truth("up", (0, 100, 20, 150), 0.2), Truth("gone", None, 0.0)
THERE = Detection(105, 100, 95, 50, 0.8, 0)
ELSEWHERE = Detection(400, 100, 60, 90, 0.8, 0)


def answers(*parts: tuple[Truth, str], fps: float = 10.0) -> list[Answer]:
    """Return answers of frames in a row: for each letter `f` found, `v` vanished, `b` both, `-` neither."""
    said = [(truth, letter) for truth, letters in parts for letter in letters]
    return [
        Answer(number / fps, truth, letter in "fb", 0, int(letter in "vb"))
        for number, (truth, letter) in enumerate(said)
    ]


def outcome(*detections: Detection, vanished: int = 0, crops: tuple[Crop, ...] = ()) -> Outcome:
    person = VanishedPerson(100, 100, 50, 100, 0.0)
    known = Known(searches=(Search(person, 0, 0.0),) * vanished)
    processing = RoiProcessing(640, False, "", "simple", (), None, crops, None, "")
    return Outcome(detections, "full", 640, processing, None, 0, 12.5, 0, 0, known)


def test_an_answer_has_them_where_a_box_overlaps_or_is_inside() -> None:
    shot = Shot(3, 0.3, np.zeros((432, 768, 3), np.uint8), LYING)
    assert answer(shot, outcome(THERE, ELSEWHERE)) == Answer(0.3, LYING, True, 1, 0)
    small_inside, around = Detection(140, 120, 10, 10, 0.8, 0), Detection(0, 0, 700, 400, 0.8, 0)
    assert answer(shot, outcome(small_inside)).found
    assert answer(shot, outcome(around)) == Answer(0.3, LYING, False, 1, 0)
    assert answer(shot, outcome(vanished=2)) == Answer(0.3, LYING, False, 0, 2)


def test_where_nobody_is_every_box_is_extra() -> None:
    shot = Shot(3, 0.3, np.zeros((432, 768, 3), np.uint8), GONE)
    assert answer(shot, outcome(THERE)) == Answer(0.3, GONE, False, 1, 0)


def test_who_is_always_found_has_no_silence() -> None:
    verdict = judge(answers((UP, "ffff"), (FALLING, "ff"), (LYING, "f" * 20)), 120)
    assert (verdict.results, verdict.first_s, verdict.silence_s, verdict.nobody_s, verdict.neither) == (26, 0, 0, 0, 0)
    assert verdict.vanished_after_s is None
    assert verdict.lying_s == pytest.approx(1.9)


def test_a_silence_lasts_to_the_next_answer_that_has_them() -> None:
    verdict = judge(answers((UP, "ff"), (LYING, "f---f--f")), 120)
    assert verdict.silence_s == pytest.approx(0.3)
    assert verdict.nobody_s == pytest.approx(0.3)
    assert verdict.neither == 5
    assert verdict.first_s == 0


def test_a_silence_begins_and_ends_with_the_lying() -> None:
    verdict = judge(answers((UP, "ff"), (FALLING, "---"), (LYING, "----"), (RISING, "--"), (UP, "ff")), 120)
    assert verdict.silence_s == pytest.approx(0.4)
    assert verdict.first_s is None
    assert verdict.neither == 9
    cut_off = judge(answers((UP, "ff"), (LYING, "f----")), 120)
    assert cut_off.silence_s == pytest.approx(0.3)


def test_who_is_missed_is_silent_and_not_forgotten() -> None:
    verdict = judge(answers((UP, "ff"), (FALLING, "f-"), (LYING, "--vvvvvvff-")), 120)
    assert verdict.silence_s == pytest.approx(0.8)
    assert verdict.nobody_s == pytest.approx(0.2)
    assert verdict.vanished_after_s == pytest.approx(0.2)
    assert verdict.vanished_s == pytest.approx(0.6)
    assert verdict.neither == 4
    assert verdict.first_s == pytest.approx(0.8)


def test_nobody_is_missed_for_longer_than_was_set() -> None:
    late = judge(answers((UP, "f"), (LYING, "v" * 20 + "-" * 30)), 2.0)
    assert late.neither == 0
    assert late.nobody_s == 0
    assert late.silence_s == pytest.approx(4.9)
    early = judge(answers((UP, "f"), (LYING, "v" * 15 + "-" * 35)), 2.0)
    assert early.neither == 5
    assert early.nobody_s == pytest.approx(0.5)


def test_before_they_were_found_nobody_is_missed() -> None:
    assert judge(answers((UP, "---f-"), (LYING, "f")), 120).neither == 1


def test_who_leaves_over_the_edge_is_not_to_be_missed() -> None:
    left = judge(answers((UP, "ff"), (LYING, "ff"), (RISING, "f"), (UP, "ff"), (LEAVING, "--"), (GONE, "----")), 120)
    assert (left.neither, left.left_vanished) == (0, 0)
    missed = judge(answers((UP, "ff"), (LYING, "ff"), (UP, "f"), (LEAVING, "v"), (GONE, "vv--")), 120)
    assert missed.left_vanished == 2


def test_coming_and_standing_count_as_there_where_enough_is_visible() -> None:
    coming = Truth("up", (0, 100, 30, 150), 0.3)
    assert judge(answers((GONE, "--"), (coming, "f-"), (UP, "f--")), 120).neither == 2


def test_both_at_once_is_counted() -> None:
    assert judge(answers((UP, "f"), (LYING, "bbf")), 120).both == 2


def test_tests_fail_where_somebody_is_lost() -> None:
    made = variant(0)
    found, missed, lost = (answers((UP, "ff"), (LYING, said)) for said in ("f" * 20, "f" + "v" * 19, "f" + "-" * 19))
    assert_nobody_is_lost(made, judge(found, 120))
    assert_nobody_is_lost(made, judge(missed, 120))
    with pytest.raises(AssertionError, match=r"seed=0, .*said nobody for 1\.8"):
        assert_nobody_is_lost(made, judge(lost, 120))
    with pytest.raises(AssertionError, match="1 results with neither"):
        assert_nobody_is_lost(made, judge(answers((UP, "f"), (LYING, "f-f")), 120))
    with pytest.raises(AssertionError, match="1 results missed somebody who had left"):
        assert_nobody_is_lost(made, judge(answers((UP, "f"), (LYING, "f"), (GONE, "v")), 120))


def test_soon_is_within_a_second() -> None:
    played = answers((LYING, "-" * 10 + "f" + "-" * 9))
    assert reported_soon(played, 0.0)
    assert reported_soon(played, 1.0)
    assert not reported_soon(played, 1.1)
    assert not reported_soon(answers((LYING, "-" * 11 + "f")), 0.0)


def test_what_a_result_took_is_counted_by_its_crops() -> None:
    small, large = Crop(0, 0, 320, 320, 320), Crop(0, 0, 640, 432, 640)
    assert effort(outcome(crops=(small, large))).units == COST_RATIO + 1
    assert effort(outcome()).units == COST_RATIO
    total = effort(outcome(crops=(small,))) + effort(outcome())
    assert (total.results, total.inference_ms, total.units) == (2, 25.0, COST_RATIO + 1)


@pytest.mark.parametrize("turn", [-90, 90])
@pytest.mark.parametrize("crop", [Crop(30, 50, 300, 200, 640), Crop(0, 0, 500, 400, 640), Crop(90, 7, 121, 333, 640)])
def test_a_turned_look_says_where_in_the_frame_it_was(crop: Crop, turn: Turn) -> None:
    """Where a bright box is in the turned picture is found by its pixels."""
    frame = np.zeros((400, 500, 3), np.uint8)
    frame[80:110, 100:170] = 255
    crop = replace(crop, turn=turn)
    piece = frame[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    ways = {90: cv2.ROTATE_90_CLOCKWISE, -90: cv2.ROTATE_90_COUNTERCLOCKWISE}
    seen = turned(frame, crop)
    assert np.array_equal(seen, cv2.rotate(piece, ways[turn]))
    x, y, width, height = cv2.boundingRect(seen[:, :, 0])
    assert width < height
    assert turned_back((Detection(x, y, width, height, 0.5, 0),), crop) == (Detection(100, 80, 70, 30, 0.5, 0),)


def test_a_look_around_somebody_stays_in_the_frame() -> None:
    size = (768, 432)
    assert crop_around(np.array([300.0, 150, 350, 250]), 2.0, size) == Crop(197, 100, 256, 200, 640)
    assert crop_around(np.array([10.0, 300, 60, 420]), 2.0, size) == Crop(0, 192, 256, 240, 640)
    assert crop_around(np.array([700.0, 20, 768, 400]), 1.5, size) == Crop(198, 0, 570, 432, 640)
