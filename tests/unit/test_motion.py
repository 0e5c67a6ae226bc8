from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from orion.messages import Pixels
from workers.boxes import NONE
from workers.motion import Change, Watch, picture_step, sample

WIDTH, HEIGHT = 960, 540
STEP_S = 0.1


def room(seed: int = 0) -> Pixels:
    """Return a still picture with structure: blocks of different greys."""
    blocks = np.random.default_rng(seed).integers(40, 200, (9, 16, 1), np.uint8)
    return np.repeat(np.repeat(np.repeat(blocks, 60, 0), 60, 1), 3, 2)


def with_patch(frame: Pixels, x: int, y: int, width: int, height: int, grey: int = 255) -> Pixels:
    changed = frame.copy()
    changed[y : y + height, x : x + width] = grey
    return changed


def watching(frame: Pixels) -> Watch:
    return Watch(sample(frame), picture_step(WIDTH, HEIGHT))


def changes(*frames: Pixels) -> list[Change]:
    """Return what each frame changed against the one before, which was looked at whole."""
    watch = watching(frames[0])
    found = []
    for _, frame in pairwise(frames):
        found.append(watch.compare(sample(frame), STEP_S))
        watch.look(sample(frame), None, NONE)
    return found


def inside(mover: NDArray[np.float64], x: int, y: int, width: int, height: int, slack: float = 24) -> bool:
    x1, y1, x2, y2 = mover
    return bool(x1 >= x - slack and y1 >= y - slack and x2 <= x + width + slack and y2 <= y + height + slack)


@pytest.mark.parametrize(
    ("size", "picture"), [((1920, 1080), (135, 240)), ((640, 480), (180, 240)), ((3840, 2160), (270, 480))]
)
def test_the_picture_is_an_eighth_and_not_smaller_than_240(size: tuple[int, int], picture: tuple[int, int]) -> None:
    assert sample(np.zeros((size[1], size[0], 3), np.uint8)).shape == picture


def test_nothing_moves_in_a_still_picture() -> None:
    (change,) = changes(room(), room())
    assert len(change.movers(())) == 0
    assert change.share_inside(np.array([[0.0, 0.0, WIDTH, HEIGHT]])) == 0
    assert not change.whole


def test_what_appears_is_found_where_it_is() -> None:
    (change,) = changes(room(), with_patch(room(), 300, 200, 60, 150))
    (mover,) = change.movers(())
    assert inside(mover, 300, 200, 60, 150)
    assert len(change.movers([np.array([290.0, 190.0, 370.0, 360.0])])) == 0
    assert change.share_inside(np.array([[300.0, 200.0, 360.0, 350.0]])) > 0.6


def test_what_is_too_small_for_a_person_does_not_count() -> None:
    (change,) = changes(room(), with_patch(room(), 300, 200, 14, 14))
    assert len(change.movers(())) == 0


def test_slow_motion_adds_up_until_it_is_looked_at() -> None:
    wall = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    watch = watching(with_patch(wall, 300, 200, 60, 150, 130))
    counts = []
    for way in range(1, 60):
        frame = with_patch(wall, 300 + way, 200, 60, 150, 130)
        counts.append(len(watch.compare(sample(frame), STEP_S).movers(())))
    assert counts[0] == 0
    assert counts[-1] > 0


def test_noise_is_no_motion_and_hides_none() -> None:
    random = np.random.default_rng(1)

    def noisy(frame: Pixels) -> Pixels:
        return np.asarray(np.clip(frame + random.normal(0, 15, frame.shape), 0, 255), np.uint8)

    quiet = changes(*(noisy(room()) for _ in range(20)))
    assert [len(change.movers(())) for change in quiet] == [0] * 19
    (change,) = changes(noisy(room()), noisy(with_patch(room(), 300, 200, 60, 150)))
    assert any(inside(mover, 300, 200, 60, 150) for mover in change.movers(()))


def test_flicker_is_no_motion_and_hides_none() -> None:
    def lit(frame: Pixels, gain: float) -> Pixels:
        return np.asarray(np.clip(frame * gain, 0, 255), np.uint8)

    quiet = changes(*(lit(room(), gain) for gain in (1.0, 0.94, 1.06, 0.97, 1.08)))
    assert [len(change.movers(())) for change in quiet] == [0] * 4
    assert not any(change.whole for change in quiet)
    (change,) = changes(room(), lit(with_patch(room(), 300, 200, 60, 150), 1.05))
    (mover,) = change.movers(())
    assert inside(mover, 300, 200, 60, 150)


def test_a_part_looked_at_in_other_light_is_compared_in_the_rests() -> None:
    bright = np.clip(room() * 1.08, 0, 255).astype(np.uint8)
    watch = watching(room())
    watch.compare(sample(bright), STEP_S)
    watch.look(sample(bright), np.array([[0.0, 0.0, 480.0, 540.0]]), NONE)
    assert len(watch.compare(sample(room()), STEP_S).movers(())) == 0


def test_another_light_or_scene_is_a_change_as_a_whole() -> None:
    dark = (room() * 0.7).astype(np.uint8)
    lights_off, cut = changes(room(), dark, room(seed=7))
    assert lights_off.whole
    assert cut.whole


def test_a_moving_camera_is_no_noise() -> None:
    wide = np.hstack([room(1), room(2)])
    pans = changes(*(wide[:, way : way + WIDTH] for way in range(0, 300, 60)))
    assert all(change.whole for change in pans)


def test_what_came_and_stays_is_not_restless_and_hides_nobody() -> None:
    parked = with_patch(room(), 300, 100, 360, 300, 230)
    watch = watching(room())
    for _ in range(60):
        watch.compare(sample(parked), STEP_S)
    watch.look(sample(parked), None, NONE)
    change = watch.compare(sample(with_patch(parked, 420, 150, 60, 150, 20)), STEP_S)
    assert any(inside(mover, 420, 150, 60, 150) for mover in change.movers(()))


def test_unrest_in_much_of_the_picture_hides_nobody() -> None:
    watch = watching(room())

    def waving(number: int) -> Pixels:
        return with_patch(room(), 0, 0, 480, 180, 255 if number % 2 else 0)

    counts = [len(watch.compare(sample(waving(number)), STEP_S).movers(())) for number in range(60)]
    assert min(counts) > 0


def test_a_restless_place_is_ignored_until_it_rests_and_a_person_there_is_not() -> None:
    watch = watching(room())

    def flicker(number: int) -> Change:
        return watch.compare(sample(with_patch(room(), 600, 100, 120, 80, 255 if number % 2 else 0)), STEP_S)

    found = []
    for number in range(60):
        change = flicker(number)
        found.append(len(change.movers(())))
        watch.look(sample(with_patch(room(), 600, 100, 120, 80, 255 if number % 2 else 0)), None, NONE)
    assert found[1] == 1
    assert found[-20:] == [0] * 20

    elsewhere = with_patch(with_patch(room(), 600, 100, 120, 80, 255), 200, 200, 60, 150)
    assert len(watch.compare(sample(elsewhere), STEP_S).movers(())) == 1

    watch.look(sample(elsewhere), None, np.array([[580.0, 80.0, 740.0, 200.0]]))
    assert len(flicker(0).movers(())) == 2
