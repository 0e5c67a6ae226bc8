"""`orion` with a detector that fails on request, for `benchmarks.chaos`. Worker processes look before each step whether
the file `fault` lies in the folder that HAUNTED_FOLDER names; who finds its phase in it takes it away and does what it
says. The rest is the real thing.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults import FAULTS
from benchmarks.wall_clock import FOLDER  # before what takes hold of the clock
from orion import __main__, app
from orion.loader import Pair
from orion.messages import AttentionStats, DetectorInfo, DetectorSpec, DetectRequest, Outcome, Pixels
from orion.worker import Detector

ENTRY = ("-c", "from benchmarks.haunted import main; main()")
"""What Python is called with in the place of `-m orion`."""
_IDLE_S = 0.02
"""So long after an answer the main thread waits for the next frame."""


class Haunted:
    """The real detector, with something around it that may end it in any phase."""

    def __init__(self, spec: DetectorSpec) -> None:
        from workers.person import PersonDetector  # noqa: PLC0415 - the supervisor must not load it

        self._fault = Path(os.environ[FOLDER]) / "fault"
        self._enter("loading")
        self._inner = PersonDetector(spec)

    @property
    def info(self) -> DetectorInfo:
        """Describe what is loaded."""
        return self._inner.info

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        """Answer one frame."""
        self._enter("reading")
        outcome = self._inner.process(frame, request)
        self._enter("inferring")
        if self._fault.exists():
            timer = threading.Timer(_IDLE_S, self._enter, ("idle",))
            timer.daemon = True
            timer.start()
        return outcome

    def forget(self, stream_id: str) -> None:
        """Drop what is kept for a stream."""
        self._inner.forget(stream_id)

    def attention_stats(self, stream_id: str) -> AttentionStats | None:
        """Say what attention did on a stream."""
        return self._inner.attention_stats(stream_id)

    @property
    def self_test_wait_s(self) -> float:
        """Say when the known pictures are due."""
        return self._inner.self_test_wait_s

    def self_test(self) -> str | None:
        """Try one of them."""
        return self._inner.self_test()

    def load(self, spec: DetectorSpec) -> Pair:
        """Load another pair."""
        self._enter("preparing")
        return self._inner.load(spec)

    def swap(self, pair: Pair) -> None:
        """Put another pair in place of the present one."""
        self._enter("committing")
        self._inner.swap(pair)  # type: ignore[arg-type]

    def close(self) -> None:
        """Let the sessions go."""
        self._inner.close()

    def _enter(self, phase: str) -> None:
        # Another worker may take it first.
        with contextlib.suppress(FileNotFoundError):
            wanted, _, fault = self._fault.read_text().partition(":")
            if wanted == phase:
                taken = self._fault.rename(self._fault.with_name(f"fault-{os.getpid()}"))
                taken.unlink()
                self._fault.with_name("happened").write_text(f"{os.getpid()} {time.monotonic()}")
                FAULTS[fault]()


_DETECTOR: Callable[[DetectorSpec], Detector] = Haunted
"""It is resolved by its name alone: a type checker sees here whether it has all that a worker asks for."""


def main() -> None:
    """Run `orion` with this detector."""
    app.DETECTOR = "benchmarks.haunted:Haunted"
    __main__.main()
