"""An RTSP camera that misbehaves on request: a live GStreamer server with H.264 in a process of its own, and a relay
before it that does what networks do. What the camera does is a mode that can be changed while clients are connected.
"""

import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from benchmarks.camera import OTHER_SIZE

PYTHON = "/usr/bin/python3"
"""The interpreter that Debian's GStreamer bindings are installed for."""
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
ELEMENTS = ("videotestsrc", "openh264enc", "h264parse", "rtph264pay", "identity")
_LOOK = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
print(*(name for name in sys.argv[1:] if not Gst.ElementFactory.find(name)))
"""
_ENTRY = "import sys; sys.path.insert(0, sys.argv.pop(1)); from rtsp_server import main; main()"
"""No script, since the other interpreter knows nothing of this package."""

RtspMode = Literal[
    "well",
    "down",
    "silent",
    "garbage",
    "frozen",
    "black",
    "half rate",
    "burst",
    "timestamps",
    "wrong password",
    "resized",
]
_PICTURES: dict[str, str] = {"frozen": "circular", "black": "black"}
"""What the camera shows; else noise, which is never the same twice."""
_PASSWORD, _OTHER_PASSWORD = "in-the-address", "another"
_HOLD_S, _STEP_S = 0.5, 0.05
JUMP_S = 42.0
_JUMP_EVERY_S = 3.0
_CLOCK_HZ = 90_000
"""Of RTP timestamps of video (RFC 6184)."""
_MARK, _FRAME_BYTES, _RTP_BYTES = ord("$"), 4, 12


def lacks(elements: tuple[str, ...] = ELEMENTS) -> str:
    """Return what an RTSP server lacks on this machine, with the Debian packages that have it; empty if nothing."""
    if not Path(PYTHON).exists():
        return f"{PYTHON} (Debian packages {PACKAGES})"
    found = subprocess.run([PYTHON, "-c", _LOOK, *elements], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        return f"GStreamer's RTSP server (Debian packages {PACKAGES})"
    return f"GStreamer's {found.stdout.strip()} (Debian packages {PACKAGES})" if found.stdout.strip() else ""


class RtspCamera:
    """The camera as a context manager; `mode` says how it behaves from now on. `stop_server` is its power cut."""

    def __init__(self, size: tuple[int, int], fps: int) -> None:
        self._size = size
        self._command = [PYTHON, "-c", _ENTRY, str(Path(__file__).parent), *map(str, (*size, fps))]
        self._mode: RtspMode = "well"
        self._server: subprocess.Popen[str] | None = None
        self._server_port = 0
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._since_s = 0.0
        self._evictions = 0
        """How often all clients were thrown out."""

    @property
    def uri(self) -> str:
        """Return where the stream is, with the password that the camera asks for but in the mode `wrong password`."""
        return f"rtsp://viewer:{_PASSWORD}@127.0.0.1:{self.port}/stream"

    @property
    def mode(self) -> RtspMode:
        """Return how it behaves."""
        return self._mode

    @mode.setter
    def mode(self, mode: RtspMode) -> None:
        self._since_s = time.monotonic()
        self._mode = mode
        self._evictions += mode in {"down", "wrong password"}
        self._tell(f"picture {_PICTURES.get(mode, 'snow')}")
        self._tell(f"every {2 if mode == 'half rate' else 1}")
        width, height = OTHER_SIZE if mode == "resized" else self._size
        self._tell(f"size {width}x{height}")
        self._tell(f"password {_OTHER_PASSWORD if mode == 'wrong password' else _PASSWORD}")

    def start_server(self) -> None:
        """Give it power."""
        self._server = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._server.stdout is not None
        self._server_port = int(self._server.stdout.readline())
        self.mode = "well"

    def stop_server(self) -> None:
        """Cut its power: connections break, and who knocks is refused."""
        server, self._server = self._server, None
        self.mode = "down"
        if server is not None:
            server.kill()
            server.communicate()

    def _tell(self, line: str) -> None:
        if self._server is not None:
            assert self._server.stdin is not None
            self._server.stdin.write(f"{line}\n")
            self._server.stdin.flush()

    def __enter__(self) -> Self:
        self.start_server()
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10.0)
        self._listener.close()
        self.stop_server()

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="rtsp-relay", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            if self._mode == "down":
                # Nobody listens: who knocks is refused.
                self._listener.close()
                self._over.wait(_STEP_S)
            elif self._listener.fileno() < 0:
                self._listener = socket.create_server(("127.0.0.1", self.port))
            elif select.select([self._listener], [], [], _STEP_S)[0]:
                self._begin(self._relay, self._listener.accept()[0])

    def _relay(self, client: socket.socket) -> None:
        """Carry what two sides say, until one hangs up or the camera throws its clients out."""
        evictions, stream = self._evictions, _Stream()
        with client, socket.socket() as server:
            try:
                server.connect(("127.0.0.1", self._server_port))
                while not self._over.is_set() and self._evictions == evictions:
                    for end in select.select([client, server], [], [], _STEP_S)[0]:
                        data = end.recv(1 << 16)
                        if not data:
                            return
                        if end is server:
                            stream.feed(data)
                        elif self._mode != "silent":
                            server.sendall(data)
                    now_s = time.monotonic()
                    client.sendall(stream.take(self._mode, now_s - self._since_s, now_s))
            except OSError:
                # One of them has left.
                return


class _Stream:
    """What a server sends over one connection: answers, and RTP packets between them (RFC 2326, section 10.12)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._held = bytearray()
        self._hold_until_s = 0.0
        self._random = np.random.default_rng(0)

    def feed(self, data: bytes) -> None:
        """Add what came."""
        self._buffer += data

    def take(self, mode: RtspMode, since_s: float, now_s: float) -> bytes:
        """Return what is to be sent on by now, in a mode that began `since_s` ago."""
        for piece in self._pieces():
            if mode == "silent":
                continue
            is_rtp = piece[0] == _MARK and piece[1] % 2 == 0
            self._held += self._changed(piece, mode, since_s) if is_rtp else piece
        if mode == "burst" and now_s < self._hold_until_s:
            return b""
        self._hold_until_s = now_s + _HOLD_S
        out, self._held = bytes(self._held), bytearray()
        return out

    def _pieces(self) -> Iterator[bytearray]:
        """Yield each packet and each answer that is whole."""
        while len(self._buffer) >= _FRAME_BYTES:
            if self._buffer[0] == _MARK:
                size = _FRAME_BYTES + int.from_bytes(self._buffer[2:4], "big")
            else:
                head = self._buffer.find(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._buffer[: max(0, head)])
                size = head + 4 + (int(length[1]) if length else 0) if head >= 0 else len(self._buffer) + 1
            if len(self._buffer) < size:
                return
            yield self._buffer[:size]
            del self._buffer[:size]

    def _changed(self, packet: bytearray, mode: RtspMode, since_s: float) -> bytearray:
        """Return an RTP packet (RFC 3550, section 5.1) as the mode sends it."""
        head = _FRAME_BYTES + _RTP_BYTES
        if mode == "garbage":
            return packet[:head] + self._random.bytes(len(packet) - head)
        if mode == "timestamps" and since_s // _JUMP_EVERY_S % 2 == 0:
            stamp = int.from_bytes(packet[8:12], "big") + round(JUMP_S * _CLOCK_HZ)
            packet[8:12] = (stamp % (1 << 32)).to_bytes(4, "big")
        return packet
