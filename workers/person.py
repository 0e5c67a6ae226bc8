"""The person detector as the worker process sees it. Runs in the worker's main thread, which owns the pair of sessions
and everything that is remembered of each stream.
"""

import time

import cv2

from orion.messages import DetectorInfo, DetectorSpec, DetectRequest, Outcome, Pixels
from workers.pair import SessionPair, trim_memory
from workers.pipeline import infer, whole_frame
from workers.suggest import suggest_region


class PersonDetector:
    """Finds persons in frames. Loads and warms its sessions at once; raises ModelError when it cannot."""

    def __init__(self, spec: DetectorSpec) -> None:
        cv2.setNumThreads(1)
        self._pair = SessionPair.load(spec)

    @property
    def info(self) -> DetectorInfo:
        """What is loaded."""
        return self._pair.info

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        """Return who is in `frame`. The frame is only read, and not kept."""
        start = time.perf_counter()
        crop = whole_frame(frame)
        detections, timings = infer(self._pair, frame, crop)
        height, width = frame.shape[:2]
        suggested = suggest_region(detections, (width, height), request.settings.expansion)
        return Outcome(
            detections=detections,
            inference="full",
            model_selected=crop.model,
            roi_processing=None,
            suggested_roi=suggested,
            preprocess_ms=timings.preprocess_ms,
            inference_ms=timings.inference_ms,
            postprocess_ms=timings.postprocess_ms,
            total_ms=(time.perf_counter() - start) * 1e3,
        )

    def forget(self, stream_id: str) -> None:
        """Drop what is kept for a stream that ended or went elsewhere."""

    def swap(self, pair: SessionPair) -> None:
        """Put `pair` in the place of the present one, close that, and hand its memory back to the system."""
        previous, self._pair = self._pair, pair
        previous.close()
        trim_memory()

    def close(self) -> None:
        """Let go of the sessions; nothing may be processed any more."""
        self._pair.close()
