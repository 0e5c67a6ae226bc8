"""The supervisor's view of one worker: its process, its socket, and the state it is in. States are types, so that a
frame cannot be sent to a worker that is not READY. Used by the supervisor's thread alone.
"""

# With what reaping needs: the library loads it at the first death, where there may be no descriptor left for a file.
import multiprocessing.connection
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess

from orion import lifeline, worker
from orion.ledger import Lease
from orion.messages import AttentionStats, BootFailure, DetectorInfo, Message
from orion.wire import Channel
from orion.worker import WorkerSpec

_MESSAGES_AT_ONCE = 16
"""A worker owes at most one answer; one that sends more in a burst is flooding and waits for the next turn."""


class WorkerProcess:
    """A spawned process and the supervisor's end of its socket. Must be created in the main thread.

    Raises OSError when the system has no socket or no process to give.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        ours, theirs = Channel.pair()
        self.channel = Channel(ours, blocking=False)
        self.at_end = False
        """The process has closed its end of the socket: it leaves, or is no use any more."""
        context = multiprocessing.get_context("spawn")
        self._process: BaseProcess = context.Process(
            target=worker.main, args=(replace(spec, parent_pid=os.getpid()), theirs), name=spec.worker_id
        )
        try:
            with lifeline.spawning():
                self._process.start()
        except BaseException:
            # Ctrl-C comes when the process is there.
            if self._process.pid is not None:
                self._process.kill()
                self._process.join()
            self.channel.close()
            raise
        finally:
            # With our copy of its end open, the child's death would not show as end of file.
            theirs.close()

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def sentinel(self) -> int:
        """Return the descriptor that becomes readable when the process has ended."""
        return self._process.sentinel

    def received(self) -> Iterator[Message]:
        """Yield what has arrived, a bounded number at a time. Raises WireError for what is not a message."""
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                message = self.channel.receive()
            except BlockingIOError:
                return
            if message is None:
                self.at_end = True
                return
            yield message

    def kill(self) -> None:
        """End the process at once, stopped or not. Harmless when it has ended."""
        self._process.kill()

    def reap(self, timeout_s: float) -> int | None:
        """Wait for the end, collect the exit code, close everything. None when it did not end in time."""
        self._process.join(timeout_s)
        code = self._process.exitcode
        if code is not None:
            self.channel.close()
            self._process.close()
        return code


@dataclass(frozen=True, slots=True)
class Starting:
    """Spawned, not READY yet; overdue at `deadline_s`."""

    process: WorkerProcess
    since_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Idle:
    """READY, with nothing to do."""

    process: WorkerProcess
    info: DetectorInfo


@dataclass(frozen=True, slots=True)
class Busy:
    """READY, and working on a leased frame; hung at `deadline_s`."""

    process: WorkerProcess
    info: DetectorInfo
    stream_id: str
    lease_id: int
    lease: Lease
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Leaving:
    """Closed its socket; should be gone by `deadline_s`."""

    process: WorkerProcess
    deadline_s: float
    busy: Busy | None


@dataclass(frozen=True, slots=True)
class Condemned:
    """Killed or found dead; not reaped yet. What it was leased is still its own until then."""

    process: WorkerProcess
    reason: str
    busy: Busy | None


@dataclass(frozen=True, slots=True)
class Absent:
    """No process; the next one is due at `start_s`."""

    start_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """No process, and none will be started unless asked for."""

    reason: str


Alive = Starting | Idle | Busy | Leaving | Condemned
State = Alive | Absent | Failed


@dataclass(slots=True)
class Query:
    """A question to a worker; `over` once it has answered, or is gone and will not."""

    number: int
    over: bool = False
    stats: AttentionStats | None = None


@dataclass(slots=True)
class WorkerHandle:
    """One worker through all its processes: its state, and what is counted over its life."""

    worker_id: str
    state: State
    deaths_s: list[float] = field(default_factory=list)
    queries: dict[int, Query] = field(default_factory=dict)
    """Those that it owes an answer, by number."""
    boot_failures: int = 0
    boot_failure: BootFailure | None = None
    """The last one, until the next READY."""
    restarts: int = 0
    restart_asked: bool = False
    """A command wants another process in the place of this one."""
    times_ready: int = 0
    longest_start_s: float | None = None
    """Of those that became READY."""
    late_starts: int = 0
    """Starts in a row that were given up as too slow."""
    seen_stopped: bool = False
    """The kernel had it stopped at the last look."""
    frames_received: int = 0
    frames_dropped: int = 0
    inferences: int = 0
    total_latency_ms: float = 0.0
    last_seen_wall_ns: int | None = None
    down_since_s: float | None = None
    last_end: str = ""
    """Why the last process ended, or could not be started."""

    def let_queries_go(self) -> None:
        """Expect no answers any more: the process is gone."""
        for query in self.queries.values():
            query.over = True
        self.queries.clear()

    @property
    def avg_latency_ms(self) -> float:
        """Return the mean time inside the worker."""
        return self.total_latency_ms / self.inferences if self.inferences else 0.0

    @property
    def pid(self) -> int | None:
        """Return the living process's id."""
        return self.state.process.pid if isinstance(self.state, Alive) else None

    @property
    def process_name(self) -> str:
        """Name the process that is READY now, and none before or after it."""
        return f"{self.worker_id}.{self.times_ready}"

    @property
    def state_name(self) -> str:
        """Return the state as operators read it."""
        return type(self.state).__name__.lower()
