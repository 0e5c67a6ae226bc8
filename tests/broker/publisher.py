"""A process that runs a bus and publishes numbered results until it is killed; tests start and kill it."""

import argparse
import sys
import threading
from itertools import count
from pathlib import Path

from orion.bus import Bus, BusEvent
from orion.outbox import Outbox
from tests.brokers import settings


def main() -> None:
    """Publish a result every `--period` seconds and print its number once the bus has it; events go to stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--outbox", type=Path)
    parser.add_argument("--period", type=float, default=0.02)
    parser.add_argument("--size", type=int, default=0, help="bytes of padding in each result")
    arguments = parser.parse_args()
    outbox = None if arguments.outbox is None else Outbox(arguments.outbox, 100_000)
    bus = Bus(settings(arguments.port, "run-child"), lambda _: None, _print_event, outbox)
    bus.start()
    pause = threading.Event()
    for number in count():
        bus.publish("inferences", {"frame_seq": number, "trace_id": f"t{number}", "padding": "x" * arguments.size})
        print(number, flush=True)  # noqa: T201 - the test reads it
        pause.wait(arguments.period)


def _print_event(event: BusEvent) -> None:
    print(event.name, event.reason, file=sys.stderr, flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()
