"""In what order messages of one kind go out, and where each of them is: in memory, in the outbox, or on the wire. Used
by the bus's thread alone. It decides and counts, the clock is handed in; it sends nothing, and of disks it knows only
the outbox.

Memory is always newer than the outbox. What is acknowledged in time never touches the disk; what is not moves to the
outbox, all at once and in order, and whatever comes after it waits its turn behind it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from orion.outbox import Outbox, OutboxDamagedError, OutboxError, OutgoingMessage

STORE_AFTER_S = 1.0
STORE_AT = 64
"""A message unacknowledged for so long, or so many of them, go to the outbox: a SIGKILL loses no more than these."""

_WINDOW = 256
"""Messages on the wire that the broker has not acknowledged."""
_MEMORY_LIMIT = 4096
_REPLAY_PER_S = 2000.0
_REPLAY_BURST = 64.0
"""Replay is paced: unpaced, its thread would take the interpreter from the one that handles frames."""
_REMOVE_AT = 256
_REMOVE_AFTER_S = 0.5
_OUTBOX_RETRY_S = 5.0
_READS_TRIED = 6
"""How often in a row the outbox may fail to be read until it is taken for damaged."""


@dataclass(frozen=True, slots=True)
class LaneStats:
    """Counters of one lane: `accepted = acknowledged + dropped + overflowed + held`, but for what a past run left."""

    accepted: int = 0
    acknowledged: int = 0
    dropped: int = 0
    """Lost to a full memory, or with an outbox that was damaged."""
    overflowed: int = 0
    """Lost to a full outbox: the oldest."""
    stored: int = 0
    replayed: int = 0
    """Sent from the outbox, repetitions included."""
    held: int = 0
    """Neither acknowledged nor lost."""


class Lane:
    """Messages of one kind on their way to the broker, in order.

    `settle_s` is how long after a reconnect nothing is sent, since subscribers come back later than publishers. Without
    an outbox, messages wait in memory, the oldest dropped beyond `memory_limit`.
    """

    def __init__(self, outbox: Outbox | None = None, settle_s: float = 0.0, memory_limit: int = _MEMORY_LIMIT) -> None:
        self._outbox = outbox
        self._settle_s = settle_s
        self._memory_limit = memory_limit
        self._waiting: deque[tuple[float, OutgoingMessage]] = deque()
        self._sent: dict[int, tuple[float, OutgoingMessage]] = {}
        self._sent_rows: dict[int, int] = {}
        self._sent_unkept: set[int] = set()
        """Those on the wire whose outbox has been set aside since."""
        self._fetched: deque[tuple[int, OutgoingMessage]] = deque()
        self._cursor = 0
        self._done: set[int] = set()
        self._opens_at: float | None = None
        self._was_connected = False
        self._outbox_retry_at = 0.0
        """For writing. A disk that is full can be read: what is on it must not wait until there is room again."""
        self._read_retry_at = 0.0
        self._reads_failed = 0
        self._remove_at = 0.0
        self._credit = _Credit(_REPLAY_PER_S, _REPLAY_BURST)
        self._accepted = self._acknowledged = self._dropped = self._stored = self._replayed = 0
        self._recovered = outbox is None
        self.overflowed = 0
        self.outbox_fault: str | None = None

    def stats(self) -> LaneStats:
        """Return the counters as they are now."""
        return LaneStats(
            self._accepted, self._acknowledged, self._dropped, self.overflowed, self._stored, self._replayed,
            len(self._waiting) + len(self._sent) + len(self._sent_unkept) + self._rows_held(),
        )  # fmt: skip

    def recover(self, now: float) -> None:
        """Find what a former run left in the outbox."""
        if self._outbox is None or self._recovered:
            return
        try:
            self.outbox_fault = self._outbox.recover()
            self._recovered = True
        except OutboxError as error:
            self._outbox_failed(error, now)

    def add(self, message: OutgoingMessage, now: float) -> None:
        """Take a message in."""
        self._accepted += 1
        self._waiting.append((now, message))
        if len(self._waiting) > self._memory_limit:
            self._waiting.popleft()
            self._dropped += 1

    def connected(self, now: float) -> None:
        """Let messages out: at once on the first connection with nothing left over, else after `settle_s`."""
        leftovers = self._was_connected or self._rows_held() > 0
        self._opens_at = now + self._settle_s if leftovers else now
        self._was_connected = True

    def disconnected(self, now: float) -> None:
        """Take back what the broker has not acknowledged."""
        if self._done:
            self._remove_done(now)
        self._opens_at = None
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()
        self._sent_rows.clear()
        self._give_up_unkept()
        self._fetched.clear()
        self._cursor = 0

    def sendable(self, now: float) -> Iterator[tuple[OutgoingMessage, int | None]]:
        """Yield what may be sent now, each with its row if it comes from the outbox; answer each with `sent`."""
        while self._opens_at is not None and now >= self._opens_at and self._on_wire() < _WINDOW:
            if self._unread_rows():
                if not self._credit.take(now) or not self._fetch(now):
                    return
                row, message = self._fetched.popleft()
                self._cursor = row
                self._replayed += 1
                yield _mark_replayed(message), row
            elif self._waiting:
                yield self._waiting[0][1], None
            else:
                return

    def sent(self, mid: int, row: int | None) -> None:
        """Note under which id the message went that `sendable` just yielded."""
        if row is None:
            self._sent[mid] = self._waiting.popleft()
        else:
            self._sent_rows[mid] = row

    def acknowledged(self, mid: int) -> bool:
        """Note that the broker has the message; returns whether it was one of this lane."""
        if mid in self._sent_unkept:
            self._sent_unkept.remove(mid)
        elif self._sent.pop(mid, None) is None:
            row = self._sent_rows.pop(mid, None)
            if row is None:
                return False
            self._done.add(row)
        self._acknowledged += 1
        return True

    def tick(self, now: float) -> None:
        """Move to the outbox what has waited too long, and remove from it what has arrived."""
        if not self._unsafe() and not self._rows_held():
            # Nothing needs the outbox any more: the next fault is another one, and is told again.
            self.outbox_fault = None
        if self._outbox is None or now < self._outbox_retry_at:
            return
        self.recover(now)
        if not self._recovered:
            return
        if self._unsafe() >= STORE_AT or now >= self._oldest_since() + STORE_AFTER_S:
            self.store(now)
        drained = not self._unread_rows() and not self._sent_rows
        if self._done and (drained or len(self._done) >= _REMOVE_AT or now >= self._remove_at):
            self._remove_done(now)

    def store(self, now: float) -> None:
        """Move everything that is unacknowledged to the outbox, whatever its age."""
        self.recover(now)
        if self._outbox is None or not self._recovered or not self._unsafe():
            return
        if self._done:
            self._remove_done(now)
        on_wire = len(self._sent)
        unsafe = [message for _, message in chain(self._sent.values(), self._waiting)]
        try:
            rows, overflowed = self._outbox.append(unsafe)
        except OutboxError as error:
            self._outbox_failed(error, now)
            return
        self.outbox_fault = None
        self._stored += len(unsafe)
        self.overflowed += overflowed
        self._sent_rows.update(zip(self._sent, rows, strict=False))
        if on_wire:
            self._cursor = rows[on_wire - 1]
        self._sent.clear()
        self._waiting.clear()

    def wakes_at(self, now: float) -> float:
        """Return when `tick` or `sendable` has something to do, if nothing else happens before; infinity for never."""
        times = [float("inf")]
        if self._outbox is not None and self._unsafe():
            times.append(max(self._oldest_since() + STORE_AFTER_S, self._outbox_retry_at))
        if self._outbox is not None and self._done:
            times.append(max(self._remove_at, self._outbox_retry_at))
        if self._opens_at is not None and self._on_wire() < _WINDOW:
            if self._unread_rows():
                times.append(max(self._opens_at, self._credit.refilled_at(now), self._read_retry_at))
            elif self._waiting:
                times.append(self._opens_at)
        return min(times)

    def idle(self, now: float) -> bool:
        """Return whether nothing is on the wire and nothing may be sent now."""
        closed = self._opens_at is None or now < self._opens_at
        return not self._on_wire() and (closed or not (self._unread_rows() or self._waiting))

    def close(self, now: float) -> None:
        """Keep what can be kept for the next start, count the rest as dropped, and close the outbox."""
        self.store(now)
        self._dropped += self._unsafe()
        self._sent.clear()
        self._waiting.clear()
        self._give_up_unkept()
        if self._done:
            self._remove_done(now)
        if self._outbox is not None:
            try:
                self._outbox.close()
            except OutboxError as error:
                self._outbox_failed(error, now)

    def _unsafe(self) -> int:
        return len(self._sent) + len(self._waiting)

    def _oldest_since(self) -> float:
        for since, _ in chain(self._sent.values(), self._waiting):
            return since
        return float("inf")

    def _on_wire(self) -> int:
        return len(self._sent) + len(self._sent_rows) + len(self._sent_unkept)

    def _rows_held(self) -> int:
        return 0 if self._outbox is None else len(self._outbox) - len(self._done)

    def _unread_rows(self) -> bool:
        return self._outbox is not None and self._outbox.last_row > self._cursor

    def _fetch(self, now: float) -> bool:
        """Have the next messages of the outbox at hand; returns whether there are any."""
        assert self._outbox is not None
        if now < self._read_retry_at:
            return bool(self._fetched)
        try:
            while not self._fetched and self._unread_rows():
                read = self._outbox.read(self._cursor, _WINDOW)
                # Done and still there: it could not be removed.
                self._fetched.extend((row, message) for row, message in read if row not in self._done)
                if not self._fetched:
                    self._cursor = read[-1][0] if read else self._outbox.last_row
        except OutboxError as error:
            self._reads_failed += 1
            self._read_retry_at = now + _OUTBOX_RETRY_S
            if isinstance(error, OutboxDamagedError) or self._reads_failed >= _READS_TRIED:
                self._set_aside(error, now)
            else:
                self.outbox_fault = str(error)
        else:
            self._reads_failed = 0
        return bool(self._fetched)

    def _remove_done(self, now: float) -> None:
        assert self._outbox is not None
        self._remove_at = now + _REMOVE_AFTER_S
        try:
            if self._rows_held():
                self._outbox.remove(self._done)
            else:
                self._outbox.clear()
                self._cursor = 0
        except OutboxError as error:
            self._outbox_failed(error, now)
            return
        self.outbox_fault = None
        self._done.clear()

    def _outbox_failed(self, error: OutboxError, now: float) -> None:
        self._outbox_retry_at = now + _OUTBOX_RETRY_S
        if isinstance(error, OutboxDamagedError):
            self._set_aside(error, now)
        else:
            self.outbox_fault = str(error)

    def _give_up_unkept(self) -> None:
        """Count what is on the wire and nowhere else as lost: nobody will acknowledge it any more."""
        self._dropped += len(self._sent_unkept)
        self._sent_unkept.clear()

    def _set_aside(self, error: OutboxError, now: float) -> None:
        """Give up what is in the outbox, but for what is on the wire or at hand: nothing waits behind it any more."""
        assert self._outbox is not None
        lost = max(0, self._rows_held() - len(self._sent_rows) - len(self._fetched))
        try:
            self.outbox_fault = f"{error}; {self._outbox.set_aside()}, with {lost} results"
        except OutboxError as failed:
            self.outbox_fault = str(failed)
            self._outbox_retry_at = self._read_retry_at = now + _OUTBOX_RETRY_S
            return
        self._dropped += lost
        self._sent_unkept.update(self._sent_rows)
        self._waiting.extendleft((now, message) for _, message in reversed(self._fetched))
        self._sent_rows.clear()
        self._fetched.clear()
        self._done.clear()
        self._cursor = self._reads_failed = 0
        self._outbox_retry_at = self._read_retry_at = now


class _Credit:
    """A token bucket: `per_s` a second, at most `burst` at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._amount = burst
        self._as_of = float("-inf")

    def take(self, now: float) -> bool:
        elapsed_s = now - self._as_of
        self._amount = min(self._burst, self._amount + elapsed_s * self._per_s)
        self._as_of = now
        if self._amount < 1:
            return False
        self._amount -= 1
        return True

    def refilled_at(self, now: float) -> float:
        """Return when a good part of a burst may go: waking up for single messages would cost more than sending."""
        return now if self._amount >= 1 else now + self._burst / 2 / self._per_s


def _mark_replayed(message: OutgoingMessage) -> OutgoingMessage:
    """Add `"replayed": true` to a JSON object; payloads are written by this program, so its end is known."""
    body = message.payload.rstrip()
    if not body.endswith(b"}"):
        return message
    inside = body[:-1].rstrip()
    comma = b"" if inside.endswith(b"{") else b","
    return OutgoingMessage(message.topic, inside + comma + b'"replayed":true}', message.qos)
