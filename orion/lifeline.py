"""How a child process lives as long as its parent wants it to: signals to the whole group do not end it, the parent's
death does. The parent's main thread spawns it in `spawning`, the rest is called in the child, from its main thread.
"""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker

from orion.signals import STOPPING, held_back

_PR_SET_PDEATHSIG = 1
_WARNINGS = "PYTHONWARNINGS"


@contextmanager
def spawning() -> Iterator[None]:
    """Spawn a process inside, which calls `ignore_stop_signals` first: no signal can end it before that."""
    # Python's own helper comes with the first child, and lets SIGINT and SIGTERM through when it is started.
    with held_back():
        resource_tracker.ensure_running()
    with held_back():
        yield


def start_tracker() -> None:
    """Start Python's resource tracker, which removes the segments of a killed parent, in such a way that it does so
    without a word on stderr. Before any other thread is there, since the environment is changed for a moment.
    """
    given = os.environ.get(_WARNINGS)
    os.environ[_WARNINGS] = "ignore:resource_tracker:UserWarning"
    # A machine that has no process to give is told of by whoever needs one.
    with suppress(OSError), held_back():
        resource_tracker.ensure_running()
    del os.environ[_WARNINGS]
    if given is not None:
        os.environ[_WARNINGS] = given


def ignore_stop_signals() -> None:
    """Ignore what terminals and service managers send to the whole group: the parent decides when this process goes."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process, stopped or not, when the thread that spawned it ends.

    `parent_pid` is the parent's pid as the parent knew it: had the parent died before the request was in place, nobody
    would send the signal, so this process then leaves at once. Errors: OSError if the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)
