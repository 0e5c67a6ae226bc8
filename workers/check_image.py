"""The known pictures on which a session proves that it sees: a drawn person, the same mirrored, and the empty room.
Pure. Nothing is read from disk, so that the test works in any installation; YOLO11n and the embedded model see the
figure with scores above 0.8 at both session sizes.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from orion.messages import Pixels

_WIDTH, _HEIGHT = 640, 480
_SKIN, _HAIR, _SHIRT = (150, 175, 215), (35, 40, 50), (86, 160, 150)
_TROUSERS, _SHOES = (46, 62, 86), (30, 30, 35)
_WALL, _FLOOR = (100, 128, 116), (62, 74, 170)
_HEAD_TOP = (198, 133)
_HEAD_HEIGHT = 33.0
"""An eighth of the figure's height, the unit of its proportions."""

_LIMBS = (
    ((-0.45, 4.0), (-0.55, 7.6), _TROUSERS, 0.85),
    ((0.45, 4.0), (0.55, 7.6), _TROUSERS, 0.85),
    ((-0.6, 7.75), (-0.9, 7.8), _SHOES, 0.45),
    ((0.6, 7.75), (0.9, 7.8), _SHOES, 0.45),
    ((-1.05, 1.8), (-1.3, 4.0), _SHIRT, 0.5),
    ((1.05, 1.8), (1.3, 4.0), _SHIRT, 0.5),
    ((-1.3, 4.2), (-1.3, 4.2), _SKIN, 0.5),
    ((1.3, 4.2), (1.3, 4.2), _SKIN, 0.5),
    ((0.0, 0.9), (0.0, 1.6), _SKIN, 0.5),
)
_TORSO = ((-1.1, 1.5), (1.1, 1.5), (0.85, 4.2), (-0.85, 4.2))


class KnownPicture(NamedTuple):
    """A picture, 640x480 BGR, always the same; whether there is a person in it."""

    name: str
    pixels: Pixels
    person: bool


def known_pictures() -> tuple[KnownPicture, ...]:
    """Return the known pictures in the order in which they are tried: each differs from the one before, so that an
    answer to an earlier picture is wrong for the next.
    """
    grain = np.random.default_rng(59).normal(0, 9, (_HEIGHT, _WIDTH, 3))
    person = _photographed(_with_figure(_room()), grain)
    return (
        KnownPicture("drawn person", person, person=True),
        KnownPicture("mirrored person", np.ascontiguousarray(person[:, ::-1]), person=True),
        KnownPicture("empty room", _photographed(_room(), grain), person=False),
    )


def _room() -> Pixels:
    picture = np.full((_HEIGHT, _WIDTH, 3), _WALL, np.uint8)
    picture[365:] = _FLOOR
    cv2.rectangle(picture, (307, 11), (415, 110), (40, 165, 135), cv2.FILLED)
    cv2.rectangle(picture, (496, 274), (554, 391), (80, 230, 185), cv2.FILLED)
    return picture


def _with_figure(picture: Pixels) -> Pixels:
    for start, end, colour, thickness in _LIMBS:
        cv2.line(picture, _point(start), _point(end), colour, round(thickness * _HEAD_HEIGHT), cv2.LINE_AA)
    cv2.fillPoly(picture, [np.array([_point(corner) for corner in _TORSO])], _SHIRT, cv2.LINE_AA)
    cv2.ellipse(picture, _point((0, 0.55)), (14, 18), 0, 0, 360, _SKIN, cv2.FILLED, cv2.LINE_AA)
    cv2.ellipse(picture, _point((0, 0.35)), (15, 13), 0, 180, 360, _HAIR, cv2.FILLED, cv2.LINE_AA)
    return picture


def _photographed(picture: Pixels, grain: NDArray[np.float64]) -> Pixels:
    """Return the picture with the softness and the noise of a camera."""
    softened = cv2.GaussianBlur(picture, (0, 0), 2.4).astype(np.float32)
    return np.clip(softened + grain, 0, 255).astype(np.uint8)


def _point(heads: tuple[float, float]) -> tuple[int, int]:
    """Turn a place in head heights, from the top of the head, into pixels."""
    x, y = _HEAD_TOP
    return round(x + heads[0] * _HEAD_HEIGHT), round(y + heads[1] * _HEAD_HEIGHT)
