"""Where control requests arrive: each is refused, answered from memory, or queued, and leaves with exactly one answer.
Pure, with the clock handed in; the supervisor's thread owns it, executes one request at a time, and publishes.
"""

import json
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from orion import control
from orion.control import Envelope, Outcome, Refused, RefusedError, Request

Answer = dict[str, Any]
"""As it is published."""

_QUEUE_LIMIT = 32
_REMEMBERED_S = 600.0
_MEMORY_LIMIT = 4096
"""Answers kept; of more within ten minutes the oldest are forgotten."""
_RATE_HZ = 100.0
_BURST = 200.0
"""Requests taken a second, and at once."""


@dataclass(frozen=True, slots=True)
class _Memory:
    digest: bytes
    answer: str
    """As JSON, which takes a tenth of the room."""
    until_s: float


class Desk:
    """Takes requests in. `stamp` gives the time for answers; `forbidden` are commands that the configuration bars."""

    def __init__(self, instance_id: str, forbidden: Collection[str], stamp: Callable[[], str]) -> None:
        self._instance_id = instance_id
        self._forbidden = forbidden
        self._stamp = stamp
        self._queue: deque[Request] = deque()
        self._open: dict[str, bytes] = {}
        """Digests of the requests that wait or are executed, by their id."""
        self._repeats: Counter[str] = Counter()
        self._memory: OrderedDict[str, _Memory] = OrderedDict()
        self._credit = _BURST
        self._as_of_s: float | None = None

    def receive(
        self, payload: bytes, size: int, now_s: float, busy: Callable[[Request], str] = lambda _: ""
    ) -> Answer | None:
        """Queue a request, or return the answer of one that is refused or was answered before.

        `busy` says of an acceptable request why it cannot even wait, or nothing.
        """
        try:
            envelope = control.read(payload, size)
        except RefusedError as error:
            return self._form(control.UNKNOWN, None, error.refused)
        try:
            return self._admit(envelope, now_s, busy)
        except RefusedError as error:
            answer = self._form(envelope.command, envelope.request_id, error.refused)
            if error.refused.code != "busy":
                self._remember(envelope, answer, now_s)
            return answer

    def _admit(self, envelope: Envelope, now_s: float, busy: Callable[[Request], str]) -> Answer | None:
        self._spend(now_s)
        known = self._recall(envelope, now_s)
        if known is not None:
            return known
        if envelope.request_id in self._open:
            self._repeats[envelope.request_id] += 1
            return None
        request = control.check(envelope, self._forbidden)
        if len(self._queue) >= _QUEUE_LIMIT:
            raise RefusedError("busy", f"{_QUEUE_LIMIT} requests wait already")
        if reason := busy(request):
            raise RefusedError("busy", reason)
        self._queue.append(request)
        if envelope.request_id is not None:
            self._open[envelope.request_id] = envelope.digest
        return None

    def next(self) -> Request | None:
        """Return the request whose turn it is, which is the caller's to `settle`; None when nothing waits."""
        return self._queue.popleft() if self._queue else None

    def settle(self, request: Request, outcome: Outcome, now_s: float) -> list[Answer]:
        """Return the answer to a request that was executed, once for each time that it was asked."""
        answer = self._form(request.command, request.request_id, outcome)
        if request.request_id is None:
            return [answer]
        digest = self._open.pop(request.request_id)
        if not (isinstance(outcome, Refused) and outcome.code == "busy"):
            self._store(request.request_id, digest, answer, now_s)
        return [answer] * (1 + self._repeats.pop(request.request_id, 0))

    def _spend(self, now_s: float) -> None:
        """Refuse what comes faster than it could be meant."""
        elapsed_s = 0.0 if self._as_of_s is None else now_s - self._as_of_s
        self._as_of_s = now_s
        self._credit = min(_BURST, self._credit + elapsed_s * _RATE_HZ)
        if self._credit < 1:
            raise RefusedError("busy", f"more than {_RATE_HZ:g} requests a second")
        self._credit -= 1

    def _recall(self, envelope: Envelope, now_s: float) -> Answer | None:
        """Return the answer that was given to the same request. Refuses its id on another one."""
        while self._memory and next(iter(self._memory.values())).until_s <= now_s:
            self._memory.popitem(last=False)
        if envelope.request_id is None:
            return None
        known = self._memory.get(envelope.request_id)
        digest = known.digest if known is not None else self._open.get(envelope.request_id, envelope.digest)
        if digest != envelope.digest:
            raise RefusedError("invalid_params", "request_id: was used for another request")
        answer: Answer | None = json.loads(known.answer) if known is not None else None
        return answer

    def _remember(self, envelope: Envelope, answer: Answer, now_s: float) -> None:
        taken = envelope.request_id in self._open or envelope.request_id in self._memory
        if envelope.request_id is not None and not taken:
            self._store(envelope.request_id, envelope.digest, answer, now_s)

    def _store(self, request_id: str, digest: bytes, answer: Answer, now_s: float) -> None:
        self._memory[request_id] = _Memory(digest, json.dumps(answer, separators=(",", ":")), now_s + _REMEMBERED_S)
        if len(self._memory) > _MEMORY_LIMIT:
            self._memory.popitem(last=False)

    def _form(self, command: str, request_id: str | None, outcome: Outcome) -> Answer:
        return control.acknowledgement(command, request_id, outcome, self._instance_id, self._stamp())
