"""What holds for every request to a whole run: the form of a status, bounds on what waits, and secrets that stay."""

import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks.mosquitto import Mosquitto
from tests.brokers import Listener
from tests.instances import running, until
from tests.operators import Operator

CAM = "sensor-11"
SMALL = "demo:320x240@10"
SECRETS = ("hunter-of-the-url", "hunter-of-the-command", "hunter-of-the-broker")
STATUS = {
    "instance_id", "room_id", "run_id", "version", "uptime_s", "running", "paused", "changed", "models", "attention",
    "emitter", "config", "streams", "workers",
}  # fmt: skip
STREAM = {
    "stream_id", "state", "source", "captured", "completed", "in_flight", "dropped", "fps", "rate_hz", "worker_id",
    "width", "height",
}  # fmt: skip
WORKER = {"worker_id", "pid", "state", "restarts", "model_size", "avg_latency_ms", "last_seen_at"}
REASONS = {"superseded", "rate", "paused", "worker_restart", "worker_error", "torn", "shutdown"}


def test_a_status_has_the_fields_of_the_protocol(mosquitto: Mosquitto, tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    with (
        Listener(mosquitto.port) as listener,
        running(tmp_path, "--source", SMALL, instance_id=CAM, broker=url) as instance,
    ):
        operator = Operator(listener, CAM)
        until(lambda: operator.events("ready"), f"ready; {instance.errors()}")
        operator.await_more(1)
        answer = operator.ask("get_status")
        told = {"command_ack", "status", "data", "request_id", "instance_id", "timestamp"}
        assert told == answer.keys()
        status = answer["data"]
        assert status.keys() >= STATUS
        (stream,), (worker,) = status["streams"], status["workers"]
        assert stream.keys() >= STREAM
        assert (stream["width"], stream["height"], stream["worker_id"]) == (320, 240, "w0")
        assert stream["dropped"].keys() == REASONS
        assert worker.keys() >= WORKER
        assert worker["avg_latency_ms"] > 0


def test_past_the_bound_a_request_is_busy_and_every_one_is_answered_once(mosquitto: Mosquitto, tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    with (
        Listener(mosquitto.port) as listener,
        running(tmp_path, "--source", SMALL, instance_id=CAM, broker=url) as instance,
    ):
        operator = Operator(listener, CAM)
        until(lambda: operator.events("ready"), f"ready; {instance.errors()}")
        slow = operator.send("restart_worker", worker_id="w0")
        others = [operator.send("set_inference_rate", rate_hz=1 + number / 100) for number in range(60)]
        until(lambda: all(operator.answers(name) for name in [slow, *others]), "an answer to each")
        outcomes = [[answer.get("code", answer["status"]) for answer in operator.answers(name)] for name in others]
        assert operator.answer(slow)["status"] == "success"
        assert outcomes == [["success"]] * 32 + [["busy"]] * 28
        assert operator.stream()["rate_hz"] == 1.31
        busy = others[-1]
        operator.send("set_inference_rate", busy, rate_hz=1 + 59 / 100)
        until(lambda: len(operator.answers(busy)) == 2, "what was busy may be asked again")
        assert operator.answers(busy)[1]["status"] == "success"


def test_no_secret_is_in_any_message_or_log(mosquitto: Mosquitto, tmp_path: Path) -> None:
    of_url, of_command, of_broker = SECRETS
    lost = f"rtsp://guest:{of_url}@127.0.0.1:1/x?token={of_url}"
    (tmp_path / "password").write_text(of_broker)
    streams = [{"stream_id": "cam0", "source": SMALL}, {"stream_id": "lost", "source": lost}]
    config: dict[str, Any] = {"streams": streams, "persist_changes": True, "log": {"level": "debug"}, "telemetry_s": 1}
    file = tmp_path / "orion.yaml"
    file.write_text(yaml.safe_dump(config | {"mqtt": {"username": "u", "password_file": str(tmp_path / "password")}}))
    other = f"rtsp://guest:{of_command}@127.0.0.1:1/y?password={of_command}"
    parts: list[dict[str, Any]] = [
        {"mqtt": {"password": of_command}},
        {"mqtt": {"broker": f"mqtt://u:{of_command}@127.0.0.1"}},
        {"mqtt": of_command},
        {"streams": other},
        {"streams": [other]},
        {"streams": [{"stream_id": other}]},
        {"streams": [{"stream_id": "cam0", "source": [other]}]},
        {"streams": [{"stream_id": "cam0", "sauce": other}]},
        {"streams": [{"stream_id": "cam0", other: 1}]},
        {"mqtt": {other: 1}},
        {"models": {"person_detector": {"provider": other}}},
        {"streams": [{"stream_id": "cam0", "source": f"rtmp://guest:{of_command}@cam/x"}]},
        {"streams": [{"stream_id": "cam0", "source": f"rtsp://guest:{of_command}@cam:99999/x"}]},
        {"streams": [{"stream_id": "cam0", "source": f"http://[guest:{of_command}@cam/x"}]},
        {"streams": [{"stream_id": "cam0", "source": f"/videos/{of_command}"}]},
        {"streams": [{"stream_id": "cam0"}, {"stream_id": "lost", "source": other}]},
        {
            "streams": [
                {"stream_id": "cam0"},
                {"stream_id": "more", "source": f"http://guest:{of_command}@127.0.0.1:1/"},
            ]
        },
    ]
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    with (
        Listener(mosquitto.port) as listener,
        running(tmp_path, "--config", str(file), instance_id=CAM, broker=url) as instance,
    ):
        operator = Operator(listener, CAM)
        until(lambda: operator.events("ready"), f"ready; {instance.errors()}")
        answers = [operator.ask("update_config", config=part) for part in parts]
        assert [answer["status"] for answer in answers] == ["error"] * (len(parts) - 2) + ["success"] * 2, answers
        for name in ("lost", "more"):
            until(lambda: [e for e in operator.events("stream_lost") if e["stream_id"] == name], name)  # noqa: B023
        operator.status()
        assert operator.ask("set_model_size", size=of_command)["code"] == "invalid_params"
        seen = len(listener.payloads(f"care/telemetry/{CAM}"))
        until(lambda: len(listener.payloads(f"care/telemetry/{CAM}")) > seen, "telemetry")
        assert instance.stop() == 0
    own = {f"care/control/{CAM}"}
    said = [message.payload.decode() for message in listener.messages if message.topic not in own]
    assert len(said) > len(parts)
    for secret in SECRETS:
        assert secret not in instance.errors()
        assert [text for text in said if secret in text] == [], json.dumps(secret)
