"""`run` from a configuration to an exit code: everything that runs is entered on one stack, in order, and leaves it in
reverse, whatever fails in between. Runs in the main thread, which then is the supervisor's.
"""

import logging
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from orion import bus as buses
from orion import changes, lifeline, lock, log, lookup, persist, reconfigure, report
from orion.bus import Bus, BusSettings, IncomingCommand, Topic
from orion.commands import Commands
from orion.config import Config, broker_address, source_kind
from orion.display import Display, conclude
from orion.errors import EXIT_OK, EXIT_RESOURCE, OrionError
from orion.keeper import BrokerKeeper
from orion.mailbox import Mailbox
from orion.mqtt import TlsSettings
from orion.outbox import Outbox
from orion.outlet import Outlets, Painter
from orion.posts import BusEvent, CommandReceived, PartFailed, Post, StopRequested
from orion.results import ResultWriter
from orion.signals import STOP_SIGNALS
from orion.sources import make_source
from orion.stream import RingMaker, Stream
from orion.supervisor import Supervisor, SupervisorSettings
from orion.worker import WorkerSpec

_log = logging.getLogger(__name__)

DETECTOR = "workers.person:PersonDetector"
_EVENTS = {"duplicate_instance", "outbox_overflow"}
"""What the bus notices and the world is told; the rest is logged where it arises."""
_SWITCH_S = 0.0005
"""After so long a thread that computes gives way. FFmpeg asks Python at every read of the network whether the time is
over, and a frame has dozens of them: with Python's own 5 ms a busy thread more than halved the rate of a camera."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this run is; `run_id` is new at every start."""

    instance_id: str
    run_id: str


def run(base: Config, config: Config) -> int:
    """Run the instance until it is done and return the exit code. Raises OrionError when it cannot run (on).

    `config` is `base` with the changes that were made by command in an earlier run.
    """
    log.setup(config.log.level, config.log.format, config.instance_id)
    lifeline.start_tracker()
    sys.setswitchinterval(_SWITCH_S)
    identity = Identity(config.instance_id, uuid.uuid4().hex[:12])
    if kept := changes.spelled(changes.differences(base, config)):
        _log.info("changed by command, see %s: %s", persist.changes_file(identity.instance_id), ", ".join(kept))
    sources = {stream.stream_id: make_source(stream.source) for stream in config.streams}
    with ExitStack() as stack:
        mailbox: Mailbox[Post] = Mailbox()
        stack.callback(mailbox.close)
        held = stack.enter_context(lock.InstanceLock(identity.instance_id, identity.run_id))
        for name in lock.remove_leftover_segments(identity.instance_id, identity.run_id):
            _log.warning("removed %s, which a run that was killed had left", name)
        rings = RingMaker(identity.instance_id, identity.run_id, config.ring.slots, _log.warning)
        STOP_SIGNALS.connect(lambda name: mailbox.post(StopRequested(name)), lambda: _force(rings, held))
        specs = _worker_specs(config)
        broker = stack.enter_context(BrokerKeeper(mailbox.post)) if config.mqtt.broker == "embedded" else None
        broker_url = _broker_url(config, broker)
        held.update(broker=broker_url)
        bus = _start_bus(config, identity, broker_url, mailbox, stack)
        ending: list[Callable[[], None]] = []
        stack.callback(lambda: [show() for show in ending])
        outlets = _start_outlets(config, bus, _notes(config, identity, broker_url), stack)
        streams = [
            Stream(reconfigure.stream_settings(config, stream), sources[stream.stream_id], rings, mailbox)
            for stream in config.streams
        ]
        supervisor = Supervisor(_settings(config, identity, specs), streams, rings, mailbox, outlets)
        stack.callback(lambda: ending.append(_show_summary(supervisor)))
        stack.callback(supervisor.close, config.shutdown_timeout_s / 2)
        commands = Commands(supervisor, base, config, persist.changes_file(identity.instance_id))
        _join(supervisor, commands, bus, broker)
        supervisor.run()
    return EXIT_RESOURCE if outlets.results_lost else EXIT_OK


def _join(supervisor: Supervisor, commands: Commands, bus: Bus | None, broker: BrokerKeeper | None) -> None:
    """Let the supervisor's loop drive commands and the embedded broker, and its state tell of all."""
    supervisor.controller = commands
    if broker is not None:
        broker.attach(supervisor)
        supervisor.keeper = broker
    supervisor.extra = lambda: {
        **commands.describe(),
        "emitter": None if bus is None else asdict(bus.stats),
        "processes": report.processes(supervisor, None if broker is None else broker.pid),
    }


def _settings(config: Config, identity: Identity, specs: list[WorkerSpec]) -> SupervisorSettings:
    return SupervisorSettings(
        instance_id=identity.instance_id,
        room_id=config.room_id,
        run_id=identity.run_id,
        workers=specs,
        frame_deadline_s=reconfigure.frame_deadline_s(config),
        policy=reconfigure.restart_policy(config),
        memory_limit_mb=reconfigure.memory_limit_mb(config, len(specs)),
        start_deadline_s=config.workers.start_deadline_s,
    )


def _worker_specs(config: Config) -> list[WorkerSpec]:
    """Return what each worker process is given at its start."""
    count, threads = reconfigure.worker_shares(config)
    pair = lookup.find_pair(config.models.person_detector)
    if pair.embedded and any(source_kind(stream.source) != "demo" for stream in config.streams):
        _log.warning(lookup.EMBEDDED_HINT)
    detector = reconfigure.detector_spec(config, pair, threads)
    return [
        WorkerSpec(
            worker_id=f"w{number}",
            instance_id=config.instance_id,
            parent_pid=os.getpid(),
            detector_class=DETECTOR,
            detector=detector,
            log_level=config.log.level,
            log_format=config.log.format,
        )
        for number in range(count)
    ]


def _broker_url(config: Config, embedded: BrokerKeeper | None) -> str | None:
    """Return where results are published, None when that is nowhere."""
    if embedded is not None:
        return embedded.url
    return None if config.mqtt.broker == "none" else config.mqtt.broker


def _start_bus(
    config: Config, identity: Identity, broker_url: str | None, mailbox: Mailbox[Post], stack: ExitStack
) -> Bus | None:
    if broker_url is None:
        return None
    mqtt = config.mqtt
    host, port = broker_address(broker_url)
    tls = TlsSettings(mqtt.tls.ca, mqtt.tls.cert, mqtt.tls.key) if broker_url.startswith("mqtts://") else None
    settings = BusSettings(
        host=host,
        port=port,
        instance_id=identity.instance_id,
        run_id=identity.run_id,
        topics=cast(Mapping[Topic, str], mqtt.topics.expanded(identity.instance_id)),
        qos=cast(Mapping[Topic, int], mqtt.qos.model_dump()),
        tls=tls,
        username=mqtt.username,
        password=mqtt.password.get_secret_value() if mqtt.password else None,
        status={"room_id": config.room_id},
        replay_delay_s=mqtt.outbox.replay_delay_s,
    )

    def on_command(command: IncomingCommand) -> None:
        mailbox.post(CommandReceived(command.payload, command.size))

    def on_event(notice: buses.BusEvent) -> None:
        if notice.name in _EVENTS:
            mailbox.post(BusEvent(notice.name, {"reason": notice.reason, "count": notice.count}))
        elif notice.name == "bus_failed":
            # Without it nobody sees what this instance sees, and nobody can command it.
            mailbox.post(PartFailed(OrionError(f"the MQTT side failed: {notice.reason}")))

    path = mqtt.outbox.path or persist.state_folder(identity.instance_id) / "outbox.sqlite3"
    bus = Bus(settings, on_command, on_event, Outbox(path, mqtt.outbox.max_messages))
    bus.start()
    stack.callback(bus.stop, config.shutdown_timeout_s / 4)
    return bus


def _start_outlets(config: Config, bus: Bus | None, notes: list[str], stack: ExitStack) -> Outlets:
    results, folder = config.run.results, config.run.save_frames
    writer = painter = None
    if results is not None:
        writer = ResultWriter(results)
        stack.callback(writer.close, config.shutdown_timeout_s / 4)
    if folder is not None:
        painter = Painter(folder, every_frame=config.run.every_frame)
        stack.callback(painter.close, config.shutdown_timeout_s / 4)
    display = Display(notes)
    display.start()
    stack.callback(display.close)
    return Outlets(bus, writer, painter, display, config.telemetry_s)


def _notes(config: Config, identity: Identity, broker_url: str | None) -> list[str]:
    """Return what stands below the live view: where results go, and how to stop."""
    notes = []
    topics = config.mqtt.topics.expanded(identity.instance_id)
    if broker_url is not None:
        host, port = broker_address(broker_url)
        topic = topics["inferences"].replace("{type}", "person_detection")
        notes.append(f"Results go to {broker_url} on {topic}. To see them:")
        notes.append(f"  mosquitto_sub -h {host} -p {port} -t '{topic}'")
    if config.run.results not in {None, "-"}:
        notes.append(f"Results go to {config.run.results}, one JSON object a line.")
    if config.run.save_frames is not None:
        notes.append(f"Pictures go to {config.run.save_frames}.")
    if lookup.is_embedded(config.models.person_detector):
        notes.append("Your own camera and model:")
        notes.append(f"  {_program()} run --source rtsp://... --model-dir DIR --model-size n")
    notes.append("Ctrl-C stops.")
    return notes


def _program() -> str:
    """Return what a person types to start this program again from here."""
    if shutil.which("orion") is not None:
        return "orion"
    beside = Path(sys.executable).parent / "orion"
    path = beside if beside.exists() else Path(sys.executable)
    shown = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    return shown if path is beside else f"{shown} -m orion"


def _show_summary(supervisor: Supervisor) -> Callable[[], None]:
    """Return what prints the summary, with the state as it is now."""
    state, reason = report.describe(supervisor), supervisor.stop_reason
    return lambda: conclude(state, reason)


def _force(rings: RingMaker, held: lock.InstanceLock) -> None:
    """Leave nothing behind on a second signal; the children go with this process."""
    rings.unlink_all()
    held.release()
