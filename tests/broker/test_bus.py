"""The bus against the embedded broker and a real mosquitto: what goes out, what comes in, and what an outage does."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.mosquitto import HOST, Mosquitto
from orion.bus import PAYLOAD_LIMIT
from tests.brokers import CONTROL, HEALTH, RESULTS, STATUS, TELEMETRY, Broker, Listener, Station, settings, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_kind_arrives_on_its_topic(broker: Broker) -> None:
    with Listener(broker.port) as listener, Station(settings(broker.port)) as station:
        station.wait_connected()
        station.publish_results(range(50))
        station.bus.publish("health", {"event": "ready"})
        station.bus.publish("telemetry", b'{"fps":10}')
        wait_until(lambda: len(listener.payloads(RESULTS)) == 50, "all results arrive")
        wait_until(lambda: listener.payloads(HEALTH) == [{"event": "ready"}], "the event arrives")
        wait_until(lambda: listener.payloads(TELEMETRY) == [{"fps": 10}], "the telemetry arrives")
        results = listener.payloads(RESULTS)
        wait_until(lambda: station.bus.stats.acknowledged == 51, "all are acknowledged")
    assert [result["frame_seq"] for result in results] == list(range(50))
    assert all("replayed" not in result for result in results)
    assert station.bus.stats.dropped == 0


def test_status_is_retained_online_and_then_offline(broker: Broker) -> None:
    with Station(settings(broker.port, status={"room_id": "room-7"})) as station:
        station.wait_connected()
        wait_until(lambda: station.bus.connected, "connected")
        with Listener(broker.port, STATUS) as listener:
            wait_until(lambda: listener.messages, "a retained status")
            wait_until(lambda: listener.payloads(STATUS)[-1]["status"] == "online", "it says online")
            assert listener.payloads(STATUS)[-1]["room_id"] == "room-7"
            assert listener.payloads(STATUS)[-1]["run_id"] == "run-1"
    with Listener(broker.port, STATUS) as late:
        wait_until(lambda: late.messages, "a retained status")
        assert late.messages[0].retain
        assert (late.payloads(STATUS)[0]["status"], late.payloads(STATUS)[0]["reason"]) == ("offline", "stopped")


def test_stopping_delivers_what_was_just_published(broker: Broker) -> None:
    with Listener(broker.port) as listener:
        with Station(settings(broker.port)) as station:
            station.wait_connected()
            station.publish_results(range(300))
        stats = station.bus.stats
        wait_until(lambda: listener.payloads(STATUS)[-1]["status"] == "offline", "offline arrives")
    assert (stats.acknowledged, stats.results.held, stats.dropped) == (300, 0, 0)
    topics = [message.topic for message in listener.messages]
    assert topics.count(RESULTS) == 300
    assert topics[-1] == STATUS, "offline comes after the last result"


def test_last_will_when_the_process_is_killed(broker: Broker) -> None:
    with Listener(broker.port, STATUS) as listener:
        child = subprocess.Popen([sys.executable, "-m", "tests.broker.publisher", str(broker.port)], cwd=REPOSITORY)
        try:
            wait_until(lambda: [s["status"] for s in listener.payloads(STATUS)] == ["online"], "online", 20.0)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        wait_until(lambda: listener.payloads(STATUS)[-1]["status"] == "offline", "the will")
        assert listener.payloads(STATUS)[-1] == {
            "status": "offline",
            "instance_id": "cam",
            "run_id": "run-child",
            "reason": "connection lost",
        }


def test_commands_arrive_as_they_were_sent(broker: Broker) -> None:
    with Listener(broker.port) as operator, Station(settings(broker.port)) as station:
        station.wait_connected()
        operator.publish(CONTROL, b'{"command": "get_status"}')
        operator.publish(CONTROL, b"\xff\xfe not JSON")
        operator.publish(CONTROL, b"x" * PAYLOAD_LIMIT)
        operator.publish(CONTROL, b"x" * (PAYLOAD_LIMIT + 1))
        wait_until(lambda: len(station.commands) == 4, "the commands")
        assert [command.payload for command in station.commands[:2]] == [
            b'{"command": "get_status"}',
            b"\xff\xfe not JSON",
        ]
        assert (station.commands[2].size, station.commands[2].oversized) == (PAYLOAD_LIMIT, False)
        oversized = station.commands[3]
        assert (oversized.payload, oversized.size, oversized.oversized) == (b"", PAYLOAD_LIMIT + 1, True)


def test_retained_commands_are_ignored(broker: Broker) -> None:
    with Listener(broker.port) as operator:
        operator.publish(CONTROL, b'{"command": "shutdown"}', retain=True)
        with Station(settings(broker.port)) as station:
            wait_until(lambda: station.bus.stats.ignored, "the retained command is seen")
            station.wait_connected()
            operator.publish(CONTROL, b'{"command": "get_status"}')
            wait_until(lambda: station.commands, "the next command")
    assert [command.payload for command in station.commands] == [b'{"command": "get_status"}']


def test_broker_that_is_absent_at_the_start(absent_broker: Broker) -> None:
    with Station(settings(absent_broker.port)) as station:
        wait_until(lambda: station.told("unreachable"), "the trouble is told")
        station.publish_results(range(10))
        absent_broker.start()
        with Listener(absent_broker.port) as listener:
            station.wait_connected()
            station.publish_results(range(10, 20))
            wait_until(lambda: listener.payloads(RESULTS)[-1:] == [{"frame_seq": 19, "trace_id": "t19"}], "results")
            assert [r["frame_seq"] for r in listener.payloads(RESULTS)][-10:] == list(range(10, 20))
            wait_until(lambda: station.bus.stats.acknowledged == 20, "those of before the start too")


def test_commands_and_results_work_again_after_the_broker_was_restarted(broker: Broker) -> None:
    with Listener(broker.port) as listener, Station(settings(broker.port)) as station:
        station.wait_connected()
        for seen in (1, 2):
            broker.kill()
            wait_until(lambda: not station.bus.connected, "the loss is noticed")
            broker.start()
            station.wait_connected()
            listener.wait_subscribed()
            listener.publish(CONTROL, b'{"command": "get_status"}')
            station.publish_results([seen])
            _wait_for_both(station, listener, seen)
            assert listener.payloads(STATUS)[-1]["status"] == "online"
        assert station.bus.stats.reconnects == 2


def _wait_for_both(station: Station, listener: Listener, count: int) -> None:
    wait_until(lambda: len(station.commands) == count, "the command arrives")
    wait_until(lambda: len(listener.payloads(RESULTS)) == count, "the result arrives")


def test_another_instance_of_the_same_name_is_reported_by_both(broker: Broker) -> None:
    with Station(settings(broker.port, "run-1")) as first:
        first.wait_connected()
        with Station(settings(broker.port, "run-2")) as second:
            wait_until(lambda: first.told("duplicate_instance"), "the first hears of the second")
            wait_until(lambda: second.told("duplicate_instance"), "the second hears of the first")
        assert "run-2" in first.told("duplicate_instance")[0].reason
        assert "run-1" in second.told("duplicate_instance")[0].reason
        with Listener(broker.port, STATUS) as listener:
            # The second said offline when it left; the first must set that right.
            wait_until(lambda: listener.payloads(STATUS)[-1:] != [], "a retained status")
            wait_until(lambda: listener.payloads(STATUS)[-1]["status"] == "online", "the first is still online")
            assert listener.payloads(STATUS)[-1]["run_id"] == "run-1"
    assert len(first.told("duplicate_instance")) == len(second.told("duplicate_instance")) == 1


def test_status_left_by_a_former_run_is_no_duplicate(broker: Broker) -> None:
    left = json.dumps({"status": "online", "instance_id": "cam", "run_id": "run-0"}).encode()
    with Listener(broker.port) as listener:
        listener.publish(STATUS, left, retain=True)
        with Station(settings(broker.port)) as station:
            station.wait_connected()
            wait_until(lambda: listener.payloads(STATUS)[-1]["run_id"] == "run-1", "our own status")
            # What is not a status at all must do no harm either.
            listener.publish(STATUS, b"[" * 5000)
            listener.publish(STATUS, b'"text"')
            station.publish_results([1])
            wait_until(lambda: listener.payloads(RESULTS), "a result")
        assert not station.told("duplicate_instance")
        assert not station.told("bus_failed")


@pytest.mark.parametrize("held", ["frozen", "accepts", "name"])
def test_publishing_and_stopping_never_wait_for_a_silent_broker(held: str, mosquitto: Mosquitto) -> None:
    with socket.create_server((HOST, 0)) as silent:
        where = settings(silent.getsockname()[1] if held == "accepts" else mosquitto.port)
        if held == "name":
            where = settings(mosquitto.port, host="no-such-host.invalid")
        with Station(where, stop_timeout_s=1.0) as station:
            if held == "frozen":
                station.wait_connected()
                mosquitto.freeze()
            slowest_s = 0.0
            for number in range(2000):
                begun = time.perf_counter()
                station.publish_results([number])
                slowest_s = max(slowest_s, time.perf_counter() - begun)
            assert slowest_s < 0.5
        stats = station.bus.stats
    assert (stats.acknowledged, stats.dropped) == (0, 2000)


def test_silence_is_noticed_by_the_keepalive(mosquitto: Mosquitto) -> None:
    with Station(settings(mosquitto.port, keepalive_s=1)) as station:
        station.wait_connected()
        mosquitto.freeze()
        wait_until(lambda: station.told("disconnected"), "the silence is noticed")
        mosquitto.thaw()
        station.wait_connected()
        with Listener(mosquitto.port, STATUS) as listener:
            # The wills of given-up connections may come late; online must win.
            wait_until(lambda: listener.messages and listener.payloads(STATUS)[-1]["status"] == "online", "online")


def test_messages_are_counted_once_the_bus_has_ended(mosquitto: Mosquitto) -> None:
    with Station(settings(mosquitto.port)) as station:
        station.wait_connected()
    station.publish_results([1])
    assert station.bus.stats.refused == 1
    station.bus.stop(1.0)
