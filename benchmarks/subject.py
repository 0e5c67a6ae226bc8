"""What `benchmarks.detector` times: a loaded pair and each kind of run on it, and a frame that another process writes
anew when asked, as the supervisor's decoder does. Each is used by the main thread of a process that measures.
"""

import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection

import cv2
import numpy as np
import onnxruntime

from benchmarks.child import Child, asked
from orion.lookup import ModelPair
from orion.messages import AttentionSettings, Crop, Detections, DetectorSpec, DetectRequest, Pixels, SessionSize
from orion.ring import MIN_SLOTS, Ring, RingView
from workers import check_image
from workers.attention import Look
from workers.letterbox import place
from workers.person import PersonDetector
from workers.pipeline import Timings, infer

UNCOUNTED = 2
"""Runs at the start of a block that are not counted."""

_OFF = DetectRequest("bench", 0.0, settings=AttentionSettings(mode="off"))


@dataclass(slots=True)
class Times:
    """Durations in ms of one kind of run: the inference in it, and the whole from frame to boxes."""

    inference: list[float]
    total: list[float]

    @property
    def around(self) -> list[float]:
        """All but the inference."""
        return [total - inference for total, inference in zip(self.total, self.inference, strict=True)]


class _Directed(PersonDetector):
    """The worker's detector, but for the session: with attention off it would never take the 320."""

    look: Look

    def _look(self, frame: Pixels) -> Look:  # noqa: ARG002 - the detector's own looks at the frame
        return self.look


class Subject:
    """A loaded pair, and the runs that are timed on it."""

    def __init__(self, pair: ModelPair, provider: str, threads: int) -> None:
        small = None if pair.model_320 is None else str(pair.model_320)
        spec = DetectorSpec(str(pair.model_640), small, 0.4, 0.45, ("person",), provider, threads)
        self._detector = _Directed(spec)
        self.pair = self._detector._pair
        self.sizes: list[SessionSize] = sorted(self.pair.lanes, reverse=True)
        self._exported: dict[SessionSize, Callable[[], object]] = {}
        if self.pair.info.sessions[0].provider == "cpu":
            self._exported = {
                size: _exported_run(lane.session.card.path, size, threads) for size, lane in self.pair.lanes.items()
            }

    def exported(self, size: SessionSize, times: Times) -> None:
        """Time one inference on the file as it was exported, whose input is floats; on `cpu` alone."""
        if size in self._exported:
            start = time.perf_counter()
            self._exported[size]()
            times.total.append((time.perf_counter() - start) * 1e3)

    def raw(self, size: SessionSize, times: Times) -> None:
        """Time one inference without anything around it."""
        session = self.pair.lanes[size].session
        start = time.perf_counter()
        session.run()
        took_ms = (time.perf_counter() - start) * 1e3
        times.inference.append(took_ms)
        times.total.append(took_ms)

    def resize(self, frame: Pixels, size: SessionSize, times: Times) -> None:
        """Time OpenCV's bilinear resize of a whole frame into kept memory; an inference should go before."""
        placement = place(whole(frame, size))
        small = np.empty((placement.height, placement.width, 3), np.uint8)
        start = time.perf_counter()
        cv2.resize(frame, (placement.width, placement.height), dst=small, interpolation=cv2.INTER_LINEAR)
        times.total.append((time.perf_counter() - start) * 1e3)

    def hot(self, frame: Pixels, size: SessionSize, times: Times) -> None:
        """Time all that surrounds an inference, with the answer of the last one in its place."""
        height, width = frame.shape[:2]
        lane, crop = self.pair.lanes[size], whole(frame, size)
        raw = lane.session.run()

        def look(_: Crop) -> tuple[Detections, Timings]:
            placement = lane.letterbox.fill(frame, crop)
            return lane.decoder.decode(raw, placement, (width, height)), Timings()

        for _ in range(UNCOUNTED + 1):
            took_ms, _ = self._detect(frame, look)
        times.total.append(took_ms)

    def path(self, frame: Pixels, size: SessionSize, times: Times) -> None:
        """Time one whole frame with attention off, from its pixels to its boxes and the region that they suggest."""
        crop = whole(frame, size)
        took_ms, inference_ms = self._detect(frame, lambda _: infer(self.pair, frame, crop))
        times.total.append(took_ms)
        times.inference.append(inference_ms)

    def _detect(self, frame: Pixels, look: Look) -> tuple[float, float]:
        """Return the milliseconds of all that the detector does with a frame, and of the inference in it."""
        self._detector.look = look
        start = time.perf_counter()
        outcome = self._detector.process(frame, _OFF)
        return (time.perf_counter() - start) * 1e3, outcome.inference_ms


class WrittenFrame:
    """A picture in a slot of a ring that belongs to a process of its own, as a frame does in service."""

    def __init__(self, pixels: Pixels) -> None:
        name = f"orion.bench.{uuid.uuid4().hex[:12]}.0"
        self._writer = Child(_write_slot, name, pixels)
        self.write()
        self._ring = RingView(name)
        self.pixels = self._ring.read(0, 0)
        """The frame, read-only."""

    def write(self) -> None:
        """Have the other process write the picture anew. Raises RuntimeError when it does not."""
        self._writer.tell(None)
        self._writer.answer()

    def close(self) -> None:
        """End the other process by the end of its input."""
        self._ring.close()
        self._writer.close()


def _write_slot(end: Connection, name: str, pixels: Pixels) -> None:
    """Write `pixels` into a slot whenever asked; what the other process runs."""
    height, width = pixels.shape[:2]
    with closing(Ring(name, width, height, MIN_SLOTS)) as ring:
        for _ in asked(end):
            np.copyto(ring.peek(0), pixels)
            end.send(None)


def whole(frame: Pixels, size: SessionSize) -> Crop:
    """Return the crop that is the whole frame, for the session of that size."""
    height, width = frame.shape[:2]
    return Crop(0, 0, width, height, size)


def picture(width: int, height: int) -> Pixels:
    """Return a frame with a few drawn persons, so that there are boxes to decode."""
    tiles = np.tile(check_image.known_pictures()[0].pixels, (2, 2, 1))
    return np.asarray(cv2.resize(tiles, (width, height)), np.uint8)


def _exported_run(path: str, size: int, threads: int) -> Callable[[], object]:
    """Return one inference on the file itself, with the options of Orion's sessions that keep two from fighting."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    floats = np.full((1, 3, size, size), 0.45, np.float16 if given.type == "tensor(float16)" else np.float32)
    return lambda: session.run(None, {given.name: floats})
