"""What goes wrong with cameras, over HTTP and over RTSP, for `benchmarks.chaos`."""

import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from benchmarks.camera import OTHER_SIZE, SIZE, Mode
from benchmarks.mischief import Chaos, Course, Fault, let_pass
from benchmarks.rtsp import RtspMode

_LASTS_S = 3.0
_POWER_CUT_S = 60.0
_DETECTED_S = 45.0
_HTTP: dict[Mode, str] = {
    "down": "stream_lost",
    "silent": "stream_lost",
    "garbage": "stream_lost",
    "frozen": "stream_frozen",
    "black": "stream_frozen",
    "half rate": "",
    "burst": "stream_irregular",
}
"""What each is told as. MJPEG promises no rate."""
_RTSP: dict[RtspMode, str] = {
    "down": "stream_lost",
    "silent": "stream_lost",
    "garbage": "stream_lost",
    "wrong password": "stream_lost",
    "frozen": "stream_frozen",
    "black": "stream_frozen",
    "half rate": "stream_slow",
    "burst": "stream_irregular",
    "timestamps": "stream_irregular",
}
_Sized = Literal["resized", "well"]
_SIZES: dict[_Sized, tuple[int, int]] = {"resized": OTHER_SIZE, "well": SIZE}
_HOW = "real, by a server that does it"


def camera_faults(*, rtsp: bool) -> list[Fault]:
    """Return every fault of the camera over HTTP, and if there is one of that over RTSP."""
    found = [
        Fault(f"http camera {mode}", _HOW, partial(_strike_http, mode=mode, event=event))
        for mode, event in _HTTP.items()
    ]
    found.append(Fault("http camera resized", _HOW, partial(_resize, stream_id="cam1", be=_be_http)))
    if rtsp:
        found += [
            Fault(f"rtsp camera {mode}", _HOW, partial(_strike_rtsp, mode=mode, event=event))
            for mode, event in _RTSP.items()
        ]
        found.append(Fault("rtsp camera resized", _HOW, partial(_resize, stream_id="cam0", be=_be_rtsp)))
        found.append(Fault(f"rtsp server killed for {_POWER_CUT_S:.0f} s", "real", _power_cut))
    return found


def _be_http(chaos: Chaos, mode: Mode) -> None:
    chaos.camera.mode = mode


def _be_rtsp(chaos: Chaos, mode: RtspMode) -> None:
    assert chaos.rtsp is not None
    chaos.rtsp.mode = mode


def _strike_http(chaos: Chaos, mode: Mode, event: str) -> Course:
    return _follow(chaos, "cam1", event, _LASTS_S, partial(_be_http, chaos, mode), partial(_be_http, chaos, "well"))


def _strike_rtsp(chaos: Chaos, mode: RtspMode, event: str) -> Course:
    return _follow(chaos, "cam0", event, _LASTS_S, partial(_be_rtsp, chaos, mode), partial(_be_rtsp, chaos, "well"))


def _resize(chaos: Chaos, stream_id: str, be: Callable[[Chaos, _Sized], None]) -> Course:
    """Change the size of a camera's pictures and back. It is no fault, and all that must be told of it is the size."""
    seconds = []
    for mode, size in _SIZES.items():
        moment_s = time.monotonic()
        be(chaos, mode)
        chaos.await_size(stream_id, size)
        seconds.append(time.monotonic() - moment_s)
        let_pass(_LASTS_S)
    return Course(seconds[0], seconds[1])


def _power_cut(chaos: Chaos) -> Course:
    assert chaos.rtsp is not None
    return _follow(chaos, "cam0", "stream_lost", _POWER_CUT_S, chaos.rtsp.stop_server, chaos.rtsp.start_server)


def _follow(
    chaos: Chaos, stream_id: str, event: str, lasts_s: float, begin: Callable[[], None], end: Callable[[], None]
) -> Course:
    """Begin a fault, await the event and some time, end it; without an event it is none that must be told."""
    moment_s = time.monotonic()
    begin()
    detected_s = chaos.event_since(moment_s, event, limit_s=_DETECTED_S) if event else None
    let_pass(lasts_s)
    end()
    healed_s = time.monotonic()
    recovered_s = chaos.event_since(healed_s, "stream_restored") if event else 0.0
    return Course(detected_s, recovered_s + chaos.results_since(stream_id, healed_s + recovered_s))
