"""What commands cost a running instance: gaps between results around changes of models against those without, drops,
time to load and to answer; the time to answer changes of rate, regions and strategy; and what a hundred more changes
leave behind in the processes. A whole `orion run` with its embedded broker at 10 frames a second, commanded over MQTT
like any other; the pair is loaded anew at each change.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.inputs import default_pair
from benchmarks.report import Bar, Report, Row, add_plot_option, describe_model, publish, spread
from orion.config import Config
from orion.lock import read_lock
from orion.mqtt import Received
from orion.remote import Remote, read_message

_LIMIT_S = 60.0
_AROUND_S = 1.0
"""Results so long before and after a change belong to it."""
_ROI = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}
_LIVE: tuple[tuple[str, tuple[Mapping[str, Any], ...]], ...] = (
    ("set_inference_rate", ({"rate_hz": 9.0}, {"rate_hz": None})),
    ("set_attention_rois", ({"rois": [_ROI]}, {"rois": [_ROI, _ROI]})),
    ("set_auto_focus_strategy", ({"strategy": "smoothing"}, {"strategy": "simple"})),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of models: when it was asked for and answered."""

    asked_s: float
    answered_s: float


class Listener:
    """Commands an instance, whose process is `pid`, and notes when each of its results came."""

    def __init__(self, config: Config, remote: Remote, pid: int) -> None:
        self.pid = pid
        self._remote = remote
        self._topics = config.mqtt.topics.expanded(config.instance_id)
        self._requests = 0
        self.times_s: list[float] = []
        self.loads_ms: list[float] = []

    def ask(self, command: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Return the data of the answer and the seconds that it took."""
        self._requests += 1
        request_id = f"b{self._requests}"
        asked_s = time.monotonic()
        request = {"command": command, "params": params, "request_id": request_id}
        self._remote.publish(self._topics["control"], json.dumps(request).encode())
        while time.monotonic() < asked_s + _LIMIT_S:
            for message in self.listen(time.monotonic() + 1.0):
                if message.get("request_id") == request_id:
                    if message["status"] == "error":
                        sys.exit(f"{command} failed: {message['error']}")
                    return message["data"], time.monotonic() - asked_s
        sys.exit(f"{command} was not answered within {_LIMIT_S:g} s")

    def listen(self, until_s: float) -> list[dict[str, Any]]:
        """Wait for what comes next, note results, and return the rest."""
        rest = []
        for heard in self._remote.wait(until_s):
            message = read_message(heard) if isinstance(heard, Received) else None
            if message is not None and message.get("type") == "person_detection":
                self.times_s.append(time.monotonic())
            elif message is not None and message.get("event") == "model_reloaded":
                self.loads_ms.append(message["load_ms"])
            elif message is not None:
                rest.append(message)
        return rest

    def listen_for(self, seconds: float) -> None:
        """Note results for so long."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.listen(until_s)

    def gaps_ms(self, first_s: float, last_s: float) -> list[float]:
        """Return the gaps between the results of a span of time."""
        times_s = [moment for moment in self.times_s if first_s <= moment <= last_s]
        return [(later - earlier) * 1e3 for earlier, later in pairwise(times_s)]


@dataclass(slots=True)
class _Span:
    """A span of time, and the frames that were dropped in it."""

    first_s: float
    drops: int
    last_s: float = 0.0

    @classmethod
    def begin(cls, listener: Listener) -> "_Span":
        return cls(time.monotonic(), -_dropped(listener))

    def end(self, listener: Listener) -> None:
        self.drops += _dropped(listener)
        self.last_s = time.monotonic()

    @property
    def drops_hz(self) -> float:
        return self.drops / (self.last_s - self.first_s)


@dataclass(frozen=True, slots=True)
class _Footprint:
    """What a process holds."""

    descriptors: int
    threads: int
    resident_mb: float

    @classmethod
    def of(cls, pid: int) -> "_Footprint":
        folder = Path(f"/proc/{pid}")
        pages = int((folder / "statm").read_text().split()[1])
        descriptors, threads = (len(list((folder / name).iterdir())) for name in ("fd", "task"))
        return cls(descriptors, threads, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def bars(self, what: str, before: "_Footprint") -> Iterator[Bar]:
        """Compare with what it held before."""
        yield Bar(f"{what}: descriptors, {before.descriptors} before", self.descriptors, before.descriptors)
        yield Bar(f"{what}: threads, {before.threads} before", self.threads, before.threads)
        limit_mb = round(max(before.resident_mb * 1.05, before.resident_mb + 10), 1)
        yield Bar(f"{what}: resident MB, {before.resident_mb:.1f} before", round(self.resident_mb, 1), limit_mb)


def _dropped(listener: Listener) -> int:
    return sum(sum(stream["dropped"].values()) for stream in _status(listener)["streams"])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=20, help="changes of models (default: 20)")
    parser.add_argument("--more", type=int, default=100, help="changes one after the other at the end (default: 100)")
    parser.add_argument("--asks", type=int, default=50, help="times that each other command is asked (default: 50)")
    parser.add_argument("--fps", type=float, default=10.0, help="frames a second (default: 10)")
    parser.add_argument("--attention", choices=("on", "off"), default="off", help="(default: off, every frame whole)")
    add_plot_option(parser)
    chosen = parser.parse_args()
    with instance(chosen.fps, chosen.attention) as listener:
        listener.listen_for(3.0)
        quiet = _Span.begin(listener)
        listener.listen_for(chosen.changes * _AROUND_S / 2)
        quiet.end(listener)
        around = _Span.begin(listener)
        changes = [_change(listener, number) for number in range(chosen.changes)]
        around.end(listener)
        rows = _change_rows(listener, quiet, around, changes)
        answers = [_answer_row(listener, command, variants, chosen.asks) for command, variants in _LIVE]
        inference_ms = _status(listener)["latency_ms"]["inference"]["p50"]
        left = _many_changes(listener, chosen.more)
    bars = [
        Bar("longest gap around a change (ms)", rows[1]["max_ms"], max(200.0, 2e3 / chosen.fps, 2 * inference_ms)),
        Bar("drops a second around changes, above those in quiet", around.drops_hz - quiet.drops_hz, 0.0),
        *(Bar(f"{row['what']}: p95 (ms)", row["p95_ms"], 50.0) for row in answers),
        *left,
    ]
    pair = default_pair()
    files = {"640": pair.model_640, "320": pair.model_320}
    described = {role: describe_model(path) for role, path in files.items() if path is not None}
    settings = {name: value for name, value in vars(chosen).items() if name != "plot"}
    publish(Report("hot_reload", settings, [*rows, *answers], bars, described), chosen.plot)


@contextmanager
def instance(fps: float, attention: str) -> Iterator[Listener]:
    """Run an instance and listen to it."""
    pair = default_pair()
    name = f"bench-{os.getpid()}"
    config = Config(instance_id=name)
    command = [sys.executable, "-m", "orion", "run", "--instance-id", name, "--source", f"demo:640x480@{fps:g}"]
    command += ["--model", str(pair.model_640), "--attention", attention]
    command += ["--model-320", str(pair.model_320)] if pair.model_320 is not None else []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        environ = os.environ | {"XDG_STATE_HOME": folder}
        process = subprocess.Popen(command, cwd=folder, env=environ, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.send_signal, signal.SIGTERM)
        topics = config.mqtt.topics.expanded(name)
        results = topics["inferences"].replace("{type}", "person_detection")
        url = _await_broker(config, process)
        remote = stack.enter_context(Remote(config, url, {topics["health"]: 1, results: 1}))
        remote.await_ready(time.monotonic() + _LIMIT_S)
        listener = Listener(config, remote, process.pid)
        deadline_s = time.monotonic() + _LIMIT_S
        while not listener.times_s and time.monotonic() < deadline_s:
            listener.listen(deadline_s)
        yield listener


def _await_broker(config: Config, process: subprocess.Popen[bytes]) -> str:
    deadline_s = time.monotonic() + _LIMIT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        lock = read_lock(config.instance_id)
        if lock is not None and lock.broker is not None:
            return lock.broker
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    sys.exit("the instance did not start")


def _change(listener: Listener, number: int) -> Change:
    """Load the pair anew, under a threshold that differs, and wait until its traces are gone."""
    confidence = 0.4 + number % 2 / 10
    asked_s = time.monotonic()
    _load_anew(listener, confidence)
    answered_s = time.monotonic()
    listener.listen_for(_AROUND_S)
    return Change(asked_s, answered_s)


def _load_anew(listener: Listener, confidence: float) -> None:
    listener.ask("update_config", {"config": {"models": {"person_detector": {"confidence": confidence}}}})


def _many_changes(listener: Listener, count: int) -> list[Bar]:
    """Change models so often, one after the other, and say what that left in the processes."""
    processes = {"supervisor": listener.pid} | {one["worker_id"]: one["pid"] for one in _status(listener)["workers"]}
    before = {what: _Footprint.of(pid) for what, pid in processes.items()}
    for number in range(count):
        _load_anew(listener, 0.6 + number % 2 / 10)
    listener.listen_for(_AROUND_S)
    return [bar for what, pid in processes.items() for bar in _Footprint.of(pid).bars(what, before[what])]


def _status(listener: Listener) -> dict[str, Any]:
    status, _ = listener.ask("get_status", {})
    return status


def _change_rows(listener: Listener, quiet: _Span, around: _Span, changes: list[Change]) -> list[Row]:
    near = [gap for one in changes for gap in listener.gaps_ms(one.asked_s - _AROUND_S, one.answered_s + _AROUND_S)]
    return [
        _row("gap between results, quiet", listener.gaps_ms(quiet.first_s, quiet.last_s)) | {"drops": quiet.drops},
        _row("gap between results, around changes", near) | {"drops": around.drops},
        _row("answer to a change of models", [(one.answered_s - one.asked_s) * 1e3 for one in changes]),
        _row("load of the pair", listener.loads_ms),
    ]


def _answer_row(listener: Listener, command: str, variants: tuple[Mapping[str, Any], ...], asks: int) -> Row:
    taken_ms = [listener.ask(command, variants[number % len(variants)])[1] * 1e3 for number in range(asks)]
    return _row(f"answer to {command}", taken_ms)


def _row(what: str, durations_ms: list[float]) -> Row:
    figures = spread(durations_ms)
    return {
        "what": what,
        "count": figures.count,
        "min_ms": figures.min_ms,
        "p50_ms": figures.p50_ms,
        "p95_ms": figures.p95_ms,
        "p99_ms": figures.p99_ms,
        "max_ms": round(max(durations_ms), 3),
    }


if __name__ == "__main__":
    main()
