"""Bad input, row by row: what is given, the exit code, and what the message must name. What the configuration refuses
is asked of the command line in this process; what must be opened or loaded first, of a real `orion run`.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orion.cli import main
from orion.errors import EXIT_RESOURCE, EXIT_USAGE
from orion.lock import InstanceLock
from tests.instances import environment
from tests.models import placed, shaped
from tests.videos import write_video

LIMIT_S = 60.0
BOXES = [[10.0, 20.0, 110.0, 220.0, 0.9, 0.0]]
FORBIDDEN = "geheim"
"""The password in every row that has one: no message may hold it."""


@dataclass(frozen=True)
class Row:
    """`file` is orion.yaml, `options` what follows `orion run`, `variables` the environment's settings."""

    told: str
    file: str = ""
    options: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.options or self.file.strip().replace("\n", " ") or str(dict(self.variables))


def variable(name: str, value: str, told: str) -> Row:
    return Row(told, variables=((name, value),))


REFUSED = [
    # Types.
    Row('telemetry_s: should be a number, not "often" (orion.yaml, line 1)', "telemetry_s: often"),
    Row("ring.slots: should be a whole number, not 4.5", "ring: {slots: 4.5}"),
    Row("ring.slots: should be a whole number, not true", "ring: {slots: true}"),
    Row('persist_changes: should be true or false, not "yes"', "persist_changes: yes"),
    Row("instance_id: should be text, not 7", "instance_id: 7"),
    Row("streams: should be a list, not keys and values", "streams: {cam0: demo}"),
    Row('mqtt: should be keys and values, not "mqtt://h"', "mqtt: mqtt://h"),
    Row('streams.0: should be keys and values, not "rtsp://***@h"', f"streams: ['rtsp://a:{FORBIDDEN}@h']"),
    Row("workers.count: should be 'auto' or a whole number, not \"many\"", "workers: {count: many}"),
    Row('person_detector.confidence: should be a number, not "high" (--confidence)', options="--confidence high"),
    Row('streams.0.rate_hz: should be a number, not "fast" (--rate)', options="--rate fast"),
    Row('run.frames: should be a whole number, not "all" (--frames)', options="--frames all"),
    variable("ORION_TELEMETRY_S", "often", 'telemetry_s: should be a number, not "often" (ORION_TELEMETRY_S)'),
    # Ranges and choices.
    Row("confidence: should be less than 1, not 1 (--confidence)", options="--confidence 1"),
    Row("confidence: should be greater than 0, not 0 (--confidence)", options="--confidence 0"),
    Row("streams.0.rate_hz: should be less than or equal to 60, not 1000 (--rate)", options="--rate 1000"),
    Row("streams.0.rate_hz: should be greater than 0, not -1", options="--rate=-1"),
    Row("streams.0.rate_hz: should be a finite number, not NaN", options="--rate .nan"),
    Row("run.frames: should be greater than or equal to 1, not 0 (--frames)", options="--frames 0"),
    Row("workers.count: should be greater than or equal to 1, not 0 (--workers)", options="--workers 0"),
    Row("workers.threads: should be less than or equal to 256, not 1000 (--threads)", options="--threads 1000"),
    Row("person_detector.size: should be 'n', 's', 'm', 'l' or 'x', not \"xl\" (--mod", options="--model-size xl"),
    Row("size: s is looked up in a folder of models: name it by --model-dir", options="--model-size s"),
    Row("size: n is looked up in a folder of models: name it by --model-dir", options="--model-size n"),
    Row("by --model-dir or model_dir (orion.yaml, line 1)", "models: {person_detector: {size: m}}"),
    Row("models.person_detector.size: should be", "models: {person_detector: {size: {m: 1}}}"),
    Row("models.person_detector.size: should be", "models: {person_detector: {size: [m]}}"),
    Row("person_detector.provider: should be 'auto', 'cpu'", options="--provider gpu"),
    Row("argument --attention: invalid choice: 'maybe' (choose from", options="--attention maybe"),
    Row("attention.mode: should be 'auto', 'external' or 'off', not \"on\"", "attention: {mode: on}"),
    Row("ring.slots: should be greater than or equal to 3, not 2", "ring: {slots: 2}"),
    Row("mqtt.qos.status: should be 0, 1 or 2, not 3", "mqtt: {qos: {status: 3}}"),
    Row('instance_id: should be lower-case letters, digits, hyphen, not "Hall 2"', options="--instance-id 'Hall 2'"),
    Row('instance_id: should be lower-case letters, digits, hyphen, not "a/../b"', options="--instance-id a/../b"),
    Row("streams: should have at least 1 item", "streams: []"),
    Row("control.forbid.0: should be 'get_status'", "control: {forbid: [reboot]}"),
    variable("ORION_LOG__LEVEL", "loud", "log.level: should be 'debug', 'info', 'warning' or 'error', not \"loud\""),
    # Unknown keys, variables, options.
    Row("streams.0.sorce: unknown key; did you mean source?", "streams: [{stream_id: a, source: demo, sorce: demo}]"),
    Row("broker: unknown key; did you mean mqtt.broker?", "broker: none"),
    Row("models.person_detektor: unknown key; did you mean person_detector?", "models: {person_detektor: {size: n}}"),
    Row("mqtt.tls.insecure: unknown key; did you mean cert? known are ca, cert, key", "mqtt: {tls: {insecure: true}}"),
    variable("ORION_MQTT__BROKR", "none", "mqtt.brokr: unknown key; did you mean broker? (ORION_MQTT__BROKR)"),
    variable("ORION_STREAMS__4__SOURCE", "demo", "there is no streams.4 that could be set (ORION_STREAMS__4__SOURCE)"),
    Row("unknown argument --sourc; did you mean --source?", options="--sourc demo"),
    Row("unknown argument clip.mp4", options="clip.mp4"),
    Row("argument --results: expected one argument", options="--results"),
    # What does not fit together.
    Row("streams 0 and 1 have the same stream_id, 'a'", "streams: [&a {stream_id: a, source: demo}, *a]"),
    Row("streams.0.source: is missing", "streams: [{stream_id: a}]"),
    Row("model_path_320 needs model_path", options="--model-320 good320.onnx"),
    Row("mqtt.tls: cert and key belong together", "mqtt: {tls: {cert: text}}"),
    Row("mqtt.tls is set, but mqtt.broker is not mqtts://", "mqtt: {tls: {ca: text}, broker: 'mqtt://h'}"),
    Row("a password needs mqtt.username", variables=(("ORION_MQTT__PASSWORD", FORBIDDEN),)),
    Row("mqtt.password: a secret has no place in this file", f"mqtt: {{username: a, password: {FORBIDDEN}}}"),
    Row("mqtt.topics: care/x is used twice", "mqtt: {topics: {control: care/x, health: care/x}}"),
    Row("mqtt.topics.status: a topic has no +, #", "mqtt: {topics: {status: care/#}}"),
    Row("is for files and the demo: streams.0.source is a network source", options="--every-frame --source rtsp://h/x"),
    Row("(--every-frame) and streams.0.rate_hz (--rate) exclude each other", options="--every-frame --rate 1"),
    # Addresses.
    Row("streams.0.source: unknown scheme ftp://", options=f"--source ftp://a:{FORBIDDEN}@h/x"),
    Row("streams.0.source: the address must read scheme://", options=f"--source rtsp://a:{FORBIDDEN}@h:port/x"),
    Row("streams.0.source: a demo source is demo or demo:WIDTHxHEIGHT@FPS", options="--source demo:big"),
    Row("streams.0.source: the demo's width must be 64 to 7680, not 1", options="--source demo:1x480@10"),
    Row("mqtt.broker: expected embedded, none, mqtt://host[:port]", options="--broker broker.local"),
    Row("mqtt.broker: no credentials in the URL", options=f"--broker mqtt://a:{FORBIDDEN}@h"),
    # Files that are not there, or no configuration.
    Row("--config: no such file: absent.yaml", options="--config absent.yaml"),
    Row("streams.0.source: no such file: 'absent.mp4'", options="--source absent.mp4"),
    Row("person_detector.model_path: no such file or folder: 'absent.onnx' (--model)", options="--model absent.onnx"),
    Row("person_detector.model_dir: no such file or folder: 'absent' (--model-dir)", options="--model-dir absent"),
    Row("run.results: no such folder: 'absent' (--results)", options="--results absent/results.jsonl"),
    Row("run.save_frames: no such folder: 'absent/deep' (--save-frames)", options="--save-frames absent/deep/shots"),
    Row("mqtt.password_file: no such file or folder: 'absent'", "mqtt: {username: a, password_file: absent}"),
    Row("control.source_dirs.0: no such file or folder: 'absent'", "control: {source_dirs: [absent]}"),
    Row("mqtt.password_file: the first line of empty is empty", "mqtt: {username: a, password_file: empty}"),
    Row("orion.yaml: line 2, column 5", "ring: {slots: 4\nmqtt: 3"),
    Row("orion.yaml: line 2, column 1: the key 'room_id' is here a second time", "room_id: a\nroom_id: b"),
    Row("orion.yaml: expected keys and values", "- a\n- b"),
    Row("folder: Is a directory", options="--config folder"),
    Row("noise: not UTF-8 text", options="--config noise"),
]  # fmt: skip
"""What is wrong in itself: exit code 2, before anything is started."""

UNUSABLE = [
    Row("cats.onnx: expected a class named 'person', found cat", options="--model cats.onnx"),
    Row("flat.onnx: expected a person detector with input (1, 3, S, S)", options="--model flat.onnx"),
    Row("found input images (1, 1, 640, 640)", options="--model grey.onnx"),
    Row("cut.onnx: onnxruntime cannot use it", options="--model cut.onnx"),
    Row("text: onnxruntime cannot use it", options="--model text"),
    Row("good320.onnx: expected an input of 640x640, found 320x320", options="--model good320.onnx"),
    Row("good640.onnx: expected an input of 320x320", options="--model good640.onnx --model-320 good640.onnx"),
    Row("source text: no video that can be decoded", options="--source text"),
    Row("source unknown.avi: no video that can be decoded", options="--source unknown.avi"),
    Row("source empty: the file is empty", options="--source empty"),
    Row("source folder: is a folder, not a video file", options="--source folder"),
    Row("source 77: /dev/video77: no such camera", options="--source 77"),
    Row("results cannot be written to folder: Is a directory", options="--results folder"),
    Row("run.save_frames: text cannot be made", options="--save-frames text"),
    Row("mqtt.password_file: cannot read folder", "mqtt: {username: a, password_file: folder}"),
]
"""What is there but cannot be used: exit code 4."""


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files to name in the rows."""
    folder = tmp_path_factory.mktemp("materials")
    good = placed(folder / "good640.onnx", 640, BOXES)
    placed(folder / "good320.onnx", 320, BOXES)
    placed(folder / "cats.onnx", 640, BOXES, names=("cat",))
    shaped(folder / "flat.onnx", [1, 3, 640, 640], [1, 1000])
    shaped(folder / "grey.onnx", [1, 1, 640, 640], [1, 5, 10])
    (folder / "cut.onnx").write_bytes(good.read_bytes()[:200])
    (folder / "text").write_text("neither a model nor a video")
    video = write_video(folder / "unknown.avi", 2, codec="MJPG")
    video.write_bytes(video.read_bytes().replace(b"MJPG", b"ZZZZ"))
    (folder / "noise").write_bytes(bytes(range(128, 256)))
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    return folder


@pytest.fixture
def prepared(materials: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Row], list[str]]:
    """Return a function that writes a row's file and variables, and returns its arguments."""
    monkeypatch.chdir(materials)
    for name in [name for name in os.environ if name.startswith("ORION_")]:
        monkeypatch.delenv(name)

    def prepare(row: Row) -> list[str]:
        (materials / "orion.yaml").write_text(row.file)
        for name, value in row.variables:
            monkeypatch.setenv(name, value)
        return ["run", *shlex.split(row.options)]

    return prepare


def test_there_are_enough_rows() -> None:
    assert len(REFUSED) + len(UNUSABLE) >= 40


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_what_is_wrong_in_itself_is_refused(
    row: Row, prepared: Callable[[Row], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(prepared(row))
    output = capsys.readouterr()
    assert (code, output.out) == (EXIT_USAGE, "")
    assert row.told in output.err
    assert FORBIDDEN not in output.err
    assert output.err.count("\n") == 1, "one problem, one line"


def test_what_is_wrong_in_itself_is_refused_by_the_real_command(materials: Path, tmp_path: Path) -> None:
    (materials / "orion.yaml").write_text("ring: {slots: 2}")
    done = _run(materials, tmp_path, "--source absent.mp4", ORION_LOG__LEVEL="loud")
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
    assert sorted(line.partition(":")[0] for line in done.stderr.splitlines()) == [
        "log.level",
        "ring.slots",
        "streams.0.source",
    ]


@pytest.mark.parametrize("row", UNUSABLE, ids=str)
def test_what_cannot_be_used_ends_the_run(row: Row, materials: Path, tmp_path: Path) -> None:
    (materials / "orion.yaml").write_text(row.file)
    done = _run(materials, tmp_path, row.options)
    assert (done.returncode, done.stdout) == (EXIT_RESOURCE, ""), done.stderr
    assert row.told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "runs without a 320 model" not in done.stderr, "nothing runs"


def test_a_640_that_runs_alone_for_want_of_a_320_is_told(materials: Path, tmp_path: Path) -> None:
    (materials / "orion.yaml").unlink(missing_ok=True)
    whole = placed(tmp_path / "yolo11n_640.onnx", 640, BOXES)
    (tmp_path / "yolo11n_320.onnx").write_bytes(whole.read_bytes()[:200])
    done = _run(materials, tmp_path, f"--model-dir {tmp_path} --frames 1 --every-frame")
    assert done.returncode == 0, done.stderr
    assert f"{whole} runs without a 320 model" in done.stderr


def test_an_instance_that_is_running_is_named(materials: Path, tmp_path: Path) -> None:
    (materials / "orion.yaml").unlink(missing_ok=True)
    with InstanceLock("bad-input", "run1", environ=environment(tmp_path)):
        done = _run(materials, tmp_path, "--instance-id bad-input")
    assert done.returncode == EXIT_RESOURCE
    assert f"instance 'bad-input' is already running as process {os.getpid()}" in done.stderr


def _run(folder: Path, state: Path, options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the real command in `folder` with its state in another one."""
    command = [sys.executable, "-m", "orion", "run", "--broker", "none", "--instance-id", f"bad-{os.getpid()}"]
    if "--source" not in options:
        command += ["--source", "demo:320x240@10"]
    return subprocess.run(
        [*command, *shlex.split(options)],
        cwd=folder,
        env=environment(state, **variables),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
