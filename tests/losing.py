"""The real detector in a worker whose provider is lost while it works, and whose model is slow on `cpu`."""

import threading
from typing import Any

from msgspec.structs import replace

from orion.messages import AttentionSettings, DetectorSpec, DetectRequest, Outcome, Pixels
from workers import runtime, session
from workers.pair import SessionPair
from workers.person import PersonDetector

SLOW_S = 1.8
"""An inference on `cpu`: longer than a frame may take where the warm-up was quick."""
QUICK_FRAMES = 2


class Around:
    """One of onnxruntime's sessions, to be changed in part."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Lost(Around):
    """A session whose device is lost after a few frames."""

    _left = QUICK_FRAMES

    def run_with_iobinding(self, binding: object) -> None:
        if self._left == 0:
            raise RuntimeError("the device was lost")
        self._left -= 1
        self._inner.run_with_iobinding(binding)


class Slow(Around):
    """A session that takes as long as that of a large model."""

    def run(self, *arguments: object) -> Any:
        threading.Event().wait(SLOW_S)
        return self._inner.run(*arguments)

    def run_with_iobinding(self, binding: object) -> None:
        threading.Event().wait(SLOW_S)
        self._inner.run_with_iobinding(binding)


class LosingDetector(PersonDetector):
    """Looks at every frame; `DetectorSpec.model_320` is not used."""

    def __init__(self, spec: DetectorSpec) -> None:
        alone = replace(spec, model_320=None)
        super().__init__(alone)
        quick = self._pair.lanes[640].session
        quick.provider, quick._session = "openvino", Lost(quick._session)
        self._pair = SessionPair(self._pair.lanes, alone, rgb=False)
        load = runtime.open_session
        vars(session)["open_session"] = lambda *arguments: Slow(load(*arguments))

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        return super().process(frame, replace(request, settings=AttentionSettings(mode="off")))
