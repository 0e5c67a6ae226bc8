"""The ring's memory: geometry, generations, who may write, and what happens when there is too little of it."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from orion import ring as ring_module
from orion.errors import SharedMemoryError, TornFrameError
from orion.ring import Ring, RingView, bytes_free, bytes_needed
from tests.conftest import REPOSITORY

NAME = f"orion.test.{os.getpid()}.0"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 64), (641, 479), (1920, 1080)])
def test_slots_are_page_aligned_and_hold_what_was_written(width: int, height: int) -> None:
    ring = Ring(NAME, width, height, 3)
    view = RingView(NAME)
    try:
        for index in range(3):
            pixels = ring.begin(index)
            assert pixels.ctypes.data % 4096 == 0
            assert pixels.flags.c_contiguous
            pixels[:] = index + 1
            generation = ring.finish(index)
            seen = view.read(index, generation)
            assert seen.shape == (height, width, 3)
            assert (seen == index + 1).all()
        del seen, pixels
        size = Path("/dev/shm", NAME).stat()
        assert size.st_size >= bytes_needed(width, height, 3)
        assert size.st_blocks * 512 >= bytes_needed(width, height, 3), "the memory was not allocated"
    finally:
        view.close()
        assert ring.close()


def test_a_worker_cannot_write() -> None:
    ring = Ring(NAME, 8, 8, 3)
    view = RingView(NAME)
    try:
        ring.begin(0)
        pixels = view.read(0, ring.finish(0))
        with pytest.raises(ValueError, match="read-only"):
            pixels[0] = 1
        del pixels
    finally:
        view.close()
        ring.close()


def test_stale_and_half_written_generations_are_refused() -> None:
    ring = Ring(NAME, 8, 8, 3)
    view = RingView(NAME)
    try:
        ring.begin(0)
        first = ring.finish(0)
        ring.begin(0)
        with pytest.raises(TornFrameError):
            view.read(0, first)
        with pytest.raises(TornFrameError):
            view.read(0, ring.finish(0) + 2)
        with pytest.raises(SharedMemoryError, match="no slot 3"):
            view.read(3, 0)
    finally:
        view.close()
        ring.close()


def test_too_little_memory_names_needed_free_and_what_to_do() -> None:
    before = set(Path("/dev/shm").iterdir())
    width = bytes_free() // 3 // 1000
    with pytest.raises(SharedMemoryError, match=r"MB needed, .* MB free .*--shm-size"):
        Ring(NAME, width, 2000, 3)
    assert set(Path("/dev/shm").iterdir()) == before


def test_a_segment_that_is_no_ring_is_refused() -> None:
    path = Path("/dev/shm", NAME)
    for content in (b"", b"x" * 100, b"x" * 8192):
        path.write_bytes(content)
        try:
            with pytest.raises(SharedMemoryError, match=NAME):
                RingView(NAME)
        finally:
            path.unlink()
    with pytest.raises(SharedMemoryError, match="No such file"):
        RingView(NAME)


def test_closing_waits_for_nobody() -> None:
    ring = Ring(NAME, 8, 8, 3)
    held = ring.begin(0)
    assert not ring.close(), "a mapping in use cannot go"
    assert not Path("/dev/shm", NAME).exists()
    held[:] = 1
    del held
    assert ring.close()
    assert ring.close()


def test_a_name_that_somebody_else_removed_is_missed_and_no_trouble_at_the_end() -> None:
    script = f"""
import os
from orion.ring import Ring
ring = Ring({NAME!r}, 8, 8, 3)
assert ring.named
os.unlink("/dev/shm/{NAME}")
assert not ring.named
ring.unlink()
assert ring.close()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_ring_is_locked_as_long_as_it_is_open_and_its_descriptors_go_with_it() -> None:
    Ring(NAME, 8, 8, 3).close()  # starts the resource tracker, which has a descriptor, too
    before = descriptors()
    ring = Ring(NAME, 8, 8, 3)
    try:
        with Path("/dev/shm", NAME).open() as segment:
            with pytest.raises(BlockingIOError):
                fcntl.flock(segment, fcntl.LOCK_SH | fcntl.LOCK_NB)
            assert ring.close()
            fcntl.flock(segment, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        ring.close()
    assert descriptors() == before


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_slots_are_limited() -> None:
    for slots in (0, 2, ring_module.MAX_SLOTS + 1):
        with pytest.raises(SharedMemoryError, match=r"ring\.slots"):
            Ring(NAME, 8, 8, slots)


def test_opencv_reads_a_view_in_place() -> None:
    ring = Ring(NAME, 16, 8, 3)
    view = RingView(NAME)
    try:
        ring.begin(0)[:] = 7
        seen = view.read(0, ring.finish(0))
        out = np.empty((4, 8, 3), np.uint8)
        assert cv2.resize(seen, (8, 4), dst=out) is out
        assert (out == 7).all()
        del seen
    finally:
        view.close()
        ring.close()


def test_the_readmes_table_of_sizes_is_what_rings_take() -> None:
    rows = re.findall(
        r"^\| (\d+)x(\d+) \| ([\d.]+) MB \| ([\d.]+) MB \|$", (REPOSITORY / "README.md").read_text(), re.MULTILINE
    )
    assert len(rows) >= 4
    for width, height, four, three in rows:
        for slots, told in ((4, four), (3, three)):
            assert f"{bytes_needed(int(width), int(height), slots) / 1e6:.1f}" == told, f"{width}x{height}"
