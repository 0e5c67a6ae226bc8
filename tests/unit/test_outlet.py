"""What goes out besides results: the state, as telemetry."""

import json
from typing import Any

import pytest

from orion.outlet import Outlets


class Bus:
    """A broker that comes and goes as the test says, and what it was given."""

    def __init__(self) -> None:
        self.connected = False
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def publish(self, kind: str, payload: bytes) -> None:
        self.heard.append((kind, json.loads(payload)))


def test_telemetry_comes_as_often_as_set_and_at_once_to_a_broker_that_comes_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, bus = 1000.0, Bus()
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    outlets = Outlets(bus, None, None, None, 30.0)

    def heard_after(passed_s: float) -> int:
        nonlocal now_s
        now_s += passed_s
        before = len(bus.heard)
        outlets.tick(lambda: {"run_id": "r"})
        return len(bus.heard) - before

    assert heard_after(1.0) == 0, "nobody is there"
    bus.connected = True
    assert [heard_after(passed_s) for passed_s in (1.0, 1.0, 27.0, 1.0, 1.0)] == [1, 0, 0, 0, 1]
    bus.connected = False
    assert heard_after(60.0) == 0
    bus.connected = True
    assert [heard_after(passed_s) for passed_s in (0.1, 0.1)] == [1, 0]
    kind, message = bus.heard[-1]
    assert (kind, message["type"], message["run_id"]) == ("telemetry", "telemetry", "r")
