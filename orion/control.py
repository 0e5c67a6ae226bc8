"""The control protocol without any I/O: from the bytes of a request to a command that may be executed, or to the
refusal that says why not, and the form of an answer. Pure; the supervisor's thread executes.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PAYLOAD_LIMIT = 64 * 1024
"""Largest request in bytes."""
_REQUEST_ID_LIMIT = 200

Code = Literal["invalid_json", "unknown_command", "invalid_params", "not_found", "busy", "failed", "forbidden"]
COMMANDS: Mapping[str, frozenset[str]] = {"get_status": frozenset(), "shutdown": frozenset()}
"""Every command with the names of its parameters."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command that is well formed and allowed."""

    command: str
    request_id: str | None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not executed; nothing was changed."""

    command: str
    request_id: str | None
    code: Code
    error: str


def parse(payload: bytes, size: int, forbidden: Collection[str]) -> Request | Refusal:
    """Read a request: JSON `{"command", "params", "request_id"}`.

    `size` is what arrived, in bytes; the payload of one that is too large may be cut. `forbidden` are the commands that
    the configuration bars.
    """
    if size > PAYLOAD_LIMIT:
        return _unreadable(f"the request has {size} bytes, more than {PAYLOAD_LIMIT}")
    try:
        request = json.loads(payload, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return _unreadable(f"not JSON: {error}")
    if not isinstance(request, dict):
        return _unreadable(f"a request is an object, not {type(request).__name__}")
    return _check(request, forbidden)


def _check(request: Mapping[str, Any], forbidden: Collection[str]) -> Request | Refusal:
    command, request_id = request.get("command"), request.get("request_id")
    if request_id is not None and not (isinstance(request_id, str) and len(request_id) <= _REQUEST_ID_LIMIT):
        return Refusal(_name(command), None, "invalid_params", "request_id: a string of at most 200 characters")
    if not isinstance(command, str) or command not in COMMANDS:
        known = ", ".join(COMMANDS)
        return Refusal(_name(command), request_id, "unknown_command", f"command: one of {known}")
    params = request.get("params")
    params = {} if params is None else params
    if not isinstance(params, dict):
        return Refusal(command, request_id, "invalid_params", "params: must be an object")
    if unknown := sorted(params.keys() - COMMANDS[command]):
        allowed = ", ".join(sorted(COMMANDS[command])) or "none"
        return Refusal(command, request_id, "invalid_params", f"params.{unknown[0]}: unknown; known are {allowed}")
    if command in forbidden:
        return Refusal(command, request_id, "forbidden", f"{command} is forbidden by control.forbid")
    return Request(command, request_id, params)


def acknowledgement(
    request: Request | Refusal, identity: Mapping[str, str], now: str, data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the answer to a request as it is published."""
    answer: dict[str, Any] = {"command_ack": request.command}
    if isinstance(request, Refusal):
        answer |= {"status": "error", "error": request.error, "code": request.code}
    else:
        answer |= {"status": "success", "data": dict(data or {})}
    return answer | {"request_id": request.request_id, "instance_id": identity["instance_id"], "timestamp": now}


def _unreadable(error: str) -> Refusal:
    return Refusal("unknown", None, "invalid_json", error)


def _name(command: object) -> str:
    return command[:100] if isinstance(command, str) else "unknown"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number" if math.isnan(float(name)) else f"{name} is too large")
