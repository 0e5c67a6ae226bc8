"""Real brokers, and someone who listens: what the tests of the bus and of whole runs share."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from benchmarks.mosquitto import HOST, free_port
from orion.broker import EmbeddedBroker
from orion.bus import Bus, BusEvent, BusSettings, IncomingCommand
from orion.mqtt import TlsSettings
from orion.outbox import Outbox


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
    """Wait until `condition` is true, or fail and say what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.01)


class Broker(Protocol):
    """A broker that a test can take away and bring back, always on the same port."""

    port: int

    def start(self) -> None: ...

    def kill(self) -> None: ...


class Embedded:
    """The embedded broker with the same verbs."""

    def __init__(self) -> None:
        self.port = free_port()
        self._broker = EmbeddedBroker(self.port)

    def start(self) -> None:
        """Start it, on the port that it had."""
        self._broker.start()
        assert self._broker.port == self.port

    def kill(self) -> None:
        """Kill it."""
        self._broker.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class Listener:
    """A subscriber that comes back by itself, with a clean session; a context manager.

    `messages` are those received so far; `login` is a user and a password.
    """

    def __init__(self, port: int, topic: str = "care/#", *, login: tuple[str, str] | None = None) -> None:
        self.messages: list[MQTTMessage] = []
        self._port = port
        self._topic = topic
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        if login is not None:
            self._client.username_pw_set(*login)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message

    def payloads(self, topic: str) -> list[dict[str, Any]]:
        """Return the JSON objects received on a topic, oldest first."""
        return [json.loads(message.payload) for message in list(self.messages) if message.topic == topic]

    def wait_subscribed(self) -> None:
        """Wait until the broker lets this listener listen, also again after an outage."""
        assert self._subscribed.wait(10.0), "the listener could not subscribe"

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1 and wait until the broker has it."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(10.0)

    def __enter__(self) -> Self:
        self._client.connect(HOST, self._port)
        self._client.loop_start()
        self.wait_subscribed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if not code.is_failure:
            client.subscribe(self._topic, 1)

    def _on_subscribe(
        self, _client: Client, _data: object, _mid: int, _codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._subscribed.set()

    def _on_disconnect(
        self,
        _client: Client,
        _data: object,
        _flags: DisconnectFlags,
        _code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._subscribed.clear()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.messages.append(message)


CONTROL = "care/control/cam"
HEALTH = "care/health/cam"
RESULTS = "care/inferences/cam/person_detection"
STATUS = "care/status/cam"
TELEMETRY = "care/telemetry/cam"


def settings(port: int, run_id: str = "run-1", **changes: Any) -> BusSettings:
    """Return settings of an instance `cam`, with short delays."""
    values: dict[str, Any] = {
        "host": HOST,
        "port": port,
        "instance_id": "cam",
        "run_id": run_id,
        "topics": {
            "control": CONTROL,
            "health": HEALTH,
            "inferences": "care/inferences/cam/{type}",
            "status": STATUS,
            "telemetry": TELEMETRY,
        },
        "qos": {"control": 1, "health": 1, "inferences": 1, "status": 1, "telemetry": 0},
        "replay_delay_s": 0.0,
    }
    return BusSettings(**(values | changes))


@dataclass
class Station:
    """A bus with what it told its owner; a context manager that starts and stops it."""

    bus_settings: BusSettings
    outbox: Outbox | None = None
    stop_timeout_s: float = 3.0
    commands: list[IncomingCommand] = field(default_factory=list)
    events: list[BusEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bus = Bus(self.bus_settings, self.commands.append, self.events.append, self.outbox)

    def told(self, name: str) -> list[BusEvent]:
        """Return the events of one name."""
        return [event for event in list(self.events) if event.name == name]

    def publish_results(self, numbers: Iterable[int]) -> None:
        """Publish results that carry these numbers."""
        for number in numbers:
            self.bus.publish("inferences", {"frame_seq": number, "trace_id": f"t{number}"})

    def wait_connected(self) -> None:
        """Wait until the bus is connected and subscribed."""
        wait_until(lambda: self.bus.connected, "the bus is connected")

    def __enter__(self) -> Self:
        self.bus.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bus.stop(self.stop_timeout_s)


class Authority:
    """A certificate authority of its own, made with the openssl program in `folder`."""

    def __init__(self, openssl: str, folder: Path, name: str) -> None:
        self._openssl = openssl
        self._folder = folder / name
        self._folder.mkdir()
        self._key = self._folder / "ca.key"
        self.certificate = self._folder / "ca.crt"
        subject = ["-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self._run("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.certificate, "-days", "2", *subject)
        (self._folder / "index.txt").touch()
        (self._folder / "ca.conf").write_text(_CA_CONFIG.format(folder=self._folder))

    def issue(self, name: str, *, expired: bool = False) -> tuple[Path, Path]:
        """Return certificate and key of a client or server; a server's name is 127.0.0.1 and localhost."""
        key, request, certificate = (self._folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        self._run("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        end = "20200102000000Z" if expired else "20990101000000Z"
        dates = ["-startdate", "20200101000000Z", "-enddate", end]
        self._run("ca", "-batch", "-notext", "-config", self._folder / "ca.conf", *dates, "-in", request, "-out",
                  certificate)  # fmt: skip
        return certificate, key

    def _run(self, *arguments: str | Path) -> None:
        command = [self._openssl, *map(str, arguments)]
        subprocess.run(
            command, check=True, capture_output=True, cwd=self._folder, env={**os.environ, "RANDFILE": "rnd"}
        )


_NEW_KEY: Sequence[str] = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_CA_CONFIG = """
[ca]
default_ca = own
[own]
database = {folder}/index.txt
new_certs_dir = {folder}
certificate = {folder}/ca.crt
private_key = {folder}/ca.key
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = leaf
unique_subject = no
[any]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
"""


def tls_config(authority: Authority, certificate: tuple[Path, Path], *, ask_client: bool = False) -> list[str]:
    """Return a mosquitto listener's lines for TLS; `ask_client` wants a client certificate of the same authority."""
    lines = [f"certfile {certificate[0]}", f"keyfile {certificate[1]}", f"cafile {authority.certificate}"]
    return [*lines, "allow_anonymous true", *(["require_certificate true"] if ask_client else [])]


def tls(authority: Authority, client: tuple[Path, Path] | None = None) -> TlsSettings:
    """Return our side's settings that trust `authority`."""
    return TlsSettings(authority.certificate, *(client or ()))
