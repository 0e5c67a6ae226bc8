import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.nms import Box, overlap, suppress


def shares(boxes: list[Box]) -> NDArray[np.float64]:
    """Return the intersection over union of every pair, counted cell by cell on the grid that the boxes lie on."""
    cells = np.zeros((len(boxes), 24, 24), bool)
    for index, box in enumerate(boxes):
        cells[index, int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] = True
    flat = cells.reshape(len(boxes), 24 * 24)
    return np.array([[(one & other).sum() / (one | other).sum() for other in flat] for one in flat])


def brute_force(boxes: list[Box], iou: float) -> list[Box]:
    """Suppress as the definition says: again and again, take the first box left and drop what it overlaps."""
    share = shares(boxes)
    left, kept = list(range(len(boxes))), []
    while left:
        best = left[0]
        kept.append(boxes[best])
        left = [i for i in left[1:] if boxes[i].class_id != boxes[best].class_id or share[best, i] <= iou]
    return kept


@st.composite
def tables(draw: st.DrawFn) -> list[Box]:
    """Draw boxes on a coarse grid, so that they overlap, coincide and touch, with scores that tie, best first."""
    side, place = st.integers(1, 8), st.integers(0, 12)
    boxes = []
    for _ in range(draw(st.integers(0, 20))):
        x, y, width, height = draw(place), draw(place), draw(side), draw(side)
        boxes.append(Box(x, y, x + width, y + height, draw(st.integers(1, 5)) / 5, draw(st.integers(0, 1))))
    return sorted(boxes, key=lambda box: -box.confidence)


@given(tables(), st.sampled_from([0.0, 0.3, 0.45, 0.5, 0.9, 1.0]))
def test_it_is_the_brute_force_answer(boxes: list[Box], iou: float) -> None:
    assert suppress(boxes, iou, 100) == brute_force(boxes, iou)
    assert suppress(boxes, iou, 3) == brute_force(boxes, iou)[:3]


def test_of_equal_scores_the_first_wins() -> None:
    first = Box(0, 0, 10, 10, 0.5, 0)
    assert suppress([first, Box(0, 0, 10, 11, 0.5, 0), Box(0, 0, 10, 11, 0.5, 1)], 0.45, 9) == [
        first,
        Box(0, 0, 10, 11, 0.5, 1),
    ]


@pytest.mark.parametrize(
    ("other", "share"), [((0, 0, 10, 10), 1), ((5, 0, 15, 10), 1 / 3), ((10, 0, 20, 10), 0), ((30, 30, 40, 40), 0)]
)
def test_overlap_is_intersection_over_union(other: tuple[float, float, float, float], share: float) -> None:
    assert overlap(Box(0, 0, 10, 10, 1, 0), Box(*other, 1, 0)) == pytest.approx(share)
