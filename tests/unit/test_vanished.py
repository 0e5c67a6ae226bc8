"""Who is known and who vanished, on a world of rectangles: when somebody counts as gone, how they are looked for, and
what a small look may not say.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from orion.messages import AttentionSettings, Crop, Known, KnownPerson, Region, Search, Turn, VanishedPerson
from tests.worlds import HEIGHT, WIDTH, Person, Stream, World, reasons
from workers.attention import Attended, Attention
from workers.people import followed
from workers.search import SEARCH_SHARE, WINDOW_S, SearchBudget
from workers.vanished import LONG_LOSS_S

WHOLE_640 = Crop(0, 0, WIDTH, HEIGHT, 640)


def watched(person: Person, *others: Person, furnished: bool = False, **options: object) -> Stream:
    """Return a stream on which everybody was seen for a second, walking a little."""
    stream = Stream(World([person, *others], scene=int(furnished)), **options)  # type: ignore[arg-type]
    for number in range(10):
        person.x += 2 if number % 2 else -2
        stream.frame()
    return stream


def places(answer: Attended) -> list[tuple[int, int, int, int]]:
    return [(one.x, one.y, one.width, one.height) for one in answer.known.vanished]


def turned_looks(world: World) -> list[Crop]:
    return [crop for crop in world.looks if crop.turn]


def test_who_disappears_inside_the_picture_has_vanished_at_once_and_for_as_long_as_is_set() -> None:
    person = Person(400, 200)
    stream = watched(person)
    stream.world.people.clear()
    answers = stream.run(1300)
    gone = [bool(answer.known.vanished) for answer in answers]
    assert gone == [True] * gone.count(True) + [False] * gone.count(False)
    assert gone.count(True) == 1200 - 1
    assert {one for answer in answers for one in answer.known.vanished} == {VanishedPerson(400, 200, 60, 160, 0.9)}


def test_while_somebody_is_looked_for_nothing_is_called_empty() -> None:
    stream = watched(Person(400, 200))
    stream.world.people.clear()
    answers = stream.run(1300)
    for answer in answers:
        assert answer.roi_processing is not None
        assert (answer.roi_processing.reason == "empty") <= (not answer.known.vanished)
    assert answers[-1].roi_processing is not None
    assert answers[-1].roi_processing.reason == "empty"


def test_streaks_of_looks_come_at_once_and_then_ever_more_rarely_upright_and_turned_both_ways() -> None:
    stream = watched(Person(400, 200))
    stream.world.people.clear()
    begun = stream.time_s
    times: list[float] = []
    for _ in range(400):
        stream.world.looks.clear()
        stream.frame()
        around = [crop for crop in stream.world.looks if crop.model == 640 and crop != WHOLE_640]
        if around:
            times.append(round(stream.time_s - stream.step_s - begun, 1))
            assert [crop.turn for crop in around] == [0, 90, -90]
    assert times == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 26.0, 36.0]


@pytest.mark.parametrize("turn", [90, -90])
def test_who_lies_is_found_by_a_turned_look_and_goes_on_to_be_reported(turn: Turn) -> None:
    person = Person(400, 200)
    stream = watched(person)
    person.x, person.y, person.width, person.height, person.turn = 380, 300, 160, 60, turn
    answers = stream.run(100)
    assert all(len(answer.detections) == 1 and not answer.known.vanished for answer in answers)
    assert [answer.known.people[0].turn for answer in answers] == [turn] * 100
    # Still as they lie, they are held, and each rescan needs the one look that found them.
    held = [answer.inference for answer in answers].count("held")
    assert held >= 90
    assert stream.world.looks.count(WHOLE_640) <= 10
    assert {crop.turn for crop in turned_looks(stream.world)[2:]} <= {turn}


def test_who_moves_as_they_lie_is_looked_at_turned_alone_but_for_rescans() -> None:
    person = Person(400, 200)
    stream = watched(person)
    person.x, person.y, person.width, person.height, person.turn = 380, 300, 160, 60, 90
    stream.run(5)
    stream.world.looks.clear()
    for number in range(40):
        person.x += 3 if number % 2 else -3
        answer = stream.frame()
        assert len(answer.detections) == 1
    assert stream.world.looks.count(WHOLE_640) <= 3
    assert len(turned_looks(stream.world)) >= 38
    assert stream.cost() <= 44 * stream.ratio


def test_who_gets_up_again_is_seen_upright() -> None:
    person = Person(400, 200)
    stream = watched(person)
    person.width, person.height, person.turn = 160, 60, 90
    stream.run(5)
    person.width, person.height, person.turn = 60, 160, 0
    answers = stream.run(30)
    assert all(len(answer.detections) == 1 for answer in answers)
    assert answers[-1].known.people[0].turn == 0


def test_a_small_look_that_finds_nobody_is_no_evidence_where_somebody_vanished() -> None:
    # Who lies is found only large, and moves: each small look at the motion finds nobody.
    person = Person(400, 200)
    stream = watched(person)
    person.turn = None
    person.x += 4
    stream.frame()
    stream.world.looks.clear()
    for number in range(30):
        person.x += 4 if number % 2 else -4
        answer = stream.frame()
        assert answer.known.vanished
    assert {crop.model for crop in stream.world.looks} == {640}
    person.turn = 0
    person.x += 4
    assert len(stream.frame().detections) == 1


def test_a_vigil_that_finds_nobody_does_not_make_the_place_empty() -> None:
    person = Person(400, 200)
    stream = watched(person)
    # They leave, over the edge, and a chair is left moved: only rescans say that nobody is there.
    stream.world.people.clear()
    stream.attention._planner.whereabouts.forget()
    stream.frame()
    stream.world.people.append(Person(420, 250, width=50, height=60, turn=None))
    answers = stream.run(6)
    assert "vigil" in reasons(answers)
    held = [reason for reason in reasons(answers) if reason == "empty"]
    assert len(held) == len([answer for answer in answers if answer.inference == "held"])
    assert reasons(answers)[0] != "empty"
    first = reasons(answers).index("vigil")
    following = reasons(answers)[first + 1 :]
    assert "empty" not in following[: next((n for n, one in enumerate(following) if one != "vigil"), len(following))]


@pytest.mark.parametrize("appeared", ["once", "faint"])
def test_who_was_not_seen_surely_cannot_vanish(appeared: str) -> None:
    world = World()
    stream = Stream(world)
    stream.run(5)
    world.people.append(Person(400, 200, confidence=0.8 if appeared == "once" else 0.4))
    stream.frame()
    world.people.clear()
    assert not any(answer.known.vanished for answer in stream.run(30))


WAYS: dict[str, tuple[float, float, Callable[[Person], bool]]] = {
    "left": (-14, 0, lambda one: one.x + one.width <= 0),
    "right": (14, 0, lambda one: one.x >= WIDTH),
    "top": (0, -14, lambda one: one.y + one.height <= 0),
    "bottom": (0, 14, lambda one: one.y >= HEIGHT),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step_s", [0.1, 0.04])
def test_who_leaves_over_an_edge_has_not_vanished(way: str, step_s: float) -> None:
    across, down, over = WAYS[way]
    person = Person(400, 200)
    stream = watched(person, step_s=step_s)
    while not over(person):
        person.x += across * step_s * 10
        person.y += down * step_s * 10
        assert not stream.frame().known.vanished
    stream.world.people.clear()
    assert not any(answer.known.vanished for answer in stream.run(30))


@pytest.mark.parametrize("edge", ["left", "right", "bottom"])
def test_who_falls_at_an_edge_and_is_not_seen_has_vanished(edge: str) -> None:
    x = {"left": 4, "right": WIDTH - 64, "bottom": 400}[edge]
    y = HEIGHT - 175 if edge == "bottom" else 200
    person = Person(x, y)
    stream = watched(person)
    for _ in range(3):
        person.y, person.height = person.y + 25, person.height - 25
        stream.frame()
    person.turn = None
    person.y, person.height = person.y + 20, person.height - 20
    answers = stream.run(20)
    assert all(answer.known.vanished for answer in answers)


EXIT = ((0.4, 0.3), (0.55, 0.3), (0.55, 0.75), (0.4, 0.75))


@pytest.mark.parametrize("named", [True, False])
def test_who_leaves_by_an_exit_that_is_named_has_not_vanished(named: bool) -> None:
    person = Person(400, 200)
    stream = watched(person, settings=AttentionSettings(exits=(EXIT,) if named else ()))
    stream.world.people.clear()
    assert bool(stream.frame().known.vanished) is not named


def test_who_stands_behind_another_has_not_vanished_until_the_other_goes() -> None:
    person, other = Person(400, 200), Person(700, 190, width=90, height=200)
    stream = watched(person, other)
    while other.x > 395:
        other.x -= 15
        person.turn = 0 if other.x > 440 else None
        assert not stream.frame().known.vanished
    assert [one.hidden_by is not None for one in stream.run(5)[-1].known.people] == [False, True]
    while other.x > 100:
        other.x -= 15
        answer = stream.frame()
    stream.run(25)
    answer = stream.frame()
    assert places(answer) == [(400, 200, 60, 160)]


def test_two_who_walk_on_together_have_not_vanished() -> None:
    person, other = Person(200, 200), Person(100, 190, width=90, height=200)
    stream = Stream(World([person, other]))
    stream.run(5)
    for number in range(50):
        person.x += 8
        other.x += 8 if number > 10 else 15
        person.turn = 0 if number < 8 else None
        answer = stream.frame()
        assert not answer.known.vanished
    assert len(answer.known.people) == 2


def test_who_appears_inside_the_picture_is_who_vanished() -> None:
    person = Person(400, 200)
    stream = watched(person)
    stream.world.people.clear()
    stream.run(20)
    stream.world.people.append(Person(560, 220))
    answers = stream.run(22)
    assert answers[0].known.vanished
    assert not answers[-1].known.vanished
    assert stream.attention.stats.found_again == 1


def test_who_comes_in_over_the_edge_is_somebody_else() -> None:
    person = Person(400, 200)
    stream = watched(person)
    stream.world.people.clear()
    stream.run(20)
    newcomer = Person(-50, 220)
    stream.world.people.append(newcomer)
    answers = stream.run(30, newcomer, 8)
    assert len(answers[-1].detections) == 1
    assert answers[-1].known.vanished


def test_who_is_found_near_the_last_place_is_reported_even_if_faint() -> None:
    person = Person(400, 200)
    stream = watched(person)
    person.turn = None
    stream.run(20)
    person.turn, person.confidence, person.x = 0, 0.35, 420
    answer = stream.frame()
    assert [one.kept for one in answer.detections] == [True]
    assert not answer.known.vanished


def test_faint_boxes_are_kept_where_somebody_is_known_and_nowhere_else() -> None:
    person, chair = Person(400, 200), Person(700, 300, width=50, height=60, confidence=0.4)
    stream = watched(person, chair)
    person.confidence = 0.35
    for _ in range(30):
        person.x += 3
        answer = stream.frame()
        assert [(one.x, one.kept) for one in answer.detections] == [(person.x, True)]


@pytest.mark.parametrize("mode", ["off", "external"])
def test_without_attention_who_stays_is_kept_and_nobody_is_looked_for(mode: str) -> None:
    person, chair = Person(400, 200), Person(700, 300, width=50, height=60, confidence=0.4)
    stream = watched(person, chair, settings=AttentionSettings(mode=mode))  # type: ignore[arg-type]
    person.confidence = 0.35
    assert [one.kept for one in stream.frame().detections] == [True]
    stream.world.people.clear()
    answer = stream.frame()
    assert (answer.detections, answer.known) == ((), Known())


def test_when_attention_ends_who_was_there_in_the_frame_before_is_kept_and_nobody_of_earlier() -> None:
    person = Person(400, 200)
    stream = watched(person, settings=AttentionSettings(mode="off"))
    stream.settings = AttentionSettings()
    stream.run(40, person, 8)
    person.confidence, chair = 0.35, Person(404, 200, confidence=0.4)
    stream.world.people.append(chair)
    stream.settings = AttentionSettings(mode="off")
    assert [(one.x, one.kept) for one in stream.frame().detections] == [(person.x, True)]


def a_worker_dies(stream: Stream) -> Attended:
    known = stream.frame().known
    stream.attention = Attention()
    return stream.frame(known=known)


def time_passes(stream: Stream, seconds: float, *, continuous: bool) -> Attended:
    stream.frames += round(seconds / stream.step_s)
    return stream.frame(continuous=continuous)


def time_goes_back(stream: Stream) -> Attended:
    stream.frames = 1
    return stream.frame()


def light_goes(stream: Stream) -> Attended:
    stream.world.light = 0.4
    return stream.frame()


def scene_is_cut(stream: Stream) -> Attended:
    stream.world.scene += 1
    return stream.frame()


def models_change(stream: Stream) -> Attended:
    stream.attention.forget()
    return stream.frame()


def regions_change(stream: Stream) -> Attended:
    stream.regions = (Region(0.1, 0.1, 0.8, 0.8),)
    return stream.frame()


HAPPENS: dict[str, Callable[[Stream], Attended]] = {
    "a rescan": lambda stream: stream.run(30)[-1],
    "other models": models_change,
    "another worker": a_worker_dies,
    "other light": light_goes,
    "a short loss": lambda stream: time_passes(stream, LONG_LOSS_S - 1, continuous=False),
    "a slow source": lambda stream: time_passes(stream, LONG_LOSS_S + 1, continuous=True),
    "other regions": regions_change,
    "a cut": scene_is_cut,
    "an earlier time": time_goes_back,
    "a long loss": lambda stream: time_passes(stream, LONG_LOSS_S + 1, continuous=False),
}
FORGETTING = ("a cut", "an earlier time", "a long loss")


@pytest.mark.parametrize("what", HAPPENS)
def test_who_vanished_is_forgotten_where_the_scene_is_another_and_only_there(what: str) -> None:
    stream = watched(Person(400, 200), furnished=True)
    stream.world.people.clear()
    before = stream.run(3)[-1].known.vanished
    assert before
    assert HAPPENS[what](stream).known.vanished == (() if what in FORGETTING else before)


@pytest.mark.parametrize("covered_s", [3.0, LONG_LOSS_S + 3.0])
def test_who_vanished_is_looked_for_again_once_nothing_covers_the_lens_any_more(covered_s: float) -> None:
    stream = watched(Person(400, 200), furnished=True)
    stream.world.people.clear()
    before = stream.run(3)[-1].known.vanished
    scene, stream.world.scene = stream.world.scene, 77
    assert not stream.run(round(covered_s / stream.step_s))[-1].known.vanished
    stream.world.scene = scene
    assert stream.frame().known.vanished == (before if covered_s < LONG_LOSS_S else ())


def test_a_successor_looks_for_whom_the_last_worker_knew_at_its_first_frame() -> None:
    stream = watched(Person(400, 200))
    known = stream.frame().known
    assert [(one.answers, one.looks) for one in known.people] == [(3, 2)]
    stream.world.people.clear()
    stream.attention = Attention()
    answer = stream.frame(known=known)
    assert places(answer) == [(400, 200, 60, 160)]
    assert [crop.turn for crop in stream.world.looks[-3:]] == [0, 90, -90]


def test_no_more_is_spent_on_looks_for_who_vanished_than_their_share() -> None:
    # Somebody who is seen and lost again all the time, on a slow stream: each loss would be worth a streak of looks.
    person = Person(400, 200)
    stream = Stream(World([person]), step_s=0.5)
    spent: list[tuple[float, float]] = []
    for number in range(2600):
        stream.world.looks.clear()
        person.turn = 0 if number % 12 < 6 else None
        person.x += 2 if number % 2 else -2
        stream.frame()
        around = [crop for crop in stream.world.looks if crop.model == 640 and crop != WHOLE_640]
        spent.append((stream.time_s, stream.ratio * len(around)))
    for end in range(0, 2600, 50):
        until = spent[end][0]
        window = sum(cost for time_s, cost in spent if until - WINDOW_S < time_s <= until)
        assert window <= SEARCH_SHARE * stream.ratio * WINDOW_S / stream.step_s + 1e-6
    assert sum(cost for _, cost in spent) > 0.5 * SEARCH_SHARE * stream.ratio * len(spent)


def test_the_budget_counts_over_ten_minutes() -> None:
    budget = SearchBudget()
    limit = SEARCH_SHARE * 4.0 * WINDOW_S / 0.5
    budget.pay(0.0, limit - 4.0)
    assert budget.allows(1.0, 4.0, 0.5, 4.0)
    assert not budget.allows(1.0, 4.1, 0.5, 4.0)
    assert budget.allows(WINDOW_S, limit, 0.5, 4.0)


def test_a_place_at_which_people_vanish_and_appear_again_and_again_is_learned_as_an_exit() -> None:
    person = Person(400, 200)
    stream = Stream(World(), AttentionSettings(vanish_s=5.0))
    vanished = []
    for _ in range(5):
        stream.world.people = [person]
        stream.run(6, person, 2)
        person.x = 400
        stream.run(4)
        stream.world.people = []
        vanished.append(any(answer.known.vanished for answer in stream.run(100)))
    assert vanished == [True, True, True, False, False]
    (place,) = stream.attention.stats.exits
    assert (place.vanished, place.appeared) == (3, 5 - 1)
    assert abs(place.x - 0.45) < 0.03
    assert abs(place.y - 280 / HEIGHT) < 0.03


def test_a_place_that_is_learned_counts_only_where_no_exits_are_named() -> None:
    exits = Known(exits=())
    assert exits.exits == ()
    person = Person(400, 200)
    stream = Stream(World(), AttentionSettings(vanish_s=5.0, exits=(((0.8, 0.8), (0.9, 0.8), (0.9, 0.9)),)))
    for _ in range(5):
        stream.world.people = [person]
        stream.run(6, person, 2)
        person.x = 400
        stream.run(4)
        stream.world.people = []
        answers = stream.run(100)
    assert any(answer.known.vanished for answer in answers)


def test_what_is_known_survives_being_packed() -> None:
    search = Search(VanishedPerson(1, 2, 3, 4, 5.0), 2, 6.0)
    known = Known(5.5, (KnownPerson(1, 2, 3, 4, 3, 2, turn=90),), (search,))
    assert known.vanished == (search.person,)
    assert math.isfinite(known.time_s)


def test_who_comes_in_beside_somebody_vanished_is_somebody_else() -> None:
    person = Person(60, 200)
    stream = watched(person)
    person.x, person.y, person.width, person.height, person.turn = 40, 300, 160, 60, None
    before = stream.run(20)[-1].known.vanished
    helper = Person(-60, 190, width=90, height=200)
    stream.world.people.append(helper)
    answers = stream.run(40, helper, 8)
    assert len(answers[-1].detections) == 1
    assert before
    assert {answer.known.vanished for answer in answers} == {before}


def test_a_box_that_flashes_up_where_somebody_vanished_ends_no_search_and_begins_none() -> None:
    stream = watched(Person(400, 200))
    stream.world.people.clear()
    before = stream.run(10)[-1].known.vanished
    flash = Person(430, 230, width=40, height=80, confidence=0.55)
    for number in range(100):
        stream.world.people = [flash] if number % 20 == 0 else []
        assert stream.frame().known.vanished == before
    assert (stream.attention.stats.vanished, stream.attention.stats.found_again) == (1, 0)


@pytest.mark.parametrize("after", range(20, 40))
def test_who_gets_up_ends_the_search_also_when_the_next_look_for_them_is_due(after: int) -> None:
    person = Person(400, 200)
    stream = watched(person)
    stream.world.people.clear()
    stream.run(after)
    person.x = 430
    stream.world.people.append(person)
    for number in range(6):
        person.x += 2 if number % 2 else -2
        answer = stream.frame()
    assert (len(answer.detections), answer.known.vanished) == (1, ())
    assert answer.known.exits == ()


@pytest.mark.parametrize("rescan_s", [2.0, None])
def test_who_is_not_seen_any_more_where_who_hid_them_has_gone_has_vanished_at_once(rescan_s: float | None) -> None:
    person, other = Person(400, 200), Person(700, 190, width=90, height=200)
    stream = watched(person, other, settings=AttentionSettings(rescan_s=rescan_s))
    while other.x > 395:
        other.x -= 15
        person.turn = 0 if other.x > 440 else None
        stream.frame()
    while other.x > 100:
        other.x -= 15
        answer = stream.frame()
        assert other.x >= 340 or places(answer) == [(400, 200, 60, 160)]


def test_who_is_hidden_does_not_take_the_place_of_who_hides_them() -> None:
    there = KnownPerson(695, 452, 60, 88, 3, 2)
    # Somebody on the floor, nearer to where the one before them steps than that one was.
    behind = KnownPerson(717, 450, 60, 88, 3, 2, hidden_by=0)
    step = np.array([[715.0, 452.0, 775.0, 540.0]])
    assert followed((there, behind), step, 0.2) == {0: 0}
    assert followed((behind, there), step, 0.2) == {1: 0}


def test_who_falls_behind_somebody_does_not_walk_on_with_them() -> None:
    person, other = Person(400, 200), Person(470, 190, width=90, height=200)
    stream = watched(person, other)
    for _ in range(3):
        person.y, person.height = person.y + 30, person.height - 30
        other.x -= 20
        stream.frame()
    person.turn = None
    other.x = 390
    stream.run(3)
    while other.x < WIDTH:
        other.x += 8
        stream.frame()
    ((x, *_),) = places(stream.run(3)[-1])
    assert x == 400


@pytest.mark.parametrize("way", ["left", "right"])
def test_who_falls_on_the_way_out_is_found_where_pictures_are_rare(way: str) -> None:
    across, _, _ = WAYS[way]
    person = Person(400, 150)
    stream = watched(person, step_s=1.0)
    for _ in range(20):
        if min(person.x, WIDTH - person.x - 60) < 150:
            break
        person.x += across * 9
        stream.frame()
    person.y, person.width, person.height, person.turn = person.y + 100, 160, 60, 90
    answer = stream.frame()
    assert (len(answer.detections), answer.known.vanished) == (1, ())


@pytest.mark.parametrize("way", ["left", "right"])
@pytest.mark.parametrize("step_s", [0.5, 1.0, 2.0])
def test_who_leaves_where_pictures_are_rare_has_not_vanished(way: str, step_s: float) -> None:
    across, _, over = WAYS[way]
    person = Person(400, 200)
    stream = watched(person, step_s=step_s)
    while not over(person):
        person.x += across * 10 * step_s
        assert not stream.frame().known.vanished
    stream.world.people.clear()
    assert not any(answer.known.vanished for answer in stream.run(10))


def test_after_attention_was_off_nobody_of_before_is_looked_for() -> None:
    stream = watched(Person(400, 200))
    stream.attention.forget()
    stream.settings = AttentionSettings(mode="off")
    stream.frame()
    stream.world.people.clear()
    stream.run(5)
    stream.settings = AttentionSettings()
    assert stream.frame().known.vanished == ()


def test_what_a_clock_that_went_back_had_paid_counts_no_more() -> None:
    budget = SearchBudget()
    limit = SEARCH_SHARE * 4.0 * WINDOW_S / 0.5
    budget.pay(10_000.0, limit)
    assert not budget.allows(10_001.0, 4.0, 0.5, 4.0)
    assert budget.allows(1.0, 4.0, 0.5, 4.0)


@pytest.mark.parametrize("many", [2, 5])
def test_several_who_vanish_are_all_looked_for_two_in_a_frame(many: int) -> None:
    people = [Person(80 + 160 * number, 200) for number in range(many)]
    stream = watched(*people)
    stream.world.people.clear()
    looks = []
    for _ in range(3):
        stream.world.looks.clear()
        answer = stream.frame()
        assert len(answer.known.vanished) == many
        looks.append(len([crop for crop in stream.world.looks if crop.model == 640 and crop != WHOLE_640]))
    assert looks == ([6, 0, 0] if many == 2 else [6, 6, 3])
    assert all(search.streaks == 1 for search in answer.known.searches)
