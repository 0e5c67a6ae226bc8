"""The instance's lock between real processes that come and go, and segments of instances whose names are alike."""

import subprocess
import sys
from pathlib import Path

from orion.lock import remove_leftover_segments
from orion.ring import Ring
from tests.instances import LIMIT_S, environment

_CONTENDER = """
import os, sys
from orion.errors import InstanceRunningError
from orion.lock import InstanceLock

taken = 0
while taken < 2000:
    try:
        with InstanceLock("shared", "run"):
            os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
            os.unlink(sys.argv[1])
            taken += 1
    except InstanceRunningError:
        pass
"""


def test_only_one_of_many_holds_the_lock_at_any_time(tmp_path: Path) -> None:
    """Each makes and removes one file while it holds the lock, and fails if the file is there already."""
    command = [sys.executable, "-c", _CONTENDER, str(tmp_path / "critical")]
    contenders = [
        subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    try:
        errors = [process.communicate(timeout=LIMIT_S)[1] for process in contenders]
    finally:
        for process in contenders:
            process.kill()
            process.wait()
    assert [process.returncode for process in contenders] == [0, 0, 0], errors
    assert list((tmp_path / "runtime" / "orion").iterdir()) == []


def test_segments_of_an_instance_with_a_longer_name_stay() -> None:
    """`lock-a` and `lock-a-2` are both alive; of the first, an older run has left something."""
    names = ["orion.lock-a.old.0", "orion.lock-a.new.0", "orion.lock-a-2.old.0"]
    rings = [Ring(name, 64, 48, 3) for name in names]
    try:
        assert remove_leftover_segments("lock-a", "new") == names[:1]
        left = {path.name for path in Path("/dev/shm").glob("orion.lock-a*")}
        assert left == set(names[1:])
    finally:
        for ring in rings:
            ring.close()
