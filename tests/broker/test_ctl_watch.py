"""`orion ctl` and `orion watch` as operators use them: real processes, a real instance, real brokers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.mosquitto import Mosquitto, free_port
from tests.instances import LIMIT_S, environment, running, until

SMALL = "demo:320x240@10"
CAM = f"ctl-{os.getpid()}"


def ctl(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return of_any(folder, "ctl", "--instance-id", CAM, *words)


def of_any(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orion", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@contextmanager
def watching(folder: Path, *words: str) -> Iterator[Path]:
    """Run a watcher and give the file that it prints to."""
    printed = folder / "watch.out"
    command = [sys.executable, "-m", "orion", "watch", "--instance-id", CAM, *words]
    with printed.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=file, stderr=file)
    try:
        yield printed
        assert process.poll() is None, printed.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_local_instance_is_found_commanded_and_watched(tmp_path: Path) -> None:
    absent = ctl(tmp_path, "get_status")
    assert absent.returncode == 3
    assert "does not run on this machine" in absent.stderr
    with running(tmp_path, "--source", SMALL, instance_id=CAM, broker="embedded") as instance:
        instance.await_results(1)
        with watching(tmp_path) as printed:
            status = ctl(tmp_path, "get-status", "--json")
            assert status.returncode == 0, status.stderr
            assert json.loads(status.stdout)["data"]["instance_id"] == CAM
            rate = of_any(tmp_path, "ctl", "set_inf", "rate_hz=5")
            assert (rate.returncode, rate.stdout) == (0, "set_inference_rate: success\ninference_rate_hz: 5.0\n")
            refused = ctl(tmp_path, "set_model_size", "size=l")
            assert refused.returncode == 1
            assert "not_found" in refused.stdout
            unsent = ctl(tmp_path, "set_inf", "rate_hz=500")
            assert (unsent.returncode, unsent.stdout) == (2, "")
            assert ctl(tmp_path, "restart_worker", "worker_id=w0").returncode == 0
            until(lambda: "worker_restarted w0" in printed.read_text(), "the event")
            until(lambda: "cam0: running" in printed.read_text(), "the stream")
        assert ctl(tmp_path, "shutdown").returncode == 0
        assert instance.process.wait(30) == 0


def test_nobody_answers_through_an_empty_or_absent_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    with watching(tmp_path, "--broker", url) as printed:
        silent = ctl(tmp_path, "--broker", url, "--timeout", "1", "get_status")
        assert silent.returncode == 3
        assert "did not answer in time; a broker with rights must let clients without a name write to" in silent.stderr
        absent = ctl(tmp_path, "--broker", f"mqtt://127.0.0.1:{free_port()}", "--timeout", "1", "get_status")
        assert absent.returncode == 3
        assert "the broker cannot be reached" in absent.stderr
        until(lambda: f"{CAM}: nobody of this id answers" in printed.read_text(), "that is told")


def test_a_command_that_may_take_long_waits_no_longer_for_the_broker(tmp_path: Path) -> None:
    began_s = time.monotonic()
    absent = ctl(tmp_path, "--broker", f"mqtt://127.0.0.1:{free_port()}", "set_model_size", "size=n")
    assert absent.returncode == 3
    assert "the broker cannot be reached" in absent.stderr
    assert time.monotonic() - began_s < 30


def test_a_broker_that_turns_us_away_is_told_at_once_with_what_to_check(
    program: Callable[[str, str], str], tmp_path: Path
) -> None:
    with Mosquitto(program("mosquitto", "mosquitto"), tmp_path, ["allow_anonymous false"]) as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        refused = ctl(tmp_path, "--broker", url, "--timeout", str(LIMIT_S), "get_status")
    assert refused.returncode == 3
    assert "the broker refuses: Not authorized; check mqtt.username and mqtt.password_file" in refused.stderr


def test_watching_survives_the_loss_of_the_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    with running(tmp_path, "--source", SMALL, instance_id=CAM, broker=url) as instance:
        instance.await_results(1)
        with watching(tmp_path, "--broker", url) as printed:
            until(lambda: "cam0: running" in printed.read_text(), "the stream")
            assert [line for line in printed.read_text().splitlines() if line.startswith(CAM)] == [
                f"{CAM}: connecting to {url}", f"{CAM}: connected", f"{CAM}: online"
            ]  # fmt: skip
            mosquitto.kill()
            until(lambda: "disconnected" in instance.errors(), "the loss")
            until(lambda: f"{CAM}: no broker: " in printed.read_text(), "the loss is told")
            mosquitto.start()
            until(lambda: instance.errors().count("connected: 127.0.0.1") >= 2, "the instance is back")
            until(lambda: printed.read_text().count(f"{CAM}: online") >= 2, "that is told")
            seen = printed.read_text().count("cam0: running")
            until(lambda: printed.read_text().count("cam0: running") >= seen + 2, "the watcher is back")
            assert instance.stop() == 0
            until(lambda: f"{CAM}: offline" in printed.read_text(), "the end is told")


def test_a_watcher_tells_that_there_is_no_broker(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    with watching(tmp_path, "--broker", url) as printed:
        until(lambda: "no broker" in printed.read_text(), "the reason")
        assert printed.read_text().startswith(f"{CAM}: connecting to {url}\n{CAM}: no broker: ")
