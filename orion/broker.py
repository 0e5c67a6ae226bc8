"""The embedded MQTT broker: `amqtt` in a process of its own, on 127.0.0.1. The supervisor's main thread starts and
stops it and owns the process; the broker's process owns the listening socket, keeps nothing on disk and dies with its
parent.
"""

import asyncio
import errno
import logging
import multiprocessing
import os
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

from orion import lifeline
from orion.errors import ResourceError

HOST = "127.0.0.1"
FIRST_PORT = 1883
_PORTS_TRIED = 200
START_LIMIT_S = 20.0
_JOIN_S = 2.0


class EmbeddedBrokerError(ResourceError):
    """The embedded broker did not start; says why."""


@dataclass(frozen=True, slots=True)
class _Listening:
    port: int


@dataclass(frozen=True, slots=True)
class _BootFailed:
    reason: str


class EmbeddedBroker:
    """An anonymous MQTT 3.1.1 broker for this machine alone; a context manager. Start it from the main thread.

    `first_port` is tried first, then the ports above it, `ports` in all.
    """

    def __init__(self, first_port: int = FIRST_PORT, ports: int = _PORTS_TRIED) -> None:
        self._ports = range(first_port, min(first_port + ports, 65536))
        self._port: int | None = None
        self._process: SpawnProcess | None = None
        self._report: Connection | None = None

    @property
    def port(self) -> int:
        """Return the port that the broker listens on."""
        if self._port is None:
            raise EmbeddedBrokerError("the embedded broker is not running")
        return self._port

    @property
    def url(self) -> str:
        """Return the broker's address as `--broker` takes it."""
        return f"mqtt://{HOST}:{self.port}"

    @property
    def process(self) -> SpawnProcess:
        """Return the broker's process."""
        if self._process is None:
            raise EmbeddedBrokerError("the embedded broker is not running")
        return self._process

    @property
    def sentinel(self) -> int:
        """Return a descriptor that becomes readable when the broker's process ends."""
        return self.process.sentinel

    @property
    def report(self) -> Connection:
        """Return what becomes readable when a process that was launched listens, or will never do so."""
        assert self._report is not None
        return self._report

    def start(self, timeout_s: float = START_LIMIT_S) -> None:
        """Start the process and wait until it listens. Errors: EmbeddedBrokerError, with nothing left behind."""
        try:
            self.launch()
            self.take_report(timeout_s)
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """Start the process without waiting for it: `take_report` is for once `report` is readable. Errors:
        EmbeddedBrokerError if there can be no process.
        """
        context = multiprocessing.get_context("spawn")
        try:
            self._report, theirs = context.Pipe(duplex=False)
            with theirs:
                self._process = context.Process(
                    target=_serve, args=(theirs, os.getpid(), self._ports), name="orion-broker", daemon=True
                )
                with lifeline.spawning():
                    self._process.start()
        except OSError as error:
            raise EmbeddedBrokerError(f"the embedded broker cannot be started: {error.strerror}") from error

    def take_report(self, timeout_s: float = 0.0) -> None:
        """Take note that the process listens. Errors: EmbeddedBrokerError if it will not, or not in time."""
        with self.report as report:
            self._report = None
            if not report.poll(timeout_s):
                raise EmbeddedBrokerError(f"the embedded broker did not start within {timeout_s:g} s")
            self._port = _port_of(report, self.process)

    def stop(self) -> None:
        """End the process. It holds nothing worth an orderly end, so it is killed. May be called again."""
        process, self._process, self._port = self._process, None, None
        if self._report is not None:
            self._report.close()
            self._report = None
        if process is None or process.pid is None:
            return
        process.kill()
        process.join(_JOIN_S)
        process.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _port_of(report: Connection, process: SpawnProcess) -> int:
    try:
        answer = report.recv()
    except EOFError:
        process.join(_JOIN_S)
        raise EmbeddedBrokerError(
            f"the embedded broker's process ended while starting, exit code {process.exitcode}"
        ) from None
    if isinstance(answer, _BootFailed):
        raise EmbeddedBrokerError(f"the embedded broker did not start: {answer.reason}")
    assert isinstance(answer, _Listening)
    return answer.port


def _serve(report: Connection, parent_pid: int, ports: range) -> None:
    """Run the broker until killed; the entry point of its process. The supervisor still publishes its last messages
    when signals have asked for a stop.
    """
    lifeline.ignore_stop_signals()
    lifeline.die_with_parent(parent_pid)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(_listen_for_ever(report, ports))
    except Exception as error:  # noqa: BLE001 - a process's entry point: whatever it is, the parent reports it
        report.send(_BootFailed(f"{type(error).__name__}: {error}"))


async def _listen_for_ever(report: Connection, ports: range) -> None:
    for port in ports:
        broker = await _listening_on(port)
        if broker is not None:
            report.send(_Listening(port))
            report.close()
            await asyncio.Event().wait()
    raise OSError(
        errno.EADDRINUSE, f"no free port from {ports[0]} on" if len(ports) > 1 else f"port {ports[0]} is taken"
    )


async def _listening_on(port: int) -> object | None:
    """Return a started broker, or None if the port is taken."""
    from amqtt.errors import BrokerError  # noqa: PLC0415 - heavy, and for the broker's process alone

    listeners = {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = _broker_class()({"listeners": listeners, "plugins": plugins})
    try:
        await broker.start()
    except BrokerError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
            return None
        raise
    running: object = broker
    return running


def _broker_class() -> Any:
    """Return amqtt's broker, held to sending retained messages only to those who subscribe to them.

    amqtt (0.11.3 to 0.12.1) sends to everyone who connects what is retained for the filters of all clients.
    """
    from amqtt.broker import Broker  # noqa: PLC0415 - heavy, and for the broker's process alone

    class OwnRetainedBroker(Broker):  # type: ignore[misc]  # mypy does not look into amqtt
        async def _publish_retained_messages_for_subscription(
            self, subscription: tuple[str, int], session: Any
        ) -> None:
            subscribers = self._subscriptions.get(subscription[0], ())
            if any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
                await super()._publish_retained_messages_for_subscription(subscription, session)

    return OwnRetainedBroker
