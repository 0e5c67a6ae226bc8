"""A process that runs a bus and publishes numbered results until it is killed; tests start and kill it."""

import argparse
import threading
from itertools import count
from pathlib import Path

from orion.bus import Bus
from orion.outbox import Outbox
from tests.brokers import settings


def main() -> None:
    """Publish a result every `--period` seconds, and print its number once the bus has it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--outbox", type=Path)
    parser.add_argument("--period", type=float, default=0.02)
    arguments = parser.parse_args()
    outbox = None if arguments.outbox is None else Outbox(arguments.outbox, 100_000)
    bus = Bus(settings(arguments.port, "run-child"), lambda _: None, lambda _: None, outbox)
    bus.start()
    pause = threading.Event()
    for number in count():
        bus.publish("inferences", {"frame_seq": number, "trace_id": f"t{number}"})
        print(number, flush=True)  # noqa: T201 - the test reads it
        pause.wait(arguments.period)


if __name__ == "__main__":
    main()
