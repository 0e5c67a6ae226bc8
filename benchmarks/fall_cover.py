"""What covers somebody who lies: a piece of furniture that stands in the room, and a sheet that comes over them. Pure;
runs in the main thread of a benchmark or a test.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.cutouts import Mask
from benchmarks.fall_variants import Variant
from orion.messages import Pixels

_WOODS = ((60, 90, 130), (150, 175, 195), (200, 205, 210), (45, 50, 60), (110, 120, 95))
_CLOTHS = ((225, 225, 230), (200, 175, 150), (150, 160, 205), (170, 190, 165))
_MARGIN_PX = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture (H, W, 3) uint8 BGR that lies over the frame where `mask` (H, W) is 255."""

    picture: Pixels
    mask: Mask

    def over(self, frame: Pixels) -> None:
        """Paint it over `frame` in place."""
        cv2.copyTo(self.picture, self.mask, frame)


def furniture(
    variant: Variant, foot: tuple[float, float], lying: tuple[float, float, float, float], frame_size: tuple[int, int]
) -> Layer:
    """Return a chest that hides the variant's part of who lies at `lying`, x1, y1, x2, y2 in pixels from the feet."""
    width, height = frame_size
    x1, y1, x2, y2 = (value + place for value, place in zip(lying, (*foot, *foot), strict=True))
    at_left = (variant.part == "head") == (variant.direction == "left")
    hidden = variant.covered * (x2 - x1)
    left, right = (x1 - _MARGIN_PX, x1 + hidden) if at_left else (x2 - hidden, x2 + _MARGIN_PX)
    top = y1 - _MARGIN_PX
    if variant.part == "side":
        left, right, top = x1 - _MARGIN_PX, x2 + _MARGIN_PX, y2 - variant.covered * (y2 - y1)
    left, top, right = (round(value) for value in (max(left, 0), max(top, 0), min(right, width)))
    bottom = min(round(y2) + 16, height)
    random = np.random.default_rng([24, variant.seed])
    picture: Pixels = np.zeros((height, width, 3), np.uint8)
    picture[top:bottom, left:right] = _chest(random, right - left, bottom - top)
    mask: Mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    return Layer(picture, mask)


def _chest(random: np.random.Generator, width: int, height: int) -> Pixels:
    """Return the front of a chest with a lighter top and drawers."""
    colour = np.array(_WOODS[int(random.integers(0, len(_WOODS)))], np.float32)
    grain = cv2.GaussianBlur(random.standard_normal((height, width)).astype(np.float32), (0, 0), 9, None, 0.8)
    shade = np.linspace(1.0, 0.75, height, dtype=np.float32)[:, None] + 0.35 * grain
    front = colour * shade[:, :, None]
    rim = max(4, height // 7)
    front[:rim] = np.minimum(colour * 1.25 + 12, 255)
    picture: Pixels = np.clip(front, 0, 255).astype(np.uint8)
    line = (colour * 0.45).tolist()
    cv2.line(picture, (0, rim), (width, rim), line, 2)
    cv2.rectangle(picture, (0, 0), (width - 1, height - 1), line, 1)
    for middle in range(width // 6, width, max(width // 3, 1)):
        cv2.rectangle(picture, (middle - width // 7, rim + 6), (middle + width // 7, height - 7), line, 1)
        cv2.circle(picture, (middle, (rim + height) // 2), 3, line, -1)
    return picture


class Sheet:
    """A cloth over a body that is (H, W) pixels large, pulled over it from one end."""

    def __init__(self, pixels: NDArray[np.uint8], *, from_feet: bool, covered: float) -> None:
        self._pixels = pixels
        self._from_feet = from_feet
        self._covered = covered

    def at(self, share: float) -> NDArray[np.uint8]:
        """Return it (H, W, 4), colours multiplied by the mask, the mask last, come that share of its way."""
        height = self._pixels.shape[0]
        reach = round(height * self._covered * share)
        piece = np.zeros_like(self._pixels)
        part = np.s_[height - reach :] if self._from_feet else np.s_[:reach]
        piece[part] = self._pixels[part]
        return piece


def sheet(variant: Variant, body: Mask) -> Sheet:
    """Return the sheet of a variant for the upright `body` (H, W)."""
    random = np.random.default_rng([25, variant.seed])
    height, width = body.shape
    reach = max(3, width // 8) | 1
    mask = cv2.dilate(body, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, width // 2), np.uint8))
    mask = cv2.GaussianBlur(mask, (0, 0), 1.0)
    colour = np.array(_CLOTHS[int(random.integers(0, len(_CLOTHS)))], np.float32)
    folds = cv2.GaussianBlur(random.standard_normal((height, width)).astype(np.float32), (0, 0), 5, None, 14)
    folds = folds / np.abs(folds).max()
    threads = random.standard_normal((height, width)).astype(np.float32)
    shade = 0.82 + 0.22 * folds + 0.02 * threads
    cloth = np.clip(colour * shade[:, :, None], 0, 255) * (mask[:, :, None] / 255.0)
    pixels = np.dstack([cloth.astype(np.uint8), mask.astype(np.uint8)])
    return Sheet(pixels, from_feet=variant.part != "head", covered=variant.covered)
