"""Messages survive the trip unchanged; everything else is refused with the reason; a full socket never blocks."""

import contextlib
import dataclasses
import socket
import typing
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orion import messages, wire
from orion.errors import WireError
from orion.messages import (
    Abort,
    AttentionDescribed,
    AttentionSettings,
    AttentionStats,
    BootFailure,
    Commit,
    Committed,
    Crop,
    DescribeAttention,
    Detections,
    DetectorInfo,
    DetectorSpec,
    DetectRequest,
    Forget,
    FrameFailure,
    FrameMessage,
    FrameResult,
    Message,
    Outcome,
    Prepare,
    Prepared,
    PrepareFailed,
    Ready,
    Region,
    RoiProcessing,
    SessionInfo,
    Stop,
)
from orion.wire import Channel, decode, encode

REGION = Region(0.1, 0.2, 0.3, 0.4)
DETECTIONS = Detections(
    np.array([[1, 2, 30, 40], [5, 6, 7, 8]], np.int32), np.array([0.9, 0.5], np.float32), np.array([0, 0], np.int32)
)
ROI = RoiProcessing(
    320, True, "auto_history", "smoothing", (REGION,), REGION, (Crop(0, 1, 20, 30, 320),), (0, 1, 20, 30), "why"
)
OUTCOME = Outcome(DETECTIONS, "roi", 320, ROI, REGION, 0.1, 2.0, 0.3, 2.5)
INFO = DetectorInfo("yolo11n", "n", (SessionInfo("/m", "ab", 640, "cpu", 1.0, 2.0),), 3.5, ((0, "person"),))
MESSAGES: list[Message] = [
    FrameMessage(7, "orion.a.b.0", 2, 14, 10**18, DetectRequest("cam0", 1.5, False, AttentionSettings(), (REGION,))),
    Forget("cam0"),
    Stop(),
    Ready(INFO),
    BootFailure("ModelError", "no such file", "Traceback ..."),
    FrameResult(7, OUTCOME, 0.25),
    FrameResult(7, OUTCOME, 0.25, INFO),
    FrameFailure(7, "torn", "generation 4, expected 2", ""),
    FrameFailure(7, "worker_error", "the device was lost", "Traceback ...", INFO),
    Prepare(3, DetectorSpec("/a", "/b", 0.5, 0.45, ("person", "dog"), "cpu", 2)),
    Commit(3),
    Abort(3),
    DescribeAttention(9, "cam0"),
    Prepared(3, INFO, 320.5),
    PrepareFailed(3, "the file is broken"),
    Committed(3),
    AttentionDescribed(
        9, AttentionStats((("full", 3),), (("rescan", 2),), 1, 2, 3, 0, 4, 0.02, 5, 6, 0.9, 2.0, (REGION,), REGION)
    ),
]


def fields_of(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.dtype, value.tolist())
    if isinstance(value, tuple):
        return tuple(map(fields_of, value))
    if dataclasses.is_dataclass(value):
        return (type(value), tuple(fields_of(getattr(value, f.name)) for f in dataclasses.fields(value)))
    return (type(value), value)


def test_settings_that_were_right_do_not_lend_that_to_values_equal_to_them() -> None:
    assert decode(frame("request.settings", attention(alpha=1))) is not None
    with pytest.raises(WireError, match=r"settings\.alpha must be float, not bool"):
        decode(frame("request.settings", attention(alpha=True)))


def test_every_type_of_message_is_covered() -> None:
    assert {type(message) for message in MESSAGES} == set(typing.get_args(messages.Message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_survive_the_trip(message: Message) -> None:
    assert fields_of(decode(encode(message))) == fields_of(message)


def packed(name: str = "Forget", fields: Any = None, version: Any = wire.VERSION) -> bytes:
    content: bytes = msgpack.packb([version, name, ["cam0"] if fields is None else fields])
    return content


def frame(field: str, value: Any) -> bytes:
    """Return a frame's message with another value in a field; `request.settings` takes the fields of the settings."""
    envelope = msgpack.unpackb(encode(MESSAGES[0]))
    *above, name = field.split(".")
    fields = envelope[2]
    if above:
        fields = fields[position(FrameMessage, above[0])]
    fields[position(DetectRequest if above else FrameMessage, name)] = value
    content: bytes = msgpack.packb(envelope)
    return content


def position(kind: type, name: str) -> int:
    return [field.name for field in dataclasses.fields(kind)].index(name)


def attention(**changes: Any) -> bytes:
    """Return packed settings with some values changed, of whatever type."""
    values = dataclasses.asdict(AttentionSettings()) | changes
    content: bytes = msgpack.packb(list(values.values()))
    return content


def result(xywh: Any = (), confidence: Any = (), class_id: Any = ()) -> bytes:
    """Return a result with these boxes, packed as a worker that checks nothing would."""
    envelope = msgpack.unpackb(encode(MESSAGES[5]))
    outcome = envelope[2][position(FrameResult, "outcome")]
    outcome[position(Outcome, "detections")] = [
        np.array(xywh, np.int32).tobytes(),
        np.array(confidence, np.float32).tobytes(),
        np.array(class_id, np.int32).tobytes(),
    ]
    content: bytes = msgpack.packb(envelope)
    return content


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "not MsgPack"),
        (b"\xc1", "not MsgPack"),
        (packed()[:-1], "not MsgPack"),
        (packed() + b"\x00", "not MsgPack"),
        (msgpack.packb({"a": 1}), "list of version"),
        (msgpack.packb([1, "Forget"]), "list of version"),
        (packed(version=1), "version 1 is unknown, expected 2"),
        (packed(version=True), "version True is unknown"),
        (packed("Surprise"), "type 'Surprise' is unknown"),
        (packed("Forget", []), "Forget must be a list of stream_id, not 0 values"),
        (packed("Forget", ["a", 1]), "Forget must be a list of stream_id, not 2 values"),
        (packed("Forget", [1]), "Forget.stream_id must be str, not int"),
        (packed("Forget", {}), "Forget must be a list of stream_id, not dict"),
        (packed("Stop", [1]), "Stop must be a list of nothing, not 1 values"),
        (frame("slot", "0"), "FrameMessage.slot must be int, not str"),
        (frame("slot", True), "FrameMessage.slot must be int, not bool"),
        (frame("request", None), "FrameMessage.request must be a list of stream_id"),
        (frame("request.stream_time_s", float("nan")), "FrameMessage.request.stream_time_s must be finite"),
        (frame("request.settings", []), "FrameMessage.request.settings must be bytes, not 0 values"),
        (frame("request.settings", b"\xc1"), "not MsgPack"),
        (frame("request.settings", attention(mode="sideways")), "settings.mode must be one of"),
        (frame("request.settings", attention(alpha=True)), "settings.alpha must be float, not bool"),
        (result(xywh=[[0, 0, 0, 5]], confidence=[0.5], class_id=[0]), "sides above zero"),
        (result(xywh=[[-1, 0, 5, 5]], confidence=[0.5], class_id=[0]), "lie in the frame"),
        (result(xywh=[[0, 0, 5, 5]], confidence=[1.5], class_id=[0]), "in 0..1"),
        (result(xywh=[[0, 0, 5, 5]], confidence=[float("nan")], class_id=[0]), "in 0..1"),
        (result(xywh=[[0, 0, 5]], confidence=[0.5], class_id=[0]), "detections"),
        (result(xywh=[[0, 0, 5, 5]], confidence=[-0.01], class_id=[0]), "in 0..1"),
        (result(confidence=[0.5]), "shapes differ"),
        (b"\x81" * 300_000, "larger than"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(packet: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode(packet)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    with pytest.raises(WireError):
        decode(noise)


@given(st.integers(0, 6), st.data())
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_gives_a_message_or_a_refusal(which: int, data: st.DataObject) -> None:
    packet = bytearray(encode(MESSAGES[which]))
    packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        assert type(decode(bytes(packet))) in {type(message) for message in MESSAGES}


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(WireError, match="larger than"):
        encode(BootFailure("E", "x" * wire.LIMIT, ""))


def channels() -> tuple[Channel, socket.socket]:
    ours, theirs = Channel.pair()
    return Channel(ours, blocking=False), theirs


def test_a_peer_that_does_not_read_never_blocks_the_sender() -> None:
    channel, theirs = channels()
    with theirs:
        sent = 0
        while channel.send(BootFailure("E", "x" * 2000, "")):
            sent += 1
            assert sent < 100_000
        assert not channel.send(Stop())
        channel.close()


def test_nothing_there_half_a_message_and_the_end() -> None:
    channel, theirs = channels()
    with pytest.raises(BlockingIOError):
        channel.receive()
    theirs.send(encode(MESSAGES[3])[:20])
    with pytest.raises(WireError, match="not MsgPack"):
        channel.receive()
    theirs.send(b"x" * (wire.LIMIT + 1))
    with pytest.raises(WireError, match="larger than"):
        channel.receive()
    theirs.send(encode(Stop()))
    theirs.close()
    assert channel.receive() == Stop()
    assert channel.receive() is None
    assert not channel.send(Stop())
    channel.close()
