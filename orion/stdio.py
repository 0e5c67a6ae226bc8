"""Standard input, output and error, as far as whoever started the process left them closed, full or without a reader.
Used where processes with a command line begin and end; imports nothing of the project but its exit codes.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from orion.errors import EXIT_GAVE_UP

_UNWRITABLE = {errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG, errno.EDQUOT}


def open_what_is_closed() -> None:
    """Give descriptors 0 to 2 something to be where they are closed, so that no file or socket ever takes their
    place. A closed output stays one that cannot be written to.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is taken, and the lower ones are open by now.
            os.set_inheritable(os.open(os.devnull, mode), True)
    # Python has None where a descriptor was closed at its start.
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def outlive_stderr() -> None:
    """Go on when standard error cannot be written to, and end with the exit code that there would be else: its reader
    may leave, and the work is more than the talk about it.
    """
    raw = _Stderr(2, "w", closefd=False)
    encoding, errors = sys.stderr.encoding, sys.stderr.errors
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=True)


class _Stderr(io.FileIO):
    def write(self, data: Any, /) -> int:
        """Write, or let it go nowhere: there is no other place to tell that."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def guarded(action: Callable[[], int]) -> int:
    """Return the exit code of `action` once its output is out; where that cannot be, say so in a line and return 1."""
    try:
        code = action()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left, and wants no more of it.
        return _discard()
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        sys.stderr.write(f"standard output cannot be written to: {error.strerror}\n")
        return _discard()
    return code


def _discard() -> int:
    """Let what is left go nowhere, or Python would complain once more when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return EXIT_GAVE_UP
