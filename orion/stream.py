"""The supervisor's view of one stream: its ledger, its rings, its capture thread, and what is counted and shown of it.
Owned by the supervisor's thread; `make_ring` alone is called by the capture thread.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from orion.capture import Capture, CaptureSettings, Outbound
from orion.errors import SharedMemoryError
from orion.known import KnownOnStream
from orion.ledger import Lease, Ledger
from orion.messages import AttentionSettings, Outcome, Region
from orion.ring import MIN_SLOTS, Ring
from orion.source import Source, SourceInfo
from orion.telemetry import RateMeter
from orion.vitals import SEEING

StreamState = Literal["opening", "running", "frozen", "slow", "irregular", "lost", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What the operator set for one stream."""

    stream_id: str
    room_id: str
    uri: str
    """With credentials masked; for people to read."""
    attention: AttentionSettings
    capture: CaptureSettings


class RingMaker:
    """Allocates the instance's rings; every segment gets a name of its own, `orion.<instance_id>.<run_id>.<n>`."""

    def __init__(self, instance_id: str, run_id: str, slots: int, warn: Callable[[str], None]) -> None:
        self._prefix = f"orion.{instance_id}.{run_id}"
        self._slots = slots
        self._warn = warn
        self._numbers = itertools.count()
        self._rings: dict[str, Ring] = {}
        self._closed = False

    def make(self, width: int, height: int) -> Ring:
        """Allocate a ring; with fewer slots and a warning when the memory suffices for that only.

        Raises SharedMemoryError, with the numbers for what was asked for, when it does not, and after the end: a thread
        that comes back late from a native call must leave nothing behind.
        """
        if self._closed:
            raise SharedMemoryError("no shared memory any more: the instance stops")
        name = f"{self._prefix}.{next(self._numbers)}"
        try:
            ring = Ring(name, width, height, self._slots)
        except SharedMemoryError as error:
            if self._slots == MIN_SLOTS:
                raise
            try:
                ring = Ring(name, width, height, MIN_SLOTS)
            except SharedMemoryError:
                raise error from None
            self._warn(f"{error}. Going on with {MIN_SLOTS} slots instead of {self._slots}")
        self._rings[name] = ring
        return ring

    def find(self, name: str) -> Ring:
        """Return the ring of this name."""
        return self._rings[name]

    def close(self, name: str) -> None:
        """Unlink and unmap a ring that nobody needs; one whose view is still held is unmapped at the end."""
        if self._rings[name].close():
            del self._rings[name]

    def unlink_all(self) -> None:
        """Remove every segment's name, mapped or not; safe in a signal handler."""
        for ring in list(self._rings.values()):
            ring.unlink()

    def close_all(self) -> None:
        """Unlink every ring, and unmap what can be unmapped; there will be no others."""
        self._closed = True
        for name in list(self._rings):
            self.close(name)


@dataclass(slots=True)
class Shown:
    """What people want to see of a stream at a glance."""

    fps: RateMeter = field(default_factory=RateMeter)
    count: int = 0
    best_confidence: float | None = None
    inference: str = ""


@dataclass(slots=True)
class RoiCounts:
    """What regions have led to so far; held results are not counted."""

    rois_processed: int = 0
    """Crops that were less than the frame."""
    model_320_selected: int = 0
    model_640_selected: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count what was run for one result."""
        roi = outcome.roi_processing
        models = [crop.model for crop in roi.crops] if roi is not None else [outcome.model_selected]
        self.rois_processed += len(models) if outcome.inference == "roi" else 0
        self.model_320_selected += models.count(320)
        self.model_640_selected += models.count(640)


class Stream:
    """One stream and everything that belongs to it."""

    def __init__(
        self, settings: StreamSettings, source: Source, rings: RingMaker, supervisor: Outbound, first_seq: int = 0
    ) -> None:
        self.settings = settings
        self.stream_id = settings.stream_id
        self.ledger = Ledger(every_frame=settings.capture.every_frame)
        self.state: StreamState = "opening"
        self.info: SourceInfo | None = None
        self.regions: tuple[Region, ...] = ()
        self.worker_id = ""
        self.served = 0
        """Number of the dispatch that served it last; the least recent is served first."""
        self.orphan: Lease | None = None
        """A frame whose worker died with it, for the successor."""
        self.failure = ""
        """Why it is in the state `failed`."""
        self.resumed = False
        """The next frame is the first after a pause."""
        self.shown = Shown()
        self.counts = RoiCounts()
        self.known = KnownOnStream()
        self._rings = rings
        self._own_rings: list[str] = []
        self._capture = Capture(
            self.stream_id, source, self.ledger, self._make_ring, supervisor, settings.capture, first_seq
        )

    def start(self, *, by_command: bool = False) -> None:
        """Start the capture thread."""
        self._capture.by_command = by_command
        self._capture.start()

    def play(self) -> None:
        """Let a file begin, since somebody is there to look at it. Cameras do not wait."""
        self._capture.play()

    def stop(self) -> None:
        """Ask the capture thread to end, and drop what waits."""
        self._capture.stop()

    def join(self, timeout_s: float) -> bool:
        """Wait for the capture thread; return whether it has ended."""
        return self._capture.join(timeout_s)

    def pause(self) -> None:
        """Answer no frame from now on; the source goes on being read."""
        self.ledger.pause()
        if self.orphan is not None and not self.settings.capture.every_frame:
            self.ledger.give_back(self.orphan, "paused")
            self.orphan = None

    def resume(self) -> None:
        """Answer frames again; nothing seen before the pause is assumed to hold."""
        if self.ledger.paused:
            self.resumed = True
            self.ledger.resume()

    def change(self, settings: StreamSettings, source: Source | None) -> None:
        """Go on with other settings and, if there is one, with another source."""
        self.settings = settings
        self._capture.limiter.rate_hz = settings.capture.rate_hz
        if source is not None:
            self.known.expect(self._capture.switch(source))

    def reads_with(self, capture: Capture) -> bool:
        """Return whether it is this stream that `capture` reads for, and not one that had its id before."""
        return capture is self._capture

    @property
    def by_command(self) -> bool:
        """Return whether its source was set by a command, and not what the run began with."""
        return self._capture.by_command

    @property
    def next_seq(self) -> int:
        """Return the number of the next frame."""
        return self._capture.next_seq

    def close_drained_rings(self) -> None:
        """Close the rings that a change of size left behind, once nothing is in them."""
        for name in self.ledger.take_drained():
            self._close_ring(name)

    def leave_lost_ring(self) -> bool:
        """Have the capture thread go over to another ring if its own has lost its name, so that no other worker could
        map it. Return whether that is news.
        """
        if self._capture.over or not self._own_rings or self._rings.find(self._own_rings[-1]).named:
            return False
        return self._capture.leave_ring(self._own_rings[-1])

    def close_if_drained(self) -> bool:
        """Close all rings of a stream that was stopped, once nobody uses them; return whether that is done."""
        if not self._capture.over or self.ledger.leased:
            return False
        for name in list(self._own_rings):
            self._close_ring(name)
        return True

    def _make_ring(self, width: int, height: int) -> Ring:
        ring = self._rings.make(width, height)
        self._own_rings.append(ring.name)
        return ring

    def _close_ring(self, name: str) -> None:
        self._own_rings.remove(name)
        self._rings.close(name)

    def sees_people(self, now_s: float) -> bool:
        """Return whether the last answer tells who is there now."""
        delivers = self.state in SEEING and not self.ledger.paused
        return delivers and self.shown.fps.fresh(now_s)

    def note(self, outcome: Outcome, now_s: float) -> None:
        """Remember of an answer what people want to see."""
        self.shown.fps.add(now_s)
        self.shown.count = len(outcome.detections)
        self.shown.best_confidence = outcome.detections[0].confidence if outcome.detections else None
        self.shown.inference = outcome.inference
        self.counts.add(outcome)

    @property
    def wants_worker(self) -> bool:
        """Return whether a frame is there for a worker."""
        return not self.ledger.paused and (self.orphan is not None or self.ledger.waiting is not None)

    @property
    def answering(self) -> bool:
        """Return whether a worker is at work on a frame of it."""
        return self.ledger.leased and self.orphan is None

    @property
    def finished(self) -> bool:
        """Return whether the source has ended and every frame of it is accounted for.

        One that failed waits for another source by command, unless the run is one that ends by itself.
        """
        ended = self.state == "ended" or (self.state == "failed" and self.settings.capture.bounded)
        return self._capture.over and ended and self.ledger.accounts().in_flight == 0
