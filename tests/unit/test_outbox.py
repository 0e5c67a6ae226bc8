"""The outbox's file: what it holds, what becomes of it, and what is done about one that cannot be read."""

import resource
import sqlite3
import stat
from pathlib import Path

import pytest

from orion.outbox import Outbox, OutboxError, OutgoingMessage


def messages(*numbers: int) -> list[OutgoingMessage]:
    return [OutgoingMessage(f"topic/{number}", bytes([number]), number % 3) for number in numbers]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cam" / "outbox.sqlite3"


def test_messages_come_back_in_order_after_a_restart(path: Path) -> None:
    first = Outbox(path, 100)
    assert first.append(messages(1, 2, 3)) == ([1, 2, 3], 0)
    assert first.append(messages(4)) == ([4], 0)
    first.remove([2])
    first.close()
    second = Outbox(path, 100)
    assert second.recover() is None
    assert (len(second), second.last_row) == (3, 4)
    assert second.read(0, 100) == [(1, messages(1)[0]), (3, messages(3)[0]), (4, messages(4)[0])]
    assert second.read(1, 1) == [(3, messages(3)[0])]
    second.remove([1, 2, 3, 4, 99])
    assert len(second) == 0
    second.close()


def test_nothing_is_touched_while_there_is_nothing_to_keep(path: Path) -> None:
    outbox = Outbox(path, 100)
    assert outbox.recover() is None
    outbox.close()
    assert not path.parent.parent.exists()


@pytest.mark.parametrize("how", ["close", "clear", "recover"])
def test_an_empty_outbox_leaves_no_file(path: Path, how: str) -> None:
    outbox = Outbox(path, 100)
    outbox.append(messages(1))
    if how == "clear":
        outbox.clear()
    else:
        outbox.remove([1])
        assert path.exists()
        if how == "recover":
            assert outbox.recover() is None
        outbox.close()
    assert list(path.parent.iterdir()) == []
    assert (len(outbox), outbox.last_row) == (0, 0)


def test_only_its_owner_may_read_it(path: Path) -> None:
    outbox = Outbox(path, 100)
    outbox.append(messages(1))
    modes = [stat.S_IMODE(file.stat().st_mode) for file in [path.parent, *path.parent.iterdir()]]
    assert all(mode & 0o077 == 0 for mode in modes), modes
    outbox.close()


def test_the_oldest_make_room(path: Path) -> None:
    outbox = Outbox(path, 3)
    assert outbox.append(messages(1, 2)) == ([1, 2], 0)
    assert outbox.append(messages(3, 4)) == ([3, 4], 1)
    assert [row for row, _ in outbox.read(0, 10)] == [2, 3, 4]
    assert outbox.append(messages(5, 6, 7, 8))[1] == 4
    assert [row for row, _ in outbox.read(0, 10)] == [6, 7, 8]
    assert len(outbox) == 3
    outbox.close()


def _damage_half(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xa5" * (len(content) - len(content) // 2)
    path.write_bytes(content)


def _other_version(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(b"this is not a database" * 500), _damage_half, _other_version]
)
def test_an_unreadable_file_is_set_aside(path: Path, spoil: object) -> None:
    outbox = Outbox(path, 1000)
    for _ in range(50):
        outbox.append([OutgoingMessage("topic", b"x" * 500, 1)] * 10)
    outbox.close()
    assert callable(spoil)
    spoil(path)
    spoiled = path.read_bytes()
    warning = outbox.recover()
    assert warning is not None
    assert "set aside" in warning
    assert path.with_name("outbox.sqlite3.unreadable").read_bytes() == spoiled
    assert outbox.append(messages(1)) == ([1], 0)
    outbox.clear()


def test_a_disk_that_fills_up_while_the_file_is_made_spoils_nothing(path: Path) -> None:
    room, rest = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for limit in range(0, 48 * 1024, 1024):
        outbox = Outbox(path, 100)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, rest))
        try:
            outbox.append(messages(1))
        except OutboxError:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, rest))
        assert outbox.recover() is None
        outbox.append(messages(1))
        outbox.clear()
    assert refused > 5


def test_a_file_that_was_not_finished_by_an_earlier_version_is_used(path: Path) -> None:
    outbox = Outbox(path, 100)
    outbox.append(messages(1))
    outbox.close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 0")
    database.close()
    assert outbox.recover() is None
    assert len(outbox) == 1
    outbox.clear()


def test_a_folder_that_nobody_may_enter_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.raises(OutboxError, match="Permission denied"):
        Outbox(path, 100).recover()


def test_a_file_in_use_is_an_error_and_stays(path: Path) -> None:
    first, second = Outbox(path, 100), Outbox(path, 100)
    first.append(messages(1))
    with pytest.raises(OutboxError, match="locked"):
        second.recover()
    with pytest.raises(OutboxError, match="locked"):
        second.append(messages(2))
    assert len(first.read(0, 10)) == 1
    first.close()
    assert second.recover() is None
    assert len(second) == 1
    second.clear()


def test_a_path_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outbox = Outbox(tmp_path / "file" / "outbox.sqlite3", 100)
    with pytest.raises(OutboxError, match="file"):
        outbox.append(messages(1))
    outbox.close()
