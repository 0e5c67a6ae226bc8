"""What goes wrong with the supervisor and with its machine, for `benchmarks.chaos`."""

import json
import os
import signal
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from benchmarks.mischief import STREAMS, Chaos, Course, Fault, let_pass
from benchmarks.mosquitto import TimeOverError, wait_until
from benchmarks.rig import alive, children
from benchmarks.wall_clock import set_clock

_GONE_S, _STOP_S = 2.0, 5.0
_OUTAGE_S = 4.0
_JUMPS_S = (86_400.0, -3_600.0)
PRIVATE = "CHAOSPRIVATE"


def private() -> bool:
    """Return whether this process has mounts of its own, and so a /dev/shm that may be filled."""
    return PRIVATE in os.environ


def host_faults() -> list[Fault]:
    """Return every fault that can be brought about here; memory and disks are filled only if they are private."""
    found = [
        Fault("supervisor sigkill", "real", _supervisor_killed),
        _supervisor_told(signal.SIGTERM),
        _supervisor_told(signal.SIGINT),
        Fault("wall clock jumps", "simulated, by the clock handed in", _clock_jumps),
    ]
    if private():
        found += [
            Fault("outbox's disk full", "real", _disk_full),
            Fault("/dev/shm full", "real", _memory_full),
        ]
    return found


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


def _clock_jumps(chaos: Chaos) -> Course:
    """Let the wall clock of the instance jump a day ahead and an hour back; results go on, their timestamps with it."""
    for offset_s in _JUMPS_S:
        moment_s = time.monotonic()
        set_clock(chaos.folder, offset_s)
        gap_s = max(chaos.results_since(stream_id, moment_s) for stream_id in STREAMS)
        wait_until(lambda: abs(_clock_of(chaos) - time.time() - offset_s) < 5.0, "timestamps follow the clock")  # noqa: B023
        let_pass(2.0)
        if gap_s > 2.0:
            raise TimeOverError(f"no result for {gap_s:.1f} s after a jump of the clock")
    moment_s = time.monotonic()
    set_clock(chaos.folder, 0.0)
    return Course(None, max(chaos.results_since(stream_id, moment_s) for stream_id in STREAMS))


def _clock_of(chaos: Chaos) -> float:
    """Return the timestamp of the result that was written last."""
    lines = (chaos.folder / f"results-{chaos.instance.runs}.jsonl").read_text().splitlines(keepends=True)
    whole = [line for line in lines[-2:] if line.endswith("\n")]
    return datetime.fromisoformat(json.loads(whole[-1])["timestamp"]).timestamp()


def _disk_full(chaos: Chaos) -> Course:
    """Fill the file system of the outbox, take the broker away, and give both back."""
    filler = chaos.folder / "state" / "filler"
    filler.parent.mkdir(exist_ok=True)
    length, moment_s = chaos.log_length(), time.monotonic()
    _fill(filler)
    chaos.broker.kill()
    detected_s = chaos.log_since(length, "outbox_failed", moment_s)
    let_pass(_OUTAGE_S)
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
