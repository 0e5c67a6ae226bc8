"""How others and the supervisor's thread meet: what they post to it, who executes its commands, and where its results
go. Interfaces and values only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orion.capture import CaptureEvent
from orion.errors import OrionError
from orion.messages import Pixels


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody asked for an orderly stop; `reason` says who."""

    reason: str


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A control request as it came from the broker."""

    payload: bytes
    size: int
    """In bytes; the payload is left out when it is over the limit."""


@dataclass(frozen=True, slots=True)
class BusEvent:
    """Something that the MQTT side wants reported as an event."""

    event: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PartFailed:
    """A part without which an instance is of no use has failed; whoever restarts instances is to see it."""

    error: OrionError


Post = CaptureEvent | StopRequested | CommandReceived | BusEvent | PartFailed


class Controller(Protocol):
    """Who executes control requests."""

    def receive(self, payload: bytes, size: int) -> None:
        """Take a request in."""

    def turn(self) -> None:
        """Go on with what is under way."""

    def next_deadline_s(self) -> float:
        """Return when `turn` must be called at the latest."""

    def close(self) -> None:
        """Answer everybody who still waits; a request that comes later is answered, and not executed."""


class Keeper(Protocol):
    """Who looks after another process; nothing in it may block."""

    def turn(self) -> None:
        """See to what has ended, and start what is due."""

    def next_deadline_s(self) -> float:
        """Return when `turn` must be called at the latest."""


class Outlet(Protocol):
    """Where results, events and answers go; nothing in it may block."""

    def result(self, result: dict[str, Any], pixels: Callable[[], Pixels]) -> None:
        """Take one result; `pixels` gives the frame, valid during the call only."""

    def event(self, event: dict[str, Any]) -> None:
        """Take an event or an answer for the health topic."""

    def tick(self, describe: Callable[[], dict[str, Any]]) -> None:
        """Show the state, which `describe` gives; called a few times a second."""
