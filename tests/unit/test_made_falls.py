"""The made falls: what they cover, how who falls moves in them, and that their truth is what the pixels show."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cutouts import Room, load_room
from benchmarks.fall_motion import Pose, Script, write_script
from benchmarks.fall_variants import COUNT, Phase, Variant, variant, variants
from benchmarks.made_falls import Scene, frames
from tests.falls import handful, length

FOOT = (380.0, 360.0)
WHOLE: tuple[Phase, ...] = ("up", "falling", "lying", "rising", "up", "gone")
PHASES = {"stays": WHOLE[:3], "rises": WHOLE[:5], "leaves": WHOLE}
ALL = variants()


@pytest.fixture(scope="module")
def room(testdata: Path) -> Room:
    return load_room(testdata)


def script(made: Variant) -> Script:
    return write_script(made, FOOT, 80.0, 768)


def poses(made: Variant) -> list[Pose]:
    written = script(made)
    return [written.pose(number / made.fps) for number in range(written.count)]


def first(kind: str, **fields: object) -> Variant:
    """Return the first variant of a kind with those fields, in steady light and without noise."""
    for made in ALL:
        if made.kind == kind and all(getattr(made, name) == value for name, value in fields.items()):
            return replace(made, noise=0.0, light="steady")
    raise AssertionError(f"no variant of {kind} with {fields}")


def test_the_falls_cover_every_kind() -> None:
    assert len({made.seed for made in ALL}) == COUNT == 200
    pairs = {(made.kind, made.direction) for made in ALL}
    assert pairs == {(kind, way) for kind in ("free", "furniture", "sheet", "edge") for way in ("left", "right")}
    assert {made.part for made in ALL if made.cover == "furniture"} == {"head", "legs", "side"}
    assert {made.part for made in ALL if made.cover == "sheet"} == {"head", "legs"}
    for name, values in {
        "edge": {"none", "side", "bottom"},
        "entry": {"left", "right", "in view"},
        "after": {"stays", "rises", "leaves"},
        "movement": {"still", "small"},
        "light": {"steady", "drift", "step"},
        "noise": {0.0, 2.0, 4.0, 7.0},
        "fps": {5.0, 8.0, 10.0, 15.0, 25.0, 30.0},
        "mirrored": {True, False},
    }.items():
        assert {getattr(made, name) for made in ALL} == values
    assert min(made.fall_s for made in ALL) < 0.4
    assert max(made.fall_s for made in ALL) > 1.4
    minutes = [made for made in ALL if made.lying_s > 130]
    assert len(minutes) >= 8
    assert {made.fps for made in minutes} == {5.0}
    assert len({made.kind for made in minutes}) == 4
    assert all(3 <= made.stand_s <= 5 and 8 <= made.lying_s <= 150 for made in ALL)


def test_the_handful_has_the_shortest_fall_of_every_kind_and_direction() -> None:
    shortest: dict[tuple[str, str], Variant] = {}
    for made in sorted((made for made in ALL if made.fps < 15), key=length):
        shortest.setdefault((made.kind, made.direction), made)
    assert len(shortest) == 8
    assert {made.seed for made in handful()} == {made.seed for made in shortest.values()}


def test_all_of_them_are_few_enough_frames_to_be_played() -> None:
    assert 40_000 <= sum(script(made).count for made in ALL) <= 65_000


def test_a_seed_alone_decides() -> None:
    assert variants(5, 40) == [variant(seed) for seed in range(40, 45)]
    assert variants(40)[17] == ALL[17]


@pytest.mark.parametrize("after", ["stays", "rises", "leaves"])
def test_phases_come_in_their_order(after: str) -> None:
    for made in (made for made in ALL if made.after == after):
        assert tuple(phase for phase, _ in groupby(pose.phase for pose in poses(made))) == PHASES[after]


def test_who_falls_turns_from_upright_to_flat_in_time() -> None:
    for made in ALL:
        side = 1 if made.direction == "right" else -1
        written = script(made)
        falling = [pose.angle * side for pose in poses(made) if pose.phase == "falling"]
        assert all(before < after for before, after in pairwise(falling))
        assert all(0 <= angle < 90 for angle in falling)
        assert written.pose(written.falls_s).angle == pytest.approx(0, abs=1e-6)
        assert written.pose(written.falls_s + made.fall_s).angle == pytest.approx(90 * side, abs=0.01)


def test_the_feet_stay_while_the_body_turns() -> None:
    for made in ALL:
        turning = [pose for pose in poses(made) if pose.phase in {"falling", "rising"}]
        assert {pose.foot for pose in turning} == {FOOT}
        lying = [pose for pose in poses(made) if pose.phase == "lying"]
        assert all(np.hypot(pose.foot[0] - FOOT[0], pose.foot[1] - FOOT[1]) < 6 for pose in lying)
        assert {pose.foot for pose in lying} == {FOOT} or made.movement == "small"


def test_who_rises_begins_as_they_lay() -> None:
    for made in (made for made in ALL if made.after != "stays"):
        written = script(made)
        before, after = written.pose(written.rises_s - 1e-3), written.pose(written.rises_s)
        assert np.allclose(before.foot, after.foot, atol=0.1)
        assert before.angle == pytest.approx(after.angle, abs=0.1)


def test_the_same_variant_has_the_same_pixels(room: Room) -> None:
    made = replace(first("sheet", movement="small"), noise=4.0, light="step", fps=2.0, lying_s=9.0)
    one, other, noisier = (list(frames(room, kind)) for kind in (made, made, replace(made, noise=7.0)))
    assert [shot.truth for shot in one] == [shot.truth for shot in other]
    assert all(np.array_equal(mine.picture, theirs.picture) for mine, theirs in zip(one, other, strict=True))
    assert not any(np.array_equal(mine.picture, theirs.picture) for mine, theirs in zip(one, noisier, strict=True))
    assert [shot.number for shot in one] == list(range(len(one)))
    assert [shot.time_s for shot in one] == [number / 2.0 for number in range(len(one))]


def seconds(scene: Scene) -> Iterator[float]:
    yield from np.arange(0.0, scene.script.end_s, 0.31)


@pytest.mark.parametrize("kind", ["free", "furniture", "sheet", "edge"])
def test_the_truth_is_what_the_pixels_show(room: Room, kind: str) -> None:
    """Against the same clip without the person: what differs, shadow and sheet aside, is inside the box."""
    made = first(kind, after="leaves")
    scene = Scene(room, made)
    height, width = room.background.shape[:2]
    empty, _ = scene.draw(scene.script.end_s)
    boxes = 0
    for time_s in seconds(scene):
        picture, mask = scene.draw(time_s)
        truth = scene.truth(scene.script.pose(time_s), mask)
        rows, columns = np.nonzero(mask > 127)
        if truth.box is None:
            assert (len(rows), truth.phase, truth.visible) == (0, "gone", 0)
            continue
        boxes += 1
        assert truth.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert 0 <= truth.box[0] < truth.box[2] <= width
        assert 0 <= truth.box[1] < truth.box[3] <= height
        changed = np.abs(picture.astype(int) - empty).max(axis=2)
        assert np.median(changed[mask > 250]) > 20 or len(rows) < 200
        if kind != "sheet":
            left, top, right, bottom = (
                max(side + way, 0) for side, way in zip(truth.box, (-22, -22, 22, 22), strict=True)
            )
            changed[top:bottom, left:right] = 0
            # A shadow may come out at the other side of the furniture.
            assert changed.max() <= (10 if kind == "furniture" else 0)
    assert boxes > 20


@pytest.mark.parametrize("direction", ["left", "right"])
def test_the_drawn_body_turns_about_its_feet(room: Room, direction: str) -> None:
    scene = Scene(room, first("free", direction=direction))
    written, foot = scene.script, np.array(scene.script.foot)
    for time_s in np.linspace(written.falls_s, written.lies_s, 9):
        _, mask = scene.draw(float(time_s))
        rows, columns = np.nonzero(mask > 127)
        assert np.hypot(columns - foot[0], rows - foot[1]).min() < 20
    left, _, right, _ = scene.truth(written.pose(written.lies_s), mask).box or (0, 0, 0, 0)
    assert (left + right) / 2 > foot[0] if direction == "right" else (left + right) / 2 < foot[0]
    assert right - left > 1.3 * np.ptp(rows)


def lying_share(room: Room, made: Variant) -> float:
    scene = Scene(room, made)
    time_s = scene.script.lies_s + 0.01
    return scene.truth(scene.script.pose(time_s), scene.draw(time_s)[1]).visible


def test_what_covers_hides_the_share_that_the_variant_says(room: Room) -> None:
    for made in ALL[::4]:
        share = lying_share(room, made)
        if made.kind == "free":
            assert share > 0.97
        elif made.kind == "edge":
            # The body is broadest at the shoulders: its length says only about how much of it is seen.
            assert abs(share - made.inside) < 0.22, made
        else:
            assert abs(share - (1 - made.covered)) < 0.22, made


def test_furniture_hides_what_is_behind_it_and_nothing_else(room: Room) -> None:
    for part in ("head", "legs", "side"):
        made = first("furniture", part=part)
        hidden, bare = Scene(room, made), Scene(room, replace(made, cover="none"))
        time_s = hidden.script.lies_s + 0.01
        behind, free = (scene.draw(time_s)[1] > 127 for scene in (hidden, bare))
        chest = np.abs(hidden.draw(hidden.script.end_s + 60)[0].astype(int) - room.background).max(axis=2) > 0
        assert not (behind & ~free).any()
        assert 0.2 < (free & ~behind).sum() / free.sum() < 0.8
        assert not (free & ~behind & ~chest).any()


def test_who_is_still_moves_no_pixel_and_who_is_not_does(room: Room) -> None:
    for movement in ("still", "small"):
        scene = Scene(room, first("free", movement=movement))
        times = np.linspace(scene.script.lies_s + 0.1, scene.script.rises_s - 0.1, 12)
        pictures = [scene.draw(float(time_s))[0] for time_s in times]
        same = [np.array_equal(pictures[0], picture) for picture in pictures]
        assert all(same) == (movement == "still")


def test_noise_and_light_are_as_the_variant_says(room: Room) -> None:
    made = replace(first("free", entry="left"), fps=5.0, lying_s=8.0)
    wall = np.s_[20:60, 200:330]
    for noise in (2.0, 7.0):
        shot = next(frames(room, replace(made, noise=noise)))
        spread = (shot.picture[wall].astype(float) - room.background[wall]).std()
        assert spread == pytest.approx(noise, rel=0.1)
    steady, step = (list(frames(room, replace(made, light=light))) for light in ("steady", "step"))
    ratios = [
        float(dimmed.picture[wall].mean() / shot.picture[wall].mean())
        for shot, dimmed in zip(steady, step, strict=True)
    ]
    assert ratios[0] == 1
    assert ratios[-1] != 1


def test_who_was_cut_out_are_whole_people(room: Room) -> None:
    assert len({cutout.person for cutout in room.cutouts}) >= 5
    for cutout in room.cutouts:
        assert cutout.mask.shape == cutout.picture.shape[:2]
        assert 320 < cutout.height < 420
        assert (cutout.mask[[0, -1]] < 128).any()
        across, down = cutout.foot
        assert 0 < across < cutout.mask.shape[1]
        assert cutout.height - 20 < down < cutout.mask.shape[0]
