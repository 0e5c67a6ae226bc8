"""Requests are understood or refused with the reason; nothing that arrives breaks the parser."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orion.control import PAYLOAD_LIMIT, Refusal, Request, acknowledgement, parse

IDENTITY = {"instance_id": "orion"}


def parsed(request: Any, forbidden: frozenset[str] = frozenset()) -> Request | Refusal:
    payload = json.dumps(request).encode()
    return parse(payload, len(payload), forbidden)


def test_a_request_is_understood() -> None:
    expected = Request("get_status", "a1")
    assert parsed({"command": "get_status", "params": {}, "request_id": "a1"}) == expected
    assert parsed({"command": "get_status", "request_id": "a1"}) == expected
    assert parsed({"command": "get_status", "params": None, "request_id": "a1"}) == expected


@pytest.mark.parametrize(
    ("payload", "command", "code", "error"),
    [
        (b"", "unknown", "invalid_json", "not JSON"),
        (b"{", "unknown", "invalid_json", "not JSON"),
        (b"\xff\xfe{}", "unknown", "invalid_json", "not JSON"),
        (b"[1]", "unknown", "invalid_json", "an object, not list"),
        (b'{"command": NaN}', "unknown", "invalid_json", "no JSON number"),
        (b"[" * 60_000, "unknown", "invalid_json", "not JSON"),
        (b"{}", "unknown", "unknown_command", "command: one of"),
        (b'{"command": 5}', "unknown", "unknown_command", "command: one of"),
        (b'{"command": "reboot"}', "reboot", "unknown_command", "command: one of"),
        (b'{"command": "get_status", "params": []}', "get_status", "invalid_params", "params: must be an object"),
        (b'{"command": "get_status", "params": {"x": 1}}', "get_status", "invalid_params", "params.x: unknown"),
        (b'{"command": "get_status", "request_id": 7}', "get_status", "invalid_params", "request_id"),
        (b'{"command": "shutdown"}', "shutdown", "forbidden", "control.forbid"),
    ],
)
def test_what_cannot_be_executed_is_refused(payload: bytes, command: str, code: str, error: str) -> None:
    refusal = parse(payload, len(payload), frozenset({"shutdown"}))
    assert isinstance(refusal, Refusal)
    assert (refusal.command, refusal.code) == (command, code)
    assert error in refusal.error


def test_a_request_that_is_too_large_is_refused_unread() -> None:
    refusal = parse(b"", PAYLOAD_LIMIT + 1, frozenset())
    assert isinstance(refusal, Refusal)
    assert "65537 bytes, more than 65536" in refusal.error


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused(payload: bytes) -> None:
    assert isinstance(parse(payload, len(payload), frozenset()), Refusal)


def test_answers_have_the_fields_of_the_protocol() -> None:
    good = acknowledgement(Request("get_status", "a1"), IDENTITY, "now", {"running": True})
    assert good == {
        "command_ack": "get_status",
        "status": "success",
        "data": {"running": True},
        "request_id": "a1",
        "instance_id": "orion",
        "timestamp": "now",
    }
    bad = acknowledgement(Refusal("x", None, "unknown_command", "why"), IDENTITY, "now")
    assert (bad["status"], bad["code"], bad["error"], bad["request_id"]) == ("error", "unknown_command", "why", None)
