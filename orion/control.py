"""The control protocol without any I/O: from the bytes of a request to a command that may be executed, or to the
refusal that says why not, and the form of an answer. Pure; the supervisor's thread executes.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from orion import requests
from orion.requests import Params

PAYLOAD_LIMIT = 64 * 1024
"""Largest request in bytes."""
_REQUEST_ID_LIMIT = 200
_DEPTH_LIMIT = 32

Code = Literal["invalid_json", "unknown_command", "invalid_params", "not_found", "busy", "failed", "forbidden"]
UNKNOWN = "unknown"
"""What is acknowledged when no command can be read."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A request that could be read. Two with the same `digest` ask for the same."""

    command: str
    request_id: str | None
    params: Mapping[str, Any]
    digest: bytes
    fault: str = ""
    """What is wrong with its form, if anything."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command that is well formed and allowed."""

    command: str
    request_id: str | None
    params: Params


@dataclass(frozen=True, slots=True)
class Done:
    """A command was executed; what it answers."""

    data: Mapping[str, Any]
    status: Literal["success", "paused"] = "success"


@dataclass(frozen=True, slots=True)
class Refused:
    """A command was not executed, and nothing was changed."""

    code: Code
    error: str
    data: Mapping[str, Any] = field(default_factory=dict)


Outcome = Done | Refused


class RefusedError(Exception):
    """Carries a refusal out of a calculation."""

    def __init__(self, code: Code, error: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(error)
        self.refused = Refused(code, error, data or {})


def read(payload: bytes, size: int) -> Envelope:
    """Read a request: JSON `{"command", "params", "request_id"}`. Raises RefusedError if it cannot be read.

    `size` is what arrived, in bytes; the payload of one that is too large may be cut. `update_config` may have its
    `config` beside `params`.
    """
    if size > PAYLOAD_LIMIT:
        raise RefusedError("invalid_json", f"the request has {size} bytes, more than {PAYLOAD_LIMIT}")
    try:
        request = json.loads(
            payload, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_without_repetition
        )
    except (ValueError, RecursionError) as error:
        raise RefusedError("invalid_json", f"not JSON: {_brief(error)}") from None
    if not isinstance(request, dict):
        raise RefusedError("invalid_json", f"a request is an object, not {type(request).__name__}")
    if _depth(request) > _DEPTH_LIMIT:
        raise RefusedError("invalid_json", f"nested deeper than {_DEPTH_LIMIT}")
    return _envelope(request)


def _envelope(request: dict[str, Any]) -> Envelope:
    named = request.get("command")
    command = named[:100] if isinstance(named, str) else UNKNOWN
    request_id = request.pop("request_id", None)
    digest = hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16).digest()
    if request_id is not None and not (isinstance(request_id, str) and len(request_id) <= _REQUEST_ID_LIMIT):
        fault = f"request_id: a string of at most {_REQUEST_ID_LIMIT} characters"
        return Envelope(command, None, {}, digest, fault)
    params = request.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        return Envelope(command, request_id, {}, digest, "params: must be an object")
    if command == "update_config" and "config" in request:
        if "config" in params:
            return Envelope(command, request_id, {}, digest, "config: given twice")
        params = {**params, "config": request["config"]}
    return Envelope(command, request_id, params, digest)


def check(envelope: Envelope, forbidden: Collection[str]) -> Request:
    """Return the command that may be executed. Raises RefusedError; `forbidden` are commands that the configuration
    bars.
    """
    command = envelope.command
    if command not in requests.SCHEMAS:
        raise RefusedError("unknown_command", f"command: one of {', '.join(requests.SCHEMAS)}")
    if command in forbidden:
        raise RefusedError("forbidden", f"{command} is forbidden by control.forbid")
    if envelope.fault:
        raise RefusedError("invalid_params", envelope.fault)
    try:
        return Request(command, envelope.request_id, requests.check(command, envelope.params))
    except ValueError as error:
        raise RefusedError("invalid_params", str(error)) from None


def acknowledgement(
    command: str, request_id: str | None, outcome: Outcome, instance_id: str, now: str
) -> dict[str, Any]:
    """Return the answer to a request as it is published."""
    answer: dict[str, Any] = {"command_ack": command}
    match outcome:
        case Done(data=data, status=status):
            answer |= {"status": status, "data": dict(data)}
        case Refused(code=code, error=error, data=data):
            answer |= {"status": "error", "error": error, "code": code}
            answer |= {"data": dict(data)} if data else {}
    return answer | {"request_id": request_id, "instance_id": instance_id, "timestamp": now}


def _depth(value: object) -> int:
    """Return how deep a value is nested, without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        level = inner
    return depth


def _brief(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
