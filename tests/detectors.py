"""Detectors that a worker loads instead of the real one: quick, and faulty on request. `DetectorSpec.model_640` is the
script: `fault@N` does what `fault` says on the N-th frame, once, with the file in `model_320` as its memory.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from benchmarks.faults import FAULTS, send
from benchmarks.fixed import FixedDetector
from orion import wire
from orion.messages import (
    AttentionStats,
    Committed,
    DetectorInfo,
    DetectorSpec,
    DetectRequest,
    Known,
    KnownPerson,
    LearnedExit,
    Outcome,
    Pixels,
    Search,
    SessionInfo,
    VanishedPerson,
)
from tests.instances import until

INFO = DetectorInfo(
    "scripted", "unknown", (SessionInfo("none", "0" * 64, 640, "cpu", 1.0, 1.0),), 1.0, ((0, "person"),)
)
OUTCOME = Outcome((), "full", 640, None, None, 0.1, 1.0, 0.1, 1.2)
HELD = Outcome((), "held", 640, None, None, 0.0, 0.0, 0.0, 0.0)


class Scripted(FixedDetector):
    """Finds nobody, and has one fault."""

    info: DetectorInfo = INFO
    outcome: Outcome = OUTCOME

    def __init__(self, spec: DetectorSpec) -> None:
        self._fault, _, number = spec.model_640.partition("@")
        self._number = int(number or 0)
        self._memory = Path(spec.model_320 or os.devnull)
        self._frames = 0
        if self._number == 0:
            self._misbehave()

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        assert frame.shape[2] == 3
        assert request.stream_id
        self._frames += 1
        if self._frames == self._number:
            self._misbehave()
        return self.outcome

    def _misbehave(self) -> None:
        always = self._fault.endswith("-always")
        if self._fault and (always or not self._memory.exists()):
            if not always:
                self._memory.touch()
            _SCRIPTS[self._fault.removesuffix("-always")]()


class Holding(Scripted):
    """Infers every fourth frame, and holds what it saw in between."""

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        inferred = super().process(frame, request)
        return inferred if self._frames % 4 == 1 else HELD


class Changing(Scripted):
    """Takes any other pair; its model is named after the script."""

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        self.info = replace(INFO, model_name=spec.model_640)

    def load(self, spec: DetectorSpec) -> "Changing":  # type: ignore[override]
        return Changing(spec)

    def swap(self, pair: object) -> None:
        assert isinstance(pair, Changing)
        self.info = pair.info


class Hasty(Changing):
    """Says that it has changed while it loads."""

    def load(self, spec: DetectorSpec) -> "Changing":  # type: ignore[override]
        send(wire.encode(Committed(1)))
        return super().load(spec)


class Knowing(Changing):
    """Knows somebody on each stream, and looks for somebody else who vanished before its first frame there. Writes
    down what it is told, beside its memory of faults: a line of JSON for each request with what it answered, and for
    each Forget. The fault `gate` waits until the file `go` is beside it.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        self._known: dict[str, Known] = {}

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        now_s = request.stream_time_s
        before = request.known or self._known.get(request.stream_id)
        if before is None:
            gone = VanishedPerson(10, 20, 30, 40, now_s - 0.5)
            before = Known(now_s, (KnownPerson(50, 20, 30, 60, 0, 0),), (Search(gone, 0, now_s),))
        outcome = super().process(frame, request)
        (person,), (search,) = before.people, before.searches
        known = replace(
            before,
            time_s=now_s,
            people=(replace(person, answers=person.answers + 1),),
            searches=(replace(search, streaks=search.streaks + 1),),
        )
        self._known[request.stream_id] = known
        self._note(stream=request.stream_id, given=request.known, answered=known, width=frame.shape[1])
        return replace(outcome, known=known)

    def attention_stats(self, stream_id: str) -> AttentionStats:  # type: ignore[override]
        exits = (LearnedExit(0.5, 0.25, 3, 2),)
        return AttentionStats(
            (), (), 0, 0, 0, 0, 0, 0.0, 0, 0, 1.0, 2.0, (), None, searches=7, search_share=0.01, vanished=1, exits=exits
        )

    def forget(self, stream_id: str) -> None:
        self._known.pop(stream_id, None)
        self._note(forgotten=stream_id)

    def _note(self, **told: object) -> None:
        with self._memory.with_suffix(".told").open("a") as file:
            file.write(msgspec.json.encode({"pid": os.getpid(), **told}).decode() + "\n")

    def _misbehave(self) -> None:
        if self._fault == "gate":
            self._memory.with_suffix(".gate").touch()
            until(self._memory.with_suffix(".go").exists, "the word to go on")
        else:
            super()._misbehave()


class Sequenced(FixedDetector):
    """Finds nobody, and has a fault in one phase of its life, in each process of this worker the next one.

    `DetectorSpec.model_640` is `phase:fault,fault,...`. `model_320` names the file that remembers, a line for each
    fault: its name, and when it was by the monotonic clock. After the last fault it stays well. Where the fault is
    while loading, every other process is well until it ends at its second frame.
    """

    info = INFO

    def __init__(self, spec: DetectorSpec) -> None:
        self._phase, _, faults = spec.model_640.partition(":")
        self._memory = Path(spec.model_320 or os.devnull)
        self._odd = self._memory.with_suffix(".odd")
        done = len(self._memory.read_text().splitlines()) if self._memory.exists() else 0
        self._faults = faults.split(",")[done:]
        self._frames = 0
        self._ends = self._phase == "loading" and bool(self._faults) and not self._odd.exists()
        if not self._ends:
            self._odd.unlink(missing_ok=True)
            self._enter("loading")

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        self._frames += 1
        assert int(frame[: len(frame) // 2].max()) >= 0
        if self._frames == 2:
            if self._ends:
                self._odd.touch()
                os._exit(3)
            self._enter("reading")
        assert int(frame.max()) >= 0
        if self._frames == 2:
            self._enter("inferring")
            # Frames are further apart than this: the main thread waits for the next one by then.
            timer = threading.Timer(0.03, self._enter, ("idle",))
            timer.daemon = True
            timer.start()
        return OUTCOME

    def load(self, spec: DetectorSpec) -> "Sequenced":  # type: ignore[override]
        self._enter("preparing")
        return self

    def swap(self, pair: object) -> None:
        self._enter("committing")

    def _enter(self, phase: str) -> None:
        if self._faults and self._phase == phase:
            with self._memory.open("a") as memory:
                memory.write(f"{self._faults[0]} {time.monotonic()}\n")
            FAULTS[self._faults.pop(0)]()


_SECOND = replace(INFO.sessions[0], provider="second", fallback="first is gone")
"""Another provider than READY told."""


def _say(info: DetectorInfo = INFO, outcome: Outcome = OUTCOME) -> None:
    Scripted.info, Scripted.outcome = info, outcome


_SCRIPTS: dict[str, Callable[[], object]] = {
    **FAULTS,
    "late": lambda: time.sleep(1.5),
    "provider": lambda: _say(info=replace(INFO, sessions=(_SECOND,))),
    "sees-nobody": lambda: _say(info=replace(INFO, sessions=(replace(INFO.sessions[0], sees=False),))),
    "no-sessions": lambda: _say(info=replace(INFO, sessions=())),
    "other-session": lambda: _say(outcome=replace(OUTCOME, model_selected=320)),
    "endless": lambda: _say(outcome=replace(OUTCOME, inference_ms=1.7e308, total_ms=1.7e308)),
}
