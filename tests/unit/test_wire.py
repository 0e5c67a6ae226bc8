"""Messages survive the trip unchanged; everything else is refused with the reason; a full socket never blocks."""

import contextlib
import re
import socket
import typing
from typing import Any

import msgpack
import msgspec
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
    Blind,
    BootFailure,
    Commit,
    Committed,
    Crop,
    DescribeAttention,
    Detection,
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
DETECTIONS = (Detection(1, 2, 30, 40, 0.9, 0), Detection(5, 6, 7, 8, 0.5, 0))
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
    Blind("640, mirrored person: expected 0.917 at (387, 210, 496, 479), found nobody"),
    AttentionDescribed(
        9, AttentionStats((("full", 3),), (("rescan", 2),), 1, 2, 3, 0, 4, 0.02, 5, 6, 0.9, 2.0, (REGION,), REGION)
    ),
]


def test_every_type_of_message_is_covered() -> None:
    assert {type(message) for message in MESSAGES} == set(typing.get_args(messages.Message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_survive_the_trip(message: Message) -> None:
    arrived = decode(encode(message))
    assert arrived == message
    # Equal numbers may be of different types.
    assert repr(arrived) == repr(message)


def packed(name: str = "Forget", fields: Any = None, version: Any = wire.VERSION) -> bytes:
    content: bytes = msgpack.packb([version, [name, *(["cam0"] if fields is None else fields)]])
    return content


def frame(field: str, value: Any) -> bytes:
    """Return a frame's message with another value in a field; the last of `request.settings.alpha` is the settings'."""
    envelope = msgpack.unpackb(encode(MESSAGES[0]))
    fields, place = envelope[1], 1
    kind: type = FrameMessage
    *above, name = field.split(".")
    for part in above:
        fields, kind, place = fields[place + position(kind, part)], PARTS[part], 0
    fields[place + position(kind, name)] = value
    content: bytes = msgpack.packb(envelope)
    return content


PARTS: dict[str, type] = {"request": DetectRequest, "settings": AttentionSettings}


def position(kind: type, name: str) -> int:
    return [field.name for field in msgspec.structs.fields(kind)].index(name)


def outcome(field: str, value: Any) -> bytes:
    """Return a result with another value in a field of its outcome, or in one of `roi_processing.`."""
    envelope = msgpack.unpackb(encode(MESSAGES[5]))
    fields = envelope[1][1 + position(FrameResult, "outcome")]
    kind: type = Outcome
    if field.startswith("roi_processing."):
        fields, kind = fields[position(Outcome, "roi_processing")], RoiProcessing
    fields[position(kind, field.rpartition(".")[2])] = value
    content: bytes = msgpack.packb(envelope)
    return content


def found(**changes: Any) -> bytes:
    """Return a result with one box, some values of which are changed."""
    values = {"x": 0, "y": 0, "width": 5, "height": 5, "confidence": 0.5, "class_id": 0} | changes
    return outcome("detections", [list(values.values())])


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "not MsgPack"),
        (b"\xc1", "not MsgPack"),
        (packed()[:-1], "not MsgPack"),
        (packed() + b"\x00", "not MsgPack"),
        (msgpack.packb({"a": 1}), "list of version"),
        (msgpack.packb([wire.VERSION]), "list of version"),
        (msgpack.packb([wire.VERSION, []]), "list of version"),
        (msgpack.packb([wire.VERSION, {"Forget": "cam0"}]), "a message is a list of version, and of type and fields"),
        (msgpack.packb([2, "Forget", ["cam0"]]), "version 2 is unknown, expected 4"),
        (packed(version=2), "version 2 is unknown, expected 4"),
        (packed(version=True), "version True is unknown"),
        (packed("Surprise"), "type 'Surprise' is unknown, expected one of FrameMessage, Forget"),
        (packed("Forget", []), "Forget: Expected `array` of at least length 2, got 1"),
        (packed("Forget", [{}]), "Forget.stream_id: Expected `str`, got `object`"),
        (packed("Forget", ["a", 1]), "Forget: Expected `array` of at most length 1, got 2"),
        (packed("Forget", [1]), "Forget.stream_id: Expected `str`, got `int`"),
        (packed("Stop", [1]), "Stop: Expected `array` of at most length 0, got 1"),
        (frame("slot", "0"), "FrameMessage.slot: Expected `int`, got `str`"),
        (frame("slot", True), "FrameMessage.slot: Expected `int`, got `bool`"),
        (frame("request", None), "FrameMessage.request: Expected `array`, got `None`"),
        (frame("request.stream_time_s", float("nan")), "FrameMessage.request.stream_time_s: Expected `float`"),
        (frame("request.stream_time_s", float("inf")), "FrameMessage.request.stream_time_s: Expected `float`"),
        (frame("request.settings.mode", "sideways"), "FrameMessage.request.settings.mode: Invalid enum value"),
        (frame("request.settings.alpha", True), "FrameMessage.request.settings.alpha: Expected `float`, got `bool`"),
        (frame("request.settings.rescan_s", "soon"), "request.settings.rescan_s: Expected `float | null`, got `str`"),
        (frame("request.regions", [[0.5, 0.5, 0.7, 0.1]]), "FrameMessage.request.regions.0: a region lies inside"),
        (frame("request.regions", [[0.5, 0.5, 0.7]]), "FrameMessage.request.regions.0: Expected `array` of at least"),
        (found(width=0), "FrameResult.outcome.detections.0.width: Expected `int` >= 1"),
        (found(x=-1), "FrameResult.outcome.detections.0.x: Expected `int` >= 0"),
        (found(width=2**31), "FrameResult.outcome.detections.0.width: Expected `int` <= 2147483647"),
        (found(class_id=2**63), "FrameResult.outcome.detections.0.class_id: Expected `int` <= 2147483647"),
        (found(y=1.5), "FrameResult.outcome.detections.0.y: Expected `int`, got `float`"),
        (found(confidence=1.5), "FrameResult.outcome.detections.0.confidence: Expected `float` <= 1.0"),
        (found(confidence=-0.01), "FrameResult.outcome.detections.0.confidence: Expected `float` >= 0.0"),
        (found(confidence=float("nan")), "FrameResult.outcome.detections.0.confidence: Expected `float`"),
        (outcome("detections", [[1, 2, 3]]), "FrameResult.outcome.detections.0: Expected `array` of at least length 6"),
        (outcome("detections", b"12"), "FrameResult.outcome.detections: Expected `array`, got `bytes`"),
        (outcome("suggested_roi", [0, 0, 1, "1"]), "FrameResult.outcome.suggested_roi.height: Expected `float`"),
        (outcome("roi_processing.crop", [1, 2, "3", 4]), "FrameResult.outcome.roi_processing.crop.2: Expected `int`"),
        (outcome("roi_processing.crops", [[1, 2, 3, 4, 480]]), "roi_processing.crops.0.model: Invalid enum value 480"),
        (packed("FrameFailure", [1, "x - at `$[1][9]`", "m", "t", None]), "FrameFailure.reason: Invalid enum value"),
        (outcome("inference", "x - at `$[9]`"), "FrameResult.outcome.inference: Invalid enum value"),
        (
            packed("FrameFailure", [1, "\n\x1b" * 50_000, "m", "t", None]),
            r"FrameFailure.reason: Invalid enum value '\n\x1b",
        ),
        (b"\x81" * 300_000, "larger than"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(packet: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=re.escape(reason)) as caught:
        decode(packet)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def test_numbers_of_numpy_are_sent_as_numbers() -> None:
    region = Region(np.float64(0.5), np.float32(0.5), 0.25, 0.25)  # type: ignore[arg-type]
    message = decode(encode(FrameMessage(1, "ring", 0, np.uint64(2), 3, DetectRequest("a", 0.0, regions=(region,)))))  # type: ignore[arg-type]
    assert isinstance(message, FrameMessage)
    assert message.request.regions == (Region(0.5, 0.5, 0.25, 0.25),)
    assert type(message.generation) is int
    with pytest.raises(TypeError, match="ndarray cannot be sent"):
        encode(Forget(np.zeros(2)))  # type: ignore[arg-type]


def test_whole_numbers_pass_for_others() -> None:
    message = decode(frame("request.settings.alpha", 1))
    assert isinstance(message, FrameMessage)
    assert type(message.request.settings.alpha) is float


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
