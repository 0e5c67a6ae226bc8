"""Frames of 1080p to the drop-in worker and their answers back, over real pipes, for `benchmarks.detector`. A message
is packed before its trip begins: that is the orchestrator's work, however it does it.
"""

import subprocess
import sys
import time

import msgpack

from benchmarks.report import Row, spread
from benchmarks.subject import UNCOUNTED, picture
from orion.lookup import ModelPair
from orion.messages import Pixels, SessionSize


def measure(pair: ModelPair, threads: int, frames: int) -> list[Row]:
    """Return a row for each size: the trip, what of it is neither inference nor the worker's own work around that, and
    what packing the message took the sender before.
    """
    command = [sys.executable, "-m", "workers", "--model", str(pair.model_640), "--provider", "cpu"]
    command += ["--threads", str(threads), "--confidence", "0.4"]
    if pair.model_320 is not None:
        command += ["--model-320", str(pair.model_320)]
    frame = picture(1920, 1080)
    sizes: list[SessionSize] = [640] if pair.model_320 is None else [640, 320]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet) as worker:
        rows = [_row(worker, frame, size, frames) | {"threads": str(threads)} for size in sizes]
    return [{"provider": "cpu"} | row for row in rows]


def _row(worker: "subprocess.Popen[bytes]", frame: Pixels, size: SessionSize, frames: int) -> Row:
    trips, around, transport, packing = [], [], [], []
    for number in range(UNCOUNTED + frames):
        start = time.perf_counter()
        message = _packed(frame, size)
        packed_ms = (time.perf_counter() - start) * 1e3
        trip_ms, timing = _trip(worker, message, size)
        if number >= UNCOUNTED:
            packing.append(packed_ms)
            trips.append(trip_ms)
            around.append(trip_ms - timing["inference_ms"])
            transport.append(trip_ms - timing["total_ms"])
    whole, outside = spread(trips), spread(around)
    return {
        "what": f"{size} drop-in over pipes",
        "picture": "1080p",
        "min_ms": whole.min_ms,
        "p50_ms": whole.p50_ms,
        "p95_ms": whole.p95_ms,
        "around_min_ms": outside.min_ms,
        "around_p50_ms": outside.p50_ms,
        "transport_p50_ms": spread(transport).p50_ms,
        "packing_p50_ms": spread(packing).p50_ms,
        "ratio": round(whole.p50_ms / (whole.p50_ms - outside.p50_ms), 3),
    }


def _packed(frame: Pixels, size: SessionSize) -> bytes:
    height, width = frame.shape[:2]
    meta = {"seq": 0, "roi_processing": {"target_size": size, "crop_applied": True}}
    body: bytes = msgpack.packb({"frame_data": frame.tobytes(), "width": width, "height": height, "meta": meta})
    return len(body).to_bytes(4, "big") + body


def _trip(worker: "subprocess.Popen[bytes]", message: bytes, size: SessionSize) -> tuple[float, dict[str, float]]:
    """Return the ms from a packed frame to its unpacked answer, and the answer's own timing."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    start = time.perf_counter()
    worker.stdin.write(message)
    worker.stdin.flush()
    length = int.from_bytes(worker.stdout.read(4), "big")
    answer = msgpack.unpackb(worker.stdout.read(length))
    trip_ms = (time.perf_counter() - start) * 1e3
    if answer["data"]["metadata"]["imgsz"] != size:
        raise RuntimeError(f"the drop-in worker answered with another session than {size}")
    return trip_ms, answer["timing"]
