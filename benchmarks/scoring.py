"""How detections are scored against reference detections of the same frames; used by benchmarks and tests."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orion.messages import Detections

HELD_IOU = 0.85
"""The overlap asked of a result that repeats earlier boxes."""


@dataclass(frozen=True, slots=True)
class Score:
    """Counts over frames: `expected` reference boxes, `matched` of them, `found` boxes, `extra` of them."""

    expected: int = 0
    matched: int = 0
    found: int = 0
    extra: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.expected + other.expected,
            self.matched + other.matched,
            self.found + other.found,
            self.extra + other.extra,
        )

    @property
    def recall(self) -> float:
        """Share of the reference boxes that were matched; 1 when there were none."""
        return self.matched / self.expected if self.expected else 1.0

    @property
    def extra_share(self) -> float:
        """Share of the reference's count that was found beyond it; 0 when nothing was."""
        return self.extra / max(self.expected, 1)


Reference = list[NDArray[np.float64]]
"""For each frame (N, 5): x, y, width, height in frame pixels, confidence."""


def load_reference(path: Path) -> Reference:
    """Read a reference file: a JSON object whose `detections` has a list of boxes for each frame."""
    frames = json.loads(path.read_text())["detections"]
    return [np.array(boxes, np.float64).reshape(-1, 5) for boxes in frames]


def xywh(detections: Detections) -> NDArray[np.int32]:
    """Return the boxes of `detections` (N, 4): x, y, width, height in frame pixels."""
    places = [(one.x, one.y, one.width, one.height) for one in detections]
    return np.array(places, np.int32).reshape(-1, 4)


def score_frame(
    found: NDArray[np.int32],
    reference: NDArray[np.float64],
    *,
    confidence: float = 0.4,
    iou: float = 0.9,
    held: bool = False,
) -> Score:
    """Score one frame's boxes (N, 4) against its reference (M, 5).

    Pairs are matched one to one, the best overlap first, at `iou` or more (`held`: 0.85 or more). Reference boxes
    below `confidence` are ignored: not matching one is no miss, matching one no extra.
    """
    overlaps = _overlaps(found.astype(np.float64), reference[:, :4])
    required = reference[:, 4] >= confidence
    matched, claimed = 0, 0
    least = HELD_IOU if held else iou
    while overlaps.size and overlaps.max() >= least:
        mine, theirs = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[mine, :] = -1
        overlaps[:, theirs] = -1
        claimed += 1
        matched += int(required[theirs])
    return Score(int(required.sum()), matched, len(found), len(found) - claimed)


def _overlaps(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    near = np.maximum(mine[:, None, :2], theirs[None, :, :2])
    far = np.minimum((mine[:, :2] + mine[:, 2:])[:, None], (theirs[:, :2] + theirs[:, 2:])[None])
    common = np.clip(far - near, 0, None).prod(axis=2)
    areas = mine[:, 2:].prod(axis=1)[:, None] + theirs[:, 2:].prod(axis=1)[None]
    overlap: NDArray[np.float64] = common / (areas - common)
    return overlap
