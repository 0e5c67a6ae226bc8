"""A real broker that can be taken away and brought back, for long runs and for tests. Used by the main thread."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
LIMIT_S = 60.0
UNBOUNDED = ("allow_anonymous true", "max_queued_messages 0", "max_inflight_messages 0")
"""Configuration lines for a run that counts results: a subscriber that is slow for a moment would else lose what the
broker has acknowledged."""
_START_LIMIT_S = 15.0
_STEP_S = 0.005


class TimeOverError(Exception):
    """Something did not come to pass in time; says what."""


def wait_until(holds: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Wait until `holds` gives something true, and return that. Raises TimeOverError."""
    deadline_s = time.monotonic() + limit_s
    while not (found := holds()):
        if time.monotonic() >= deadline_s:
            raise TimeOverError(f"not within {limit_s:g} s: {what}")
        time.sleep(_STEP_S)
    return found


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def installed() -> str:
    """Return the program's path; leaves with what to install where there is none."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        sys.exit("this benchmark needs the program mosquitto (Debian package mosquitto)")
    return program


class Mosquitto:
    """A mosquitto on a free port of 127.0.0.1, the same through all its lives; a context manager. `config` are lines of
    its configuration file.
    """

    def __init__(self, program: str, folder: Path, config: Iterable[str] = ("allow_anonymous true",)) -> None:
        self.port = free_port()
        self._file = folder / f"mosquitto-{self.port}.conf"
        self._config = tuple(config)
        self._command = [program, "-c", str(self._file)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: Iterable[str] | None = None) -> None:
        """Start it and wait until it answers; `config` stands in for the usual lines in this life."""
        lines = self._config if config is None else config
        common = [f"listener {self.port} {HOST}", "user root", "persistence false"]
        self._file.write_text("\n".join([*common, *lines]) + "\n")
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "mosquitto answers", _START_LIMIT_S)

    def kill(self) -> None:
        """End it at once, stopped or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop its process: it accepts connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"mosquitto ended with {self._process.returncode}"
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
