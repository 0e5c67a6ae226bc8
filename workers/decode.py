"""From a session's raw output to boxes in frame pixels, pure. Runs in the worker's main thread. The head is sparse: the
scores are scanned once, and only columns above the threshold are read further.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orion.messages import Detections, SessionSize
from workers.card import Layout
from workers.letterbox import Placement
from workers.nms import suppress

MAX_DETECTIONS = 300
"""Most boxes a frame may have, as in Ultralytics' predictor; it bounds the result message too."""

_MAX_CANDIDATES = 3000
"""Most boxes that suppression looks at, best first, so that a threshold near zero cannot stall a frame."""

_APART = 1e5
"""Distance between classes in input pixels while boxes are suppressed: more than any box's size."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as a detection: the session's size, the head's layout, the wanted classes, both thresholds."""

    size: SessionSize
    layout: Layout
    class_ids: tuple[int, ...]
    confidence: float
    iou: float


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Boxes above the threshold: (N, 4) xyxy in input pixels, (N,) scores, (N,) class numbers."""

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int32]

    def take(self, index: NDArray[np.intp]) -> "Candidates":
        """Return the boxes at these places, in that order."""
        return Candidates(self.xyxy[index], self.confidence[index], self.class_id[index])


def decode(raw: NDArray[np.floating], rules: Rules, placement: Placement, frame_size: tuple[int, int]) -> Detections:
    """Return the detections in `raw`, a head's output of batch one, for a frame of (width, height) pixels.

    Boxes are suppressed per class (unless the head is end-to-end, which did so itself), mapped back through
    `placement`, clipped to the frame, their edges rounded to the nearest pixel, empty ones dropped; best first.
    """
    found = candidates(raw, rules, rules.confidence)
    if len(found.confidence) == 0:
        return Detections.empty()
    if rules.layout == "end2end" or len(found.confidence) > _MAX_CANDIDATES:
        found = found.take(np.argsort(-found.confidence, kind="stable")[:_MAX_CANDIDATES])
    if rules.layout == "grid":
        found = found.take(_suppress_by_class(found, rules.iou))
    width, height = frame_size
    edges = np.minimum(np.maximum(placement.to_frame(found.xyxy), 0), (width, height, width, height))
    whole = np.rint(edges).astype(np.int32)
    sides = whole[:, 2:] - whole[:, :2]
    visible = np.flatnonzero((sides > 0).all(axis=1))[:MAX_DETECTIONS]
    xywh = np.concatenate([whole[:, :2], sides], axis=1)
    return Detections(xywh[visible], found.confidence[visible], found.class_id[visible])


def candidates(raw: NDArray[np.floating], rules: Rules, confidence: float) -> Candidates:
    """Return the boxes of the wanted classes whose score is `confidence` or more; broken ones are left out."""
    read = _grid if rules.layout == "grid" else _end_to_end
    with np.errstate(invalid="ignore"):
        found = read(raw[0], rules.class_ids, confidence)
        sides = found.xyxy[:, 2:] - found.xyxy[:, :2]
        # A comparison with NaN is false.
        sound = ((sides > 0) & (sides < np.inf)).all(axis=1) & (found.confidence < np.inf)
    return found if sound.all() else found.take(np.flatnonzero(sound))


def _grid(head: NDArray[np.floating], class_ids: tuple[int, ...], confidence: float) -> Candidates:
    """Read a (4 + C, N) head: centre x, centre y, width, height, then one row of scores a class."""
    columns = [np.flatnonzero(head[4 + class_id] >= confidence) for class_id in class_ids]
    classes = np.repeat(np.array(class_ids, np.int32), [len(part) for part in columns])
    column = np.concatenate(columns)
    x, y, width, height = head[:4, column].astype(np.float32)
    half_width, half_height = width / 2, height / 2
    xyxy = np.array([x - half_width, y - half_height, x + half_width, y + half_height]).T
    return Candidates(xyxy, head[4 + classes, column].astype(np.float32), classes)


def _end_to_end(head: NDArray[np.floating], class_ids: tuple[int, ...], confidence: float) -> Candidates:
    """Read a (K, 6) head: x1, y1, x2, y2, score, class."""
    wanted = (head[:, 4] >= confidence) & np.isin(head[:, 5], class_ids)
    rows = head[wanted].astype(np.float32)
    return Candidates(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32))


def _suppress_by_class(found: Candidates, iou: float) -> NDArray[np.intp]:
    """Suppress all classes at once, each moved to a place of its own where it can overlap no other."""
    apart = (found.class_id * _APART)[:, None]
    return suppress(found.xyxy + apart, found.confidence, iou)
