"""An instance as others reach it: where its broker is, and a link to it that comes back by itself. Used by `orion ctl`,
`orion watch` and benchmarks, in the one thread that owns the link and waits on it.
"""

import json
import math
import os
import select
import time
import uuid
from collections.abc import Mapping
from random import Random
from types import TracebackType
from typing import Any, Self

from orion.config import Config, broker_address
from orion.errors import ConfigError, OrionError, Problem
from orion.link import Dial, Link
from orion.lock import read_lock, running_instances
from orion.mailbox import Mailbox
from orion.mqtt import Endpoint, Lost, Received, Signal, Subscribed, TlsSettings

NO_ANSWER = 3
"""Exit code of `orion ctl`."""


class NoAnswerError(OrionError):
    """The instance cannot be reached, or does not answer."""

    exit_code = NO_ANSWER


def of_running(config: Config, *, named: bool, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration with the id of the instance that is meant. Where none is configured, that is the only
    one that runs on this machine, unless the broker was `named` on the command line: then it may be anywhere, and has
    the default id. Raises ConfigError with their ids when several run.
    """
    if "instance_id" in config.model_fields_set or (named and config.mqtt.broker not in {"embedded", "none"}):
        return config
    ids = running_instances(environ)
    if len(ids) > 1:
        raise ConfigError(Problem("", f"say which instance with --instance-id; these run here: {', '.join(ids)}"))
    return config.model_copy(update={"instance_id": ids[0]}) if ids else config


def broker_url(config: Config, *, named: bool, environ: Mapping[str, str] = os.environ) -> str:
    """Return the address of the instance's broker: the configured one if it was `named` on the command line, else what
    the running instance has written into its lock, else the configured one. Raises NoAnswerError if there is none.
    """
    configured = config.mqtt.broker
    known = configured not in {"embedded", "none"}
    if named and known:
        return configured
    lock = read_lock(config.instance_id, environ)
    if lock is not None and lock.broker is not None:
        return lock.broker
    if known:
        return configured
    instance = f"the instance {config.instance_id!r}"
    if lock is not None:
        raise NoAnswerError(f"{instance} runs without a broker, so that nobody can reach it")
    others = ", ".join(running_instances(environ))
    here = f", where these do: {others}; name one with --instance-id, or" if others else ";"
    raise NoAnswerError(f"{instance} does not run on this machine{here} name its broker with --broker")


class Remote:
    """A link to the instance's broker as a context manager; `subscriptions` are topics with their QoS."""

    def __init__(self, config: Config, url: str, subscriptions: Mapping[str, int]) -> None:
        mqtt = config.mqtt
        host, port = broker_address(url)
        endpoint = Endpoint(
            host=host,
            port=port,
            client_id=f"orion-client-{uuid.uuid4().hex[:12]}",
            tls=TlsSettings(mqtt.tls.ca, mqtt.tls.cert, mqtt.tls.key) if url.startswith("mqtts://") else None,
            username=mqtt.username,
            password=mqtt.password.get_secret_value() if mqtt.password else None,
        )
        self._mailbox: Mailbox[Dial] = Mailbox()
        self._link = Link(endpoint, None, subscriptions, self._mailbox.post, time.monotonic, Random())

    @property
    def ready(self) -> bool:
        """Return whether messages come and go."""
        return self._link.ready

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message with QoS 1. Only while `ready`."""
        assert self._link.connection is not None
        self._link.connection.publish(topic, payload, 1)

    def wait(self, until_s: float) -> list[Signal]:
        """Return what happened next; nothing when nothing does until this time of the monotonic clock."""
        while True:
            readable, writable = self._poll(until_s)
            signals = [signal for dial in self._mailbox.take() for signal in self._link.dialed(dial)]
            signals += self._link.pump(readable=readable, writable=writable)
            if signals or time.monotonic() >= until_s:
                return signals

    def await_ready(self, until_s: float) -> None:
        """Wait for the broker to let us listen. Raises NoAnswerError with the reason when it does not."""
        reason = "no answer"
        while not self.ready:
            if time.monotonic() >= until_s:
                raise NoAnswerError(f"the broker cannot be reached: {reason}")
            for signal in self.wait(until_s):
                match signal:
                    case Lost(refused=True, reason=reason):
                        raise NoAnswerError(f"{reason}; check mqtt.username and mqtt.password_file")
                    case Lost(reason=reason):
                        pass
                    case Subscribed(refused=refused) if refused:
                        raise NoAnswerError(f"the broker does not let us read {', '.join(refused)}")
                    case _:
                        pass

    def ask(self, config: Config, request: Mapping[str, Any], until_s: float) -> dict[str, Any]:
        """Send a request, which gets an id, and return its answer. Only while `ready`. Raises NoAnswerError when there
        is none in time.
        """
        topics = config.mqtt.topics.expanded(config.instance_id)
        request_id = uuid.uuid4().hex
        payload = json.dumps({**request, "request_id": request_id}, allow_nan=False).encode()
        self.publish(topics["control"], payload)
        while time.monotonic() < until_s:
            for signal in self.wait(until_s):
                message = read_message(signal) if isinstance(signal, Received) else None
                if message is not None and "command_ack" in message and message.get("request_id") == request_id:
                    return message
                if isinstance(signal, Lost):
                    # Whether the request got through is not known; a repeated one is answered, not executed again.
                    self.await_ready(until_s)
                    self.publish(topics["control"], payload)
        who = config.mqtt.username or "clients without a name"
        allowed = f"a broker with rights must let {who} write to {topics['control']}"
        raise NoAnswerError(f"the instance {config.instance_id!r} did not answer in time; {allowed}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._link.connection is not None:
            self._link.connection.say_goodbye()
        self._link.close()
        self._mailbox.close()

    def _poll(self, until_s: float) -> tuple[bool, bool]:
        wait_s = max(0.0, min(until_s, self._link.wakes_at()) - time.monotonic())
        poller = select.poll()
        poller.register(self._mailbox.fileno(), select.POLLIN)
        interest = self._link.interest()
        if interest is not None:
            poller.register(interest[0], select.POLLIN | (select.POLLOUT if interest[1] else 0))
        ready = dict(poller.poll(math.ceil(wait_s * 1000) if math.isfinite(wait_s) else None))
        events = 0 if interest is None else ready.get(interest[0], 0)
        return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)


def read_message(received: Received) -> dict[str, Any] | None:
    """Return the JSON object of a message, None if it is none."""
    try:
        message = json.loads(received.payload)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
