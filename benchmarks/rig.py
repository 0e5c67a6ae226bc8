"""What long runs are made of beside a broker: a listener that hears everything and commands, and a whole `orion run` in
a process of its own. Used by the main thread of a benchmark; the listener has a thread of paho's.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from benchmarks.mosquitto import HOST, LIMIT_S, wait_until

Key = tuple[str, str, int]
"""What a result is unique by: run, stream, number."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on the health topic, and when it came by the monotonic clock."""

    at_s: float
    content: dict[str, Any]


class Listener:
    """Hears results, events and answers of one instance, and comes back by itself after an outage."""

    def __init__(self, port: int, instance_id: str) -> None:
        self.results: dict[Key, float] = {}
        """Those that came, and when the first copy did."""
        self.replayed = 0
        self.duplicates = 0
        self.disordered = 0
        """First copies that came after a later frame of their stream."""
        self.health: list[Heard] = []
        self.connections = 0
        self.run_id = ""
        """Of the result that came last."""
        self._newest: dict[tuple[str, str], int] = {}
        self._topics = {kind: f"care/{kind}/{instance_id}" for kind in ("control", "health", "status")}
        self._topics["inferences"] = f"care/inferences/{instance_id}/person_detection"
        self._numbers = itertools.count()
        self._online: list[float] = []
        self._client = Client(CallbackAPIVersion.VERSION2, f"{instance_id}-listener", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._port = port

    def last_of(self, stream_id: str) -> float:
        """Return when the newest result of a stream came."""
        return max((at_s for key, at_s in list(self.results.items()) if key[1] == stream_id), default=0.0)

    def online_after(self, moment_s: float) -> bool:
        """Return whether the instance said `online` after that."""
        return any(at_s > moment_s for at_s in list(self._online))

    def events(self, *names: str, since_s: float = 0.0) -> list[Heard]:
        """Return the events of these names that came since then."""
        return [one for one in list(self.health) if one.content.get("event") in names and one.at_s >= since_s]

    def ask(self, command: str, limit_s: float = LIMIT_S, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer. Raises TimeOverError."""
        request_id = f"b{next(self._numbers)}"
        request = {"command": command, "params": params, "request_id": request_id}
        self._client.publish(self._topics["control"], json.dumps(request), 1)
        seen = len(self.health)

        def answer() -> dict[str, Any] | None:
            heard = self.health[seen:]
            return next((one.content for one in heard if one.content.get("request_id") == request_id), None)

        found: dict[str, Any] = wait_until(answer, f"the answer to {command}", limit_s)
        return found

    def do(self, command: str, **params: Any) -> dict[str, Any]:
        """Send a command that must succeed; return its data."""
        answer = self.ask(command, **params)
        if answer["status"] == "error":
            sys.exit(f"{command} failed: {answer['error']}")
        data: dict[str, Any] = answer["data"]
        return data

    def __enter__(self) -> Self:
        self._client.connect(HOST, self._port)
        self._client.loop_start()
        wait_until(lambda: self.connections, "the listener is connected")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if not code.is_failure:
            client.subscribe([(self._topics[kind], 1) for kind in ("inferences", "health", "status")])
            self.connections += 1

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        content, now_s = json.loads(message.payload), time.monotonic()
        if message.topic == self._topics["health"]:
            self.health.append(Heard(now_s, content))
        elif message.topic == self._topics["status"]:
            if content["status"] == "online" and not message.retain:
                self._online.append(now_s)
        else:
            self._take_result(content, now_s)

    def _take_result(self, content: dict[str, Any], now_s: float) -> None:
        run_id, stream_id, seq = key = (content["run_id"], content["stream_id"], content["frame_seq"])
        self.run_id = run_id
        self.replayed += bool(content.get("replayed"))
        if key in self.results:
            self.duplicates += 1
            return
        self.results[key] = now_s
        self.disordered += seq < self._newest.get((run_id, stream_id), -1)
        self._newest[run_id, stream_id] = seq


class Instance:
    """An instance in `folder`, with a configuration of its own, started as often as need be; a context manager."""

    def __init__(
        self, folder: Path, instance_id: str, config: Mapping[str, Any], entry: Sequence[str] = ("-m", "orion")
    ) -> None:
        self.instance_id = instance_id
        self.folder = folder
        self.runs = 0
        self._command = [sys.executable, *entry, "run", "--config", str(folder / "orion.yaml")]
        (folder / "orion.yaml").write_text(yaml.safe_dump({"instance_id": instance_id, **config}))
        (folder / "runtime").mkdir(mode=0o700)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ORION_")}
        places = {"XDG_RUNTIME_DIR": str(folder / "runtime"), "XDG_STATE_HOME": str(folder / "state")}
        self._environ = kept | places | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Return whether the supervisor has ended."""
        return self._process is None or self._process.poll() is not None

    def start(self) -> None:
        """Start it; results go to a new file."""
        self.runs += 1
        command = [*self._command, "--results", str(self.folder / f"results-{self.runs}.jsonl")]
        with (self.folder / f"log-{self.runs}.txt").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=self._environ, stdout=subprocess.DEVNULL, stderr=log
            )

    def send(self, number: int) -> None:
        """Send the supervisor a signal."""
        os.kill(self.pid, number)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Wait for the end and return the exit code."""
        assert self._process is not None
        return self._process.wait(limit_s)

    def log(self) -> str:
        """Return the end of what the present run has logged."""
        return (self.folder / f"log-{self.runs}.txt").read_text(errors="replace")[-4000:]

    def written(self) -> set[Key]:
        """Return the results that all runs have written whole to their files."""
        found = set()
        for path in self.folder.glob("results-*.jsonl"):
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    one = json.loads(line)
                    found.add((one["run_id"], one["stream_id"], one["frame_seq"]))
        return found

    def segments(self) -> list[str]:
        """Return the names of its shared-memory segments."""
        return sorted(path.name for path in Path("/dev/shm").glob(f"orion.{self.instance_id}.*"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.ended:
            self.send(signal.SIGTERM)
            try:
                self.wait(15.0)
            except subprocess.TimeoutExpired:
                assert self._process is not None
                self._process.kill()
                self._process.wait()


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    """Return the child processes of a process, from all its threads (proc(5))."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in path.read_text().split()]
    return sorted(found)


def command_line(pid: int) -> str:
    """Return the arguments of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def write_models(folder: Path, sizes: str = "ns") -> None:
    """Write whole pairs of models that answer one box, whatever they see, in almost no time."""
    try:
        import onnx  # noqa: PLC0415 - an extra, needed by who wants this benchmark
        from onnx import TensorProto, helper  # noqa: PLC0415
    except ImportError:
        sys.exit("this benchmark needs onnx: pip install onnx")
    for size, side in itertools.product(sizes, (320, 640)):
        box = [side / 2, side / 2, side / 4, side / 2, 0.9]
        graph = helper.make_graph(
            [helper.make_node("Identity", ["answer"], ["output0"])],
            "fixed",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
            [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 5, 1])],
            [helper.make_tensor("answer", TensorProto.FLOAT, [1, 5, 1], box)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(
            model, {"task": "detect", "stride": "32", "imgsz": str([side, side]), "names": "{0: 'person'}"}
        )
        onnx.save(model, str(folder / f"yolo11{size}_{side}.onnx"))
