"""The order in which messages go out, with the clock handed in and a real outbox."""

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orion.delivery import STORE_AFTER_S, STORE_AT, Lane
from orion.outbox import Outbox, OutboxDamagedError, OutboxError, OutgoingMessage


def message(number: int) -> OutgoingMessage:
    return OutgoingMessage("results", json.dumps({"n": number}).encode(), 1)


class Wire:
    """A broker that takes what a lane sends, and acknowledges when it is told to."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.seen: list[dict[str, Any]] = []
        self.unanswered: list[int] = []
        self._mids = itertools.count(1)

    def send(self, now: float) -> None:
        for outgoing, row in self.lane.sendable(now):
            mid = next(self._mids)
            self.lane.sent(mid, row)
            self.seen.append(json.loads(outgoing.payload))
            self.unanswered.append(mid)

    def answer(self, count: int | None = None) -> None:
        answered = self.unanswered[:count]
        del self.unanswered[:count]
        for mid in answered:
            assert self.lane.acknowledged(mid)

    def numbers(self) -> list[int]:
        return [seen["n"] for seen in self.seen]


def add_all(lane: Lane, numbers: Iterable[int], now: float) -> None:
    for number in numbers:
        lane.add(message(number), now)


def sending_stored(outbox: Outbox, count: int) -> tuple[Lane, Wire]:
    """Return a lane that has stored so many messages at 0 s and begun to send them at 1 s, and its wire."""
    lane = Lane(outbox)
    wire = Wire(lane)
    add_all(lane, range(count), 0.0)
    lane.tick(0.0)
    lane.connected(1.0)
    wire.send(1.0)
    return lane, wire


def test_messages_acknowledged_in_time_never_touch_the_disk(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite3", 100)
    lane = Lane(outbox, settle_s=5.0)
    wire = Wire(lane)
    lane.connected(0.0)
    for second in range(10):
        add_all(lane, range(STORE_AT - 1), float(second))
        wire.send(float(second))
        lane.tick(second + 0.9)
        wire.answer()
    assert lane.stats().stored == 0
    assert list(tmp_path.iterdir()) == []
    assert lane.stats().acknowledged == lane.stats().accepted == 10 * (STORE_AT - 1)


@pytest.mark.parametrize("connected", [True, False])
def test_one_second_or_sixty_four_unacknowledged_go_to_the_outbox(tmp_path: Path, connected: bool) -> None:
    lane = Lane(Outbox(tmp_path / "outbox.sqlite3", 1000))
    if connected:
        lane.connected(0.0)
    wire = Wire(lane)
    lane.add(message(0), 10.0)
    wire.send(10.0)
    assert lane.wakes_at(10.0) == 10.0 + STORE_AFTER_S
    lane.tick(10.99)
    assert lane.stats().stored == 0
    lane.tick(11.0)
    assert lane.stats().stored == 1
    add_all(lane, range(1, STORE_AT), 11.0)
    lane.tick(11.0)
    assert lane.stats().stored == 1
    lane.add(message(STORE_AT), 11.0)
    lane.tick(11.0)
    assert lane.stats().stored == 1 + STORE_AT


def test_replay_waits_keeps_the_order_and_is_marked(tmp_path: Path) -> None:
    lane = Lane(Outbox(tmp_path / "outbox.sqlite3", 1000), settle_s=5.0)
    wire = Wire(lane)
    lane.connected(0.0)
    add_all(lane, range(3), 0.0)
    wire.send(0.0)
    wire.answer(1)
    lane.disconnected(0.1)
    wire.unanswered.clear()
    add_all(lane, range(3, 100), 0.2)
    lane.tick(2.0)
    lane.connected(10.0)
    add_all(lane, range(100, 103), 10.0)
    wire.send(14.99)
    assert wire.numbers() == [0, 1, 2]
    assert lane.wakes_at(10.5) <= 15.0
    for step in range(200):
        now = 15.0 + step * 0.01
        lane.tick(now)
        wire.send(now)
        wire.answer()
    assert wire.numbers() == [0, 1, 2, *range(1, 103)]
    marked = [seen["n"] for seen in wire.seen if seen.get("replayed")]
    assert marked == [*range(1, 103)], "what waited behind the outbox for more than a second was stored too"
    lane.tick(20.0)
    assert list(tmp_path.iterdir()) == [], "an empty outbox leaves no file"
    lane.add(message(103), 20.0)
    wire.send(20.0)
    assert wire.seen[-1] == {"n": 103}


def test_late_acknowledgements_empty_the_outbox(tmp_path: Path) -> None:
    lane = Lane(Outbox(tmp_path / "outbox.sqlite3", 1000))
    wire = Wire(lane)
    lane.connected(0.0)
    add_all(lane, range(10), 0.0)
    wire.send(0.0)
    lane.tick(1.0)
    wire.send(1.0)
    assert wire.numbers() == list(range(10)), "what is on the wire is not sent again"
    wire.answer()
    lane.tick(3.0)
    assert list(tmp_path.iterdir()) == []
    assert (lane.stats().acknowledged, lane.stats().held) == (10, 0)


def test_replay_is_faster_than_a_thousand_a_second(tmp_path: Path) -> None:
    lane = Lane(Outbox(tmp_path / "outbox.sqlite3", 5000))
    wire = Wire(lane)
    add_all(lane, range(3000), 0.0)
    lane.tick(1.0)
    lane.connected(10.0)
    now = last_at = 10.0
    while now < 13.0 and len(wire.seen) < 3000:
        wire.send(now)
        wire.answer()
        lane.tick(now)
        last_at, now = now, max(now + 0.001, lane.wakes_at(now))
    assert wire.numbers() == list(range(3000))
    assert 11.0 < last_at < 13.0, "paced, and fast enough"


def test_oldest_go_over_the_bound_and_are_counted(tmp_path: Path) -> None:
    lane = Lane(Outbox(tmp_path / "outbox.sqlite3", 100))
    for batch in range(5):
        add_all(lane, range(batch * 70, batch * 70 + 70), float(batch))
        lane.tick(float(batch))
    stats = lane.stats()
    assert (stats.accepted, stats.stored, stats.overflowed, stats.held) == (350, 350, 250, 100)
    wire = Wire(lane)
    lane.connected(10.0)
    for now in (10.0, 10.1):
        wire.send(now)
    assert wire.numbers() == list(range(250, 350))


def test_memory_is_bounded_without_an_outbox() -> None:
    lane = Lane(memory_limit=10)
    wire = Wire(lane)
    add_all(lane, range(15), 0.0)
    lane.connected(1.0)
    wire.send(1.0)
    assert wire.numbers() == list(range(5, 15))
    assert lane.stats().dropped == 5
    lane.close(2.0)
    assert (lane.stats().dropped, lane.stats().held) == (15, 0)


def test_outbox_that_cannot_be_written_is_told_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.write_text("in the way")
    lane = Lane(Outbox(folder / "outbox.sqlite3", 1000))
    wire = Wire(lane)
    add_all(lane, range(100), 0.0)
    lane.tick(1.0)
    assert lane.outbox_fault is not None
    assert "folder" in lane.outbox_fault
    folder.unlink()
    lane.tick(1.1)
    assert lane.stats().stored == 0, "not before the time to try again"
    lane.tick(lane.wakes_at(1.1))
    assert lane.stats().stored == 100
    fault: str | None = lane.outbox_fault
    assert fault is None
    lane.connected(10.0)
    for now in (10.0, 10.1):
        wire.send(now)
    assert wire.numbers() == list(range(100))
    lane.close(11.0)


def test_rows_that_cannot_be_removed_are_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite3", 1000)
    lane, wire = sending_stored(outbox, 64)
    wire.answer(30)

    def full(_rows: object) -> None:
        raise OutboxError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "remove", full)
        lane.disconnected(2.0)
    lane.connected(3.0)
    for now in (3.0, 7.5, 8.5):
        wire.send(now)
    assert wire.numbers() == [*range(64), *range(30, 64)]
    wire.unanswered = wire.unanswered[-34:]
    wire.answer()
    lane.tick(10.0)
    assert (lane.stats().acknowledged, lane.stats().held) == (64, 0)


@pytest.mark.parametrize("how", ["damaged", "unreadable"])
def test_a_damaged_outbox_is_set_aside_and_nothing_waits_behind_it(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite3", 10_000)
    lane, wire = sending_stored(outbox, 1000)
    error = OutboxDamagedError if how == "damaged" else OutboxError

    def refuse(*_: object) -> None:
        raise error("disk I/O error")

    monkeypatch.setattr(outbox, "read", refuse)
    # What had been read goes out; then the outbox fails again and again, or at once for good.
    now = 1.0
    while not (tmp_path / "outbox.sqlite3.unreadable").exists():
        wire.answer(1)
        now = lane.wakes_at(now)
        assert now < 60.0
        lane.tick(now)
        wire.send(now)
    assert len(wire.unanswered) > 100
    assert lane.outbox_fault is not None
    assert "set aside as outbox.sqlite3.unreadable, with 744 results" in lane.outbox_fault
    assert wire.numbers() == list(range(256)), "and is on the wire"
    add_all(lane, range(1000, 1010), now)
    wire.answer()
    wire.send(now)
    wire.answer()
    assert wire.numbers() == [*range(256), *range(1000, 1010)]
    stats = lane.stats()
    assert (stats.accepted, stats.acknowledged, stats.dropped, stats.held) == (1010, 266, 744, 0)
    lane.close(now)


def crash(lane: Lane, folder: Path, copy: Path) -> Outbox:
    """Return the outbox as a SIGKILL would leave it."""
    shutil.copytree(folder, copy)
    lane.close(1e9)
    return Outbox(copy / "outbox.sqlite3", 10_000)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 90)),
        st.tuples(st.just("connect"), st.just(0)),
        st.tuples(st.just("disconnect"), st.just(0)),
        st.tuples(st.just("answer"), st.integers(1, 100)),
        st.tuples(st.just("wait"), st.integers(1, 30)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=25,
)


@given(steps)
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_lost_and_the_order_holds_whatever_happens(todo: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        world = _World(Path(name))
        for what, amount in todo:
            world.do(what, amount)
        world.finish()
        first_seen = list(dict.fromkeys(world.seen))
        assert first_seen == sorted(first_seen), "in order, repetitions apart"
        missing = set(range(world.added)) - set(first_seen)
        assert missing <= world.may_be_lost


class _World:
    """A lane, its outbox and a broker through connections, outages and crashes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lives = 0
        self._current = folder / "0"
        self._current.mkdir()
        self._connected = False
        self._now = 0.0
        self.added = 0
        self.seen: list[int] = []
        self.may_be_lost: set[int] = set()
        self._begin(Outbox(self._current / "outbox.sqlite3", 10_000))

    def do(self, what: str, amount: int) -> None:
        match what:
            case "add":
                add_all(self._lane, range(self.added, self.added + amount), self._now)
                self.added += amount
            case "connect" if not self._connected:
                self._connected = True
                self._lane.connected(self._now)
            case "disconnect" if self._connected:
                self._disconnect()
            case "answer":
                self._wire.answer(amount)
            case "wait":
                self._now += amount / 10
            case "crash":
                self._crash()
        self._lane.tick(self._now)
        stats = self._lane.stats()
        assert stats.held == stats.accepted + self._inherited - stats.acknowledged
        self._wire.send(self._now)

    def finish(self) -> None:
        if not self._connected:
            self.do("connect", 0)
        for _ in range(100):
            self._now += 0.2
            self.do("answer", 1000)
        assert self._lane.stats().held == 0
        self._lane.close(self._now)
        assert list(self._current.iterdir()) == []
        self.seen += self._wire.numbers()

    def _begin(self, outbox: Outbox) -> None:
        self._lane = Lane(outbox, settle_s=0.5)
        self._lane.recover(self._now)
        self._inherited = len(outbox)
        self._wire = Wire(self._lane)

    def _disconnect(self) -> None:
        self._connected = False
        self._wire.unanswered.clear()
        self._lane.disconnected(self._now)

    def _crash(self) -> None:
        self._connected = False
        self._lives += 1
        unacknowledged = self._lane.stats().held
        self.seen += self._wire.numbers()
        copy = self._folder / str(self._lives)
        outbox = crash(self._lane, self._current, copy)
        self._current = copy
        self._begin(outbox)
        lost = max(0, unacknowledged - self._inherited)
        assert lost < STORE_AT
        self.may_be_lost |= set(range(self.added - lost, self.added))


class FullOutbox(Outbox):
    """One whose disk has become full: what is on it can be read, and nothing can be written."""

    full = False

    def append(self, messages: Sequence[OutgoingMessage]) -> tuple[list[int], int]:
        if self.full:
            raise OutboxError("the disk is full")
        return super().append(messages)


def test_what_is_on_a_full_disk_is_replayed_all_the_same(tmp_path: Path) -> None:
    outbox = FullOutbox(tmp_path / "outbox.sqlite3", 1000)
    lane = Lane(outbox)
    wire = Wire(lane)
    add_all(lane, range(100), 0.0)
    lane.tick(1.0)
    outbox.full = True
    lane.connected(10.0)
    now, more = 10.0, 100
    while now < 12.0:
        # There is always something that waits to be stored, as on a camera that goes on.
        add_all(lane, [more], now - 5.0)
        more += 1
        lane.tick(now)
        wire.send(now)
        wire.answer()
        now += 0.05
    assert lane.outbox_fault is not None
    assert wire.numbers() == list(range(more)), "in order, and what came after it"
    lane.close(13.0)


def fault_of(lane: Lane) -> str | None:
    return lane.outbox_fault


def test_a_full_disk_is_told_again_in_the_next_outage_though_nothing_was_stored_in_between(tmp_path: Path) -> None:
    outbox = FullOutbox(tmp_path / "outbox.sqlite3", 1000)
    outbox.full = True
    lane = Lane(outbox)
    wire = Wire(lane)
    lane.add(message(0), 0.0)
    lane.tick(1.0)
    assert fault_of(lane)
    lane.connected(1.5)
    wire.send(1.6)
    wire.answer()
    lane.tick(1.7)
    assert not fault_of(lane)
    lane.disconnected(2.0)
    lane.add(message(1), 10.0)
    lane.tick(11.0)
    assert fault_of(lane)
    lane.close(12.0)
