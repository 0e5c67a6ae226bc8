"""The doctor as an operator calls it: one line a check, and an exit code."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.mosquitto import Mosquitto, free_port
from orion import doctor, ring
from orion.lock import InstanceLock
from tests.instances import environment
from tests.models import placed
from tests.videos import write_video

LIMIT_S = 90.0
BOXES = [[10.0, 20.0, 110.0, 220.0, 0.9, 0.0]]
DEMO = "--source demo:320x240@10"


def examine(folder: Path, options: str, **variables: str) -> tuple[int, dict[str, str]]:
    """Run `orion doctor`; return its exit code, and of each check what follows its name, led by OK or FAIL."""
    done = subprocess.run(
        [sys.executable, "-m", "orion", "doctor", *shlex.split(options)],
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert "Traceback" not in done.stdout
    lines = [line.split(None, 1) for line in done.stdout.splitlines()]
    names = ("instance", "cam0", "cam1", "shared memory", "onnxruntime", "models", "self-test", "provider", "broker")
    found = {}
    for verdict, rest in lines:
        [name] = [name for name in names if rest.startswith(f"{name} ")]
        found[name] = f"{verdict} {rest.removeprefix(name).strip()}"
    return done.returncode, found


def test_all_is_well(tmp_path: Path) -> None:
    pair = placed(tmp_path / "yolo11n_640.onnx", 640, BOXES), placed(tmp_path / "yolo11n_320.onnx", 320, BOXES)
    write_video(tmp_path / "clip.mp4", frames=3)
    options = f"{DEMO} --source clip.mp4 --model {pair[0].name} --model-320 {pair[1].name}"
    code, found = examine(tmp_path, options)
    assert code == 0, "\n".join(found.values())
    assert {line.split()[0] for line in found.values()} == {"OK"}
    assert found["cam0"] == "OK demo:320x240@10: 320x240 at 10 fps"
    assert found["cam1"] == "OK clip.mp4: 320x240 at 10 fps"
    assert "2 MB needed" in found["shared memory"]
    assert found["onnxruntime"].startswith("OK onnxruntime")
    assert "640 loaded in" in found["models"]
    assert "320 loaded in" in found["models"]
    assert found["broker"].startswith("OK embedded: starts on mqtt://127.0.0.1:")


def test_everything_that_fails_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("neither a model nor a video")
    port = free_port()
    options = f"--source 77 --source text --model text --broker mqtt://127.0.0.1:{port}"
    code, found = examine(tmp_path, options)
    assert code == 1
    assert found["instance"] == "OK orion is not running"
    assert found["cam0"].startswith("FAIL source 77: /dev/video77: no such camera: is it plugged in")
    assert found["cam1"].startswith("FAIL source text: no video that can be decoded")
    assert found["models"].startswith("FAIL text: onnxruntime cannot use it")
    assert found["broker"].startswith(f"FAIL mqtt://127.0.0.1:{port}: ")
    assert "Connection refused: check mqtt.broker" in found["broker"]


def test_what_is_named_and_not_there_holds_up_no_other_check(tmp_path: Path) -> None:
    options = "--source absent.mp4 --source demo:320x240@10 --model absent.onnx --broker none"
    code, found = examine(tmp_path, options)
    assert code == 1
    assert found["cam0"].startswith("FAIL source 'absent.mp4': no such file")
    assert found["cam1"].startswith("OK demo:320x240@10")
    assert found["models"].startswith("FAIL absent.onnx: ")
    assert {name for name, text in found.items() if text.startswith("OK ")} >= {"shared memory", "broker"}
    _, found = examine(tmp_path, "--source demo:320x240@10 --model-dir absent --broker none")
    assert found["models"] == "FAIL models.person_detector.model_dir: absent: expected a folder of models, found none"
    assert examine(tmp_path, "--source absent.mp4 --confidence 2") == (2, {})


def test_a_provider_that_is_not_there_is_told(tmp_path: Path) -> None:
    placed(tmp_path / "large.onnx", 640, BOXES)
    code, found = examine(tmp_path, f"{DEMO} --broker none --model large.onnx --provider coreml")
    assert code == 1
    assert found["provider"] == (
        "FAIL coreml cannot be used here, cpu runs instead: "
        "coreml is not installed; it is part of onnxruntime on macOS alone"
    )
    assert found["broker"] == "OK none: nothing is published"


def test_a_model_that_sees_nobody_is_told(tmp_path: Path) -> None:
    placed(tmp_path / "large.onnx", 640, [[10.0, 20.0, 110.0, 220.0, 0.2, 0.0]])
    code, found = examine(tmp_path, f"{DEMO} --broker none --model large.onnx")
    assert code == 1
    assert found["self-test"].startswith("FAIL 640 sees nobody in the drawn pictures: lower models.person_detector.")
    assert [text.split()[0] for text in found.values()].count("FAIL") == 1


def test_what_comes_built_in_sees(tmp_path: Path) -> None:
    code, found = examine(tmp_path, f"{DEMO} --broker none")
    assert code == 0, "\n".join(found.values())
    assert found["self-test"] == "OK the known pictures are answered as they must be"


def test_two_builds_of_the_runtime_are_told_with_what_to_do() -> None:
    finding = doctor.runtime({"onnxruntime": "1.32.0", "onnxruntime-openvino": "1.24.1"})
    assert not finding.ok
    assert finding.text == (
        "onnxruntime 1.32.0, onnxruntime-openvino 1.24.1 overwrite each other's files, one may be there: "
        "pip uninstall -y onnxruntime onnxruntime-openvino && pip install onnxruntime-openvino"
    )
    assert doctor.runtime({"onnxruntime-openvino": "1.24.1"}).ok
    assert not doctor.runtime({}).ok


def test_shared_memory_that_is_too_small_is_told() -> None:
    size, slots = (7680, 4320), ring.MIN_SLOTS
    count = ring.bytes_free() // ring.bytes_needed(*size, slots) + 2
    finding = doctor.shared_memory([size] * count, slots)
    assert not finding.ok
    assert " MB needed, " in finding.text
    assert "enlarge /dev/shm (in a container: --shm-size=" in finding.text


def test_shared_memory_for_fewer_slots_is_enough_and_told() -> None:
    size, slots = (7680, 4320), 63
    count = ring.bytes_free() // ring.bytes_needed(*size, slots) + 1
    finding = doctor.shared_memory([size] * count, slots)
    assert finding.ok
    assert finding.text.endswith("enough for 3 instead of 63 slots")


def test_an_instance_that_runs_is_named(tmp_path: Path) -> None:
    placed(tmp_path / "large.onnx", 640, BOXES)
    with InstanceLock("hall", "run1", "mqtt://127.0.0.1:1884", environment(tmp_path)):
        _, found = examine(tmp_path, f"{DEMO} --broker none --model large.onnx --instance-id hall")
    assert "hall is running as process" in found["instance"]
    assert found["instance"].endswith("results go to mqtt://127.0.0.1:1884")


@pytest.mark.parametrize(("password", "verdict"), [("geheim", "OK"), ("falsch", "FAIL")])
def test_a_broker_must_accept_us(
    tmp_path: Path, program: Callable[[str, str], str], password: str, verdict: str
) -> None:
    placed(tmp_path / "large.onnx", 640, BOXES)
    passwords = tmp_path / "passwords"
    subprocess.run(
        [program("mosquitto_passwd", "mosquitto"), "-b", "-c", str(passwords), "anna", "geheim"],
        check=True,
        capture_output=True,
    )
    passwords.chmod(0o644)
    config = ("allow_anonymous false", f"password_file {passwords}")
    with Mosquitto(program("mosquitto", "mosquitto"), tmp_path, config) as broker:
        options = f"{DEMO} --model large.onnx --broker mqtt://127.0.0.1:{broker.port}"
        variables = {"ORION_MQTT__USERNAME": "anna", "ORION_MQTT__PASSWORD": password}
        code, found = examine(tmp_path, options, **variables)
    assert found["broker"].startswith(f"{verdict} mqtt://127.0.0.1:{broker.port}: ")
    assert code == (0 if verdict == "OK" else 1)
    assert password not in str(found)
