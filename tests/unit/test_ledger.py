"""The ledger under random interleavings, over a real ring: no slot lost, none owned twice, no torn read unnoticed."""

import os
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from orion.errors import TornFrameError
from orion.ledger import DROP_REASONS, Frame, Lease, Ledger, Slot
from orion.ring import Ring, RingView


def frame(seq: int, generation: int = 2) -> Frame:
    return Frame(seq, generation, 8, 4, 0, 0, 0.0, continuous=True)


class LedgerMachine(RuleBasedStateMachine):
    """A writer, readers that hold views, workers that die, rings that change, and a rogue who ignores leases."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.rings: dict[str, Ring] = {}
        self.views: dict[str, RingView] = {}
        self.stamps: dict[Slot, int] = {}
        self.lease: Lease | None = None
        self.orphan: Lease | None = None
        self.seq = 0
        self.closed: set[str] = set()

    @initialize(slots=st.integers(3, 6))
    def start(self, slots: int) -> None:
        self.new_ring(slots)

    @rule(slots=st.integers(3, 6))
    def new_ring(self, slots: int) -> None:
        name = f"orion.property.{os.getpid()}.{id(self)}.{len(self.rings)}"
        self.rings[name] = Ring(name, 8, 4, slots)
        self.views[name] = RingView(name)
        self.writing = self.ledger.open_ring(name, slots)
        self.close_drained()

    def close_drained(self) -> None:
        for name in self.ledger.take_drained():
            held = {lease.slot.ring for lease in (self.lease, self.orphan) if lease}
            assert name not in held | {self.writing.ring}, "a ring was drained that somebody still uses"
            assert name not in self.closed, "a ring was drained twice"
            self.closed.add(name)
            self.views[name].close()
            self.rings[name].close()

    @rule()
    def write_and_offer(self) -> None:
        ring = self.rings[self.writing.ring]
        ring.begin(self.writing.index)[:] = self.seq % 251
        self.stamps[self.writing] = self.seq % 251
        generation = ring.finish(self.writing.index)
        slot = self.ledger.offer(self.writing, frame(self.seq, generation))
        self.seq += 1
        held = {lease.slot for lease in (self.lease, self.orphan) if lease}
        assert slot not in held | {self.writing}, "a slot was given to the writer while it was owned"
        self.writing = slot
        self.close_drained()

    @rule(reason=st.sampled_from(DROP_REASONS))
    def skip(self, reason: str) -> None:
        self.ledger.skip(reason)  # type: ignore[arg-type]
        self.seq += 1

    @rule()
    def take(self) -> None:
        lease = self.ledger.lease("w0")
        if self.lease or self.orphan:
            assert lease is None, "two leases of one stream at a time"
        elif lease:
            assert lease.slot != self.writing
            self.lease = lease

    @precondition(lambda self: self.lease is not None)
    @rule(outcome=st.sampled_from(["inferred", "held", "torn", "worker_error"]))
    def read_and_give_back(self, outcome: str) -> None:
        assert self.lease is not None
        view = self.views[self.lease.slot.ring]
        pixels = view.read(self.lease.slot.index, self.lease.frame.generation)
        assert (pixels == self.stamps[self.lease.slot]).all()
        view.check(self.lease.slot.index, self.lease.frame.generation)
        self.ledger.give_back(self.lease, outcome)  # type: ignore[arg-type]
        self.lease = None
        self.close_drained()

    @precondition(lambda self: self.lease is not None)
    @rule()
    def rogue_write_is_noticed(self) -> None:
        """Write to a leased slot, as no correct program does: the reader must find out."""
        assert self.lease is not None
        ring, view, index = self.rings[self.lease.slot.ring], self.views[self.lease.slot.ring], self.lease.slot.index
        view.read(index, self.lease.frame.generation)
        ring.begin(index)[0] = 255
        with pytest.raises(TornFrameError):
            view.check(index, self.lease.frame.generation)
        ring.finish(index)
        with pytest.raises(TornFrameError):
            view.check(index, self.lease.frame.generation)
        self.ledger.give_back(self.lease, "torn")
        self.lease = None
        self.close_drained()

    @precondition(lambda self: self.lease is not None)
    @rule()
    def die(self) -> None:
        self.orphan, self.lease = self.lease, None

    @precondition(lambda self: self.orphan is not None)
    @rule(again=st.booleans())
    def reap(self, again: bool) -> None:
        assert self.orphan is not None
        if again and self.orphan.attempt == 1:
            self.lease = self.ledger.hand_over(self.orphan, "w1")
            assert self.lease.attempt == 2
        else:
            self.ledger.give_back(self.orphan, "worker_error")
        stale, self.orphan = self.orphan, None
        with pytest.raises(ValueError, match="is not held"):
            self.ledger.give_back(stale, "inferred")
        self.close_drained()

    @rule()
    def drop_waiting(self) -> None:
        self.ledger.drop_waiting("paused")
        self.close_drained()

    @invariant()
    def every_frame_is_accounted_for(self) -> None:
        accounts = self.ledger.accounts()
        assert accounts.balanced
        assert accounts.captured == self.seq

    @invariant()
    def no_slot_is_lost(self) -> None:
        if not self.rings:
            return
        current = [slot for slot in self.ledger._states if slot.ring == self.writing.ring]
        assert len(current) == self.rings[self.writing.ring].slots
        living = {slot.ring for slot in self.ledger._states}
        assert living | self.closed == set(self.rings)

    def teardown(self) -> None:
        for name in self.rings.keys() - self.closed:
            self.views[name].close()
            self.rings[name].close()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def test_every_frame_waits_until_nothing_is_waiting_and_end_releases_it() -> None:
    ledger = Ledger(every_frame=True)
    slot = ledger.offer(ledger.open_ring("r", 3), frame(0))
    done = threading.Event()

    def second() -> None:
        ledger.offer(slot, frame(1))
        done.set()

    thread = threading.Thread(target=second, name="writer")
    thread.start()
    assert not done.wait(0.1), "the second offer did not wait"
    lease = ledger.lease("w0")
    assert lease is not None
    assert done.wait(5)
    thread.join(5)
    assert ledger.accounts().dropped["superseded"] == 0
    ledger.end()
    assert ledger.accounts().dropped["shutdown"] == 1
    ledger.give_back(lease, "inferred")
    assert ledger.accounts().balanced


@pytest.mark.parametrize("lost_as", ["superseded", "torn", "paused"])
def test_a_break_in_the_stream_outlives_the_frame_that_told_of_it(lost_as: str) -> None:
    ledger = Ledger()
    writing = ledger.open_ring("a", 3)
    # A pause is a break by itself.
    writing = ledger.offer(writing, replace(frame(0), continuous=lost_as == "paused"))
    if lost_as == "torn":
        lease = ledger.lease("w0")
        assert lease is not None
        ledger.give_back(lease, "torn")
    elif lost_as == "paused":
        ledger.pause()
        ledger.resume()
    writing = ledger.offer(writing, frame(1))
    lease = ledger.lease("w0")
    assert lease is not None
    assert (lease.frame.frame_seq, lease.frame.continuous) == (1, False)
    ledger.give_back(lease, "inferred")
    ledger.offer(writing, frame(2))
    lease = ledger.lease("w0")
    assert lease is not None
    assert lease.frame.continuous


def test_offer_after_end_is_dropped_by_shutdown() -> None:
    ledger = Ledger()
    slot = ledger.open_ring("r", 3)
    ledger.end()
    assert ledger.offer(slot, frame(0)) == slot
    assert ledger.accounts().dropped["shutdown"] == 1


def test_foreign_slots_are_refused() -> None:
    ledger = Ledger()
    ledger.open_ring("r", 3)
    with pytest.raises(ValueError, match="not"):
        ledger.offer(Slot("other", 0), frame(0))
    with pytest.raises(ValueError, match="at least 3"):
        ledger.open_ring("small", 2)


def test_torn_reads_under_a_racing_writer_are_noticed() -> None:
    """A writer that overwrites one slot without any ledger, against a reader: what passes `check` is whole."""
    name = f"orion.race.{os.getpid()}.0"
    ring, stop = Ring(name, 320, 240, 3), threading.Event()
    view = RingView(name)

    def write() -> None:
        value = 0
        while not stop.is_set():
            ring.begin(0)[:] = value = (value + 1) % 251
            ring.finish(0)
            stop.wait(0.0005)

    writer = threading.Thread(target=write, name="rogue")
    writer.start()
    whole = torn = 0
    try:
        deadline = time.monotonic() + 20
        while (whole < 20 or torn < 20) and time.monotonic() < deadline:
            generation = int(ring.layout.generations[0])
            with suppress(TornFrameError):
                torn += 1
                copy = np.array(view.read(0, generation))
                view.check(0, generation)
                if generation % 2 == 0:
                    torn, whole = torn - 1, whole + 1
                    assert (copy == copy[0, 0, 0]).all(), "a torn picture passed the check"
        assert whole >= 20
        assert torn >= 20
    finally:
        stop.set()
        writer.join(5)
        view.close()
        ring.close()
