"""Which worker serves which stream, and whose turn it is."""

from dataclasses import dataclass

import pytest

from orion.dispatch import assign, levelled, next_stream, shares


@dataclass
class Waiting:
    served: int
    wants_worker: bool


@pytest.mark.parametrize(
    ("cores", "streams", "count", "threads", "expected"),
    [
        (2, 1, None, None, (1, 2)),
        (2, 2, None, None, (2, 1)),
        (2, 5, None, None, (2, 1)),
        (8, 2, None, None, (2, 4)),
        (1, 3, None, None, (1, 1)),
        (8, 2, 1, None, (1, 8)),
        (8, 2, None, 1, (2, 1)),
        (2, 1, 4, 3, (4, 3)),
    ],
)
def test_cores_are_shared_out(
    cores: int, streams: int, count: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    assert shares(cores, streams, count, threads) == expected


def test_streams_are_spread_and_stay_where_they_are() -> None:
    first = assign(["a", "b", "c"], ["w0", "w1"], {})
    assert sorted(first.values()) == ["w0", "w0", "w1"]
    assert assign(["a", "b", "c"], ["w0", "w1"], first) == first


def test_the_streams_of_a_lost_worker_move_and_the_others_do_not() -> None:
    moved = assign(["a", "b", "c"], ["w1", "w2"], {"a": "w0", "b": "w1", "c": "w0"})
    assert moved == {"b": "w1", "a": "w2", "c": "w1"}
    assert assign(["a"], [], {"a": "w0"}) == {}


def test_a_worker_that_is_ready_gets_streams_of_the_fullest() -> None:
    present = dict.fromkeys("abcd", "w1")
    assert levelled(present, ["w0", "w1"], set()) == {"a": "w0", "b": "w0"}
    assert levelled(present, ["w0", "w1", "w2"], set()) == {"a": "w0", "b": "w2"}
    assert levelled(present, ["w0"], {"a", "b"}) == {"c": "w0", "d": "w0"}, "also when the full one is not ready"
    assert levelled(present, ["w0", "w1"], set("abcd")) == {}
    assert levelled(present | {"c": "w2", "d": "w2"}, ["w0", "w1", "w2"], {"a", "b"}) == {"c": "w0"}


def test_nothing_moves_for_a_difference_of_one_or_to_a_worker_that_is_not_ready() -> None:
    assert levelled({"a": "w0", "b": "w1", "c": "w1"}, ["w0", "w1"], set()) == {}
    assert levelled({"a": "w1", "b": "w1"}, ["w1"], set()) == {}
    assert levelled({"a": "w1", "b": "w1"}, [], set()) == {}


def test_the_least_recently_served_is_next() -> None:
    streams = [Waiting(5, True), Waiting(2, False), Waiting(3, True)]
    assert next_stream(streams) is streams[2]
    assert next_stream([Waiting(0, False)]) is None
