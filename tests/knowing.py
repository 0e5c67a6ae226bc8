"""What tests see of who is known on a stream: the notes of workers that know somebody, the results and the events of a
supervisor around them, and commands to it.
"""

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from orion.capture import CaptureSettings
from orion.commands import Commands
from orion.config import Config
from orion.handle import WorkerHandle
from orion.messages import Known
from orion.supervisor import Supervisor
from tests.harness import Collected

KNOWING = "tests.detectors:Knowing"
SOURCE = "demo:160x120@30"
OTHER = "demo:160x120@25"
EVERY_FRAME = CaptureSettings(every_frame=True)
"""So that the fourth frame is 0.1 s after the first, however busy the machine is."""


def told(folder: Path, worker_id: str = "w0") -> list[dict[str, Any]]:
    """Return what a worker was told and answered, in order, over all its processes."""
    lines = (folder / f"{worker_id}.told").read_text().splitlines()
    notes = [json.loads(line) for line in lines]
    for note in notes:
        for name in ("given", "answered"):
            if note.get(name) is not None:
                note[name] = msgspec.convert(note[name], Known)
    return notes


def requests(folder: Path, worker_id: str = "w0", stream_id: str = "cam0") -> list[dict[str, Any]]:
    return [note for note in told(folder, worker_id) if note.get("stream") == stream_id]


def heirs(notes: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the last note of each process but the last, and the first note of the one after it."""
    return [(last, first) for last, first in itertools.pairwise(notes) if last["pid"] != first["pid"]]


def kill(handle: WorkerHandle) -> None:
    """Kill a worker's process. At a result of the only worker there is no frame under way."""
    assert handle.pid is not None
    os.kill(handle.pid, signal.SIGKILL)


def since(results: list[dict[str, Any]]) -> list[str]:
    """Return the different times since when somebody is gone, in order."""
    return list(dict.fromkeys(one["since"] for result in results for one in result["data"]["vanished"]))


def gone_s(supervisor: Supervisor, stream_id: str = "cam0") -> float:
    """Return how long somebody has been gone, by the stream's clock."""
    kept = supervisor.streams[stream_id].known._kept
    return kept.known.time_s - kept.known.vanished[0].since_s if kept is not None else 0.0


class Operated:
    """Commands to a supervisor, also while the worker has the frame that stands at the gate."""

    def __init__(self, supervisor: Supervisor, collected: Collected, folder: Path) -> None:
        streams = [{"stream_id": "cam0", "source": SOURCE, "room_id": "room"}]
        config = Config.model_validate({"streams": streams, "run": {"every_frame": True}})
        self._commands = Commands(supervisor, config, config, folder / "changes.yaml")
        supervisor.controller = self._commands
        self._stream, self._folder = supervisor.streams["cam0"], folder
        self._collected, self._tick = collected, collected.tick
        self._waiting: dict[str, Any] | None = None

    def ask(self, command: str, **params: Any) -> None:
        """Send a command; the answer is among the events."""
        payload = json.dumps({"command": command, "params": params}).encode()
        self._commands.receive(payload, len(payload))

    def ask_at_the_gate(self, command: str, **params: Any) -> None:
        """Send the command while the worker has the frame, then let it go on."""
        self._waiting = {"command": command, **params}
        self._collected.tick = self._look  # type: ignore[method-assign]

    def _look(self, describe: Callable[[], dict[str, Any]]) -> None:
        self._tick(describe)
        if self._waiting is not None and (self._folder / "w0.gate").exists():
            assert self._stream.answering
            waiting, self._waiting = self._waiting, None
            self.ask(**waiting)
            (self._folder / "w0.go").touch()

    def answers(self) -> list[dict[str, Any]]:
        """Return the answers so far."""
        return [event for event in self._collected.events if "command_ack" in event]
