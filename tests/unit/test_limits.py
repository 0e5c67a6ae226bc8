"""How long a worker may take, as plain numbers from measured times."""

import pytest
from msgspec.structs import replace

from orion.limits import Limits
from orion.messages import DetectorInfo, SessionInfo

SESSION = SessionInfo("none", "0" * 64, 640, "cpu", 1.0, 20.0)
INFO = DetectorInfo("yolo11n", "n", (SESSION, replace(SESSION, size=320, warm_ms=5.0)), 4.0, ((0, "person"),))


@pytest.mark.parametrize(("warm_ms", "expected_s"), [(20.0, 1.5), (150.0, 1.5), (400.0, 4.0)])
def test_a_frame_may_take_ten_times_the_larger_sessions_warm_up(warm_ms: float, expected_s: float) -> None:
    info = replace(INFO, sessions=(replace(SESSION, warm_ms=warm_ms), INFO.sessions[1]))
    assert Limits().frame_deadline_s(info) == pytest.approx(expected_s)
    assert Limits(frame_s=0.2).frame_deadline_s(info) == 0.2


def test_a_first_start_may_take_a_minute_or_what_was_set() -> None:
    assert [Limits().start_limit_s(None, late) for late in (0, 3)] == [60.0, 60.0]
    assert [Limits(start_s=300).start_limit_s(*known) for known in ((None, 0), (40.0, 0), (0.3, 0))] == [300, 240, 2.5]


@pytest.mark.parametrize(
    ("longest_s", "late", "expected_s"),
    [(0.3, 0, 2.5), (0.3, 1, 5.0), (0.3, 2, 10.0), (2.0, 0, 12.0), (2.0, 2, 48.0), (2.0, 9, 60.0), (30.0, 0, 60.0)],
)
def test_later_starts_go_by_the_longest_one_and_get_more_after_each_late_one(
    longest_s: float, late: int, expected_s: float
) -> None:
    assert Limits().start_limit_s(longest_s, late) == pytest.approx(expected_s)
