"""How long a frame takes to another process and a small answer back, by four ways, alternated in one run: Orion's ring
with one copy into the slot; the same where the decoder wrote into the slot; the pixels inside length-prefixed MsgPack
over a child's stdin and stdout; `multiprocessing.Queue`. Beside them stand two floors of the machine: the bare copy of
a picture, and a few hundred bytes there and back on a socket. The ring's child is a real worker process, driven through
the real ledger and wire. Every child does the same with the pixels: it reads the middle row for a checksum and answers
two boxes, which carry that checksum and the frame's number back, so that each answer proves which picture was seen.
"""

import argparse
import multiprocessing
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.queues import Queue
from typing import Any, BinaryIO, Protocol

import msgpack
import numpy as np

from benchmarks.fixed import FixedDetector
from benchmarks.report import Bar, Report, Row, add_plot_option, publish, spread
from orion.handle import WorkerProcess
from orion.ledger import Frame, Ledger, Slot
from orion.messages import (
    AttentionSettings,
    Detection,
    DetectorInfo,
    DetectorSpec,
    DetectRequest,
    FrameMessage,
    FrameResult,
    Message,
    Outcome,
    Pixels,
    Ready,
    SessionInfo,
    Stop,
)
from orion.ring import MIN_SLOTS, Ring
from orion.worker import WorkerSpec

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
"""Width and height in pixels."""

_LIMIT_S = 30.0
"""For anything that another process owes; far beyond what is measured."""
_SLOTS = 4
_FRAME_MESSAGE_BYTES = 150
_LENGTH = struct.Struct(">I")
_ATTENTION = AttentionSettings(mode="off")

Box = list[int]
Answer = list[Box]
"""Two boxes as x, y, width, height."""


def answer_to(frame: Pixels, number: int) -> Answer:
    """Return what a child answers: the CRC-32 of the middle row without its sign, then the number of the frame."""
    return [[zlib.crc32(frame[frame.shape[0] // 2]) & 0x7FFFFFFF, 0, 1, 1], [number, 0, 1, 1]]


class Way(Protocol):
    """One way to another process and back."""

    name: str

    def stage(self, picture: Pixels) -> None:
        """Do what comes before the clock starts: what a decoder would have done by itself."""

    def trip(self, picture: Pixels, number: int) -> Answer:
        """Hand the picture over and return the answer."""


class RowReader(FixedDetector):
    """The detector of the ring's worker: reads one row in place."""

    def __init__(self, spec: DetectorSpec) -> None:
        session = SessionInfo("", "", 640, "cpu", 0.0, 0.0)
        self.info = DetectorInfo(spec.model_640, "unknown", (session,), 1.0)

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        """Answer one frame; its number comes as the stream's time."""
        answer = answer_to(frame, int(request.stream_time_s))
        detections = tuple(Detection(x, y, width, height, 1.0, 0) for x, y, width, height in answer)
        return Outcome(detections, "full", 640, None, None, 0.0, 0.0, 0.0, 0.0)


class RingWorker:
    """A worker process and one wait for what it sends."""

    def __init__(self) -> None:
        detector = DetectorSpec("row-reader", None, 0.5, 0.45, ("person",), "cpu", 1)
        spec = WorkerSpec("w0", "bench", os.getpid(), "benchmarks.transport:RowReader", detector, "warning", "text")
        self._process = WorkerProcess(spec)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.channel.fileno(), selectors.EVENT_READ)

    def ask(self, message: FrameMessage) -> Message:
        """Send a frame's message and return the answer."""
        if not self._process.channel.send(message):
            raise RuntimeError("the worker takes no message")
        return self.receive()

    def receive(self) -> Message:
        """Return the next message, as the supervisor would get it."""
        if self._selector.select(_LIMIT_S):
            for message in self._process.received():
                return message
        raise RuntimeError("the worker does not answer")

    def close(self) -> None:
        """Tell the worker to leave, and reap it."""
        self._process.channel.send(Stop())
        if self._process.reap(_LIMIT_S) is None:
            self._process.kill()
            self._process.reap(_LIMIT_S)
        self._selector.close()


class RingWay:
    """The ring, the ledger and the wire as the pipeline uses them; `in_place` writes the slot before the clock."""

    def __init__(self, worker: RingWorker, size: tuple[int, int], *, in_place: bool) -> None:
        self.name = "ring, in place" if in_place else "ring, one copy"
        self._worker = worker
        self._in_place = in_place
        self._ledger = Ledger()
        self._stream_id = "in-place" if in_place else "copy"
        self._ring = Ring(f"orion.bench.{os.getpid()}.{self._stream_id}-{size[0]}x{size[1]}", *size, _SLOTS)
        self._slot: Slot = self._ledger.open_ring(self._ring.name, _SLOTS)

    def stage(self, picture: Pixels) -> None:
        """Stand in for a decoder that writes into the slot."""
        if self._in_place:
            self._ring.begin(self._slot.index)[:] = picture

    def trip(self, picture: Pixels, number: int) -> Answer:
        """Copy unless the picture is in the slot already; offer, lease, ask, give back."""
        if not self._in_place:
            self._ring.begin(self._slot.index)[:] = picture
        height, width = picture.shape[:2]
        now_ns = time.monotonic_ns()
        generation = self._ring.finish(self._slot.index)
        frame = Frame(number, generation, width, height, now_ns, time.time_ns(), float(number), continuous=True)
        self._slot = self._ledger.offer(self._slot, frame)
        lease = self._ledger.lease("w0")
        assert lease is not None
        request = DetectRequest(self._stream_id, frame.stream_time_s, settings=_ATTENTION)
        result = self._worker.ask(
            FrameMessage(number, lease.slot.ring, lease.slot.index, frame.generation, frame.captured_ns, request)
        )
        self._ledger.give_back(lease, "inferred")
        if not isinstance(result, FrameResult):
            raise TypeError(f"the worker answered {result}")
        return [[one.x, one.y, one.width, one.height] for one in result.outcome.detections]

    def close(self) -> None:
        """Unlink the ring."""
        self._ring.close()


class PipeWay:
    """MsgPack behind four bytes of big-endian length, on pipes of the system's usual size."""

    name = "MsgPack on pipes"

    def __init__(self) -> None:
        command = [sys.executable, "-c", "from benchmarks.transport import serve_pipes; serve_pipes()"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._to, self._from = self._child.stdin, self._child.stdout

    def stage(self, picture: Pixels) -> None:
        """Nothing comes before the clock."""

    def trip(self, picture: Pixels, number: int) -> Answer:
        """Send a message with the pixels in it."""
        height, width = picture.shape[:2]
        pixels = picture.data.cast("B")
        _write(self._to, {"number": number, "width": width, "height": height, "frame_data": pixels})
        answer = _read(self._from)
        if answer is None:
            raise RuntimeError("the child on pipes has left")
        boxes: Answer = answer["boxes"]
        return boxes

    def close(self) -> None:
        """End the child by the end of its input."""
        with self._child:
            self._to.close()


def serve_pipes() -> None:
    """Answer frames from stdin on stdout until the end of input; what the child of `PipeWay` runs."""
    while (message := _read(sys.stdin.buffer)) is not None:
        flat = np.frombuffer(message["frame_data"], np.uint8)
        frame = flat.reshape(message["height"], message["width"], 3)
        _write(sys.stdout.buffer, {"boxes": answer_to(frame, message["number"])})


def _write(stream: BinaryIO | Any, message: dict[str, Any]) -> None:
    body = msgpack.packb(message)
    stream.write(_LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def _read(stream: BinaryIO | Any) -> dict[str, Any] | None:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    message: dict[str, Any] = msgpack.unpackb(stream.read(*_LENGTH.unpack(head)))
    return message


class CopyWay:
    """The bare copy of a picture into shared memory: what no way that copies can go below."""

    name = "copy alone"

    def __init__(self, size: tuple[int, int]) -> None:
        self._ring = Ring(f"orion.bench.{os.getpid()}.bare-{size[0]}x{size[1]}", *size, MIN_SLOTS)

    def stage(self, picture: Pixels) -> None:
        """Nothing comes before the clock."""

    def trip(self, picture: Pixels, number: int) -> Answer:
        """Copy, and give the answer that a child would."""
        np.copyto(self._ring.peek(number % MIN_SLOTS), picture)
        return answer_to(picture, number)

    def close(self) -> None:
        """Unlink the memory."""
        self._ring.close()


class SocketWay:
    """A few hundred bytes there and back between two processes, and nothing else: what no way can go below. Before the
    clock it does what a decoder would, as the ring in place does: the other process has then slept as long.
    """

    name = "socket alone"

    def __init__(self) -> None:
        self._decoded: Pixels | None = None
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = multiprocessing.get_context("spawn").Process(target=serve_socket, args=(theirs,), daemon=True)
        self._child.start()
        theirs.close()

    def stage(self, picture: Pixels) -> None:
        """Stand in for a decoder."""
        if self._decoded is None or self._decoded.shape != picture.shape:
            self._decoded = np.empty_like(picture)
        np.copyto(self._decoded, picture)

    def trip(self, picture: Pixels, number: int) -> Answer:
        """Send as many bytes as a frame's message has, and give the answer that the child of another way would."""
        self._ours.send(bytes(_FRAME_MESSAGE_BYTES))
        if len(self._ours.recv(_FRAME_MESSAGE_BYTES)) != _FRAME_MESSAGE_BYTES:
            raise RuntimeError("the child on the socket has left")
        return answer_to(picture, number)

    def close(self) -> None:
        """End the child by the end of its input."""
        self._ours.close()
        self._child.join()


def serve_socket(end: socket.socket) -> None:
    """Send back what comes until the end of file; what the child of `SocketWay` runs."""
    with end:
        while message := end.recv(_FRAME_MESSAGE_BYTES):
            end.send(message)


class QueueWay:
    """Arrays put into a `multiprocessing.Queue`, answers out of another."""

    name = "multiprocessing.Queue"

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._frames: Queue[tuple[int, Pixels] | None] = context.Queue()
        self._answers: Queue[Answer] = context.Queue()
        self._child = context.Process(target=serve_queue, args=(self._frames, self._answers), name="queue")
        self._child.start()

    def stage(self, picture: Pixels) -> None:
        """Nothing comes before the clock."""

    def trip(self, picture: Pixels, number: int) -> Answer:
        """Put the picture, get the answer."""
        self._frames.put((number, picture))
        return self._answers.get(timeout=_LIMIT_S)

    def close(self) -> None:
        """End the child and the queues' threads."""
        self._frames.put(None)
        self._child.join(_LIMIT_S)
        for queue in (self._frames, self._answers):
            queue.close()
            queue.join_thread()
        self._child.close()


def serve_queue(frames: "Queue[tuple[int, Pixels] | None]", answers: "Queue[Answer]") -> None:
    """Answer frames until None comes; what the child of `QueueWay` runs."""
    while (message := frames.get()) is not None:
        number, frame = message
        answers.put(answer_to(frame, number))


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: in each round every way gets a block of trips, the first of which is not counted."""

    sizes: Sequence[str]
    rounds: int
    block: int


@contextmanager
def _children() -> Iterator[tuple[RingWorker, PipeWay, QueueWay, SocketWay]]:
    with ExitStack() as stack:
        sockets = SocketWay()
        stack.callback(sockets.close)
        worker = RingWorker()
        stack.callback(worker.close)
        pipes = PipeWay()
        stack.callback(pipes.close)
        queues = QueueWay()
        stack.callback(queues.close)
        if not isinstance(worker.receive(), Ready):
            raise TypeError("the worker could not start")
        yield worker, pipes, queues, sockets


def measure(plan: Plan) -> list[Row]:
    """Return one row for each size and way. Raises RuntimeError when an answer is not right."""
    rows: list[Row] = []
    with _children() as (worker, pipes, queues, sockets):
        for name in plan.sizes:
            with ExitStack() as stack:
                rings = [RingWay(worker, SIZES[name], in_place=in_place) for in_place in (False, True)]
                for ring in rings:
                    stack.callback(ring.close)
                copies = CopyWay(SIZES[name])
                stack.callback(copies.close)
                times_ms = measure_ways([*rings, pipes, queues, copies, sockets], SIZES[name], plan)
            base = float(np.median(times_ms[pipes.name]))
            for title, durations_ms in times_ms.items():
                found = spread(durations_ms)
                rows.append({"size": name, "way": title, **asdict(found), "of_pipes": round(base / found.p50_ms, 1)})
    return rows


def measure_ways(ways: Sequence[Way], size: tuple[int, int], plan: Plan) -> dict[str, list[float]]:
    """Return the times of each way in ms; the order of the ways rotates from round to round."""
    pictures = _pictures(size)
    times_ms: dict[str, list[float]] = {way.name: [] for way in ways}
    number = 0
    for turn in range(plan.rounds):
        first = turn % len(ways)
        for way in [*ways[first:], *ways[:first]]:
            for trip in range(1 + plan.block):
                number += 1
                taken_ms = _timed_trip(way, pictures[number % len(pictures)], number)
                if trip > 0:
                    times_ms[way.name].append(taken_ms)
    return times_ms


def _timed_trip(way: Way, picture: Pixels, number: int) -> float:
    """Return the milliseconds of one trip, whose answer was right."""
    way.stage(picture)
    start_ns = time.perf_counter_ns()
    answer = way.trip(picture, number)
    taken_ns = time.perf_counter_ns() - start_ns
    if answer != answer_to(picture, number):
        raise RuntimeError(f"{way.name}: {answer} is not the answer to frame {number}")
    return taken_ns / 1e6


def _pictures(size: tuple[int, int]) -> list[Pixels]:
    random = np.random.default_rng(0)
    width, height = size
    return [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(3)]


def _bars(rows: Sequence[Row]) -> list[Bar]:
    """Return the bars in ms, and the same as shares of what two other ways took on the machine that they were set on:
    0.26 ms for the bare copy, 3 to 5.5 ms for MsgPack on pipes (of which the middle counts).
    """
    p50_ms = {row["way"]: row["p50_ms"] for row in rows if row["size"] == "1080p"}
    if not p50_ms:
        return []
    copy_ms, in_place_ms = p50_ms["ring, one copy"], p50_ms["ring, in place"]
    return [
        Bar("ring, one copy, 1080p, p50 in ms", copy_ms, 0.35),
        Bar("ring, in place, 1080p, p50 in ms", in_place_ms, 0.1),
        Bar("ring, one copy, 1080p, over the bare copy", round(copy_ms / p50_ms["copy alone"], 3), 1.35),
        Bar("ring, in place, 1080p, over MsgPack on pipes", round(in_place_ms / p50_ms["MsgPack on pipes"], 4), 0.0235),
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transport", description="A frame there, an answer back."
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="turns of every way (default 30)")
    parser.add_argument("--block", type=int, default=10, metavar="N", help="counted trips in a turn (default 10)")
    add_plot_option(parser)
    arguments = parser.parse_args()
    plan = Plan(arguments.sizes, arguments.rounds, arguments.block)
    rows = measure(plan)
    publish(Report("transport", asdict(plan) | {"slots": _SLOTS}, rows, _bars(rows)), arguments.plot)


if __name__ == "__main__":
    main()
