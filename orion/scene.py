"""The built-in demo scene: a room that people enter, cross, stand in and leave, drawn frame by frame. Every frame is a
function of size, seed and time alone, so any frame can be drawn at any moment, and the scene knows where its figures
are. Runs in the capture thread of a `demo` stream; the scene owns its pre-drawn room, the caller owns the frame.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from orion.demo import DemoFormat
from orion.figure import Look, Part, Pose, body, bounds, paint, place
from orion.messages import Pixels
from orion.room import paint_room

CYCLE_S = 60.0

HORIZON = 0.36
"""Where the heads of the farthest figures are, as a share of the frame's height: that of a camera at eye level."""
SMOOTH_S = 0.7
"""How long a figure takes to gather speed, to stop and to turn."""
TURN = math.radians(62)
"""How far a walker turns from the viewer: short of the full profile, so that the shoulders show."""
STEP = 0.40
"""Length of a step in body heights."""
OUTSIDE = 0.36
"""How far beyond the frame's edge a figure starts and ends, in body heights: enough to be out of sight."""
NOISE_SPAN = 4
"""Most that the noise adds or takes away, in grey levels."""
TILE = 128
"""Side of the patch of noise that is repeated over the frame, at another offset in every frame."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Where a person is: `xywh` the tight box in pixels of the frame, clipped to it; `visit` counts every coming.

    `fully_visible` says that neither the frame's edge nor a nearer figure hides a part of it.
    """

    visit: int
    xywh: tuple[float, float, float, float]
    fully_visible: bool


@dataclass(frozen=True, slots=True)
class _Visit:
    """One coming and going: who, on which line of the floor (a share of the height), and the way.

    `way` is (second of the cycle, place): 0 is just outside the left edge, 1 just outside the right one.
    """

    look: int
    floor: float
    way: tuple[tuple[float, float], ...]

    @property
    def span_s(self) -> tuple[float, float]:
        return self.way[0][0], self.way[-1][0]


VISITS = (
    _Visit(0, 0.945, ((0.8, 0.0), (3.6, 0.40), (8.5, 0.40), (11.7, 1.0))),
    _Visit(1, 0.965, ((8.2, 1.0), (13.8, 0.0))),
    _Visit(2, 0.950, ((21.0, 1.0), (23.2, 0.72), (33.5, 0.72), (36.0, 1.0))),
    _Visit(3, 0.960, ((24.0, 0.0), (26.0, 0.24), (31.0, 0.24), (33.2, 0.0))),
    _Visit(0, 0.970, ((26.6, 0.0), (29.0, 0.46), (31.6, 0.46), (34.6, 0.0))),
    _Visit(1, 0.955, ((41.0, 0.0), (46.4, 1.0))),
    _Visit(3, 0.945, ((42.4, 1.0), (45.6, 0.55), (49.6, 0.55), (53.4, 0.0))),
)
LOOKS = (
    Look((120, 62, 30), 0.38, trousers=(92, 78, 70), shoes=(34, 34, 38), hair=(26, 34, 44), skin=(140, 172, 214)),
    Look((48, 48, 150), 0.36, trousers=(78, 80, 86), shoes=(40, 42, 60), hair=(40, 70, 104), skin=(150, 182, 226)),
    Look((66, 96, 40), 0.42, trousers=(92, 66, 48), shoes=(34, 36, 44), hair=(22, 24, 28), skin=(86, 118, 164)),
    Look((58, 46, 60), 0.40, trousers=(104, 82, 66), shoes=(44, 44, 48), hair=(60, 64, 70), skin=(132, 164, 208)),
)
Box = tuple[float, float, float, float]


class DemoScene:
    """A looping scene of `CYCLE_S` seconds with one to three figures and stretches without any."""

    def __init__(self, size: DemoFormat, seed: int = 0) -> None:
        self.width, self.height, self.fps = size.width, size.height, size.fps
        self.seed = seed
        self._looks = [LOOKS[i] for i in (np.arange(len(LOOKS)) + seed) % len(LOOKS)]
        self._room = paint_room(self.width, self.height, seed)
        self._shadow = _soft_shadow(round(0.27 * self.height), max(3, round(0.04 * self.height)))
        self._noise = _grain(self.height + TILE, self.width + TILE, seed)

    def render(self, index: int, out: Pixels) -> None:
        """Draw frame `index` (from 0) into `out`, a (height, width, 3) uint8 BGR array, in place."""
        if out.shape != self._room.shape or out.dtype != np.uint8:
            raise ValueError(f"the frame must be {self._room.shape} uint8, not {out.shape} {out.dtype}")
        time_s = index / self.fps
        light = self._light(time_s)
        cv2.convertScaleAbs(self._room, dst=out, alpha=light, beta=-NOISE_SPAN)
        for _, parts in self._people(time_s):
            self._cast_shadow(parts, out)
            paint(parts, light, out)
        top, left = np.random.default_rng((self.seed, index)).integers(0, TILE, 2)
        cv2.add(out, self._noise[top : top + self.height, left : left + self.width], dst=out)

    def figures(self, index: int) -> tuple[Figure, ...]:
        """Return the figures of which at least a part is inside frame `index`, farthest first."""
        people = [(visit, bounds(parts)) for visit, parts in self._people(index / self.fps)]
        found = []
        for place_in_line, (visit, box) in enumerate(people):
            clipped = _clip(box, self.width, self.height)
            if clipped is not None:
                hidden = any(_overlap(box, nearer) for _, nearer in people[place_in_line + 1 :])
                found.append(Figure(visit, clipped, fully_visible=clipped is box and not hidden))
        return tuple(found)

    def _cast_shadow(self, parts: list[Part], out: Pixels) -> None:
        left, top, width, height = bounds(parts)
        tall, wide = self._shadow.shape[:2]
        x, y = round(left + (width - wide) / 2), round(top + height - 0.62 * tall)
        target = out[y : y + tall, max(0, x) : max(0, x + wide)]
        if target.size:
            cv2.subtract(target, self._shadow[: target.shape[0], max(0, -x) :][:, : target.shape[1]], dst=target)

    def _light(self, time_s: float) -> float:
        """Return the gain of the slowly changing daylight."""
        return 0.97 + 0.05 * math.sin(2 * math.pi * time_s / 47.0) + 0.025 * math.sin(2 * math.pi * time_s / 19.0)

    def _people(self, time_s: float) -> list[tuple[int, list[Part]]]:
        """Return (visit, outlines in pixels) of everybody who is on their way at `time_s`, farthest first."""
        cycle, moment = divmod(time_s, CYCLE_S)
        people = []
        for number, visit in enumerate(VISITS):
            start_s, end_s = visit.span_s
            if start_s <= moment <= end_s:
                people.append((visit.floor, int(cycle) * len(VISITS) + number, self._outlines(visit, moment)))
        return [(number, parts) for _, number, parts in sorted(people, key=lambda person: person[:2])]

    def _outlines(self, visit: _Visit, moment: float) -> list[Part]:
        tall = (visit.floor - HORIZON) * self.height
        way_px = self.width + 2 * OUTSIDE * tall
        times, places = zip(*visit.way, strict=True)
        around = moment + np.linspace(-SMOOTH_S / 2, SMOOTH_S / 2, 9)
        path = np.interp(around, times, places)
        walked = float(path.mean())
        speed = float(path[-1] - path[0]) / SMOOTH_S * way_px / tall
        stride = min(1.0, abs(speed) / 0.6)
        yaw = TURN * max(-1.0, min(1.0, speed / 0.35))
        steps = max(2.0, min(24.0, way_px / tall / STEP))
        gesture = (1.0 - stride) * max(0.0, math.sin(2.1 * moment)) ** 2
        pose = Pose(yaw, math.pi * steps * walked * (1 if yaw >= 0 else -1), stride, gesture)
        parts = body(pose, self._looks[visit.look])
        return place(parts, walked * way_px - OUTSIDE * tall, visit.floor * self.height, tall)


def _grain(height: int, width: int, seed: int) -> Pixels:
    """Return noise around `NOISE_SPAN`, never below zero: a patch repeated until it covers height x width."""
    patch = np.random.default_rng(seed).normal(NOISE_SPAN, 1.4, (TILE, TILE, 3))
    whole = np.clip(np.rint(patch), 0, 2 * NOISE_SPAN).astype(np.uint8)
    return np.tile(whole, (-(-height // TILE), -(-width // TILE), 1))[:height, :width]


def _soft_shadow(width: int, height: int) -> Pixels:
    """Return what a shadow on the floor takes away: most in the middle, nothing at its rim."""
    across, down = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    depth = 46.0 * np.clip(1.0 - across**2 - down**2, 0.0, 1.0) ** 0.8
    return np.repeat(np.rint(depth).astype(np.uint8)[:, :, None], 3, axis=2)


def _clip(box: Box, width: int, height: int) -> Box | None:
    """Return the part of `box` inside the frame: the box itself where all of it is, None where nothing is."""
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
    if left >= right or top >= bottom:
        return None
    whole = (left, top) == box[:2] and (right, bottom) == (box[0] + box[2], box[1] + box[3])
    return box if whole else (left, top, right - left, bottom - top)


def _overlap(one: Box, other: Box) -> bool:
    across = one[0] < other[0] + other[2] and other[0] < one[0] + one[2]
    return across and one[1] < other[1] + other[3] and other[1] < one[1] + one[3]
