"""One inference on one piece of a frame: letterbox, session, decode. Runs in the worker's main thread; attention calls
it as often as its plan for the frame says.
"""

import time

from orion.messages import Crop, Detections, Pixels, Value
from workers.pair import SessionPair
from workers.rotation import turned, turned_back


class Timings(Value, frozen=True):
    """Milliseconds of the monotonic clock spent in each stage; those of several inferences add up."""

    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0

    def __add__(self, other: "Timings") -> "Timings":
        return Timings(
            self.preprocess_ms + other.preprocess_ms,
            self.inference_ms + other.inference_ms,
            self.postprocess_ms + other.postprocess_ms,
        )


def whole_frame(frame: Pixels) -> Crop:
    """Return the crop that is the whole frame, for the 640 session."""
    height, width = frame.shape[:2]
    return Crop(0, 0, width, height, 640)


def infer(pair: SessionPair, frame: Pixels, crop: Crop) -> tuple[Detections, Timings]:
    """Run the session of `crop.model` on `crop`, which lies inside `frame`; return what it found in pixels of the
    frame, clipped to the frame (not to the crop), and what each stage took.
    """
    lane = pair.lanes[crop.model]
    start = time.perf_counter()
    seen, piece = frame, crop
    if crop.turn:
        seen = turned(frame, crop)
        piece = Crop(0, 0, crop.height, crop.width, crop.model)
    placement = lane.letterbox.fill(seen, piece)
    filled = time.perf_counter()
    raw = lane.session.run()
    answered = time.perf_counter()
    height, width = seen.shape[:2]
    detections = lane.decoder.decode(raw, placement, (width, height))
    if crop.turn:
        detections = turned_back(detections, crop)
    decoded = time.perf_counter()
    return detections, Timings((filled - start) * 1e3, (answered - filled) * 1e3, (decoded - answered) * 1e3)
