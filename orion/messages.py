"""The vocabulary that both sides of the process boundary speak: frozen values, checked once, where they are made.

Coordinates: `xywh` boxes are pixels of the captured frame, top-left origin; a `Region` is normalized to 0..1. Times
carry their unit in their name; `*_ns` are nanoseconds, of the monotonic clock unless the name says `wall`.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture or a view of one: (height, width, 3) uint8, BGR."""

SessionSize = Literal[320, 640]
AttentionMode = Literal["auto", "external", "off"]
AttentionSource = Literal["external", "python_suggested", "auto_history", ""]
Strategy = Literal["simple", "smoothing", "velocity"]
InferenceKind = Literal["full", "roi", "held"]


@dataclass(frozen=True, slots=True)
class Region:
    """A region of interest, normalized to the frame: x, y, width, height in 0..1, inside it, sides above zero."""

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        inside = self.x >= 0 and self.y >= 0 and self.x + self.width <= 1 + 1e-9 and self.y + self.height <= 1 + 1e-9
        if not (inside and self.width > 0 and self.height > 0):
            raise ValueError(f"a region lies inside 0..1 with sides above zero, not {self}")


@dataclass(frozen=True, slots=True)
class Crop:
    """A piece of a frame that was given to a session: pixels of the frame, and the session's size."""

    x: int
    y: int
    width: int
    height: int
    model: SessionSize


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one frame as parallel arrays, best first. No box at all is a legal value.

    `xywh` (N, 4) int32 pixels of the frame, clipped to it, sides above zero; `confidence` (N,) float32 in 0..1;
    `class_id` (N,) int32, the model's class number.
    """

    xywh: NDArray[np.int32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int32]

    def __post_init__(self) -> None:
        count = len(self.confidence)
        if self.xywh.shape != (count, 4) or self.class_id.shape != (count,):
            raise ValueError(f"shapes differ: {self.xywh.shape}, {self.confidence.shape}, {self.class_id.shape}")

    def __len__(self) -> int:
        return len(self.confidence)

    @classmethod
    def empty(cls) -> "Detections":
        """Return the value that says nobody was found."""
        return cls(np.empty((0, 4), np.int32), np.empty(0, np.float32), np.empty(0, np.int32))


@dataclass(frozen=True, slots=True)
class AttentionSettings:
    """What the operator set for one stream's attention; names and defaults are those of the configuration."""

    mode: AttentionMode = "auto"
    strategy: Strategy = "simple"
    alpha: float = 0.3
    velocity_threshold: float = 0.05
    velocity_factor: float = 1.5
    max_expansion: float = 0.3
    expansion: float = 0.15
    history_size: int = 30
    rescan_s: float | None = 2.0
    min_person_px: int = 40
    recall_floor: float = 0.97
    cost_ratio: float | None = None
    """Cost of a 640 inference in units of a 320 one; None takes the ratio measured at READY."""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """What a worker must load: the pair of model files and how to run it. `model_320` None runs the 640 alone."""

    model_640: str
    model_320: str | None
    confidence: float
    iou: float
    classes: tuple[str, ...]
    provider: str
    threads: int


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One loaded session: its file, what it says of itself, and what loading and one warm inference cost."""

    path: str
    sha256: str
    size: int
    provider: str
    load_ms: float
    warm_ms: float
    fallback: str | None = None
    """Why `cpu` runs it and not the provider that was asked for; None where it is what was asked for."""


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """A loaded pair: `model_name` is its family and size as in `yolo11n`; `model_size` n, s, m, l, x or unknown."""

    model_name: str
    model_size: str
    sessions: tuple[SessionInfo, ...]
    cost_ratio: float
    """Time of a 640 inference over a 320 one, measured at READY and rounded to 0.5; 1.0 when there is one session."""
    labels: tuple[tuple[int, str], ...] = ()
    """Class number and name of everything that is looked for."""


@dataclass(frozen=True, slots=True)
class DetectRequest:
    """What the detector is told about a frame beside its pixels."""

    stream_id: str
    stream_time_s: float
    """The stream's own clock: presentation time for files, capture time for cameras."""
    continuous: bool = True
    """False on the first frame after a pause, a reconnect or a new ring: nothing seen before may be assumed."""
    settings: AttentionSettings = field(default_factory=AttentionSettings)
    regions: tuple[Region, ...] = ()
    """External regions, set by command."""


@dataclass(frozen=True, slots=True)
class RoiProcessing:
    """What attention did with a frame and why; names are those of the published result."""

    target_size: SessionSize
    crop_applied: bool
    source: AttentionSource
    strategy: Strategy
    attention_rois: tuple[Region, ...]
    merged_roi: Region | None
    crops: tuple[Crop, ...]
    crop: tuple[int, int, int, int] | None
    """Union of `crops`, xywh in pixels of the frame."""
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What the detector made of one frame. Times are milliseconds of the worker's monotonic clock."""

    detections: Detections
    inference: InferenceKind
    model_selected: SessionSize
    roi_processing: RoiProcessing | None
    suggested_roi: Region | None
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class AttentionStats:
    """What attention did on one stream since its worker started: frames by plan and by reason, as (name, count).

    Crops count where they are less than the frame; `trial_share` is that of all inference, by cost. `rescan_s` is the
    period in force, shorter than the one set while the recall is under its floor.
    """

    plans: tuple[tuple[str, int], ...]
    reasons: tuple[tuple[str, int], ...]
    rois_processed: int
    model_320_selected: int
    model_640_selected: int
    active_rois: int
    trials: int
    trial_share: float
    recall_hits: int
    recall_total: int
    recall_last_hour: float
    rescan_s: float | None
    history: tuple[Region, ...]
    suggested_roi: Region | None


# What crosses the process boundary. A worker answers each FrameMessage with one FrameResult or one FrameFailure.


@dataclass(frozen=True, slots=True)
class FrameMessage:
    """Supervisor to worker: a leased frame, where its pixels are, and what the detector must know."""

    lease: int
    ring: str
    slot: int
    generation: int
    captured_ns: int
    request: DetectRequest


@dataclass(frozen=True, slots=True)
class Forget:
    """Supervisor to worker: a stream went to another worker or ended; drop what is kept for it."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """Supervisor to worker: load this pair beside the present one, while frames go on. `swap` numbers the attempt."""

    swap: int
    spec: DetectorSpec


@dataclass(frozen=True, slots=True)
class Commit:
    """Supervisor to worker: put the prepared pair in the place of the present one, before the next frame."""

    swap: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Supervisor to worker: keep the present pair, and let go of the other, loaded or not."""

    swap: int


@dataclass(frozen=True, slots=True)
class DescribeAttention:
    """Supervisor to worker: say what attention keeps of a stream."""

    query: int
    stream_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Supervisor to worker: leave, with exit code 0."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker to supervisor: both sessions are loaded and warm; frames may come."""

    info: DetectorInfo


@dataclass(frozen=True, slots=True)
class BootFailure:
    """Worker to supervisor: it could not start, and leaves with its own exit code. `kind` is the error's class."""

    kind: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """Worker to supervisor: the answer to a frame. `queue_ms` is from capture to the worker's start on it."""

    lease: int
    outcome: Outcome
    queue_ms: float
    changed: DetectorInfo | None = None
    """What answers from this frame on, where that is no longer what was said last: a provider gave way to another."""


@dataclass(frozen=True, slots=True)
class FrameFailure:
    """Worker to supervisor: a frame could not be answered, and why; the worker goes on."""

    lease: int
    reason: Literal["torn", "worker_error"]
    message: str
    traceback: str
    changed: DetectorInfo | None = None
    """As that of a FrameResult."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Worker to supervisor: the other pair is loaded and warm. `load_ms` is all of it, by the clock."""

    swap: int
    info: DetectorInfo
    load_ms: float


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """Worker to supervisor: the other pair cannot be used, and why; the present one stays."""

    swap: int
    reason: str


@dataclass(frozen=True, slots=True)
class Committed:
    """Worker to supervisor: from now on frames are answered by the other pair."""

    swap: int


@dataclass(frozen=True, slots=True)
class AttentionDescribed:
    """Worker to supervisor: what attention keeps of a stream; None when it has seen no frame of it."""

    query: int
    stats: AttentionStats | None


Message = (
    FrameMessage
    | Forget
    | Prepare
    | Commit
    | Abort
    | DescribeAttention
    | Stop
    | Ready
    | BootFailure
    | FrameResult
    | FrameFailure
    | Prepared
    | PrepareFailed
    | Committed
    | AttentionDescribed
)
