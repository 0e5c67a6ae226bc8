"""Non-maximum suppression, pure. Runs in the worker's main thread."""

import numpy as np
from numpy.typing import NDArray


def suppress(xyxy: NDArray[np.floating], confidence: NDArray[np.floating], iou: float) -> NDArray[np.intp]:
    """Return the indices of the boxes to keep, best first: greedily, a box goes when it overlaps a kept one by more
    than `iou` (intersection over union).

    `xyxy` (N, 4) in any unit, with sides above zero; `confidence` (N,) without NaN. Of equal scores the first in
    order wins. Boxes of different classes must be kept apart by the caller.
    """
    boxes = xyxy.astype(np.float64)
    areas = _areas(boxes)
    left = np.argsort(-confidence, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[_shares(boxes[best], areas[best], boxes[left], areas[left]) <= iou]
    return np.array(kept, np.intp)


def overlap(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of one xyxy box with each of `others` (N, 4), whose sides are above zero."""
    return _shares(box, _areas(box[None])[0], others, _areas(others))


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def _shares(
    box: NDArray[np.float64], area: float, others: NDArray[np.float64], areas: NDArray[np.float64]
) -> NDArray[np.float64]:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    np.maximum(sides, 0, out=sides)
    common = sides[:, 0] * sides[:, 1]
    shares: NDArray[np.float64] = common / (area + areas - common)
    return shares
