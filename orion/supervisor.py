"""The supervisor's loop. One thread, the process's main thread, owns all state: it waits in one place for sockets, ends
of processes, the mailbox and the next deadline, then handles what is ready, expires what is late, starts again what is
due, and hands waiting frames to idle workers. Nothing in a turn blocks.
"""

import logging
import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orion import dispatch, report, restart
from orion.capture import (
    CaptureEvent,
    StreamCondition,
    StreamEnded,
    StreamFailed,
    StreamLost,
    StreamOpened,
    StreamResized,
)
from orion.crew import Crew
from orion.errors import ModelError, OrionError, SourceError, WorkersLostError
from orion.handle import Busy, Idle, WorkerHandle
from orion.ledger import Lease
from orion.limits import Limits
from orion.mailbox import Mailbox
from orion.messages import DetectorInfo, DetectRequest, FrameFailure, FrameMessage, FrameResult
from orion.posts import BusEvent, CommandReceived, Controller, Keeper, Outlet, PartFailed, Post, StopRequested
from orion.results import place, publishable, timestamp
from orion.source import Source
from orion.stream import RingMaker, Stream, StreamSettings
from orion.telemetry import Latencies
from orion.vitals import Finding
from orion.worker import WorkerSpec

_log = logging.getLogger(__name__)

_EVENT_LEVELS = {
    "ready": logging.INFO,
    "stream_restored": logging.INFO,
    "worker_restarted": logging.WARNING,
    "model_reloaded": logging.INFO,
    "worker_failed": logging.ERROR,
    "detector_blind": logging.ERROR,
}
_TICK_S = 0.5
_JOIN_S = 1.0
"""What a capture thread gets that sits in a native call."""


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """What the loop is told at its start."""

    instance_id: str
    room_id: str
    run_id: str
    workers: Sequence[WorkerSpec]
    frame_deadline_s: float | None
    policy: restart.RestartPolicy = field(default_factory=restart.RestartPolicy)
    memory_limit_mb: float = float("inf")
    start_deadline_s: float = 60.0


class Supervisor:
    """Owns streams and workers. `run` returns when the work is done; `close` stops everything, in order."""

    def __init__(
        self,
        settings: SupervisorSettings,
        streams: Sequence[Stream],
        rings: RingMaker,
        mailbox: Mailbox[Post],
        outlet: Outlet,
    ) -> None:
        self.settings = settings
        self.streams = {stream.stream_id: stream for stream in streams}
        self.latencies = Latencies()
        self.info: DetectorInfo | None = None
        self.stop_reason = ""
        self.extra: Callable[[], dict[str, Any]] = dict
        """What the state has to tell beside streams and workers."""
        self.controller: Controller | None = None
        self.keeper: Keeper | None = None
        """Who looks after the embedded broker, where there is one."""
        self.outlet = outlet
        self.started_s = time.monotonic()
        self._rings = rings
        self._mailbox = mailbox
        self._removed: list[Stream] = []
        """Streams that are no more, until nobody uses their rings."""
        self._first_seqs: dict[str, int] = {}
        """Where a stream goes on counting that comes back under its id."""
        self._leased: dict[int, Stream] = {}
        self._leases = 0
        self._next_tick_s = 0.0
        self._done = False
        self._error: OrionError | None = None
        self._selector = selectors.DefaultSelector()
        limits = Limits(settings.frame_deadline_s, settings.memory_limit_mb, settings.start_deadline_s)
        self.crew = Crew(settings.workers, settings.policy, limits, self._selector, self)
        self._selector.register(mailbox.fileno(), selectors.EVENT_READ, self._handle_posts)
        self._assign()

    # The loop.

    def run(self) -> None:
        """Work until the sources have ended or a stop is asked for. Raises OrionError when it must give up."""
        for stream in self.streams.values():
            stream.start()
        while not self._done:
            self._turn()
        if self._error is not None:
            raise self._error

    def _turn(self) -> None:
        """Wait once and handle everything that is ready or due."""
        deadline_s = min(self._next_tick_s, self.crew.next_deadline_s())
        if self.controller is not None:
            deadline_s = min(deadline_s, self.controller.next_deadline_s())
        if self.keeper is not None:
            deadline_s = min(deadline_s, self.keeper.next_deadline_s())
        wait_s = max(0.0, deadline_s - time.monotonic())
        for key, _ in self._selector.select(wait_s):
            key.data()
        self.crew.turn()
        if self.controller is not None:
            self.controller.turn()
        if self.keeper is not None:
            self.keeper.turn()
        self._dispatch()
        self._tick()
        if all(stream.finished for stream in self.streams.values()):
            failed = [stream for stream in self.streams.values() if stream.state == "failed"]
            self._finish("the sources have ended", SourceError(failed[0].failure) if failed else None)

    def _tick(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_tick_s:
            self._next_tick_s = now_s + _TICK_S
            self.crew.examine()
            for stream in self.streams.values():
                stream.close_drained_rings()
                if stream.leave_lost_ring():
                    about = {"stream": stream.stream_id}
                    _log.warning("another program has removed its shared memory; it gets another", extra=about)
            self._removed = [stream for stream in self._removed if not self._is_gone(stream)]
            self._level()
            self.outlet.tick(self.describe)

    def _finish(self, reason: str, error: OrionError | None = None) -> None:
        if not self._done:
            self._done, self.stop_reason, self._error = True, reason, error
            _log.info("stopping: %s", reason)

    # What is ready: posts from other threads.

    def _handle_posts(self) -> None:
        for post in self._mailbox.take():
            match post:
                case StopRequested(reason=reason):
                    self._finish(reason)
                case CommandReceived(payload=payload, size=size):
                    if self.controller is not None:
                        self.controller.receive(payload, size)
                case BusEvent(event=event, fields=fields):
                    # The bus has logged it already.
                    self._publish(event, fields)
                case PartFailed(error=error):
                    self._finish(str(error), error)
                case _:
                    self._handle_capture(post)

    def _handle_capture(self, event: CaptureEvent) -> None:
        stream = self.streams.get(event.capture.stream_id)
        if stream is None or not stream.reads_with(event.capture):
            # It was removed, and may be back under its id; the thread that it had has its last words.
            return
        match event:
            case StreamOpened(info=info):
                restored = stream.state not in {"opening", "running", "ended"}
                stream.info, stream.state = info, "running"
                _log.info(
                    "%dx%d from %s", info.width, info.height, stream.settings.uri, extra={"stream": stream.stream_id}
                )
                if restored:
                    self._report(
                        "stream_restored", stream_id=stream.stream_id, reason="the source is back", state=stream.state
                    )
            case StreamResized(width=width, height=height):
                assert stream.info is not None
                stream.info = replace(stream.info, width=width, height=height)
                # As a warning, so that a camera which cannot make up its mind does not fill the log.
                _log.warning("its pictures are %dx%d from now on", width, height, extra={"stream": stream.stream_id})
            case StreamLost(reason=reason, retry_s=retry_s):
                stream.state = "lost"
                _log.debug("next attempt in %.1f s", retry_s, extra={"stream": stream.stream_id})
                self._report("stream_lost", stream_id=stream.stream_id, reason=reason, state=stream.state)
            case StreamCondition(finding=finding):
                self._note_condition(stream, finding)
            case StreamEnded():
                stream.state = "ended"
            case StreamFailed(error=error):
                stream.state, stream.failure = "failed", str(error)
                if stream.by_command:
                    self._report("stream_lost", stream_id=stream.stream_id, reason=str(error), state=stream.state)
                else:
                    self._finish(f"{stream.stream_id} failed", error)

    def _note_condition(self, stream: Stream, finding: Finding) -> None:
        """Report a source that delivers, but not as it should, or does so again."""
        name = "stream_restored" if finding.condition == "well" else f"stream_{finding.condition}"
        stream.state = "running" if finding.worst == "well" else finding.worst
        self._report(name, stream_id=stream.stream_id, reason=finding.reason, state=stream.state)

    # What commands do.

    def post(self, post: Post) -> None:
        """Leave something for a later turn."""
        self._mailbox.post(post)

    def watch(self, descriptor: int) -> None:
        """Wake up when it is readable; the controller or the keeper sees to it in its turn."""
        self._selector.register(descriptor, selectors.EVENT_READ, lambda: None)

    def unwatch(self, descriptor: int) -> None:
        """Stop that."""
        self._selector.unregister(descriptor)

    def limit_frames(self, frame_deadline_s: float | None) -> None:
        """Set how long a worker may take for a frame; None goes by measured times."""
        self.crew.limits = replace(self.crew.limits, frame_s=frame_deadline_s)

    def add_stream(self, settings: StreamSettings, source: Source) -> None:
        """Start another stream."""
        first_seq = self._first_seqs.get(settings.stream_id, 0)
        stream = Stream(settings, source, self._rings, self._mailbox, first_seq)
        self.streams[settings.stream_id] = stream
        self._assign()
        stream.start(by_command=True)

    def remove_stream(self, stream_id: str) -> None:
        """Stop a stream and forget it; a frame of it that a worker has is still answered."""
        stream = self.streams.pop(stream_id)
        stream.stop()
        self._abandon_orphan(stream)
        self._first_seqs[stream_id] = stream.next_seq
        self.crew.forget(stream.worker_id, stream_id)
        stream.known.drop()
        self._removed.append(stream)

    def _is_gone(self, stream: Stream) -> bool:
        """Return whether nothing of a removed stream is left."""
        self._first_seqs[stream.stream_id] = max(self._first_seqs[stream.stream_id], stream.next_seq)
        return stream.close_if_drained()

    # What becomes of workers and their frames.

    def ready(self, handle: WorkerHandle, info: DetectorInfo) -> None:
        """Announce a worker that may be given frames."""
        if not handle.times_ready:
            sessions = ", ".join(f"{session.size} on {session.provider}" for session in info.sessions)
            _log.info(
                "%s uses the model %s (%s)",
                handle.worker_id,
                info.model_name,
                sessions,
                extra={"worker": handle.worker_id},
            )
        if self.info is None:
            if info.session(320) is None:
                hint = "`orion models list` tells what a folder holds"
                _log.warning("%s runs without a 320 model, which takes longer; %s", info.sessions[0].path, hint)
            _warn_of_unseen(info)
            self._report("ready", worker_id=handle.worker_id, reason="started", model_name=info.model_name)
        self.info = info
        if handle.times_ready:
            recovery_ms = (time.monotonic() - (handle.down_since_s or time.monotonic())) * 1e3
            self._report(
                "worker_restarted",
                worker_id=handle.worker_id,
                reason=handle.last_end,
                recovery_ms=round(recovery_ms, 1),
            )

    def reloaded(self, handle: WorkerHandle, info: DetectorInfo, load_ms: float) -> None:
        """Announce that a worker answers with another pair of models from now on."""
        if self.info is None or _files(info) != _files(self.info):
            _warn_of_unseen(info)
        self.info = info
        _log.info("%s uses the model %s", handle.worker_id, info.model_name, extra={"worker": handle.worker_id})
        self._report(
            "model_reloaded",
            worker_id=handle.worker_id,
            reason="by command",
            model_name=info.model_name,
            model_size=info.model_size,
            load_ms=round(load_ms, 1),
        )

    def answered(self, handle: WorkerHandle, busy: Busy, answer: FrameResult | FrameFailure) -> None:
        """Publish an answer, or report why there is none, and free the slot."""
        stream = self._leased.pop(busy.lease_id)
        if answer.changed is not None:
            self.info = answer.changed
        if isinstance(answer, FrameFailure):
            handle.frames_dropped += 1
            frame_seq = busy.lease.frame.frame_seq
            trace_id = f"{self.settings.run_id}-{busy.stream_id}-{frame_seq}"
            about = {"stream": busy.stream_id, "worker": handle.worker_id, "trace_id": trace_id}
            if answer.reason == "worker_error":
                # Whatever failed may have cost the worker what it knew.
                stream.known.let_go()
            _log.error("a frame failed (%s): %s\n%s", answer.reason, answer.message, answer.traceback, extra=about)
            stream.ledger.give_back(busy.lease, answer.reason)
        else:
            self._complete(handle, stream, busy, answer)

    def _complete(self, handle: WorkerHandle, stream: Stream, busy: Busy, result: FrameResult) -> None:
        """Count a frame that was answered, publish the answer, free the slot."""
        lease, outcome = busy.lease, result.outcome
        capture_to_result_ms = (time.monotonic_ns() - lease.frame.captured_ns) / 1e6
        handle.inferences += 1
        handle.total_latency_ms += outcome.total_ms
        self.latencies.add(_durations_ms(result, capture_to_result_ms))
        stream.note(outcome, time.monotonic())
        stream.known.take(outcome.known, handle.process_name, lease.frame)
        labels = dict(busy.info.labels) if len(busy.info.labels) > 1 else None
        published = publishable(
            self._identity(stream), lease, result, busy.info, labels, capture_to_result_ms, stream.known.since_ns
        )
        self.outlet.result(published, lambda: self._rings.find(lease.slot.ring).peek(lease.slot.index))
        stream.ledger.give_back(lease, "held" if outcome.inference == "held" else "inferred")
        self._report_vanished(stream)

    def bereaved(self, handle: WorkerHandle, busy: Busy) -> None:
        """Keep a dead worker's frame for the successor; the second death with the same frame drops it."""
        stream = self._leased.pop(busy.lease_id)
        handle.frames_dropped += 1
        if self._done or stream in self._removed:
            stream.ledger.give_back(busy.lease, "shutdown")
        elif stream.ledger.paused and not stream.settings.capture.every_frame:
            stream.ledger.give_back(busy.lease, "paused")
        elif busy.lease.attempt == 1:
            stream.orphan = busy.lease
        else:
            stream.ledger.give_back(busy.lease, "worker_error")

    def blind(self, handle: WorkerHandle, reason: str) -> None:
        """Report a worker whose detector no longer answers the known pictures as it must."""
        self._report("detector_blind", worker_id=handle.worker_id, reason=reason)

    def failed(self, handle: WorkerHandle, reason: str) -> None:
        """Move the streams of a worker that is given up; without any worker left, give up altogether."""
        self._report("worker_failed", worker_id=handle.worker_id, reason=reason)
        self._assign()
        if not self.crew.usable():
            self._finish("no worker is left", WorkersLostError(f"no worker is left: {handle.worker_id} {reason}"))

    def unusable(self, error: ModelError) -> None:
        """Stop: no worker could start with this model."""
        self._finish("the model cannot be used", error)

    # Frames to workers.

    def _assign(self) -> None:
        """Give every stream a worker that is not given up."""
        usable = self.crew.usable()
        present = {stream.stream_id: stream.worker_id for stream in self.streams.values()}
        for stream_id, worker_id in dispatch.assign(list(self.streams), usable, present).items():
            self.streams[stream_id].worker_id = worker_id

    def _level(self) -> None:
        """Give a READY worker that has too few streams some of the fullest one; it may have been given up before."""
        ready = [handle.worker_id for handle in self.crew if isinstance(handle.state, Idle | Busy)]
        present = {stream.stream_id: stream.worker_id for stream in self.streams.values()}
        held = {stream.stream_id for stream in self.streams.values() if stream.ledger.leased or stream.finished}
        for stream_id, worker_id in dispatch.levelled(present, ready, held).items():
            self.crew.forget(present[stream_id], stream_id)
            self.streams[stream_id].worker_id = worker_id
            self.streams[stream_id].known.let_go()
            _log.info(
                "moves from %s to %s, which has fewer", present[stream_id], worker_id, extra={"stream": stream_id}
            )

    def _dispatch(self) -> None:
        for handle in self.crew:
            if isinstance(handle.state, Idle):
                mine = [stream for stream in self.streams.values() if stream.worker_id == handle.worker_id]
                # A file begins when its worker can look at it.
                for stream in mine:
                    stream.play()
                chosen = dispatch.next_stream(mine)
                if chosen is not None:
                    self._hand_out(handle, handle.state, chosen)

    def _hand_out(self, handle: WorkerHandle, idle: Idle, stream: Stream) -> None:
        lease = self._lease(stream, handle.worker_id)
        if lease is None:
            return
        self._leases += 1
        stream.served = self._leases
        frame = lease.frame
        handed = stream.known.hand_out(handle.process_name, frame)
        request = DetectRequest(
            stream_id=stream.stream_id,
            stream_time_s=frame.stream_time_s,
            continuous=frame.continuous and lease.attempt == 1 and not stream.resumed,
            settings=stream.settings.attention,
            regions=stream.regions,
            known=handed.known,
        )
        message = FrameMessage(
            lease=self._leases,
            ring=lease.slot.ring,
            slot=lease.slot.index,
            generation=frame.generation,
            captured_ns=frame.captured_ns,
            request=request,
        )
        stream.resumed = False
        self._leased[self._leases] = stream
        self.crew.give(handle, idle, lease, message, anew=handed.anew)

    def _lease(self, stream: Stream, worker_id: str) -> Lease | None:
        orphan, stream.orphan = stream.orphan, None
        return stream.ledger.hand_over(orphan, worker_id) if orphan else stream.ledger.lease(worker_id)

    # Reports.

    def describe(self) -> dict[str, Any]:
        """Return the state as `get_status` answers it."""
        return report.describe(self)

    def _identity(self, stream: Stream) -> dict[str, str]:
        return {
            "instance_id": self.settings.instance_id,
            "room_id": stream.settings.room_id,
            "stream_id": stream.stream_id,
            "run_id": self.settings.run_id,
        }

    def _report(self, event: str, **fields: Any) -> None:
        """Log an event and publish it on the health topic."""
        about = {"stream": fields.get("stream_id"), "worker": fields.get("worker_id")}
        _log.log(_EVENT_LEVELS.get(event, logging.WARNING), "%s: %s", event, fields["reason"], extra=about)
        self._publish(event, fields)

    def _report_vanished(self, stream: Stream) -> None:
        """Report those who have been looked for long enough, each once."""
        for person in stream.known.due():
            told = place(person, stream.known.since_ns[person])
            since, where = told.pop("since"), f"x {person.x}, y {person.y}, {person.width} x {person.height} pixels"
            reason = f"somebody disappeared inside the picture, last seen at {where}"
            about = {"stream_id": stream.stream_id, "state": stream.state, "reason": reason}
            self._report("person_vanished", **about, bbox=told, since=since)

    def _publish(self, event: str, fields: Mapping[str, Any]) -> None:
        base = {"event": event, "instance_id": self.settings.instance_id, "run_id": self.settings.run_id}
        self.outlet.event({**base, **fields, "timestamp": timestamp(time.time_ns())})

    # The end.

    def close(self, timeout_s: float) -> bool:
        """Stop in order: captures, then the frame that each worker has, then the workers. Return whether all ended.

        False means that a capture thread sits in a native call; the process must leave without waiting for it.
        """
        deadline_s = time.monotonic() + timeout_s
        self._finish("stopped")
        if self.controller is not None:
            self.controller.close()
        for stream in self.streams.values():
            stream.stop()
        self.crew.close(time.monotonic() + timeout_s / 2)
        for stream in self.streams.values():
            self._abandon_orphan(stream)
        join_until_s = min(deadline_s, time.monotonic() + _JOIN_S)
        streams = [*self.streams.values(), *self._removed]
        ended = [stream.join(max(0.0, join_until_s - time.monotonic())) for stream in streams]
        self._rings.close_all()
        # A command that came last is answered, too.
        self._handle_posts()
        self._selector.close()
        # What happened since the last tick is shown, too: the last frames' answers among it.
        self.outlet.tick(self.describe)
        return all(ended)

    def _abandon_orphan(self, stream: Stream) -> None:
        orphan, stream.orphan = stream.orphan, None
        if orphan is not None:
            stream.ledger.give_back(orphan, "shutdown")


def _files(info: DetectorInfo) -> list[str]:
    return [session.path for session in info.sessions]


def _warn_of_unseen(info: DetectorInfo) -> None:
    """Warn of a model that finds nobody where it should, which one for another view may rightly do."""
    for session in info.sessions:
        if not session.sees:
            text = (
                "%s sees nobody in the drawn pictures: right for a model of another view (from above), else of no use"
            )
            _log.warning(text, session.path)


def _durations_ms(result: FrameResult, capture_to_result_ms: float) -> dict[str, float]:
    """Return how long each stage took that the frame went through."""
    outcome = result.outcome
    around = {"queue": result.queue_ms, "capture_to_result": capture_to_result_ms}
    if outcome.inference == "held":
        return around
    return around | {
        "preprocess": outcome.preprocess_ms,
        "inference": outcome.inference_ms,
        "postprocess": outcome.postprocess_ms,
        "worker": outcome.total_ms,
    }
