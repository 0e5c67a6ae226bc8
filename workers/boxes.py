"""Arithmetic on boxes, pure: arrays (N, 4) of x1, y1, x2, y2 in pixels of the frame. Used by attention in the worker's
main thread.
"""

import numpy as np
from numpy.typing import NDArray

from orion.messages import Crop, Detections, Region

Boxes = NDArray[np.float64]
"""(N, 4) x1, y1, x2, y2 in pixels of the frame."""

NONE: Boxes = np.empty((0, 4))

EDGE_PX = 2
"""A box that comes so near to an edge touches it."""


def corners(detections: Detections) -> Boxes:
    """Return the boxes of `detections` as corners."""
    sides = [(one.x, one.y, one.x + one.width, one.y + one.height) for one in detections]
    boxes: Boxes = np.array(sides, np.float64).reshape(-1, 4)
    return boxes


def confidences(detections: Detections) -> NDArray[np.float64]:
    """Return the confidence (N,) of each of `detections`."""
    return np.array([one.confidence for one in detections], np.float64)


def crop_box(crop: Crop) -> Boxes:
    """Return the piece of the frame that `crop` is, as one box (1, 4)."""
    return np.array([[crop.x, crop.y, crop.x + crop.width, crop.y + crop.height]], np.float64)


def region_boxes(regions: tuple[Region, ...], frame_size: tuple[int, int]) -> Boxes:
    """Return normalized regions as boxes of a frame of (width, height) pixels, each at least one pixel in size."""
    width, height = frame_size
    places = []
    for region in regions:
        left, top = min(region.x * width, width - 1), min(region.y * height, height - 1)
        right, bottom = (region.x + region.width) * width, (region.y + region.height) * height
        places.append((left, top, max(right, left + 1), max(bottom, top + 1)))
    boxes: Boxes = np.array(places, np.float64).reshape(-1, 4)
    return boxes


def box_region(box: Boxes, frame_size: tuple[int, int]) -> Region:
    """Return one box (4,) as a normalized region, clamped to the frame; it must overlap the frame."""
    x1, y1, x2, y2 = np.clip(box / np.array([*frame_size, *frame_size]), 0, 1)
    return Region(float(x1), float(y1), float(x2 - x1), float(y2 - y1))


def union(boxes: Boxes) -> Boxes:
    """Return the smallest box (4,) around all of `boxes`, of which there is at least one."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def areas(boxes: Boxes) -> NDArray[np.float64]:
    """Return the area of each box in square pixels; zero for what is inside out."""
    sides: NDArray[np.float64] = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    return sides


def common(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Return the area (N, M) that each of `one` (N, 4) shares with each of `other` (M, 4)."""
    near = np.maximum(one[:, None, :2], other[None, :, :2])
    far = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared: NDArray[np.float64] = np.clip(far - near, 0, None).prod(axis=2)
    return shared


def overlaps(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Return the intersection over union (N, M) of each of `one` with each of `other`."""
    shared = common(one, other)
    ratio: NDArray[np.float64] = shared / np.maximum(areas(one)[:, None] + areas(other)[None] - shared, 1e-9)
    return ratio


def pair_up(likeness: NDArray[np.float64], least: float) -> list[tuple[int, int]]:
    """Return (row, column) pairs, each row and column at most once, the greatest likeness first, down to `least`."""
    left = likeness.copy()
    pairs = []
    while left.size and left.max() >= least:
        row, column = np.unravel_index(left.argmax(), left.shape)
        pairs.append((int(row), int(column)))
        left[row, :] = -np.inf
        left[:, column] = -np.inf
    return pairs


def covered(boxes: Boxes, by: Boxes) -> NDArray[np.float64]:
    """Return for each of `boxes` the largest share (N,) of it that lies in one box of `by`; zero without any."""
    if len(by) == 0:
        return np.zeros(len(boxes))
    shares: NDArray[np.float64] = (common(boxes, by) / np.maximum(areas(boxes), 1e-9)[:, None]).max(axis=1)
    return shares


def same_people(before: Boxes, after: Boxes) -> list[tuple[int, int]]:
    """Return who of `before` is who of `after`, as pairs of rows: centres less than 0.7 of the larger one's size (the
    root of its area) apart, the nearest first.
    """
    if len(before) == 0 or len(after) == 0:
        return []
    way = (before[:, None, :2] + before[:, None, 2:] - after[None, :, :2] - after[None, :, 2:]) / 2
    size = np.sqrt(np.maximum(areas(before)[:, None], areas(after)[None]))
    return pair_up(1 - np.linalg.norm(way, axis=2) / np.maximum(size, 1), 0.3)


def cut(boxes: Boxes, crops: tuple[Crop, ...], frame_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell for each box (N,) whether it touches an edge of every crop that has it, other than the frame's edge."""
    whole = np.zeros(len(boxes), bool)
    for crop in crops:
        x1, y1, x2, y2 = crop_box(crop)[0]
        left, top = (low + EDGE_PX if low > 0 else low for low in (x1, y1))
        right, bottom = (high - EDGE_PX if high < end else high for high, end in zip((x2, y2), frame_size, strict=True))
        inside = (boxes[:, 0] >= left) & (boxes[:, 1] >= top) & (boxes[:, 2] <= right) & (boxes[:, 3] <= bottom)
        whole |= inside
    return ~whole
