"""What the supervisor keeps of who is known on one stream: what the last answer said of it, so that the process that
gets the next frame has it, should that be another one, and of whom it was told that they vanished. Pure; owned by the
supervisor's thread, fed with what is handed out and what is answered.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orion.ledger import Frame
from orion.messages import Known, VanishedPerson

_log = logging.getLogger(__name__)

TOLD_AFTER_S = 1.0
"""How long somebody must have been gone, by the stream's clock, for it to be an event."""
_LONGEST_S = 86_400.0
"""Nobody is looked for so long, whatever a worker says."""
ATTEMPTS = 5
"""Frames that may fail with what another process knew before it is held back: it may be what they fail of."""

_Origin = tuple[int, int, int]
"""What boxes refer to: pictures of which source, and their width and height."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What goes with a frame to a process."""

    known: Known | None
    anew: bool
    """What the process keeps of the stream is of another source, and must be forgotten before."""


@dataclass(frozen=True, slots=True)
class _Kept:
    known: Known
    origin: _Origin
    process: str
    """Who has it already; empty where nobody does."""


class KnownOnStream:
    """Who is known on one stream, across the processes that answer its frames, of which at most one has a frame."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None
        self._source = 0
        """The source that is to be read, counted from 0."""
        self._handed_source = 0
        """The source of the frame that was handed out last."""
        self._drops = 0
        self._drops_before = 0
        """Drops until the frame was handed out that is out now."""
        self._attempts = 0
        self._since_ns: dict[VanishedPerson, int] = {}
        self._told: set[VanishedPerson] = set()

    @property
    def vanished(self) -> tuple[VanishedPerson, ...]:
        """Return who is looked for now."""
        return self._kept.known.vanished if self._kept is not None else ()

    @property
    def since_ns(self) -> Mapping[VanishedPerson, int]:
        """Return when each of those whom the last answer calls vanished was last seen, by the wall clock."""
        return MappingProxyType(self._since_ns)

    def hand_out(self, process: str, frame: Frame) -> Handed:
        """Return what goes with `frame` to `process`: what is known, where another process gave the last answer."""
        self._drops_before = self._drops
        anew, self._handed_source = frame.source != self._handed_source, frame.source
        if anew:
            # Another source's clock may begin where that of the one before did.
            self._since_ns, self._told = {}, set()
        if self._kept is not None and self._kept.origin != _origin(frame):
            self.drop()
            self._drops_before = self._drops
        kept = self._kept
        if kept is None or kept.process == process or not _of_use(kept.known):
            return Handed(None, anew)
        self._attempts += 1
        if self._attempts <= ATTEMPTS:
            return Handed(kept.known, anew)
        if self._attempts == ATTEMPTS + 1:
            _log.warning("%d frames failed that came with who was known before: the next ones go without it", ATTEMPTS)
        return Handed(None, anew)

    def take(self, known: Known, process: str, frame: Frame) -> None:
        """Take what the answer to the frame that was handed out last says. It is not kept where all was dropped
        meanwhile, or where the frame is of a source that is read no more.
        """
        self._since_ns = {one: self._since_ns.get(one, _last_seen_ns(one, frame)) for one in known.vanished}
        self._told &= self._since_ns.keys()
        if self._drops == self._drops_before and frame.source == self._source:
            self._kept, self._attempts = _Kept(known, _origin(frame), process), 0

    def due(self) -> list[VanishedPerson]:
        """Return who has been gone long enough and was not returned before."""
        now_s = self._kept.known.time_s if self._kept is not None else 0.0
        due = [one for one in self.vanished if now_s - one.since_s >= TOLD_AFTER_S and one not in self._told]
        self._told |= set(due)
        return due

    def let_go(self) -> None:
        """Take note that the process which gave the last answer was told to forget the stream."""
        if self._kept is not None:
            self._kept = _Kept(self._kept.known, self._kept.origin, "")

    def drop(self) -> None:
        """Know nobody any more; the answer to the frame that is out does not change that."""
        self._kept, self._attempts = None, 0
        self._drops += 1

    def expect(self, source: int) -> None:
        """Know nobody until a frame of this source is answered: it shows another place."""
        self._source = source
        self.drop()


def _origin(frame: Frame) -> _Origin:
    return frame.source, frame.width, frame.height


def _of_use(known: Known) -> bool:
    """Return whether it says more than that nobody is known."""
    return bool(known.people or known.searches or known.exits)


def _last_seen_ns(person: VanishedPerson, frame: Frame) -> int:
    """Return when somebody was last seen, by the wall clock, from how long before `frame` that was."""
    gone_s = min(max(frame.stream_time_s - person.since_s, 0.0), _LONGEST_S)
    return frame.captured_wall_ns - round(gone_s * 1e9)
