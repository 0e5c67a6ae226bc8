"""The faults of `benchmarks.chaos`: what each does to a running instance or to what is around it, and how its discovery
and the recovery are told. Runs in the benchmark's main thread.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.camera import Camera, Mode
from benchmarks.mosquitto import Mosquitto, TimeOverError, wait_until
from benchmarks.rig import Instance, Key, Listener, alive, children

STREAMS = ("cam0", "cam1")
_GONE_S, _STOP_S = 2.0, 5.0
_OUTAGE_S = 4.0
_ARRIVE_S = 60.0
"""After an outage the next attempt to connect may be half a minute away."""
_PHASES = ("idle", "reading", "inferring", "loading", "preparing", "committing")
_WORKER_FAULTS = ("sigkill", "sigsegv", "exit", "sigstop", "spin", "half", "malformed", "oversized", "version",
                  "flood", "grow", "exception")  # fmt: skip


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

    def __init__(self, folder: Path, instance: Instance, broker: Mosquitto, listener: Listener, camera: Camera) -> None:
        self.folder = folder
        self.instance = instance
        self.broker = broker
        self.listener = listener
        self.camera = camera
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


def _worker_fault(fault: str, phase: str) -> Fault:
    how = "real" if fault in {"sigkill", "sigsegv", "sigstop"} else "real, by a detector that does it"
    return Fault(f"worker {fault}, {phase}", how, lambda chaos: _haunt(chaos, fault, phase))


def _haunt(chaos: Chaos, fault: str, phase: str) -> Course:
    """Have one worker do it, and follow what becomes of its stream."""
    before = set(children(chaos.instance.pid))
    status = chaos.listener.do("get_status")
    happened = chaos.folder / "happened"
    happened.unlink(missing_ok=True)
    (chaos.folder / "draft").write_text(f"{phase}:{fault}")
    (chaos.folder / "draft").rename(chaos.folder / "fault")
    if phase == "loading":
        os.kill(status["workers"][0]["pid"], signal.SIGKILL)
    if phase in {"preparing", "committing"}:
        # The answer may well be an error: the pair then stays.
        with suppress(TimeOverError):
            chaos.listener.ask("set_model_size", size=chaos.sizes[chaos.swaps % 2], limit_s=1.0)
        chaos.swaps += 1
    pid_text, moment = wait_until(lambda: happened.exists() and happened.read_text().split()[:2], "the fault")
    moment_s, pid = float(moment), int(pid_text)
    # A fault in a thread beside the main one, or one that a worker survives, ends nobody.
    ends = not (fault == "exception" and phase in {"reading", "inferring", "preparing"})
    ends = ends and not (phase in {"idle", "preparing"} and fault in {"spin", "exception"})
    if not ends:
        return Course(0.0 if fault == "exception" else None, max(chaos.results_since(s, moment_s) for s in STREAMS))
    wait_until(lambda: not alive(pid), "the end of the worker")
    gone_s = time.monotonic() - moment_s
    wait_until(lambda: set(children(chaos.instance.pid)) - before - {pid}, "a successor")
    back_s = chaos.event_since(moment_s, "worker_restarted")
    return Course(gone_s, back_s + max(chaos.results_since(s, moment_s + back_s) for s in STREAMS))


def _broker_killed(chaos: Chaos) -> Course:
    return _outage(chaos, chaos.broker.kill, chaos.broker.start)


def _broker_stopped(chaos: Chaos) -> Course:
    """Black hole: connections stand, nothing is answered. 30 s, until the instance takes it for lost."""
    stop, go_on = chaos.broker.freeze, chaos.broker.thaw
    return _outage(chaos, stop, go_on)


def _broker_flaps(chaos: Chaos) -> Course:
    def flap() -> None:
        for _ in range(4):
            chaos.broker.kill()
            _let_pass(0.5)
            chaos.broker.start()
            _let_pass(0.5)
        chaos.broker.kill()

    return _outage(chaos, flap, chaos.broker.start)


def _outage(chaos: Chaos, begin: Callable[[], None], end: Callable[[], None]) -> Course:
    length, moment_s = chaos.log_length(), time.monotonic()
    begin()
    detected_s = chaos.log_since(length, "connected: ", moment_s)
    _let_pass(_OUTAGE_S)
    written = len(chaos.instance.written())
    wait_until(lambda: len(chaos.instance.written()) > written, "frames go on without the broker")
    end()
    return Course(detected_s, chaos.all_arrived_since(time.monotonic()))


def _disk_full(chaos: Chaos) -> Course:
    """Fill the file system of the outbox, take the broker away, and give both back."""
    filler = chaos.folder / "state" / "filler"
    filler.parent.mkdir(exist_ok=True)
    length, moment_s = chaos.log_length(), time.monotonic()
    _fill(filler)
    chaos.broker.kill()
    detected_s = chaos.log_since(length, "outbox_failed", moment_s)
    _let_pass(_OUTAGE_S)
    filler.unlink()
    chaos.broker.start()
    return Course(detected_s, chaos.all_arrived_since(time.monotonic()))


def _memory_full(chaos: Chaos) -> Course:
    """Fill /dev/shm while frames are written, and let the camera ask for a larger ring just then."""
    filler = Path("/dev/shm/filler")
    moment_s = time.monotonic()
    _fill(filler)
    chaos.camera.mode = "resized"
    detected_s = chaos.event_since(moment_s, "stream_lost")
    chaos.results_since("cam0", moment_s + detected_s)
    filler.unlink()
    freed_s = time.monotonic()
    recovered_s = chaos.results_since("cam1", freed_s)
    chaos.camera.mode = "well"
    return Course(detected_s, recovered_s)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def _camera_fault(mode: Mode, event: str | None, lasts_s: float = 3.0) -> Fault:
    def strike(chaos: Chaos) -> Course:
        moment_s = time.monotonic()
        chaos.camera.mode = mode
        detected_s = None
        if event is not None:
            with suppress(TimeOverError):
                detected_s = chaos.event_since(moment_s, event, limit_s=45.0)
        _let_pass(lasts_s)
        healed_s = time.monotonic()
        chaos.camera.mode = "well"
        return Course(detected_s, chaos.results_since("cam1", healed_s))

    return Fault(f"camera {mode}", "real, by a server that does it", strike)


def _supervisor_killed(chaos: Chaos) -> Course:
    """Kill it with one worker stopped; everything goes with it, and the next start finds nothing in its way."""
    below = children(chaos.instance.pid)
    workers = [worker["pid"] for worker in chaos.listener.do("get_status")["workers"]]
    os.kill(workers[0], signal.SIGSTOP)
    moment_s = time.monotonic()
    chaos.instance.send(signal.SIGKILL)
    chaos.instance.wait()
    wait_until(lambda: not any(map(alive, below)), "all children are gone", _GONE_S)
    gone_s = time.monotonic() - moment_s
    return Course(gone_s, _start_again(chaos))


def _supervisor_told(number: int) -> Fault:
    def strike(chaos: Chaos) -> Course:
        below = children(chaos.instance.pid)
        moment_s = time.monotonic()
        chaos.instance.send(number)
        code = chaos.instance.wait()
        stopped_s = time.monotonic() - moment_s
        left = chaos.instance.segments()
        wait_until(lambda: not any(map(alive, below)), "all children are gone", _GONE_S)
        if code != 0 or left or stopped_s > _STOP_S:
            raise TimeOverError(f"an ordered stop: code {code} after {stopped_s:.1f} s, left {left}")
        return Course(stopped_s, _start_again(chaos))

    return Fault(f"supervisor {signal.Signals(number).name.lower()}", "real", strike)


def _start_again(chaos: Chaos) -> float:
    moment_s = time.monotonic()
    chaos.instance.start()
    return max(chaos.results_since(stream_id, moment_s) for stream_id in STREAMS)


def _let_pass(seconds: float) -> None:
    until_s = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until_s, "time passes", seconds + 60.0)


def faults(chance: random.Random, *, all_phases: bool) -> list[Fault]:
    """Return every fault, those of workers in one phase that chance picks, or in all."""
    found = [
        _worker_fault(fault, phase)
        for fault in _WORKER_FAULTS
        for phase in (_PHASES if all_phases else (chance.choice(_PHASES),))
    ]
    found += [
        Fault("broker killed", "real", _broker_killed),
        Fault("broker stopped (black hole)", "real", _broker_stopped),
        Fault("broker flaps", "real", _broker_flaps),
        Fault("supervisor sigkill", "real", _supervisor_killed),
        _supervisor_told(signal.SIGTERM),
        _supervisor_told(signal.SIGINT),
        _camera_fault("down", "stream_lost"),
        _camera_fault("silent", "stream_lost"),
        _camera_fault("garbage", "stream_lost"),
        _camera_fault("frozen", "stream_frozen"),
        _camera_fault("black", None),
        _camera_fault("half rate", None),
        _camera_fault("burst", None),
        _camera_fault("resized", None),
    ]
    if private():
        found += [
            Fault("outbox's disk full", "real", _disk_full),
            Fault("/dev/shm full", "real", _memory_full),
        ]
    return found


PRIVATE = "CHAOSPRIVATE"


def private() -> bool:
    """Return whether this process has mounts of its own, and so a /dev/shm that may be filled."""
    return PRIVATE in os.environ
