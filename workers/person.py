"""The person detector as the worker process sees it. Runs in the worker's main thread, which owns the pair of sessions
and everything that is remembered of each stream.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

import cv2

from orion.errors import ModelError
from orion.messages import AttentionStats, DetectorInfo, DetectorSpec, DetectRequest, Outcome, Pixels
from workers.attention import Attention, Look
from workers.memory import trim_memory
from workers.pair import SessionPair
from workers.pipeline import infer
from workers.session import ProviderError
from workers.turns import PATIENCE_S, Turns


class PersonDetector:
    """Finds persons in frames. Loads and warms its sessions at once; raises ModelError when it cannot."""

    def __init__(self, spec: DetectorSpec, clock: Callable[[], float] = time.monotonic) -> None:
        cv2.setNumThreads(1)
        self._clock = clock
        self._pair = SessionPair.load(spec, clock=clock)
        self._attention: dict[str, Attention] = {}
        self._turns = Turns()
        self._relief: Future[SessionPair] | None = None
        """The same pair on `cpu`, while it is loaded in place of one whose provider failed."""

    @property
    def info(self) -> DetectorInfo:
        """What is loaded."""
        return self._pair.info

    def process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        """Return who is in `frame`. The frame is only read, and not kept. Raises ModelError when that cannot be told:
        where a provider has failed, until `cpu` has taken over.
        """
        with self._turns:
            if self._relief is None:
                try:
                    return self._process(frame, request)
                except ProviderError as error:
                    self._relief = _loading_on_cpu(self._pair, str(error))
            raise self._take_over(self._relief)

    def _take_over(self, relief: Future[SessionPair]) -> ModelError:
        """Put the pair on `cpu` in place, if it is there or comes soon; return why the frame fails all the same.

        Loading and running a large model may take longer than a frame of a fast provider is given, and the worker would
        pass for hung. So no frame waits for the one, and `info` tells of the other before a frame is run on it.
        """
        wait([relief], PATIENCE_S)
        if not relief.done():
            return ModelError("the provider failed; cpu is being loaded in its place")
        self._relief = None
        self.swap(relief.result())
        return ModelError("the provider failed; cpu answers the frames after this one")

    def _process(self, frame: Pixels, request: DetectRequest) -> Outcome:
        start = time.perf_counter()
        attention = self._attention.get(request.stream_id)
        if attention is None:
            attention = self._attention[request.stream_id] = Attention()
        pair = self._pair
        seen = attention.process(
            frame,
            request,
            self._look(frame),
            self._cost_ratio(request),
            confidence=pair.confidence,
            class_id=pair.class_id,
        )
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
            known=seen.known,
        )

    def _look(self, frame: Pixels) -> Look:
        return partial(infer, self._pair, frame)

    def attention_stats(self, stream_id: str) -> AttentionStats | None:
        """Return what attention did on a stream; None for one of which no frame was processed."""
        attention = self._attention.get(stream_id)
        return None if attention is None else attention.stats

    def forget(self, stream_id: str) -> None:
        """Drop what is kept for a stream that ended or went elsewhere."""
        self._attention.pop(stream_id, None)

    def load(self, spec: DetectorSpec) -> SessionPair:
        """Load and warm another pair for `swap`; may be called in another thread. Raises ModelError."""
        return SessionPair.load(spec, turn=self._turns.step, clock=self._clock)

    def swap(self, pair: SessionPair) -> None:
        """Put `pair` in the place of the present one, close that, and hand its memory back to the system."""
        previous, self._pair, self._relief = self._pair, pair, None
        for attention in self._attention.values():
            attention.forget()
        previous.close()
        trim_memory()

    @property
    def self_test_wait_s(self) -> float:
        """Seconds until the next known picture is to be tried, less than none since it was due; endless while `cpu` is
        loaded in the pair's place.
        """
        return math.inf if self._relief is not None else self._pair.periodic_test.due_s - self._clock()

    def self_test(self) -> str | None:
        """Try one known picture between two frames; return why the sessions do not see any more, None if they do, or if
        `cpu` is about to be put in the place of a provider that failed.
        """
        try:
            return self._pair.periodic_test.step()
        except ProviderError as error:
            self._relief = _loading_on_cpu(self._pair, str(error))
            return None
        except ModelError as error:
            return str(error)

    def close(self) -> None:
        """Let go of the sessions; nothing may be processed any more."""
        self._pair.close()

    def _cost_ratio(self, request: DetectRequest) -> float:
        if 320 not in self._pair.lanes:
            return 1.0
        return request.settings.cost_ratio or self._pair.info.cost_ratio


def _loading_on_cpu(pair: SessionPair, reason: str) -> Future[SessionPair]:
    """Begin to load `pair` on `cpu` in a thread of its own, which waits for no turn: frames fail meanwhile."""
    thread = ThreadPoolExecutor(1, "relief")
    loading = thread.submit(pair.on_cpu, reason)
    thread.shutdown(wait=False)
    return loading
