"""Messages between the supervisor and a worker: MsgPack of `[version, type, {field: value}]` in whole packets over a
`SOCK_SEQPACKET` socket pair, one packet a message. Used by the supervisor's thread (never blocking) and by the worker's
main thread (blocking). Everything that arrives is checked field by field against the dataclasses of `orion.messages`.
"""

import dataclasses
import math
import socket
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

import msgpack
import numpy as np

from orion import messages
from orion.errors import WireError
from orion.messages import Detections, Message

VERSION = 1
LIMIT = 128 * 1024
"""Largest message in bytes, below the kernel's default socket buffer; 1000 boxes take about 30 KB."""


class Channel:
    """One end of the socket pair. Owns its socket; `with` or `close` ends it."""

    def __init__(self, end: socket.socket, *, blocking: bool) -> None:
        end.setblocking(blocking)
        self._end = end

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Return the two ends: the supervisor's and the one to pass to the worker."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._end.fileno()

    def send(self, message: Message) -> bool:
        """Send one message whole. Return False when the peer is late (its buffer is full) or gone."""
        try:
            self._end.send(encode(message))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> Message | None:
        """Return the next message; None at the peer's end of file.

        Raises BlockingIOError when nothing is there (non-blocking only) and WireError for what is not a message.
        """
        try:
            packet, _, flags, _ = self._end.recvmsg(LIMIT)
        except ConnectionResetError:
            return None
        if flags & socket.MSG_TRUNC:
            raise WireError(f"a message is larger than {LIMIT} bytes")
        return decode(packet) if packet else None

    def close(self) -> None:
        """Close this end; the peer sees end of file."""
        self._end.close()


def encode(message: Message) -> bytes:
    """Pack a message. Raises WireError when it is larger than the limit."""
    packed: bytes = msgpack.packb([VERSION, type(message).__name__, _plain(message)])
    if len(packed) > LIMIT:
        raise WireError(f"{type(message).__name__} of {len(packed)} bytes is larger than {LIMIT}")
    return packed


def decode(packet: bytes) -> Message:
    """Unpack and check a message. Raises WireError that says what is wrong and where."""
    if len(packet) > LIMIT:
        raise WireError(f"a message of {len(packet)} bytes is larger than {LIMIT}")
    try:
        envelope = msgpack.unpackb(packet)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"not MsgPack: {error or type(error).__name__}") from error
    if not isinstance(envelope, list) or len(envelope) != 3:
        raise WireError("a message is a list of version, type and fields")
    version, name, fields = envelope
    if version != VERSION or isinstance(version, bool):
        raise WireError(f"version {version!r:.40} is unknown, expected {VERSION}")
    check = _MESSAGES.get(name) if isinstance(name, str) else None
    if check is None:
        raise WireError(f"type {name!r:.40} is unknown, expected one of {', '.join(_MESSAGES)}")
    message: Message = check(fields, name)
    return message


def _plain(value: Any) -> Any:
    """Return a value as what MsgPack can hold: dataclasses as maps, arrays and tuples as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


# A check takes a plain value and where it stands, and returns the typed value or raises WireError.
_Check = Callable[[Any, str], Any]


def _check_for(hint: Any) -> _Check:
    """Return the check for a type annotation; built once for each message type, at import."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Detections:
        return _detections
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_check(hint)
    if origin is Literal:
        return _literal_check(arguments)
    if origin is tuple:
        return _tuple_check(arguments)
    if origin is types.UnionType:
        return _optional_check(arguments)
    return _SCALARS[hint]


def _scalar_check(kind: type, accepted: tuple[type, ...]) -> _Check:
    def check(value: Any, where: str) -> Any:
        if type(value) not in accepted:
            raise WireError(f"{where} must be {kind.__name__}, not {type(value).__name__}")
        if kind is float and not math.isfinite(value):
            raise WireError(f"{where} must be finite")
        return kind(value)

    return check


_SCALARS: dict[type, _Check] = {
    int: _scalar_check(int, (int,)),
    float: _scalar_check(float, (float, int)),
    str: _scalar_check(str, (str,)),
    bool: _scalar_check(bool, (bool,)),
}


def _literal_check(choices: tuple[Any, ...]) -> _Check:
    def check(value: Any, where: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int) or value not in choices:
            raise WireError(f"{where} must be one of {choices}, not {value!r:.40}")
        return value

    return check


def _optional_check(arguments: tuple[Any, ...]) -> _Check:
    (inner,) = (argument for argument in arguments if argument is not types.NoneType)
    check = _check_for(inner)
    return lambda value, where: None if value is None else check(value, where)


def _tuple_check(arguments: tuple[Any, ...]) -> _Check:
    variable = arguments[-1] is Ellipsis
    checks = tuple(_check_for(argument) for argument in arguments if argument is not Ellipsis)

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, list) or not (variable or len(value) == len(checks)):
            raise WireError(f"{where} must be a list" + ("" if variable else f" of {len(checks)}"))
        each = checks * len(value) if variable else checks
        return tuple(one(item, f"{where}.{i}") for i, (one, item) in enumerate(zip(each, value, strict=True)))

    return check


def _dataclass_check(kind: type) -> _Check:
    hints = typing.get_type_hints(kind)
    checks = {field.name: _check_for(hints[field.name]) for field in dataclasses.fields(kind)}

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or value.keys() != checks.keys():
            found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise WireError(f"{where} must have the fields {sorted(checks)}, not {found!s:.200}")
        typed = {name: one(value[name], f"{where}.{name}") for name, one in checks.items()}
        try:
            return kind(**typed)
        except ValueError as error:
            raise WireError(f"{where}: {error}") from error

    return check


def _detections(value: Any, where: str) -> Detections:
    """Check boxes as `Detections` describes them: whole numbers, sides above zero, confidences in 0..1."""
    if not isinstance(value, dict) or value.keys() != {"xywh", "confidence", "class_id"}:
        raise WireError(f"{where} must have xywh, confidence and class_id")
    try:
        xywh = np.array(value["xywh"], np.int32).reshape(-1, 4)
        confidence = np.array(value["confidence"], np.float32)
        class_id = np.array(value["class_id"], np.int32)
        detections = Detections(xywh, confidence, class_id)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"{where}: {error}") from error
    if (xywh[:, 2:] <= 0).any() or (xywh[:, :2] < 0).any():
        raise WireError(f"{where}.xywh must lie in the frame with sides above zero")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise WireError(f"{where}.confidence must be in 0..1")
    return detections


_MESSAGES: dict[str, _Check] = {kind.__name__: _dataclass_check(kind) for kind in typing.get_args(messages.Message)}
