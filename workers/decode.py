"""From a session's raw output to boxes in frame pixels. Runs in the worker's main thread; each `Decoder` belongs to one
session. The head is sparse: the scores are scanned once, and only columns above the threshold are read further, as
plain numbers.
"""

import math
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from orion.messages import Detection, Detections, SessionSize
from workers.card import Layout
from workers.letterbox import Placement
from workers.nms import Box, suppress

MAX_DETECTIONS = 300
"""Most boxes a frame may have, as in Ultralytics' predictor; it bounds the result message too."""

_INF = math.inf
_CONFIDENCE = Box._fields.index("confidence")

_MAX_CANDIDATES = 1000
"""Most boxes that suppression looks at, best first, so that a threshold near zero cannot stall a frame."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as a detection: the session's size, the head's layout, the wanted classes, both thresholds."""

    size: SessionSize
    layout: Layout
    class_ids: tuple[int, ...]
    confidence: float
    iou: float


class Decoder:
    """Reads a session's heads by `rules`. What the search for scores takes is kept while they come in the same array,
    as a bound session's do: after an inference, when all caches are cold, making it takes as long as the search.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._search: _Search | None = None

    def decode(self, raw: NDArray[np.floating], placement: Placement, frame_size: tuple[int, int]) -> Detections:
        """Return the detections in `raw`, a head's output of batch one, for a frame of (width, height) pixels.

        Boxes are suppressed per class (unless the head is end-to-end, which did so itself), mapped back through
        `placement`, clipped to the frame, their edges rounded to the nearest pixel, empty ones dropped; best first.
        """
        found = self.candidates(raw)
        if self.rules.layout == "grid":
            found = suppress(found, self.rules.iou, MAX_DETECTIONS)
        if not found:
            return ()
        width, height = frame_size
        x0, y0 = placement.to_frame(0.0, 0.0)
        x_step, y_step = placement.scale
        detections = []
        for x1, y1, x2, y2, score, class_id in found[:MAX_DETECTIONS]:
            left, right = _whole(x0 + x1 * x_step, width), _whole(x0 + x2 * x_step, width)
            top, bottom = _whole(y0 + y1 * y_step, height), _whole(y0 + y2 * y_step, height)
            if right > left and bottom > top:
                # The largest value of a head of 8 bits may lie a little above one.
                detections.append(Detection(left, top, right - left, bottom - top, min(score, 1.0), class_id))
        return tuple(detections)

    def candidates(self, raw: NDArray[np.floating]) -> list[Box]:
        """Return the boxes of the wanted classes whose score reaches the threshold, at most a thousand, best first, of
        equal ones the first in the head; those with a number that is none, or without an area, are left out.
        """
        rules = self.rules
        if rules.layout == "end2end":
            found = _end_to_end(raw[0], rules.class_ids, rules.confidence)
        else:
            if self._search is None or self._search.raw is not raw:
                self._search = _Search(raw, rules)
            found = self._search.boxes()
        found.sort(key=itemgetter(_CONFIDENCE), reverse=True)
        return found[:_MAX_CANDIDATES]


class _Search:
    """Reads one array in which (1, 4 + C, N) heads come: centre x, centre y, width, height, then one row of scores a
    class.
    """

    def __init__(self, raw: NDArray[np.floating], rules: Rules) -> None:
        self.raw = raw
        head = raw[0]
        self._value = head.item
        self._scores = [(class_id, head[4 + class_id]) for class_id in rules.class_ids]
        self._least = np.array(rules.confidence, raw.dtype)
        self._high = np.empty(raw.shape[2], bool)

    def boxes(self) -> list[Box]:
        """Return the boxes whose score is high enough, in the head's order."""
        found = []
        # One number after the other: they are few, and an inference has emptied the caches of whatever else reads them.
        value = self._value
        for class_id, scores in self._scores:
            np.greater_equal(scores, self._least, self._high)
            (columns,) = self._high.nonzero()
            for column in columns.tolist():
                x, y, score = value(0, column), value(1, column), value(4 + class_id, column)
                across, down = value(2, column) / 2, value(3, column) / 2
                x1, x2, y1, y2 = x - across, x + across, y - down, y + down
                # A comparison with NaN is false.
                if -_INF < x1 < x2 < _INF and -_INF < y1 < y2 < _INF and score < _INF:
                    found.append(Box(x1, y1, x2, y2, score, class_id))
        return found


def _end_to_end(head: NDArray[np.floating], class_ids: tuple[int, ...], confidence: float) -> list[Box]:
    """Read a (K, 6) head: x1, y1, x2, y2, score, class."""
    found = []
    for x1, y1, x2, y2, score, class_id in head[head[:, 4] >= confidence].tolist():
        if class_id in class_ids and 0 < x2 - x1 < _INF and 0 < y2 - y1 < _INF and score < _INF:
            found.append(Box(x1, y1, x2, y2, score, int(class_id)))
    return found


def _whole(place: float, limit: int) -> int:
    return round(min(max(place, 0.0), float(limit)))
