"""Every fault, in random order, on a running instance of two streams with a real mosquitto: how soon it is noticed and
healed, which frames it costs, whether a result is lost, and whether anything is left behind.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks.broker_faults import broker_faults
from benchmarks.camera import FPS, SIZE, Camera
from benchmarks.camera_faults import camera_faults
from benchmarks.haunted import ENTRY
from benchmarks.host_faults import PRIVATE, host_faults, private
from benchmarks.mischief import Chaos, Fault
from benchmarks.mosquitto import HOST, UNBOUNDED, Mosquitto, TimeOverError, installed, wait_until
from benchmarks.report import Bar, Report, Row, publish
from benchmarks.rig import Instance, Key, Listener, alive, children, command_line, write_models
from benchmarks.rtsp import RtspCamera, lacks
from benchmarks.wall_clock import FOLDER, set_clock
from benchmarks.worker_faults import worker_faults

_SHARED_MB, _STATE_KB = 64, 4096
_TRACKER_S = 2.0
_SHORT = ("worker sigkill, inferring", "worker sigstop, idle", "broker killed", "http camera down",
          "supervisor sigkill", "/dev/shm full")  # fmt: skip


def faults(chance: random.Random, *, all_phases: bool, rtsp: bool) -> list[Fault]:
    """Return every fault, those of workers in one phase that chance picks, or in all; those of RTSP if it is there."""
    workers = worker_faults(chance, all_phases=all_phases)
    return [*workers, *broker_faults(), *host_faults(), *camera_faults(rtsp=rtsp)]


def _wanted(chosen: argparse.Namespace, chance: random.Random, *, rtsp: bool) -> list[Fault]:
    """Return the faults that were asked for, in random order."""
    found = faults(chance, all_phases=chosen.all_phases or chosen.short or chosen.only is not None, rtsp=rtsp)
    if chosen.short:
        found = [fault for fault in found if fault.name in _SHORT]
    if chosen.only is not None:
        found = [fault for fault in found if chosen.only in fault.name]
    chance.shuffle(found)
    return found


def strike_all(chaos: Chaos, wanted: Iterable[Fault]) -> tuple[list[Row], list[Bar]]:
    """Strike with one fault after the other; return a row for each, and what must hold for all."""
    rows: list[Row] = []
    missing: set[Key] = set()
    left = unhealed = 0
    for fault in wanted:
        before, run = chaos.settle(), chaos.instance.runs
        usual = _holdings(chaos)
        try:
            course = fault.strike(chaos)
            after = chaos.settle()
        except TimeOverError as error:
            sys.stderr.write(f"{fault.name}: {error}\n{chaos.instance.log()}\n")
            unhealed += 1
            break
        written = chaos.instance.written() - missing
        with suppress(TimeOverError):
            chaos.await_results(written)
        lost = written - chaos.listener.results.keys()
        missing |= lost
        more = _left(chaos, usual)
        left += len(more)
        rows.append(
            {
                "fault": fault.name,
                "how": fault.how,
                "detected_s": None if course.detected_s is None else round(course.detected_s, 2),
                "recovered_s": round(course.recovered_s, 2),
                "frames_lost": _drops(before, after) if run == chaos.instance.runs else "those in work",
                "results_lost": len(lost),
                "left_behind": ", ".join(more) or "nothing",
            }
        )
    bars = [Bar("faults that did not heal", unhealed, 0), Bar("results lost", len(missing), 0)]
    return rows, [*bars, Bar("things left behind", left, 0), Bar("out of order", chaos.listener.disordered, 0)]


def _holdings(chaos: Chaos) -> dict[str, int]:
    """Return what the instance holds."""
    pid = chaos.instance.pid
    return {
        "segments": len(chaos.instance.segments()),
        "processes": len(children(pid)),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


def _more(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [f"{what} {after[what] - count:+d}" for what, count in before.items() if after[what] > count]


def _left(chaos: Chaos, usual: dict[str, int]) -> list[str]:
    """Return what is held that was not before; an outbox that has just been emptied is closed a moment later."""
    more: list[str] = []

    def let_go() -> bool:
        more[:] = _more(usual, _holdings(chaos))
        return not more

    with suppress(TimeOverError):
        wait_until(let_go, "what was used is let go", 5.0)
    return more


def _drops(before: dict[str, Any], after: dict[str, Any]) -> str:
    total: dict[str, int] = {}
    for one, other in zip(before["streams"], after["streams"], strict=True):
        for reason, count in other["dropped"].items():
            total[reason] = total.get(reason, 0) + count - one["dropped"][reason]
    return ", ".join(f"{count} {reason}" for reason, count in total.items() if count) or "none"


def main() -> None:
    """Run the faults and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the order and the phases (default: 1)")
    parser.add_argument("--short", action="store_true", help="a handful of faults only")
    parser.add_argument("--all-phases", action="store_true", help="workers' faults in every phase")
    parser.add_argument("--only", metavar="TEXT", help="faults whose name has this in it, each phase of workers' too")
    chosen = parser.parse_args()
    _make_private()
    lacking = "a short run" if chosen.short else lacks()
    wanted = _wanted(chosen, random.Random(chosen.seed), rtsp=not lacking)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ[FOLDER] = str(folder)
        _mount_state(folder, stack)
        write_models(folder)
        set_clock(folder, 0.0)
        broker = stack.enter_context(Mosquitto(installed(), folder, UNBOUNDED))
        camera = stack.enter_context(Camera())
        rtsp = None if lacking else stack.enter_context(RtspCamera(SIZE, round(FPS)))
        name = f"chaos-{os.getpid()}"
        listener = stack.enter_context(Listener(broker.port, name))
        config = _config(folder, broker.port, camera, rtsp)
        instance = stack.enter_context(Instance(folder, name, config, ENTRY))
        chaos = Chaos(folder, instance, broker, listener, camera, rtsp)
        rows, bars = strike_all(chaos, wanted)
        bars += _last_bars(chaos)
    settings = {"seed": chosen.seed, "fps": FPS, "private_mounts": private(), "faults": len(rows)}
    settings |= {"no_rtsp": lacking}
    settings |= {"duplicates": listener.duplicates, "replayed": listener.replayed, "results": len(listener.results)}
    publish(Report("chaos", settings, rows, bars))
    sys.exit(0 if all(bar.met for bar in bars) else 1)


def _last_bars(chaos: Chaos) -> list[Bar]:
    """Stop the instance and look for what it left."""
    below = {pid: command_line(pid) for pid in children(chaos.instance.pid)}
    chaos.instance.send(signal.SIGTERM)
    code = chaos.instance.wait()
    locks = [path.name for path in (chaos.folder / "runtime" / "orion").iterdir()]
    trackers = {pid for pid, command in below.items() if "resource_tracker" in command}
    left = [*chaos.instance.segments(), *locks, *(below[pid] for pid in below.keys() - trackers if alive(pid))]
    with suppress(TimeOverError):
        # Python's own ends by itself once its pipe is closed, some milliseconds after the one that it served.
        wait_until(lambda: not any(map(alive, trackers)), "the resource tracker is gone", _TRACKER_S)
    left += [below[pid] for pid in trackers if alive(pid)]
    for what in left:
        sys.stderr.write(f"left at the end: {what}\n")
    return [Bar("exit code", code, 0), Bar("left at the end", len(left), 0)]


def _config(folder: Path, port: int, camera: Camera, rtsp: RtspCamera | None) -> dict[str, Any]:
    width, height = SIZE
    return {
        "streams": [
            {"stream_id": "cam0", "source": f"demo:{width}x{height}@{FPS:g}" if rtsp is None else rtsp.uri},
            {"stream_id": "cam1", "source": camera.uri},
        ],
        "models": {"person_detector": {"model_dir": str(folder), "size": "n"}},
        "attention": {"mode": "off"},
        "workers": {
            "count": 2,
            "threads": 1,
            "memory_limit_mb": 400,
            # The bounds are those of a first fault: the growing delays between many are another matter.
            "restart": {"immediate": 1000, "limit": 1000, "boot_attempts": 1000, "first_delay_s": 0.1},
        },
        "mqtt": {"broker": f"mqtt://{HOST}:{port}", "outbox": {"replay_delay_s": 1.5}},
    }


def _make_private() -> None:
    """Start this process anew with mounts of its own, where that is allowed."""
    unshare = shutil.which("unshare")
    if private() or unshare is None or os.geteuid() != 0:
        return
    script = f'mount -t tmpfs -o size={_SHARED_MB}m tmpfs /dev/shm && exec "$@"'
    command = [unshare, "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "benchmarks.chaos", *sys.argv[1:]]
    os.execve(unshare, command, os.environ | {PRIVATE: "1"})  # noqa: S606


def _mount_state(folder: Path, stack: ExitStack) -> None:
    """Give the outbox a small file system of its own."""
    state = folder / "state"
    state.mkdir()
    if private():
        os.spawnlp(os.P_WAIT, "mount", "mount", "-t", "tmpfs", "-o", f"size={_STATE_KB}k", "tmpfs", str(state))  # noqa: S606
        stack.callback(os.spawnlp, os.P_WAIT, "umount", "umount", str(state))


if __name__ == "__main__":
    main()
