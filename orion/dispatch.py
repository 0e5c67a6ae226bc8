"""Which worker serves which stream, and whose turn it is: pure decisions of the supervisor's thread."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar


def shares(cores: int, streams: int, count: int | None, threads: int | None) -> tuple[int, int]:
    """Return the number of workers and of inference threads in each, for what is not given (None).

    As many workers as streams, so that a fault of one leaves the others alone, up to one a core; the cores are shared
    out among them.
    """
    workers = count or max(1, min(streams, cores))
    return workers, threads or max(1, cores // workers)


def assign(streams: Sequence[str], workers: Sequence[str], present: Mapping[str, str]) -> dict[str, str]:
    """Return the worker of each stream: the present one while it is among `workers`, else the least loaded."""
    if not workers:
        return {}
    assigned = {stream: present[stream] for stream in streams if present.get(stream) in workers}
    for stream in streams:
        if stream not in assigned:
            load = {worker: list(assigned.values()).count(worker) for worker in workers}
            assigned[stream] = min(workers, key=lambda worker: load[worker])
    return assigned


def levelled(present: Mapping[str, str], ready: Sequence[str], held: Collection[str]) -> dict[str, str]:
    """Return the new worker of each stream that moves: from the fullest to one of `ready` that has at least two fewer.

    `present` are the workers of all streams; those in `held` stay where they are.
    """
    assigned, moved = dict(present), dict[str, str]()
    while ready:
        load = Counter(assigned.values())
        emptiest = min(ready, key=lambda worker: load[worker])
        movable = [stream for stream in assigned if stream not in held and load[assigned[stream]] > load[emptiest] + 1]
        if not movable:
            break
        stream = max(movable, key=lambda stream: load[assigned[stream]])
        assigned[stream] = moved[stream] = emptiest
    return moved


class Candidate(Protocol):
    """A stream as dispatch sees it."""

    served: int

    @property
    def wants_worker(self) -> bool:
        """Whether a frame is there."""


_Stream = TypeVar("_Stream", bound=Candidate)


def next_stream(candidates: Iterable[_Stream]) -> _Stream | None:
    """Return the stream whose turn it is: of those that want a worker, the least recently served."""
    wanting = [stream for stream in candidates if stream.wants_worker]
    return min(wanting, key=lambda stream: stream.served) if wanting else None
