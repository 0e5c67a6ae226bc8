"""A network camera that misbehaves on request: MJPEG over HTTP on 127.0.0.1, served by threads of its own. What it does
is a mode that can be changed while clients are connected.
"""

import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

import cv2
import numpy as np

from orion.demo import DemoFormat
from orion.scene import DemoScene

Mode = Literal["well", "down", "silent", "garbage", "frozen", "black", "half rate", "burst", "resized"]
SIZE, OTHER_SIZE = (320, 240), (400, 300)
FPS = 10.0
_HOLD_S = 0.5
_STEP_S = 0.05
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"


class Camera:
    """The camera as a context manager; `mode` says how it behaves from now on."""

    def __init__(self) -> None:
        self.mode: Mode = "well"
        self._over = threading.Event()
        self._scenes = {size: DemoScene(DemoFormat(*size, FPS)) for size in (SIZE, OTHER_SIZE)}
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []

    @property
    def uri(self) -> str:
        """Return where the stream is."""
        return f"http://127.0.0.1:{self.port}/stream"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10.0)
        self._server.close()

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="camera", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._server.settimeout(_STEP_S)
        while not self._over.is_set():
            if self.mode == "down" and self._server.fileno() >= 0:
                # Nobody listens: who knocks is refused.
                self._server.close()
            elif self.mode != "down" and self._server.fileno() < 0:
                self._server = socket.create_server(("127.0.0.1", self.port))
                self._server.settimeout(_STEP_S)
            elif self.mode == "down":
                self._over.wait(_STEP_S)
            else:
                self._take_client()

    def _take_client(self) -> None:
        try:
            client, _ = self._server.accept()
        except TimeoutError:
            return
        self._begin(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                client.recv(4096)
                client.sendall(_HEAD)
                for piece in self._pieces():
                    client.sendall(piece)
            except OSError:
                # The client has left.
                return

    def _pieces(self) -> Iterator[bytes]:
        """Yield what is sent, each at its time, until the camera goes down or away."""
        index, held, due_s, hold_until_s = 0, b"", time.monotonic(), 0.0
        while not self._over.is_set() and self.mode != "down":
            mode = self.mode
            due_s = max(due_s + (2 if mode == "half rate" else 1) / FPS, time.monotonic() - 1)
            self._over.wait(max(0.0, due_s - time.monotonic()))
            index += mode != "frozen"
            if mode == "silent":
                continue
            if mode == "garbage":
                yield np.random.default_rng(index).bytes(20_000)
                continue
            held += self._part(index, mode)
            if mode == "burst" and time.monotonic() < hold_until_s:
                continue
            hold_until_s = time.monotonic() + _HOLD_S
            yield held
            held = b""

    def _part(self, index: int, mode: Mode) -> bytes:
        width, height = OTHER_SIZE if mode == "resized" else SIZE
        picture = np.zeros((height, width, 3), np.uint8)
        if mode != "black":
            self._scenes[width, height].render(index, picture)
        body = cv2.imencode(".jpg", picture)[1].tobytes()
        return f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n"
