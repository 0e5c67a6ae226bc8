"""What changed in a stream since it was last looked at, from a small grey picture of each frame. Runs in the worker's
main thread; `Watch` belongs to one stream. The picture is an eighth of the size at 1080p, sampled linearly (four pixels
of each sixty-four are read, which costs a tenth of averaging them all), then blurred against noise.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from orion.messages import Pixels
from workers.boxes import NONE, Boxes

Picture = NDArray[np.uint8]
"""(height, width) grey."""
Mask = NDArray[np.bool_]

SHORTEST_LONG_SIDE = 240
LARGEST_STEP = 8.0
"""A picture is `LARGEST_STEP` times smaller than the frame, less where its longer side would fall below that."""

LEAST_DIFFERENCE = 12
NOISE_SPANS = 5.0
"""A pixel has changed when it differs by that many grey levels, and that many times the usual difference."""
MOST_NOISE = 24.0
"""Where the usual difference asks for more grey levels than that, it is no noise: most of the picture moves."""

SCENE_SHARE = 0.4
"""Share of changed pixels from which the scene has changed as a whole."""
LEAST_AREA = 6
LEAST_EXTENT = 30
"""The smallest change that could be a person: so many pixels of the picture, and a connected piece whose longer side is
that part of the picture's, 21 pixels in the 640 session's input. What moves slowly adds up until it is larger."""
LIGHT_STEP = 0.18
"""Relative change of the light as a whole from which it is not corrected alone but looked at."""

RESTLESS_S = 1.0
RESTLESS_SHARE = 0.7
"""A pixel is restless (a screen, a fan) when it changed from frame to frame in that share of the recent past, of which
this is the time constant: what it does is no news until it has rested."""
RESTLESS_STEP = 0.2
"""Most that one frame can add to that share, so that it takes several frames at any rate."""
RESTLESS_AREA = 0.1
"""Share of restless pixels from which it is no screen or fan that is ignored: people may come in anywhere."""

CUT_LIKENESS = 0.2
"""Likeness of outlines under which two pictures show different places: between the scenes of six videos it is at most
0.05, within one at least 0.6, whether lamps go off, the camera goes over to grey, or four hundredths of the light are
left."""
LEAST_OUTLINES = 0.1
"""Spread of the outlines from which a picture has any."""

_COARSE = 3
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def sample(frame: Pixels) -> Picture:
    """Return the small picture of `frame`: at 1080p, 240x135 grey pixels in about a tenth of a millisecond."""
    height, width = frame.shape[:2]
    step = picture_step(width, height)
    size = max(1, round(width / step)), max(1, round(height / step))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.blur(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), (3, 3)), np.uint8)


def picture_step(width: int, height: int) -> float:
    """Return how many pixels of a frame of that size make one pixel of its picture."""
    return max(1.0, min(LARGEST_STEP, max(width, height) / SHORTEST_LONG_SIDE))


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Where a picture differs from what was last looked at. `step` is frame pixels to a picture's pixel."""

    mask: Mask
    step: float
    light: float = 1.0
    """Brightness relative to then, already taken out of `mask`."""
    cut: bool = False
    """The scene is another one altogether: nothing of its outlines is where it was."""
    back: bool = False
    """It is the one again that was there before the last cut, as when somebody has stood before the lens."""

    @property
    def whole(self) -> bool:
        """Whether the scene or its light changed as a whole."""
        return abs(math.log(self.light)) > LIGHT_STEP or float(self.mask.mean()) > SCENE_SHARE

    def movers(self, zones: Iterable[Boxes]) -> Boxes:
        """Return boxes (N, 4), frame pixels, around what could be a person and changed outside all of `zones`."""
        rest = self.mask.astype(np.uint8)
        for zone in zones:
            rest[_slices(zone, self.step)] = 0
        if np.count_nonzero(rest) < LEAST_AREA:
            return NONE
        _, _, blobs, _ = cv2.connectedComponentsWithStats(cv2.dilate(rest, _NEIGHBOURS))
        edges = blobs[1:, :4].astype(np.float64)
        edges = edges[edges[:, 2:].max(axis=1) >= max(self.mask.shape) / LEAST_EXTENT + 2]
        edges[:, 2:] += edges[:, :2]
        movers: Boxes = edges * self.step
        return movers

    def share_inside(self, boxes: Boxes) -> float:
        """Return the largest share of any of `boxes` (N, 4), frame pixels, that changed; 0 without any."""
        places = (self.mask[_slices(box, self.step)] for box in boxes)
        return max((float(place.mean()) for place in places if place.size), default=0.0)


class Watch:
    """Remembers how one stream looked where it was last looked at, and tells what changed since."""

    def __init__(self, first: Picture, step: float) -> None:
        self._seen = first
        self._last = first
        self._step = step
        self._restless = np.zeros(first.shape, np.float32)
        self._light = 1.0
        self._before_cut: Picture | None = None

    def compare(self, picture: Picture, passed_s: float) -> Change:
        """Return what differs between `picture` and what was looked at last, `passed_s` after the previous frame."""
        self._light = light = _light(picture, self._seen)
        then = cv2.convertScaleAbs(self._seen, alpha=light) if light != 1.0 else self._seen
        difference = cv2.absdiff(picture, then)
        usual = 1.4826 * float(np.median(difference[::_COARSE, ::_COARSE]))
        least = max(LEAST_DIFFERENCE, min(MOST_NOISE, NOISE_SPANS * usual))
        restless = self._note_unrest(picture, least, passed_s)
        changed = difference > least
        if float(restless.mean()) < RESTLESS_AREA:
            changed &= ~restless
        change = Change(changed, self._step, light)
        if not change.whole or _same_outlines(picture, self._seen):
            return change
        before, self._before_cut = self._before_cut, self._seen
        return replace(change, cut=True, back=before is not None and _same_outlines(picture, before))

    def _note_unrest(self, picture: Picture, least: float, passed_s: float) -> Mask:
        """Return where the picture is restless, this frame's change by more than `least` included."""
        moved = (cv2.absdiff(picture, self._last) > least).astype(np.float32)
        self._last = picture
        weight = min(RESTLESS_STEP, 1 - math.exp(-max(passed_s, 0.0) / RESTLESS_S))
        cv2.accumulateWeighted(moved, self._restless, weight)
        return np.asarray(self._restless >= RESTLESS_SHARE)

    def look(self, picture: Picture, regions: Boxes | None, people: Boxes, unseen: Boxes = NONE) -> None:
        """Note that `regions` of this picture were looked at (None: all of it) but for those that are `unseen`, and
        where `people` were found: there, restlessness is theirs.
        """
        if regions is None:
            self._seen = picture
        else:
            calm = cv2.convertScaleAbs(picture, alpha=1 / self._light) if self._light != 1.0 else picture
            before, self._seen = self._seen, self._seen.copy()
            for region, seen in [*((one, calm) for one in regions), *((one, before) for one in unseen)]:
                place = _slices(region, self._step)
                self._seen[place] = seen[place]
        for person in people:
            self._restless[_slices(person, self._step)] = 0


def _same_outlines(picture: Picture, then: Picture) -> bool:
    """Return whether two pictures may show one place, in whatever light: their outlines go together, or one of them is
    too dark, too bright or too blurred to have any.
    """
    now, before = _outlines(picture), _outlines(then)
    length = float(np.linalg.norm(now)) * float(np.linalg.norm(before))
    if min(float(now.std()), float(before.std())) < LEAST_OUTLINES:
        return True
    return float((now * before).sum()) >= CUT_LIKENESS * length


def _outlines(picture: Picture) -> NDArray[np.float32]:
    """Return how steep the picture is everywhere, relative to its contrast there."""
    smooth = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.5)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    steep = cv2.magnitude(across, down)
    outlines = steep / (cv2.GaussianBlur(steep, (0, 0), 8) + 4.0)
    return np.asarray(outlines - outlines.mean(), np.float32)


def _light(picture: Picture, then: Picture) -> float:
    """Return how much brighter `picture` is than `then`: the median of the ratios, which a mover cannot shift."""
    now = picture[::_COARSE, ::_COARSE].astype(np.float32) + 1
    ratio = float(np.median(now / (then[::_COARSE, ::_COARSE].astype(np.float32) + 1)))
    return 1.0 if abs(ratio - 1) < 0.004 else ratio


def _slices(box: Boxes, step: float) -> tuple[slice, slice]:
    left, top = (max(0, math.floor(edge / step)) for edge in box[:2])
    right, bottom = (max(0, math.ceil(edge / step)) for edge in box[2:])
    return slice(top, bottom), slice(left, right)
