import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.nms import overlap, suppress


def brute_force(xyxy: NDArray[np.float64], confidence: NDArray[np.float64], iou: float) -> list[int]:
    """Suppress as the definition says, one pair after the other."""

    def share(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return float(width * height / (both - width * height))

    kept: list[int] = []
    for index in sorted(range(len(xyxy)), key=lambda i: (-confidence[i], i)):
        if all(share(xyxy[index], xyxy[other]) <= iou for other in kept):
            kept.append(index)
    return kept


@st.composite
def tables(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw boxes on a coarse grid, so that they overlap, coincide and touch, with scores that tie."""
    count = draw(st.integers(0, 25))
    side, place = st.integers(1, 8), st.integers(0, 12)
    rows = [(draw(place), draw(place), draw(side), draw(side), draw(st.integers(0, 5))) for _ in range(count)]
    table = np.array(rows, np.float64).reshape(-1, 5)
    return np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1), table[:, 4] / 5


@given(tables(), st.sampled_from([0.0, 0.3, 0.45, 0.5, 0.9, 1.0]))
def test_it_is_the_brute_force_answer(table: tuple[NDArray[np.float64], NDArray[np.float64]], iou: float) -> None:
    assert suppress(*table, iou).tolist() == brute_force(*table, iou)


def test_of_equal_scores_the_first_wins() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 11]], np.float32)
    assert suppress(boxes, np.array([0.5, 0.5, 0.5], np.float32), 0.45).tolist() == [0]


def test_overlap_is_intersection_over_union() -> None:
    box = np.array([0.0, 0, 10, 10])
    others = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [30, 30, 40, 40]])
    assert np.allclose(overlap(box, others), [1, 1 / 3, 0, 0])
