"""Preflight: does what `run` would do at its start, once, and says of each thing whether it works and what to do if
not. Runs in the main thread of a command of its own; models are loaded by a worker process, as they are in a run.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import wait
from select import select

import numpy as np
from rich.console import Console
from rich.text import Text

from orion import lookup, ring, uri
from orion.broker import EmbeddedBroker
from orion.config import Config, MqttConfig, StreamConfig, broker_address
from orion.errors import EXIT_GAVE_UP, EXIT_OK, ModelError, OrionError
from orion.handle import WorkerProcess
from orion.lock import read_lock
from orion.messages import BootFailure, DetectorInfo, DetectorSpec, Ready, Stop
from orion.mqtt import Accepted, Connection, Endpoint, Lost, MqttError, TlsSettings
from orion.source import SourceInfo
from orion.sources import make_source
from orion.worker import WorkerSpec

_DETECTOR = "workers.person:PersonDetector"
_RUNTIME = "onnxruntime"
_READY_LIMIT_S = 120.0
_BROKER_LIMIT_S = 5.0
_GONE_LIMIT_S = 5.0
_USUAL_SIZE = (1920, 1080)
"""Assumed of a source that cannot be opened."""
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it if it failed."""

    subject: str
    ok: bool
    text: str


def examine(config: Config) -> int:
    """Check everything that `config` needs and print one line for each; return exit code 0, or 1 if anything fails."""
    console = Console(highlight=False)
    failures = 0
    for finding in _findings(config):
        failures += not finding.ok
        verdict = Text("OK   " if finding.ok else "FAIL ", style="bold green" if finding.ok else "bold red")
        console.print(Text.assemble(verdict, f"{finding.subject:14} {finding.text}"), soft_wrap=True)
    return EXIT_GAVE_UP if failures else EXIT_OK


def _findings(config: Config) -> Iterator[Finding]:
    yield _instance(config.instance_id)
    sizes = []
    for stream in config.streams:
        finding, size = _source(stream)
        yield finding
        sizes.append(size)
    yield shared_memory(sizes, config.ring.slots)
    yield runtime(_runtimes())
    yield from _models(config)
    yield _broker(config)


def _instance(instance_id: str) -> Finding:
    try:
        holder = read_lock(instance_id)
    except OrionError as error:
        return Finding("instance", ok=False, text=str(error))
    if holder is None:
        return Finding("instance", ok=True, text=f"{instance_id} is not running")
    where = f", results go to {holder.broker}" if holder.broker else ""
    return Finding("instance", ok=True, text=f"{instance_id} is running as process {holder.pid}{where}")


def _source(stream: StreamConfig) -> tuple[Finding, tuple[int, int]]:
    """Open the source and read one picture; return what came of it, and the picture's width and height in pixels."""
    subject = stream.stream_id
    try:
        source = make_source(stream.source)
        with closing(source):
            info = source.open()
            found = source.read(np.empty((info.height, info.width, 3), np.uint8)) is not None
    except OrionError as error:
        return Finding(subject, ok=False, text=_one_line(error)), _USUAL_SIZE
    size = (info.width, info.height)
    text = f"{source.safe_uri}: {_described(info)}"
    return Finding(subject, ok=found, text=text if found else f"{text}, but not a single picture"), size


def _described(info: SourceInfo) -> str:
    rate = "" if info.fps is None else f" at {info.fps:g} fps"
    return f"{info.width}x{info.height}{rate}"


def shared_memory(sizes: Sequence[tuple[int, int]], slots: int) -> Finding:
    """Compare what rings of `slots` pictures of these sizes (width, height in pixels) need with what is free."""
    needed = sum(ring.bytes_needed(width, height, slots) for width, height in sizes)
    free = ring.bytes_free()
    text = f"{needed / _MB:.0f} MB needed, {free / _MB:.0f} MB free"
    if needed <= free:
        return Finding("shared memory", ok=True, text=text)
    least = sum(ring.bytes_needed(width, height, ring.MIN_SLOTS) for width, height in sizes)
    if least <= free:
        return Finding("shared memory", ok=True, text=f"{text}: enough for {ring.MIN_SLOTS} instead of {slots} slots")
    advice = f"enlarge /dev/shm (in a container: --shm-size={2 * needed // 2**20 + 1}m), or set fewer ring.slots"
    return Finding("shared memory", ok=False, text=f"{text}: {advice}")


def _runtimes() -> dict[str, str]:
    """Return the installed packages that bring onnxruntime, with their versions."""
    names = set(metadata.packages_distributions().get(_RUNTIME, ()))
    return {name: metadata.version(name) for name in sorted(names)}


def runtime(packages: Mapping[str, str]) -> Finding:
    """Tell which of `packages` (names and versions) brings onnxruntime. It comes in several builds whose packages
    overwrite each other's files: one may be there.
    """
    text = ", ".join(f"{name} {version}" for name, version in packages.items())
    if len(packages) == 1:
        return Finding(_RUNTIME, ok=True, text=text)
    if not packages:
        return Finding(_RUNTIME, ok=False, text=f"no package brings it: pip install {_RUNTIME}")
    wanted = next(name for name in packages if name != _RUNTIME)
    advice = f"pip uninstall -y {' '.join(packages)} && pip install {wanted}"
    return Finding(_RUNTIME, ok=False, text=f"{text} overwrite each other's files, one may be there: {advice}")


def _models(config: Config) -> Iterator[Finding]:
    """Load the pair in a worker process, where each session runs once; tell of the models and of their provider."""
    try:
        info = _load(config)
    except OrionError as error:
        yield Finding("models", ok=False, text=_one_line(error))
        return
    sessions = ", ".join(
        f"{session.size} loaded in {session.load_ms:.0f} ms and run in {session.warm_ms:.0f} ms"
        for session in info.sessions
    )
    yield Finding("models", ok=True, text=f"{info.model_name} ({info.model_size}): {sessions}")
    yield _self_test(info)
    asked, given = config.models.person_detector.provider, info.sessions[0].provider
    reason = next((session.fallback for session in info.sessions if session.fallback is not None), None)
    if reason is not None:
        yield Finding("provider", ok=False, text=f"{asked} cannot be used here, {given} runs instead: {reason}")
    else:
        yield Finding("provider", ok=True, text=given if asked == given else f"{asked}: {given}")


def _self_test(info: DetectorInfo) -> Finding:
    """Tell whether each session finds the drawn person; that it answers as `cpu` does was tried when it was loaded."""
    blind = [str(session.size) for session in info.sessions if not session.sees]
    if not blind:
        return Finding("self-test", ok=True, text="the known pictures are answered as they must be")
    advice = "lower models.person_detector.confidence, or take another model, unless it is for another view"
    return Finding("self-test", ok=False, text=f"{', '.join(blind)} sees nobody in the drawn pictures: {advice}")


def _load(config: Config) -> DetectorInfo:
    model = config.models.person_detector
    pair = lookup.find_pair(model)
    detector = DetectorSpec(
        model_640=str(pair.model_640),
        model_320=None if pair.model_320 is None else str(pair.model_320),
        confidence=model.confidence,
        iou=model.iou,
        classes=model.classes,
        provider=model.provider,
        threads=1 if config.workers.threads == "auto" else config.workers.threads,
    )
    spec = WorkerSpec("doctor", config.instance_id, 0, _DETECTOR, detector, config.log.level, config.log.format)
    process = WorkerProcess(spec)
    try:
        info = _first_answer(process)
        process.channel.send(Stop())
    except KeyboardInterrupt:
        process.kill()
        raise
    finally:
        if process.reap(_GONE_LIMIT_S) is None:
            process.kill()
            process.reap(_GONE_LIMIT_S)
    return info


def _first_answer(process: WorkerProcess) -> DetectorInfo:
    """Wait for READY. Raises ModelError with the worker's reason if it fails to start."""
    if not wait([process.channel.fileno(), process.sentinel], _READY_LIMIT_S):
        process.kill()
        raise ModelError(f"the models were not loaded within {_READY_LIMIT_S:.0f} s")
    for message in process.received():
        if isinstance(message, Ready):
            return message.info
        if isinstance(message, BootFailure):
            raise ModelError(message.message)
    raise ModelError("the worker process ended before it said why")


def _broker(config: Config) -> Finding:
    broker = config.mqtt.broker
    try:
        if broker == "none":
            return Finding("broker", ok=True, text="none: nothing is published")
        if broker == "embedded":
            with EmbeddedBroker() as embedded:
                return Finding("broker", ok=True, text=f"embedded: starts on {embedded.url}")
        _connect(config.mqtt, f"{config.instance_id}-doctor-{uuid.uuid4().hex[:8]}")
    except OrionError as error:
        advice = "check mqtt.broker, mqtt.username, mqtt.tls and the network"
        return Finding("broker", ok=False, text=f"{uri.mask(broker)}: {_one_line(error)}: {advice}")
    return Finding("broker", ok=True, text=f"{broker}: accepts us")


def _connect(mqtt: MqttConfig, client_id: str) -> None:
    """Connect as `run` would, and leave. Raises MqttError with the reason."""
    host, port = broker_address(mqtt.broker)
    tls = TlsSettings(mqtt.tls.ca, mqtt.tls.cert, mqtt.tls.key) if mqtt.broker.startswith("mqtts://") else None
    password = mqtt.password.get_secret_value() if mqtt.password else None
    connection = Connection(Endpoint(host, port, client_id, tls, mqtt.username, password))
    with closing(connection):
        connection.open()
        deadline = time.monotonic() + _BROKER_LIMIT_S
        while (left_s := deadline - time.monotonic()) > 0:
            readable, _, _ = select([connection.fileno()], [], [], left_s)
            for signal in connection.pump(readable=bool(readable), writable=connection.wants_write()):
                if isinstance(signal, Accepted):
                    connection.say_goodbye()
                    return
                if isinstance(signal, Lost):
                    raise MqttError(signal.reason)
    raise MqttError(f"no answer within {_BROKER_LIMIT_S:g} s")


def _one_line(error: OrionError) -> str:
    return "; ".join(str(error).splitlines())
