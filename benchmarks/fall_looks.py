"""Which looks at a frame find somebody whose place is known: the whole frame, a crop around where they last stood
upright, and both turned. Runs in the main thread of a benchmark or a test, which owns the pair of sessions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from orion.messages import Crop, Pixels, Turn
from workers.boxes import Boxes, confidences, corners, overlaps
from workers.pair import SessionPair
from workers.pipeline import infer, whole_frame

SAME_IOU = 0.3
"""Overlap with the truth from which a box is that of the person."""
AROUND_HEIGHTS = (1.5,)
"""Sides of the crops, in heights of who stood. 1.5 alone finds most; turned, 1.5 and 2.5 find nearly all."""
_LEAST_SHARE = 1 / 3
"""A crop is at least this share of the frame's sides."""
_TURNS: tuple[Turn, ...] = (90, -90)


LOOKS = ("whole", "around", "turned_around", "turned_whole")
"""The looks, as `Scores` has them."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The best confidence of a box that overlaps the truth, of each look; 0 where there is none."""

    whole: float
    around: float
    turned_around: float
    turned_whole: float

    @property
    def best(self) -> float:
        """The best of all looks."""
        return max(self.whole, self.around, self.turned_around, self.turned_whole)


def look(pair: SessionPair, frame: Pixels, upright: Boxes, truth: Boxes, heights: Sequence[float]) -> Scores:
    """Return what each look finds of who is at `truth` (4,) and last stood upright at `upright` (4,), corners; around
    them in crops of so many `heights`, of which the best counts.
    """
    crops = [crop_around(upright, height, (frame.shape[1], frame.shape[0])) for height in heights]
    whole = whole_frame(frame)
    return Scores(
        whole=score_at(pair, frame, whole, 0, truth),
        around=max(score_at(pair, frame, crop, 0, truth) for crop in crops),
        turned_around=max(score_at(pair, frame, crop, turn, truth) for crop in crops for turn in _TURNS),
        turned_whole=max(score_at(pair, frame, whole, turn, truth) for turn in _TURNS),
    )


def crop_around(box: Boxes, heights: float, frame_size: tuple[int, int]) -> Crop:
    """Return the square crop for the 640 session around the centre of `box` (4,) corners, its side so many times
    the longer side of that, at least a third of the frame's, moved into a frame of (width, height), and cut where that
    is smaller.
    """
    side = heights * max(box[2] - box[0], box[3] - box[1])
    places = []
    for low, high, length in zip(box[:2], box[2:], frame_size, strict=True):
        size = round(min(max(side, _LEAST_SHARE * length), length))
        places.append((round(min(max((low + high - size) / 2, 0), length - size)), size))
    (x, width), (y, height) = places
    return Crop(x, y, width, height, 640)


def score_at(pair: SessionPair, frame: Pixels, crop: Crop, turn: Turn, truth: Boxes) -> float:
    """Return the best confidence of what is found in `crop`, turned by `turn` degrees, and overlaps `truth` (4,)."""
    found, _ = infer(pair, frame, replace(crop, turn=turn))
    good = overlaps(corners(found), truth[None])[:, 0] >= SAME_IOU
    return float(confidences(found)[good].max(initial=0.0))
