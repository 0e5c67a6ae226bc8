"""The walking person of the demo scene: a jointed body turned into filled outlines. Pure geometry apart from `paint`,
which draws into the caller's frame; called by whoever renders the scene, keeps no state.

The body lives in its own axes, in units of its height: forward (the way it faces), left, up from the floor. `yaw` turns
it: 0 faces the viewer, +pi/2 walks to the right of the picture, -pi/2 to the left. The projection is parallel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from orion.messages import Pixels

Color = tuple[int, int, int]
Points = NDArray[np.float64]

SUBPIXEL_BITS = 4
CAP_POINTS = 7
THIGH, SHIN, UPPER_ARM, FOREARM = 0.245, 0.235, 0.165, 0.155
HIP_UP, SHOULDER_UP, HEAD_UP = 0.52, 0.80, 0.925
COAT_UP = np.array([0.852, 0.835, 0.815, 0.775, 0.70, 0.61, 0.50, 0.36])
COAT_LEFT = np.array([0.035, 0.078, 0.116, 0.126, 0.112, 0.096, 0.112, 0.128])
COAT_FORWARD = np.array([0.030, 0.045, 0.058, 0.070, 0.074, 0.064, 0.090, 0.118])
"""Half the width and half the depth of a coat at heights from the collar to the longest hem."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a person wears, as BGR colours, and how high above the floor the coat ends, in body heights."""

    coat: Color
    hem: float
    trousers: Color
    shoes: Color
    hair: Color
    skin: Color


@dataclass(frozen=True, slots=True)
class Pose:
    """How a person stands at one moment: angles in radians.

    `phase` runs 2*pi over two steps; `stride` is 0 for standing and 1 for an even walk; `gesture` 0..1 lifts the left
    forearm, as somebody does who is talking.
    """

    yaw: float
    phase: float
    stride: float
    gesture: float


@dataclass(frozen=True, slots=True)
class Part:
    """One filled outline: (N, 2) points in pixels, convex unless it is the coat or the hair."""

    outline: Points
    color: Color


@dataclass(frozen=True, slots=True)
class _Limb:
    """A tapering piece of the body between two joints (forward, left, up), with its radius at either end."""

    start: Points
    end: Points
    radii: tuple[float, float]
    color: Color


def _shade(color: Color, factor: float) -> Color:
    return (min(255, int(color[0] * factor)), min(255, int(color[1] * factor)), min(255, int(color[2] * factor)))


def _swing(joint: Points, length: float, angle: float) -> Points:
    """Return the far end of a bone that hangs from `joint` and is swung forward by `angle`."""
    return joint + np.array([math.sin(angle), 0.0, -math.cos(angle)]) * length


def _leg(side: int, pose: Pose, look: Look, tone: float) -> list[_Limb]:
    phase = pose.phase + (math.pi if side < 0 else 0.0)
    swing = 0.44 * pose.stride * math.sin(phase)
    flex = pose.stride * (0.10 + 0.85 * max(0.0, math.cos(phase + 0.25)) ** 1.5)
    hip = np.array([0.0, 0.052 * side, HIP_UP])
    knee = _swing(hip, THIGH, swing + 0.25 * flex)
    ankle = _swing(knee, SHIN, swing - 0.75 * flex)
    spread = np.array([0.0, 0.012 * side, 0.0])
    heel = ankle + spread + np.array([-0.012, 0.0, -0.016])
    toe = heel + np.array([0.095, 0.024 * side, -0.010 - 0.03 * flex])
    return [
        _Limb(heel, toe, (0.026, 0.019), _shade(look.shoes, tone)),
        _Limb(knee + spread, ankle + spread, (0.044, 0.029), _shade(look.trousers, tone)),
        _Limb(hip, knee + spread, (0.064, 0.046), _shade(look.trousers, tone)),
    ]


def _arm(side: int, pose: Pose, look: Look, tone: float) -> list[_Limb]:
    phase = pose.phase + (math.pi if side > 0 else 0.0)
    lifted = pose.gesture if side > 0 else 0.25 * pose.gesture
    swing = 0.36 * pose.stride * math.sin(phase) + 0.15 * lifted
    bend = 0.12 + 0.35 * pose.stride + 1.5 * lifted
    shoulder = np.array([0.0, 0.104 * side, SHOULDER_UP - 0.018])
    elbow = _swing(shoulder, UPPER_ARM, swing) + np.array([0.0, 0.032 * side, 0.0])
    wrist = _swing(elbow, FOREARM, swing + bend) + np.array([0.0, (0.004 - 0.05 * lifted) * side, 0.0])
    hand = wrist + (wrist - elbow) * 0.22
    return [
        _Limb(wrist, hand, (0.020, 0.017), _shade(look.skin, tone)),
        _Limb(elbow, wrist, (0.030, 0.023), _shade(look.coat, tone * 0.95)),
        _Limb(shoulder, elbow, (0.040, 0.031), _shade(look.coat, tone * 0.95)),
    ]


def _head(look: Look) -> list[_Limb]:
    crown = np.array([-0.004, 0.0, HEAD_UP + 0.021])
    jaw = np.array([0.012, 0.0, HEAD_UP - 0.024])
    return [
        _Limb(np.array([0.0, 0.0, 0.825]), np.array([0.004, 0.0, 0.885]), (0.034, 0.030), _shade(look.skin, 0.86)),
        _Limb(crown, jaw, (0.054, 0.040), look.skin),
    ]


def _capsules(limbs: Sequence[_Limb], projection: Points) -> Points:
    """Return the outlines (limbs, points, 2) of tapering rounded bars: two circles and their outer tangents."""
    start = np.array([limb.start for limb in limbs]) @ projection
    end = np.array([limb.end for limb in limbs]) @ projection
    radii = np.array([limb.radii for limb in limbs])
    axis = end - start
    length = np.maximum(np.hypot(axis[:, 0], axis[:, 1]), 1e-6)
    lean = np.arcsin(np.clip((radii[:, 0] - radii[:, 1]) / length, -0.999, 0.999))
    heading = np.arctan2(axis[:, 1], axis[:, 0])
    sweep = np.linspace(-1.0, 1.0, CAP_POINTS)
    at_end = heading[:, None] + (math.pi / 2 - lean)[:, None] * sweep
    at_start = heading[:, None] + math.pi + (math.pi / 2 + lean)[:, None] * sweep
    tip = end[:, None] + radii[:, 1, None, None] * np.stack([np.cos(at_end), np.sin(at_end)], axis=-1)
    root = start[:, None] + radii[:, 0, None, None] * np.stack([np.cos(at_start), np.sin(at_start)], axis=-1)
    return np.concatenate([tip, root], axis=1)


def _coat(yaw: float, hem: float) -> Points:
    up = np.maximum(COAT_UP, hem)
    left, forward = np.interp(up, COAT_UP[::-1], COAT_LEFT[::-1]), np.interp(up, COAT_UP[::-1], COAT_FORWARD[::-1])
    half = np.hypot(left * math.cos(yaw), forward * math.sin(yaw))
    return np.concatenate([np.stack([half, up], axis=1), np.stack([-half, up], axis=1)[::-1]])


def _hair(yaw: float) -> Points:
    """Return the hair: over the crown, down to the nape at the back of the head, clear of the forehead."""
    turn = math.sin(yaw)
    to_right, to_left = max(0.0, turn), max(0.0, -turn)
    angles = np.linspace(0.1 + 0.4 * to_right - 0.9 * to_left, math.pi - 0.1 - 0.4 * to_left + 0.9 * to_right, 16)
    rim = np.stack([0.058 * np.cos(angles), 0.056 * np.sin(angles)], axis=1)
    temple = np.array([[-0.022 * turn, 0.022 - 0.036 * abs(turn)], [0.020 * turn, 0.022]])
    if turn < 0:
        temple = temple[::-1]
    outline: Points = np.concatenate([rim, temple]) + np.array([-0.006 * turn, HEAD_UP + 0.021])
    return outline


def _face(yaw: float, look: Look, projection: Points) -> list[Part]:
    """Return the eyes that can be seen: none from behind, one in profile."""
    parts = []
    for side in (-1, 1):
        eye = np.array([0.046, 0.019 * side, HEAD_UP + 0.004])
        if eye[0] * math.cos(yaw) - eye[1] * math.sin(yaw) > 0.012:
            angles = np.linspace(0, 2 * math.pi, 7)[:-1]
            ring = eye @ projection + 0.0065 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            parts.append(Part(ring, _shade(look.hair, 0.6)))
    return parts


def body(pose: Pose, look: Look) -> list[Part]:
    """Return the outlines of a person, farthest first, in body heights: x to the right of the feet's middle, y up."""
    projection = np.array([[math.sin(pose.yaw), 0.0], [math.cos(pose.yaw), 0.0], [0.0, 1.0]])
    far = 1 if math.sin(pose.yaw) >= 0 else -1
    turned = abs(math.sin(pose.yaw))
    dim = 1.0 - 0.22 * turned
    limbs = [*_leg(far, pose, look, dim), *_leg(-far, pose, look, 1.0)]
    far_arm, near_arm, head = _arm(far, pose, look, dim), _arm(-far, pose, look, 1.0), _head(look)
    drawn = _capsules([*limbs, *far_arm, *near_arm, *head], projection)
    colors = [limb.color for limb in [*limbs, *far_arm, *near_arm, *head]]
    parts = [Part(outline, color) for outline, color in zip(drawn, colors, strict=True)]
    legs, behind, front, skull = parts[:6], parts[6:9], parts[9:12], parts[12:]
    torso = [Part(_coat(pose.yaw, look.hem), look.coat)]
    if turned < 0.5:
        torso, behind = [*torso, *behind], []
    face = _face(pose.yaw, look, projection)
    ordered = [*behind, *legs, skull[0], *torso, skull[1], *face, Part(_hair(pose.yaw), look.hair), *front]
    lowest = min(float(part.outline[:, 1].min()) for part in legs)
    return [Part(part.outline - np.array([0.0, lowest]), part.color) for part in ordered]


def place(parts: Sequence[Part], foot_x: float, foot_y: float, height: float) -> list[Part]:
    """Return the outlines in pixels of a frame: feet at (foot_x, foot_y), `height` pixels tall."""
    scale = np.array([height, -height])
    origin = np.array([foot_x, foot_y])
    return [Part(part.outline * scale + origin, part.color) for part in parts]


def bounds(parts: Sequence[Part]) -> tuple[float, float, float, float]:
    """Return the tight box around the outlines as x, y, width, height in their own units."""
    points = np.concatenate([part.outline for part in parts])
    low, high = points.min(axis=0), points.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def paint(parts: Sequence[Part], light: float, out: Pixels) -> None:
    """Draw the outlines into `out` in place, anti-aliased, their colours multiplied by `light`."""
    for part in parts:
        points = np.rint(part.outline * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(out, [points], _shade(part.color, light), cv2.LINE_AA, SUBPIXEL_BITS)
