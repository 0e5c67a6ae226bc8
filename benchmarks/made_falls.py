"""Falls that were made, with their truth: people cut out of a video, turned about their feet before the empty room, as
frames with the box of what is visible of them. Runs in the main thread of a benchmark or a test; the same variant gives
the same pixels always.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.cutouts import Mask, Room
from benchmarks.fall_cover import Layer, furniture, sheet
from benchmarks.fall_motion import Pose, Script, write_script
from benchmarks.fall_variants import Phase, Variant
from orion.messages import Pixels

_SHADOW, _SHADOW_BLUR = 0.3, 5.0
_SHADOW_SHIFT = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, 4.0]])
_PAD_PX = 14
"""So far around the body its shadow reaches."""
_INSIDE_PX = 4
"""Who does not lie at the edge keeps so far from it."""
_NOISE_PX = 64
"""By so much more than a frame the noise is made, of which every frame takes another piece."""
_DRIFT_S, _DRIFT = 20.0, 0.18


@dataclass(frozen=True, slots=True)
class Truth:
    """What a frame shows: the box (x1, y1, x2, y2) in pixels of what is visible of the person, None where nothing is,
    and which share of the body that is.
    """

    phase: Phase
    box: tuple[int, int, int, int] | None
    visible: float


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame: its number, the time of the stream in seconds, the picture (H, W, 3) uint8 BGR, and what is true."""

    number: int
    time_s: float
    picture: Pixels
    truth: Truth


def frames(room: Room, variant: Variant) -> Iterator[Shot]:
    """Yield the frames of a made fall; each has a picture of its own."""
    scene = Scene(room, variant)
    noise = _Noise(variant, room.background.shape)
    for number in range(scene.script.count):
        time_s = number / variant.fps
        picture, mask = scene.draw(time_s)
        lit = np.asarray(cv2.convertScaleAbs(picture, alpha=_gain(scene.script, time_s)), np.uint8)
        pose = scene.script.pose(time_s)
        yield Shot(number, time_s, noise.added(lit), scene.truth(pose, mask))


class Scene:
    """Somebody of the room who falls in it, and what covers them."""

    def __init__(self, room: Room, variant: Variant) -> None:
        cutout = room.cutouts[variant.person % len(room.cutouts)]
        self._room = room
        self._body = _Body(cutout.picture, cutout.mask, cutout.foot, variant)
        height, width = room.background.shape[:2]
        foot = self._body.place(variant, (width, height))
        self.script = write_script(variant, foot, self._body.reach, width)
        self._furniture: Layer | None = None
        if variant.cover == "furniture":
            self._furniture = furniture(variant, foot, self._body.lying(variant.direction), (width, height))
        self._sheet = sheet(variant, self._body.mask) if variant.cover == "sheet" else None
        self._last: tuple[Pose, Pixels, Mask] | None = None

    def draw(self, time_s: float) -> tuple[Pixels, Mask]:
        """Return the picture at that time, without noise, and where (H, W) the person is visible, 0 to 255; they are
        the same objects while nothing moves.
        """
        pose = self.script.pose(time_s)
        if self._last is None or self._last[0] != pose:
            self._last = (pose, *self._drawn(pose))
        return self._last[1], self._last[2]

    def truth(self, pose: Pose, mask: Mask) -> Truth:
        """Return what is true of a frame in which the person is visible at `mask`."""
        seen = (mask > 127).astype(np.uint8)
        count = cv2.countNonZero(seen)
        if count == 0:
            return Truth("gone" if pose.phase == "up" else pose.phase, None, 0.0)
        x, y, width, height = cv2.boundingRect(seen)
        return Truth(pose.phase, (x, y, x + width, y + height), min(1.0, count / self._body.area))

    def _drawn(self, pose: Pose) -> tuple[Pixels, Mask]:
        picture = self._room.background.copy()
        height, width = picture.shape[:2]
        visible: Mask = np.zeros((height, width), np.uint8)
        if pose.phase != "gone":
            matrix = self._body.matrix(pose)
            left, top, right, bottom = self._body.bounds(matrix, (width, height))
            if left < right and top < bottom:
                matrix[:, 2] -= left, top
                part = np.s_[top:bottom, left:right]
                visible[part] = self._paint(picture[part], matrix, pose)
        if self._furniture is not None:
            self._furniture.over(picture)
            visible = cv2.multiply(visible, 255 - self._furniture.mask, scale=1 / 255).astype(np.uint8)
        return picture, visible

    def _paint(self, part: Pixels, matrix: NDArray[np.float64], pose: Pose) -> Mask:
        """Paint the body, its shadow and its sheet into a `part` (h, w, 3) of the frame; return what is visible."""
        size = (part.shape[1], part.shape[0])
        body = self._body.moved(pose.arm)
        warped = np.asarray(cv2.warpAffine(body, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)
        mask = warped[:, :, 3]
        dark = cv2.GaussianBlur(cv2.warpAffine(mask, _SHADOW_SHIFT, size), (0, 0), _SHADOW_BLUR)
        _blend(part, np.zeros_like(part), (dark * _SHADOW).astype(np.uint8))
        _blend(part, warped[:, :, :3], mask, premultiplied=True)
        if self._sheet is None or pose.sheet == 0:
            return mask
        cloth = np.asarray(cv2.warpAffine(self._sheet.at(pose.sheet), matrix, size, flags=cv2.INTER_LINEAR), np.uint8)
        _blend(part, cloth[:, :, :3], cloth[:, :, 3], premultiplied=True)
        return cv2.multiply(mask, 255 - cloth[:, :, 3], scale=1 / 255).astype(np.uint8)


class _Body:
    """A cut-out at its size in the frame: (H, W, 4) uint8, colours multiplied by the mask, the mask last."""

    def __init__(self, picture: Pixels, mask: Mask, foot: tuple[float, float], variant: Variant) -> None:
        size = (round(picture.shape[1] * variant.scale), round(picture.shape[0] * variant.scale))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
        across = foot[0] * variant.scale
        if variant.mirrored:
            picture, mask, across = picture[:, ::-1], mask[:, ::-1], size[0] - across
        # A rim of nothing, so that the warp is soft at the sides too.
        picture, mask = (np.pad(one, [(2, 2), (2, 2)] + [(0, 0)] * (one.ndim - 2)) for one in (picture, mask))
        self.mask: Mask = np.ascontiguousarray(mask)
        self._foot = across + 2, foot[1] * variant.scale + 2
        colours = picture * (mask[:, :, None] / 255.0)
        self._pixels = np.dstack([np.rint(colours).astype(np.uint8), mask])
        self.area = max(1, cv2.countNonZero((self.mask > 127).astype(np.uint8)))

    @property
    def reach(self) -> float:
        """How far from the feet the body goes to either side while it is upright, its tilt and shadow included."""
        return float(max(self._foot[0], self.mask.shape[1] - self._foot[0]) + 2 * _PAD_PX)

    def lying(self, direction: str) -> tuple[float, float, float, float]:
        """Return where it lies, against its feet: x1, y1, x2, y2 in pixels."""
        height, width = self.mask.shape
        (across, down), side = self._foot, 1 if direction == "right" else -1
        ends = sorted((side * (down - height), side * down))
        breadth = sorted((-side * across, side * (width - across)))
        return ends[0], breadth[0], ends[1], breadth[1]

    def place(self, variant: Variant, frame_size: tuple[int, int]) -> tuple[float, float]:
        """Return where the feet stand, so that who lies is in view, or at the edge as far as the variant says."""
        width, height = frame_size
        x1, y1, x2, y2 = self.lying(variant.direction)
        x = min(max(variant.foot[0], _INSIDE_PX - x1), width - _INSIDE_PX - x2)
        y = min(variant.foot[1], height - _INSIDE_PX - y2)
        inside = variant.inside * (x2 - x1)
        if variant.edge == "side":
            x = width - x1 - inside if variant.direction == "right" else inside - x2
        if variant.edge == "bottom":
            y = height - y1 - variant.inside * (y2 - y1)
        return x, y

    def matrix(self, pose: Pose) -> NDArray[np.float64]:
        """Return the way (2, 3) from its pixels to the frame's: broader, turned about the feet, and moved to them."""
        angle = math.radians(pose.angle)
        cosine, sine = math.cos(angle), math.sin(angle)
        turn = np.array([[cosine * pose.breadth, -sine], [sine * pose.breadth, cosine]])
        return np.column_stack([turn, np.array(pose.foot) - turn @ np.array(self._foot)])

    def bounds(self, matrix: NDArray[np.float64], frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the part of the frame, left, top, right, bottom, that the body and its shadow are in."""
        height, width = self.mask.shape
        corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
        low = np.clip(np.floor(corners.min(axis=1)) - _PAD_PX, 0, frame_size).astype(int)
        high = np.clip(np.ceil(corners.max(axis=1)) + _PAD_PX, 0, frame_size).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def moved(self, arm: float) -> NDArray[np.uint8]:
        """Return its pixels with what is around one elbow moved outwards by `arm` pixels."""
        if arm == 0:
            return self._pixels
        height, width = self.mask.shape
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        near = np.exp(-(((x - 0.82 * width) / (0.2 * width)) ** 2 + ((y - 0.36 * height) / (0.1 * height)) ** 2))
        moved = cv2.remap(self._pixels, (x - arm * near).astype(np.float32), y, cv2.INTER_LINEAR)
        return np.asarray(moved, np.uint8)


def _blend(part: Pixels, colours: Pixels, mask: Mask, *, premultiplied: bool = False) -> None:
    """Lay `colours` (h, w, 3) over `part` in place, as far as `mask` (h, w) says."""
    rest = cv2.merge([255 - mask] * 3)
    cv2.multiply(part, rest, dst=part, scale=1 / 255)
    if not premultiplied:
        colours = np.asarray(cv2.multiply(colours, cv2.merge([mask] * 3), scale=1 / 255), np.uint8)
    cv2.add(part, colours, dst=part)


class _Noise:
    """What a sensor adds to its pixels: normally distributed, another piece of one large field for every frame."""

    def __init__(self, variant: Variant, shape: tuple[int, ...]) -> None:
        self._random = np.random.default_rng([22, variant.seed])
        self._shape = shape
        self._field: NDArray[np.int16] | None = None
        if variant.noise:
            size = (shape[0] + _NOISE_PX, shape[1] + _NOISE_PX, 3)
            field = self._random.standard_normal(size, np.float32) * np.float32(variant.noise)
            self._field = np.rint(field).astype(np.int16)

    def added(self, picture: Pixels) -> Pixels:
        """Return a picture with noise; the same one where there is none."""
        if self._field is None:
            return picture
        top, left = self._random.integers(0, _NOISE_PX, 2)
        piece = self._field[top : top + self._shape[0], left : left + self._shape[1]]
        noisy: Pixels = cv2.add(picture, piece, dtype=cv2.CV_8U).astype(np.uint8, copy=False)
        return noisy


def _gain(script: Script, time_s: float) -> float:
    """Return how bright it is at that time, 1 being as in the video."""
    light, seed = script.variant.light, script.variant.seed
    if light == "drift":
        return 1 + _DRIFT * math.sin(2 * math.pi * (time_s / _DRIFT_S + seed % 10 / 10))
    if light == "step":
        at_s, gain = np.random.default_rng([23, seed]).uniform((script.falls_s, 0.6), (script.rises_s, 1.15))
        return float(gain) if time_s >= at_s else 1.0
    return 1.0
