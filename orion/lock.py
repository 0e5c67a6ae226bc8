"""One instance, one lock: who holds `<instance_id>.lock` is the instance, and may remove what a killed run of it left
in shared memory. Held by the supervisor's main thread for the whole of a run; read by commands that look for a local
instance. The kernel lets go of the lock with its holder, however that ended.

    $XDG_RUNTIME_DIR/orion/<instance_id>.lock             where the system gives each user a folder of his own
    <temporary folder>/orion-<uid>/orion/<instance_id>.lock    else; private, and checked to be ours
"""

import fcntl
import json
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from orion.errors import InstanceRunningError, ResourceError

SHARED_MEMORY = Path("/dev/shm")

_MOST_BYTES = 64 * 1024
_PATIENCE_S = 0.5
"""How long a lock may be held by somebody who only looks, or who has not written yet who he is."""
_STEP_S = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LockInfo:
    """Who runs an instance; `broker` is the address where it publishes, None before it is known or without one."""

    pid: int
    run_id: str
    broker: str | None


class InstanceLock:
    """The lock of one instance as a context manager; entering raises InstanceRunningError when another holds it."""

    def __init__(
        self, instance_id: str, run_id: str, broker: str | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._instance_id = instance_id
        self._info = LockInfo(os.getpid(), run_id, broker)
        self._environ = environ
        self._path = Path()
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._path = _folder(self._environ) / f"{self._instance_id}.lock"
        self._descriptor = _acquire(self._path, self._instance_id)
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock up and remove its file. Twice is once."""
        if self._descriptor < 0:
            return
        # Removed while it is held: who opened the file before finds another one in its place, and tries again.
        if _is_at(self._path, self._descriptor):
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def update(self, broker: str | None) -> None:
        """Record where the instance publishes now."""
        self._info = LockInfo(self._info.pid, self._info.run_id, broker)
        self._write()

    def _write(self) -> None:
        record = json.dumps(asdict(self._info)).encode() + b"\n"
        # Readers take the first line: written at once, and only then freed of what a longer record left behind it.
        os.ftruncate(self._descriptor, os.pwrite(self._descriptor, record, 0))


def read_lock(instance_id: str, environ: Mapping[str, str] = os.environ) -> LockInfo | None:
    """Return who runs the instance on this machine, None if nobody does. Raises ResourceError on an unsafe folder."""
    path = _folder(environ) / f"{instance_id}.lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while _is_held(descriptor):
            holder = _read(descriptor)
            if holder is not None or time.monotonic() >= deadline:
                return holder
            time.sleep(_STEP_S)
    finally:
        os.close(descriptor)
    return None


def running_instances(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the ids of this user's instances that run on this machine. Raises ResourceError on an unsafe folder."""
    ids = sorted(path.stem for path in _folder(environ).glob("*.lock"))
    return [instance_id for instance_id in ids if read_lock(instance_id, environ) is not None]


def remove_leftover_segments(instance_id: str, run_id: str, folder: Path = SHARED_MEMORY) -> list[str]:
    """Remove the shared-memory segments that other runs of this instance left; return their names.

    Only for who holds the instance's lock. A segment is `orion.<instance_id>.<run_id>.<n>`; ids have no dots. Those of
    other users stay: locks are each user's own, so that an instance of theirs may be alive. So do those that somebody
    holds locked: this user's other instance of the same id, whose own lock lies in another folder.
    """
    ours = re.compile(rf"orion\.{re.escape(instance_id)}\.([^.]+)\.[0-9]+")
    removed = []
    for path in sorted(folder.iterdir()):
        match = ours.fullmatch(path.name)
        if match is None or match[1] == run_id:
            continue
        with suppress(FileNotFoundError):
            # The kernel would let root remove them all.
            if path.lstat().st_uid != os.getuid():
                _log.warning("%s bears this instance's name and belongs to another user: left as it is", path)
                continue
            if not _remove_unheld(path):
                _log.warning("%s belongs to another run of this instance, which is alive: left as it is", path)
                continue
        removed.append(path.name)
    return removed


def _remove_unheld(path: Path) -> bool:
    """Remove a file unless somebody holds it locked; return whether it is gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the locks, made if need be; nobody else may write there."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if Path(runtime).is_absolute() and Path(runtime).is_dir():
        return _private(Path(runtime) / "orion")
    return _private(_private(Path(tempfile.gettempdir()) / f"orion-{os.getuid()}") / "orion")


def _private(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ResourceError(f"{folder}: no folder for the instance's lock: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ResourceError(f"{folder}: must be a folder of this user, with mode 0700; remove it")
    return folder


def _acquire(path: Path, instance_id: str) -> int:
    """Open and lock the file; return its descriptor."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(descriptor)
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise _running(instance_id, path, holder) from None
            time.sleep(_STEP_S)
            continue
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ResourceError(f"{path}: the instance's lock cannot be opened: {error.strerror}") from error


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether the open file is still the one at `path`: its last holder removed it when he left."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(descriptor: int) -> LockInfo | None:
    """Return what the holder wrote, None if he has not yet."""
    try:
        return LockInfo(**json.loads(os.pread(descriptor, _MOST_BYTES, 0).partition(b"\n")[0]))
    except (ValueError, TypeError):
        return None


def _running(instance_id: str, path: Path, holder: LockInfo | None) -> InstanceRunningError:
    who = f"as process {holder.pid}" if holder else "as another process"
    return InstanceRunningError(
        f"instance {instance_id!r} is already running {who} (lock {path}); "
        "stop it, or give this one another --instance-id"
    )
