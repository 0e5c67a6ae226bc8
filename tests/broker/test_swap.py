"""Models change under whole runs without a gap, everywhere or nowhere, whatever becomes of workers meanwhile."""

import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.mosquitto import Mosquitto
from tests.brokers import Listener
from tests.instances import Instance, running, until
from tests.models import placed
from tests.operators import Operator, balanced
from tests.servers import BlackHole

CAM = "sensor-9"
SMALL = "demo:320x240@10"
BOX = [[100.0, 100.0, 200.0, 300.0, 0.9, 0.0]]
SMALL_BOX = [[50.0, 50.0, 100.0, 150.0, 0.9, 0.0]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of whole pairs of n and s, an m without its 320, an l whose 320 is broken, and an x of other classes."""
    folder = tmp_path_factory.mktemp("models")
    for size in "ns":
        placed(folder / f"yolo11{size}_640.onnx", 640, BOX)
        placed(folder / f"yolo11{size}_320.onnx", 320, SMALL_BOX)
    placed(folder / "yolo11m_640.onnx", 640, BOX)
    placed(folder / "yolo11l_640.onnx", 640, BOX)
    (folder / "yolo11l_320.onnx").write_bytes(b"\x08\x08no model")
    placed(folder / "yolo11x_640.onnx", 640, BOX, names=("dog",))
    placed(folder / "yolo11x_320.onnx", 320, SMALL_BOX, names=("dog",))
    return folder


@contextmanager
def operated(broker: Mosquitto, folder: Path, models: Path, *options: str) -> Iterator[tuple[Operator, Instance]]:
    options = ("--model-dir", str(models), *(options or ("--source", SMALL)))
    with (
        Listener(broker.port) as listener,
        running(folder, *options, instance_id=CAM, broker=f"mqtt://127.0.0.1:{broker.port}") as instance,
    ):
        operator = Operator(listener, CAM)
        until(lambda: operator.events("ready"), "ready")
        yield operator, instance
        assert all(balanced(stream) for stream in operator.status()["streams"])
        assert instance.stop() == 0, instance.errors()


def test_every_stream_goes_over_between_two_frames(mosquitto: Mosquitto, tmp_path: Path, models: Path) -> None:
    options = ("--source", SMALL, "--source", SMALL, "--attention", "off")
    with operated(mosquitto, tmp_path, models, *options) as (operator, _):
        operator.await_more(2, "cam1")
        data = operator.do("set_model_size", size="s")
        assert (data["model_size"], data["model_name"], data["previous"]) == ("s", "yolo11s", "n")
        assert data["load_ms"] > 0
        for stream_id in ("cam0", "cam1"):
            operator.await_more(2, stream_id)
            names = [result["data"]["metadata"]["model_name"] for result in operator.results(stream_id)]
            assert names == sorted(names), "the old pair answered again"
            assert set(names) == {"yolo11n", "yolo11s"}
            seqs = [result["frame_seq"] for result in operator.results(stream_id)]
            assert seqs == list(range(seqs[0], seqs[-1] + 1)), "a frame is missing"
        assert {event["worker_id"] for event in operator.events("model_reloaded")} == {"w0", "w1"}
        status = operator.status()
        assert status["models"]["model_size"] == "s"
        assert [worker["model_size"] for worker in status["workers"]] == ["s", "s"]
        assert status["changed"] == ["models.person_detector.size"]


@pytest.mark.parametrize(
    ("size", "code", "error"),
    [
        ("m", "not_found", "no 320 model"),
        ("l", "not_found", "no 320 model"),
        ("x", "failed", "a class named 'person'"),
    ],
)
def test_a_pair_of_no_use_is_refused(
    mosquitto: Mosquitto, tmp_path: Path, models: Path, size: str, code: str, error: str
) -> None:
    with operated(mosquitto, tmp_path, models) as (operator, _):
        answer = operator.ask("set_model_size", size=size)
        assert (answer["status"], answer["code"]) == ("error", code), answer
        assert error in answer["error"]
        operator.await_more(2)
        status = operator.status()
        assert (status["models"]["model_size"], status["changed"]) == ("n", [])


def test_a_second_change_meanwhile_is_busy_and_other_commands_wait(
    mosquitto: Mosquitto, tmp_path: Path, models: Path
) -> None:
    with operated(mosquitto, tmp_path, models) as (operator, _):
        first = operator.send("set_model_size", size="s")
        second = operator.send("set_model_size", size="n")
        third = operator.send("get_status")
        assert operator.answer(second)["code"] == "busy"
        assert operator.answer(first)["status"] == "success"
        assert operator.answer(third)["data"]["models"]["model_size"] == "s"


def test_thresholds_and_classes_change_like_models(mosquitto: Mosquitto, tmp_path: Path, models: Path) -> None:
    with operated(mosquitto, tmp_path, models, "--source", SMALL, "--attention", "off") as (operator, _):
        assert operator.await_more(1)[0]["data"]["count"] == 1
        part = {"models": {"person_detector": {"confidence": 0.95}}, "attention": {"alpha": 0.7}}
        applied = operator.do("update_config", config=part)["applied"]
        assert applied == ["attention.alpha", "models.person_detector.confidence"]
        # Who is known already stays, with less than what who appears must have ...
        assert operator.await_more(2)[-1]["data"]["detections"][0]["kept"]
        # ... until that is asked of them, too.
        operator.do("update_config", config={"models": {"person_detector": {"confidence_keep": 0.95}}})
        assert operator.await_more(2)[-1]["data"]["count"] == 0
        wrong = {"models": {"person_detector": {"classes": ["unicorn"]}}, "attention": {"alpha": 0.1}}
        answer = operator.ask("update_config", config=wrong)
        assert answer["code"] == "failed"
        assert "unicorn" in answer["error"]
        assert operator.status()["config"]["attention"]["alpha"] == 0.7


def test_idle_streams_do_not_hold_the_answer_back(mosquitto: Mosquitto, tmp_path: Path, models: Path) -> None:
    with BlackHole() as hole:
        sources = (SMALL, "rtsp://127.0.0.1:1/x", "demo:160x120@1", f"http://127.0.0.1:{hole.port}/x")
        options = [word for source in sources for word in ("--source", source)]
        with operated(mosquitto, tmp_path, models, *options, "--workers", "2") as (operator, _):
            operator.do("pause_inference", stream_id="cam0")
            assert operator.do("set_model_size", size="s")["model_size"] == "s"


def test_a_worker_that_dies_later_comes_back_with_the_new_pair(
    mosquitto: Mosquitto, tmp_path: Path, models: Path
) -> None:
    with operated(mosquitto, tmp_path, models) as (operator, _):
        operator.do("set_model_size", size="s")
        worker = operator.status()["workers"][0]
        os.kill(worker["pid"], signal.SIGKILL)
        until(lambda: operator.events("worker_restarted"), "its successor")
        operator.await_more(2)
        assert operator.results()[-1]["data"]["metadata"]["model_name"] == "yolo11s"


def test_a_worker_that_dies_while_it_loads_leaves_the_old_pair_everywhere(
    mosquitto: Mosquitto, tmp_path: Path, models: Path
) -> None:
    with operated(mosquitto, tmp_path, models, "--source", SMALL, "--source", SMALL) as (operator, _):
        # One that still starts would not be asked to load.
        operator.await_more(1, "cam1")
        pids = [worker["pid"] for worker in operator.status()["workers"]]
        # A stopped worker is asked to load and does not: its death comes surely in between.
        operator.do("pause_inference")
        os.kill(pids[1], signal.SIGSTOP)
        request = operator.send("update_config", config={"models": {"person_detector": {"confidence": 0.6}}})
        assert operator.ask("set_model_size", size="s")["code"] == "busy", "the change is not under way"
        os.kill(pids[1], signal.SIGKILL)
        answer = operator.answer(request)
        assert answer["code"] == "failed"
        assert "w1 was killed by signal 9" in answer["error"]
        operator.do("resume_inference")
        until(lambda: operator.events("worker_restarted"), "its successor")
        operator.await_more(2, "cam1")
        assert {worker["model_size"] for worker in operator.status()["workers"]} == {"n"}
        assert operator.do("set_model_size", size="s")["model_size"] == "s"


def test_a_worker_without_memory_for_the_new_pair_keeps_the_old_one(
    mosquitto: Mosquitto, tmp_path: Path, testdata: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for side in (320, 640):
        (folder / f"yolo11n_{side}.onnx").symlink_to(testdata / "models" / f"yolo11n_fp32_{side}.onnx")
    part = {"models": {"person_detector": {"confidence": 0.6}}}
    with operated(mosquitto, tmp_path, folder) as (operator, _):
        operator.do("pause_inference")
        worker = operator.status()["workers"][0]["pid"]
        virtual = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.prlimit(worker, resource.RLIMIT_AS, (virtual + 20_000_000, resource.RLIM_INFINITY))
        answer = operator.ask("update_config", config=part)
        assert answer["code"] == "failed", answer
        assert re.search("memory|allocat|thread", answer["error"]), answer
        resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        operator.do("resume_inference")
        operator.await_more(2)
        status = operator.status()
        assert (status["workers"][0]["pid"], status["changed"]) == (worker, [])
        assert operator.do("update_config", config=part)["applied"] == ["models.person_detector.confidence"]


def test_a_hundred_changes_leave_nothing_behind(mosquitto: Mosquitto, tmp_path: Path, models: Path) -> None:
    def usage(pid: int) -> tuple[float, ...]:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        return *(len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("fd", "task")), resident

    part = {"models": {"person_detector": {"confidence": 0.5}}}
    with operated(mosquitto, tmp_path, models) as (operator, instance):
        worker = operator.status()["workers"][0]["pid"]
        for number in range(3):
            part["models"]["person_detector"]["confidence"] = 0.4 + number / 1000
            operator.do("update_config", config=part)
        before = {pid: usage(pid) for pid in (worker, instance.pid)}
        for number in range(100):
            part["models"]["person_detector"]["confidence"] = 0.5 + number / 1000
            operator.do("update_config", config=part)
        for pid, (descriptors, threads, resident) in before.items():
            after = usage(pid)
            assert after[0] <= descriptors + 1, "descriptors are left"
            assert after[1] <= threads + 1, "threads are left"
            assert after[2] <= max(resident * 1.05, resident + 10)
