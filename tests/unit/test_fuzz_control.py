"""A hundred thousand requests, from valid to hostile, through the real desk and the real commands of an instance whose
workers were never started: never a crash, never a request without its one answer, never a change on a refusal.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orion import reconfigure
from orion.commands import Commands
from orion.config import Config, ControlConfig, StreamConfig
from orion.mailbox import Mailbox
from orion.messages import DetectorSpec, Pixels
from orion.posts import CommandReceived, Post
from orion.requests import SCHEMAS
from orion.sources import make_source
from orion.stream import RingMaker, Stream
from orion.supervisor import Supervisor, SupervisorSettings
from orion.worker import WorkerSpec

REQUESTS = 100_000
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1e308, -1e308, 10**40, 0.5, "", "n", "cam0", "cam1", "w0", "simple",
    "../../etc/passwd", "/etc/passwd", "\0", "\ud800", "n\n", "${HOME}", "%s%n",
    "é" * 200, "x" * 3000, [], {}, [[]], {"": {}}, [None],
    {"x": 0.1, "y": 0.1, "width": 0.2, "height": 0.2}, {"stream_id": "cam0"}, "rtsp://u:p@h/x", "demo", "demo:1x1@1",
)  # fmt: skip
RAW: tuple[bytes, ...] = (
    b"", b"{", b"null", b"[]", b"\xff\xfe", b"\xc3\x28", b'{"command": "\xff"}', b'{"command": NaN}',
    b'{"command": 1e999}',     b'{"command": -Infinity}', b"[" * 10_000, b'{"a":' * 5_000,
    b'{"command": "get_status", "params": ' + b"[" * 60 + b"]" * 60 + b"}",
    b'{"command": "get_status", "command": "shutdown"}', b"1" * 5_000, b'{"params": 1%s}' % (b"0" * 400), b"\0" * 100,
    '{"command": "get_status"}'.encode("utf-16"), b'"\\ud800"',
)  # fmt: skip
VALID: dict[str, tuple[dict[str, Any], ...]] = {
    "set_inference_rate": ({"rate_hz": 2}, {"rate_hz": None}, {"rate_hz": 0.01, "stream_id": "cam1"}),
    "set_model_size": ({"size": "n"},),
    "set_attention_rois": ({"rois": [{"x": 0, "y": 0.5, "width": 1, "height": 0.5}]},),
    "set_auto_focus_strategy": ({"strategy": "velocity", "velocity_factor": 2}, {"strategy": "smoothing", "alpha": 1}),
    "update_config": (
        {"config": {"attention": {"alpha": 0.4}}},
        {"config": {"attention": {"alpha": 0.4}, "ring": {"slots": 5}}},
        {"config": {"streams": [{"stream_id": "cam0"}, {"stream_id": "cam1", "rate_hz": 3}]}},
        {"config": {"mqtt": {"broker": "none"}}},
    ),
    "restart_worker": ({"worker_id": "w0"},),
}
KEYS = ("attention", "streams", "models", "mqtt", "ring", "alpha", "mode", "person_detector", "size", "model_path",
        "rate_hz", "stream_id", "source", "rois", "x", "width", "config", "params", "instance_id")  # fmt: skip


class Outlet:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []

    def result(self, result: dict[str, Any], pixels: Callable[[], Pixels]) -> None:
        raise AssertionError("no frame was ever captured")

    def event(self, event: dict[str, Any]) -> None:
        json.dumps(event).encode()
        if "command_ack" in event:
            self.answers.append(event)

    def tick(self, describe: Callable[[], dict[str, Any]]) -> None:
        # The loop does not run: the one tick is that of the end, and what it shows is still fit to be sent.
        json.dumps(describe()).encode()


class Clock:
    """Moves on by a second a look, so that nothing pends for ever."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


class Bench:
    """An instance that was never started, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        streams = tuple(StreamConfig(stream_id=name, source="demo:64x64@10") for name in ("cam0", "cam1"))
        self.base = Config(streams=streams, control=ControlConfig(source_dirs=(folder,)))
        self.mailbox: Mailbox[Post] = Mailbox()
        self.outlet = Outlet()
        rings = RingMaker("fuzz", "run", 4, lambda _: None)
        detector = DetectorSpec("none", None, 0.5, 0.45, ("person",), "cpu", 1)
        spec = WorkerSpec("w0", "fuzz", 0, "none:None", detector, "info", "text")
        settings = SupervisorSettings("fuzz", "room", "run", [spec], None)
        made = [
            Stream(reconfigure.stream_settings(self.base, s), make_source(s.source), rings, self.mailbox)
            for s in streams
        ]
        self.supervisor = Supervisor(settings, made, rings, self.mailbox, self.outlet)
        self.commands = Commands(self.supervisor, self.base, self.base, folder / "changes.yaml", Clock())
        self.supervisor.controller = self.commands

    def state(self) -> object:
        """Return all that commands could change."""
        streams = {
            name: (stream.settings, stream.regions, stream.ledger.paused)
            for name, stream in self.supervisor.streams.items()
        }
        return self.commands.config, streams, self.supervisor.crew.handles["w0"].state

    def send(self, payload: bytes) -> dict[str, Any]:
        """Send a request and return its one answer, after pending ones have run out of time."""
        before = len(self.outlet.answers)
        self.commands.receive(payload, len(payload))
        for _ in range(200):
            if len(self.outlet.answers) > before:
                break
            self.commands.turn()
        assert len(self.outlet.answers) == before + 1, payload[:300]
        return self.outlet.answers.pop()

    def close(self) -> None:
        self.supervisor.close(1.0)
        self.mailbox.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # The streams' threads are not part of this: a stream that is added is made, but reads nothing.
    monkeypatch.setattr(Stream, "start", lambda _: None)
    made = Bench(tmp_path)
    yield made
    made.close()


def hostile_value(chance: random.Random, depth: int = 0) -> Any:
    roll = chance.random()
    if depth > 3 or roll < 0.6:
        return chance.choice(HOSTILE)
    if roll < 0.8:
        return [hostile_value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return {chance.choice(KEYS): hostile_value(chance, depth + 1) for _ in range(chance.randint(0, 3))}


def payload(chance: random.Random) -> bytes:
    """Return the next request: valid, nearly valid, or anything."""
    roll = chance.random()
    if roll < 0.1:
        noise = chance.choice(RAW)
        return noise if chance.random() < 0.7 else bytes(chance.randrange(256) for _ in range(30))
    command = chance.choice(list(SCHEMAS))
    params: Any = dict(chance.choice(VALID.get(command, ({}, {"stream_id": "cam1"}))))
    if roll < 0.5:
        params[chance.choice([*params, *KEYS])] = hostile_value(chance)
    elif roll < 0.6:
        params = hostile_value(chance)
    request: dict[str, Any] = {"command": command, "params": params}
    if chance.random() < 0.4:
        request["request_id"] = chance.choice([f"r{chance.randrange(300)}", hostile_value(chance)])
    if chance.random() < 0.05:
        request[chance.choice(["command", "params", "config", "extra"])] = hostile_value(chance)
    return json.dumps(request).encode()


def test_nothing_that_arrives_breaks_an_instance(bench: Bench) -> None:
    chance = random.Random(20)
    codes: dict[str, int] = {}
    for _ in range(REQUESTS):
        request = payload(chance)
        before = bench.state()
        answer = bench.send(request)
        code = answer.get("code", answer["status"])
        codes[code] = codes.get(code, 0) + 1
        if answer["status"] == "error" and not (answer["command_ack"] == "restart_worker" and code == "failed"):
            assert bench.state() == before, request[:300]
        bench.mailbox.take()
    assert {"success", "paused", "invalid_json", "invalid_params", "not_found", "forbidden", "failed"} <= codes.keys()
    assert min(codes.values()) > 50, codes


def test_what_comes_during_the_stop_is_answered_and_not_executed(bench: Bench) -> None:
    streams = [{"stream_id": name, "source": "demo:64x64@10"} for name in ("cam0", "cam1", "late")]
    requests: list[dict[str, Any]] = [
        {"command": "update_config", "config": {"streams": streams, "persist_changes": True}},
        {"command": "restart_worker", "params": {"worker_id": "w0"}},
        {"command": "pause_inference"},
        {"command": "get_status"},
    ]
    before = bench.state()
    bench.commands.close()
    for request in requests:
        answer = bench.send(json.dumps(request).encode())
        assert (answer["command_ack"], answer["code"]) == (request["command"], "failed")
        assert answer["error"] == "the instance is stopping"
    assert bench.state() == before
    assert list(bench.folder.iterdir()) == []
    payload = json.dumps(requests[1]).encode()
    bench.mailbox.post(CommandReceived(payload, len(payload)))
    bench.supervisor.close(1.0)
    assert [answer["command_ack"] for answer in bench.outlet.answers] == ["restart_worker"]
