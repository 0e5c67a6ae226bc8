"""Whether anything grows in a long life. A whole instance with a real broker: frames by the hundred thousand, workers
killed, models changed, connections cut; descriptors, threads, segments and memory after the warm-up and at the end.
"""

import argparse
import math
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from select import select
from typing import Any

from benchmarks.mosquitto import HOST, UNBOUNDED, Mosquitto, installed, wait_until
from benchmarks.report import Bar, Report, Row, plot_file, publish
from benchmarks.rig import Instance, Listener, children, write_models
from orion.mqtt import Accepted, Connection, Endpoint

_FRAMES, _KILLS, _SWAPS, _RECONNECTS = 100_000, 200, 200, 1_000
_FPS = 65
_LIVED_S = 0.55
"""A connection that lives half a second counts as stable: the next attempt then comes after 0.2 s again."""
_WARM_SHARE = 0.1
"""What of each count is warm-up."""
_SETTLE_S = 2.0
_GROWTH_SHARE, _GROWTH_MB = 0.05, 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process holds: open descriptors, threads, resident MB; `segments` and `children` are the instance's."""

    at_s: float
    frames: int
    descriptors: int
    threads: int
    rss_mb: float
    segments: int
    children: int


class Soak:
    """The running instance, and what it is put through, one thing after the other."""

    def __init__(self, instance: Instance, listener: Listener, port: int) -> None:
        self._instance = instance
        self._listener = listener
        self._port = port
        self._sizes = "sn"
        self._began_s = time.monotonic()
        self.samples: dict[str, list[Sample]] = {"supervisor": [], "w0": [], "w1": []}
        self.reconnects = self.kills = self.swaps = 0

    def reconnect(self) -> None:
        """Throw the instance off the broker as a second client of its name does, and wait until it is back."""
        began_s = time.monotonic()
        endpoint = Endpoint(HOST, self._port, f"{self._instance.instance_id}-{self._listener.run_id}")
        with closing(Connection(endpoint)) as thief:
            thief.open()
            while not any(isinstance(signal, Accepted) for signal in thief.pump(readable=True, writable=False)):
                select([thief.fileno()], [], [], 1.0)
            thief.say_goodbye()
        wait_until(lambda: self._listener.online_after(began_s), "the instance is connected again")
        self.reconnects += 1

    def kill(self) -> None:
        """Kill the first worker and wait for its successor; the second one lives through everything."""
        began_s = time.monotonic()
        os.kill(self._worker_pid("w0"), signal.SIGKILL)
        wait_until(lambda: self._listener.events("worker_restarted", since_s=began_s), "the worker is back")
        self.kills += 1

    def swap(self) -> None:
        """Change the models of both workers, forth and back."""
        self._listener.do("set_model_size", size=self._sizes[self.swaps % 2])
        self.swaps += 1

    def sample(self) -> dict[str, Sample]:
        """Note what each process holds now."""
        status = self._listener.do("get_status")
        frames = sum(stream["captured"] for stream in status["streams"])
        pids = {worker["worker_id"]: worker["pid"] for worker in status["workers"]}
        found = {}
        for name, pid in {"supervisor": self._instance.pid, **pids}.items():
            found[name] = self._look(pid, frames)
            self.samples[name].append(found[name])
        return found

    def _look(self, pid: int, frames: int) -> Sample:
        place = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        return Sample(
            at_s=round(time.monotonic() - self._began_s, 1),
            frames=frames,
            descriptors=len(list((place / "fd").iterdir())),
            threads=int(status["Threads"]),
            rss_mb=round(int(status["VmRSS"].split()[0]) * 1024 / 1e6, 2),
            segments=len(self._instance.segments()),
            children=len(children(self._instance.pid)),
        )

    def _worker_pid(self, worker_id: str) -> int:
        workers = self._listener.do("get_status")["workers"]
        pid: int = next(worker["pid"] for worker in workers if worker["worker_id"] == worker_id)
        return pid


def main() -> None:
    """Put an instance through it, and report what has grown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size (default: 1)")
    parser.add_argument(
        "--plot", type=plot_file, metavar="FILE", help="also draw memory, descriptors and threads over time"
    )
    chosen = parser.parse_args()
    goals = {
        "frames": math.ceil(_FRAMES * chosen.scale),
        "kills": math.ceil(_KILLS * chosen.scale),
        "swaps": math.ceil(_SWAPS * chosen.scale),
        "reconnects": math.ceil(_RECONNECTS * chosen.scale),
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_models(folder)
        broker = stack.enter_context(Mosquitto(installed(), folder, UNBOUNDED))
        name = f"soak-{os.getpid()}"
        listener = stack.enter_context(Listener(broker.port, name))
        instance = stack.enter_context(Instance(folder, name, _config(folder, broker.port)))
        wait_until(lambda: len(listener.results) > 10, "the first results")
        soak = Soak(instance, listener, broker.port)
        warm = _run(soak, listener, {what: math.ceil(count * _WARM_SHARE) for what, count in goals.items()})
        end = _run(soak, listener, goals)
        status = listener.do("get_status")
        began_s = time.monotonic()
        instance.send(signal.SIGTERM)
        code = instance.wait()
        left = len(instance.segments())
        stop_s = time.monotonic() - began_s
    counts = {"kills": soak.kills, "swaps": soak.swaps, "reconnects": soak.reconnects}
    bars = [*_bars(warm, end), *_loss_bars(status), Bar("exit code", code, 0), Bar("segments left at the end", left, 0)]
    settings: dict[str, Any] = {"scale": chosen.scale, "fps": _FPS, **counts, "stop_s": round(stop_s, 2)}
    settings |= {"took_s": end["supervisor"].at_s, "results_received": len(listener.results)}
    publish(Report("soak", settings, _rows(warm, end), bars))
    if chosen.plot is not None:
        _draw(soak.samples, chosen.plot)
    sys.exit(0 if all(bar.met for bar in bars) else 1)


def _config(folder: Path, port: int) -> dict[str, Any]:
    return {
        "streams": [{"stream_id": f"cam{n}", "source": f"demo:64x64@{_FPS}"} for n in range(2)],
        "models": {"person_detector": {"model_dir": str(folder), "size": "n"}},
        "attention": {"mode": "off"},
        "workers": {"count": 2, "threads": 1, "restart": {"immediate": 1_000_000, "limit": 1_000_000}},
        "mqtt": {"broker": f"mqtt://{HOST}:{port}", "outbox": {"replay_delay_s": 0.05}},
        "telemetry_s": 5,
    }


def _run(soak: Soak, listener: Listener, goals: dict[str, int]) -> dict[str, Sample]:
    """Do things in turn, spread evenly, until every count is reached; return the samples after it has settled."""
    while soak.reconnects < goals["reconnects"]:
        soak.reconnect()
        stable_s = time.monotonic() + _LIVED_S
        share = soak.reconnects / goals["reconnects"]
        if soak.kills < goals["kills"] * share:
            soak.kill()
        elif soak.swaps < goals["swaps"] * share:
            soak.swap()
        if soak.reconnects % 10 == 0:
            soak.sample()
        _wait_for(stable_s)
    while soak.kills < goals["kills"]:
        soak.kill()
    while soak.swaps < goals["swaps"]:
        soak.swap()
    wait_until(lambda: soak.sample()["supervisor"].frames >= goals["frames"], "enough frames", 3600.0)
    wait_until(lambda: not _held(listener.do("get_status")), "the outbox is empty")
    _wait_for(time.monotonic() + _SETTLE_S)
    return soak.sample()


def _wait_for(moment_s: float) -> None:
    wait_until(lambda: time.monotonic() >= moment_s, "the time comes")


def _held(status: dict[str, Any]) -> int:
    """Return how many results are held back; one or two are always on their way."""
    held: int = status["emitter"]["results"]["held"]
    return max(0, held - 8)


def _rows(warm: dict[str, Sample], end: dict[str, Sample]) -> list[Row]:
    return [
        {"process": name, "when": when} | asdict(sample[name])
        for name in end
        for when, sample in (("after the warm-up", warm), ("at the end", end))
    ]


def _bars(warm: dict[str, Sample], end: dict[str, Sample]) -> list[Bar]:
    bars = []
    for name, after in end.items():
        before = warm[name]
        allowed = max(_GROWTH_MB, before.rss_mb * _GROWTH_SHARE)
        bars += [
            Bar(f"{name}: descriptors more", abs(after.descriptors - before.descriptors), 0),
            Bar(f"{name}: threads more", abs(after.threads - before.threads), 0),
            Bar(f"{name}: MB more", round(after.rss_mb - before.rss_mb, 2), allowed),
        ]
    first, last = warm["supervisor"], end["supervisor"]
    bars.append(Bar("segments more", abs(last.segments - first.segments), 0))
    bars.append(Bar("child processes more", abs(last.children - first.children), 0))
    return bars


def _loss_bars(status: dict[str, Any]) -> list[Bar]:
    results = status["emitter"]["results"]
    unaccounted = sum(
        abs(one["captured"] - one["completed"] - one["in_flight"] - sum(one["dropped"].values()))
        for one in status["streams"]
    )
    lost = results["dropped"] + results["overflowed"] + status["emitter"]["refused"]
    return [Bar("frames unaccounted for", unaccounted, 0), Bar("results lost", lost, 0)]


def _draw(samples: dict[str, list[Sample]], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, needed by who wants plots

    figure = Figure(figsize=(8, 7), layout="constrained")
    shown = (("rss_mb", "resident MB"), ("descriptors", "descriptors"), ("threads", "threads"))
    for place, (field, label) in enumerate(shown, 1):
        axes = figure.add_subplot(3, 1, place, ylabel=label, xlabel="frames captured" if place == 3 else "")
        for name, found in samples.items():
            axes.plot([one.frames for one in found], [getattr(one, field) for one in found], label=name, linewidth=1)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if place == 1:
            axes.set_title("soak: w0 is killed again and again, w1 lives through everything")
            axes.legend(loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
