"""`orion watch`: what one instance sees and how it is, live in the terminal, from MQTT alone. Runs in the main thread
of a process of its own; `View` keeps what was heard and draws it, the loop around it waits on the broker.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orion.config import Config
from orion.mqtt import Lost, Received, Signal, Subscribed
from orion.remote import Remote, broker_url, of_running, read_message
from orion.telemetry import Histogram, RateMeter
from orion.vitals import SEEING

_REFRESH_S = 0.5
_ASK = json.dumps({"command": "get_status"}).encode()
_EVENTS_SHOWN = 8
_LINE_EVERY_S = 5.0
_ANSWER_WITHIN_S = 5.0
_NOBODY = "nobody of this id answers; check --instance-id and --broker"
_STREAMS_LIMIT = 64
_ODD = ("frozen", "slow", "irregular")
"""States of streams that deliver results all the same."""


@dataclass(slots=True)
class _Stream:
    """What was heard of one stream; `state` is from telemetry and events."""

    state: str = "running"
    rate: RateMeter = field(default_factory=RateMeter)
    latency: Histogram = field(default_factory=Histogram)
    people: int = 0
    vanished: int = 0
    plan: str = ""
    size: str = ""
    heard_s: float | None = None


class View:
    """What was heard of an instance. Messages of any form are taken; what is not understood is left out."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self._streams: dict[str, _Stream] = {}
        self._workers: list[str] = []
        self._model = ""
        self._status = "not heard of yet"
        self._answer_due_s = math.inf
        self._events: deque[str] = deque(maxlen=_EVENTS_SHOWN)

    def hear(self, message: Mapping[str, Any], now_s: float) -> str | None:
        """Take a message in; return what is new in words: an event, or how the instance is. None for all else."""
        self._answer_due_s = math.inf
        if self._status == _NOBODY:
            self._status = "connected"
        match message:
            case {"type": "person_detection", "stream_id": str(stream_id)}:
                self._hear_result(stream_id, message, now_s)
            case {"type": "telemetry", "streams": list(streams), "workers": list(workers)}:
                self._hear_telemetry(streams, workers)
            case {"command_ack": "get_status", "data": {"streams": list(streams), "workers": list(workers)}}:
                self._hear_telemetry(streams, workers)
            case {"event": str(event)}:
                return self._hear_event(event, message)
            case {"status": str(status), "run_id": _}:
                return self.become(status)
            case _:
                pass
        return None

    def become(self, status: str) -> str | None:
        """Take note of how the link to the broker or the instance is; return it in words if that is new."""
        if status == self._status:
            return None
        self._status = status
        return f"{self._instance_id}: {status}"

    def expect(self, now_s: float) -> None:
        """Take note that the instance was asked how it is."""
        self._answer_due_s = now_s + _ANSWER_WITHIN_S

    def miss(self, now_s: float) -> str | None:
        """Take note of the time; return in words, once, that nothing at all was heard of the instance."""
        if now_s < self._answer_due_s:
            return None
        self._answer_due_s = math.inf
        return self.become(_NOBODY)

    def draw(self, now_s: float) -> RenderableType:
        """Return what to show; it is readable from 80 columns on."""
        head = Text.assemble((self._instance_id, "bold"), f": {self._status}", f"   {self._model}")
        parts: list[RenderableType] = [head, self._table(now_s)]
        if self._workers:
            parts.append(Text("   ".join(self._workers), style="dim"))
        parts += [Text(event, overflow="ellipsis", no_wrap=True) for event in self._events]
        return Group(*parts)

    def lines(self, now_s: float) -> Iterator[str]:
        """Yield the state as plain lines, one a stream."""
        for stream_id, (state, rate, p50, p95, plan, size, people) in self._rows(now_s):
            how = f"plan {' '.join(part for part in (plan, size) if part) or '-'}"
            yield f"{stream_id}: {state}, {rate} results/s, p50 {p50} ms, p95 {p95} ms, {how}, people {people}"

    def _table(self, now_s: float) -> Table:
        table = Table(box=None, pad_edge=False, collapse_padding=True)
        for name in ("stream", "state", "results/s", "p50 ms", "p95 ms", "plan", "size", "people"):
            table.add_column(name, justify="left" if name in {"stream", "state", "plan"} else "right", no_wrap=True)
        for stream_id, (state, rate, p50, p95, plan, size, people) in self._rows(now_s):
            style = "bold red" if "vanished" in people else "bold green" if people not in {"-", "0"} else ""
            table.add_row(stream_id, state, rate, p50, p95, plan, size, Text(people, style=style))
        return table

    def _rows(self, now_s: float) -> Iterator[tuple[str, tuple[str, ...]]]:
        for stream_id, stream in sorted(self._streams.items()):
            fresh = stream.rate.fresh(now_s)
            silent = stream.state == "running" and stream.heard_s is not None and not fresh
            state = f"silent {now_s - (stream.heard_s or 0.0):.0f} s" if silent else stream.state
            vanished = f" ({stream.vanished} vanished)" if stream.vanished else ""
            people = f"{stream.people}{vanished}" if fresh and stream.state in SEEING else "-"
            figures = [stream.latency.percentile(percent) for percent in (50, 95)]
            p50, p95 = ("-" if figure is None else f"{figure:.1f}" for figure in figures)
            rate = f"{stream.rate.rate_hz(now_s):.1f}"
            yield stream_id[:16], (state[:12], rate, p50, p95, stream.plan[:14], stream.size, people)

    def _stream(self, stream_id: str) -> _Stream:
        if stream_id not in self._streams and len(self._streams) >= _STREAMS_LIMIT:
            return _Stream()
        return self._streams.setdefault(stream_id, _Stream())

    def _hear_result(self, stream_id: str, result: Mapping[str, Any], now_s: float) -> None:
        stream = self._stream(stream_id)
        match result:
            case {
                "data": {
                    "count": int(count),
                    "metadata": {"inference": str(plan), "model_selected": str(size)} as about,
                } as data,
                "latency": {"capture_to_result_ms": int() | float() as latency_ms},
            } if not result.get("replayed"):
                if stream.state not in _ODD:
                    stream.state = "running"
                stream.heard_s = now_s
                stream.people, stream.plan, stream.size = count, plan, "" if plan == "held" else size
                # Results of versions before say nothing of it.
                stream.vanished = len(vanished) if isinstance(vanished := data.get("vanished"), list) else 0
                stream.rate.add(now_s)
                stream.latency.add(latency_ms)
                self._model = f"{about.get('model_name', '')} on {about.get('provider', '')}"
            case _:
                pass

    def _hear_telemetry(self, streams: list[Any], workers: list[Any]) -> None:
        known = {
            stream["stream_id"]: stream for stream in streams if isinstance(stream, dict) and "stream_id" in stream
        }
        self._streams = {stream_id: kept for stream_id, kept in self._streams.items() if stream_id in known}
        for stream_id, told in known.items():
            self._stream(str(stream_id)).state = "paused" if told.get("paused") else str(told.get("state", ""))
        self._workers = [
            f"{worker.get('worker_id')}: {worker.get('state')}, {worker.get('restarts')} restarts"
            for worker in workers
            if isinstance(worker, dict)
        ]

    def _hear_event(self, event: str, message: Mapping[str, Any]) -> str:
        stream_id = message.get("stream_id")
        known = {"stream_lost": "lost", "stream_restored": "running"} | {f"stream_{state}": state for state in _ODD}
        if isinstance(stream_id, str) and event in known:
            self._stream(stream_id).state = str(message.get("state", known[event]))
        moment = str(message.get("timestamp", ""))[11:19]
        about = stream_id or message.get("worker_id") or ""
        words = f"{moment} {event} {about}: {message.get('reason', '')}"
        self._events.append(words)
        return words


def run(config: Config, *, named: bool) -> NoReturn:
    """Show the instance until interrupted. Raises NoAnswerError when nobody knows where its broker is."""
    config = of_running(config, named=named)
    topics = config.mqtt.topics.expanded(config.instance_id)
    heard = [topics["inferences"].replace("{type}", "+"), topics["health"], topics["status"], topics["telemetry"]]
    view = View(config.instance_id)
    url = broker_url(config, named=named)
    with Remote(config, url, dict.fromkeys(heard, 1)) as remote, _screen() as show:
        show(view, view.become(f"connecting to {url}"))
        while True:
            until_s = time.monotonic() + _REFRESH_S
            while time.monotonic() < until_s:
                for signal in remote.wait(until_s):
                    if isinstance(signal, Subscribed):
                        # Who may not command sees the streams with the next telemetry.
                        remote.publish(topics["control"], _ASK)
                    words = take(view, signal, time.monotonic())
                    if words is not None:
                        show(view, words)
            show(view, view.miss(time.monotonic()))


Show = Callable[[View, str | None], None]
"""Shows the view; the text is what is new in words, None says that some time has passed."""


def take(view: View, signal: Signal, now_s: float) -> str | None:
    """Let the view know what happened on its link; return what is new in words."""
    match signal:
        case Received() if (message := read_message(signal)) is not None:
            return view.hear(message, now_s)
        case Subscribed(refused=refused) if refused:
            return view.become(f"the broker does not let us read {', '.join(refused)}")
        case Subscribed():
            view.expect(now_s)
            return view.become("connected")
        case Lost(reason=reason):
            view.expect(math.inf)
            return view.become(f"no broker: {reason}")
        case _:
            pass
    return None


@contextmanager
def _screen() -> Iterator[Show]:
    """Give what shows the view: drawn over and over on a terminal, else line by line."""
    console = Console()
    if not console.is_terminal:
        yield _Lines().show
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda view, _: live.update(view.draw(time.monotonic()), refresh=True)


class _Lines:
    """Prints what is new as it comes, and the streams now and then."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + _LINE_EVERY_S

    def show(self, view: View, words: str | None) -> None:
        """Print what is new."""
        if words is not None:
            print(words, flush=True)  # noqa: T201 - this is what prints
        elif time.monotonic() >= self._next_s:
            self._next_s += _LINE_EVERY_S
            for line in view.lines(time.monotonic()):
                print(line, flush=True)  # noqa: T201 - see above
