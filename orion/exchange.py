"""Drives a change of models: sends to each worker what the state of the swap calls for, and watches the time. Part of
the crew, in the supervisor's thread.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from orion.handle import Busy, Idle, Starting, WorkerHandle
from orion.messages import (
    Abort,
    Commit,
    Committed,
    DetectorInfo,
    DetectorSpec,
    Message,
    Prepare,
    Prepared,
    PrepareFailed,
)
from orion.swap import Loaded, Swap

PREPARE_LIMIT_S = 45.0
COMMIT_LIMIT_S = 10.0


class Members(Protocol):
    """What an exchange needs of the crew."""

    def __iter__(self) -> Iterator[WorkerHandle]:
        """Give every worker."""

    def adopt(self, spec: DetectorSpec) -> None:
        """Start workers with this pair from now on."""

    def condemn(self, handle: WorkerHandle, reason: str) -> None:
        """End a worker that does not do what it is told."""

    def frame_deadline_s(self, info: DetectorInfo) -> float:
        """Return how long a frame may take with this pair."""


class Exchange:
    """One change of models, by its number."""

    def __init__(self, number: int, spec: DetectorSpec, crew: Members, now_s: float) -> None:
        self.swap = Swap()
        self.deadline_s = now_s + PREPARE_LIMIT_S
        """When `turn` has something to do at the latest."""
        self._number = number
        self._spec = spec
        self._crew = crew
        self._asked: set[str] = set()
        self._told = False
        """What was decided is said."""
        for handle in crew:
            match handle.state:
                case Starting():
                    self.swap.starting(handle.worker_id)
                case Idle() | Busy():
                    self.ask(handle)
                case _:
                    pass

    def ask(self, handle: WorkerHandle) -> None:
        """Tell a worker to prepare: it is READY, with the present pair."""
        if self.swap.phase == "preparing":
            self._asked.add(handle.worker_id)
            self.swap.asked(handle.worker_id)
            if not self._send(handle, Prepare(self._number, self._spec)):
                self.swap.failed(handle.worker_id, "does not take messages")

    def take(self, handle: WorkerHandle, message: Prepared | PrepareFailed | Committed, now_s: float) -> bool:
        """Note what a worker answers; return whether it has the new pair in use now. Words about an earlier attempt
        come too late to matter.
        """
        if message.swap != self._number:
            return False
        match message:
            case Prepared(info=info, load_ms=load_ms):
                self.swap.prepared(handle.worker_id, Loaded(info, load_ms))
            case PrepareFailed(reason=reason):
                self.swap.failed(handle.worker_id, reason)
            case Committed() if handle.worker_id not in self.swap.committing:
                self._end(handle, "sent Committed out of turn")
            case Committed():
                self._renew(handle, now_s)
                self.swap.committed(handle.worker_id)
                return True
        return False

    def turn(self, now_s: float) -> None:
        """Give up what takes too long, and tell the workers what is decided."""
        if self.swap.over and self._told:
            self.deadline_s = float("inf")
        elif now_s >= self.deadline_s:
            self._expire()
        if self._told or self.swap.phase == "preparing":
            return
        self._told = True
        if self.swap.phase == "aborted":
            for handle in self._crew:
                if handle.worker_id in self._asked and not self._send(handle, Abort(self._number)):
                    self._end(handle, "does not take messages")
        else:
            self.deadline_s = now_s + COMMIT_LIMIT_S
            self._crew.adopt(self._spec)
            for handle in self._crew:
                if handle.worker_id in self.swap.committing and not self._send(handle, Commit(self._number)):
                    self._end(handle, "does not take messages")

    def _expire(self) -> None:
        if self.swap.phase == "preparing":
            late = ", ".join(sorted(self.swap.owing)) or "any worker"
            self.swap.abort(f"{late} could not load the models within {PREPARE_LIMIT_S:g} s")
        for handle in self._crew:
            if handle.worker_id in self.swap.committing:
                self._end(handle, "does not change its models")
        self.deadline_s = float("inf")

    def _renew(self, handle: WorkerHandle, now_s: float) -> None:
        """Let the new pair's own times and names hold from here on."""
        info = self.swap.loaded[handle.worker_id].info
        match handle.state:
            case Idle() as idle:
                handle.state = replace(idle, info=info)
            case Busy() as busy:
                handle.state = replace(busy, info=info, deadline_s=now_s + self._crew.frame_deadline_s(info))
            case _:
                pass

    def _end(self, handle: WorkerHandle, reason: str) -> None:
        if isinstance(handle.state, Idle | Busy):
            self._crew.condemn(handle, reason)

    def _send(self, handle: WorkerHandle, message: Message) -> bool:
        return isinstance(handle.state, Idle | Busy) and handle.state.process.channel.send(message)
