"""What all benchmarks share: the percentiles they quote, what must be known to repeat them, and the two forms of a
report, one line of JSON on stdout and a table on stderr. Runs in the benchmark's main thread after the measuring.
"""

import argparse
import hashlib
import importlib.util
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

import orion

_PACKAGES = ("numpy", "opencv-python-headless", "av", "msgspec", "msgpack")

_FILE_WIDTH = 160

Row = dict[str, Any]
"""One line of a table: strings name what was measured, numbers say what came out."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How durations are distributed, in milliseconds."""

    count: int
    min_ms: float
    """The least that interference of other processes left."""
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit that a figure is held to; `measured` must not pass `limit`."""

    name: str
    measured: float
    limit: float

    @property
    def met(self) -> bool:
        """Return whether the figure keeps to the limit."""
        return bool(self.measured <= self.limit)


@dataclass(frozen=True, slots=True)
class Report:
    """What one benchmark found. `settings` is all that was chosen; `models` is by role, from `describe_model`."""

    name: str
    settings: Mapping[str, Any]
    rows: Sequence[Row]
    bars: Sequence[Bar] = ()
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return the whole report as one line."""
        content = {
            "benchmark": self.name,
            "machine": machine(),
            "versions": versions(),
            "models": self.models,
            "settings": self.settings,
            "results": self.rows,
            "bars": [asdict(bar) | {"met": bar.met} for bar in self.bars],
        }
        return json.dumps(content, separators=(",", ":"))


def spread(durations_ms: Sequence[float]) -> Spread:
    """Return how durations in milliseconds are distributed, at least one; percentiles are interpolated linearly."""
    least, p50, p95, p99 = (round(float(value), 4) for value in np.percentile(durations_ms, [0, 50, 95, 99]))
    return Spread(len(durations_ms), least, p50, p95, p99)


def machine() -> dict[str, Any]:
    """Return what this machine is, and how busy it has been: the load averages of 1, 5 and 15 minutes."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": round(pages / 1e6),
        "system": platform.platform(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Return the versions of Orion, Python and, of the packages that do the work, those that are installed: a benchmark
    runs where others than its own are missing.
    """
    found = {"orion": orion.__version__, "python": platform.python_version()}
    installed = {name for names in metadata.packages_distributions().values() for name in names}
    # onnxruntime and its plugins come in packages of several names.
    runtimes = sorted(name for name in installed if name.startswith("onnxruntime"))
    return found | {name: metadata.version(name) for name in (*runtimes, *_PACKAGES) if name in installed}


def describe_model(path: Path) -> dict[str, str]:
    """Return a model file's name and SHA-256."""
    with path.open("rb") as file:
        return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def add_plot_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option that `publish` serves."""
    parser.add_argument(
        "--plot", type=plot_file, metavar="FILE", help="also draw the medians (png, svg, pdf; extra `plot`)"
    )


def plot_file(text: str) -> Path:
    """Return the path that an option names for a plot. Raises ArgumentTypeError at once, and not after minutes of
    measuring, where it could not be drawn.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("plots need matplotlib, the extra `plot`: pip install matplotlib")
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {str(path.parent)!r}")
    return path


def publish(report: Report, plot: Path | None = None, plotted: str = "p50_ms") -> None:
    """Print the JSON line and the table; with `plot` draw the column `plotted` into that file."""
    console = Console(stderr=True)
    if not console.is_terminal:
        # Nobody's window is too narrow for a file.
        console = Console(stderr=True, width=_FILE_WIDTH)
    for rows in _alike(report.rows):
        table = _table(report.name, rows)
        # What finds no room is left to the terminal to wrap: no figure is cut off.
        least = Measurement.get(console, console.options, table).minimum
        console.print(table, width=max(least, console.width), crop=False)
    for bar in report.bars:
        verdict = "met" if bar.met else "MISSED"
        console.print(f"{bar.name}: {bar.measured:.3f}, limit {bar.limit:.3f}: {verdict}", highlight=False)
    print(report.as_json(), flush=True)
    if plot is not None:
        _draw(report, plot, plotted)


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows by what they tell, in the order of the first of each kind: a table has no empty columns."""
    kinds: dict[frozenset[str], list[Row]] = {}
    for row in rows:
        kinds.setdefault(frozenset(name for name in row if row[name] not in {None, ""}), []).append(row)
    return list(kinds.values())


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = [name for name in rows[0] if rows[0][name] not in {None, ""}]
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    for number, name in enumerate(columns):
        # Where the window is narrow, names and descriptions are broken between their words, and numbers never.
        header = name.replace("_", " ")
        numeric = any(isinstance(row[name], int | float) for row in rows)
        widest = max(len(word) for line in cells for word in [*line[number].split(), *header.split()])
        table.add_column(header, justify="right" if numeric else "left", min_width=widest)
    for line in cells:
        table.add_row(*line)
    return table


def _cell(value: Any) -> str:
    """Return a value as text, a number that is not whole with about four digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.{max(0, 3 - max(0, math.floor(math.log10(abs(value) or 1))))}f}"


def _draw(report: Report, path: Path, plotted: str) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, needed by who wants plots

    rows = [row for row in report.rows if row.get(plotted) is not None]
    labels = [" ".join(value for value in row.values() if isinstance(value, str)) for row in rows]
    figure = Figure(figsize=(8, 1 + 0.35 * len(rows)), layout="constrained")
    axes = figure.add_subplot(xlabel=plotted, title=report.name)
    axes.barh(labels, [row[plotted] for row in rows])
    axes.invert_yaxis()
    figure.savefig(path)


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
