"""Fixtures of the tests that need a broker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.mosquitto import Mosquitto
from tests.brokers import Broker, Embedded

Find = Callable[[str, str], str]


@pytest.fixture
def mosquitto(program: Find, tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto that lets everybody in."""
    with Mosquitto(program("mosquitto", "mosquitto"), tmp_path) as running:
        yield running


@pytest.fixture(params=["mosquitto", "embedded"])
def absent_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Both brokers in turn, not started yet."""
    broker: Mosquitto | Embedded
    if request.param == "mosquitto":
        find: Find = request.getfixturevalue("program")
        broker = Mosquitto(find("mosquitto", "mosquitto"), tmp_path)
    else:
        broker = Embedded()
    yield broker
    broker.kill()


@pytest.fixture
def broker(absent_broker: Broker) -> Broker:
    """Both brokers in turn, running."""
    absent_broker.start()
    return absent_broker
