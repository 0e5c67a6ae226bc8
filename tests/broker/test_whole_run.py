"""Whole runs against real brokers: what subscribers see, from the first result to the last will."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.mosquitto import Mosquitto
from tests.brokers import Broker, Listener
from tests.instances import running, until
from tests.operators import Operator
from tests.servers import RtspServer
from tests.videos import write_video

SMALL = "demo:320x240@10"
CAM = "sensor-7"


def url(broker: Broker) -> str:
    return f"mqtt://127.0.0.1:{broker.port}"


def test_results_status_events_and_commands(broker: Broker, tmp_path: Path) -> None:
    with (
        Listener(broker.port) as listener,
        running(tmp_path, "--source", SMALL, instance_id=CAM, broker=url(broker)) as instance,
    ):
        results = until(lambda: listener.payloads(f"care/inferences/{CAM}/person_detection"), "a result")
        written = instance.await_results(len(results))
        assert results[0] == written[0]
        assert listener.payloads(f"care/status/{CAM}")[-1]["status"] == "online"
        until(lambda: listener.payloads(f"care/telemetry/{CAM}"), "telemetry")
        health = f"care/health/{CAM}"
        until(lambda: [e for e in listener.payloads(health) if e.get("event") == "ready"], "the ready event")

        listener.publish(f"care/control/{CAM}", b'{"command": "get_status", "request_id": "q1"}')
        answers = until(lambda: [a for a in listener.payloads(health) if a.get("request_id") == "q1"], "an answer")
        assert (answers[0]["command_ack"], answers[0]["status"]) == ("get_status", "success")
        stream = answers[0]["data"]["streams"][0]
        lost = sum(stream["dropped"].values())
        assert stream["captured"] == stream["completed"] + stream["in_flight"] + lost
        assert (stream["width"], stream["height"]) == (320, 240)

        listener.publish(f"care/control/{CAM}", b'{"command": "shutdown", "request_id": "q2"}')
        assert instance.process.wait(30) == 0, instance.errors()
        until(lambda: [a for a in listener.payloads(health) if a.get("request_id") == "q2"], "an answer")
        until(lambda: listener.payloads(f"care/status/{CAM}")[-1]["status"] == "offline", "a clean offline")
        assert instance.segments() == []


def test_a_killed_instance_leaves_its_last_will(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with (
        Listener(mosquitto.port, f"care/status/{CAM}") as listener,
        running(tmp_path, "--source", SMALL, instance_id=CAM, broker=url(mosquitto)) as instance,
    ):
        until(lambda: listener.payloads(f"care/status/{CAM}"), "online")
        # Killed while it allocates a segment it would leave one to the next start.
        instance.await_results(1)
        instance.process.send_signal(signal.SIGKILL)
        until(lambda: listener.payloads(f"care/status/{CAM}")[-1]["status"] == "offline", "the last will")


def test_frames_go_on_without_a_broker_and_reach_it_when_it_comes(absent_broker: Broker, tmp_path: Path) -> None:
    options = ("--source", SMALL)
    short = {"ORION_MQTT__OUTBOX__REPLAY_DELAY_S": "0.5"}
    with running(tmp_path, *options, instance_id=CAM, broker=url(absent_broker), **short) as instance:
        written = instance.await_results(5)
        absent_broker.start()
        with Listener(absent_broker.port) as listener:
            topic = f"care/inferences/{CAM}/person_detection"

            def seen() -> set[int]:
                return {result["frame_seq"] for result in listener.payloads(topic)}

            until(lambda: {line["frame_seq"] for line in written} <= seen(), "the results of the outage")
            assert instance.stop() == 0, instance.errors()


def test_a_camera_over_rtsp_is_seen_by_mosquitto_sub(
    mosquitto: Mosquitto, tmp_path: Path, program: Callable[[str, str], str]
) -> None:
    subscriber = program("mosquitto_sub", "mosquitto-clients")
    video = tmp_path / "camera.mp4"
    write_video(video, frames=300)
    topic = f"care/inferences/{CAM}/person_detection"
    command = [subscriber, "-h", "127.0.0.1", "-p", str(mosquitto.port), "-t", topic, "-C", "5", "-W", "60"]
    with RtspServer(video) as server:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as subscribed:
            options = ("--source", server.uri)
            with running(tmp_path, *options, instance_id=CAM, broker=url(mosquitto)) as instance:
                output, _ = subscribed.communicate(timeout=60)
                assert instance.stop() == 0, instance.errors()
        results = [json.loads(line) for line in output.splitlines()]
        assert len(results) == 5
        assert all(result["stream_id"] == "cam0" for result in results)


def test_the_embedded_broker_prints_its_port_and_serves(tmp_path: Path) -> None:
    often = {"ORION_TELEMETRY_S": "0.5"}
    with running(tmp_path, "--source", SMALL, instance_id=CAM, broker="embedded", **often) as instance:
        instance.await_results(1)
        line = next(line for line in instance.errors().splitlines() if "mosquitto_sub" in line)
        port = int(line.split("-p ")[1].split()[0])
        with Listener(port) as listener:
            until(lambda: listener.payloads(f"care/inferences/{CAM}/person_detection"), "a result")
            telemetry = until(lambda: listener.payloads(f"care/telemetry/{CAM}"), "telemetry")[-1]
            assert telemetry["emitter"]["connected"]
            assert telemetry["processes"].keys() == {"supervisor", "w0", "broker"}
            for usage in telemetry["processes"].values():
                assert usage["cpu_s"] > 0
                assert 5 < usage["rss_mb"] < 2000
        assert instance.stop() == 0, instance.errors()


def test_an_embedded_broker_that_dies_is_started_again_and_gets_what_was_missed(tmp_path: Path) -> None:
    late = {"ORION_MQTT__OUTBOX__REPLAY_DELAY_S": "3"}
    with running(tmp_path, "--source", SMALL, instance_id=CAM, broker="embedded", **late) as instance:
        instance.await_results(1)
        lock = json.loads(next((tmp_path / "runtime").rglob("*.lock")).read_text())
        with Listener(int(lock["broker"].rsplit(":", 1)[1])) as listener:
            operator = Operator(listener, CAM)
            before = operator.status()
            (broker,) = instance.children().keys() - {worker["pid"] for worker in before["workers"]}
            os.kill(broker, signal.SIGKILL)
            until(
                lambda: "broker_restarted: the embedded broker ended with code -9" in instance.errors(), "a successor"
            )
            ended = next(line for line in instance.errors().splitlines() if "starting it again" in line)
            # The successor is started 0.4 s later at the soonest.
            missed = {
                result["frame_seq"]
                for result in instance.lines()
                if timedelta(0)
                < datetime.fromisoformat(result["timestamp"]) - datetime.fromisoformat(ended.split()[0])
                < timedelta(seconds=0.3)
            }
            assert missed

            def replayed() -> set[int]:
                return {result["frame_seq"] for result in operator.results() if result.get("replayed")}

            until(lambda: missed <= replayed(), "the results of the time between")
            after = operator.status()
            assert after["processes"].keys() == before["processes"].keys()
            assert after["processes"]["broker"]["cpu_s"] > 0
            assert after["emitter"]["results"]["dropped"] == 0
        assert instance.stop() == 0, instance.errors()
        assert instance.children() == {}
