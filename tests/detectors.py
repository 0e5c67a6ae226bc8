"""Detectors that a worker loads instead of the real one: quick, and faulty on request. `DetectorSpec.model_640` is the
script: `fault@N` does what `fault` says on the N-th frame, once, with the file in `model_320` as its memory.
"""

import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import msgpack

from benchmarks.fixed import FixedDetector
from orion import wire
from orion.messages import Detections, DetectorInfo, DetectorSpec, DetectRequest, Outcome, Pixels, SessionInfo, Stop
from orion.wire import LIMIT

INFO = DetectorInfo(
    "scripted", "unknown", (SessionInfo("none", "0" * 64, 640, "cpu", 1.0, 1.0),), 1.0, ((0, "person"),)
)
OUTCOME = Outcome(Detections.empty(), "full", 640, None, None, 0.1, 1.0, 0.1, 1.2)


class Scripted(FixedDetector):
    """Finds nobody, and has one fault."""

    info: DetectorInfo = INFO

    def __init__(self, spec: DetectorSpec) -> None:
        self._fault, _, number = spec.model_640.partition("@")
        self._number = int(number or 0)
        self._memory = Path(spec.model_320 or os.devnull)
        self._frames = 0
        if self._number == 0:
            self._misbehave()

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        assert frame.shape[2] == 3
        assert request.stream_id
        self._frames += 1
        if self._frames == self._number:
            self._misbehave()
        return OUTCOME

    def _misbehave(self) -> None:
        always = self._fault.endswith("-always")
        if self._fault and (always or not self._memory.exists()):
            if not always:
                self._memory.touch()
            FAULTS[self._fault.removesuffix("-always")]()


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


def _send(packet: bytes) -> None:
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
            end.send(msgpack.packb([wire.VERSION, "Ready", {}]))


def _hang_up() -> NoReturn:
    """Close every descriptor that is a socket and live on."""
    for descriptor in _sockets():
        os.close(descriptor)
    while True:
        time.sleep(1)


def _lose_provider() -> None:
    """Go on with another provider than READY told."""
    Scripted.info = replace(INFO, sessions=(replace(INFO.sessions[0], provider="second", fallback="first is gone"),))


FAULTS: dict[str, Callable[[], object]] = {
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sigsegv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "sigstop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(3),
    "exception": _raise,
    "spin": _spin,
    "half": lambda: _send(wire.encode(Stop())[:3]),
    "malformed": lambda: _send(b"\xc1" * 40),
    "oversized": lambda: _send(b"\x00" * (LIMIT + 1)),
    "version": lambda: _send(msgpack.packb([99, "Stop", {}])),
    "unasked": lambda: _send(wire.encode(Stop())),
    "flood": _flood,
    "hangup": _hang_up,
    "provider": _lose_provider,
}
