"""One thread a source, in the supervisor process: read the next picture into a slot, stamp it, number it,
offer it to the ledger; open the source again for ever when it is a camera that went away. It owns the source and the
slot it writes; its only doors to the rest are the ledger's `offer` and `skip`, and the events that it posts.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from orion.backoff import Backoff
from orion.errors import OrionError, SharedMemoryError
from orion.ledger import DropReason, Frame, Ledger, Slot
from orion.messages import Pixels
from orion.pacing import RateLimiter, RealTimePace
from orion.ring import Ring
from orion.source import Source, SourceInfo
from orion.vitals import Finding, Vitals

_log = logging.getLogger(__name__)

_TIMED_BY_THEMSELVES = {"file", "demo"}
_LOOK_UP_S = 0.05
"""How often a source that waits for its audience looks whether it is there."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The source delivers."""

    capture: "Capture"
    info: SourceInfo


@dataclass(frozen=True, slots=True)
class StreamResized:
    """The pictures have another size from now on."""

    capture: "Capture"
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The source does not deliver; it is tried again after `retry_s`."""

    capture: "Capture"
    reason: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The source has no more pictures, or as many as were asked for were taken."""

    capture: "Capture"


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The source cannot be used at all; `error` says why and what to do."""

    capture: "Capture"
    error: OrionError


@dataclass(frozen=True, slots=True)
class StreamCondition:
    """The source delivers, but not as it should, or is found well again."""

    capture: "Capture"
    finding: Finding


# Each names the capture that it is from: a stream that was removed may have come back, under its id, with another one.
CaptureEvent = StreamOpened | StreamResized | StreamLost | StreamEnded | StreamFailed | StreamCondition


class Outbound(Protocol):
    """How a capture thread reaches the supervisor's thread."""

    def post(self, item: CaptureEvent) -> None:
        """Leave an event."""

    def wake(self) -> None:
        """Say that a frame waits."""


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """How a stream is read. `rate_hz` and `frames` None set no limit; `wall_ns` gives timestamps and nothing else."""

    every_frame: bool = False
    frames: int | None = None
    rate_hz: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    wall_ns: Callable[[], int] = time.time_ns

    @property
    def bounded(self) -> bool:
        """Return whether the stream was given an end: that of its file, every frame of it, or a number of frames."""
        return self.every_frame or self.frames is not None


class Capture:
    """The thread of one stream. `make_ring(width, height)` allocates, or raises SharedMemoryError."""

    def __init__(
        self,
        stream_id: str,
        source: Source,
        ledger: Ledger,
        make_ring: Callable[[int, int], Ring],
        supervisor: Outbound,
        settings: CaptureSettings,
        first_seq: int = 0,
    ) -> None:
        self.stream_id = stream_id
        self._source = source
        self._next_source: Source | None = None
        self._switches = 0
        self._source_number = 0
        """Of `_switches`, when the present source was taken."""
        self._ledger = ledger
        self._make_ring = make_ring
        self._supervisor = supervisor
        self._settings = settings
        self._stopping = threading.Event()
        self._disturbed = threading.Event()
        """Set when the thread must look up: it is to stop, or to read from another source."""
        self._handover = threading.Lock()
        self._over = True
        """The thread takes no other source any more."""
        self._audience = False
        self.limiter = RateLimiter(settings.rate_hz)
        self.by_command = False
        """Its source was set by a command, so that one of no use is no reason to end the run."""
        self._vitals: Vitals | None = None
        self._unannounced: StreamOpened | None = None
        """The source is open and has yet to prove it: what garbage opens delivers nothing."""
        self._lost = False
        """The source was lost, and has not delivered since."""
        self._explained = ""
        """The traceback that was logged last."""
        self._ring: Ring | None = None
        self._slot: Slot | None = None
        self._lost_ring = ""
        """The ring that is to be left when it is the present one."""
        self._seq = first_seq
        self._end_seq = None if settings.frames is None else first_seq + settings.frames
        self._continuous = False
        self._thread: threading.Thread | None = None

    @property
    def next_seq(self) -> int:
        """Return the number of the next frame."""
        return self._seq

    def start(self) -> None:
        """Start reading; where the system refuses the thread, the source counts as failed."""
        self._over = False
        # A thread that sits in a native call cannot be ended; as a daemon it does not keep the process.
        thread = threading.Thread(target=self._run, name=f"capture-{self.stream_id}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._over = True
            reason = OrionError(f"source {self._source.safe_uri}: no thread to read it: {error}")
            self._supervisor.post(StreamFailed(self, reason))
        else:
            self._thread = thread

    def play(self) -> None:
        """Let what comes at its own pace begin: somebody is there to look at it."""
        self._audience = True

    def switch(self, source: Source) -> int:
        """Read from `source`, which a command has set, after the picture that is being read; numbers go on. Wakes a
        stream that has ended. Return the number that the source's frames carry.
        """
        with self._handover:
            self.by_command = True
            self._next_source = source
            self._switches += 1
            self._disturbed.set()
            if self._over:
                self.start()
            return self._switches

    def leave_ring(self, name: str) -> bool:
        """Write to another ring from the next picture on if this is the present one; return whether that is news."""
        before, self._lost_ring = self._lost_ring, name
        return before != name

    def stop(self) -> None:
        """Ask the thread to end; `join` waits for it."""
        with self._handover:
            self._stopping.set()
            self._disturbed.set()
        self._ledger.end()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; return whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def over(self) -> bool:
        """Return whether nothing is read any more, unless `switch` gives another source."""
        return self._over

    # In the thread.

    def _run(self) -> None:
        while not self._over:
            event = self._keep_reading()
            self._source.close()
            with self._handover:
                if self._stopping.is_set() or not self._take_next_source():
                    self._over = True
                    self._supervisor.post(event)

    def _take_next_source(self) -> bool:
        """Go over to the source that `switch` has left, if there is one."""
        source, self._next_source = self._next_source, None
        if source is None:
            return False
        self._disturbed.clear()
        self._source, self._source_number = source, self._switches
        self.limiter.restart()
        return True

    def _keep_reading(self) -> StreamEnded | StreamFailed:
        """Read until the end of the source, the stop or another source; a lost camera is opened again, for ever."""
        delays = self._settings.backoff.delays(Random())
        opened, first = False, 0
        while not self._disturbed.is_set():
            try:
                info = self._source.open()
                self._unannounced = StreamOpened(self, info)
                opened, first = True, self._seq
                self._read_all(info)
            except Exception as error:  # noqa: BLE001 - the entry point of a thread: what it dies of must be told
                self._source.close()
                if self._seq > first:
                    delays, first = self._settings.backoff.delays(Random()), self._seq
                if not self._retries(error, opened=opened):
                    return StreamFailed(self, self._told(error))
                delay_s, self._lost = next(delays), True
                self._supervisor.post(StreamLost(self, str(self._told(error)), delay_s))
                self._disturbed.wait(delay_s)
            else:
                break
        return StreamEnded(self)

    def _told(self, error: Exception) -> OrionError:
        """Return what to tell of an error. Of one that no source should raise the traceback is logged, once."""
        if isinstance(error, OrionError):
            return error
        explained = traceback.format_exc()
        if explained != self._explained:
            self._explained = explained
            _log.error("the source cannot be read:\n%s", explained, extra={"stream": self.stream_id})
        return OrionError(f"source {self._source.safe_uri}: cannot be read ({type(error).__name__}, see the log)")

    def _retries(self, error: Exception, *, opened: bool) -> bool:
        """Return whether the loss may heal: a network source's always, a camera's once it has worked, and too little
        memory where it is not what the run began with. A run that ends by itself does not wait for a first ring.
        """
        if isinstance(error, SharedMemoryError):
            waits = self.by_command and not self._settings.bounded
            return waits or self._ring is not None or self._lost
        return self._source.kind == "network" or (self._source.kind == "device" and opened)

    def _read_all(self, info: SourceInfo) -> None:
        """Take pictures until the source ends, the limit is reached, or the stop. Raises SourceError on loss."""
        self._continuous = False
        paced = self._source.kind in _TIMED_BY_THEMSELVES and not self._settings.every_frame
        pace = RealTimePace() if paced else None
        # Files and the demo may well show the same picture twice, and who waits for workers sets the rate.
        watched = self._source.kind in {"network", "device"} and not self._settings.every_frame
        self._vitals = Vitals(info.fps) if watched else None
        self._use_ring(info.width, info.height)
        while not self._disturbed.is_set() and self._seq != self._end_seq:
            if self._ledger.paused and not self._settings.every_frame:
                self.limiter.rest()
                more = self._skip_one(pace, "paused")
            elif not self.limiter.take(self._clock_s()):
                more = self._skip_one(pace, "rate")
            else:
                more = self._read_one(pace)
            if not more:
                return

    def _skip_one(self, pace: RealTimePace | None, reason: DropReason) -> bool:
        """Pass one picture over without converting it; return False at the end of the source."""
        if not self._source.skip():
            return False
        self._announce()
        if not self._await_pace(pace):
            return False
        if self._vitals is not None:
            self._tell(self._vitals.passed(time.monotonic(), self._source.camera_time_s))
        self._ledger.skip(reason)
        self._seq += 1
        return True

    def _read_one(self, pace: RealTimePace | None) -> bool:
        """Read one picture into the slot and offer it; return False at the end of the source."""
        assert self._ring is not None
        if self._ring.name == self._lost_ring:
            self._renew_ring(self._ring)
        assert self._slot is not None
        destination = self._ring.begin(self._slot.index)
        picture = self._source.read(destination)
        if picture is None:
            return False
        self._announce()
        if picture is not destination:
            self._take_other_size(picture)
        if not self._await_pace(pace):
            return False
        captured_ns, captured_wall_ns = time.monotonic_ns(), self._settings.wall_ns()
        stream_time_s = self._source.stream_time_s
        if self._vitals is not None:
            self._tell(self._vitals.seen(picture, captured_ns / 1e9, self._source.camera_time_s))
        frame = Frame(
            frame_seq=self._seq,
            generation=self._ring.finish(self._slot.index),
            width=picture.shape[1],
            height=picture.shape[0],
            captured_ns=captured_ns,
            captured_wall_ns=captured_wall_ns,
            stream_time_s=captured_ns / 1e9 if stream_time_s is None else stream_time_s,
            continuous=self._continuous,
            source=self._source_number,
        )
        self._seq += 1
        self._continuous = True
        self._slot = self._ledger.offer(self._slot, frame)
        self._supervisor.wake()
        return True

    def _announce(self) -> None:
        """Say that the source delivers, once."""
        if self._unannounced is not None:
            self._supervisor.post(self._unannounced)
            self._unannounced, self._lost = None, False

    def _tell(self, finding: Finding | None) -> None:
        """Post what was found of the source, if anything."""
        if finding is not None:
            self._supervisor.post(StreamCondition(self, finding))

    def _take_other_size(self, picture: Pixels) -> None:
        """Make a ring for a picture that did not fit into the slot, and put it there."""
        height, width = picture.shape[:2]
        self._use_ring(width, height)
        assert self._ring is not None
        assert self._slot is not None
        self._ring.begin(self._slot.index)[:] = picture
        self._continuous = False
        self._supervisor.post(StreamResized(self, width, height))

    def _use_ring(self, width: int, height: int) -> None:
        """Write to a ring of this size from now on; the one that is there serves if it fits."""
        if self._ring is not None and (self._ring.layout.width, self._ring.layout.height) == (width, height):
            return
        self._open_ring(width, height)

    def _renew_ring(self, present: Ring) -> None:
        """Go over to a ring of the same size, if there is memory for one."""
        try:
            self._open_ring(present.layout.width, present.layout.height)
        except SharedMemoryError as error:
            # The worker that has mapped the present one can still read it. The supervisor will ask again.
            self._lost_ring = ""
            _log.warning("%s stays in use: %s", present.name, error, extra={"stream": self.stream_id})

    def _open_ring(self, width: int, height: int) -> None:
        self._ring = self._make_ring(width, height)
        self._slot = self._ledger.open_ring(self._ring.name, self._ring.slots)

    def _await_pace(self, pace: RealTimePace | None) -> bool:
        """Hold a picture of a file back until it is due, and somebody is there to look at it: nothing of a file is lost
        while models load. Return False when it is to be read no further before that.
        """
        stream_time_s = self._source.stream_time_s
        if pace is None or stream_time_s is None:
            return True
        while not self._audience:
            if self._disturbed.wait(_LOOK_UP_S):
                return False
        wait_s = pace.wait_s(stream_time_s, time.monotonic())
        if wait_s > 0:
            self._disturbed.wait(wait_s)
        return True

    def _clock_s(self) -> float:
        """Return the time that rates are kept by: the stream's own where it has one, also before the first picture."""
        if self._source.kind in _TIMED_BY_THEMSELVES:
            return self._source.stream_time_s or 0.0
        return time.monotonic()
