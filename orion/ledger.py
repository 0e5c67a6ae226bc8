"""Who owns which slot: one small monitor for each stream, in the supervisor process. The stream's capture thread comes
in through one door (`open_ring`, `offer`, `skip`), the supervisor's thread through the other (`lease`, `give_back`).

    FREE --(next slot)--> WRITING --offer--> WAITING --lease--> LEASED --give_back--> FREE
                                                |
                                                +--a newer offer (superseded)-------> FREE

At most one slot is WRITING and at most one WAITING. When the picture changes size, a new ring takes the place of the
old one, whose slots die as they come back; an old ring without living slots is drained and may be closed. Every
captured frame ends in exactly one count: captured = completed + in_flight + sum(dropped), at any moment.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Literal

from msgspec.structs import replace

from orion.messages import Value
from orion.ring import MIN_SLOTS

Completion = Literal["inferred", "held"]
DropReason = Literal["superseded", "rate", "paused", "worker_restart", "worker_error", "torn", "shutdown"]
DROP_REASONS: tuple[DropReason, ...] = (
    "superseded",
    "rate",
    "paused",
    "worker_restart",
    "worker_error",
    "torn",
    "shutdown",
)


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A place for one picture: the ring's name and the index in it. There is one object for each place."""

    ring: str
    index: int


class Frame(Value, frozen=True):
    """What is known of a captured frame beside its pixels."""

    frame_seq: int
    generation: int
    width: int
    height: int
    captured_ns: int
    """Monotonic clock, after the read returned."""
    captured_wall_ns: int
    stream_time_s: float
    """The stream's own clock: presentation time for files, capture time for cameras."""
    continuous: bool
    """False on the first frame after a pause, a reconnect or a change of size; in a lease also if that was dropped."""
    source: int = 0
    """How many sources the stream has been given before the one that it is from."""


class Lease(Value, frozen=True):
    """A frame in the hands of one worker; `attempt` is 2 when an earlier worker died with it."""

    slot: Slot
    frame: Frame
    worker_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """The counts of one stream at one moment."""

    captured: int
    inferred: int
    held: int
    in_flight: int
    dropped: Mapping[str, int]

    @property
    def completed(self) -> int:
        """Return how many frames were answered."""
        return self.inferred + self.held

    @property
    def balanced(self) -> bool:
        """Return whether every captured frame is accounted for."""
        return self.captured == self.completed + self.in_flight + sum(self.dropped.values())


class _State(Enum):
    FREE = "free"
    WRITING = "writing"
    WAITING = "waiting"
    LEASED = "leased"


class Ledger:
    """The monitor of one stream's slots. `every_frame` makes `offer` wait until nothing is waiting."""

    def __init__(self, *, every_frame: bool = False) -> None:
        self._monitor = threading.Condition()
        self._every_frame = every_frame
        self._ended = False
        self._paused = False
        self._ring = ""
        self._states: dict[Slot, _State] = {}
        self._waiting: tuple[Slot, Frame] | None = None
        self._leases: dict[Slot, Lease] = {}
        self._drained: list[str] = []
        self._continuous = True
        """False while a break in the stream has come in that no worker has heard of: its own frame may be dropped."""
        self._captured = 0
        self._ends: Counter[Completion | DropReason] = Counter()

    # The capture thread's door.

    def open_ring(self, ring: str, slots: int) -> Slot:
        """Make `ring` the stream's ring, retire the one before, and return the first slot to write."""
        if slots < MIN_SLOTS:
            raise ValueError(f"a ring has at least {MIN_SLOTS} slots, not {slots}")
        with self._monitor:
            old, self._ring = self._ring, ring
            if old:
                for slot in [s for s in self._states if self._states[s] in {_State.FREE, _State.WRITING}]:
                    del self._states[slot]
                self._note_drained(old)
            self._states |= {Slot(ring, index): _State.FREE for index in range(slots)}
            return self._next_slot()

    def offer(self, slot: Slot, frame: Frame) -> Slot:
        """Hand over a whole picture and return the next slot to write; never blocks unless `every_frame`.

        A frame that still waits is superseded. After `end` the frame is counted as dropped by shutdown, and between
        `pause` and `resume` as paused.
        """
        with self._monitor:
            self._expect(slot, _State.WRITING)
            if self._every_frame:
                self._monitor.wait_for(lambda: self._waiting is None or self._ended)
            self._captured += 1
            self._continuous &= frame.continuous
            if self._ended or (self._paused and not self._every_frame):
                self._ends["shutdown" if self._ended else "paused"] += 1
                return slot
            self._drop_waiting("superseded")
            self._states[slot] = _State.WAITING
            self._waiting = (slot, frame)
            return self._next_slot()

    def skip(self, reason: DropReason) -> None:
        """Count a frame that was captured but not offered."""
        with self._monitor:
            self._captured += 1
            self._ends[reason] += 1

    @property
    def paused(self) -> bool:
        """Return whether frames are only counted now."""
        return self._paused

    # The supervisor thread's door.

    @property
    def waiting(self) -> Frame | None:
        """Return the newest frame if no worker has taken it yet."""
        waiting = self._waiting
        return waiting[1] if waiting else None

    def lease(self, worker_id: str) -> Lease | None:
        """Give the waiting frame to a worker, or None when nothing waits or a frame is out already.

        One lease at a time is what leaves a free slot for every `offer`, with three slots.
        """
        with self._monitor:
            if self._waiting is None or self._leases or self._paused:
                return None
            slot, frame = self._waiting
            self._waiting = None
            self._states[slot] = _State.LEASED
            if frame.continuous is not self._continuous:
                frame = replace(frame, continuous=self._continuous)
            lease = Lease(slot, frame, worker_id, 1)
            self._leases[slot] = lease
            self._continuous = True
            self._monitor.notify_all()
            return lease

    def hand_over(self, lease: Lease, worker_id: str) -> Lease:
        """Pass a dead worker's lease to its successor; the caller has reaped the dead one."""
        with self._monitor:
            self._expect_lease(lease)
            successor = Lease(lease.slot, lease.frame, worker_id, lease.attempt + 1)
            self._leases[lease.slot] = successor
            return successor

    def give_back(self, lease: Lease, outcome: Completion | DropReason) -> None:
        """End a lease: free its slot and count how its frame ended."""
        with self._monitor:
            self._expect_lease(lease)
            del self._leases[lease.slot]
            self._release(lease.slot)
            self._ends[outcome] += 1
            if outcome in DROP_REASONS:
                self._continuous &= lease.frame.continuous
            self._monitor.notify_all()

    def drop_waiting(self, reason: DropReason) -> None:
        """Drop the frame that waits, if there is one."""
        with self._monitor:
            self._drop_waiting(reason)
            self._monitor.notify_all()

    def pause(self) -> None:
        """Lease nothing from now on, and drop what waits; with `every_frame` what waits goes on waiting."""
        with self._monitor:
            self._paused = True
            if not self._every_frame:
                self._continuous = False
                self._drop_waiting("paused")

    def resume(self) -> None:
        """Lease again."""
        with self._monitor:
            self._paused = False

    @property
    def leased(self) -> bool:
        """Return whether a worker has a frame."""
        return bool(self._leases)

    def end(self) -> None:
        """Let a waiting `offer` return, and count what is offered from now on as dropped by shutdown."""
        with self._monitor:
            self._ended = True
            self._drop_waiting("shutdown")
            self._monitor.notify_all()

    def take_drained(self) -> list[str]:
        """Return the retired rings that nobody needs any more, each once."""
        with self._monitor:
            drained, self._drained = self._drained, []
            return drained

    def accounts(self) -> Accounts:
        """Return the counts of this moment; they always balance."""
        with self._monitor:
            in_flight = len(self._leases) + (self._waiting is not None)
            dropped: Mapping[str, int] = MappingProxyType({reason: self._ends[reason] for reason in DROP_REASONS})
            return Accounts(self._captured, self._ends["inferred"], self._ends["held"], in_flight, dropped)

    # Inside the monitor.

    def _next_slot(self) -> Slot:
        for slot, state in self._states.items():
            if state is _State.FREE and slot.ring == self._ring:
                self._states[slot] = _State.WRITING
                return slot
        raise RuntimeError(f"no slot of {self._ring} is free")

    def _drop_waiting(self, reason: DropReason) -> None:
        if self._waiting is not None:
            slot, _ = self._waiting
            self._waiting = None
            self._release(slot)
            self._ends[reason] += 1

    def _release(self, slot: Slot) -> None:
        if slot.ring == self._ring:
            self._states[slot] = _State.FREE
        else:
            del self._states[slot]
            self._note_drained(slot.ring)

    def _note_drained(self, ring: str) -> None:
        if not any(slot.ring == ring for slot in self._states):
            self._drained.append(ring)

    def _expect(self, slot: Slot, state: _State) -> None:
        if self._states.get(slot) is not state:
            raise ValueError(f"{slot} is {self._states.get(slot)}, not {state}")

    def _expect_lease(self, lease: Lease) -> None:
        if self._leases.get(lease.slot) is not lease:
            raise ValueError(f"{lease} is not held")
