from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orion.errors import EXIT_USAGE, ConfigError
from orion.source import StreamClock
from orion.sources import make_source


def times(fps: float | None, positions: list[float]) -> list[float]:
    clock = StreamClock(fps)
    found = []
    for position_s in positions:
        clock.advance(position_s)
        assert clock.time_s is not None
        found.append(clock.time_s)
    return found


def test_positions_are_kept_where_they_make_sense() -> None:
    assert times(10, [0.0, 0.04, 0.5, 3.0]) == [0.0, 0.04, 0.5, 3.0]


@pytest.mark.parametrize(
    "positions",
    [[0.0, 0.0, 0.0], [0.0, -5.0, -5.0], [0.0, 3600.0, 7200.0], [9.0, 5.0, 1.0], [-0.2, 0.0, -0.1]],
    ids=["none", "negative", "jumps ahead", "backwards", "starts below zero"],
)
def test_positions_that_make_no_sense_count_as_one_period(positions: list[float]) -> None:
    assert times(10, positions) == pytest.approx([0.0, 0.1, 0.2])


def test_without_a_rate_the_usual_one_is_taken() -> None:
    assert times(None, [0.0, 0.0]) == [0.0, 0.04]


@given(st.lists(st.floats(-1e9, 1e9), min_size=2))
def test_time_always_grows(positions: list[float]) -> None:
    found = times(12.5, positions)
    assert found[0] == 0
    assert all(later > earlier for earlier, later in pairwise(found))


def test_nothing_was_read_so_there_is_no_time() -> None:
    assert StreamClock(10).time_s is None


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("demo", "demo"),
        ("demo:320x240@5", "demo"),
        (__file__, "file"),
        ("rtsp://cam/stream", "network"),
        ("RTSP://cam/stream", "network"),
        ("https://cam/stream", "network"),
        ("0", "device"),
        ("12", "device"),
    ],
)
def test_the_address_tells_the_kind(uri: str, kind: str) -> None:
    assert make_source(uri).kind == kind


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("", "no such file"),
        ("nowhere.mp4", "no such file"),
        ("nul\0byte", "no such file"),
        ("-1", "no such file"),
        ("ftp://user:hunter2@cam/", "unknown scheme ftp://"),
        ("file:///etc/hostname", "unknown scheme file://"),
        ("rtsp://", "the address must read"),
        ("rtsp://user:hunter2@cam:port/", "the address must read"),
        ("demo:0x0@0", "demo"),
        ("demo:big", "demo"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_without_its_secrets(uri: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as refusal:
        make_source(uri)
    assert refusal.value.exit_code == EXIT_USAGE
    assert "hunter2" not in str(refusal.value)
