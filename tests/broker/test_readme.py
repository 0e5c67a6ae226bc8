"""The README's MQTT examples as they stand there, in a shell, with mosquitto's own programs against a real instance."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.mosquitto import Mosquitto
from orion.requests import SCHEMAS
from tests.brokers import Listener
from tests.conftest import REPOSITORY
from tests.instances import LIMIT_S, environment, running, until
from tests.operators import Operator

Find = Callable[[str, str], str]
NAME = f"readme-{os.getpid()}"
TOPICS = {"control": "care/control/orion", "health": "care/health/orion", "status": "care/status/orion"}
TOPICS |= {"inferences": "care/inferences/orion/{type}", "telemetry": "care/telemetry/orion"}
"""Those of the README, whatever the instance of the test is called."""


def section(title: str) -> str:
    """Return a section of the README."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## )", (REPOSITORY / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def blocks(text: str) -> list[str]:
    """Return what stands between fences."""
    return re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def examples() -> tuple[list[str], list[str]]:
    """Return the README's subscriptions and its commands, as they stand."""
    lines = [line for block in blocks(section("MQTT")) for line in block.splitlines()]
    subscribe = [line for line in lines if line.startswith("mosquitto_sub")]
    return subscribe, [line for line in lines if line.startswith("mosquitto_pub")]


@pytest.fixture
def settings_of_programs(program: Find, mosquitto: Mosquitto, tmp_path: Path) -> dict[str, str]:
    """Return the environment in which mosquitto's programs use the test's port without being told."""
    for name in ("mosquitto_pub", "mosquitto_sub"):
        program(name, "mosquitto-clients")
        (tmp_path / name).write_text(f"-p {mosquitto.port}\n")
    return environment(tmp_path, XDG_CONFIG_HOME=str(tmp_path))


@contextmanager
def subscribed(line: str, output: Path, env: dict[str, str]) -> Iterator[Path]:
    """Run a subscription of the README in the background."""
    with output.open("w") as file:
        process = subprocess.Popen(["sh", "-c", f"exec {line.removesuffix('&')}"], stdout=file, env=env)
    try:
        yield output
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)


def heard(output: Path) -> list[dict[str, Any]]:
    """Return the messages that a subscription has printed so far."""
    lines = output.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_the_examples_do_what_the_readme_says(
    mosquitto: Mosquitto, settings_of_programs: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "orion.yaml"
    file.write_text(yaml.safe_dump({"mqtt": {"topics": TOPICS}}))
    (results_line, health_line), commands = examples()
    assert commands[-1].endswith('"shutdown"}\''), "what follows a shutdown cannot be tried"
    env = settings_of_programs
    with (
        subscribed(results_line, tmp_path / "results", env) as results,
        subscribed(health_line, tmp_path / "health", env) as health,
        running(
            tmp_path,
            *("--config", str(file), "--source", "demo:320x240@10"),
            instance_id=NAME,
            broker=f"mqtt://127.0.0.1:{mosquitto.port}",
        ) as instance,
    ):
        until(lambda: heard(results), f"a result; {instance.errors()}")
        until(lambda: [event for event in heard(health) if event.get("event") == "ready"], "ready")
        for number, line in enumerate(commands, 1):
            subprocess.run(["sh", "-c", line], env=env, check=True, timeout=LIMIT_S)
            until(lambda: len(answers(health)) >= number, f"the answer to {line}")  # noqa: B023 - called at once
        assert instance.process.wait(LIMIT_S) == 0
    asked = [json.loads(line.partition(" -m '")[2].removesuffix("'")) for line in commands]
    assert [answer["command_ack"] for answer in answers(health)] == [request["command"] for request in asked]
    assert [answer["request_id"] for answer in answers(health)] == [request.get("request_id") for request in asked]
    assert {answer["status"] for answer in answers(health)} == {"success", "paused"}, answers(health)
    assert all(result["type"] == "person_detection" for result in heard(results))
    [sample] = [json.loads(block) for block in blocks(section("MQTT")) if block.startswith('{"type"')]
    assert [lacking(sample, result) for result in heard(results)[:1]] == [[]]


def lacking(sample: Any, real: Any, place: str = "result") -> list[str]:
    """Return what a sample has and a real value lacks: keys, and values of that type. Where nobody is there, nothing is
    said of the boxes and of the region around them.
    """
    if isinstance(sample, dict) and isinstance(real, dict):
        missing = [f"{place}.{key}" for key in sample.keys() - real.keys()]
        both = sample.keys() & real.keys()
        return missing + [one for key in both for one in lacking(sample[key], real[key], f"{place}.{key}")]
    if real is None or type(sample) is type(real):
        return []
    return [f"{place}: expected {type(sample).__name__}, found {type(real).__name__}"]


def answers(health: Path) -> list[dict[str, Any]]:
    return [message for message in heard(health) if "command_ack" in message]


def test_streams_come_change_and_go_as_the_readme_says(tmp_path: Path) -> None:
    [configured] = [block for block in blocks(section("Configuration")) if "instance_id: ward-3" in block]
    [commands] = [block for block in blocks(section("Configuration")) if "orion ctl" in block]
    config = yaml.safe_load(configured)
    del config["models"]
    config["streams"] = [stream | {"source": "demo:320x240@10"} for stream in config["streams"]]
    (tmp_path / "orion.yaml").write_text(yaml.safe_dump(config))
    env = environment(tmp_path)
    told = []
    with running(tmp_path, instance_id=NAME, broker="embedded") as instance:
        instance.await_results(1)
        for line in commands.splitlines():
            words = shlex.split(line.replace("ward-3", NAME))
            done = subprocess.run([sys.executable, "-m", *words], env=env, check=True, capture_output=True, text=True)
            told.append(done.stdout.partition("applied:")[2].split())
        assert instance.stop() == 0
        log = instance.errors()
    assert told == [["-", "streams.hall"], ["-", "streams.door.rate_hz"], ["-", "streams.bed"]]
    changes = re.findall(r"the stream was (.*) by command(.*) instance=\S+ stream=(\w+)", log)
    assert changes == [("added", "", "hall"), ("changed", ": rate_hz", "door"), ("removed", "", "bed")]


def test_every_command_is_in_the_table() -> None:
    named = {name for row in re.findall(r"^\| (`.*?) \|", section("MQTT"), re.MULTILINE) for name in row.split("`")}
    assert set(SCHEMAS) <= named


def test_the_access_list_lets_only_operators_command(program: Find, tmp_path: Path) -> None:
    (rights,) = [block for block in blocks(section("MQTT")) if "acl_file" in block]
    (tmp_path / "acl").write_text(rights)
    tool, passwords = program("mosquitto_passwd", "mosquitto"), tmp_path / "passwords"
    for option, user in (("-c", "orion"), (None, "operator"), (None, "dashboard")):
        subprocess.run([tool, *([option] if option else []), "-b", passwords, user, "pass"], check=True)
    config = [f"password_file {passwords}", "allow_anonymous false", f"acl_file {tmp_path / 'acl'}"]
    with (
        Mosquitto(program("mosquitto", "mosquitto"), tmp_path, config) as broker,
        Listener(broker.port, login=("operator", "pass")) as people,
        Listener(broker.port, login=("dashboard", "pass")) as dashboard,
        running(
            tmp_path,
            *("--source", "demo:320x240@10"),
            instance_id=NAME,
            broker=f"mqtt://127.0.0.1:{broker.port}",
            ORION_MQTT__USERNAME="orion",
            ORION_MQTT__PASSWORD="pass",
            ORION_TELEMETRY_S="1",
        ) as instance,
    ):
        operator = Operator(people, NAME)
        until(lambda: operator.events("ready"), f"ready; {instance.errors()}")
        dashboard.publish(operator.control, b'{"command": "shutdown", "request_id": "no"}')
        assert operator.do("set_inference_rate", rate_hz=5) == {"inference_rate_hz": 5.0}
        for topic in (operator.inferences, f"care/status/{NAME}"):
            until(lambda: dashboard.payloads(topic), topic)  # noqa: B023 - called at once
        until(lambda: people.payloads(f"care/telemetry/{NAME}"), "telemetry")
        assert operator.answers("no") == []
        assert dashboard.payloads(operator.health) == []
        assert operator.do("shutdown") == {"shutdown_initiated": True}
        assert instance.process.wait(LIMIT_S) == 0
