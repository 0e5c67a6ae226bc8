"""Boxes as a head has them, and their suppression: pure. Runs in the worker's main thread. Plain numbers, not arrays: a
frame has a few dozen candidates, and right after an inference, when all caches are cold, a hundred small array
operations take five times as long as when they are timed in a row.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Box(NamedTuple):
    """A candidate: corners in input pixels, right of and below each other by more than nothing."""

    x1: float
    y1: float
    x2: float
    y2: float
    confidence: float
    class_id: int


def suppress(boxes: Iterable[Box], iou: float, most: int) -> list[Box]:
    """Return the boxes that are left of `boxes`, which come best first, in their order: greedily, one goes when it
    overlaps a kept one of its class by more than `iou` (intersection over union). It ends when `most` are kept.
    """
    kept: list[Box] = []
    for box in boxes:
        if len(kept) == most:
            break
        x1, y1, x2, y2, _, class_id = box
        area = (x2 - x1) * (y2 - y1)
        # The arithmetic of `overlap` in place: calls for each pair of boxes, of min and max too, take thrice as long.
        for left, top, right, bottom, _, other_class in kept:
            width = (x2 if x2 < right else right) - (x1 if x1 > left else left)  # noqa: FURB136
            height = (y2 if y2 < bottom else bottom) - (y1 if y1 > top else top)  # noqa: FURB136
            if width <= 0 or height <= 0 or class_id != other_class:
                continue
            common = width * height
            if common / (area + (right - left) * (bottom - top) - common) > iou:
                break
        else:
            kept.append(box)
    return kept


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = (one.x2 - one.x1) * (one.y2 - one.y1) + (other.x2 - other.x1) * (other.y2 - other.y1)
    return common / (areas - common)
