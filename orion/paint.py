"""Pictures for people: the boxes and the attention crops of a published result, drawn on a copy of its frame. Pure but
for `save`; runs in the supervisor's process, on whichever thread writes the pictures, and keeps no state.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from orion.errors import ResourceError
from orion.messages import Pixels

Color = tuple[int, int, int]

FOUND: Color = (80, 220, 60)
HELD: Color = (60, 190, 240)
"""Boxes that are repeated because nothing has changed."""
VANISHED: Color = (70, 70, 240)
CROP: Color = (240, 170, 40)
CAPTION: Color = (225, 225, 225)
INK: Color = (20, 20, 20)
JPEG_QUALITY = 90
REFERENCE_SIDE = 480
"""Shorter side, in pixels, at which lines are 1.5 pixels wide and capitals 11 pixels tall."""


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws on one picture with lines and letters that suit its size."""

    picture: Pixels
    line: int
    letters: float

    def box(self, bbox: Mapping[str, int], color: Color, line: int) -> None:
        corner = (bbox["x"] + bbox["width"] - 1, bbox["y"] + bbox["height"] - 1)
        cv2.rectangle(self.picture, (bbox["x"], bbox["y"]), corner, color, line, cv2.LINE_AA)

    def dashes(self, bbox: Mapping[str, int], color: Color) -> None:
        """Draw a box with broken lines."""
        height, width = self.picture.shape[:2]
        left, top = max(0, bbox["x"]), max(0, bbox["y"])
        right, bottom = min(width, bbox["x"] + bbox["width"]) - 1, min(height, bbox["y"] + bbox["height"]) - 1
        line, dash = 2 * self.line, 6 * self.line
        for x in range(left, right + 1, 2 * dash):
            for y in (top, bottom):
                cv2.line(self.picture, (x, y), (min(x + dash, right), y), color, line, cv2.LINE_AA)
        for y in range(top, bottom + 1, 2 * dash):
            for x in (left, right):
                cv2.line(self.picture, (x, y), (x, min(y + dash, bottom)), color, line, cv2.LINE_AA)

    def label(self, text: str, left: int, bottom: int, color: Color) -> None:
        """Write `text` on a plate of `color` that stands on (left, bottom), moved to where the picture has room."""
        stroke = max(1, self.line // 2)
        (wide, tall), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, self.letters, stroke)
        pad = below // 2 + 1
        left = max(0, min(left, self.picture.shape[1] - wide - 2 * pad))
        bottom = max(bottom, tall + below + pad)
        plate = (left + wide + 2 * pad, bottom - tall - below - pad)
        cv2.rectangle(self.picture, (left, bottom), plate, color, cv2.FILLED)
        at = (left + pad, bottom - below)
        cv2.putText(self.picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, self.letters, INK, stroke, cv2.LINE_AA)


def _caption(result: Mapping[str, Any]) -> str:
    metadata, count = result["data"]["metadata"], result["data"]["count"]
    people = "1 person" if count == 1 else f"{count} persons"
    return (
        f"{result['stream_id']} #{result['frame_seq']}  {metadata['inference']} {metadata['model_selected']}  {people}"
    )


def draw(frame: Pixels, result: Mapping[str, Any]) -> Pixels:
    """Return a copy of `frame`, (height, width, 3) uint8 BGR, with what its published result says drawn on it.

    Boxes are green, or amber where they are held, with their confidence, and thinner where they are kept; those of
    people who vanished are red and broken; the pieces of the frame that attention gave to a session are blue, with the
    session's size; a caption names stream, frame, kind of inference and count.
    """
    height, width = frame.shape[:2]
    size = min(height, width) / REFERENCE_SIDE
    pen = _Pen(frame.copy(), max(1, round(1.5 * size)), max(0.4, 0.5 * size))
    metadata = result["data"]["metadata"]
    attention = metadata["roi_processing"]
    crops = [] if attention is None else attention["crops"]
    crops = [crop for crop in crops if (crop["width"], crop["height"]) != (width, height)]
    color = HELD if metadata["inference"] == "held" else FOUND
    for crop in crops:
        pen.box(crop, CROP, pen.line)
    for detection in result["data"]["detections"]:
        pen.box(detection["bbox"], color, pen.line if detection.get("kept") else 2 * pen.line)
    for place in result["data"]["vanished"]:
        pen.dashes(place, VANISHED)
    pen.label(_caption(result), 0, 0, CAPTION)
    for crop in crops:
        pen.label(str(crop["model"]), crop["x"], crop["y"] + crop["height"], CROP)
    for detection in result["data"]["detections"]:
        pen.label(f"{detection['confidence']:.2f}", detection["bbox"]["x"], detection["bbox"]["y"], color)
    for place in result["data"]["vanished"]:
        pen.label("vanished", place["x"], place["y"], VANISHED)
    return pen.picture


def save(folder: Path, frame: Pixels, result: Mapping[str, Any]) -> Path:
    """Write the drawn frame as `<stream_id>-<frame_seq>.jpg` into `folder`, made if missing, and return its path.

    Written beside and renamed, so that whoever watches the folder sees whole pictures only. ResourceError where the
    picture cannot be written.
    """
    path = folder / f"{result['stream_id']}-{result['frame_seq']:06d}.jpg"
    _, encoded = cv2.imencode(".jpg", draw(frame, result), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    unfinished = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            undo.callback(unfinished.unlink, missing_ok=True)
            unfinished.write_bytes(encoded.tobytes())
            unfinished.replace(path)
    except OSError as error:
        raise ResourceError(f"cannot write the picture {path}: {error}") from error
    return path
