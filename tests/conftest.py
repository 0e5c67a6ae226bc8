"""What every test shares: where test data and optional programs are found, and a guard against leftovers."""

import contextlib
import logging
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orion import log

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_MEMORY = Path("/dev/shm")


def testdata_path() -> Path | None:
    """Return the folder of real models, videos and reference detections, or None where there is none."""
    named = os.environ.get("ORION_TESTDATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "testdata"
    return folder if folder.is_dir() else None


def missing(what: str) -> None:
    """Skip the calling test because `what` is absent; in CI, where everything is installed, fail it instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def testdata() -> Path:
    """Return the test data's folder, or skip with the reason."""
    folder = testdata_path()
    if folder is None:
        pytest.skip("needs the test data: a folder ../shared/testdata, or the one that ORION_TESTDATA names")
    return folder


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """Return a function that finds a program, or skips and names the Debian package that has it."""

    def find(name: str, package: str) -> str:
        path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if path is None:
            missing(f"the program {name} (Debian package {package})")
        assert path is not None
        return path

    return find


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a command does to the log that is run in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in log.PROJECT}
    yield
    ours = [handler for handler in root.handlers if isinstance(handler, log.CollapsingHandler)]
    if not ours:
        return
    logging.captureWarnings(capture=False)
    for handler in ours:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def _descendants() -> dict[int, str]:
    """Return the living processes below this one, by pid. Zombies and multiprocessing's own tracker do not count."""
    listing = subprocess.run(["ps", "-wweo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    parents: dict[int, tuple[int, str, str]] = {}
    for line in listing.stdout.splitlines():
        pid, ppid, stat, args = line.split(None, 3)
        parents[int(pid)] = (int(ppid), stat, args)
    found: dict[int, str] = {}
    frontier = {os.getpid()}
    while frontier:
        frontier = {pid for pid, (ppid, _, _) in parents.items() if ppid in frontier}
        found |= {pid: parents[pid][2] for pid in frontier if not parents[pid][1].startswith("Z")}
    return {pid: args for pid, args in found.items() if "resource_tracker" not in args and "ps -wweo" not in args}


def _segments() -> set[str]:
    """Return the segments in shared memory that are not another living program's, which may run beside the tests."""
    ours = {path.name for path in SHARED_MEMORY.iterdir() if _owner(path) == os.getuid()}
    orions = {name for name in ours if name.startswith("orion")}
    return ours - _mapped_elsewhere() if orions else ours


def _owner(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_uid
    return None


def _mapped_elsewhere() -> set[str]:
    """Return the names of the segments that processes have mapped which are not below this one."""
    below = {os.getpid(), *_descendants()}
    names: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        if int(maps.parent.name) not in below:
            with contextlib.suppress(OSError):
                names |= set(re.findall(rf"{SHARED_MEMORY}/(\S+)", maps.read_text()))
    return names


def _tree() -> set[str]:
    listing = subprocess.run(
        ["git", "status", "--porcelain", "--ignored=no"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return {line for line in listing.stdout.splitlines() if line.startswith("??")}


def _left_over(before: tuple[set[int], set[threading.Thread], set[str]]) -> str:
    processes = {pid: args for pid, args in _descendants().items() if pid not in before[0]}
    threads = {thread.name for thread in threading.enumerate() if thread not in before[1] and not thread.daemon}
    segments = {name for name in _segments() - before[2] if name.startswith("orion")}
    parts = [("processes", processes), ("threads", threads), ("segments", segments)]
    return ", ".join(f"{what} {left}" for what, left in parts if left)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what a run finds out of this machine for the next one away from the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail any test that leaves a process, a thread, or a shared-memory segment."""
    before = (set(_descendants()), set(threading.enumerate()), _segments())
    yield
    deadline = time.monotonic() + 5.0
    while (left := _left_over(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="session")
def files_in_the_tree() -> set[str]:
    """Return the untracked files that are known of: those from before the first test, and those already told."""
    return _tree()


@pytest.fixture(autouse=True)
def no_file_left_in_the_tree(files_in_the_tree: set[str]) -> Iterator[None]:
    """Fail any test in CI that leaves a file in the tree; elsewhere a person may be editing meanwhile."""
    yield
    if os.environ.get("CI") == "true":
        left = _tree() - files_in_the_tree
        files_in_the_tree |= left
        assert not left, f"files left in the tree: {left}"
