"""The workers through all their lives: started, READY, busy, late, dead, started again, given up. Part of the
supervisor's thread, which drives it with `turn` and lends it the selector; what concerns streams goes to the listener.
"""

import logging
import random
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from orion import restart
from orion.errors import EXIT_BOOT_FAILED, EXIT_OK, ModelError, WireError
from orion.exchange import Exchange
from orion.handle import (
    Absent,
    Alive,
    Busy,
    Condemned,
    Failed,
    Idle,
    Leaving,
    Query,
    Starting,
    WorkerHandle,
    WorkerProcess,
)
from orion.ledger import Lease
from orion.limits import Limits
from orion.messages import (
    AttentionDescribed,
    Blind,
    BootFailure,
    Committed,
    DescribeAttention,
    DetectorInfo,
    DetectorSpec,
    Forget,
    FrameFailure,
    FrameMessage,
    FrameResult,
    Message,
    Prepared,
    PrepareFailed,
    Ready,
    Stop,
)
from orion.telemetry import vitals
from orion.worker import WorkerSpec

_log = logging.getLogger(__name__)

_REAP_S = 1.0
_LEAVE_LIMIT_S = 5.0
"""What a worker gets that is told to leave: it lets its sessions go."""


class Listener(Protocol):
    """Who wants to know what becomes of workers and of their frames."""

    def ready(self, handle: WorkerHandle, info: DetectorInfo) -> None:
        """Take note that a worker may be given frames."""

    def reloaded(self, handle: WorkerHandle, info: DetectorInfo, load_ms: float) -> None:
        """Take note that a worker answers with another pair of models from now on."""

    def answered(self, handle: WorkerHandle, busy: Busy, answer: FrameResult | FrameFailure) -> None:
        """Take the answer to a leased frame; the lease is the listener's to end."""

    def bereaved(self, handle: WorkerHandle, busy: Busy) -> None:
        """Take back the frame of a worker that is dead and reaped."""

    def blind(self, handle: WorkerHandle, reason: str) -> None:
        """Take note that a worker does not see any more; it is killed."""

    def failed(self, handle: WorkerHandle, reason: str) -> None:
        """Take note that a worker is given up."""

    def unusable(self, error: ModelError) -> None:
        """Take note that the model cannot be used by any worker."""


class Crew:
    """All workers of the instance, by id."""

    def __init__(
        self,
        specs: Sequence[WorkerSpec],
        policy: restart.RestartPolicy,
        limits: Limits,
        selector: selectors.BaseSelector,
        listener: Listener,
    ) -> None:
        self.handles = {spec.worker_id: WorkerHandle(spec.worker_id, Absent(0.0)) for spec in specs}
        self._specs = {spec.worker_id: spec for spec in specs}
        self._policy = policy
        self.limits = limits
        self.exchange: Exchange | None = None
        """The change of models that was begun last."""
        self._exchanges = 0
        self._queries = 0
        self._selector = selector
        self._listener = listener
        self._random = random.Random()
        self._closing = False

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(self.handles.values())

    def usable(self) -> list[str]:
        """Return the ids of the workers that are not given up."""
        return [handle.worker_id for handle in self if not isinstance(handle.state, Failed)]

    def next_deadline_s(self) -> float:
        """Return when `turn` must be called at the latest."""
        deadlines = [self.exchange.deadline_s if self.exchange is not None else float("inf")]
        for handle in self:
            match handle.state:
                case Starting(deadline_s=due_s) | Busy(deadline_s=due_s) | Leaving(deadline_s=due_s):
                    deadlines.append(due_s)
                case Absent(start_s=due_s):
                    deadlines.append(due_s)
                case _:
                    pass
        return min(deadlines)

    def turn(self) -> None:
        """Kill what is late and start what is due."""
        now_s = time.monotonic()
        if self.exchange is not None:
            # Before anything is started: a worker whose end decided the change comes up with the pair that holds now.
            self.exchange.turn(now_s)
        for handle in self:
            match handle.state:
                case Starting(since_s=since_s, deadline_s=deadline_s) if now_s >= deadline_s:
                    handle.late_starts += 1
                    self.condemn(handle, f"was not ready after {now_s - since_s:.1f} s")
                case Busy(deadline_s=deadline_s, stream_id=stream_id) if now_s >= deadline_s:
                    self.condemn(handle, f"hung on a frame of {stream_id}")
                case Leaving(deadline_s=deadline_s) if now_s >= deadline_s:
                    self.condemn(handle, "closed its socket and does not leave")
                case Absent(start_s=start_s) if now_s >= start_s:
                    self._start(handle)
                case Idle(process=process) if handle.restart_asked:
                    self._dismiss(handle, process)
                case _:
                    pass

    def examine(self) -> None:
        """Kill what the kernel says is stopped or has grown too large. A worker is stopped when two looks see it so."""
        for handle in self:
            state = handle.state
            if not isinstance(state, Starting | Idle | Busy) or (found := vitals(state.process.pid)) is None:
                continue
            was_stopped, handle.seen_stopped = handle.seen_stopped, found.stopped
            if found.own_mb > self.limits.memory_mb:
                limit = f"workers.memory_limit_mb is {self.limits.memory_mb:.0f}"
                self.condemn(handle, f"grew to {found.own_mb:.0f} MB, {limit}")
            elif found.stopped and was_stopped:
                self.condemn(handle, "was stopped by a signal")

    def change_models(self, spec: DetectorSpec) -> Exchange:
        """Begin to change the pair of all workers; at most one change at a time."""
        assert self.exchange is None or self.exchange.swap.over
        self._exchanges += 1
        self.exchange = Exchange(self._exchanges, spec, self, time.monotonic())
        return self.exchange

    def adopt(self, spec: DetectorSpec) -> None:
        """Start workers with this pair of models from now on."""
        self._specs = {worker_id: replace(worker, detector=spec) for worker_id, worker in self._specs.items()}

    @property
    def detector(self) -> DetectorSpec:
        """Return what workers are started with."""
        return next(iter(self._specs.values())).detector

    def forget(self, worker_id: str, stream_id: str) -> None:
        """Let a worker drop what it keeps of a stream; one that is not READY keeps nothing."""
        handle = self.handles.get(worker_id)
        if handle is not None and isinstance(handle.state, Idle | Busy):
            self._say(handle, handle.state.process, Forget(stream_id))

    def describe_attention(self, worker_id: str, stream_id: str) -> Query:
        """Ask a worker what attention keeps of a stream; one that is not READY keeps nothing."""
        self._queries += 1
        query = Query(self._queries)
        handle = self.handles.get(worker_id)
        if handle is None or not isinstance(handle.state, Idle | Busy):
            query.over = True
        else:
            handle.queries[query.number] = query
            self._say(handle, handle.state.process, DescribeAttention(query.number, stream_id))
        return query

    def restart(self, handle: WorkerHandle) -> None:
        """Let a worker leave after the frame that it has, and start it anew; one that was given up gets another try."""
        match handle.state:
            case Failed() | Absent():
                handle.deaths_s.clear()
                handle.boot_failures = 0
                handle.state = Absent(time.monotonic())
            case Starting():
                handle.restart_asked = True
                self.condemn(handle, "is to start anew")
            case _:
                handle.restart_asked = True

    def give(self, handle: WorkerHandle, idle: Idle, lease: Lease, message: FrameMessage, *, anew: bool) -> None:
        """Hand a leased frame to an idle worker; `anew` lets it drop before what it keeps of the stream."""
        handle.frames_received += 1
        deadline_s = time.monotonic() + self.frame_deadline_s(idle.info)
        stream_id = message.request.stream_id
        handle.state = Busy(idle.process, idle.info, stream_id, message.lease, lease, deadline_s)
        messages: tuple[Message, ...] = (Forget(stream_id), message) if anew else (message,)
        if not all(map(idle.process.channel.send, messages)):
            self.condemn(handle, "does not take messages")

    def close(self, deadline_s: float) -> None:
        """Let frames in work be answered, tell the workers to leave, then end what is left.

        Passes `deadline_s` by no more than it takes to reap killed processes.
        """
        self._closing = True
        share_s = max(0.0, deadline_s - time.monotonic()) / 2
        self._serve_while(lambda handle: isinstance(handle.state, Busy), time.monotonic() + share_s)
        for handle in self:
            if isinstance(handle.state, Idle):
                handle.state.process.channel.send(Stop())
        self._serve_while(lambda handle: isinstance(handle.state, Idle | Leaving), deadline_s)
        for handle in self:
            if isinstance(handle.state, Alive):
                process = handle.state.process
                process.kill()
                self._forget(process)
                busy = _busy(handle.state)
                handle.state = Failed("stopped")
                process.reap(_REAP_S)
                if busy is not None:
                    self._listener.bereaved(handle, busy)

    def _serve_while(self, holds: Callable[[WorkerHandle], bool], deadline_s: float) -> None:
        """Handle sockets and deaths, starting nothing, while `holds` of any worker and until the deadline."""
        while any(map(holds, self)) and (left_s := deadline_s - time.monotonic()) > 0:
            for key, _ in self._selector.select(left_s):
                key.data()

    # Messages.

    def _readable(self, handle: WorkerHandle, process: WorkerProcess) -> None:
        if not (isinstance(handle.state, Alive) and handle.state.process is process):
            return
        try:
            for message in process.received():
                self._take(handle, message)
        except WireError as error:
            self.condemn(handle, f"sent what is no message: {error}")
        if process.at_end:
            # Its end is readable for ever now; the sentinel tells the rest.
            self._selector.unregister(process.channel.fileno())
            if not isinstance(handle.state, Condemned | Leaving):
                handle.state = Leaving(process, time.monotonic() + _REAP_S, _busy(handle.state))

    def _take(self, handle: WorkerHandle, message: Message) -> None:
        handle.last_seen_wall_ns = time.time_ns()
        match message, handle.state:
            case Ready(info=info), Starting(process=process, since_s=since_s):
                handle.longest_start_s = max(handle.longest_start_s or 0.0, time.monotonic() - since_s)
                handle.late_starts = 0
                handle.state = Idle(process, info)
                handle.boot_failures, handle.boot_failure = 0, None
                self._listener.ready(handle, info)
                handle.times_ready += 1
                if self.exchange is not None:
                    self.exchange.ask(handle)
            case BootFailure(kind=kind, message=text, traceback=traceback), Starting():
                handle.boot_failure = message
                # A model of no use is the operator's to mend, who is told which and why.
                trace = "" if kind == ModelError.__name__ else f"{kind}: {text}\n{traceback}"
                _log.error("%s could not start: %s", handle.worker_id, trace or text)
            case (FrameResult() | FrameFailure()) as answer, Busy() as busy if answer.lease == busy.lease_id:
                self._take_answer(handle, busy, answer)
            case (Prepared() | PrepareFailed() | Committed()) as news, Idle() | Busy():
                self._take_news(handle, news)
            case AttentionDescribed(query=number, stats=stats), Idle() | Busy():
                if query := handle.queries.pop(number, None):
                    query.over, query.stats = True, stats
            case Blind(reason=reason), Idle() | Busy():
                self._listener.blind(handle, reason)
                self.condemn(handle, "does not see")
            case _, Condemned() | Leaving():
                pass
            case _:
                self.condemn(handle, f"sent {type(message).__name__} out of turn")

    def _take_answer(self, handle: WorkerHandle, busy: Busy, answer: FrameResult | FrameFailure) -> None:
        """Pass on the answer to a frame, and take the worker for idle."""
        if answer.changed is not None:
            busy = replace(busy, info=answer.changed)
        if isinstance(answer, FrameResult) and busy.info.session(answer.outcome.model_selected) is None:
            self.condemn(handle, f"sent a result of a session that it has not: {answer.outcome.model_selected}")
            return
        handle.state = Idle(busy.process, busy.info)
        self._listener.answered(handle, busy, answer)

    def _take_news(self, handle: WorkerHandle, news: Prepared | PrepareFailed | Committed) -> None:
        """Pass on what a worker says about a change of models."""
        exchange = self.exchange
        if exchange is not None and exchange.take(handle, news, time.monotonic()):
            loaded = exchange.swap.loaded[handle.worker_id]
            self._listener.reloaded(handle, loaded.info, loaded.load_ms)

    def _say(self, handle: WorkerHandle, process: WorkerProcess, message: Message) -> None:
        if not process.channel.send(message):
            self.condemn(handle, "does not take messages")

    # Lives and deaths.

    def _dismiss(self, handle: WorkerHandle, process: WorkerProcess) -> None:
        """Tell an idle worker to leave."""
        process.channel.send(Stop())
        handle.state = Leaving(process, time.monotonic() + _LEAVE_LIMIT_S, None)

    def _start(self, handle: WorkerHandle) -> None:
        try:
            process = WorkerProcess(self._specs[handle.worker_id])
        except OSError as error:
            # The system lacks descriptors, memory or room for processes: no failure of the worker, but one to start.
            handle.last_end, handle.boot_failure = f"could not be started: {error.strerror or error}", None
            self._decide(handle, boot_failed=True)
            return
        if self.exchange is not None:
            self.exchange.swap.starting(handle.worker_id)
        handle.restarts += handle.down_since_s is not None
        now_s = time.monotonic()
        limit_s = self.limits.start_limit_s(handle.longest_start_s, handle.late_starts)
        handle.state = Starting(process, now_s, now_s + limit_s)
        read = selectors.EVENT_READ
        self._selector.register(process.channel.fileno(), read, lambda: self._readable(handle, process))
        self._selector.register(process.sentinel, read, lambda: self._ended(handle, process))

    def condemn(self, handle: WorkerHandle, reason: str) -> None:
        """Kill a worker; what it holds stays its own until it is reaped."""
        assert isinstance(handle.state, Alive)
        if isinstance(handle.state, Condemned):
            return
        _log.error("%s (pid %d) %s; killing it", handle.worker_id, handle.state.process.pid, reason)
        handle.state.process.kill()
        handle.state = Condemned(handle.state.process, reason, _busy(handle.state))

    def _ended(self, handle: WorkerHandle, process: WorkerProcess) -> None:
        """Read a dead worker's socket to its end, reap it, then decide about its frame and its successor."""
        if not (isinstance(handle.state, Alive) and handle.state.process is process):
            return
        if not process.at_end:
            self._readable(handle, process)
        state = handle.state
        assert isinstance(state, Alive)
        self._forget(process)
        code = process.reap(_REAP_S)
        handle.last_end = state.reason if isinstance(state, Condemned) else _explain(code)
        handle.down_since_s = time.monotonic()
        handle.let_queries_go()
        if self.exchange is not None:
            self.exchange.swap.ended(handle.worker_id, handle.last_end)
        if self._closing:
            handle.state = Failed("stopped")
        elif handle.restart_asked:
            handle.restart_asked, handle.last_end = False, "was restarted by command"
            handle.state = Absent(handle.down_since_s)
        elif code == EXIT_OK and not isinstance(state, Condemned):
            self._give_up(handle, "left by itself, which is no failure: not starting it again")
        else:
            self._decide(handle, boot_failed=code == EXIT_BOOT_FAILED)
        busy = _busy(state)
        if busy is not None:
            self._listener.bereaved(handle, busy)

    def _decide(self, handle: WorkerHandle, *, boot_failed: bool) -> None:
        """Settle when a worker that ended is started again, if ever."""
        now_s = time.monotonic()
        decision: restart.StartAgain | restart.GiveUp
        if boot_failed:
            handle.boot_failures += 1
            failure = handle.boot_failure
            if failure is not None and failure.kind == ModelError.__name__ and not handle.times_ready:
                handle.state = Failed(failure.message)
                self._listener.unusable(ModelError(failure.message))
                return
            decision = restart.after_boot_failure(self._policy, handle.boot_failures, self._random)
        else:
            handle.deaths_s.append(now_s)
            decision = restart.after_death(self._policy, handle.deaths_s, now_s, self._random)
        match decision:
            case restart.StartAgain(delay_s=delay_s):
                handle.state = Absent(now_s + delay_s)
                _log.error("%s %s; starting again in %.1f s", handle.worker_id, handle.last_end, delay_s)
            case restart.GiveUp(reason=why):
                text = f": {handle.boot_failure.message}" if handle.boot_failure else ""
                self._give_up(handle, f"{handle.last_end}; {why}{text}")

    def _give_up(self, handle: WorkerHandle, reason: str) -> None:
        handle.state = Failed(reason)
        self._listener.failed(handle, reason)

    def _forget(self, process: WorkerProcess) -> None:
        if not process.at_end:
            self._selector.unregister(process.channel.fileno())
        self._selector.unregister(process.sentinel)

    def frame_deadline_s(self, info: DetectorInfo) -> float:
        """Return how long a frame may take with this pair of models."""
        return self.limits.frame_deadline_s(info)


def _busy(state: Alive) -> Busy | None:
    match state:
        case Busy():
            return state
        case Leaving(busy=busy) | Condemned(busy=busy):
            return busy
        case _:
            return None


def _explain(code: int | None) -> str:
    """Say how a process ended, from the exit code as multiprocessing counts it."""
    if code is None:
        return "cannot be reaped"
    if code < 0:
        return f"was killed by signal {-code}"
    return f"ended with code {code}"
