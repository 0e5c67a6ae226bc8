"""The bus: results, health and telemetry out, commands in, over MQTT. One thread owns the link to the broker, the
messages on their way and the outbox; any thread may publish, which only posts to it. It blocks in one place: on its
mailbox, the socket and the next deadline.
"""

import json
import logging
import math
import select
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Literal

from orion.delivery import Lane, LaneStats
from orion.errors import OrionError
from orion.link import Dial, Link
from orion.mailbox import Mailbox
from orion.mqtt import Accepted, Acknowledged, Endpoint, Lost, Received, Signal, Subscribed, TlsSettings, Will
from orion.outbox import Outbox, OutgoingMessage

Kind = Literal["health", "inferences", "telemetry"]
Topic = Literal["control", "health", "inferences", "status", "telemetry"]
EventName = Literal[
    "connected", "disconnected", "unreachable", "refused", "control_refused", "duplicate_instance",
    "outbox_overflow", "outbox_failed", "bus_failed",
]  # fmt: skip

PAYLOAD_LIMIT = 64 * 1024
"""Bytes of a command; more are not handed over."""

_INBOX_LIMIT = 4096
_HEALTH_LIMIT = 256
_OVERFLOW_REPORT_S = 60.0
_GOODBYE_SHARE = 0.3
"""Share of the time for stopping that is kept for the `offline` and its acknowledgement."""

_JOIN_MARGIN_S = 1.0
_FOREIGN_RUNS_LIMIT = 64

log = logging.getLogger(__name__)


class BusStopError(OrionError):
    """The bus's thread did not end in time."""


@dataclass(frozen=True, slots=True)
class BusSettings:
    """Where the broker is, who we are, and which topics we use.

    `topics` has control, health, inferences, status and telemetry, expanded but for `{type}` in inferences; `qos` has
    the same keys. `status` are fields to add to the status message, such as the room and the version.
    """

    host: str
    port: int
    instance_id: str
    run_id: str
    topics: Mapping[Topic, str]
    qos: Mapping[Topic, int]
    tls: TlsSettings | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    client_id: str | None = None
    """None is `<instance_id>-<run_id>`."""
    status: Mapping[str, object] = field(default_factory=dict)
    replay_delay_s: float = 5.0
    keepalive_s: int = 10

    def endpoint(self) -> Endpoint:
        """Return what a connection must know."""
        client_id = self.client_id or f"{self.instance_id}-{self.run_id}"
        return Endpoint(self.host, self.port, client_id, self.tls, self.username, self.password, self.keepalive_s)


@dataclass(frozen=True, slots=True)
class IncomingCommand:
    """A control message as it came. One of more than PAYLOAD_LIMIT bytes is `oversized`, and its payload left out."""

    payload: bytes
    size: int
    oversized: bool = False


@dataclass(frozen=True, slots=True)
class BusEvent:
    """Something that an operator should hear of. `reason` is for people and holds no secrets; `count` for overflow."""

    name: EventName
    reason: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class BusStats:
    """What the bus has done so far."""

    connected: bool
    reconnects: int
    commands: int
    ignored: int
    """Control messages that were retained."""
    refused: int
    """Messages that came faster than the bus's thread could take them, or after its end."""
    results: LaneStats
    health: LaneStats

    @property
    def published(self) -> int:
        """Return how many results and health messages were handed in."""
        return self.results.accepted + self.health.accepted

    @property
    def acknowledged(self) -> int:
        """Return how many of them the broker has taken over."""
        return self.results.acknowledged + self.health.acknowledged

    @property
    def dropped(self) -> int:
        """Return how many messages were lost; telemetry counts where it came too fast."""
        lanes = (self.results, self.health)
        return self.refused + sum(lane.dropped + lane.overflowed for lane in lanes)

    @property
    def replayed(self) -> int:
        """Return how many results were sent from the outbox, repetitions included."""
        return self.results.replayed


@dataclass(frozen=True, slots=True)
class _Outgoing:
    kind: Kind
    message: OutgoingMessage


@dataclass(frozen=True, slots=True)
class _Stop:
    flush_by: float
    deadline: float


class Bus:
    """The actor. `on_command` and `on_event` are called on its thread and must only post; `clock` is monotonic."""

    def __init__(
        self,
        settings: BusSettings,
        on_command: Callable[[IncomingCommand], None],
        on_event: Callable[[BusEvent], None],
        outbox: Outbox | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._settings = settings
        self._on_command = on_command
        self._reporter = _Reporter(on_event, clock)
        self._outbox = outbox
        self._clock = clock
        self._results = Lane(outbox, settings.replay_delay_s)
        self._health = Lane(memory_limit=_HEALTH_LIMIT)
        self._mailbox: Mailbox[_Outgoing | Dial | _Stop] = Mailbox()
        self._lock = threading.Lock()
        self._ended = False
        self._queued = self._refused = self._commands = self._ignored = 0
        self._connections = 0
        topics, qos = settings.topics, settings.qos
        subscriptions = {topics["control"]: qos["control"], topics["status"]: qos["status"]}
        will = Will(topics["status"], self._status("offline", "connection lost"), qos["status"])
        self._link = Link(settings.endpoint(), will, subscriptions, self._mailbox.post, clock, random or Random())
        self._answered_runs: set[str] = set()
        self._stop: _Stop | None = None
        self._goodbye_mid: int | None = None
        self._goodbye_arrived = False
        self._thread = threading.Thread(target=self._run, name="orion-bus")

    @property
    def connected(self) -> bool:
        """Return whether the broker has accepted us and answered our subscriptions."""
        return self._link.ready

    @property
    def stats(self) -> BusStats:
        """Return the counters as they are now."""
        return BusStats(
            connected=self._link.ready,
            reconnects=max(0, self._connections - 1),
            commands=self._commands,
            ignored=self._ignored,
            refused=self._refused,
            results=self._results.stats(),
            health=self._health.stats(),
        )

    def start(self) -> None:
        """Start the thread. A broker that is absent is retried for ever. Errors: TlsFilesError."""
        if self._settings.tls is not None:
            self._settings.tls.context()
        self._thread.start()

    def publish(self, kind: Kind, payload: Mapping[str, object] | bytes, result_type: str = "person_detection") -> None:
        """Hand a message in, from any thread, and return at once; a mapping becomes JSON.

        Results wait for the broker in memory and in the outbox, health messages in memory, telemetry not at all.
        """
        body = payload if isinstance(payload, bytes) else json.dumps(payload, separators=(",", ":")).encode()
        topic = self._settings.topics[kind].replace("{type}", result_type)
        outgoing = _Outgoing(kind, OutgoingMessage(topic, body, self._settings.qos[kind]))
        with self._lock:
            if self._ended or self._queued >= _INBOX_LIMIT:
                self._refused += 1
                return
            self._queued += 1
            self._mailbox.post(outgoing)

    def stop(self, timeout_s: float) -> None:
        """Send what can be sent, say `offline`, disconnect, and join the thread, all within `timeout_s`.

        What the broker did not acknowledge in time stays in the outbox, or is counted as dropped where there is none,
        and is logged. Errors: BusStopError if the thread does not end.
        """
        if not self._thread.is_alive():
            return
        now = self._clock()
        self._mailbox.post(_Stop(now + timeout_s * (1 - _GOODBYE_SHARE), now + timeout_s))
        self._thread.join(timeout_s + _JOIN_MARGIN_S)
        if self._thread.is_alive():
            raise BusStopError(f"the MQTT thread did not end within {timeout_s + _JOIN_MARGIN_S:g} s")

    def _run(self) -> None:
        try:
            self._results.recover(self._clock())
            while not self._finished():
                self._turn()
        except Exception as error:
            log.exception("the MQTT thread failed")
            self._reporter.tell(BusEvent("bus_failed", f"{type(error).__name__}: {error}"))
        finally:
            self._leave()

    def _turn(self) -> None:
        """Wait for one thing to happen, and handle all that did."""
        readable, writable = self._wait()
        for item in self._mailbox.take():
            self._take(item)
        for signal in self._link.pump(readable=readable, writable=writable):
            self._handle(signal)
        now = self._clock()
        self._results.tick(now)
        self._send(now)
        self._reporter.report_lane(self._results)

    def _wait(self) -> tuple[bool, bool]:
        now = self._clock()
        deadline = min(self._results.wakes_at(now), self._health.wakes_at(now), self._link.wakes_at(), self._stop_at())
        poller = select.poll()
        poller.register(self._mailbox.fileno(), select.POLLIN)
        interest = self._link.interest()
        if interest is not None:
            poller.register(interest[0], select.POLLIN | (select.POLLOUT if interest[1] else 0))
        wait_s = max(0.0, deadline - now)
        timeout_ms = math.ceil(wait_s * 1000) if math.isfinite(wait_s) else None
        ready = dict(poller.poll(timeout_ms))
        events = 0 if interest is None else ready.get(interest[0], 0)
        return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)

    def _take(self, item: _Outgoing | Dial | _Stop) -> None:
        match item:
            case _Stop():
                self._stop = item
            case Dial():
                for signal in self._link.dialed(item):
                    self._handle(signal)
            case _Outgoing(kind, message):
                with self._lock:
                    self._queued -= 1
                if kind != "telemetry":
                    (self._results if kind == "inferences" else self._health).add(message, self._clock())
                elif self._link.connection is not None:
                    self._link.connection.publish(message.topic, message.payload, message.qos)

    def _send(self, now: float) -> None:
        connection = self._link.connection
        if connection is None:
            return
        for lane in (self._health, self._results):
            for message, row in lane.sendable(now):
                lane.sent(connection.publish(message.topic, message.payload, message.qos), row)

    def _handle(self, signal: Signal) -> None:
        match signal:
            case Accepted():
                self._connections += 1
                self._answered_runs.clear()
                for lane in (self._health, self._results):
                    lane.connected(self._clock())
            case Subscribed(refused):
                self._announce()
                self._reporter.connected(self._settings, refused)
            case Acknowledged(mid):
                if mid == self._goodbye_mid:
                    self._goodbye_arrived = True
                elif not self._results.acknowledged(mid):
                    self._health.acknowledged(mid)
            case Received():
                self._receive(signal)
            case Lost():
                for lane in (self._health, self._results):
                    lane.disconnected(self._clock())
                self._reporter.lost(signal)

    def _receive(self, message: Received) -> None:
        if message.topic == self._settings.topics["status"]:
            self._hear_status(message)
        elif message.retained:
            self._ignored += 1
            log.warning("ignored a retained control message of %d bytes", len(message.payload))
        else:
            self._commands += 1
            size = len(message.payload)
            oversized = size > PAYLOAD_LIMIT
            self._on_command(IncomingCommand(b"" if oversized else message.payload, size, oversized))

    def _hear_status(self, message: Received) -> None:
        """Look for another instance of our name, and correct an `offline` that is not true.

        What is retained tells of the past. Instances that hear of each other answer once each, so that both know. An
        `offline` may be the belated will of a former run or of a connection of our own that we have given up.
        """
        if message.retained or self._goodbye_mid is not None:
            return
        try:
            status = json.loads(message.payload)
            run_id, state = str(status["run_id"]), status["status"]
        except (ValueError, LookupError, TypeError, RecursionError):
            log.warning("ignored a status message that is none, of %d bytes", len(message.payload))
            return
        known = run_id == self._settings.run_id or run_id in self._answered_runs
        if state == "offline":
            self._announce()
        elif not known and len(self._answered_runs) < _FOREIGN_RUNS_LIMIT:
            self._answered_runs.add(run_id)
            self._announce()
            self._reporter.tell(BusEvent("duplicate_instance", f"run {run_id[:64]} uses the same instance id"))

    def _stop_at(self) -> float:
        if self._stop is None:
            return float("inf")
        return self._stop.flush_by if self._clock() < self._stop.flush_by else self._stop.deadline

    def _finished(self) -> bool:
        """Return whether the thread may leave; while stopping, say goodbye once everything is sent or time is short."""
        if self._stop is None:
            return False
        now = self._clock()
        if self._goodbye_arrived or now >= self._stop.deadline:
            return True
        flushed = self._results.idle(now) and self._health.idle(now)
        if self._link.ready:
            if self._goodbye_mid is None and (flushed or now >= self._stop.flush_by):
                self._say_offline()
            return False
        # Without a connection, an attempt under way is worth waiting for only if something would go out with it.
        held = self._results.stats().held + self._health.stats().held
        return not self._link.trying or not held or now >= self._stop.flush_by

    def _say_offline(self) -> None:
        assert self._link.connection is not None
        topic, qos = self._settings.topics["status"], self._settings.qos["status"]
        self._goodbye_mid = self._link.connection.publish(topic, self._status("offline", "stopped"), qos, retain=True)

    def _leave(self) -> None:
        if self._goodbye_mid is not None and self._link.connection is not None:
            self._link.connection.say_goodbye()
        self._link.close()
        with self._lock:
            self._ended = True
        for item in self._mailbox.take():
            if isinstance(item, _Outgoing):
                self._take(item)
        self._mailbox.close()
        dropped_before = self._results.stats().dropped + self._health.stats().dropped
        for lane in (self._health, self._results):
            lane.close(self._clock())
        self._reporter.report_lane(self._results)
        lost = self._results.stats().dropped + self._health.stats().dropped - dropped_before
        if lost:
            log.warning("stopped; messages that the broker did not acknowledge, and that are lost: %d", lost)
        if self._outbox is not None and len(self._outbox):
            log.warning("%d results wait for the next start in %s", len(self._outbox), self._outbox.path)

    def _announce(self) -> None:
        if self._link.connection is not None:
            topic, qos = self._settings.topics["status"], self._settings.qos["status"]
            self._link.connection.publish(topic, self._status("online", "running"), qos, retain=True)

    def _status(self, state: Literal["online", "offline"], reason: str) -> bytes:
        status: dict[str, object] = {
            "status": state,
            "instance_id": self._settings.instance_id,
            "run_id": self._settings.run_id,
            "reason": reason,
            **self._settings.status,
        }
        if reason != "connection lost":
            status["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return json.dumps(status, separators=(",", ":")).encode()


class _Reporter:
    """Turns what happens into events and log lines, and keeps repetitions from becoming a flood."""

    def __init__(self, on_event: Callable[[BusEvent], None], clock: Callable[[], float]) -> None:
        self._on_event = on_event
        self._clock = clock
        self._was_connected = False
        self._trouble = ""
        self._fault: str | None = None
        self._overflowed = 0
        self._overflow_at = float("-inf")

    def tell(self, event: BusEvent) -> None:
        """Log an event and hand it on."""
        log.log(logging.INFO if event.name == "connected" else logging.WARNING, "%s: %s", event.name, event.reason)
        self._on_event(event)

    def connected(self, settings: BusSettings, refused: tuple[str, ...]) -> None:
        """Tell of a connection, and of topics that the broker lets nobody of our name read."""
        self._was_connected = True
        self._trouble = ""
        self.tell(BusEvent("connected", f"{settings.host}:{settings.port}"))
        if refused:
            self.tell(BusEvent("control_refused", f"the broker refuses the subscription to {', '.join(refused)}"))

    def lost(self, lost: Lost) -> None:
        """Tell of the end of a connection or of an attempt; the same trouble again is told once."""
        name: EventName = "refused" if lost.refused else "disconnected" if self._was_connected else "unreachable"
        self._was_connected = False
        if self._trouble == lost.reason:
            log.debug("still %s: %s", name, lost.reason)
            return
        self._trouble = lost.reason
        self.tell(BusEvent(name, lost.reason))

    def report_lane(self, lane: Lane) -> None:
        """Tell of an outbox that fails or overflows, the latter at most once a minute."""
        if lane.outbox_fault != self._fault:
            self._fault = lane.outbox_fault
            if self._fault is not None:
                self.tell(BusEvent("outbox_failed", self._fault))
        more = lane.overflowed - self._overflowed
        if more and self._clock() >= self._overflow_at + _OVERFLOW_REPORT_S:
            self._overflowed = lane.overflowed
            self._overflow_at = self._clock()
            self.tell(BusEvent("outbox_overflow", f"the outbox is full: {more} of the oldest results are lost", more))
