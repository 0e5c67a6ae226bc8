"""The demo scene: the same frame from any door, figures where it says they are, and nobody where it says nobody."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scoring import xywh
from orion.demo import DemoFormat
from orion.messages import Crop, Detections, DetectorSpec, Pixels, SessionSize
from orion.scene import CYCLE_S, DemoScene, Figure
from workers.pair import SessionPair
from workers.pipeline import infer

MODELS = Path(__file__).resolve().parents[2] / "models"

PLAIN = 60
"""Difference in grey levels that neither noise nor light nor a shadow on the floor makes."""


def frame_of(scene: DemoScene, index: int) -> Pixels:
    out: Pixels = np.empty((scene.height, scene.width, 3), np.uint8)
    scene.render(index, out)
    return out


def empty_like(scene: DemoScene, index: int) -> Pixels:
    """Return the room without figures, in the light of frame `index`: frame 0, as bright as its wall is there."""
    assert not scene.figures(0)
    empty = frame_of(scene, 0)
    gain = frame_of(scene, index)[:20].mean() / empty[:20].mean()
    lit: Pixels = np.clip(empty * gain, 0, 255).astype(np.uint8)
    return lit


@pytest.fixture(scope="module")
def small() -> DemoScene:
    return DemoScene(DemoFormat(320, 180, 10.0))


def test_frames_are_a_function_of_size_seed_rate_and_index(small: DemoScene) -> None:
    forwards = [frame_of(small, index) for index in range(40, 60)]
    twin = DemoScene(DemoFormat(320, 180, 10.0))
    for index in reversed(range(40, 60)):
        assert np.array_equal(frame_of(twin, index), forwards[index - 40])
        assert twin.figures(index) == small.figures(index)


def test_another_seed_shows_another_room_and_other_clothes(small: DemoScene) -> None:
    other = DemoScene(DemoFormat(320, 180, 10.0), seed=1)
    assert other.figures(60) == small.figures(60)
    assert np.count_nonzero(np.abs(frame_of(other, 60).astype(int) - frame_of(small, 60)) > PLAIN) > 500


def test_the_frame_is_drawn_where_it_is_asked_for(small: DemoScene) -> None:
    memory = np.full((3, 180, 320, 3), 7, np.uint8)
    small.render(60, memory[1])
    assert np.array_equal(memory[1], frame_of(small, 60))
    assert (memory[0] == 7).all()
    assert (memory[2] == 7).all()


@pytest.mark.parametrize("wrong", [np.empty((320, 180, 3), np.uint8), np.empty((180, 320, 3), np.float32)])
def test_a_frame_of_another_kind_is_refused(small: DemoScene, wrong: Pixels) -> None:
    with pytest.raises(ValueError, match=r"the frame must be \(180, 320, 3\) uint8"):
        small.render(0, wrong)


def test_the_same_moment_has_the_same_figures_at_any_rate() -> None:
    slow, fast = DemoScene(DemoFormat(320, 180, 5.0)), DemoScene(DemoFormat(320, 180, 60.0))
    for second in range(0, 120, 7):
        assert slow.figures(second * 5) == fast.figures(second * 60)


def test_nobody_stands_still_between_two_frames_of_a_walk(small: DemoScene) -> None:
    """The walk is smooth: a figure moves between frames, and never further than a brisk walker does."""
    moved = []
    for index in range(round(CYCLE_S * small.fps)):
        before = {figure.visit: figure for figure in small.figures(index) if figure.fully_visible}
        for figure in small.figures(index + 1):
            if figure.fully_visible and figure.visit in before:
                x, _, width, _ = before[figure.visit].xywh
                moved.append(abs(figure.xywh[0] + figure.xywh[2] / 2 - x - width / 2) / figure.xywh[3])
    assert 0.05 < max(moved) < 0.25
    assert np.mean(np.array(moved) > 0.02) > 0.3


def test_the_cycle_has_one_two_three_and_no_figures(small: DemoScene) -> None:
    counts = [len(small.figures(index)) for index in range(round(CYCLE_S * small.fps))]
    assert set(counts) == {0, 1, 2, 3}
    runs = "".join(str(count) for count in counts).replace("1", " ").replace("2", " ").replace("3", " ").split()
    assert sum(len(run) >= 3 * small.fps for run in runs) >= 2, "at least two stretches of three seconds are empty"
    assert 0.15 < counts.count(0) / len(counts) < 0.5


def test_every_visit_comes_and_goes_at_an_edge(small: DemoScene) -> None:
    cycle = round(CYCLE_S * small.fps)
    seen: dict[int, list[tuple[float, float]]] = {}
    for index in range(2 * cycle):
        for figure in small.figures(index):
            x, _, width, _ = figure.xywh
            seen.setdefault(figure.visit, []).append((x, x + width))
    assert sorted(seen) == list(range(len(seen))), "each cycle's visits are counted on"
    for spans in seen.values():
        for left, right in (spans[0], spans[-1]):
            assert left == 0.0 or right == small.width
        assert any(left > 0 and right < small.width for left, right in spans)


def test_a_figure_is_fully_visible_unless_the_edge_or_a_nearer_one_hides_it(small: DemoScene) -> None:
    states = set()
    for index in range(round(CYCLE_S * small.fps)):
        figures = small.figures(index)
        for place, figure in enumerate(figures):
            x, y, width, height = figure.xywh
            at_edge = x == 0 or x + width == small.width
            covered = any(
                x < other.xywh[0] + other.xywh[2]
                and other.xywh[0] < x + width
                and y < other.xywh[1] + other.xywh[3]
                and other.xywh[1] < y + height
                for other in figures[place + 1 :]
            )
            assert figure.fully_visible == (not at_edge and not covered)
            states.add((at_edge, covered))
    assert {(False, False), (True, False), (False, True)} <= states


@pytest.mark.parametrize("seconds", [2.6, 6.0, 12.0, 29.9, 44.0, 51.5])
def test_boxes_are_where_the_picture_differs_from_the_empty_room(seconds: float) -> None:
    scene = DemoScene(DemoFormat(640, 360, 10.0))
    index = round(seconds * 10)
    differs = np.abs(frame_of(scene, index).astype(int) - empty_like(scene, index)).max(axis=2) > PLAIN
    figures = scene.figures(index)
    assert figures
    for figure in figures:
        x, y, width, height = figure.xywh
        assert np.any(differs[:, round(x) : round(x + width)])
    outside = differs.copy()
    for figure in figures:
        x, y, width, height = figure.xywh
        outside[int(y) - 1 : int(y + height) + 2, max(0, int(x) - 1) : int(x + width) + 2] = False
    assert not outside.any()
    if len(figures) == 1:
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        seen = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        x, y, width, height = figures[0].xywh
        assert seen == pytest.approx((x, y, x + width, y + height), abs=3)


def test_the_light_changes_and_there_is_a_little_noise(small: DemoScene) -> None:
    levels = [frame_of(small, index)[:20].mean() for index in range(0, 600, 20)]
    assert 10 < max(levels) - min(levels) < 60
    difference = frame_of(small, 0).astype(int) - frame_of(small, 1)
    assert 0.5 < difference.std() < 4


@pytest.mark.parametrize(("width", "height"), [(64, 64), (360, 640), (641, 479), (1919, 1081), (7680, 64)])
def test_any_size_works_and_figures_grow_with_the_height(width: int, height: int) -> None:
    scene = DemoScene(DemoFormat(width, height, 10.0))
    frame_of(scene, 60)
    tallest = [max((figure.xywh[3] for figure in scene.figures(index)), default=0) for index in range(0, 600, 10)]
    assert max(tallest) / height == pytest.approx(0.6, abs=0.03)
    assert any(figure.fully_visible for index in range(600) for figure in scene.figures(index))


@pytest.fixture(scope="module")
def embedded() -> Iterator[SessionPair]:
    paths = [str(MODELS / f"hog_person_{size}.onnx") for size in (640, 320)]
    pair = SessionPair.load(
        DetectorSpec(paths[0], paths[1], confidence=0.5, iou=0.45, classes=("person",), provider="cpu", threads=1)
    )
    yield pair
    pair.close()


def found(figure: Figure, detections: Detections) -> bool:
    """Return whether a detection overlaps the figure with an intersection over union of one half or more."""
    x, y, width, height = figure.xywh
    for left, top, wide, tall in xywh(detections).tolist():
        across = min(x + width, left + wide) - max(x, left)
        down = min(y + height, top + tall) - max(y, top)
        common = max(0.0, across) * max(0.0, down)
        if common / (width * height + wide * tall - common) >= 0.5:
            return True
    return False


@pytest.mark.parametrize("size", [640, 320])
def test_the_embedded_model_finds_the_figures_and_nobody_in_the_empty_room(
    embedded: SessionPair, size: SessionSize
) -> None:
    scene = DemoScene(DemoFormat())
    whole = Crop(0, 0, scene.width, scene.height, size)
    hits, empty_frames = [], 0
    for index in range(0, round(CYCLE_S * scene.fps), 37):
        figures = scene.figures(index)
        detections, _ = infer(embedded, frame_of(scene, index), whole)
        hits += [found(figure, detections) for figure in figures if figure.fully_visible]
        if not figures:
            empty_frames += 1
            assert len(detections) == 0, f"frame {index} shows nobody"
    assert empty_frames > 10
    assert len(hits) > 30
    assert np.mean(hits) >= 0.95
