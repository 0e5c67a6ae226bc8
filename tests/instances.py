"""A real `orion run` in a process of its own, with its state in a folder of the test."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 60.0
"""For what must happen some time; generous, since test machines are busy."""


def until(holds: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Wait until `holds` gives something true, and return that; fail the test when it does not."""
    deadline = time.monotonic() + limit_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.01)
    return found


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment without the caller's settings, with every state below `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORION_")}
    runtime = folder / "runtime"
    runtime.mkdir(exist_ok=True)
    return kept | {"XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": str(folder / "state")} | more


@dataclass
class Instance:
    """A running instance; `results` is the file that it writes."""

    process: subprocess.Popen[str]
    folder: Path
    results: Path
    instance_id: str
    seen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def lines(self) -> list[dict[str, Any]]:
        """Return the results written so far."""
        if not self.results.exists():
            return []
        return [json.loads(line) for line in self.results.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def errors(self) -> str:
        """Return what it wrote to stderr so far."""
        return (self.folder / f"{self.instance_id}.stderr").read_text()

    def await_results(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many results are written."""

        def enough() -> list[dict[str, Any]] | None:
            assert self.process.poll() is None or len(self.lines()) >= count, f"it has ended:\n{self.errors()}"
            lines = self.lines()
            return lines if len(lines) >= count else None

        found: list[dict[str, Any]] = until(enough, f"{count} results; stderr:\n{self.errors()}")
        return found

    def children(self) -> dict[int, str]:
        """Return the pids of its child processes and their command lines, resource trackers left out."""
        listing = subprocess.run(
            ["ps", "-ww", "--ppid", str(self.pid), "-o", "pid=,stat=,args="],
            capture_output=True,
            text=True,
            check=False,
        )
        found = {}
        for line in listing.stdout.splitlines():
            pid, stat, args = line.split(None, 2)
            if not stat.startswith("Z") and "resource_tracker" not in args:
                found[int(pid)] = args
        return found

    def tracker(self) -> int | None:
        """Return the pid of its resource tracker."""
        listing = subprocess.run(
            ["ps", "-ww", "--ppid", str(self.pid), "-o", "pid=,args="], capture_output=True, text=True, check=False
        )
        pids = [int(line.split()[0]) for line in listing.stdout.splitlines() if "resource_tracker" in line]
        return pids[0] if pids else None

    def segments(self) -> list[str]:
        """Return its shared-memory segments."""
        return sorted(path.name for path in Path("/dev/shm").glob(f"orion.{self.instance_id}.*"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


@contextmanager
def running(
    folder: Path, *options: str, instance_id: str | None = None, broker: str = "none", **env: str
) -> Iterator[Instance]:
    """Run an instance; it is killed at the end if the test has not stopped it."""
    name = instance_id or f"test-{os.getpid()}"
    results = folder / f"{name}.jsonl"
    results.unlink(missing_ok=True)
    command = [sys.executable, "-m", "orion", "run", "--instance-id", name, "--broker", broker]
    command += ["--results", str(results), *options]
    with (folder / f"{name}.stderr").open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder, **env), stderr=stderr, stdout=subprocess.PIPE, text=True
        )
    instance = Instance(process, folder, results, name)
    try:
        yield instance
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(LIMIT_S)
        assert process.stdout is not None
        process.stdout.close()
