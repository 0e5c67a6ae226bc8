"""A piece of a frame turned by a right angle before a session sees it, and boxes turned back: pure. Models are trained
on people who stand; who lies is often found when the picture is turned. Runs in the worker's main thread.
"""

from typing import Literal

import cv2
import numpy as np

from orion.messages import Crop, Detection, Detections, Pixels

_CODES = {90: cv2.ROTATE_90_CLOCKWISE, -90: cv2.ROTATE_90_COUNTERCLOCKWISE}


def turned(frame: Pixels, crop: Crop) -> Pixels:
    """Return a copy of what `crop` shows of `frame`, turned clockwise by `crop.turn`, which is not 0."""
    piece = frame[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    return np.asarray(cv2.rotate(piece, _CODES[crop.turn]), np.uint8)


def turned_back(found: Detections, crop: Crop) -> Detections:
    """Return boxes in pixels of the turned piece as boxes in pixels of the frame that `crop` was taken from."""
    return tuple(_back(one, crop, crop.turn) for one in found)


def _back(one: Detection, crop: Crop, turn: Literal[-90, 0, 90]) -> Detection:
    if turn == 90:
        x, y = one.y, crop.height - one.x - one.width
    else:
        x, y = crop.width - one.y - one.height, one.x
    return Detection(crop.x + x, crop.y + y, one.height, one.width, one.confidence, one.class_id)
