"""The person detector as the worker process sees it. Runs in the worker's main thread, which owns the pair of sessions
and everything that is remembered of each stream.
"""

import time
from functools import partial

import cv2

from orion.messages import AttentionStats, DetectorInfo, DetectorSpec, DetectRequest, Outcome, Pixels
from workers.attention import Attention
from workers.pair import SessionPair, trim_memory
from workers.pipeline import infer
from workers.turns import Turns


class PersonDetector:
    """Finds persons in frames. Loads and warms its sessions at once; raises ModelError when it cannot."""

    def __init__(self, spec: DetectorSpec) -> None:
        cv2.setNumThreads(1)
        self._pair = SessionPair.load(spec)
        self._attention: dict[str, Attention] = {}
        self._turns = Turns()

    @property
    def info(self) -> DetectorInfo:
        """What is loaded."""
        return self._pair.info

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        """Return who is in `frame`. The frame is only read, and not kept."""
        with self._turns:
            return self._process(frame, request)

    def _process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        start = time.perf_counter()
        attention = self._attention.setdefault(request.stream_id, Attention())
        seen = attention.process(frame, request, partial(infer, self._pair, frame), self._cost_ratio(request))
        return Outcome(
            detections=seen.detections,
            inference=seen.inference,
            model_selected=seen.model_selected,
            roi_processing=seen.roi_processing,
            suggested_roi=seen.suggested_roi,
            preprocess_ms=seen.timings.preprocess_ms,
            inference_ms=seen.timings.inference_ms,
            postprocess_ms=seen.timings.postprocess_ms,
            total_ms=(time.perf_counter() - start) * 1e3,
        )

    def attention_stats(self, stream_id: str) -> AttentionStats | None:
        """Return what attention did on a stream; None for one of which no frame was processed."""
        attention = self._attention.get(stream_id)
        return None if attention is None else attention.stats

    def forget(self, stream_id: str) -> None:
        """Drop what is kept for a stream that ended or went elsewhere."""
        self._attention.pop(stream_id, None)

    def load(self, spec: DetectorSpec) -> SessionPair:
        """Load and warm another pair for `swap`; may be called in another thread. Raises ModelError."""
        return SessionPair.load(spec, turn=self._turns.step)

    def swap(self, pair: SessionPair) -> None:
        """Put `pair` in the place of the present one, close that, and hand its memory back to the system."""
        previous, self._pair = self._pair, pair
        for attention in self._attention.values():
            attention.forget()
        previous.close()
        trim_memory()

    def close(self) -> None:
        """Let go of the sessions; nothing may be processed any more."""
        self._pair.close()

    def _cost_ratio(self, request: DetectRequest) -> float:
        if 320 not in self._pair.lanes:
            return 1.0
        return request.settings.cost_ratio or self._pair.info.cost_ratio
