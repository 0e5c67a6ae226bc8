"""What runs in a worker process, in its main thread: attach to the supervisor's socket, build the
detector, say READY, then answer one frame after the other until told to stop or until the supervisor is gone. Owns its
sessions and its read-only views of the rings. A second thread exists while another pair of models is loaded.
"""

import ctypes
import importlib
import logging
import math
import os
import select
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol

from orion import lifeline, log
from orion.errors import EXIT_BOOT_FAILED, EXIT_OK, ModelError, SharedMemoryError, TornFrameError
from orion.loader import Loader, Pair
from orion.messages import (
    Abort,
    AttentionDescribed,
    AttentionStats,
    Blind,
    BootFailure,
    Commit,
    Committed,
    DescribeAttention,
    DetectorInfo,
    DetectorSpec,
    DetectRequest,
    Forget,
    FrameFailure,
    FrameMessage,
    FrameResult,
    Message,
    Outcome,
    Pixels,
    Prepare,
    PrepareFailed,
    Ready,
    Stop,
)
from orion.ring import RingView
from orion.wire import Channel

_log = logging.getLogger(__name__)

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
"""From glibc's malloc.h; see mallopt(3)."""
_LARGE_BYTES = 1 << 20
_OVERDUE_S = 10.0
"""How long a test gives way to frames that come without a gap."""


class Detector(Protocol):
    """What a worker needs of a detector; `workers.person.PersonDetector` is one."""

    @property
    def info(self) -> DetectorInfo:
        """Describe what is loaded."""

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        """Answer one frame."""

    def forget(self, stream_id: str) -> None:
        """Drop what is kept for a stream."""

    def attention_stats(self, stream_id: str) -> AttentionStats | None:
        """Say what attention did on a stream."""

    @property
    def self_test_wait_s(self) -> float:
        """Say in how many seconds `self_test` is due: less than none since it was, endless where it never is."""

    def self_test(self) -> str | None:
        """Try, in about the time of one inference, whether it sees; say why not, None where it does."""

    def load(self, spec: DetectorSpec) -> Pair:
        """Load another pair, for `swap`; called in another thread. Raises ModelError."""

    def swap(self, pair: Pair) -> None:
        """Put another pair in place of the present one."""

    def close(self) -> None:
        """Let the sessions go."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker process is given at its start; the only thing that is ever pickled."""

    worker_id: str
    instance_id: str
    parent_pid: int
    detector_class: str
    """`module:class`, resolved in the child, so that the supervisor never imports the detector."""
    detector: DetectorSpec
    log_level: str
    log_format: Literal["text", "json"]


def main(spec: WorkerSpec, end: socket.socket) -> NoReturn:
    """Run a worker process to its end. Exit code 0 when told to stop, 70 when it could not start."""
    lifeline.ignore_stop_signals()
    lifeline.die_with_parent(spec.parent_pid)
    _tame_allocator()
    log.setup(spec.log_level, spec.log_format, spec.instance_id, spec.worker_id)
    channel = Channel(end, blocking=True)
    detector = _boot(spec, channel)
    if detector is None:
        sys.exit(EXIT_BOOT_FAILED)
    worker = Worker(channel, detector)
    try:
        while worker.step():
            pass
    finally:
        worker.close()
    if worker.loading:
        # The interpreter's end would pull the library away from under the thread that loads.
        os._exit(EXIT_OK)
    sys.exit(EXIT_OK)


def _tame_allocator() -> None:
    """Keep the C library to two arenas of memory, since one for each thread that ever loaded a pair would keep growing,
    and large blocks out of both, so that the weights of a pair that is let go leave no holes: left alone, the library
    takes ever larger blocks into the arenas after it has freed one.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, 2)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _boot(spec: WorkerSpec, channel: Channel) -> Detector | None:
    """Build the detector and report READY, or report why not."""
    module, _, name = spec.detector_class.partition(":")
    try:
        detector: Detector = getattr(importlib.import_module(module), name)(spec.detector)
    except Exception as error:  # noqa: BLE001 - the entry point of a process: the reason must reach the supervisor
        # The supervisor knows errors by name, and not the detector's own kinds.
        kind = ModelError if isinstance(error, ModelError) else type(error)
        channel.send(BootFailure(kind.__name__, str(error)[:2000], traceback.format_exc()[-8000:]))
        return None
    channel.send(Ready(detector.info))
    return detector


class Worker:
    """The loop's body and what it keeps: the detector and one mapped ring for each stream."""

    def __init__(self, channel: Channel, detector: Detector) -> None:
        self._channel = channel
        self._detector = detector
        self._told = detector.info
        self._loader = Loader(detector.load)
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._poll.register(self._loader.fileno(), select.POLLIN)
        self._rings: dict[str, RingView] = {}

    @property
    def loading(self) -> bool:
        """Return whether another pair of models is being loaded."""
        return self._loader.running

    def step(self) -> bool:
        """Wait for one thing to happen and handle it; return False when it is time to leave."""
        # A pair that is being loaded is tested itself, and a third user of the processor would make frames late.
        wait_s = math.inf if self._loader.running else self._detector.self_test_wait_s
        if wait_s == math.inf and not self._loader.running:
            return self._handle(self._channel.receive())
        if wait_s < -_OVERDUE_S:
            return self._test()
        ready = {
            descriptor
            for descriptor, _ in self._poll.poll(None if wait_s == math.inf else math.ceil(max(0.0, wait_s) * 1e3))
        }
        if not ready:
            return self._test()
        if self._loader.fileno() in ready:
            answer = self._loader.collect()
            if answer is not None and not self._channel.send(answer):
                return False
        return self._channel.fileno() not in ready or self._handle(self._channel.receive())

    def _handle(self, message: Message | None) -> bool:
        """Do what the supervisor says; return False when it is time to leave."""
        match message:
            case FrameMessage():
                return self._channel.send(self._answer(message))
            case Forget(stream_id=stream_id):
                self._detector.forget(stream_id)
                self._drop_ring(stream_id)
            case Prepare():
                failed = self._loader.prepare(message)
                return failed is None or self._channel.send(failed)
            case Commit(swap=swap):
                return self._channel.send(self._commit(swap))
            case Abort(swap=swap):
                self._loader.abort(swap)
            case DescribeAttention(query=query, stream_id=stream_id):
                return self._channel.send(AttentionDescribed(query, self._detector.attention_stats(stream_id)))
            case Stop() | None:
                return False
            case _:
                _log.error("a worker cannot be sent %s", type(message).__name__)
        return True

    def _test(self) -> bool:
        """Try whether the detector sees; return False, once the supervisor is told, where it does not."""
        reason = self._detector.self_test()
        if reason is not None:
            self._channel.send(Blind(reason[:2000]))
        return reason is None

    def _commit(self, swap: int) -> Committed | PrepareFailed:
        pair = self._loader.commit(swap)
        if pair is None:
            return PrepareFailed(swap, "nothing was prepared")
        self._detector.swap(pair)
        self._told = self._detector.info
        return Committed(swap)

    def close(self) -> None:
        """Unmap the rings and let the sessions go."""
        for stream_id in list(self._rings):
            self._drop_ring(stream_id)
        self._loader.close()
        self._detector.close()
        self._channel.close()

    def _answer(self, message: FrameMessage) -> FrameResult | FrameFailure:
        queue_ms = (time.monotonic_ns() - message.captured_ns) / 1e6
        try:
            ring = self._ring(message.request.stream_id, message.ring)
            frame = ring.read(message.slot, message.generation)
            outcome = self._detector.process(frame, message.request)
            ring.check(message.slot, message.generation)
        except TornFrameError as error:
            return FrameFailure(message.lease, "torn", str(error), "")
        except Exception as error:  # noqa: BLE001 - one bad frame must not end a worker; the reason travels
            text = str(error)[:2000] or type(error).__name__
            return FrameFailure(message.lease, "worker_error", text, traceback.format_exc()[-8000:], self._news())
        return FrameResult(message.lease, outcome, queue_ms, self._news())

    def _news(self) -> DetectorInfo | None:
        """Return what answers now if that is not what the supervisor knows."""
        info = self._detector.info
        if info is self._told or info == self._told:
            return None
        self._told = info
        return info

    def _ring(self, stream_id: str, name: str) -> RingView:
        """Return the mapped ring of a stream; a new name means that its picture changed size."""
        known = self._rings.get(stream_id)
        if known is not None and known.name == name:
            return known
        self._drop_ring(stream_id)
        try:
            ring = self._rings[stream_id] = RingView(name)
        except SharedMemoryError:
            self._detector.forget(stream_id)
            raise
        return ring

    def _drop_ring(self, stream_id: str) -> None:
        ring = self._rings.pop(stream_id, None)
        if ring is not None:
            ring.close()
