"""The detector behind the original worker's pipes, so that an existing orchestrator can use it unchanged. One process,
one thread: it reads a frame or a command, answers it, and reads on. It owns the pair of sessions.
"""

import logging
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import msgspec

from orion.errors import ModelError, WireError
from orion.messages import AttentionSettings, Crop, Detections, DetectorSpec, Region, SessionSize
from workers import catalogue, framing
from workers.framing import Command, Frame
from workers.memory import trim_memory
from workers.pair import SessionPair
from workers.pipeline import Timings, infer
from workers.session import ProviderError
from workers.suggest import suggest_region

_log = logging.getLogger("workers")


class Dropin:
    """Answers frames and commands from `source` on `sink`. Raises ModelError when the pair cannot be loaded."""

    def __init__(self, spec: DetectorSpec, source: BinaryIO, sink: BinaryIO) -> None:
        cv2.setNumThreads(1)
        self._spec = spec
        self._source = source
        self._sink = sink
        self._pair = SessionPair.load(spec, rgb=True)

    def run(self) -> None:
        """Work until the input ends. Raises BrokenPipeError when nobody reads the results any more."""
        while True:
            try:
                message = framing.read(self._source)
            except WireError as error:
                _log.error("message refused: %s", error)
                continue
            match message:
                case None:
                    return
                case Command():
                    self._obey(message)
                case Frame():
                    self._answer(message)

    def _answer(self, frame: Frame) -> None:
        start = time.perf_counter()
        crop = _crop_of(frame, have_320=320 in self._pair.lanes)
        try:
            detections, timings = infer(self._pair, frame.pixels, crop)
        except ProviderError as error:
            self._replace(self._pair.on_cpu(str(error)))
            detections, timings = infer(self._pair, frame.pixels, crop)
        total_ms = (time.perf_counter() - start) * 1e3
        self._sink.write(framing.pack(self._result(frame, crop, detections, timings, total_ms)))
        self._sink.flush()

    def _obey(self, command: Command) -> None:
        if command.name != "set_model_size":
            _log.error("command %s refused: unknown", command.name)
            return
        size = command.params.get("size")
        try:
            took_ms = self._reload(str(size))
        except ModelError as error:
            _log.error("command set_model_size refused: %s", error)
            return
        _log.info("command set_model_size done: %s in %.0f ms", self._pair.info.model_name, took_ms)

    def _reload(self, size: str) -> float:
        """Load the pair of that size from the present model's folder, then let the old one go."""
        start = time.perf_counter()
        found = catalogue.resolve(Path(self._spec.model_640).parent, size)
        spec = msgspec.structs.replace(self._spec, model_640=found.model_640, model_320=found.model_320)
        self._replace(SessionPair.load(spec, rgb=True))
        self._spec = spec
        return (time.perf_counter() - start) * 1e3

    def _replace(self, pair: SessionPair) -> None:
        previous, self._pair = self._pair, pair
        previous.close()
        trim_memory()

    def _result(
        self, frame: Frame, crop: Crop, detections: Detections, timings: Timings, total_ms: float
    ) -> dict[str, Any]:
        height, width = frame.pixels.shape[:2]
        suggested = suggest_region(detections, (width, height), AttentionSettings().expansion)
        return {
            "type": "person_detection",
            "instance_id": frame.meta.get("instance_id"),
            "room_id": frame.meta.get("room_id"),
            "trace_id": frame.meta.get("trace_id"),
            "frame_seq": frame.meta.get("seq"),
            "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "data": {
                "detections": _plain(detections),
                "count": len(detections),
                "metadata": self._metadata(frame, crop, total_ms),
            },
            "timing": {key: round(value, 3) for key, value in msgspec.structs.asdict(timings).items()}
            | {"total_ms": round(total_ms, 3)},
            "suggested_roi": None if suggested is None else msgspec.structs.asdict(suggested),
        }

    def _metadata(self, frame: Frame, crop: Crop, total_ms: float) -> dict[str, Any]:
        info = self._pair.info
        session = info.session(crop.model)
        assert session is not None, "the crop is for a session that is there"
        height, width = frame.pixels.shape[:2]
        return {
            "frame_width": width,
            "frame_height": height,
            "img_size": f"{crop.model}x{crop.model}",
            "imgsz": crop.model,
            "model_name": info.model_name,
            "model_size": info.model_size,
            "model_sha256": session.sha256,
            "model_selected": str(crop.model),
            "provider": session.provider,
            "roi_attention": frame.meta.get("roi_processing") is not None,
            "inference": "full" if (crop.width, crop.height) == (width, height) else "roi",
            "roi_processing": frame.meta.get("roi_processing"),
            "processing_time_ms": round(total_ms, 3),
        }


def _crop_of(frame: Frame, *, have_320: bool) -> Crop:
    """Return the piece of the frame to look at: its region, grown to whole pixels, for the size that it asks for."""
    height, width = frame.pixels.shape[:2]
    region = frame.crop or Region(0, 0, 1, 1)
    left, top = math.floor(region.x * width), math.floor(region.y * height)
    right = min(width, math.ceil((region.x + region.width) * width))
    bottom = min(height, math.ceil((region.y + region.height) * height))
    left, top = min(left, width - 1), min(top, height - 1)
    size: SessionSize = 320 if frame.target_size == 320 and have_320 else 640
    return Crop(left, top, max(1, right - left), max(1, bottom - top), size)


def _plain(detections: Detections) -> list[dict[str, Any]]:
    return [
        {
            "bbox": {"x": one.x, "y": one.y, "width": one.width, "height": one.height},
            "confidence": round(one.confidence, 4),
        }
        for one in detections
    ]
