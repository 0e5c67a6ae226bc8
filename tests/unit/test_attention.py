"""Attention as a whole, on a world of rectangles: which crops it asks for, when, and what it answers."""

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.scoring import xywh
from orion.messages import AttentionMode, AttentionSettings, Crop, Detection, Detections, Region
from tests.worlds import HEIGHT, WIDTH, Person, Stream, World, reasons
from workers.attention import Attended, merge

WHOLE_640 = Crop(0, 0, WIDTH, HEIGHT, 640)


def crops(answer: Attended) -> tuple[Crop, ...]:
    assert answer.roi_processing is not None
    return answer.roi_processing.crops


def rescans(answers: list[Attended]) -> list[int]:
    return [number for number, answer in enumerate(answers) if WHOLE_640 in crops(answer)]


def test_off_is_every_frame_whole_through_the_640() -> None:
    world = World([Person(300, 200)])
    answers = Stream(world, AttentionSettings(mode="off")).run(5)
    assert world.looks == [WHOLE_640] * 5
    assert all(answer.roi_processing is None and answer.inference == "full" for answer in answers)
    assert all(len(answer.detections) == 1 and answer.suggested_roi is not None for answer in answers)


def test_external_without_regions_is_whole_frames() -> None:
    world = World([Person(300, 200)])
    answers = Stream(world, AttentionSettings(mode="external")).run(5)
    assert world.looks == [WHOLE_640] * 5
    assert reasons(answers) == ["no_regions"] * 5


def test_a_walker_is_followed_by_small_crops_that_hold_the_whole_person() -> None:
    walker = Person(150, 200)
    stream = Stream(World([walker]))
    answers = stream.run(18, walker)
    assert reasons(answers) == ["first"] + ["confirmed"] * 17
    for number, answer in enumerate(answers):
        left = 150 + 6 * (number + 1)
        assert xywh(answer.detections).tolist() == [[left, 200, 60, 160]]
        assert answer.inference == ("roi" if number else "full")
    for answer in answers[1:]:
        (crop,) = crops(answer)
        assert crop.model == answer.model_selected == 320
        assert (crop.width, crop.height) == (480, 480)
        processing = answer.roi_processing
        assert processing is not None
        assert (processing.source, processing.crop_applied, processing.target_size) == ("python_suggested", True, 320)
        assert processing.crop == (crop.x, crop.y, crop.width, crop.height)
        assert processing.merged_roi is not None
        assert len(processing.attention_rois) == 1


def test_rescans_come_in_time_whatever_the_frame_rate() -> None:
    for step_s in (1 / 30, 0.07, 0.3, 0.9):
        stream = Stream(World([Person(150, 200)]), step_s=step_s)
        times = [number * step_s for number in rescans(stream.run(round(10 / step_s)))]
        assert max(np.diff([*times, 10 - step_s])) <= 2.0 + 1e-6
        assert len(times) < 9 if step_s < 0.5 else True


def test_every_frame_is_a_rescan_when_frames_come_slower() -> None:
    world = World([Person(150, 200)])
    Stream(world, step_s=2.5).run(6)
    assert world.looks.count(WHOLE_640) == 6


def test_the_still_are_held_until_the_rescan() -> None:
    stream = Stream(World([Person(300, 200)]))
    answers = stream.run(41)
    assert rescans(answers) == [0, 20, 40]
    held = [answer for answer in answers if answer.inference == "held"]
    assert len(held) == 38
    for answer in held:
        assert crops(answer) == ()
        assert xywh(answer.detections).tolist() == [[300, 200, 60, 160]]
        assert answer.timings.inference_ms == 0
        assert answer.suggested_roi is not None


def test_an_empty_still_scene_is_held_and_suggests_nothing() -> None:
    world = World()
    answers = Stream(world).run(20)
    assert world.looks == [WHOLE_640]
    assert {answer.inference for answer in answers[1:]} == {"held"}
    assert all(answer.suggested_roi is None and len(answer.detections) == 0 for answer in answers)


@pytest.mark.parametrize("what", ["not continuous", "forgotten", "another scene", "earlier time"])
def test_nothing_is_held_across(what: str) -> None:
    world = World([Person(300, 200)])
    stream = Stream(world)
    assert stream.run(5)[-1].inference == "held"
    world.people[0].x += 1
    if what == "forgotten":
        stream.attention.forget()
    elif what == "another scene":
        world.texture, world.people = 60, []
    elif what == "earlier time":
        stream.frames = 0
    answer = stream.frame(continuous=what != "not continuous")
    assert WHOLE_640 in crops(answer)
    assert xywh(answer.detections).tolist() == [[person.x, 200, 60, 160] for person in world.people]


def test_a_newcomer_who_moves_is_found_at_once() -> None:
    walker, newcomer = Person(200, 200), Person(WIDTH, 260)
    stream = Stream(World([walker]))
    stream.run(10, walker, 3)
    stream.world.people.append(newcomer)
    visible = 0
    while newcomer.x > WIDTH - 200:
        newcomer.x -= 8
        walker.x += 3
        answer = stream.frame()
        expected = stream.world.look(WHOLE_640)[0]
        visible += len(expected) == 2
        assert len(answer.detections) == len(expected) or visible <= 1
    assert visible > 10


def test_a_newcomer_who_cannot_be_told_from_the_wall_is_found_by_the_rescan() -> None:
    walker = Person(200, 200)
    stream = Stream(World([walker]))
    stream.run(10, walker, 3)
    stream.world.people.append(Person(800, 200, grey=104))
    counts = [len(answer.detections) for answer in stream.run(12, walker, 3)]
    assert counts[:8] == [1] * 8
    assert counts[10:] == [2] * 2


def test_a_small_newcomer_in_the_shadow_of_a_big_mover_is_found() -> None:
    big = Person(60, 20, width=260, height=500)
    stream = Stream(World([big]))
    stream.run(10, big, 4)
    small = Person(big.x + big.width + 14, 300, width=30, height=64, least_px=30)
    stream.world.people.append(small)
    found = []
    for _ in range(4):
        big.x += 4
        small.x += 6
        found.append(len(stream.frame().detections))
    assert found[1] == 2


def test_who_leaves_is_missed_on_the_same_picture_by_a_full_look() -> None:
    walker, stays = Person(500, 200), Person(300, 200)
    stream = Stream(World([walker, stays]))
    stream.run(6, walker, 3)
    stream.world.people.remove(walker)
    answer = stream.frame()
    assert WHOLE_640 in crops(answer)
    assert reasons([answer]) == ["lost"]
    assert len(answer.detections) == 1


def test_a_plan_that_misses_somebody_is_never_used() -> None:
    near, far = Person(100, 200), Person(800, 200, width=20, height=40, least_px=21)
    stream = Stream(World([near, far]), AttentionSettings(min_person_px=0))
    answers = stream.run(40, near, 3)
    assert all(len(answer.detections) == 2 for answer in answers)
    assert Crop(0, 0, WIDTH, HEIGHT, 320) in stream.world.looks
    assert not any(crops(answer) == (Crop(0, 0, WIDTH, HEIGHT, 320),) for answer in answers)
    assert any({crop.model for crop in crops(answer)} == {320} for answer in answers)


def test_people_far_apart_get_a_crop_each_when_the_whole_is_too_coarse() -> None:
    left, right = (Person(x, 200, width=20, height=40, least_px=21) for x in (60, 860))
    stream = Stream(World([left, right]), ratio=4.0)
    answers = stream.run(38, left, 2)
    used = [crops(answer) for answer in answers if answer.inference == "roi"]
    assert used
    assert all([crop.model for crop in plan] == [320, 320] for plan in used)
    assert all(len(answer.detections) == 2 for answer in answers)


def test_trials_and_everything_keep_to_their_budgets_where_nothing_cheap_works() -> None:
    crowd = [Person(40 + 90 * n, 60 + 40 * (n % 4), width=18, height=36, least_px=23) for n in range(10)]
    stream = Stream(World(crowd), ratio=3.5)
    random = np.random.default_rng(3)
    for _ in range(300):
        for person in crowd:
            person.x += random.integers(-3, 4)
        stream.frame()
    assert all(crop.model == 640 for crop in stream.world.looks) or stream.attention.stats.trials > 0
    assert stream.cost() <= 1.05 * 300 * 3.5 + 4
    assert stream.attention.stats.trial_share <= 0.05 + 2 / stream.cost()


@pytest.mark.parametrize("settings", [AttentionSettings(), AttentionSettings(strategy="velocity")])
def test_without_a_320_session_all_runs_through_the_640(settings: AttentionSettings) -> None:
    walker = Person(150, 200)
    stream = Stream(World([walker]), settings, ratio=1.0)
    answers = stream.run(30, walker)
    answers += stream.run(10)
    assert {crop.model for crop in stream.world.looks} == {640}
    assert all(len(answer.detections) == 1 for answer in answers)
    assert answers[-1].inference == "held"


def test_flicker_calls_for_no_rescan() -> None:
    walker = Person(150, 200)
    stream = Stream(World([walker]))
    seen = []
    for number in range(18):
        walker.x += 4
        stream.world.light = 1 + 0.06 * (-1) ** number
        seen.append(stream.frame())
    assert reasons(seen) == ["first"] + ["confirmed"] * 17


def test_another_light_calls_for_a_rescan() -> None:
    stream = Stream(World([Person(150, 200)]))
    stream.run(3)
    stream.world.light = 0.7
    assert reasons([stream.frame()]) == ["scene"]


def test_external_regions_are_looked_at_first_and_the_rest_at_rescans() -> None:
    region = Region(0.7, 0.3, 0.2, 0.5)
    inside, outside = Person(720, 220), Person(100, 200, grey=103)
    stream = Stream(World([inside]), regions=(region,))
    stream.run(4, inside, 2)
    stream.world.people.append(outside)
    answers = stream.run(20, inside, 2)
    first = answers[0].roi_processing
    assert first is not None
    assert first.source == "external"
    assert [roi.x for roi in first.attention_rois] == pytest.approx([region.x])
    (crop,) = first.crops
    assert crop.x <= 0.7 * WIDTH
    assert crop.x + crop.width >= 0.9 * WIDTH
    assert [len(answer.detections) for answer in answers[:12]] == [1] * 12
    assert len(answers[-1].detections) == 2


def test_with_rescans_off_external_regions_are_all_that_is_seen() -> None:
    stream = Stream(
        World([Person(720, 220), Person(100, 200)]),
        AttentionSettings(rescan_s=None),
        regions=(Region(0.7, 0.3, 0.2, 0.5),),
    )
    seen = []
    for _ in range(60):
        for person in stream.world.people:
            person.x += 1
        seen.append(stream.frame())
    assert all(len(answer.detections) == 1 for answer in seen)
    assert all(crop.x > 200 for crop in stream.world.looks)
    assert {crop.model for crop in stream.world.looks} == {320, 640}
    assert all(answer.inference != "full" for answer in seen)


@pytest.mark.parametrize("light", [0.5, 0.8, 2.0])
@pytest.mark.parametrize("mode", ["auto", "external"])
def test_another_light_costs_one_look_at_the_regions_with_rescans_off(mode: AttentionMode, light: float) -> None:
    settings = AttentionSettings(mode=mode, rescan_s=None)
    stream = Stream(World(), settings, regions=(Region(0.1, 0.1, 0.3, 0.3),))
    stream.run(3)
    stream.world.light = light
    assert reasons(stream.run(20)) == ["scene"] + ["empty"] * 19
    stream.world.light = 1.0
    assert reasons(stream.run(20)) == ["scene"] + ["empty"] * 19


@pytest.mark.parametrize("rescan_s", [2.0, None])
@pytest.mark.parametrize("region", [Region(0.5, 0.2, 5.55e-17, 1e-300), Region(1.0, 1.0, 1e-10, 1e-10)])
def test_a_region_smaller_than_a_pixel_is_looked_at_as_one(region: Region, rescan_s: float | None) -> None:
    walker = Person(400, 100)
    answers = Stream(World([walker]), AttentionSettings(rescan_s=rescan_s), regions=(region,)).run(20, walker, 3)
    planned = [answer.roi_processing for answer in answers if answer.roi_processing and answer.roi_processing.source]
    assert planned
    for processing in planned:
        (roi,) = processing.attention_rois
        assert roi.width * WIDTH == pytest.approx(1)
        assert roi.height * HEIGHT == pytest.approx(1)


def test_settings_take_effect_on_the_next_frame() -> None:
    walker = Person(150, 200)
    stream = Stream(World([walker]))
    stream.run(5, walker)
    stream.settings = replace(stream.settings, mode="off")
    assert stream.frame().roi_processing is None
    stream.settings = replace(stream.settings, mode="auto", strategy="smoothing")
    answers = stream.run(3, walker)
    assert reasons(answers) == ["first", "confirmed", "confirmed"]
    assert {answer.roi_processing.strategy for answer in answers if answer.roi_processing} == {"smoothing"}
    stream.settings = replace(stream.settings, rescan_s=0.3)
    assert len(rescans(stream.run(12, walker))) == 4


def test_a_crop_is_widened_by_velocity() -> None:
    widths = []
    for strategy in ("simple", "velocity"):
        walker = Person(100, 120, width=200, height=300)
        settings = AttentionSettings(strategy=strategy, velocity_threshold=0.01, velocity_factor=14, max_expansion=0.3)
        answers = Stream(World([walker]), settings).run(6, walker, 20)
        widths.append(crops(answers[-1])[0].width)
    assert widths[1] > widths[0]


def test_decisions_are_the_same_in_every_replay() -> None:
    def replay() -> list[Attended]:
        walker = Person(0, 200)
        return Stream(World([walker, Person(600, 300)])).run(60, walker, 11)

    assert [answer.roi_processing for answer in replay()] == [answer.roi_processing for answer in replay()]


def test_the_live_recall_falls_and_rescans_come_closer_until_it_recovers() -> None:
    walker = Person(100, 200)
    stream = Stream(World([walker]))
    since, seen = 0, []
    for number in range(400):
        walker.x = 100 + 5 * abs(number % 40 - 20)
        stream.world.people[1:] = [Person(800, 340, grey=103, least_px=80)] if since > 3 else []
        since = 0 if WHOLE_640 in crops(stream.frame()) else since + 1
        seen.append(stream.attention.stats)
    lowest = min(seen, key=lambda stats: stats.recall_last_hour)
    assert lowest.recall_last_hour == lowest.recall_hits / lowest.recall_total < 0.9
    assert min(stats.rescan_s or 0.0 for stats in seen) == 0.25
    del stream.world.people[1:]
    for number in range(2500):
        walker.x = 100 + 5 * abs(number % 40 - 20)
        stream.frame()
    high = stream.attention.stats
    assert high.recall_last_hour > 0.97
    assert high.rescan_s == 2.0


def test_stats_add_up() -> None:
    walker = Person(150, 200)
    stream = Stream(World([walker]))
    stream.run(30, walker)
    stats = stream.attention.stats
    assert sum(count for _, count in stats.plans) == sum(count for _, count in stats.reasons) == 30
    assert dict(stats.plans)["crop_320"] == dict(stats.reasons)["confirmed"]
    assert stats.model_320_selected + stats.model_640_selected + stats.trials == len(stream.world.looks)
    assert stats.history[-1] == stats.suggested_roi
    assert 0 < stats.trial_share < 0.1


def detections(*boxes: tuple[int, int, int, int, float, int]) -> Detections:
    return tuple(Detection(*box) for box in boxes)


def test_boxes_of_several_crops_become_one_frames() -> None:
    left, right = Crop(0, 0, 320, 320, 320), Crop(280, 0, 320, 320, 320)
    merged = merge(
        [
            detections((200, 50, 60, 150, 0.7, 0), (290, 60, 29, 150, 0.9, 0), (204, 52, 60, 150, 0.6, 1)),
            detections((290, 60, 60, 150, 0.8, 0)),
        ],
        (left, right),
        (960, 540),
    )
    assert xywh(merged).tolist() == [[290, 60, 60, 150], [200, 50, 60, 150], [204, 52, 60, 150]]
    assert [one.class_id for one in merged] == [0, 0, 1]
