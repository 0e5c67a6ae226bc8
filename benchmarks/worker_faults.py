"""What goes wrong in a worker, in each phase of its life, for `benchmarks.chaos`."""

import os
import random
import signal
import time
from contextlib import suppress

from benchmarks.mischief import STREAMS, Chaos, Course, Fault
from benchmarks.mosquitto import TimeOverError, wait_until
from benchmarks.rig import alive, children

_PHASES = ("idle", "reading", "inferring", "loading", "preparing", "committing")
_FAULTS = ("sigkill", "sigsegv", "exit", "sigstop", "spin", "half", "malformed", "oversized", "version",
           "flood", "grow", "exception")  # fmt: skip


def worker_faults(chance: random.Random, *, all_phases: bool) -> list[Fault]:
    """Return every fault of a worker, in one phase that chance picks, or in all."""
    return [
        _fault(fault, phase) for fault in _FAULTS for phase in (_PHASES if all_phases else (chance.choice(_PHASES),))
    ]


def _fault(fault: str, phase: str) -> Fault:
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
