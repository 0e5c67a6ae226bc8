"""Messages between the supervisor and a worker: MsgPack of `[version, [type, field, ...]]` in whole packets over a
`SOCK_SEQPACKET` socket pair, one packet a message; the fields stand in the order of their class. Used by the
supervisor's thread (never blocking) and by the worker's main thread (blocking). Everything that arrives is checked
field by field against the classes of `orion.messages`. `msgspec` does so, in C: what runs for each frame runs right
after an inference, on cold caches, where every step in Python takes several times as long as in a row.
"""

import re
import socket
import typing
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any

import msgspec
import numpy as np

from orion.errors import WireError
from orion.messages import Message

VERSION = 4
LIMIT = 128 * 1024
"""Largest message in bytes, below the kernel's default socket buffer; 1000 boxes take about 24 KB."""


class Channel:
    """One end of the socket pair. Owns its socket; `close` ends it."""

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
    """Pack a message. Raises WireError when it is too large, TypeError or OverflowError when it cannot be packed."""
    packet = _ENCODER.encode((VERSION, message))
    if len(packet) > LIMIT:
        raise WireError(f"{type(message).__name__} of {len(packet)} bytes is larger than {LIMIT}")
    return packet


def decode(packet: bytes | memoryview) -> Message:
    """Unpack and check a message. Raises WireError that says what is wrong and where."""
    if len(packet) > LIMIT:
        raise WireError(f"a message of {len(packet)} bytes is larger than {LIMIT}")
    try:
        version, message = _DECODER.decode(packet)
    except _MALFORMED as error:
        raise WireError(_reason(packet, error)) from error
    if version != VERSION:
        raise WireError(_other_version(version))
    return message


def _reason(packet: bytes | memoryview, error: Exception) -> str:
    """Say in the wire's own terms why `packet` is no message; `error` is what the decoder says."""
    try:
        envelope = msgspec.msgpack.decode(packet)
    except _MALFORMED:
        return f"not MsgPack: {error}"
    match envelope:
        case [version, *_] if type(version) is not int or version != VERSION:
            return _other_version(version)
        case [_, [str(name), *_]] if name in _KINDS:
            return _explained(_KINDS[name], str(error))
        case [_, [name, *_]]:
            return f"type {name!r:.40} is unknown, expected one of {', '.join(_KINDS)}"
    return "a message is a list of version, and of type and fields"


def _explained(kind: Any, said: str) -> str:
    """Return what the decoder said of a message of `kind`, with the place by its name. What it quotes of the packet may
    be long, or look like a place: the place is what comes last, and only where it is one.
    """
    what, _, path = said.rpartition(" - at ")
    place = _PATH.fullmatch(path)
    if not what or place is None:
        return f"{kind.__name__}: {_printable(said)}"
    try:
        name = _place(kind, [int(step) for step in _STEP.findall(path)[1:]])
    except (LookupError, TypeError):
        name = kind.__name__
    return f"{name}: {_printable(what)}"


def _printable(said: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in said[:_SAID_LIMIT])


def _place(kind: Any, steps: Sequence[int]) -> str:
    """Return the name of a place in a message of `kind`, as in `FrameMessage.request.settings`, for its places in the
    lists of the packet, where the name of the kind comes before its fields.
    """
    names, hint = [kind.__name__], kind
    for depth, step in enumerate(steps):
        if typing.get_origin(hint) is tuple:
            names.append(str(step))
            inner = typing.get_args(hint)[0]
        else:
            field = msgspec.structs.fields(hint)[step - (depth == 0)]
            names.append(field.name)
            inner = field.type
        # Of what may be None: what it is else.
        [hint] = {*typing.get_args(inner)} - {NoneType} if isinstance(inner, UnionType) else [inner]
    return ".".join(names)


def _other_version(version: object) -> str:
    return f"version {version!r:.40} is unknown, expected {VERSION}"


def _plain(value: object) -> object:
    """Return a number of numpy's as it is sent; a type checker takes it for a float, and the packer would not."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain)
_DECODER = msgspec.msgpack.Decoder(tuple[int, Message])
_MALFORMED = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
"""TypeError is for what cannot be the key of a map, before msgspec 0.22."""
_KINDS = {kind.__name__: kind for kind in typing.get_args(Message)}
_STEP = re.compile(r"\[(\d+)\]")
_PATH = re.compile(r"`\$(\[\d+\])+`")
_SAID_LIMIT = 120
