"""Cameras that deliver what they should not, over HTTP and over RTSP: each trouble is told as an event within the time
that docs/operations.md names, ends without a restart, and none is seen where none is.
"""

import itertools
import time
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from benchmarks.camera import OTHER_SIZE, Camera, Mode
from benchmarks.rtsp import RtspCamera, RtspMode, lacks
from tests.conftest import missing
from tests.harness import frame_sizes
from tests.servers import MjpegServer
from tests.watching import LOST_WITHIN_S, ODD_WITHIN_S, check_not_held_up, watched

MJPEG: dict[Mode, tuple[str, str]] = {
    "frozen": ("stream_frozen", "the same pictures for 15 s"),
    "black": ("stream_frozen", "black pictures for 15 s"),
    "burst": ("stream_irregular", "pictures come in bursts: nothing for up to 0."),
    "garbage": ("stream_lost", "is it an MJPEG stream?"),
}
RTSP: dict[RtspMode, tuple[str, str]] = {
    "frozen": ("stream_frozen", "the same pictures for 15 s"),
    "black": ("stream_frozen", "black pictures for 15 s"),
    "half rate": ("stream_slow", "instead of 10.0 that the stream promises"),
    "burst": ("stream_irregular", "pictures come in bursts: nothing for up to 0."),
    "timestamps": ("stream_irregular", "the stream's clock jumped by +42.0 s"),
    # How the decoder gives up depends on the bytes.
    "garbage": ("stream_lost", "source rtsp://***@127.0.0.1:"),
    "silent": ("stream_lost", "sent no picture for 5 s"),
    "down": ("stream_lost", "ended the stream"),
    "wrong password": ("stream_lost", "ended the stream"),
}


def still(index: int) -> bytes:
    """Return a JPEG of a scene in which nothing moves, as a sensor sees it."""
    pixels = np.clip(np.random.default_rng(index).normal(120, 3, (120, 160, 3)), 0, 255).astype(np.uint8)
    written, data = cv2.imencode(".jpg", pixels)
    assert written
    return data.tobytes()


def within_s(event: str) -> float:
    return LOST_WITHIN_S if event == "stream_lost" else ODD_WITHIN_S


def test_each_trouble_is_told_and_ends(tmp_path: Path) -> None:
    if lacking := lacks():
        missing(lacking)
    assert {"well", "resized", *RTSP} == set(get_args(RtspMode))
    with ExitStack() as stack:
        mjpeg = {mode: stack.enter_context(Camera()) for mode in MJPEG}
        rtsp = {mode: stack.enter_context(RtspCamera((160, 120), 10)) for mode in RTSP}
        well = stack.enter_context(RtspCamera((160, 120), 10))
        resized = stack.enter_context(RtspCamera((160, 120), 10))
        room = stack.enter_context(MjpegServer([still(index) for index in range(400)], fps=20))
        uris = [camera.uri for camera in mjpeg.values()] + [camera.uri for camera in rtsp.values()]
        running = stack.enter_context(watched(tmp_path, *uris, well.uri, room.uri, "demo:160x120@20", resized.uri))
        expected = [*MJPEG.values(), *RTSP.values()]
        faulty = range(len(expected))
        for number in faulty:
            running.await_results(5, f"cam{number}")
        for mode, camera in mjpeg.items():
            camera.mode = mode
        for rtsp_mode, rtsp_camera in rtsp.items():
            rtsp_camera.mode = rtsp_mode
        resized.mode = "resized"
        began_s = time.monotonic()
        for number in faulty:
            event, words = expected[number]
            told = running.await_event(event, began_s + within_s(event) - time.monotonic(), f"cam{number}")
            assert words in told["reason"], number
        states = {stream["stream_id"]: stream["state"] for stream in running.supervisor.describe()["streams"]}
        odd = {f"cam{number}": expected[number][0].removeprefix("stream_") for number in faulty}
        assert {stream_id: states[stream_id] for stream_id in odd} == odd
        for camera in mjpeg.values():
            camera.mode = "well"
        for rtsp_camera in rtsp.values():
            rtsp_camera.mode = "well"
        resized.mode = "well"
        healed_s = time.monotonic()
        for number in faulty:
            running.await_event("stream_restored", healed_s + ODD_WITHIN_S - time.monotonic(), f"cam{number}")
        troubled = {event["stream_id"] for event in running.collected.events if "stream_id" in event}
        assert troubled == set(odd)
        for stream_id in odd:
            stamps = [result["timestamp"] for result in running.collected.of(stream_id)]
            assert stamps == sorted(stamps)
        sizes = frame_sizes(running.collected.of(f"cam{len(expected) + 3}"))
        assert [size for size, _ in itertools.groupby(sizes)] == [(160, 120), OTHER_SIZE, (160, 120)]
        check_not_held_up(running, f"cam{len(expected) + 2}")
