"""Where results, events and the state of the instance go: MQTT, a file, pictures, the live view. Called by the
supervisor's thread; everything that could wait for a disk, a network or a terminal is done by threads behind it.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from orion import log, paint
from orion.display import Display
from orion.errors import ResourceError
from orion.messages import Pixels
from orion.results import ResultWriter, timestamp

_log = logging.getLogger(__name__)

_PICTURES_AT_ONCE = 4
"""Frames kept for the painter; beyond them pictures are left out, since they must not hold frames up."""


class Publisher(Protocol):
    """The part of the bus that outlets need."""

    @property
    def connected(self) -> bool:
        """Return whether a broker takes messages now."""

    def publish(self, kind: Literal["health", "inferences", "telemetry"], payload: bytes) -> None:
        """Hand a message over without waiting."""


class Painter:
    """Saves a picture of each result; drops and counts those that come too fast for the disk."""

    def __init__(self, folder: Path, *, every_frame: bool) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"run.save_frames: {folder} cannot be made: {error.strerror}") from error
        self.left_out = 0
        self._folder = folder
        self._wait = every_frame
        self._work: queue.Queue[tuple[Pixels, Mapping[str, Any]] | None] = queue.Queue(_PICTURES_AT_ONCE)
        self._thread = threading.Thread(target=self._paint_all, name="painter", daemon=True)
        self._thread.start()

    def paint(self, result: Mapping[str, Any], pixels: Pixels) -> None:
        """Take a copy of the frame and leave it to be painted; with `every_frame` wait for room instead."""
        try:
            self._work.put((np.array(pixels), result), block=self._wait)
        except queue.Full:
            self.left_out += 1

    def close(self, timeout_s: float) -> None:
        """Paint what is left and end the thread."""
        with suppress(queue.Full):
            self._work.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)
        if self.left_out:
            _log.warning("%d pictures were left out: they came faster than they could be saved", self.left_out)

    def _paint_all(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                paint.save(self._folder, *work)
            except ResourceError as error:
                self.left_out += 1
                _log.error("%s", error)


class Outlets:
    """All of them at once; each may be absent."""

    def __init__(
        self,
        bus: Publisher | None,
        writer: ResultWriter | None,
        painter: Painter | None,
        display: Display | None,
        telemetry_s: float,
    ) -> None:
        """Publish the state every `telemetry_s` seconds, and at once to a broker that comes later than that."""
        self._bus = bus
        self._writer = writer
        self._painter = painter
        self._display = display
        self._telemetry_s = telemetry_s
        self._telemetry_due_s = time.monotonic()

    @property
    def results_lost(self) -> int:
        """Return how many results could not be written to their file so far."""
        return 0 if self._writer is None else self._writer.lost

    def result(self, result: dict[str, Any], pixels: Callable[[], Pixels]) -> None:
        """Publish, write and paint one result; it is encoded once."""
        line = json.dumps(result, separators=(",", ":"))
        if self._bus is not None:
            self._bus.publish("inferences", line.encode())
        if self._writer is not None:
            self._writer.write(line)
        if self._painter is not None:
            self._painter.paint(result, pixels())

    def event(self, event: dict[str, Any]) -> None:
        """Publish an event or an answer."""
        if self._bus is not None:
            self._bus.publish("health", json.dumps(event, separators=(",", ":")).encode())

    def tick(self, describe: Callable[[], dict[str, Any]]) -> None:
        """Show the state, and publish telemetry and log repetitions when they are due."""
        log.write_due()
        state = describe()
        if self._display is not None:
            self._display.update(state)
        if self._bus is not None and self._bus.connected and time.monotonic() >= self._telemetry_due_s:
            self._telemetry_due_s = time.monotonic() + self._telemetry_s
            message = {"type": "telemetry", "timestamp": timestamp(time.time_ns())} | state
            self._bus.publish("telemetry", json.dumps(message, separators=(",", ":")).encode())
