"""What the faults of `benchmarks.chaos` have in common: the instance and what is around it, and how the discovery of a
fault and the recovery from it are told. Runs in the benchmark's main thread.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.camera import Camera
from benchmarks.mosquitto import Mosquitto, TimeOverError, wait_until
from benchmarks.rig import Instance, Key, Listener
from benchmarks.rtsp import RtspCamera

STREAMS = ("cam0", "cam1")
_ARRIVE_S = 60.0
"""After an outage the next attempt to connect may be half a minute away."""


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a fault: seconds from it to its discovery, and from its end outside to results as before."""

    detected_s: float | None
    recovered_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong; `how` says whether it is the real thing or an imitation of it."""

    name: str
    how: str
    strike: Callable[["Chaos"], Course]


class Chaos:
    """The instance and what is around it."""

    def __init__(
        self,
        folder: Path,
        instance: Instance,
        broker: Mosquitto,
        listener: Listener,
        camera: Camera,
        rtsp: RtspCamera | None,
    ) -> None:
        self.folder = folder
        self.instance = instance
        self.broker = broker
        self.listener = listener
        self.camera = camera
        """What cam1 is read from."""
        self.rtsp = rtsp
        """What cam0 is read from; None: the demo."""
        self.sizes = "sn"
        self.swaps = 0

    def settle(self) -> dict[str, Any]:
        """Wait until all is well: both streams answer, both workers are there; return the state."""
        began_s = time.monotonic()
        for stream_id in STREAMS:
            self.results_since(stream_id, began_s)

        def well() -> dict[str, Any] | None:
            status = self.listener.do("get_status")
            ready = all(worker["state"] in {"idle", "busy"} for worker in status["workers"])
            return status if ready and all(one["state"] == "running" for one in status["streams"]) else None

        found: dict[str, Any] = wait_until(well, "all workers and streams are well")
        return found

    def results_since(self, stream_id: str, moment_s: float) -> float:
        """Wait for a stream's first result after a moment; return how long after that it came."""
        wait_until(lambda: self.listener.last_of(stream_id) > moment_s, f"a result of {stream_id}")
        came = (at_s for key, at_s in list(self.listener.results.items()) if key[1] == stream_id and at_s > moment_s)
        return min(came) - moment_s

    def event_since(self, moment_s: float, *names: str, limit_s: float = 60.0) -> float:
        """Wait for an event; return how long after the moment it came."""
        found = wait_until(lambda: self.listener.events(*names, since_s=moment_s), " or ".join(names), limit_s)
        at_s: float = found[0].at_s
        return at_s - moment_s

    def await_size(self, stream_id: str, size: tuple[int, int]) -> None:
        """Wait until the state gives a stream's pictures this width and height."""

        def has_size() -> bool:
            found = {
                one["stream_id"]: (one["width"], one["height"]) for one in self.listener.do("get_status")["streams"]
            }
            return found[stream_id] == size

        wait_until(has_size, f"{stream_id} of {size[0]}x{size[1]}")

    def log_since(self, length: int, text: str, moment_s: float) -> float:
        """Wait for a word in the log after so many bytes; return how long after the moment it was there."""
        path = self.folder / f"log-{self.instance.runs}.txt"
        wait_until(lambda: text in path.read_text(errors="replace")[length:], f"{text!r} in the log")
        return time.monotonic() - moment_s

    def log_length(self) -> int:
        """Return how much the present run has logged."""
        return len((self.folder / f"log-{self.instance.runs}.txt").read_text(errors="replace"))

    def all_arrived_since(self, moment_s: float) -> float:
        """Wait until what was written before this call has been heard; return how long after the moment that was."""
        self.await_results(self.instance.written())
        return time.monotonic() - moment_s

    def await_results(self, written: set[Key]) -> None:
        """Wait until all of these were heard."""
        try:
            wait_until(lambda: written <= self.listener.results.keys(), "every result arrives", _ARRIVE_S)
        except TimeOverError as error:
            missing = sorted(key[1:] for key in written - self.listener.results.keys())
            raise TimeOverError(f"{error}: {len(missing)} are missing, the first {missing[:5]}") from None


def let_pass(seconds: float) -> None:
    """Let some time pass."""
    until_s = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until_s, "time passes", seconds + 60.0)
