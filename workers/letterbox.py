"""From a piece of a frame to a session's input tensor, and the exact way back. Runs in the worker's main thread; each
`Letterbox` writes into one tensor that its session owns. `place` is pure arithmetic and decides everything.
"""

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from orion.messages import Crop, Pixels

GREY = 114
"""Colour of the margins, that of Ultralytics' training and export."""

Coordinate = TypeVar("Coordinate", float, NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a crop lies in a square input: its offset and size there, in input pixels, and where it came from."""

    left: int
    top: int
    width: int
    height: int
    crop: Crop

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the frame to one of the input, along each axis: what the resize really had, sizes are truncated."""
        return self.crop.width / self.width, self.crop.height / self.height

    def to_frame(self, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Map a point, or an array of each coordinate, from input pixels to frame pixels, exactly."""
        across, down = self.scale
        return (x - self.left) * across + self.crop.x, (y - self.top) * down + self.crop.y

    def to_input(self, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Map a point, or an array of each coordinate, from frame pixels to input pixels: undo `to_frame`."""
        crop = self.crop
        return (
            (x - crop.x) * (self.width / crop.width) + self.left,
            (y - crop.y) * (self.height / crop.height) + self.top,
        )


def place(crop: Crop) -> Placement:
    """Return where `crop` goes in the square input of `crop.model` pixels: the longer side fills it, the shorter is
    truncated to whole pixels (at least one) and centred, an odd margin being larger at the far side.
    """
    side = crop.model
    longest = max(crop.width, crop.height)
    width = max(1, crop.width * side // longest)
    height = max(1, crop.height * side // longest)
    return Placement((side - width) // 2, (side - height) // 2, width, height, crop)


def step(placement: Placement) -> int:
    """Return the odd number of pixels that become one along both axes (three for 1080p to 640): the bilinear weights
    then all fall on the middle one, and the others need not be read. Zero where they do not.
    """
    across, rest_across = divmod(placement.crop.width, placement.width)
    down, rest_down = divmod(placement.crop.height, placement.height)
    return across if across == down and rest_across == rest_down == 0 and across % 2 else 0


class Letterbox:
    """Fills one input tensor, bytes (1, 3, side, side) in RGB, from crops; nothing large is allocated while the crops
    keep their shape.
    """

    def __init__(self, tensor: NDArray[np.uint8]) -> None:
        self.rgb = False
        """Whether the frames' channels are in RGB order, not BGR."""
        self._tensor = tensor
        self._tensor.fill(GREY)
        self._placement: Placement | None = None
        self._inside = (0, 0, 0, 0)
        self._step = 0
        self._resized = np.empty((0, 0, 3), np.uint8)
        self._picture = self._tensor[0]
        self._planes: tuple[NDArray[np.uint8], ...] = ()

    def fill(self, frame: Pixels, crop: Crop) -> Placement:
        """Write `crop` of `frame` (`crop` lies inside it) into the tensor and return where it went."""
        placement = self._placement
        if placement is None or placement.crop != crop:
            placement = self._placement = place(crop)
            self._step = step(placement)
            self._make_room(placement)
        source = frame[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        if self._step > 1:
            middle = self._step // 2
            source = source[middle :: self._step, middle :: self._step]
            np.copyto(self._picture, (source if self.rgb else source[:, :, ::-1]).transpose(2, 0, 1))
            return placement
        if self._step == 0:
            size = (placement.width, placement.height)
            cv2.resize(source, size, dst=self._resized, interpolation=cv2.INTER_LINEAR)
            source = self._resized
        red, green, blue = self._planes
        cv2.split(source, [red, green, blue] if self.rgb else [blue, green, red])
        return placement

    def _make_room(self, placement: Placement) -> None:
        inside = (placement.left, placement.top, placement.width, placement.height)
        if inside == self._inside:
            return
        left, top, width, height = self._inside = inside
        self._tensor.fill(GREY)
        self._picture = self._tensor[0, :, top : top + height, left : left + width]
        # OpenCV writes into these parts of the tensor in place.
        self._planes = tuple(self._picture)
        self._resized = np.empty((height, width, 3), np.uint8)
