"""What can go wrong inside a worker, done on purpose in the process that calls: deaths, hangs, nonsense on its socket,
and memory that grows. Used by detectors that stand in for the real one, or stand around it.
"""

import contextlib
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgpack

from orion import wire
from orion.messages import Stop
from orion.wire import LIMIT


def _socket() -> socket.socket:
    """Return the worker's end of its socket; the only one the process has."""
    return socket.socket(fileno=os.dup(_sockets()[0]))


def _sockets() -> list[int]:
    """Return every descriptor of this process that is a socket."""
    found = []
    for path in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                found.append(int(path.name))
    return found


def send(packet: bytes) -> None:
    """Send a packet to the supervisor beside what the worker says."""
    with _socket() as end:
        end.send(packet)


def _raise() -> NoReturn:
    raise RuntimeError("as the script says")


def _spin() -> NoReturn:
    while True:
        pass


def _flood() -> NoReturn:
    with _socket() as end:
        while True:
            end.send(msgpack.packb([wire.VERSION, ["Ready"]]))


def _hang_up() -> NoReturn:
    """Close every descriptor that is a socket and live on."""
    for descriptor in _sockets():
        os.close(descriptor)
    while True:
        time.sleep(1)


def _grow() -> NoReturn:
    """Take memory as fast as a machine can write it, up to a bound that spares the machine."""
    kept: list[bytes] = []
    while True:
        if len(kept) < 100:
            kept.append(b"x" * 10_000_000)
        time.sleep(0.01)


FAULTS: dict[str, Callable[[], object]] = {
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sigsegv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "sigstop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(3),
    "exception": _raise,
    "leave": lambda: sys.exit(0),
    "spin": _spin,
    "half": lambda: send(wire.encode(Stop())[:3]),
    "malformed": lambda: send(b"\xc1" * 40),
    "oversized": lambda: send(b"\x00" * (LIMIT + 1)),
    "version": lambda: send(msgpack.packb([99, ["Stop"]])),
    "unasked": lambda: send(wire.encode(Stop())),
    "flood": _flood,
    "hangup": _hang_up,
    "grow": _grow,
}
