"""Requests are read, checked and refused with the reason; nothing that arrives breaks the parser."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orion.config import Config
from orion.control import PAYLOAD_LIMIT, Done, Refused, RefusedError, Request, acknowledgement, check, read
from orion.requests import SCHEMAS, NoParams, RateParams


def parsed(payload: bytes, forbidden: frozenset[str] = frozenset()) -> Request:
    return check(read(payload, len(payload)), forbidden)


def refusal(payload: bytes, forbidden: frozenset[str] = frozenset()) -> Refused:
    with pytest.raises(RefusedError) as caught:
        parsed(payload, forbidden)
    return caught.value.refused


@pytest.mark.parametrize("params", [', "params": {}', "", ', "params": null', ', "sent_by": "a dashboard"'])
def test_a_request_is_understood(params: str) -> None:
    payload = b'{"command": "get_status", "request_id": "a1"%s}' % params.encode()
    assert parsed(payload) == Request("get_status", "a1", NoParams())


def test_parameters_are_values() -> None:
    request = parsed(b'{"command": "set_inference_rate", "params": {"rate_hz": 2, "stream_id": "cam0"}}')
    assert request.params == RateParams(rate_hz=2.0, stream_id="cam0")


@pytest.mark.parametrize(
    ("payload", "code", "error"),
    [
        (b"", "invalid_json", "not JSON"),
        (b"{", "invalid_json", "not JSON"),
        (b"\xff\xfe{}", "invalid_json", "not JSON"),
        (b'{"command": "\xff"}', "invalid_json", "not JSON"),
        (b"[1]", "invalid_json", "an object, not list"),
        (b'{"command": NaN}', "invalid_json", "no JSON number"),
        (b'{"command": 1e999}', "invalid_json", "too large"),
        (b'{"command": 1%s}' % (b"0" * 5000), "invalid_json", "not JSON"),
        (b'{"command": "get_status", "command": "shutdown"}', "invalid_json", "given twice"),
        (b"[" * 60_000, "invalid_json", "nested"),
        (b'{"params": %s1%s}' % (b"[" * 40, b"]" * 40), "invalid_json", "nested deeper than 32"),
        (b"{}", "unknown_command", "command: one of"),
        (b'{"command": 5}', "unknown_command", "command: one of"),
        (b'{"command": "reboot"}', "unknown_command", "command: one of"),
        (b'{"command": "get_status", "params": []}', "invalid_params", "params: must be an object"),
        (b'{"command": "get_status", "params": {"x": 1}}', "invalid_params", "params.x: unknown"),
        (b'{"command": "get_status", "request_id": 7}', "invalid_params", "request_id"),
        (b'{"command": "shutdown"}', "forbidden", "control.forbid"),
        (b'{"command": "update_config", "config": {"a": 1}, "params": {"config": {}}}', "invalid_params", "twice"),
    ],
)
def test_what_cannot_be_executed_is_refused(payload: bytes, code: str, error: str) -> None:
    refused = refusal(payload, frozenset({"shutdown"}))
    assert refused.code == code
    assert error in refused.error


def test_a_request_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(RefusedError, match="65537 bytes, more than 65536"):
        read(b"", PAYLOAD_LIMIT + 1)


def test_the_same_request_has_the_same_digest_however_it_is_spelled() -> None:
    one = read(b'{"command": "a", "params": {"x": 1, "y": 2}, "request_id": "1"}', 10)
    same = read(b'{"params": {"y": 2,"x": 1}, "request_id": "2", "command": "a"}', 10)
    other = read(b'{"command": "a", "params": {"x": 1, "y": 3}, "request_id": "1"}', 10)
    assert one.digest == same.digest != other.digest


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_or_understood(payload: bytes) -> None:
    with suppress(RefusedError):
        assert parsed(payload).command in SCHEMAS


def test_answers_have_the_fields_of_the_protocol() -> None:
    good = acknowledgement("get_status", "a1", Done({"running": True}), "orion", "now")
    assert good == {
        "command_ack": "get_status",
        "status": "success",
        "data": {"running": True},
        "request_id": "a1",
        "instance_id": "orion",
        "timestamp": "now",
    }
    bad = acknowledgement("x", None, Refused("unknown_command", "why"), "orion", "now")
    assert bad == {
        "command_ack": "x",
        "status": "error",
        "error": "why",
        "code": "unknown_command",
        "request_id": None,
        "instance_id": "orion",
        "timestamp": "now",
    }


def wrong(command: str, params: Any) -> str:
    return refusal(json.dumps({"command": command, "params": params}).encode()).error


BOX = {"x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5}


@pytest.mark.parametrize(
    ("command", "params", "error"),
    [
        ("set_inference_rate", {}, "params.rate_hz: is missing"),
        ("set_inference_rate", {"rate_hz": 0}, "params.rate_hz: should be greater than 0"),
        ("set_inference_rate", {"rate_hz": 61}, "params.rate_hz: should be less than or equal to 60"),
        ("set_inference_rate", {"rate_hz": "2"}, "params.rate_hz: should be a valid number"),
        ("set_inference_rate", {"rate_hz": True}, "params.rate_hz: should be a valid number"),
        ("set_inference_rate", {"rate_hz": 1, "stream_id": "../x"}, "params.stream_id: should be lower-case letters"),
        ("set_model_size", {"size": "../../etc/passwd"}, "params.size: should be 'n', 's', 'm', 'l' or 'x'"),
        ("set_model_size", {"size": ["n"]}, "params.size: should be"),
        ("set_attention_rois", {"rois": []}, "params.rois: "),
        ("set_attention_rois", {"rois": [BOX] * 17}, "params.rois: "),
        ("set_attention_rois", {"rois": [BOX | {"width": 0}]}, "params.rois.0.width: should be greater than 0"),
        ("set_attention_rois", {"rois": [BOX | {"x": 1, "width": 1e-10}]}, "params.rois.0.x: should be less than 1"),
        ("set_attention_rois", {"rois": [BOX | {"y": 1, "height": 1e-10}]}, "params.rois.0.y: should be less than 1"),
        ("set_attention_rois", {"rois": [BOX, BOX | {"x": 0.6}]}, "params.rois.1: must lie inside the frame"),
        ("set_attention_rois", {"rois": [BOX | {"z": 1}]}, "params.rois.0.z: unknown; known are x, y, width, height"),
        ("set_auto_focus_strategy", {"strategy": "magic"}, "params.strategy: should be"),
        ("set_auto_focus_strategy", {"strategy": "simple", "alpha": 1.5}, "params.alpha: should be less than"),
        ("update_config", {"config": {}}, "params.config: "),
        ("update_config", {"config": []}, "params.config: "),
        ("restart_worker", {}, "params.worker_id: is missing"),
        ("shutdown", {"now": True}, "params.now: unknown; known are none"),
    ],
)
def test_a_wrong_parameter_is_named(command: str, params: Any, error: str) -> None:
    assert error in wrong(command, params)


def test_every_command_of_the_configuration_has_a_schema() -> None:
    forbid = Config.model_json_schema()["$defs"]["ControlConfig"]["properties"]["forbid"]["items"]["enum"]
    assert set(forbid) == set(SCHEMAS)
