"""How a child process makes sure that it does not outlive its parent. Called in the child, from its main thread."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


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
