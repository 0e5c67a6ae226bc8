"""The instance's lock between real processes that come and go, and segments of instances whose names are alike."""

import subprocess
import sys
from pathlib import Path

from orion.lock import remove_leftover_segments
from orion.ring import Ring
from tests.instances import LIMIT_S, environment, running

SMALL = "demo:320x240@10"

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
    names = ["orion.lock-a.new.0", "orion.lock-a-2.old.0"]
    left_over = Path("/dev/shm/orion.lock-a.old.0")
    left_over.touch()
    rings = [Ring(name, 64, 48, 3) for name in names]
    try:
        assert remove_leftover_segments("lock-a", "new") == [left_over.name]
        left = {path.name for path in Path("/dev/shm").glob("orion.lock-a*")}
        assert left == set(names)
    finally:
        left_over.unlink(missing_ok=True)
        for ring in rings:
            ring.close()


def test_a_run_that_does_not_see_the_others_lock_leaves_its_segments(tmp_path: Path) -> None:
    """As where a service and a person start the same instance, each with a runtime folder of its own."""
    folders = tmp_path / "service", tmp_path / "person"
    for folder in folders:
        folder.mkdir()
    with running(folders[0], "--source", SMALL) as first:
        first.await_results(1)
        segments = first.segments()
        with running(folders[1], "--source", SMALL) as second:
            second.await_results(1)
            assert [name for name in second.segments() if name in segments] == segments != []
            assert f"{segments[0]} belongs to another run of this instance, which is alive" in second.errors()
            assert second.stop() == 0
        assert first.segments() == segments
        assert first.stop() == 0
        assert "removed" not in first.errors() + second.errors()
