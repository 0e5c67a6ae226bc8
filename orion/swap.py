"""A change of models in two phases, as a pure state machine: every live worker loads the new pair beside the old one;
only when all have, the old one goes. Fed by the supervisor's thread with what becomes of the workers.

    preparing --all loaded the same files--> committing --all have swapped, or are gone--> committed
        |
        +--one cannot, one died of it, or it took too long--> aborted, and the present pair stays everywhere
"""

from dataclasses import dataclass
from typing import Literal

from orion.messages import DetectorInfo

Phase = Literal["preparing", "committing", "committed", "aborted"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The pair that a worker has loaded, and how long that took by the clock."""

    info: DetectorInfo
    load_ms: float


class Swap:
    """The state of one change. Workers are known by their id."""

    def __init__(self) -> None:
        self.phase: Phase = "preparing"
        self.reason = ""
        """Why it was aborted."""
        self.loaded: dict[str, Loaded] = {}
        self._loading: set[str] = set()
        self._starting: set[str] = set()
        self._committing: set[str] = set()

    @property
    def over(self) -> bool:
        """Return whether nothing more will happen."""
        return self.phase in {"committed", "aborted"}

    @property
    def owing(self) -> frozenset[str]:
        """Return the workers whose word is missing."""
        return frozenset(self._loading | self._starting | self._committing)

    @property
    def committing(self) -> frozenset[str]:
        """Return the workers that were told to put the new pair in place, and have not said that they did."""
        return frozenset(self._committing)

    def starting(self, worker_id: str) -> None:
        """Note that a worker comes up with the present pair, and will be asked to load the other."""
        if self.phase == "preparing":
            self._starting.add(worker_id)

    def asked(self, worker_id: str) -> None:
        """Note that a worker was told to prepare."""
        self._starting.discard(worker_id)
        self._loading.add(worker_id)

    def prepared(self, worker_id: str, loaded: Loaded) -> None:
        """Note that a worker holds the new pair."""
        if self.phase == "preparing" and worker_id in self._loading:
            self._loading.discard(worker_id)
            self.loaded[worker_id] = loaded
            self._advance()

    def failed(self, worker_id: str, reason: str) -> None:
        """Note that a worker cannot use the new pair: nobody will."""
        if self.phase == "preparing":
            self.abort(f"{worker_id}: {reason}")

    def ended(self, worker_id: str, reason: str) -> None:
        """Note that a worker's process is gone. It comes back with the pair that holds by then."""
        if worker_id in self._loading or (self.phase == "preparing" and worker_id in self.loaded):
            self.abort(f"{worker_id} {reason} while it prepared")
        self._starting.discard(worker_id)
        self._committing.discard(worker_id)
        self._advance()

    def committed(self, worker_id: str) -> None:
        """Note that a worker has put the new pair in place."""
        self._committing.discard(worker_id)
        self._advance()

    def abort(self, reason: str) -> None:
        """Give up; too late once the first worker was told to commit."""
        if self.phase == "preparing":
            self.phase, self.reason = "aborted", reason
            self._loading.clear()
            self._starting.clear()

    def _advance(self) -> None:
        if self.phase == "preparing" and self.loaded and not (self._loading or self._starting):
            if len({_files(loaded.info) for loaded in self.loaded.values()}) > 1:
                self.abort("the workers have loaded different files: they were changed meanwhile")
            else:
                self.phase, self._committing = "committing", set(self.loaded)
        elif self.phase == "committing" and not self._committing:
            self.phase = "committed"


def _files(info: DetectorInfo) -> tuple[str, ...]:
    return tuple(session.sha256 for session in info.sessions)
