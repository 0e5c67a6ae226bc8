"""Signals to the whole group, as a terminal and a service manager send them, in the moment when a child has just been
started and could not yet say that it ignores them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.instances import LIMIT_S, environment, running, until
from tests.models import placed

SMALL = "demo:320x240@10"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SPAWNED, CATALOGUE = "spawn_main", "catalogue_cli"
"""What stands in the command line of a worker or broker process, and of one that looks into a folder of models."""
BOXES = [[10.0, 20.0, 110.0, 220.0, 0.9, 0.0]]


def below(pid: int, words: str) -> set[int]:
    """Return the pids of a process's children with these words in their command lines."""
    listing = subprocess.run(
        ["ps", "-ww", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True, check=False
    )
    return {int(line.split()[0]) for line in listing.stdout.splitlines() if words in line}


def test_children_that_have_just_been_started_do_not_heed_them(tmp_path: Path) -> None:
    with running(tmp_path, "--source", SMALL, broker="embedded") as instance:
        sent: set[int] = set()
        while len(sent) < 2:
            for child in until(lambda: below(instance.pid, SPAWNED) - sent, "a broker, then a worker"):
                for number in SIGNALS:
                    os.kill(child, number)
                sent.add(child)
        instance.await_results(1)
        assert below(instance.pid, SPAWNED) == sent
        assert instance.stop() == 0
        assert "starting" not in instance.errors()


def interrupted(folder: Path, arguments: list[str], child: str) -> tuple[int, str]:
    """Press Ctrl-C as soon as a command has such a child; return its exit code and what it wrote to stderr."""
    with subprocess.Popen(
        [sys.executable, "-m", "orion", *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            until(lambda: below(process.pid, child), f"a child with {child}")
            os.killpg(process.pid, signal.SIGINT)
            return process.wait(LIMIT_S), process.communicate()[1]
        finally:
            process.kill()


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Return options that name a folder of models."""
    for size in (640, 320):
        placed(tmp_path / f"yolo11n_{size}.onnx", size, BOXES)
    return ["--model-dir", str(tmp_path)]


@pytest.mark.parametrize("child", [SPAWNED, CATALOGUE])
def test_a_run_that_is_starting_stops_in_order(tmp_path: Path, models: list[str], child: str) -> None:
    run = ["run", "--source", SMALL, "--instance-id", f"early-{os.getpid()}"]
    code, errors = interrupted(tmp_path, [*run, *(models if child == CATALOGUE else [])], child)
    assert code == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "child"),
    [
        (lambda models: ["models", "verify", *models], CATALOGUE),
        (lambda _: ["doctor", "--source", SMALL, "--broker", "none"], SPAWNED),
    ],
    ids=["models", "doctor"],
)
def test_other_commands_end_with_130_and_no_word(
    tmp_path: Path, models: list[str], arguments: Callable[[list[str]], list[str]], child: str
) -> None:
    assert interrupted(tmp_path, arguments(models), child) == (130, "")
