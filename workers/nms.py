"""Non-maximum suppression, pure. Runs in the worker's main thread."""

import numpy as np
from numpy.typing import NDArray


def suppress(xyxy: NDArray[np.floating], confidence: NDArray[np.floating], iou: float) -> NDArray[np.intp]:
    """Return the indices of the boxes to keep, best first: greedily, a box goes when it overlaps a kept one by more
    than `iou` (intersection over union).

    `xyxy` (N, 4) in any unit, with sides above zero; `confidence` (N,) without NaN. Of equal scores the first in
    order wins. Boxes of different classes must be kept apart by the caller.
    """
    order = np.argsort(-confidence, kind="stable")
    if len(order) < 2:
        return order
    boxes = xyxy[order].astype(np.float64)
    alive = np.ones(len(boxes), bool)
    for best in range(len(boxes) - 1):
        if not alive[best]:
            continue
        later = slice(best + 1, None)
        alive[later] &= overlap(boxes[best], boxes[later]) <= iou
    return order[alive]


def overlap(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of one xyxy box with each of `others` (N, 4), whose sides are above zero."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    common = np.clip(width, 0, None) * np.clip(height, 0, None)
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    shares: NDArray[np.float64] = common / ((box[2] - box[0]) * (box[3] - box[1]) + areas - common)
    return shares
