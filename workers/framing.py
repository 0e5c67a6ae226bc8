"""The drop-in worker's protocol on its two pipes: 4 bytes of big-endian length and MsgPack both ways, and commands as
JSON lines among the input. Run by the drop-in's main thread. What arrives is checked here; nothing is trusted.
"""

import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgpack
import numpy as np

from orion.errors import WireError
from orion.messages import Pixels, Region

LIMIT = 128 * 1024 * 1024
"""Largest message in bytes: an 8K picture is 99.5 MB. No legal length begins with the byte `{`, so that JSON lines can
be told apart."""

_SIDE_LIMIT = 16384
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """Something to do between two frames."""

    name: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture, (height, width, 3) RGB, and what came with it: `target_size` and `crop` from its `roi_processing`."""

    pixels: Pixels
    meta: dict[str, Any]
    target_size: int
    crop: Region | None


def read(stream: BinaryIO) -> Frame | Command | None:
    """Return the next frame or command; None at the end of the stream, also inside a message.

    Raises WireError for a message that is malformed or too large; the stream then stands at the next one.
    """
    first = stream.read(1)
    if first == b"{":
        return _parse_line(first + stream.readline(LIMIT))
    head = first + stream.read(3)
    if len(head) < 4:
        return None
    length = int.from_bytes(head, "big")
    if length > LIMIT:
        _skip(stream, length)
        raise WireError(f"a message of {length} bytes is larger than {LIMIT}")
    body = stream.read(length)
    return _parse(body) if len(body) == length else None


def pack(message: dict[str, Any]) -> bytes:
    """Return the bytes of one result."""
    body: bytes = msgpack.packb(message)
    return len(body).to_bytes(4, "big") + body


def _skip(stream: BinaryIO, length: int) -> None:
    while length > 0 and (piece := stream.read(min(length, _PIECE))):
        length -= len(piece)


def _parse_line(line: bytes) -> Command:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a line is not JSON: {error}") from error
    return _command(message)


def _parse(body: bytes) -> Frame | Command:
    try:
        message = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"a message is not MsgPack: {error or type(error).__name__}") from error
    if not isinstance(message, dict):
        raise WireError(f"a message is a {type(message).__name__}, not a map")
    return _command(message) if message.get("type") == "command" else _frame(message)


def _command(message: dict[str, Any]) -> Command:
    name, params = message.get("command"), message.get("params") or {}
    if not isinstance(name, str) or not isinstance(params, dict):
        raise WireError("a command has a name and a map of params")
    return Command(name, params)


def _frame(message: dict[str, Any]) -> Frame:
    width, height = _side(message, "width"), _side(message, "height")
    data, meta = message.get("frame_data"), message.get("meta") or {}
    if not (isinstance(data, bytes) and isinstance(meta, dict)):
        raise WireError("a frame has frame_data, width, height and meta")
    if len(data) != width * height * 3:
        raise WireError(f"a frame of {width}x{height} has {width * height * 3} bytes, not {len(data)}")
    roi = meta.get("roi_processing") or {}
    if not isinstance(roi, dict):
        raise WireError("roi_processing is a map")
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    return Frame(pixels, meta, 320 if roi.get("target_size") in (320, "320") else 640, _crop(roi))


def _side(message: dict[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or not 0 < value <= _SIDE_LIMIT:
        raise WireError(f"a frame's {name} is a number of pixels up to {_SIDE_LIMIT}, not {value!r}")
    return value


def _crop(roi: dict[str, Any]) -> Region | None:
    """Return the region to cut out here; None when there is none or the sender has cut already."""
    merged = roi.get("merged_roi")
    if not merged or roi.get("crop_applied"):
        return None
    try:
        return Region(*(float(merged[side]) for side in ("x", "y", "width", "height")))
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"merged_roi is {{x, y, width, height}} in 0..1: {error}") from error
