"""Every request leaves with exactly one answer: refused, from memory, or after its turn."""

import json
from typing import Any

import pytest

from orion.control import Done, Refused
from orion.desk import Desk

DONE = Done({"ok": True})


def desk(*forbidden: str) -> Desk:
    return Desk("orion", forbidden, lambda: "now")


def receive(
    at: Desk, command: str = "get_status", request_id: str | None = None, now_s: float = 0.0, **params: Any
) -> Any:
    payload = json.dumps({"command": command, "params": params, "request_id": request_id}).encode()
    return at.receive(payload, len(payload), now_s)


def test_requests_wait_their_turn_and_are_answered_in_order() -> None:
    front = desk()
    assert [receive(front, request_id=name) for name in "abc"] == [None] * 3
    answered = []
    while (request := front.next()) is not None:
        answered += [answer["request_id"] for answer in front.settle(request, DONE, 0.0)]
    assert answered == ["a", "b", "c"]


def test_a_request_without_an_id_is_answered_without_one() -> None:
    front = desk()
    receive(front)
    request = front.next()
    assert request is not None
    assert front.settle(request, DONE, 0.0)[0]["request_id"] is None


def test_the_queue_is_bounded() -> None:
    front = desk()
    answers = [receive(front, request_id=str(number)) for number in range(40)]
    assert answers[:32] == [None] * 32
    assert {answer["code"] for answer in answers[32:]} == {"busy"}
    while (request := front.next()) is not None:
        front.settle(request, DONE, 0.0)
    assert receive(front, request_id="39") is None, "busy is no answer to remember"


def test_requests_that_come_too_fast_are_busy() -> None:
    front = desk("get_status")
    codes = [receive(front)["code"] for _ in range(250)]
    assert codes == ["forbidden"] * 200 + ["busy"] * 50
    assert receive(front, now_s=1.0)["code"] == "forbidden"


def test_a_repeated_request_is_answered_again_for_ten_minutes() -> None:
    front = desk()
    receive(front, request_id="a")
    request = front.next()
    assert request is not None
    answer = front.settle(request, DONE, 0.0)[0]
    assert receive(front, request_id="a", now_s=599.0) == answer
    assert front.next() is None
    assert receive(front, request_id="a", now_s=600.0) is None
    assert front.next() is not None


def test_a_repetition_that_comes_before_the_answer_is_answered_with_it() -> None:
    front = desk()
    assert [receive(front, request_id="a") for _ in range(3)] == [None] * 3
    request = front.next()
    assert request is not None
    assert front.next() is None
    assert len(front.settle(request, DONE, 0.0)) == 3


def test_an_id_belongs_to_its_first_request() -> None:
    front = desk()
    receive(front, request_id="a")
    assert receive(front, "shutdown", "a")["code"] == "invalid_params"
    request = front.next()
    assert request is not None
    answer = front.settle(request, DONE, 0.0)[0]
    assert receive(front, "shutdown", "a")["error"] == "request_id: was used for another request"
    assert receive(front, request_id="a") == answer, "the first answer is still remembered"


def test_refusals_are_remembered_and_busy_is_not() -> None:
    front = desk()
    wrong = receive(front, "set_model_size", "a", size="q")
    assert receive(front, "set_model_size", "a", size="q") == wrong
    receive(front, "set_model_size", "b", size="n")
    request = front.next()
    assert request is not None
    front.settle(request, Refused("busy", "not now"), 0.0)
    assert receive(front, "set_model_size", "b", size="n") is None


def test_memory_is_bounded() -> None:
    front = desk("get_status")
    for number in range(6000):
        receive(front, request_id=str(number), now_s=number / 50)
    assert receive(front, "shutdown", "5999", now_s=121.0)["code"] == "invalid_params"
    assert receive(front, "shutdown", "0", now_s=121.0) is None


@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff"])
def test_what_cannot_be_read_is_answered_as_unknown(payload: bytes) -> None:
    answer = desk().receive(payload, len(payload), 0.0)
    assert answer is not None
    assert (answer["command_ack"], answer["code"], answer["request_id"]) == ("unknown", "invalid_json", None)
