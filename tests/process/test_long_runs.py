"""Short versions of the benchmarks that torment a whole instance: everything heals, nothing is lost, left, or grows."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.conftest import REPOSITORY


def report_of(*arguments: str) -> dict[str, Any]:
    """Run a benchmark; return its report, after it has met all its limits."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    report: dict[str, Any] = json.loads(done.stdout)
    assert all(bar["met"] for bar in report["bars"])
    return report


def test_faults_of_every_kind_heal_and_lose_no_result(program: Callable[[str, str], str]) -> None:
    program("mosquitto", "mosquitto")
    rows = report_of("benchmarks.chaos", "--short", "--seed", "5")["results"]
    assert len(rows) >= 5
    for row in rows:
        assert row["results_lost"] == 0
        assert row["left_behind"] == "nothing"
        kind, fault = row["fault"].split(" ", 1)
        if kind == "worker":
            assert row["recovered_s"] < (3.0 if fault.startswith("sigstop") else 2.0), row
        if row["fault"] == "supervisor sigkill":
            assert row["detected_s"] < 2.0


def test_nothing_grows(program: Callable[[str, str], str]) -> None:
    program("mosquitto", "mosquitto")
    report = report_of("benchmarks.soak", "--scale", "0.01")
    assert report["settings"]["kills"] == report["settings"]["swaps"] == 2
    assert report["settings"]["reconnects"] == 10
