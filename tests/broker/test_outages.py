"""Results and outages: brokers that die, stop, flap and come late, publishers that die, disks that are full."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Self

import pytest

from benchmarks.mosquitto import Mosquitto
from orion.delivery import STORE_AT
from orion.outbox import Outbox
from tests.brokers import RESULTS, Broker, Embedded, Listener, Station, settings, wait_until
from tests.conftest import missing

REPOSITORY = Path(__file__).resolve().parents[2]
REPLAY_DELAY_S = 3.0
"""Much longer than a listener takes to come back, which is one second on a machine with nothing else to do."""

Find = Callable[[str, str], str]


class Stream:
    """Publishes numbered results at a steady pace from a thread of its own."""

    def __init__(self, station: Station, period_s: float = 0.01) -> None:
        self.published = 0
        self.slowest_s = 0.0
        self._station = station
        self._period_s = period_s
        self._over = threading.Event()
        self._flows = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="stream")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Publish nothing more. Twice is once."""
        self._over.set()
        self._thread.join(10.0)

    def held(self) -> threading.Lock:
        """Return the context in which nothing is published."""
        return self._flows

    def wait_for_more(self, more: int) -> None:
        goal = self.published + more
        wait_until(lambda: self.published >= goal, f"{more} more results are published")

    def _run(self) -> None:
        for number in count():
            with self._flows:
                begun = time.monotonic()
                self._station.publish_results([number])
                self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
                self.published = number + 1
            if self._over.wait(self._period_s):
                return


def _arrived(listener: Listener) -> int:
    return len({result["frame_seq"] for result in listener.payloads(RESULTS)})


def _kill(broker: Broker, stream: Stream, station: Station, listener: Listener, outbox: Path) -> None:
    """Kill the broker, wherever the results are. The embedded one acknowledges a result before it passes it on, and
    takes what lies between with it: it first gets the time for that, while no results come.
    """
    if not isinstance(broker, Embedded):
        broker.kill()
        return
    with stream.held():
        wait_until(lambda: outbox.exists() or station.bus.stats.results.acknowledged == stream.published, "all is safe")
        wait_until(lambda: _arrived(listener) == station.bus.stats.results.acknowledged, "nothing is in the broker")
        broker.kill()


def _check_all_arrived(listener: Listener, published: int) -> None:
    wait_until(lambda: _arrived(listener) == published, "all arrive", 20.0)
    results = listener.payloads(RESULTS)
    first_seen = list(dict.fromkeys(result["frame_seq"] for result in results))
    assert first_seen == list(range(published)), "in order, repetitions apart"
    assert all(result["trace_id"] == f"t{result['frame_seq']}" for result in results)


@pytest.fixture
def outbox_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox.sqlite3"


def test_nothing_is_written_while_all_is_well(broker: Broker, outbox_path: Path) -> None:
    with Listener(broker.port) as listener:
        with Station(settings(broker.port, replay_delay_s=REPLAY_DELAY_S), Outbox(outbox_path, 1000)) as station:
            station.wait_connected()
            with Stream(station) as stream:
                stream.wait_for_more(150)
            _check_all_arrived(listener, stream.published)
        assert station.bus.stats.results.stored == 0
        assert not outbox_path.parent.exists()


def test_broker_killed_and_restarted(broker: Broker, outbox_path: Path) -> None:
    where = settings(broker.port, replay_delay_s=REPLAY_DELAY_S)
    with Listener(broker.port) as listener, Station(where, Outbox(outbox_path, 10_000)) as station:
        station.wait_connected()
        with Stream(station) as stream:
            stream.wait_for_more(20)
            wait_until(lambda: station.bus.stats.acknowledged, "the first results are acknowledged")
            _kill(broker, stream, station, listener, outbox_path)
            wait_until(lambda: station.bus.stats.results.stored > STORE_AT, "results go to the outbox")
            assert outbox_path.exists()
            broker.start()
            station.wait_connected()
            back_at = stream.published
            wait_until(lambda: not outbox_path.exists(), "the file goes with its last message")
            stream.wait_for_more(20)
        _check_all_arrived(listener, stream.published)
        marked = [result["frame_seq"] for result in listener.payloads(RESULTS) if result.get("replayed")]
        assert stream.slowest_s < 0.5
        assert len(marked) > STORE_AT
        assert back_at in marked, "what comes while the outbox waits goes behind it"
        assert "replayed" not in listener.payloads(RESULTS)[0]
        assert "replayed" not in listener.payloads(RESULTS)[-1]
        assert not outbox_path.exists()
        assert station.bus.stats.dropped == 0


def test_broker_that_comes_and_goes(broker: Broker, outbox_path: Path) -> None:
    where = settings(broker.port, replay_delay_s=REPLAY_DELAY_S)
    with Listener(broker.port) as listener, Station(where, Outbox(outbox_path, 10_000)) as station:
        station.wait_connected()
        with Stream(station) as stream:
            for _ in range(3):
                stream.wait_for_more(30)
                _kill(broker, stream, station, listener, outbox_path)
                stream.wait_for_more(30)
                broker.start()
            station.wait_connected()
            wait_until(lambda: not outbox_path.exists(), "the file goes with its last message", 20.0)
        _check_all_arrived(listener, stream.published)


def test_broker_that_stops_and_goes_on(mosquitto: Mosquitto, outbox_path: Path) -> None:
    with Listener(mosquitto.port) as listener:
        with Station(settings(mosquitto.port), Outbox(outbox_path, 10_000)) as station:
            station.wait_connected()
            with Stream(station) as stream:
                stream.wait_for_more(20)
                mosquitto.freeze()
                stream.wait_for_more(200)
                wait_until(lambda: station.bus.stats.results.stored > STORE_AT, "results go to the outbox")
                mosquitto.thaw()
                stream.wait_for_more(50)
            _check_all_arrived(listener, stream.published)
            assert stream.slowest_s < 0.5
        assert not outbox_path.exists()


def test_broker_that_refuses_us_and_then_lets_us_in(program: Find, outbox_path: Path, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"

    def admit(password: str) -> None:
        command = [program("mosquitto_passwd", "mosquitto"), "-b", "-c", str(passwords), "anna", password]
        subprocess.run(command, check=True, capture_output=True)
        passwords.chmod(0o644)

    admit("another")
    config = ("allow_anonymous false", f"password_file {passwords}")
    with Mosquitto(program("mosquitto", "mosquitto"), tmp_path, config) as refusing:
        where = settings(refusing.port, username="anna", password="geheim", replay_delay_s=REPLAY_DELAY_S)
        with Station(where, Outbox(outbox_path, 10_000)) as station, Stream(station) as stream:
            wait_until(lambda: station.told("refused"), "the refusal is told")
            wait_until(lambda: station.bus.stats.results.stored > STORE_AT, "results go to the outbox")
            refusing.kill()
            admit("geheim")
            refusing.start()
            with Listener(refusing.port, login=("anna", "geheim")) as listener:
                station.wait_connected()
                stream.wait_for_more(20)
                stream.end()
                _check_all_arrived(listener, stream.published)


def test_what_cannot_be_sent_waits_for_the_next_start(absent_broker: Broker, outbox_path: Path) -> None:
    with Station(settings(absent_broker.port), Outbox(outbox_path, 10_000)) as station:
        station.publish_results(range(100))
    assert station.bus.stats.results.held == 100
    assert outbox_path.exists()
    absent_broker.start()
    with (
        Listener(absent_broker.port) as listener,
        Station(settings(absent_broker.port, "run-2"), Outbox(outbox_path, 10_000)) as later,
    ):
        later.publish_results(range(100, 110))
        _check_all_arrived(listener, 110)
        assert all(result.get("replayed") for result in listener.payloads(RESULTS)[:100])
    assert not outbox_path.exists()


def test_the_oldest_are_given_up_beyond_the_bound(absent_broker: Broker, outbox_path: Path) -> None:
    with Station(settings(absent_broker.port), Outbox(outbox_path, 100)) as station:
        station.publish_results(range(400))
        wait_until(lambda: station.bus.stats.results.stored == 400, "all went to the outbox")
        assert station.bus.stats.results.overflowed == 300
        wait_until(lambda: station.told("outbox_overflow"), "the loss is told")
        absent_broker.start()
        # No listener was there when replay began: wait for the acknowledgements alone.
        wait_until(lambda: station.bus.stats.acknowledged == 100, "the rest is delivered")
    assert sum(event.count for event in station.told("outbox_overflow")) <= 300


@contextmanager
def _publisher(*arguments: str, prefix: tuple[str, ...] = ()) -> Iterator["subprocess.Popen[str]"]:
    command = [*prefix, sys.executable, "-m", "tests.broker.publisher", *arguments]
    child = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with child:
        try:
            yield child
        finally:
            child.kill()


def _read_until(child: "subprocess.Popen[str]", number: int) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= number:
            return


def test_publisher_killed_during_an_outage(mosquitto: Mosquitto, outbox_path: Path) -> None:
    with _publisher(str(mosquitto.port), "--outbox", str(outbox_path), "--period", "0.01") as child:
        _read_until(child, 50)
        mosquitto.kill()
        _read_until(child, 250)
        child.send_signal(signal.SIGKILL)
        assert child.stdout is not None
        last = [250, *map(int, child.stdout.read().split())][-1]
    mosquitto.start()
    where = settings(mosquitto.port, replay_delay_s=0.5)
    with Listener(mosquitto.port) as listener, Station(where, Outbox(outbox_path, 10_000)) as station:
        wait_until(lambda: station.bus.stats.acknowledged, "the replay begins")
        wait_until(lambda: station.bus.stats.results.held == 0, "the replay is over")
        wait_until(lambda: len(listener.payloads(RESULTS)) >= station.bus.stats.acknowledged, "all arrive")
        replayed = listener.payloads(RESULTS)
    numbers = [result["frame_seq"] for result in replayed]
    assert all(result["replayed"] for result in replayed)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[0] <= 51, "the first result after the broker died is there"
    assert last - numbers[-1] < STORE_AT
    assert not outbox_path.exists()


def test_full_disk_stops_nothing(mosquitto: Mosquitto, program: Find, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root, to mount a small file system")
    unshare = program("unshare", "util-linux")
    mosquitto.kill()
    small = tmp_path / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=256k tmpfs {small} && exec "$@"'
    prefix = (unshare, "--mount", "sh", "-c", script, "sh")
    arguments = (str(mosquitto.port), "--outbox", str(small / "outbox.sqlite3"), "--size", "2000", "--period", "0.005")
    with _publisher(*arguments, prefix=prefix) as child:
        assert child.stderr is not None
        heard: list[str] = []
        while not heard or not heard[-1].startswith("outbox_failed"):
            heard.append(child.stderr.readline())
            assert heard[-1], f"the publisher ended: {heard}"
        assert "full" in heard[-1]
        mosquitto.start()
        # The first result of all must arrive, and what is published long after the disk was full.
        with Listener(mosquitto.port) as listener:
            threading.Thread(target=child.stdout.read, name="drain", daemon=True).start()  # type: ignore[union-attr]
            wait_until(lambda: len(listener.payloads(RESULTS)) > 1000, "results go on", 30.0)
    results = listener.payloads(RESULTS)
    first_seen = list(dict.fromkeys(result["frame_seq"] for result in results))
    assert first_seen == list(range(first_seen[0], first_seen[-1] + 1))
    assert any("replayed" not in result for result in results), "the live ones get through again"
