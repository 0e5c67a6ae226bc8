"""What makes a list of points a polygon: edges that meet only where one ends and the next begins. Pure; used where the
configuration is checked.
"""

from collections.abc import Sequence
from itertools import combinations

Point = tuple[float, float]


def fault(points: Sequence[Point]) -> str | None:
    """Return in words what keeps three or more `points`, in their order around what they enclose, from being a
    polygon; None if nothing does. Edges may neither cross nor touch each other, and none leads back along another.
    """
    count = len(points)
    for index, point in enumerate(points):
        if point in points[:index]:
            hint = " (it closes by itself)" if points.index(point) == 0 and index == count - 1 else ""
            return f"point {index} is point {points.index(point)} again{hint}"
    for first, second in combinations(range(count), 2):
        if second - first in {1, count - 1}:
            # Neighbours share a point.
            before, shared, after = (first, second, second + 1) if second == first + 1 else (second, first, first + 1)
            if _leads_back(points[before], points[shared % count], points[after % count]):
                return f"the edges at point {shared % count} lie on one another"
        elif _meet(points[first], points[first + 1], points[second], points[(second + 1) % count]):
            return f"the edge after point {first} crosses or touches the one after point {second}"
    return None


def _side(start: Point, end: Point, point: Point) -> float:
    """Return on which side of the line from `start` to `end` the point lies: above, below or 0 on it."""
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def _leads_back(before: Point, shared: Point, after: Point) -> bool:
    forward = (shared[0] - before[0]) * (after[0] - shared[0]) + (shared[1] - before[1]) * (after[1] - shared[1])
    return _side(before, shared, after) == 0 and forward < 0


def _meet(start: Point, end: Point, other_start: Point, other_end: Point) -> bool:
    """Return whether two edges have a point in common."""
    sides = _side(start, end, other_start), _side(start, end, other_end)
    others = _side(other_start, other_end, start), _side(other_start, other_end, end)
    if sides[0] * sides[1] < 0 and others[0] * others[1] < 0:
        return True
    ends = ((other_start, sides[0]), (other_end, sides[1]))
    if any(side == 0 and _within(start, end, point) for point, side in ends):
        return True
    ends = ((start, others[0]), (end, others[1]))
    return any(side == 0 and _within(other_start, other_end, point) for point, side in ends)


def _within(start: Point, end: Point, point: Point) -> bool:
    """Return whether a point of the edge's line lies on the edge."""
    return all(min(a, b) <= p <= max(a, b) for a, b, p in zip(start, end, point, strict=True))
