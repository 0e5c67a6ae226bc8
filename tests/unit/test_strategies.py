import pytest

from orion.messages import AttentionSettings, Region
from workers.history import MEMORY_S, History
from workers.strategies import attended, simple, smoothing, velocity

STAY = Region(0.4, 0.4, 0.2, 0.2)
RIGHT = Region(0.5, 0.4, 0.2, 0.2)


def edges(region: Region | None) -> tuple[float, float, float, float]:
    assert region is not None
    return region.x, region.y, region.x + region.width, region.y + region.height


def test_simple_is_the_last_suggestion() -> None:
    assert simple((STAY, RIGHT)) == RIGHT


def test_smoothing_moves_each_edge_by_alpha() -> None:
    assert edges(smoothing((STAY, RIGHT), 0.3)) == pytest.approx((0.43, 0.4, 0.63, 0.6))
    assert edges(smoothing((STAY, RIGHT, RIGHT), 0.3)) == pytest.approx((0.451, 0.4, 0.651, 0.6))
    assert edges(smoothing((STAY, RIGHT), 1.0)) == pytest.approx(edges(RIGHT))


def test_velocity_widens_ahead_and_only_there() -> None:
    assert edges(velocity((STAY, RIGHT), 0.05, 1.5, 0.3)) == pytest.approx((0.5, 0.4, 0.85, 0.6))
    assert edges(velocity((RIGHT, STAY), 0.05, 1.5, 0.3)) == pytest.approx((0.25, 0.4, 0.6, 0.6))


def test_velocity_keeps_to_its_threshold_its_limit_and_the_frame() -> None:
    assert velocity((STAY, RIGHT), 0.1, 1.5, 0.3) == RIGHT
    assert edges(velocity((STAY, RIGHT), 0.05, 9.0, 0.1)) == pytest.approx((0.5, 0.4, 0.8, 0.6))
    assert edges(velocity((STAY, Region(0.7, 0.4, 0.2, 0.2)), 0.05, 2.0, 0.5)) == pytest.approx((0.7, 0.4, 1.0, 0.6))
    assert velocity((RIGHT,), 0.05, 1.5, 0.3) == RIGHT


def test_the_settings_choose_the_strategy_and_how_far_back_it_sees() -> None:
    past = (STAY, STAY, RIGHT)
    assert attended((), AttentionSettings()) is None
    assert attended(past, AttentionSettings()) == RIGHT
    assert edges(attended(past, AttentionSettings(strategy="smoothing", alpha=0.5)))[0] == pytest.approx(0.45)
    assert edges(attended(past, AttentionSettings(strategy="velocity")))[2] == pytest.approx(0.85)
    assert edges(attended(past, AttentionSettings(strategy="smoothing", history_size=1)))[0] == pytest.approx(0.5)


def test_history_keeps_so_many_and_forgets_with_time() -> None:
    history = History()
    for number in range(5):
        history.add(number * 0.1, STAY if number < 4 else RIGHT, size=3)
    assert history.regions == (STAY, STAY, RIGHT)
    assert history.attended(0.4 + MEMORY_S, AttentionSettings()) == RIGHT
    assert history.attended(0.41 + MEMORY_S, AttentionSettings()) is None
