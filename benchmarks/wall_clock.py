"""A wall clock that jumps on request, for `benchmarks.chaos`: a process that was told of the folder and imports this
first goes by it in place of the machine's clock, which all processes share and a benchmark must not touch.
"""

import mmap
import os
import struct
import time
from pathlib import Path

FOLDER = "HAUNTED_FOLDER"
_FILE = "clock"
_OFFSET_NS = struct.Struct("q")
_machine_ns = time.time_ns


def set_clock(folder: Path, offset_s: float) -> None:
    """Put the clock of the processes that were told of the folder ahead of the machine's; before they start, too."""
    file = folder / _FILE
    with file.open("r+b" if file.exists() else "w+b") as opened:
        opened.write(_OFFSET_NS.pack(round(offset_s * 1e9)))


def _install(file: Path) -> None:
    with file.open("rb") as opened:
        # Mapped, since a descriptor now and then would look like one that was left.
        offset = mmap.mmap(opened.fileno(), _OFFSET_NS.size, access=mmap.ACCESS_READ)

    def time_ns() -> int:
        return _machine_ns() + int(_OFFSET_NS.unpack_from(offset)[0])

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


if FOLDER in os.environ and (_file := Path(os.environ[FOLDER]) / _FILE).exists():
    _install(_file)
