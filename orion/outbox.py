"""Results that the broker has not taken over yet, in a SQLite file on disk. Used by the bus's thread alone, which owns
the file: SQLite's exclusive lock keeps every other process out. The file exists only while it holds messages.

Durability: write-ahead log, `synchronous=FULL`. Every append is one transaction and one fsync, so that a power cut,
which often takes the broker's machine or the network down too, loses no more than a SIGKILL does. The bus appends at
most once a second or per 64 messages, and only in an outage, so the fsyncs are few.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orion.errors import OrionError

_VERSION = 1
# One transaction: a disk that fills up in between leaves a file that is still new. "IF NOT EXISTS", because files from
# before that may have the table already.
_SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS message (
    row INTEGER PRIMARY KEY, topic TEXT NOT NULL, qos INTEGER NOT NULL, payload BLOB NOT NULL
) STRICT;
PRAGMA user_version = {_VERSION};
COMMIT;
"""


class OutboxError(OrionError):
    """The outbox cannot be read or written now; what was in it is still there."""


class OutboxDamagedError(OutboxError):
    """The file is no database of ours, or not any more; trying again does not help."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message for the broker."""

    topic: str
    payload: bytes
    qos: int


class Outbox:
    """A bounded queue on disk: at most `max_messages`, the oldest dropped first.

    Nothing is touched before the first call; `path`'s folder is made when it is needed. Errors of every method:
    OutboxError; a failed call has changed nothing and may be repeated.
    """

    def __init__(self, path: Path, max_messages: int) -> None:
        self._path = path
        self._max_messages = max_messages
        self._database: sqlite3.Connection | None = None
        self._count = 0
        self._last_row = 0

    @property
    def path(self) -> Path:
        """Return where the file is, or would be."""
        return self._path

    @property
    def last_row(self) -> int:
        """Return the number of the newest message; 0 when empty."""
        return self._last_row

    def __len__(self) -> int:
        return self._count

    def recover(self) -> str | None:
        """Open what a former run left behind; returns a warning if it was unreadable and has been set aside."""
        try:
            with _as_outbox_error(self._path):
                if not self._path.exists():
                    return None
                self._open()
        except OutboxDamagedError as error:
            return f"{error}; {self.set_aside()}"
        self._remove_if_empty()
        return None

    def set_aside(self) -> str:
        """Begin anew and leave the file to people who may save what is in it; returns where it is, for a warning."""
        aside = self._path.with_name(self._path.name + ".unreadable")
        self._discard(rename_to=aside)
        return f"set aside as {aside.name}"

    def append(self, messages: Sequence[OutgoingMessage]) -> tuple[list[int], int]:
        """Store messages in one transaction; returns their row numbers, and how many of the oldest had to go."""
        with _as_outbox_error(self._path), self._open() as database:
            first = self._last_row + 1
            rows = list(range(first, first + len(messages)))
            database.executemany(
                "INSERT INTO message (row, topic, qos, payload) VALUES (?, ?, ?, ?)",
                ((row, m.topic, m.qos, m.payload) for row, m in zip(rows, messages, strict=True)),
            )
            excess = max(0, self._count + len(messages) - self._max_messages)
            if excess:
                database.execute(
                    "DELETE FROM message WHERE row IN (SELECT row FROM message ORDER BY row LIMIT ?)", (excess,)
                )
        self._count += len(messages) - excess
        self._last_row = rows[-1] if rows else self._last_row
        return rows, excess

    def read(self, after: int, limit: int) -> list[tuple[int, OutgoingMessage]]:
        """Return the oldest messages with a row number above `after`, in order."""
        with _as_outbox_error(self._path), self._open() as database:
            found = database.execute(
                "SELECT row, topic, payload, qos FROM message WHERE row > ? ORDER BY row LIMIT ?", (after, limit)
            )
            return [(row, OutgoingMessage(topic, payload, qos)) for row, topic, payload, qos in found]

    def remove(self, rows: Iterable[int]) -> None:
        """Forget messages that have arrived; rows that are gone already do no harm."""
        with _as_outbox_error(self._path), self._open() as database:
            before = database.total_changes
            database.executemany("DELETE FROM message WHERE row = ?", ((row,) for row in rows))
        self._count -= database.total_changes - before

    def clear(self) -> None:
        """Forget all messages by removing the file, which works on a full disk too."""
        self._discard()

    def close(self) -> None:
        """Close the file, and remove it when it is empty."""
        self._remove_if_empty()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        database = sqlite3.connect(self._path, timeout=0.0)
        try:
            _prepare(database)
            count, last = database.execute("SELECT count(*), coalesce(max(row), 0) FROM message").fetchone()
        except BaseException:
            database.close()
            raise
        self._database, self._count, self._last_row = database, count, last
        return database

    def _remove_if_empty(self) -> None:
        if self._database is not None and not self._count:
            self._discard()

    def _discard(self, rename_to: Path | None = None) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        with _as_outbox_error(self._path):
            if rename_to is not None:
                self._path.replace(rename_to)
            # The log goes first: without its database it would be taken for the log of the next one.
            for name in (f"{self._path.name}-wal", f"{self._path.name}-shm", self._path.name):
                self._path.with_name(name).unlink(missing_ok=True)
        self._count = self._last_row = 0


def _prepare(database: sqlite3.Connection) -> None:
    """Make a new file ready, or check that an old one is ours."""
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        database.executescript(_SCHEMA)
    elif version != _VERSION:
        raise sqlite3.DatabaseError(f"written by another version of Orion ({version})")
    else:
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)


@contextlib.contextmanager
def _as_outbox_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        # Operational errors are a full disk, a lock, a right that is missing: the file itself may be fine.
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        raise (OutboxDamagedError if damaged else OutboxError)(f"outbox {os.fspath(path)}: {error}") from error
