"""The state of the instance as people and programs read it: the answer to `get_status`, which the live view and the
summary at the end draw from too. Runs in the supervisor's thread; returns plain values only.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from msgspec.structs import asdict

from orion import __version__
from orion.handle import Busy, Failed, Idle, WorkerHandle
from orion.messages import DetectorInfo
from orion.results import timestamp
from orion.stream import Stream
from orion.telemetry import Latencies, process_usage


class Names(Protocol):
    """Who this instance is."""

    @property
    def instance_id(self) -> str:
        """The name that topics carry."""

    @property
    def room_id(self) -> str:
        """Where its streams are that say nothing else."""

    @property
    def run_id(self) -> str:
        """New at every start."""


class Described(Protocol):
    """What is described: the supervisor."""

    @property
    def settings(self) -> Names:
        """Who it is."""

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Its streams by id."""

    @property
    def crew(self) -> Iterable[WorkerHandle]:
        """Its workers."""

    latencies: Latencies
    info: DetectorInfo | None
    started_s: float
    extra: Callable[[], dict[str, Any]]


def describe(supervisor: Described) -> dict[str, Any]:
    """Return the instance's state; names are those of the control protocol."""
    settings = supervisor.settings
    streams = list(supervisor.streams.values())
    return {
        "instance_id": settings.instance_id,
        "room_id": settings.room_id,
        "run_id": settings.run_id,
        "version": __version__,
        "uptime_s": round(time.monotonic() - supervisor.started_s, 1),
        "running": True,
        "paused": bool(streams) and all(stream.ledger.paused for stream in streams),
        "models": _models(supervisor.info),
        "attention": asdict(streams[0].settings.attention) if streams else {},
        "latency_ms": supervisor.latencies.summary(),
        "streams": [_stream(stream) for stream in streams],
        "workers": [_worker(handle, supervisor.info) for handle in supervisor.crew],
        **supervisor.extra(),
    }


def processes(supervisor: Described, broker_pid: int | None) -> dict[str, Mapping[str, float] | None]:
    """Return CPU seconds and resident MB of the supervisor, each worker, and the embedded broker, of those that are."""
    pids = {"supervisor": os.getpid()} | {handle.worker_id: handle.pid for handle in supervisor.crew}
    pids["broker"] = broker_pid
    return {name: process_usage(pid) for name, pid in pids.items() if pid is not None}


def _models(info: DetectorInfo | None) -> dict[str, Any]:
    if info is None:
        return {}
    return {
        "model_name": info.model_name,
        "model_size": info.model_size,
        "cost_ratio": info.cost_ratio,
        "sessions": [asdict(session) for session in info.sessions],
    }


def _stream(stream: Stream) -> dict[str, Any]:
    accounts = stream.ledger.accounts()
    capture = stream.settings.capture
    now_s = time.monotonic()
    known = stream.sees_people(now_s)
    return {
        "stream_id": stream.stream_id,
        "room_id": stream.settings.room_id,
        "state": stream.state,
        "paused": stream.ledger.paused,
        "source": stream.settings.uri,
        "width": stream.info.width if stream.info else None,
        "height": stream.info.height if stream.info else None,
        "frames": capture.frames or (stream.info.frames if stream.info else None),
        "captured": accounts.captured,
        "completed": accounts.completed,
        "inferred": accounts.inferred,
        "held": accounts.held,
        "in_flight": accounts.in_flight,
        "dropped": dict(accounts.dropped),
        "fps": round(stream.shown.fps.rate_hz(now_s), 2),
        "mean_fps": round(stream.shown.fps.mean_hz, 2),
        "rate_hz": capture.rate_hz,
        "worker_id": stream.worker_id,
        "attention": asdict(stream.settings.attention),
        "people": stream.shown.count if known else None,
        "vanished": len(stream.known.vanished) if known else None,
        "best_confidence": stream.shown.best_confidence if known else None,
        "inference": stream.shown.inference,
    }


def _worker(handle: WorkerHandle, info: DetectorInfo | None) -> dict[str, Any]:
    state = handle.state
    loaded = state.info if isinstance(state, Idle | Busy) else info
    return {
        "worker_id": handle.worker_id,
        "pid": handle.pid,
        "state": handle.state_name,
        "reason": state.reason if isinstance(state, Failed) else "",
        "restarts": handle.restarts,
        "model_size": loaded.model_size if loaded else None,
        "frames_received": handle.frames_received,
        "frames_dropped": handle.frames_dropped,
        "inferences": handle.inferences,
        "total_latency_ms": round(handle.total_latency_ms, 3),
        "avg_latency_ms": round(handle.avg_latency_ms, 3),
        "last_seen_at": None if handle.last_seen_wall_ns is None else timestamp(handle.last_seen_wall_ns),
    }
