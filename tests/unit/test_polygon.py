"""What is a polygon and what is none, whichever way round and wherever it begins."""

import pytest

from orion.polygon import Point, fault

SOUND: dict[str, list[Point]] = {
    "triangle": [(0, 0), (1, 0), (0, 1)],
    "with a point on a straight edge": [(0, 0), (0.5, 0), (1, 0), (1, 1)],
    "hollow": [(0, 0), (1, 0), (1, 1), (0.5, 0.2), (0, 1)],
    "thin": [(0, 0), (1, 0), (1, 1e-9)],
    "spiral": [(0, 0), (1, 0), (1, 1), (0.2, 1), (0.2, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6), (0.4, 0.8), (0.8, 0.8),
               (0.8, 0.2), (0, 0.2)],
}  # fmt: skip
FAULTY: dict[str, tuple[list[Point], str]] = {
    "a bow": ([(0, 0), (1, 1), (1, 0), (0, 1)], "crosses or touches"),
    "a corner on an edge": ([(0, 0), (1, 0), (1, 1), (0.5, 0), (0, 1)], "crosses or touches"),
    "edges along each other": ([(0, 0), (1, 0), (1, 1), (0.8, 0), (0.2, 0), (0, 1)], "crosses or touches"),
    "a spike": ([(0, 0), (1, 0), (0.5, 0), (0.5, 1)], "the edge"),
    "a line": ([(0, 0), (0.5, 0.5), (1, 1)], "lie on one another"),
    "a point twice": ([(0, 0), (1, 0), (1, 0), (0, 1)], "again"),
    "a corner at a corner": ([(0, 0), (1, 0), (0.5, 0.5), (1, 1), (0, 1), (0.5, 0.5)], "again"),
}


def turned(points: list[Point]) -> list[list[Point]]:
    """Return the same polygon from every point of it, both ways round."""
    ways = [points, points[::-1]]
    return [way[start:] + way[:start] for way in ways for start in range(len(points))]


@pytest.mark.parametrize("name", SOUND)
def test_polygons_have_no_fault(name: str) -> None:
    assert [fault(points) for points in turned(SOUND[name])] == [None] * 2 * len(SOUND[name])


@pytest.mark.parametrize("name", FAULTY)
def test_what_is_none_is_told_why(name: str) -> None:
    points, why = FAULTY[name]
    assert [text for text in map(fault, turned(points)) if text is None or why not in text] == []


def test_the_points_are_named() -> None:
    assert fault([(0, 0), (1, 1), (1, 0), (0, 1)]) == "the edge after point 0 crosses or touches the one after point 2"
    assert fault([(0, 0), (1, 0), (1, 1), (0, 0)]) == "point 3 is point 0 again (it closes by itself)"
