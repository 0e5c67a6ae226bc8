"""Pixels between processes: a ring of frame slots in one shared-memory segment. The supervisor process creates, writes
and unlinks it (`Ring`); a worker process maps it read-only (`RingView`). Who may touch which slot, and when, is the
ledger's business (`orion.ledger`); the generation numbers here only let a reader prove that what it read was whole.

    offset 0      header page, 4096 bytes
                    0   magic     8 bytes  b"ORIONRNG"
                    8   version   u32      1
                    12  width     u32      pixels
                    16  height    u32      pixels
                    20  slots     u32      3 .. 63
                    64  generation of slot 0   u64, one cache line for each slot
                    128 generation of slot 1   ...
    offset 4096   slot 0: height rows of width * 3 bytes, BGR24, no padding between rows
                  slot 1: at the next multiple of 4096, and so on

A generation is odd while its slot is being written and even when the picture is whole; it only grows. FREE -> WRITING
makes it odd, WRITING -> WAITING makes it even, and nothing else changes it. The frame message carries the even number.
"""

import errno
import fcntl
import mmap
import os
import struct
from contextlib import ExitStack, suppress
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from orion.errors import SharedMemoryError, TornFrameError
from orion.messages import Pixels

SHARED_MEMORY = Path("/dev/shm")
PAGE = 4096
MIN_SLOTS = 3
"""One that is written, one that waits, one that is leased."""
MAX_SLOTS = (PAGE - 64) // 64

_MAGIC = b"ORIONRNG"
_VERSION = 1
_HEADER = struct.Struct("<8sIIII")


def bytes_needed(width: int, height: int, slots: int) -> int:
    """Return the size in bytes of a ring's segment: the header page and `slots` page-aligned BGR24 pictures."""
    return PAGE + slots * _slot_bytes(width, height)


def bytes_free() -> int:
    """Return how many bytes of shared memory are free on this machine, or in this container."""
    usage = os.statvfs(SHARED_MEMORY)
    return usage.f_bavail * usage.f_frsize


def _slot_bytes(width: int, height: int) -> int:
    return -(-width * height * 3 // PAGE) * PAGE


class _Layout:
    """The arrays that lie in a mapped segment; both sides see it through this."""

    def __init__(self, buffer: "memoryview[int] | mmap.mmap", width: int, height: int, slots: int) -> None:
        self.width, self.height, self.slots = width, height, slots
        # As plain numbers: a step through numpy takes several times as long.
        self.generations = memoryview(buffer)[64 : 64 + 64 * slots].cast("B").cast("Q")[::8]
        step = _slot_bytes(width, height)
        # frombuffer and not ndarray(buffer=...): only the former holds the mapping, so that closing it too early fails.
        self.pixels: tuple[Pixels, ...] = tuple(
            np.frombuffer(buffer, np.uint8, width * height * 3, PAGE + index * step).reshape(height, width, 3)
            for index in range(slots)
        )


class Ring:
    """The owner's side: create, write, unlink. One thread writes; any thread may close.

    Raises SharedMemoryError when the segment cannot be had in full. The memory is allocated at once, so that a full
    /dev/shm is an error here and never a bus error while a picture is written. A descriptor that holds a lock on the
    segment stays open as long as the ring, so that nobody takes it for what a killed run has left.
    """

    def __init__(self, name: str, width: int, height: int, slots: int) -> None:
        if not MIN_SLOTS <= slots <= MAX_SLOTS:
            raise SharedMemoryError(f"ring.slots must be {MIN_SLOTS} to {MAX_SLOTS}, not {slots}")
        self.name = name
        memory, self._descriptor = _allocate(name, bytes_needed(width, height, slots))
        self._memory: SharedMemory | None = memory
        buffer = memory.buf
        assert buffer is not None
        self._layout: _Layout | None = _Layout(buffer, width, height, slots)
        _HEADER.pack_into(buffer, 0, _MAGIC, _VERSION, width, height, slots)
        self._unlinked = False

    @property
    def named(self) -> bool:
        """Return whether the name is still there. Whoever has mapped the ring needs none, whoever is to does."""
        return (SHARED_MEMORY / self.name).exists()

    @property
    def layout(self) -> _Layout:
        """Return the mapped arrays; only valid while the ring is open."""
        assert self._layout is not None, f"ring {self.name} is closed"
        return self._layout

    @property
    def slots(self) -> int:
        """Return the number of slots."""
        return self.layout.slots

    def begin(self, index: int) -> Pixels:
        """Mark slot `index` as being written and return its pixels (height, width, 3) uint8 BGR, writable."""
        layout = self.layout
        layout.generations[index] = (layout.generations[index] + 1) | 1
        return layout.pixels[index]

    def finish(self, index: int) -> int:
        """Mark slot `index` as whole and return its generation, which goes with the frame's message."""
        layout = self.layout
        generation = (layout.generations[index] | 1) + 1
        layout.generations[index] = generation
        return generation

    def peek(self, index: int) -> Pixels:
        """Return the pixels of a slot that the caller owns by lease."""
        return self.layout.pixels[index]

    def unlink(self) -> None:
        """Remove the segment's name; the memory goes when the last process unmaps it. Twice is once."""
        if self._memory is None or self._unlinked:
            return
        _remove(self._memory)
        self._unlinked = True

    def close(self) -> bool:
        """Unlink and unmap. Return False when a view is still in use elsewhere and the mapping had to stay."""
        if self._memory is None:
            return True
        self.unlink()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self._layout = None
        try:
            self._memory.close()
        except BufferError:
            return False
        self._memory = None
        return True


class RingView:
    """The guest's side: a read-only mapping, so that a worker cannot harm a picture whatever it does.

    Plain mmap and not SharedMemory: before Python 3.13 the latter registers the guest with the resource tracker, which
    would unlink the owner's segment when the guest dies. Raises SharedMemoryError if the segment is not a ring.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            descriptor = os.open(SHARED_MEMORY / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SharedMemoryError(f"shared memory {name}: {error.strerror}") from error
        try:
            size = os.fstat(descriptor).st_size
            if size < PAGE:
                raise SharedMemoryError(f"shared memory {name}: {size} bytes are no ring")
            self._map = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        magic, version, width, height, slots = _HEADER.unpack_from(self._map, 0)
        if magic != _MAGIC or version != _VERSION or size < bytes_needed(width, height, slots):
            self._map.close()
            raise SharedMemoryError(f"shared memory {name}: not a ring of version {_VERSION}")
        self._layout: _Layout | None = _Layout(self._map, width, height, slots)

    def read(self, index: int, generation: int) -> Pixels:
        """Return a read-only view of slot `index`, (height, width, 3) uint8 BGR, no copy.

        Call `check` with the same numbers when done: only then is what was read known to be one picture. Raises
        TornFrameError if the slot holds another generation already, SharedMemoryError if there is no such slot.
        """
        assert self._layout is not None, f"ring {self.name} is closed"
        if not 0 <= index < self._layout.slots:
            raise SharedMemoryError(f"shared memory {self.name} has no slot {index}")
        self.check(index, generation)
        return self._layout.pixels[index]

    def check(self, index: int, generation: int) -> None:
        """Raise TornFrameError unless slot `index` still holds `generation`."""
        assert self._layout is not None, f"ring {self.name} is closed"
        found = self._layout.generations[index]
        if found != generation:
            raise TornFrameError(f"{self.name} slot {index}: generation {found}, expected {generation}")

    def close(self) -> None:
        """Unmap. Views that are still held keep the mapping alive until they go."""
        self._layout = None
        with suppress(BufferError):
            self._map.close()


def _allocate(name: str, size: int) -> tuple[SharedMemory, int]:
    """Create a segment; return it with the descriptor that holds its lock."""
    try:
        memory = SharedMemory(name, create=True, size=size)
    except OSError as error:
        raise _too_little(size, error) from error
    with ExitStack() as undo:
        undo.callback(_remove, memory)
        undo.callback(memory.close)
        try:
            descriptor = os.open(SHARED_MEMORY / name, os.O_RDWR | os.O_CLOEXEC)
            undo.callback(os.close, descriptor)
            # Who looks whether the segment is a leftover holds the lock for a moment.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            raise _too_little(size, error) from error
        undo.pop_all()
    return memory, descriptor


def _remove(memory: SharedMemory) -> None:
    try:
        memory.unlink()
    except FileNotFoundError:
        # Somebody else has removed it, and the tracker, which only `unlink` tells, would complain at the end.
        resource_tracker.unregister(f"/{memory.name}", "shared_memory")


def _too_little(size: int, error: OSError) -> SharedMemoryError:
    if error.errno not in {errno.ENOSPC, errno.ENOMEM, errno.EFBIG}:
        return SharedMemoryError(f"shared memory cannot be created: {error}")
    return SharedMemoryError(
        f"shared memory too small: {size / 1e6:.1f} MB needed, {bytes_free() / 1e6:.1f} MB free in {SHARED_MEMORY}. "
        "Free some, lower ring.slots or the camera's resolution, enlarge it (mount -o remount,size=... /dev/shm), "
        "or in a container start it with --shm-size"
    )
