"""The instance's lock: one holder, who can be found, and nothing of others is touched."""

import fcntl
import json
import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from orion.errors import InstanceRunningError, ResourceError
from orion.lock import InstanceLock, LockInfo, read_lock, remove_leftover_segments


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


def test_the_holder_can_be_read_until_it_leaves(tmp_path: Path, environ: Mapping[str, str]) -> None:
    with InstanceLock("hall", "run1", environ=environ) as held:
        assert read_lock("hall", environ) == LockInfo(os.getpid(), "run1", None)
        held.update(broker="mqtt://127.0.0.1:1884")
        assert read_lock("hall", environ) == LockInfo(os.getpid(), "run1", "mqtt://127.0.0.1:1884")
        text = (tmp_path / "orion" / "hall.lock").read_text()
        assert json.loads(text) == {"pid": os.getpid(), "run_id": "run1", "broker": "mqtt://127.0.0.1:1884"}
    assert read_lock("hall", environ) is None
    assert list((tmp_path / "orion").iterdir()) == []


def test_a_shorter_record_replaces_a_longer_one(environ: Mapping[str, str]) -> None:
    with InstanceLock("hall", "run1", broker=f"mqtt://{'h' * 3000}", environ=environ) as held:
        held.update(broker=None)
        assert read_lock("hall", environ) == LockInfo(os.getpid(), "run1", None)


def test_a_second_one_names_the_first(environ: Mapping[str, str]) -> None:
    with (
        InstanceLock("hall", "run1", environ=environ),
        pytest.raises(InstanceRunningError, match=f"'hall' is already running as process {os.getpid()} ") as caught,
        InstanceLock("hall", "run2", environ=environ),
    ):
        pytest.fail("two hold the lock")
    assert caught.value.exit_code == 4


def test_other_instances_have_locks_of_their_own(environ: Mapping[str, str]) -> None:
    with InstanceLock("cam", "run1", environ=environ), InstanceLock("cam-2", "run2", environ=environ):
        found = [read_lock("cam", environ), read_lock("cam-2", environ)]
    assert [info.run_id for info in found if info] == ["run1", "run2"]


def test_the_file_of_a_killed_run_holds_nobody_up(tmp_path: Path, environ: Mapping[str, str]) -> None:
    left = tmp_path / "orion" / "hall.lock"
    left.parent.mkdir(mode=0o700)
    left.write_text(json.dumps({"pid": 1, "run_id": "killed", "broker": None, "more": "x" * 2000}))
    assert read_lock("hall", environ) is None
    with InstanceLock("hall", "run1", environ=environ):
        found = read_lock("hall", environ)
        assert found is not None
        assert found.run_id == "run1"


def test_who_only_looks_does_not_keep_others_out(tmp_path: Path, environ: Mapping[str, str]) -> None:
    """A reader holds a shared lock for an instant; who wants to run meets it, and waits."""
    left = tmp_path / "orion" / "hall.lock"
    left.parent.mkdir(mode=0o700)
    left.touch()
    with left.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        letting_go = threading.Timer(0.05, fcntl.flock, (reader, fcntl.LOCK_UN))
        letting_go.start()
        with InstanceLock("hall", "run1", environ=environ):
            assert read_lock("hall", environ) is not None
        letting_go.join()


def test_who_opened_the_file_before_it_was_removed_tries_again(
    tmp_path: Path, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a second one's open and its lock, the first leaves and removes the file: the lock got is of no file."""
    first = InstanceLock("hall", "run1", environ=environ)
    real_flock = fcntl.flock
    left: list[bool] = []

    def leave_first(descriptor: int, operation: int) -> None:
        if not left:
            left.append(True)
            first.release()
        real_flock(descriptor, operation)

    with first:
        monkeypatch.setattr(fcntl, "flock", leave_first)
        with InstanceLock("hall", "run2", environ=environ):
            monkeypatch.undo()
            found = read_lock("hall", environ)
            assert found is not None
            assert found.run_id == "run2"
            assert (tmp_path / "orion" / "hall.lock").exists()


def test_leaving_removes_only_its_own_file(tmp_path: Path, environ: Mapping[str, str]) -> None:
    path = tmp_path / "orion" / "hall.lock"
    with InstanceLock("hall", "run1", environ=environ):
        path.unlink()
        path.write_text("of another")
    assert path.read_text() == "of another"


def test_without_a_runtime_folder_a_private_one_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private = tmp_path / f"orion-{os.getuid()}"
    for environ in ({}, {"XDG_RUNTIME_DIR": str(tmp_path / "absent")}, {"XDG_RUNTIME_DIR": "relative"}):
        with InstanceLock("hall", "run1", environ=environ):
            assert (private / "orion" / "hall.lock").exists()
            assert private.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_could_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private = tmp_path / f"orion-{os.getuid()}"
    private.mkdir()
    private.chmod(0o777)
    with pytest.raises(ResourceError, match="must be a folder of this user"), InstanceLock("hall", "run1", environ={}):
        pytest.fail("the lock was taken")
    private.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    private.symlink_to(elsewhere)
    with pytest.raises(ResourceError, match="must be a folder of this user"):
        read_lock("hall", environ={})


def test_leftovers_are_those_of_the_same_instance_and_another_run(tmp_path: Path) -> None:
    leftovers = ["orion.cam.run1.0", "orion.cam.run1.12", "orion.cam.run2.0"]
    others = [
        *("orion.cam.now.0", "orion.cam-2.run1.0", "orion.cam2.run1.0", "orion.ca.run1.0", "orion.xcam.run1.0"),
        *(
            "orion.cam",
            "orion.cam.run1",
            "orion.cam.run1.x",
            "orion.cam.run1.0.bak",
            "xorion.cam.run1.0",
            "orionxcam.run1.0",
        ),
    ]
    for name in (*leftovers, *others):
        (tmp_path / name).touch()
    assert remove_leftover_segments("cam", "now", tmp_path) == leftovers
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_segments_that_somebody_holds_locked_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("orion.cam.alive.0", "orion.cam.dead.0"):
        (tmp_path / name).touch()
    with (tmp_path / "orion.cam.alive.0").open() as segment:
        fcntl.flock(segment, fcntl.LOCK_EX)
        assert remove_leftover_segments("cam", "now", tmp_path) == ["orion.cam.dead.0"]
    assert "orion.cam.alive.0 belongs to another run of this instance, which is alive" in caplog.text
    assert remove_leftover_segments("cam", "now", tmp_path) == ["orion.cam.alive.0"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user, and remove them")
def test_segments_of_another_user_stay_even_for_root(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("orion.cam.mine.0", "orion.cam.theirs.0"):
        (tmp_path / name).touch()
    os.chown(tmp_path / "orion.cam.theirs.0", 65534, 65534)
    assert remove_leftover_segments("cam", "now", tmp_path) == ["orion.cam.mine.0"]
    assert [path.name for path in tmp_path.iterdir()] == ["orion.cam.theirs.0"]
    assert "orion.cam.theirs.0" in caplog.text
