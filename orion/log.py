"""Logging: one event, one line, on stderr, as text or JSON, without credentials, and without the same complaint a
thousand times. Set up once in each process, supervisor and workers, in its main thread; the handler may be used from
any thread.
"""

import json
import logging
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

from orion import uri

PROJECT = ("orion", "workers")
"""The loggers whose level is the operator's; all others speak from WARNING on."""
WINDOW_S: Final = 10.0
"""How long the same warning or error is only counted."""
FIELDS: Final = ("stream", "worker", "trace_id")
"""What a record may say of itself by `extra`."""

_MOST_KEPT = 256
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def setup(
    level: str,
    format: Literal["text", "json"],  # noqa: A002 - the configuration's word
    instance_id: str,
    worker_id: str | None = None,
) -> None:
    """Log to stderr from `level` on (debug, info, warning, error); what was set up before is replaced.

    Each line names the instance, and the worker in whose process it arose.
    """
    handler = CollapsingHandler()
    handler.setFormatter((JsonFormatter if format == "json" else TextFormatter)(instance_id, worker_id))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in PROJECT:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(capture=True)


def for_programs() -> bool:
    """Return whether stderr is for programs to read: no terminal, and every line of the log is JSON."""
    formatters = (handler.formatter for handler in logging.getLogger().handlers)
    return not sys.stderr.isatty() and any(isinstance(formatter, JsonFormatter) for formatter in formatters)


def complain(text: str) -> None:
    """Say on stderr why this process ends: for people as it is, for programs as lines of the log."""
    if not for_programs():
        sys.stderr.write(f"{text}\n")
        return
    for line in text.splitlines():
        logging.getLogger(__name__).error("%s", line)


def write_due() -> None:
    """Write how often complaints came again, as far as it is due; to be called now and then, or silence hides them."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, CollapsingHandler):
            handler.write_due()


@dataclass(slots=True)
class _Repeats:
    record: logging.LogRecord
    since_s: float
    count: int = 0


class Collapser:
    """Decides which complaints are written: the first at once, the same again within `window_s` only as a number."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: OrderedDict[tuple[str, int, str, str | None, str | None], _Repeats] = OrderedDict()

    def admit(self, record: logging.LogRecord, now_s: float) -> bool:
        """Return whether to write the record; if not, it is counted."""
        about = vars(record)
        key = (record.name, record.levelno, record.getMessage(), about.get("stream"), about.get("worker"))
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Repeats(record, now_s)
            return True
        seen.count += 1
        return False

    def due(self, now_s: float) -> list[tuple[logging.LogRecord, int]]:
        """Forget what is older than the window, and the oldest of too many; return what came again, and how often."""
        ended = []
        while self._seen:
            oldest = next(iter(self._seen.values()))
            if now_s - oldest.since_s < self._window_s and len(self._seen) <= _MOST_KEPT:
                break
            self._seen.popitem(last=False)
            if oldest.count:
                ended.append((oldest.record, oldest.count))
        return ended


class CollapsingHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr; warnings and errors go through a Collapser. `now_s` is a monotonic clock."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        # Not StreamHandler's: it would keep the stderr of now, past the live view, which takes stderr over for a time.
        logging.Handler.__init__(self)
        self._collapser = Collapser()
        self._now_s = now_s

    @property
    def stream(self) -> TextIO:
        """Return what stderr is at the moment."""
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it."""
        now_s = self._now_s()
        self._write_repeats(now_s)
        if record.levelno < logging.WARNING or self._collapser.admit(record, now_s):
            super().emit(record)

    def write_due(self) -> None:
        """Write what was only counted and is due, though nothing else is to be written."""
        self._write_locked(self._now_s())

    def close(self) -> None:
        """Write what is still only counted."""
        self._write_locked(float("inf"))
        super().close()

    def _write_locked(self, now_s: float) -> None:
        self.acquire()
        try:
            self._write_repeats(now_s)
        finally:
            self.release()

    def _write_repeats(self, now_s: float) -> None:
        for first, count in self._collapser.due(now_s):
            record = logging.makeLogRecord(first.__dict__)
            record.msg, record.args = f"repeated {count} times: {first.getMessage()}", None
            record.exc_info = record.exc_text = record.stack_info = None
            record.created = time.time()
            super().emit(record)


class _Formatter(logging.Formatter):
    """What both formats know beside the record."""

    def __init__(self, instance_id: str, worker_id: str | None = None) -> None:
        super().__init__()
        self._process = {"instance": instance_id} | ({} if worker_id is None else {"worker": worker_id})

    def _about(self, record: logging.LogRecord) -> dict[str, str]:
        """Return who a record is about; what it says itself goes before what is known of the process."""
        own = {name: str(vars(record)[name]) for name in FIELDS if vars(record).get(name) is not None}
        return self._process | own


class TextFormatter(_Formatter):
    """`time [LEVEL] text instance=...`, in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        about = "".join(f" {name}={value}" for name, value in self._about(record).items())
        text = f"{_time(record)} [{record.levelname}] {record.getMessage()}{about}"
        return _one_line(mask_text("\n".join([text, *_trace(self, record)])))


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, logger, message, instance, and what the record says of itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_text(record.getMessage()),
            **self._about(record),
        }
        if trace := _trace(self, record):
            event["exception"] = mask_text("\n".join(trace))
        return json.dumps(event, ensure_ascii=False)


def mask_text(text: str) -> str:
    """Return the text with the credentials in all its addresses hidden."""
    return _ADDRESS.sub(lambda address: uri.mask(address[0]), text)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    trace = [formatter.formatException(record.exc_info)] if record.exc_info else []
    return [*trace, *([record.stack_info] if record.stack_info else [])]


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    return " | ".join(line for line in text.splitlines() if line.strip())
