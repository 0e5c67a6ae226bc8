"""What a person sees while `run` works: on a terminal a live view, elsewhere a line now and then, both on stderr, and a
summary at the end. Where programs read stderr, lines and summary are lines of the log, and hints are left out. The
supervisor's thread leaves the newest state; a thread of its own draws it, so that a slow terminal never holds a frame
up.
"""

import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orion import log

_log = logging.getLogger(__name__)

State = Mapping[str, Any]

_REFRESH_S = 0.5
_LINE_EVERY_S = 10.0
_ANY_WIDTH = 1000
_PERCENTILES = ("p50", "p95", "p99")
_STAGES = {
    "queue": "wait for a worker",
    "preprocess": "preprocess",
    "inference": "inference",
    "postprocess": "postprocess",
    "capture_to_result": "capture to result",
}


class Display:
    """The live view. `notes` are lines that stand below it: where results go, and how to stop."""

    def __init__(self, notes: Sequence[str]) -> None:
        self._console = Console(stderr=True)
        self._notes = notes
        self._state: State | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="display", daemon=True)

    def start(self) -> None:
        """Start drawing."""
        self._thread.start()

    def update(self, state: State) -> None:
        """Leave the newest state to be drawn."""
        self._state = state

    def close(self) -> None:
        """Draw for the last time and end; a terminal that takes nothing is left behind after a second."""
        self._closing.set()
        self._thread.join(1.0)

    def _draw(self) -> None:
        if self._console.is_terminal:
            self._draw_live()
        else:
            self._print_lines()

    def _draw_live(self) -> None:
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            while not self._closing.wait(_REFRESH_S):
                live.update(self._view(), refresh=True)
            live.update(self._view(), refresh=True)

    def _print_lines(self) -> None:
        for note in () if log.for_programs() else self._notes:
            print(note, file=sys.stderr, flush=True)  # noqa: T201 - the display is what prints
        next_s = time.monotonic() + _LINE_EVERY_S
        while not self._closing.wait(max(0.0, next_s - time.monotonic())):
            next_s += _LINE_EVERY_S
            _tell(self._state or {"streams": []})

    def _view(self) -> RenderableType:
        state = self._state
        parts: list[RenderableType] = []
        if state is None or not state["models"]:
            parts.append(Text("loading the model ...", style="dim"))
        if state is not None:
            parts += [_streams(state), _latency_lines(state, ("inference", "capture_to_result"), "   ")]
            parts += [bar for stream in state["streams"] if (bar := _progress(stream)) is not None]
        parts += [Text(note, style="dim", overflow="fold") for note in self._notes]
        return Group(*parts)


def one_line(stream: State) -> str:
    """Return a stream's state as one line for logs."""
    drops = ", ".join(f"{count} {reason}" for reason, count in stream["dropped"].items() if count)
    return (
        f"{stream['stream_id']} {stream['state']}: {stream['captured']} captured, {stream['inferred']} inferred, "
        f"{stream['held']} held, dropped: {drops or 'none'}; {stream['fps']:.1f} results/s; "
        f"{_people(stream)} person(s) now{f', {vanished} vanished' if (vanished := stream['vanished']) else ''}"
    )


def _tell(state: State) -> None:
    """Say how each stream is, in a line."""
    for stream in state["streams"]:
        if log.for_programs():
            _log.info("%s", one_line(stream), extra={"stream": stream["stream_id"]})
        else:
            print(one_line(stream), file=sys.stderr, flush=True)  # noqa: T201 - the display is what prints


def conclude(state: State, reason: str) -> None:
    """Say at the end of a run what came of it."""
    if not log.for_programs():
        Console(stderr=True).print(summary(state, reason))
        return
    _log.info("stopped after %.1f s: %s", state["uptime_s"], reason)
    _tell(_with_means(state))
    if _measured(state):
        _log.info("latencies: %s", _latency_lines(state, list(_STAGES), ", ").plain)


def summary(state: State, reason: str) -> RenderableType:
    """Return what is shown when a run has ended: the counts of each stream and the latencies by stage, as far as there
    was a frame. Results a second are the run's mean.
    """
    state = _with_means(state)
    parts: list[RenderableType] = [Text(f"Stopped after {state['uptime_s']:.1f} s: {reason}", style="bold")]
    if any(stream["captured"] for stream in state["streams"]):
        parts.append(_streams(state))
    if _measured(state):
        parts.append(_Fitting(_latency_table(state), _latency_lines(state, list(_STAGES))))
    return Group(*parts)


def _measured(state: State) -> bool:
    return any(figures["p50"] is not None for figures in state["latency_ms"].values())


def _with_means(state: State) -> State:
    """Return the state with the run's mean as each stream's results a second."""
    return {**state, "streams": [{**stream, "fps": stream["mean_fps"]} for stream in state["streams"]]}


class _Fitting:
    """A table where it fits the width of the terminal, else lines that say the same."""

    def __init__(self, table: Table, lines: Text) -> None:
        self._table = table
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = Measurement.get(console, options.update(max_width=_ANY_WIDTH), self._table).minimum
        yield self._table if needed <= options.max_width else self._lines


def _streams(state: State) -> RenderableType:
    return _Fitting(_stream_table(state), Text("\n".join(one_line(stream) for stream in state["streams"])))


def _latency_table(state: State) -> Table:
    table = Table(title="latency (ms)", title_justify="left", box=None)
    for name in ("stage", *_PERCENTILES):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage, label in _STAGES.items():
        table.add_row(label, *_percentiles(state, stage))
    return table


def _stream_table(state: State) -> Table:
    table = Table(box=None)
    for name in ("stream", "state", "captured", "inferred", "held", "dropped", "results/s", "people"):
        table.add_column(name, justify="left" if name in {"stream", "state", "dropped"} else "right")
    for stream in state["streams"]:
        drops = ", ".join(f"{count} {reason}" for reason, count in stream["dropped"].items() if count) or "none"
        table.add_row(
            stream["stream_id"],
            stream["state"],
            str(stream["captured"]),
            str(stream["inferred"]),
            str(stream["held"]),
            drops,
            f"{stream['fps']:.1f}",
            _people_cell(stream),
        )
    return table


def _people_cell(stream: State) -> Text:
    """Return how many people are there now, how sure that is of the surest, and how many vanished."""
    best = stream["best_confidence"]
    notes = [f"{best:.2f}"] if best is not None else []
    notes += [f"{stream['vanished']} vanished"] if stream["vanished"] else []
    style = "bold red" if stream["vanished"] else "bold green" if stream["people"] else ""
    return Text(_people(stream) + (f" ({', '.join(notes)})" if notes else ""), style=style)


def _people(stream: State) -> str:
    """Return how many people are there now; a dash where nobody can tell."""
    return "-" if stream["people"] is None else str(stream["people"])


def _latency_lines(state: State, stages: Sequence[str], between: str = "\n") -> Text:
    parts = [f"{_STAGES[stage]} {' / '.join(_percentiles(state, stage))} ms" for stage in stages]
    return Text(between.join([*parts, f"({' / '.join(_PERCENTILES)})"]))


def _percentiles(state: State, stage: str) -> list[str]:
    figures = state["latency_ms"][stage]
    return [_ms(figures[percentile]) for percentile in _PERCENTILES]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _progress(stream: State) -> RenderableType | None:
    """Return how far a stream is that has an end."""
    total = stream["frames"]
    if not total:
        return None
    done = min(stream["captured"], total)
    row = Table.grid(padding=(0, 1))
    row.add_row(stream["stream_id"], ProgressBar(total=total, completed=done, width=40), f"{done}/{total} frames")
    return row
