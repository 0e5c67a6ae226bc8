"""The real detector in a worker that goes blind while it works: its session answers zeros from a frame on, once."""

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from orion.messages import AttentionSettings, DetectorSpec, DetectRequest, Outcome, Pixels
from tests.standins import Replacing
from workers import runtime, session
from workers.person import PersonDetector

SEEN_FRAMES = 5


class BlindingDetector(PersonDetector):
    """Looks at every frame; `DetectorSpec.model_320` names the file that remembers that one process was blind."""

    seen_frames = SEEN_FRAMES

    def __init__(self, spec: DetectorSpec) -> None:
        memory, load = Path(str(spec.model_320)), runtime.open_session
        self._frames = 0
        first = not memory.exists()
        memory.touch()
        detector = self

        class Blinding(Replacing):
            def replace(self, output: Any) -> None:
                if first and detector._frames >= detector.seen_frames:
                    output[:] = 0

        vars(session)["open_session"] = lambda *arguments: Blinding(load(*arguments))
        super().__init__(replace(spec, model_320=None, self_test_s=0.05))

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        outcome = super().process(frame, replace(request, settings=AttentionSettings(mode="off")))
        self._frames += 1
        return outcome


class BlindDetector(BlindingDetector):
    """Is blind when it is loaded, on `cpu`, which nothing can take the place of."""

    seen_frames = 0
