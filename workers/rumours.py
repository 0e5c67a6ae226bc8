"""Boxes that a cheap plan reported and a full look at the same picture did not confirm: pure. Runs in the worker's main
thread. Without them, the same phantom would call for a check in every frame.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orion.messages import Detections
from workers.boxes import NONE, Boxes, confidences, corners, overlaps

SAME_IOU = 0.5
FIRMER = 0.1
"""A rumour that comes back with so much more confidence deserves another check."""


@dataclass(frozen=True, slots=True, eq=False)
class Rumours:
    """Refuted boxes (N, 4) in frame pixels and the confidence (N,) they had."""

    boxes: Boxes = field(default_factory=NONE.copy)
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(cls, found: Detections, people: Boxes) -> Self:
        """Return those of `found` that are none of `people`, whom the full look saw."""
        boxes = corners(found)
        refuted = overlaps(boxes, people).max(axis=1, initial=0.0) < SAME_IOU
        return cls(boxes[refuted], confidences(found)[refuted])

    def without(self, found: Detections, people: Boxes) -> Detections:
        """Return `found` without these rumours; a box that fits one of `people` better is none."""
        if len(self.boxes) == 0 or not found:
            return found
        boxes = corners(found)
        ratios = overlaps(boxes, self.boxes)
        likest = ratios.argmax(axis=1)
        likeness = ratios.max(axis=1)
        known = overlaps(boxes, people).max(axis=1, initial=0.0)
        firmer = confidences(found) > self.confidence[likest] + FIRMER
        kept = (likeness < SAME_IOU) | (known >= likeness) | firmer
        return tuple(one for one, stays in zip(found, kept, strict=True) if stays)
