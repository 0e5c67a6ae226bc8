"""From a worker's answer to what the world sees: the published form of a result, and the file that results may be
written to beside. `publishable` is pure; the writer has a thread of its own, so that a slow disk or a stopped reader of
a pipe never holds a frame up.
"""

import logging
import os
import queue
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from orion.errors import SourceError
from orion.ledger import Lease
from orion.messages import DetectorInfo, FrameResult, Outcome, Region, RoiProcessing, VanishedPerson

_log = logging.getLogger(__name__)

_QUEUE_LIMIT = 10_000


def timestamp(wall_ns: int) -> str:
    """Return a wall-clock time as RFC 3339 in UTC with microseconds."""
    moment = datetime.fromtimestamp(wall_ns // 1_000 / 1e6, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def publishable(
    identity: Mapping[str, str],
    lease: Lease,
    result: FrameResult,
    info: DetectorInfo,
    labels: Mapping[int, str] | None,
    capture_to_result_ms: float,
    since_ns: Mapping[VanishedPerson, int],
) -> dict[str, Any]:
    """Return the result as it is published: plain values only.

    `identity` has instance_id, room_id, stream_id and run_id. `labels` names the classes when more than one was asked
    for, and is None otherwise. `since_ns` tells of everybody vanished when they were last seen, by the wall clock.
    """
    frame, outcome = lease.frame, result.outcome
    return {
        "type": "person_detection",
        **identity,
        "worker_id": lease.worker_id,
        "trace_id": f"{identity['run_id']}-{identity['stream_id']}-{frame.frame_seq}",
        "timestamp": timestamp(frame.captured_wall_ns),
        "frame_seq": frame.frame_seq,
        "data": {
            "detections": _detections(outcome, labels),
            "count": len(outcome.detections),
            "vanished": [place(one, since_ns[one]) for one in outcome.known.vanished],
            "metadata": _metadata(lease, outcome, info),
        },
        "timing": {
            "preprocess_ms": round(outcome.preprocess_ms, 3),
            "inference_ms": round(outcome.inference_ms, 3),
            "postprocess_ms": round(outcome.postprocess_ms, 3),
            "total_ms": round(outcome.total_ms, 3),
        },
        "latency": {
            "queue_ms": round(result.queue_ms, 3),
            "capture_to_result_ms": round(capture_to_result_ms, 3),
        },
        "suggested_roi": _region(outcome.suggested_roi),
    }


def place(person: VanishedPerson, since_ns: int) -> dict[str, Any]:
    """Return where and when somebody vanished who was last seen at `since_ns`, by the wall clock."""
    bbox = {"x": person.x, "y": person.y, "width": person.width, "height": person.height}
    return bbox | {"since": timestamp(since_ns)}


def _detections(outcome: Outcome, labels: Mapping[int, str] | None) -> list[dict[str, Any]]:
    found = []
    for one in outcome.detections:
        bbox = {"x": one.x, "y": one.y, "width": one.width, "height": one.height}
        said = {"bbox": bbox, "confidence": round(one.confidence, 4)} | ({"kept": True} if one.kept else {})
        found.append(said if labels is None else said | {"class": labels.get(one.class_id, str(one.class_id))})
    return found


def _metadata(lease: Lease, outcome: Outcome, info: DetectorInfo) -> dict[str, Any]:
    size = outcome.model_selected
    session = info.session(size)
    assert session is not None, "the crew takes no result of a session that a worker has not"
    return {
        "frame_width": lease.frame.width,
        "frame_height": lease.frame.height,
        "img_size": f"{size}x{size}",
        "imgsz": size,
        "model_name": info.model_name,
        "model_size": info.model_size,
        "model_sha256": session.sha256,
        "model_selected": str(size),
        "provider": session.provider,
        "roi_attention": outcome.roi_processing is not None,
        "inference": outcome.inference,
        "roi_processing": _roi_processing(outcome.roi_processing),
        "processing_time_ms": round(outcome.total_ms, 3),
    }


def _roi_processing(roi: RoiProcessing | None) -> dict[str, Any] | None:
    if roi is None:
        return None
    crop = dict(zip(("x", "y", "width", "height"), roi.crop, strict=True)) if roi.crop else None
    return asdict(roi) | {
        "attention_rois": [_region(region) for region in roi.attention_rois],
        "merged_roi": _region(roi.merged_roi),
        "crops": [asdict(crop) for crop in roi.crops],
        "crop": crop,
    }


def _region(region: Region | None) -> dict[str, float] | None:
    if region is None:
        return None
    return {name: round(value, 6) for name, value in asdict(region).items()}


class ResultWriter:
    """Writes each result as one JSON line, flushed. `target` is a path, which is truncated, or `-` for stdout."""

    def __init__(self, target: str) -> None:
        self._stack = ExitStack()
        self._file = self._open(1 if target == "-" else Path(target))
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUE_LIMIT)
        # A count for each thread that counts.
        self._handed = self._refused = 0
        self._written = self._failed = 0
        self._closed_late = False
        self._why = "the disk or the reader is too slow"
        self._thread = threading.Thread(target=self._write_all, name="results", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Return how many lines are not in the file and never will be, as far as is known."""
        late = self._handed - self._written - self._failed if self._closed_late else 0
        return self._refused + self._failed + late

    def write(self, line: str) -> None:
        """Hand a result over; never blocks. With a reader 10,000 lines late it is dropped and counted in `lost`."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._refused += 1
        else:
            self._handed += 1

    def close(self, timeout_s: float) -> bool:
        """Write what is left and end the thread; return whether that was done in time. If not, the rest is lost."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)
        self._closed_late = self._thread.is_alive()
        if self.lost:
            _log.error("%d results could not be written to the results file: %s", self.lost, self._why)
        return not self._closed_late

    def _open(self, target: Path | int) -> FileIO:
        """Open without a buffer, so that each line is out when it is written, and a full disk is met there."""
        try:
            return self._stack.enter_context(FileIO(target, "w", closefd=isinstance(target, Path)))
        except OSError as error:
            raise SourceError(f"results cannot be written to {target}: {error.strerror}") from error

    def _write_all(self) -> None:
        losing = False
        with self._stack:
            while (line := self._lines.get()) is not None:
                try:
                    self._write_line(memoryview(f"{line}\n".encode()))
                except OSError as error:
                    # The disk is full or the reader of the pipe has left: count, and go on with the next.
                    self._failed += 1
                    self._why = str(error.strerror)
                    if not losing:
                        _log.error("results cannot be written to the results file: %s", self._why)
                    losing = True
                else:
                    self._written += 1
                    if losing:
                        _log.warning("results are written again; %d are not in the file", self.lost)
                    losing = False

    def _write_line(self, line: memoryview) -> None:
        """Write the whole line, or take back from a file what found room, so that the next line stays one of its own.
        Raises OSError.
        """
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._file.seek(-written, os.SEEK_CUR))
            raise
