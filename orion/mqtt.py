"""One MQTT connection, from CONNECT to its end: the only module that imports the MQTT library. Whoever opens a
connection owns it and calls it from one thread at a time; nothing in here waits except `open`. A connection is never
used again after its end: the next attempt is a new one, so that no state of the library outlives an outage.
"""

import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from orion.errors import OrionError, ResourceError

DIAL_TIMEOUT_S = 5.0
"""Limit of each of TCP connect and TLS handshake; name resolution has the system's own."""


class MqttError(OrionError):
    """The broker cannot be reached, or the connection to it broke; the text holds no credentials."""


class TlsFilesError(ResourceError):
    """A certificate or key file for TLS cannot be used."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files for TLS in PEM format. `ca` None trusts the system's authorities. Verification cannot be switched off."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context that verifies the broker's certificate and name. Errors: TlsFilesError."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise TlsFilesError(f"mqtt.tls.ca: cannot use {self.ca}: {error}") from error
        if self.cert is not None:
            try:
                # An encrypted key would make OpenSSL ask at the terminal; an empty password makes it fail instead.
                context.load_cert_chain(self.cert, self.key, password="")
            except OSError as error:
                raise TlsFilesError(f"mqtt.tls.cert: cannot use {self.cert} with {self.key}: {error}") from error
        context.sslsocket_class = _TlsSocket
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is and who we are to it."""

    host: str
    port: int
    client_id: str
    tls: TlsSettings | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive_s: int = 10
    """A broker that is silent for twice as long is taken for lost."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the connection ends without a goodbye."""

    topic: str
    payload: bytes
    qos: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker took us in."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker answered the subscription; `refused` are the topics that it does not let us read."""

    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker has taken over the message with this id, or a message of QoS 0 left for the network."""

    mid: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message arrived; `retained` says that it was stored before we subscribed."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is over. `refused` says that the broker turned us away."""

    reason: str
    refused: bool = False


Signal = Accepted | Subscribed | Acknowledged | Received | Lost


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which the library leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Connection:
    """An MQTT 3.1.1 connection with a clean session.

    A clean session, since the client id is new at every start: a kept one would never be taken up again and stay in the
    broker for good, and a command that waited in it through an outage would act long after its sender gave up.
    """

    def __init__(self, endpoint: Endpoint, will: Will | None = None) -> None:
        self._endpoint = endpoint
        self._signals: list[Signal] = []
        self._refusal: str | None = None
        self._over = False
        self._subscriptions: dict[int | None, tuple[str, ...]] = {}
        self._client = Client(
            CallbackAPIVersion.VERSION2, endpoint.client_id, True, protocol=MQTTv311, reconnect_on_failure=False
        )
        self._client.connect_timeout = DIAL_TIMEOUT_S
        self._client.max_inflight_messages_set(0)
        if endpoint.username is not None:
            self._client.username_pw_set(endpoint.username, endpoint.password)
        if will is not None:
            self._client.will_set(will.topic, will.payload, will.qos, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        self._client.on_disconnect = self._on_disconnect

    def open(self) -> None:
        """Resolve, connect, shake hands and send CONNECT; waits for all of it. Errors: MqttError, TlsFilesError."""
        endpoint = self._endpoint
        where = f"{endpoint.host}:{endpoint.port}"
        try:
            if endpoint.tls is not None:
                # Read at every attempt, so that a renewed certificate needs no restart.
                self._client.tls_set_context(endpoint.tls.context())
            self._client.connect(endpoint.host, endpoint.port, endpoint.keepalive_s)
            # Else a result waits for the broker's delayed acknowledgement of the one before, up to 40 ms.
            connected = self._client.socket()
            if isinstance(connected, socket.socket):
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except ssl.SSLCertVerificationError as error:
            raise MqttError(f"{where}: its certificate is not trusted: {error.verify_message}") from error
        except (OSError, ValueError) as error:
            # ValueError: a host name that cannot be one.
            raise MqttError(f"{where}: {error}") from error

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1 once the connection is over."""
        own = self._client.socket()
        return -1 if own is None else int(own.fileno())

    def has_signals(self) -> bool:
        """Return whether something happened that `pump` has not returned yet."""
        return bool(self._signals)

    def wants_write(self) -> bool:
        """Return whether bytes wait for the socket to take them."""
        return self._client.want_write()

    def subscribe(self, topics: Mapping[str, int]) -> None:
        """Ask for topics, each with its QoS; a Subscribed answers."""
        _, mid = self._client.subscribe(list(topics.items()))
        self._subscriptions[mid] = tuple(topics)

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool = False) -> int:
        """Hand a message over for sending and return its id; an Acknowledged with it follows, or a Lost."""
        return self._client.publish(topic, payload, qos, retain).mid

    def pump(self, *, readable: bool, writable: bool) -> list[Signal]:
        """Read and write what is possible now, keep the connection alive, and return what happened."""
        try:
            if readable:
                self._read()
            if writable:
                self._client.loop_write()
            self._client.loop_misc()
        except (ValueError, LookupError, TypeError, struct.error) as error:
            # What the library raises on bytes that are not MQTT.
            self._end(f"the broker sent what is not MQTT: {error!r}")
        signals, self._signals = self._signals, []
        return signals

    def say_goodbye(self) -> None:
        """Send DISCONNECT, so that the broker keeps the will to itself."""
        self._client.disconnect()

    def close(self) -> None:
        """End the connection at once; without a goodbye before, the broker publishes the will."""
        own = self._client.socket()
        if own is not None:
            own.close()
        self._over = True
        client = self._client
        # The callbacks hold this object, which holds the client: without them, both go at once.
        client.on_connect = client.on_subscribe = client.on_publish = client.on_message = client.on_disconnect = None

    def _read(self) -> None:
        self._client.loop_read()
        # TLS may have decrypted more than was read; the socket will not become readable for that.
        while isinstance(own := self._client.socket(), ssl.SSLSocket) and own.pending() > 0:
            self._client.loop_read()

    def _end(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._signals.append(Lost(self._refusal or reason, refused=self._refusal is not None))

    def _on_connect(
        self, _client: Client, _data: object, _flags: ConnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._refusal = f"the broker refuses: {code}"
        else:
            self._signals.append(Accepted())

    def _on_subscribe(
        self, _client: Client, _data: object, mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        topics = self._subscriptions.pop(mid, ())
        refused = tuple(topic for topic, code in zip(topics, codes, strict=False) if code.is_failure)
        self._signals.append(Subscribed(refused))

    def _on_publish(
        self, _client: Client, _data: object, mid: int, _code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._signals.append(Acknowledged(mid))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._signals.append(Received(message.topic, bytes(message.payload), message.retain))

    def _on_disconnect(
        self,
        _client: Client,
        _data: object,
        _flags: DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._end(f"connection lost: {code}")
