"""Messages between the supervisor and a worker: MsgPack of `[version, type, [field, ...]]` in whole packets over a
`SOCK_SEQPACKET` socket pair, one packet a message; the fields stand in the order of the dataclass. Used by the
supervisor's thread (never blocking) and by the worker's main thread (blocking). Everything that arrives is checked
field by field against the dataclasses of `orion.messages`.
"""

import dataclasses
import math
import operator
import socket
import struct
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import msgpack
import numpy as np

from orion import messages
from orion.errors import WireError
from orion.messages import AttentionSettings, Detections, Message

VERSION = 2
LIMIT = 128 * 1024
"""Largest message in bytes, below the kernel's default socket buffer; 1000 boxes take about 24 KB."""


class Channel:
    """One end of the socket pair. Owns its socket; `with` or `close` ends it."""

    def __init__(self, end: socket.socket, *, blocking: bool) -> None:
        end.setblocking(blocking)
        self._end = end
        # Kept: a new buffer of this size for each message costs more than the message.
        self._packet = bytearray(LIMIT)
        self._view = memoryview(self._packet)

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
            # With this flag the kernel says how long the packet was, and not how much of it found room.
            length = self._end.recv_into(self._packet, 0, socket.MSG_TRUNC)
        except ConnectionResetError:
            return None
        if length > LIMIT:
            raise WireError(f"a message is larger than {LIMIT} bytes")
        return decode(self._view[:length]) if length else None

    def close(self) -> None:
        """Close this end; the peer sees end of file."""
        self._end.close()


def encode(message: Message) -> bytes:
    """Pack a message. Raises WireError when it is larger than the limit."""
    name = type(message).__name__
    packed: bytes = msgpack.packb([VERSION, name, message], default=_plain)
    if len(packed) > LIMIT:
        raise WireError(f"{name} of {len(packed)} bytes is larger than {LIMIT}")
    return packed


def decode(packet: bytes | memoryview) -> Message:
    """Unpack and check a message. Raises WireError that says what is wrong and where."""
    if len(packet) > LIMIT:
        raise WireError(f"a message of {len(packet)} bytes is larger than {LIMIT}")
    envelope = _unpack(packet)
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


def _unpack(packet: bytes | memoryview) -> Any:
    try:
        return msgpack.unpackb(packet)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"not MsgPack: {error or type(error).__name__}") from error


# Both directions are built from the annotations once, at import. What runs for each frame runs on cold caches, right
# after an inference: few steps in Python count for more there than in a loop that does nothing else.


def _plain(value: Any) -> Any:
    """Make a typed value plain for MsgPack, which calls this for what it does not know."""
    plain = _PLAIN.get(type(value))
    if plain is None:
        raise WireError(f"{type(value).__name__} cannot be sent")
    return plain(value)


def _fields_of(kind: type) -> Callable[[Any], Any]:
    """Return what gives the fields of a dataclass in their order."""
    names = [field.name for field in dataclasses.fields(kind)]
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda value: [getattr(value, name) for name in names]


def _plain_detections(value: Detections) -> list[bytes]:
    return [value.xywh.tobytes(), value.confidence.tobytes(), value.class_id.tobytes()]


@lru_cache(maxsize=64)
def _packed_settings(value: AttentionSettings) -> bytes:
    """Pack settings on their own: they are the same for thousands of frames, and then neither end spells them out."""
    packed: bytes = msgpack.packb(_fields_of(AttentionSettings)(value))
    return packed


_Check = Callable[[Any], Any]
"""Takes a plain value and returns the typed one, or raises WireError that says where it stands."""


def _check_for(hint: Any, where: str) -> _Check:
    """Return the check for a type annotation at the path `where`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Detections:
        return _detections_check(where)
    if hint is AttentionSettings:
        return _settings_check(where)
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
    checks = tuple(_check_for(hints[name], f"{where}.{name}") for name in names)

    def check(value: Any) -> Any:
        if type(value) is not list or len(value) != len(checks):
            raise WireError(f"{where} must be a list of {', '.join(names) or 'nothing'}, not {_found(value)}")
        try:
            return kind(*[one(item) for one, item in zip(checks, value, strict=True)])
        except ValueError as error:
            raise WireError(f"{where}: {error}") from error

    return check


def _settings_check(where: str) -> _Check:
    check = _dataclass_check(AttentionSettings, where)
    # By the bytes and not by the values: 1, 1.0 and True are equal, but not all of them are right.
    unpacked = lru_cache(maxsize=64)(lambda packed: check(_unpack(packed)))

    def check_packed(value: Any) -> AttentionSettings:
        if type(value) is not bytes:
            raise WireError(f"{where} must be bytes, not {_found(value)}")
        settings: AttentionSettings = unpacked(value)
        return settings

    return check_packed


def _found(value: Any) -> str:
    return f"{len(value)} values" if type(value) is list else type(value).__name__


_BOX = struct.Struct("4i")


def _detections_check(where: str) -> _Check:
    """Return the check of boxes as `Detections` describes them: whole numbers, sides above zero, confidences 0..1."""
    fields = _tuple_check((bytes, bytes, bytes), where)

    def check(value: Any) -> Detections:
        xywh, confidence, class_id = fields(value)
        try:
            detections = Detections(
                np.frombuffer(xywh, np.int32).reshape(-1, 4),
                np.frombuffer(confidence, np.float32),
                np.frombuffer(class_id, np.int32),
            )
        except ValueError as error:
            raise WireError(f"{where}: {error}") from error
        # Plain numbers: there are a few boxes, and each step through numpy costs as much as all of them.
        for x, y, width, height in _BOX.iter_unpack(xywh):
            if x < 0 or y < 0 or width < 1 or height < 1:
                raise WireError(f"{where}.xywh must lie in the frame with sides above zero")
        # As a negation, so that NaN is refused too.
        if not all(0.0 <= score <= 1.0 for score in memoryview(confidence).cast("f")):
            raise WireError(f"{where}.confidence must be in 0..1")
        return detections

    return check


_KINDS: dict[str, type] = {kind.__name__: kind for kind in typing.get_args(messages.Message)}
_PLAIN: dict[type, Callable[[Any], Any]] = {
    kind: _fields_of(kind)
    for kind in vars(messages).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
} | {Detections: _plain_detections, AttentionSettings: _packed_settings}
_CHECKS = {name: _dataclass_check(kind, name) for name, kind in _KINDS.items()}
