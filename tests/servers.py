"""Servers for tests, each real, each on 127.0.0.1 and a free port, each ended by its `with`."""

import base64
import hashlib
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from benchmarks.rtsp import PYTHON, lacks
from tests.conftest import missing

_RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
video, port, user, password, elements = sys.argv[1:]
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
if elements:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f'( filesrc location="{video}" ! {elements} name=pay0 )')
else:
    factory = GstRtspServer.RTSPMediaFactoryURI(uri=Gst.filename_to_uri(video))
if user:
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.from_string(
            "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true;"
        )[0]
    )
server.get_mount_points().add_factory("/stream", factory)
if not server.attach(None):
    sys.exit("port taken")
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""
_RTSP_NEEDS = ("qtdemux", "rtph264pay", "rtpmp4vpay", "h264parse", "mpeg4videoparse", "tsdemux", "identity")
_rtsp_lacks = cache(partial(lacks, _RTSP_NEEDS))


class RtspServer:
    """Serves a video file over RTSP, from its beginning to each client, at its own pace.

    `video` is an MP4 with H.264 or MPEG-4 part 2. Given `login`, the server asks for it. `port` 0 takes a free one; it
    stays the same over `stop` and `start`. GStreamer's `elements`, the payloader last, stand between file and client
    instead of the usual ones.
    """

    def __init__(self, video: Path, *, login: tuple[str, str] = ("", ""), port: int = 0, elements: str = "") -> None:
        self.video = video
        self.elements = elements
        self.login = login
        self.port = port
        self._process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        arguments = [PYTHON, "-c", _RTSP_SERVER, str(self.video.absolute()), str(self.port), *self.login]
        arguments.append(self.elements)
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        self._process = process
        assert line.strip().isdigit(), "the RTSP server did not start"
        self.port = int(line)

    def stop(self) -> None:
        """End the server at once, as a power cut does; its clients' connections break."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        """Stop the server without closing anything: connections stay, nothing is sent."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        if lacks := _rtsp_lacks():
            missing(lacks)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class BlackHole:
    """A TCP server that lets everybody connect and sends nothing, ever."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Break all connections off and refuse further ones. Twice is once."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MjpegServer:
    """Sends parts of `multipart/x-mixed-replace` over HTTP at /stream, at `fps`, to each client from the first.

    After the last part it begins `again`, says `end`, breaks off with a `cut` inside a part, or goes `silent`. Without
    `lengths` the parts have no Content-Length, as with some cameras. Given `login`, it asks for it as `scheme` says.
    """

    def __init__(
        self,
        parts: Sequence[bytes],
        *,
        fps: float = 50,
        after: Literal["again", "end", "cut", "silent"] = "again",
        lengths: bool = True,
        boundary: str = "frame",
        content_type: str = "multipart/x-mixed-replace",
        login: tuple[str, str] | None = None,
        scheme: Literal["Basic", "Digest", "Bearer"] = "Basic",
    ) -> None:
        self.parts = parts
        self.period_s = 1 / fps
        self.after = after
        self.lengths = lengths
        self.boundary = boundary
        self.content_type = content_type
        self.login = login
        self.scheme = scheme
        self.stopping = threading.Event()
        owner = self

        class Handler(_MjpegHandler):
            settings = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="mjpeg-server")

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


class _MjpegHandler(BaseHTTPRequestHandler):
    settings: MjpegServer

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/stream":
            self.send_error(404)
        elif not self._allowed():
            rest = ', nonce="n0nce", qop="auth"' if self.settings.scheme == "Digest" else ""
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'{self.settings.scheme} realm="camera"{rest}')
            self.end_headers()
        else:
            self._stream()

    def _allowed(self) -> bool:
        if self.settings.login is None:
            return True
        user, password = self.settings.login
        given = self.headers.get("Authorization", "")
        if self.settings.scheme == "Basic":
            return given == "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        fields = dict(re.findall(r'(\w+)="?([^",]*)"?', given))
        if not {"uri", "nonce", "nc", "cnonce", "qop", "response"} <= fields.keys():
            return False
        secret = _md5(f"{user}:camera:{password}")
        asked = _md5(f"GET:{fields['uri']}")
        middle = ":".join(fields[name] for name in ("nonce", "nc", "cnonce", "qop"))
        return str(fields["response"]) == _md5(f"{secret}:{middle}:{asked}")

    def _stream(self) -> None:
        settings = self.settings
        self.send_response(200)
        self.send_header("Content-Type", f'{settings.content_type}; boundary="{settings.boundary}"')
        self.end_headers()
        try:
            while not settings.stopping.is_set():
                for part in settings.parts:
                    self._send(part)
                    if settings.stopping.wait(settings.period_s):
                        return
                if settings.after != "again":
                    self._finish()
                    return
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, part: bytes) -> None:
        length = f"Content-Length: {len(part)}\r\n" if self.settings.lengths else ""
        header = f"--{self.settings.boundary.removeprefix('--')}\r\nContent-Type: image/jpeg\r\n{length}\r\n"
        self.wfile.write(header.encode() + part + b"\r\n")

    def _finish(self) -> None:
        boundary = f"--{self.settings.boundary.removeprefix('--')}"
        if self.settings.after == "end":
            self.wfile.write(f"{boundary}--\r\n".encode())
        elif self.settings.after == "cut":
            self.wfile.write(f"{boundary}\r\nContent-Length: 100000\r\n\r\n".encode() + self.settings.parts[0][:50])
        else:
            self.settings.stopping.wait(60)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the output is the test's."""


class PlainServer:
    """Answers every request over HTTP with the same bytes and ends the connection. Given `at_once`, only so many of
    them come at once, and the others a little at a time.
    """

    def __init__(self, body: bytes, content_type: str, at_once: int | None = None) -> None:
        first = len(body) if at_once is None else at_once
        stopping = self._stopping = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(body[:first])
                    for at in range(first, len(body), 1000):
                        if stopping.wait(0.02):
                            return
                        self.wfile.write(body[at : at + 1000])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing: the output is the test's."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="plain-server")
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
