"""The empty room of the demo scene, drawn once when the scene is made. Pure: sizes and a seed in, a picture out.

Everything is laid out in units of the frame's height, x from the middle of the frame, so that a narrow frame sees the
middle of the room and a wide one more wall. The furniture is low, broad and pale: nothing in it stands like a person.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from orion.figure import SUBPIXEL_BITS, Color
from orion.messages import Pixels

SKIRTING_UP, FLOOR_LINE = 0.675, 0.70
WALL: tuple[Color, Color] = ((196, 205, 210), (178, 190, 197))
FLOOR: tuple[Color, Color] = ((128, 152, 172), (140, 166, 188))


class _Canvas:
    """A picture that is drawn on in room units."""

    def __init__(self, width: int, height: int) -> None:
        self.pixels: Pixels = np.empty((height, width, 3), np.uint8)
        self._scale = height
        self._middle = width / 2

    def polygon(self, points: list[tuple[float, float]], color: Color) -> None:
        placed = np.array(points) * self._scale + np.array([self._middle, 0.0])
        fixed = np.rint(placed * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(self.pixels, [fixed], color, cv2.LINE_AA, SUBPIXEL_BITS)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def ellipse(self, x: float, y: float, half_width: float, half_height: float, color: Color) -> None:
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        self.polygon([(x + half_width * np.cos(a), y + half_height * np.sin(a)) for a in angles], color)


def _blend(top: Color, bottom: Color, rows: int) -> NDArray[np.uint8]:
    ramp = np.linspace(0.0, 1.0, max(rows, 1))[:, None, None]
    return np.rint(np.array(top) * (1 - ramp) + np.array(bottom) * ramp).astype(np.uint8)


def _shell(canvas: _Canvas, seed: int) -> None:
    """Paint the wall, the floor with its boards, and the skirting between them."""
    height, width = canvas.pixels.shape[:2]
    line = round(FLOOR_LINE * height)
    canvas.pixels[:line] = _blend(*WALL, line)
    canvas.pixels[line:] = _blend(*FLOOR, height - line)
    reach = width / height / 2 + 0.2
    rng = np.random.default_rng(seed)
    for board in np.arange(-round(reach / 0.16), round(reach / 0.16)) * 0.16:
        tint = int(rng.integers(-8, 9))
        shade = (134 + tint, 159 + tint, 180 + tint)
        canvas.polygon([(board, FLOOR_LINE), (board + 0.16, FLOOR_LINE), (2 * board + 0.32, 1), (2 * board, 1)], shade)
    canvas.box(-reach, SKIRTING_UP, reach, FLOOR_LINE, (206, 214, 218))
    canvas.box(-reach, FLOOR_LINE - 0.003, reach, FLOOR_LINE, (150, 160, 166))


def _window(canvas: _Canvas) -> None:
    canvas.box(-0.70, 0.075, -0.16, 0.385, (214, 220, 223))
    canvas.box(-0.685, 0.09, -0.175, 0.37, (228, 214, 196))
    canvas.ellipse(-0.56, 0.20, 0.10, 0.022, (236, 228, 216))
    canvas.ellipse(-0.32, 0.16, 0.12, 0.020, (236, 228, 216))
    canvas.box(-0.685, 0.315, -0.175, 0.37, (184, 202, 190))
    canvas.box(-0.436, 0.09, -0.424, 0.37, (214, 220, 223))
    canvas.box(-0.72, 0.385, -0.14, 0.40, (220, 226, 229))


def _pictures(canvas: _Canvas) -> None:
    canvas.box(0.20, 0.14, 0.50, 0.31, (168, 182, 192))
    canvas.box(0.21, 0.15, 0.49, 0.30, (206, 208, 204))
    canvas.polygon([(0.21, 0.30), (0.29, 0.22), (0.37, 0.27), (0.42, 0.235), (0.49, 0.30)], (184, 190, 178))
    canvas.box(0.60, 0.19, 0.74, 0.29, (176, 188, 198))
    canvas.box(0.608, 0.198, 0.732, 0.282, (192, 206, 214))


def _sofa(canvas: _Canvas) -> None:
    canvas.ellipse(0.50, 0.755, 0.43, 0.022, (116, 138, 157))
    canvas.box(0.13, 0.555, 0.87, 0.70, (182, 184, 174))
    canvas.box(0.15, 0.645, 0.85, 0.745, (192, 195, 186))
    canvas.box(0.498, 0.57, 0.502, 0.70, (172, 174, 164))
    canvas.box(0.09, 0.615, 0.16, 0.755, (174, 177, 167))
    canvas.box(0.84, 0.615, 0.91, 0.755, (174, 177, 167))
    canvas.polygon([(0.20, 0.655), (0.31, 0.645), (0.32, 0.60), (0.215, 0.59)], (170, 190, 206))


def _sideboard(canvas: _Canvas) -> None:
    canvas.ellipse(-0.44, 0.752, 0.36, 0.016, (116, 138, 157))
    canvas.box(-0.78, 0.585, -0.10, 0.74, (160, 180, 194))
    canvas.box(-0.795, 0.572, -0.085, 0.588, (172, 192, 206))
    for left in (-0.77, -0.545, -0.32):
        canvas.box(left, 0.60, left + 0.21, 0.73, (166, 186, 200))
        canvas.box(left + 0.09, 0.618, left + 0.12, 0.624, (138, 156, 170))
    canvas.box(-0.70, 0.552, -0.57, 0.572, (182, 176, 190))
    canvas.box(-0.69, 0.535, -0.59, 0.552, (176, 192, 180))


def paint_room(width: int, height: int, seed: int) -> Pixels:
    """Return the empty room as a (height, width, 3) uint8 BGR picture at middle light, without noise."""
    canvas = _Canvas(width, height)
    _shell(canvas, seed)
    _window(canvas)
    _pictures(canvas)
    _sideboard(canvas)
    _sofa(canvas)
    canvas.ellipse(0.05, 0.885, 0.62, 0.075, (148, 160, 172))
    canvas.ellipse(0.05, 0.885, 0.57, 0.065, (158, 172, 182))
    return canvas.pixels
