"""Somebody who sends commands to a running instance and waits for the answers."""

import itertools
import json
from typing import Any

from tests.brokers import Listener
from tests.instances import LIMIT_S, until


class Operator:
    """Speaks with one instance over a listener's connection."""

    def __init__(self, listener: Listener, instance_id: str) -> None:
        self.listener = listener
        self.control = f"care/control/{instance_id}"
        self.health = f"care/health/{instance_id}"
        self.inferences = f"care/inferences/{instance_id}/person_detection"
        self._numbers = itertools.count()

    def send(self, command: str, request_id: str | None = None, **params: Any) -> str:
        """Send a command without waiting; return its request id."""
        name = request_id or f"r{next(self._numbers)}"
        request = {"command": command, "params": params, "request_id": name}
        self.listener.publish(self.control, json.dumps(request).encode())
        return name

    def answers(self, request_id: str | None) -> list[dict[str, Any]]:
        """Return the answers to a request so far."""
        heard = self.listener.payloads(self.health)
        return [answer for answer in heard if "command_ack" in answer and answer["request_id"] == request_id]

    def answer(self, request_id: str | None, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """Wait for the answer to a request."""
        found: list[dict[str, Any]] = until(lambda: self.answers(request_id), f"an answer to {request_id}", limit_s)
        return found[0]

    def ask(self, command: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        return self.answer(self.send(command, **params))

    def do(self, command: str, **params: Any) -> dict[str, Any]:
        """Send a command that must succeed and return its data."""
        answer = self.ask(command, **params)
        assert answer["status"] in {"success", "paused"}, answer
        data: dict[str, Any] = answer["data"]
        return data

    def status(self) -> dict[str, Any]:
        """Return what `get_status` answers."""
        return self.do("get_status")

    def stream(self, stream_id: str = "cam0") -> dict[str, Any]:
        """Return the state of one stream."""
        return next(stream for stream in self.status()["streams"] if stream["stream_id"] == stream_id)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of one name so far."""
        return [event for event in self.listener.payloads(self.health) if event.get("event") == name]

    def results(self, stream_id: str = "cam0") -> list[dict[str, Any]]:
        """Return the results of a stream so far."""
        return [result for result in self.listener.payloads(self.inferences) if result["stream_id"] == stream_id]

    def await_more(self, count: int, stream_id: str = "cam0") -> list[dict[str, Any]]:
        """Wait for so many results from now on, and return them."""
        seen = len(self.results(stream_id))
        until(lambda: len(self.results(stream_id)) >= seen + count, f"{count} results of {stream_id}")
        return self.results(stream_id)[seen:]


def balanced(stream: dict[str, Any]) -> bool:
    """Return whether every captured frame of a stream is accounted for."""
    lost = sum(stream["dropped"].values())
    return bool(stream["captured"] == stream["completed"] + stream["in_flight"] + lost)
