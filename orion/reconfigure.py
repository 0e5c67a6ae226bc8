"""From a configuration to what runs: what a stream and a worker are made with, and how a running instance goes over to
another configuration. Used by the supervisor's thread, at the start and by commands.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from orion import dispatch, telemetry, uri
from orion.capture import CaptureSettings
from orion.config import Config, StreamConfig
from orion.lookup import ModelPair
from orion.messages import DetectorSpec
from orion.restart import RestartPolicy
from orion.source import Source
from orion.sources import make_source
from orion.stream import Stream, StreamSettings

_log = logging.getLogger(__name__)

_KEYS = {"room_id": "room_id", "attention": "attention", "capture": "rate_hz"}
"""What a stream is made with that a command can change, and the key that sets it."""


class Running(Protocol):
    """What is changed: the streams of an instance, and how long its workers may take."""

    streams: dict[str, Stream]

    def add_stream(self, settings: StreamSettings, source: Source) -> None:
        """Start another stream."""

    def remove_stream(self, stream_id: str) -> None:
        """Stop a stream and forget it."""

    def limit_frames(self, frame_deadline_s: float | None) -> None:
        """Set how long a worker may take for a frame; None goes by measured times."""


def stream_settings(config: Config, stream: StreamConfig) -> StreamSettings:
    """Return what is set for one stream of the configuration."""
    return StreamSettings(
        stream_id=stream.stream_id,
        room_id=config.room_for(stream),
        uri=uri.mask(stream.source),
        attention=config.attention_for(stream),
        capture=CaptureSettings(config.run.every_frame, config.run.frames, stream.rate_hz),
    )


def worker_shares(config: Config, workers: int | None = None) -> tuple[int, int]:
    """Return how many workers there are to be and how many threads each has; `workers` are those that there are."""
    count, threads = config.workers.count, config.workers.threads
    if workers is None and count != "auto":
        workers = count
    cores = len(os.sched_getaffinity(0))
    return dispatch.shares(cores, len(config.streams), workers, None if threads == "auto" else threads)


def detector_spec(config: Config, pair: ModelPair, threads: int) -> DetectorSpec:
    """Return what each worker loads."""
    model = config.models.person_detector
    return DetectorSpec(
        model_640=str(pair.model_640),
        model_320=None if pair.model_320 is None else str(pair.model_320),
        confidence=model.confidence,
        iou=model.iou,
        classes=model.classes,
        provider=model.provider,
        threads=threads,
        confidence_keep=min(model.confidence_keep, model.confidence),
        self_test_s=model.self_test_s,
    )


def changed_spec(config: Config, present: DetectorSpec, pair: ModelPair | None, workers: int) -> DetectorSpec:
    """Return what each of the `workers` is to load after a change; `pair` None keeps the files."""
    if pair is None:
        pair = ModelPair(*_files(present))
    threads = present.threads if config.workers.threads == "auto" else worker_shares(config, workers)[1]
    return detector_spec(config, pair, threads)


def _files(spec: DetectorSpec) -> tuple[Path, Path | None]:
    return Path(spec.model_640), None if spec.model_320 is None else Path(spec.model_320)


def frame_deadline_s(config: Config) -> float | None:
    """Return the set limit for a frame; None goes by measured times."""
    deadline = config.workers.frame_deadline_s
    return None if deadline == "auto" else deadline


def memory_limit_mb(config: Config, workers: int) -> float:
    """Return how much memory of its own each of the `workers` may have: half the machine's is for all of them."""
    limit = config.workers.memory_limit_mb
    return telemetry.memory_mb() / 2 / workers if limit == "auto" else float(limit)


def restart_policy(config: Config) -> RestartPolicy:
    """Return when workers that ended are started again."""
    return RestartPolicy(**config.workers.restart.model_dump())


def new_sources(old: Config, new: Config) -> dict[str, Source]:
    """Return the sources, not opened yet, of the streams whose source differs. Raises OrionError for one of no use."""
    present = {stream.stream_id: stream.source for stream in old.streams}
    return {
        stream.stream_id: make_source(stream.source)
        for stream in new.streams
        if present.get(stream.stream_id) != stream.source
    }


def apply(running: Running, new: Config, sources: Mapping[str, Source]) -> None:
    """Go over to `new`, as far as it concerns what runs without another pair of models."""
    for stream_id in sorted(running.streams.keys() - {stream.stream_id for stream in new.streams}):
        running.remove_stream(stream_id)
        _log.info("the stream was removed by command", extra={"stream": stream_id})
    for stream in new.streams:
        settings = stream_settings(new, stream)
        present = running.streams.get(stream.stream_id)
        if present is None:
            running.add_stream(settings, sources[stream.stream_id])
            _log.info("the stream was added by command", extra={"stream": stream.stream_id})
        elif settings != present.settings or stream.stream_id in sources:
            keys = [key for name, key in _KEYS.items() if getattr(settings, name) != getattr(present.settings, name)]
            keys += ["source"] if stream.stream_id in sources else []
            present.change(settings, sources.get(stream.stream_id))
            _log.info("the stream was changed by command: %s", ", ".join(keys), extra={"stream": stream.stream_id})
    running.limit_frames(frame_deadline_s(new))
