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
    name = type(message).__name__
    packed: bytes = msgpack.packb([VERSION, name, _PLAIN[name](message)])
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
    check = _CHECKS.get(name) if isinstance(name, str) else None
    if check is None:
        raise WireError(f"type {name!r:.40} is unknown, expected one of {', '.join(_CHECKS)}")
    message: Message = check(fields)
    return message


# Both directions are built from the annotations once, at import: a frame's message is packed and checked in a few
# microseconds, since nothing is looked up or spelled out until something is wrong.

_Plain = Callable[[Any], Any]
"""Makes a typed value plain for MsgPack: dataclasses become maps, arrays lists."""

_Check = Callable[[Any], Any]
"""Takes a plain value and returns the typed one, or raises WireError that says where it stands."""


def _plain_for(hint: Any) -> _Plain | None:
    """Return what makes values of a type annotation plain; None if MsgPack takes them as they are."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Detections:
        return _plain_detections
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _plain_dataclass(hint)
    if origin is types.UnionType:
        inner = _plain_for(_without_none(arguments))
        return inner and (lambda value: None if value is None else inner(value))
    if origin is tuple and arguments[-1] is Ellipsis:
        item = _plain_for(arguments[0])
        return item and (lambda value: [item(one) for one in value])
    return None


def _plain_dataclass(kind: type) -> _Plain:
    hints = typing.get_type_hints(kind)
    names = tuple(field.name for field in dataclasses.fields(kind))
    nested = tuple((name, plain) for name in names if (plain := _plain_for(hints[name])))

    def plain_fields(value: Any) -> dict[str, Any]:
        fields = {name: getattr(value, name) for name in names}
        for name, plain in nested:
            fields[name] = plain(fields[name])
        return fields

    return plain_fields


def _plain_detections(value: Detections) -> dict[str, Any]:
    return {
        "xywh": value.xywh.tobytes(),
        "confidence": value.confidence.tobytes(),
        "class_id": value.class_id.tobytes(),
    }


def _check_for(hint: Any, where: str) -> _Check:
    """Return the check for a type annotation at the path `where`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Detections:
        return _detections_check(where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass_check(hint, where)
    if origin is Literal:
        return _literal_check(arguments, where)
    if origin is tuple:
        return _tuple_check(arguments, where)
    if origin is types.UnionType:
        inner = _check_for(_without_none(arguments), where)
        return lambda value: None if value is None else inner(value)
    return _float_check(where) if hint is float else _exact_check(hint, where)


def _without_none(arguments: tuple[Any, ...]) -> Any:
    (inner,) = (argument for argument in arguments if argument is not types.NoneType)
    return inner


def _exact_check(kind: type, where: str) -> _Check:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise WireError(f"{where} must be {kind.__name__}, not {type(value).__name__}")
        return value

    return check


def _float_check(where: str) -> _Check:
    def check(value: Any) -> float:
        if type(value) is not float and type(value) is not int:
            raise WireError(f"{where} must be float, not {type(value).__name__}")
        if not math.isfinite(value):
            raise WireError(f"{where} must be finite")
        return float(value)

    return check


def _literal_check(choices: tuple[Any, ...], where: str) -> _Check:
    kinds = {type(choice) for choice in choices}

    def check(value: Any) -> Any:
        if type(value) not in kinds or value not in choices:
            raise WireError(f"{where} must be one of {choices}, not {value!r:.40}")
        return value

    return check


def _tuple_check(arguments: tuple[Any, ...], where: str) -> _Check:
    if arguments[-1] is Ellipsis:
        return _sequence_check(_check_for(arguments[0], f"{where}.*"), where)
    checks = tuple(_check_for(argument, f"{where}.{i}") for i, argument in enumerate(arguments))

    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(checks):
            raise WireError(f"{where} must be a list of {len(checks)}")
        return tuple([one(item) for one, item in zip(checks, value, strict=True)])

    return check


def _sequence_check(one: _Check, where: str) -> _Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise WireError(f"{where} must be a list")
        return tuple([one(item) for item in value])

    return check


def _dataclass_check(kind: type, where: str) -> _Check:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    keys = frozenset(names)
    checks = tuple((name, _check_for(hints[name], f"{where}.{name}")) for name in names)

    def check(value: Any) -> Any:
        if type(value) is not dict or value.keys() != keys:
            raise WireError(f"{where} must have the fields {sorted(keys)}, not {_found(value)}")
        try:
            return kind(*[one(value[name]) for name, one in checks])
        except ValueError as error:
            raise WireError(f"{where}: {error}") from error

    return check


def _found(value: Any) -> str:
    found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
    return f"{found!s:.200}"


_LEAST = np.array([0, 0, 1, 1], np.int32)
"""x, y, width and height of the smallest box there can be."""


def _detections_check(where: str) -> _Check:
    """Return the check of boxes as `Detections` describes them: whole numbers, sides above zero, confidences 0..1."""
    keys = frozenset({"xywh", "confidence", "class_id"})

    def check(value: Any) -> Detections:
        if type(value) is not dict or value.keys() != keys:
            raise WireError(f"{where} must have xywh, confidence and class_id, not {_found(value)}")
        try:
            detections = Detections(
                np.frombuffer(value["xywh"], np.int32).reshape(-1, 4),
                np.frombuffer(value["confidence"], np.float32),
                np.frombuffer(value["class_id"], np.int32),
            )
        except (ValueError, TypeError) as error:
            raise WireError(f"{where}: {error}") from error
        if len(detections):
            if (detections.xywh < _LEAST).any():
                raise WireError(f"{where}.xywh must lie in the frame with sides above zero")
            # As a negation, so that NaN is refused too.
            if not (np.abs(detections.confidence - 0.5) <= 0.5).all():
                raise WireError(f"{where}.confidence must be in 0..1")
        return detections

    return check


_KINDS: dict[str, type] = {kind.__name__: kind for kind in typing.get_args(messages.Message)}
_PLAIN = {name: _plain_dataclass(kind) for name, kind in _KINDS.items()}
_CHECKS = {name: _dataclass_check(kind, name) for name, kind in _KINDS.items()}
