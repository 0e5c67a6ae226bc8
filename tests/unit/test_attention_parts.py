"""The parts that attention decides with, each by itself."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.scoring import xywh
from orion.messages import AttentionSettings, Crop, Detection, Detections
from tests.worlds import HEIGHT, WIDTH, Person, Stream, World, reasons
from workers.boxes import NONE, Boxes, cut, same_people
from workers.motion import Change
from workers.planner import Planner
from workers.plans import Option, Plan, clusters, crop_around, proposals, scale
from workers.recall import Recall
from workers.rumours import Rumours
from workers.scene import Observation
from workers.trials import Budget, Confirmation

SIZE = (WIDTH, HEIGHT)


def box(x: float, y: float, width: float, height: float) -> Boxes:
    return np.array([[x, y, x + width, y + height]], np.float64)


def found(*boxes: tuple[int, int, int, int], confidence: float = 0.8) -> Detections:
    return tuple(Detection(*box, confidence, 0) for box in boxes)


def test_a_crop_is_never_small_and_never_leaves_the_frame() -> None:
    assert crop_around(box(400, 200, 60, 100)[0], SIZE, 320) == Crop(190, 10, 480, 480, 320)
    assert crop_around(box(0, 0, 60, 100)[0], SIZE, 320) == Crop(0, 0, 480, 480, 320)
    assert crop_around(box(930, 500, 60, 100)[0], SIZE, 320) == Crop(480, 60, 480, 480, 320)
    assert crop_around(box(100, 100, 700, 100)[0], SIZE, 640) == Crop(100, 0, 700, 480, 640)


def test_the_full_scale_is_that_of_a_whole_frame_at_640() -> None:
    assert scale(Crop(0, 0, WIDTH, HEIGHT, 640), SIZE) == 1
    assert scale(Crop(0, 0, 480, 480, 320), SIZE) == 1
    assert scale(Crop(0, 0, WIDTH, HEIGHT, 320), SIZE) == 0.5


def test_neighbours_share_a_crop() -> None:
    zones = np.concatenate([box(20, 100, 80, 200), box(200, 120, 80, 200), box(820, 100, 80, 200)])
    crops = clusters(zones, SIZE)
    assert [(crop.x, crop.width) for crop in crops] == [(0, 480), (480, 480)]


@pytest.mark.parametrize(
    ("zones", "ratio", "expected"),
    [
        (box(300, 100, 100, 200), 4.0, ["crop_320", "whole_320"]),
        (np.concatenate([box(0, 0, 100, 200), box(850, 0, 100, 200)]), 4.0, ["whole_320", "crops_320"]),
        (np.concatenate([box(0, 0, 100, 200), box(850, 0, 100, 200)]), 1.5, ["whole_320"]),
        (box(300, 100, 100, 200), 1.0, []),
    ],
)
def test_only_what_is_cheaper_than_a_whole_640_is_proposed(zones: Boxes, ratio: float, expected: list[str]) -> None:
    around = np.concatenate([zones[:, :2].min(axis=0), zones[:, 2:].max(axis=0)])
    options = proposals(zones, around, zones, SIZE, ratio, 40)
    assert [kind for kind, _ in options] == expected


def test_plans_that_show_somebody_too_small_come_last() -> None:
    zones = np.concatenate([box(0, 0, 40, 100), box(850, 0, 40, 100)])
    around = np.array([0, 0, 890, 100], np.float64)
    assert [kind for kind, _ in proposals(zones, around, zones, SIZE, 4.0, 50)] == ["crops_320", "whole_320"]


def test_trials_have_their_share_and_no_more() -> None:
    budget = Budget()
    trials = 0
    for _ in range(1000):
        budget.begin_frame(4.0)
        budget.pay(4.0, trial=False)
        if budget.allows_trial(1.0):
            budget.pay(1.0, trial=True)
            trials += 1
    assert 0.045 * budget.spent <= budget.spent_on_trials <= 0.05 * budget.spent + 2
    assert budget.spent <= 1.05 * 4000 + 4
    assert trials > 100


def test_cheap_plans_that_always_need_a_check_are_stopped() -> None:
    budget = Budget()
    for _ in range(1000):
        budget.begin_frame(3.0)
        if budget.allows(1.0, 3.0):
            budget.pay(1.0, trial=False)
        budget.pay(3.0, trial=False)
    assert budget.spent <= 1.05 * 3000 + 4


def test_a_plan_that_failed_waits_and_gives_way_after_three_times() -> None:
    confirmation = Confirmation()
    crops = (Crop(0, 0, 9, 9, 320),)
    options: list[Option] = [("crop_320", crops), ("whole_320", crops)]
    tried = []
    for number in range(40):
        option = confirmation.next_trial(options, number / 10)
        if option is not None:
            tried.append(option[0])
            confirmation.fail(option[0], number / 10)
    assert tried[:6] == ["crop_320"] * 3 + ["whole_320"] * 3
    assert len(tried) < 15
    confirmation.confirm("whole_320", 0.9)
    assert confirmation.kind == "whole_320"
    confirmation.fail("whole_320", 5.0)
    assert confirmation.kind is None


def test_a_plan_that_fails_for_days_is_tried_again_at_the_longest_interval() -> None:
    confirmation = Confirmation()
    option: Option = ("whole_320", (Crop(0, 0, 9, 9, 320),))
    tries_s = []
    for second in range(20_000):
        if confirmation.next_trial([option], second) is not None:
            confirmation.fail("whole_320", second)
            tries_s.append(second)
    assert len(tries_s) > 1200
    assert set(np.diff(tries_s[20:])) == {16}


def test_recall_counts_the_last_hour_and_in_all() -> None:
    recall = Recall()
    recall.count(0.0, 0, 10, 0.97)
    assert (recall.last_hour(0.0), recall.closeness) == (0.0, 2)
    recall.count(1800.0, 10, 10, 0.97)
    assert recall.last_hour(1800.0) == 0.5
    recall.count(3800.0, 10, 10, 0.97)
    assert recall.last_hour(3800.0) == 1.0
    assert (recall.hits, recall.total) == (20, 30)


def test_one_miss_proves_nothing() -> None:
    recall = Recall()
    recall.count(0.0, 1, 2, 0.97)
    assert recall.closeness == 1
    recall.count(2.0, 1, 2, 0.97)
    assert recall.closeness == 2


def test_a_refuted_box_is_dropped_until_it_is_firmer() -> None:
    people = box(100, 100, 60, 160)
    rumours = Rumours.of(found((100, 100, 60, 160), (400, 100, 60, 160)), people)
    assert rumours.boxes.tolist() == [[400, 100, 460, 260]]
    again = found((102, 100, 60, 160), (404, 100, 60, 160))
    assert xywh(rumours.without(again, people)).tolist() == [[102, 100, 60, 160]]
    assert len(rumours.without(found((404, 100, 60, 160), confidence=0.95), people)) == 1
    assert len(rumours.without(found((600, 100, 60, 160)), people)) == 1


def test_a_box_is_cut_by_its_crop_but_not_by_the_frame() -> None:
    crop = Crop(480, 60, 480, 480, 320)
    boxes = np.concatenate([box(481, 200, 60, 160), box(600, 200, 60, 160), box(900, 380, 60, 160)])
    assert cut(boxes, (crop,), SIZE).tolist() == [True, False, False]
    assert cut(boxes, (crop, Crop(240, 60, 480, 480, 320)), SIZE).tolist() == [False, False, False]


def test_people_are_the_same_when_they_moved_less_than_their_size() -> None:
    before = np.concatenate([box(100, 100, 60, 160), box(500, 100, 60, 160)])
    after = np.concatenate([box(530, 100, 60, 160), box(800, 100, 60, 160)])
    assert same_people(before, after) == [(1, 0)]
    assert same_people(before, NONE) == []


def observe(time_s: float, *patches: tuple[int, int, int, int]) -> Observation:
    mask: NDArray[np.bool_] = np.zeros((HEIGHT // 4, WIDTH // 4), bool)
    for x, y, width, height in patches:
        mask[y // 4 : (y + height) // 4, x // 4 : (x + width) // 4] = True
    return Observation(time_s, SIZE, Change(mask, 4.0), AttentionSettings(rescan_s=None), (), 4.0)


def confirmed_planner(cheap: Detections) -> Planner:
    """Return a planner that knows one person and has tried its first proposal with the answer `cheap`."""
    planner = Planner()
    trial = planner.learn(planner.decide(observe(0.0)), found((400, 200, 60, 160)))
    assert trial is not None
    assert trial.purpose == "trial"
    assert planner.learn(trial, cheap) is None
    return planner


def walk(planner: Planner, time_s: float) -> Plan:
    return planner.decide(observe(time_s, (400, 200, 60, 160)))


@pytest.mark.parametrize(("width", "kind"), [(59, "held"), (52, "crop_320")])
def test_only_boxes_like_the_rescans_are_held(width: int, kind: str) -> None:
    planner = confirmed_planner(found((400, 200, width, 160)))
    plan = walk(planner, 0.1)
    assert plan.kind == "crop_320"
    assert planner.learn(plan, found((400, 200, width, 160))) is None
    assert planner.decide(observe(0.2)).kind == kind


def test_a_box_at_the_crops_edge_is_checked_on_the_same_picture() -> None:
    planner = confirmed_planner(found((400, 200, 60, 160)))
    plan = walk(planner, 0.1)
    (crop,) = plan.crops
    check = planner.learn(plan, found((400, crop.y, 60, 360 - crop.y)))
    assert check is not None
    assert (check.kind, check.reason, check.purpose) == ("whole_640", "edge", "check")


def test_who_was_lost_is_looked_for_there() -> None:
    planner = confirmed_planner(found((400, 200, 60, 160)))
    check = planner.learn(walk(planner, 0.1), found())
    assert check is not None
    assert check.reason == "lost"
    assert planner.learn(check, found()) is None
    vigil = walk(planner, 0.2)
    assert (vigil.kind, vigil.source, vigil.reason) == ("crop_320", "auto_history", "vigil")
    assert planner.learn(vigil, found()) is None
    assert walk(planner, 1.9).source == "auto_history"
    assert walk(planner, 2.5).kind == "whole_640"


def test_a_person_is_not_held_while_somebody_moves_at_their_side() -> None:
    planner = confirmed_planner(found((400, 200, 60, 160)))
    assert planner.decide(observe(0.1)).kind == "held"
    assert planner.decide(observe(0.2, (475, 220, 20, 120))).kind == "crop_320"


def test_motion_elsewhere_is_a_rescan_at_once_and_the_second_time_in_three() -> None:
    stream = Stream(World([Person(100, 200)]))
    stream.run(3)
    intruder = Person(600, 300, height=60, least_px=1e9)
    stream.world.people.append(intruder)
    seen = reasons(stream.run(6, intruder, 12))
    assert seen[0] == "motion"
    assert seen.count("motion") >= 2
    assert "follow" in seen
