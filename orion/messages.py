"""The vocabulary that both sides of the process boundary speak: frozen values. What the type of a field says is checked
where a value arrives from another process, what values have to do with each other wherever they are made.

Coordinates: boxes are pixels of the captured frame, top-left origin; a `Region` is normalized to 0..1. Times carry
their unit in their name; `*_ns` are nanoseconds, of the monotonic clock unless the name says `wall`.
"""

import sys
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture or a view of one: (height, width, 3) uint8, BGR."""

Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""A number that is one, and not endless; checked where it arrives."""

_LARGEST = 2**31 - 1
"""No picture has so many pixels along a side; what computes with such numbers need not think of larger ones."""

Milliseconds = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""A duration; thirty years at most, so that one can compute with it."""

SessionSize = Literal[320, 640]
AttentionMode = Literal["auto", "external", "off"]
AttentionSource = Literal["external", "python_suggested", "auto_history", ""]
Strategy = Literal["simple", "smoothing", "velocity"]
InferenceKind = Literal["full", "roi", "held"]
Turn = Literal[-90, 0, 90]
"""Degrees, clockwise, by which a piece of a frame is turned before a session sees it."""


class Value(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A record of named and typed fields that cannot be changed; packed, it is a list of them in their order, where
    the last may be missing that have a default. Right after an inference it takes half as long to make as a dataclass.
    """


class Region(Value, frozen=True):
    """A region of interest, normalized to the frame: x, y, width, height in 0..1, inside it, sides above zero."""

    x: Finite
    y: Finite
    width: Finite
    height: Finite

    def __post_init__(self) -> None:
        inside = self.x >= 0 and self.y >= 0 and self.x + self.width <= 1 + 1e-9 and self.y + self.height <= 1 + 1e-9
        if not (inside and self.width > 0 and self.height > 0):
            raise ValueError(f"a region lies inside 0..1 with sides above zero, not {self}")


class Crop(Value, frozen=True):
    """A piece of a frame that was given to a session: pixels of the frame, and the session's size."""

    x: int
    y: int
    width: int
    height: int
    model: SessionSize
    turn: Turn = 0


Place = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]
Length = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]
"""Whole pixels of a frame: where something is, and how long a side of it."""


class Detection(Value, frozen=True):
    """One box: whole pixels of the frame, inside it; the class is the model's number for it."""

    x: Place
    y: Place
    width: Length
    height: Length
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    class_id: Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]
    kept: bool = False
    """Under the threshold for who appears, and reported as somebody known who stays."""


Detections = tuple[Detection, ...]
"""Boxes of one frame, best first. No box at all is a legal value."""


Polygon = tuple[tuple[Finite, Finite], ...]
"""Normalized points, x and y in 0..1, in their order around what they enclose."""


class AttentionSettings(Value, frozen=True):
    """What the operator set for one stream's attention; names and defaults are those of the configuration."""

    mode: AttentionMode = "auto"
    strategy: Strategy = "simple"
    alpha: Finite = 0.3
    velocity_threshold: Finite = 0.05
    velocity_factor: Finite = 1.5
    max_expansion: Finite = 0.3
    expansion: Finite = 0.15
    history_size: int = 30
    rescan_s: Finite | None = 2.0
    min_person_px: int = 40
    recall_floor: Finite = 0.97
    cost_ratio: Finite | None = None
    """Cost of a 640 inference in units of a 320 one; None takes the ratio measured at READY."""
    vanish_s: Finite | None = 120.0
    """How long somebody who disappeared inside the picture is looked for; None looks for nobody."""
    exits: tuple[Polygon, ...] = ()
    """Where people leave inside the picture, each a polygon of normalized points."""


class DetectorSpec(Value, frozen=True):
    """What a worker must load: the pair of model files and how to run it. `model_320` None runs the 640 alone."""

    model_640: str
    model_320: str | None
    confidence: Finite
    iou: Finite
    classes: tuple[str, ...]
    provider: str
    threads: int
    confidence_keep: Finite | None = None
    """Detection threshold for somebody known who stays; None is `confidence`."""
    self_test_s: Finite | None = 600.0
    """How often the known pictures are tried between frames; None tries them where models are loaded alone."""


class SessionInfo(Value, frozen=True):
    """One loaded session: its file, what it says of itself, and what loading and one warm inference cost."""

    path: str
    sha256: str
    size: int
    provider: str
    load_ms: Milliseconds
    warm_ms: Milliseconds
    fallback: str | None = None
    """Why `cpu` runs it and not the provider that was asked for; None where it is what was asked for."""
    sees: bool = True
    """Whether `cpu` finds somebody in the drawn pictures, at the confidence that is set; True where none is sought."""


class DetectorInfo(Value, frozen=True):
    """A loaded pair: `model_name` is its family and size as in `yolo11n`; `model_size` n, s, m, l, x or unknown."""

    model_name: str
    model_size: str
    sessions: Annotated[tuple[SessionInfo, ...], msgspec.Meta(min_length=1)]
    cost_ratio: Finite
    """Time of a 640 inference over a 320 one, measured at READY and rounded to 0.5; 1.0 when there is one session."""
    labels: tuple[tuple[int, str], ...] = ()
    """Class number and name of everything that is looked for."""

    def session(self, size: int) -> SessionInfo | None:
        """Return the session of that size, None where there is none."""
        return next((session for session in self.sessions if session.size == size), None)


class KnownPerson(Value, frozen=True):
    """Somebody who was there: the last box, whole pixels of the frame, and what tells how surely it was a person."""

    x: Place
    y: Place
    width: Length
    height: Length
    answers: int
    """How many answers in a row had them above `confidence`, as far as it matters."""
    looks: int
    """How many of those were looked for, and not held."""
    velocity: tuple[Finite, Finite, Finite, Finite] = (0.0, 0.0, 0.0, 0.0)
    """Of the left, upper, right and lower side, pixels a second, to the right and down."""
    turn: Turn = 0
    """How a look had to be turned to find them."""
    hidden_by: int | None = None
    """Who stands before them, by the place in the list; None where nobody does."""
    inside: bool = False
    """They appeared away from the edges: who does so was there before."""
    uncut: tuple[int, int] = (0, 0)
    """Width and height when the frame's edges cut neither, as far as that was seen."""
    length: Finite = 0.0
    """The longest side of the boxes of the last seconds: a body's height, in pixels, also while it falls."""


class VanishedPerson(Value, frozen=True):
    """Somebody who disappeared inside the picture: the last box, whole pixels of the frame, and when, by the stream's
    clock, that was.
    """

    x: Place
    y: Place
    width: Length
    height: Length
    since_s: Finite


class Search(Value, frozen=True):
    """How far the search for somebody vanished has come."""

    person: VanishedPerson
    streaks: int
    """How many times the place was looked at, upright and turned."""
    next_s: Finite
    """When it is looked at again, by the stream's clock."""
    length: Finite = 0.0
    """That of the person."""


class LearnedExit(Value, frozen=True):
    """A place, normalized, at which people were seen to vanish and to appear, and how often."""

    x: Finite
    y: Finite
    vanished: int
    appeared: int


class Known(Value, frozen=True):
    """Who is known on a stream after a frame. It travels with results, and with the request for the first frame that
    another process gets, so that nobody is forgotten with a worker.
    """

    time_s: Finite = 0.0
    """When that was, by the stream's clock."""
    people: tuple[KnownPerson, ...] = ()
    searches: tuple[Search, ...] = ()
    exits: tuple[LearnedExit, ...] = ()

    @property
    def vanished(self) -> tuple[VanishedPerson, ...]:
        """Who is looked for."""
        return tuple(search.person for search in self.searches)


class DetectRequest(Value, frozen=True):
    """What the detector is told about a frame beside its pixels."""

    stream_id: str
    stream_time_s: Finite
    """The stream's own clock: presentation time for files, capture time for cameras."""
    continuous: bool = True
    """False on the first frame after a pause, a reconnect or a new ring: nothing seen before may be assumed."""
    settings: AttentionSettings = AttentionSettings()
    regions: tuple[Region, ...] = ()
    """External regions, set by command."""
    known: Known | None = None
    """Who another process knew on the stream; None goes on with what this one knows."""


class RoiProcessing(Value, frozen=True):
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


class Outcome(Value, frozen=True):
    """What the detector made of one frame. Times are milliseconds of the worker's monotonic clock."""

    detections: Detections
    inference: InferenceKind
    model_selected: SessionSize
    roi_processing: RoiProcessing | None
    suggested_roi: Region | None
    preprocess_ms: Milliseconds
    inference_ms: Milliseconds
    postprocess_ms: Milliseconds
    total_ms: Milliseconds
    known: Known = Known()


class AttentionStats(Value, frozen=True):
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
    trial_share: Finite
    recall_hits: int
    recall_total: int
    recall_last_hour: Finite
    rescan_s: Finite | None
    history: tuple[Region, ...]
    suggested_roi: Region | None
    searches: int = 0
    """Looks for somebody vanished."""
    search_share: Finite = 0.0
    """Cost of those, as a share of what every frame whole through the 640 session would have cost."""
    vanished: int = 0
    """People who vanished, and who of them were found again."""
    found_again: int = 0
    exits: tuple[LearnedExit, ...] = ()


# What crosses the process boundary. A worker answers each FrameMessage with one FrameResult or one FrameFailure.


class FrameMessage(Value, frozen=True, tag=True):
    """Supervisor to worker: a leased frame, where its pixels are, and what the detector must know."""

    lease: int
    ring: str
    slot: int
    generation: int
    captured_ns: int
    request: DetectRequest


class Forget(Value, frozen=True, tag=True):
    """Supervisor to worker: a stream went to another worker or ended; drop what is kept for it."""

    stream_id: str


class Prepare(Value, frozen=True, tag=True):
    """Supervisor to worker: load this pair beside the present one, while frames go on. `swap` numbers the attempt."""

    swap: int
    spec: DetectorSpec


class Commit(Value, frozen=True, tag=True):
    """Supervisor to worker: put the prepared pair in the place of the present one, before the next frame."""

    swap: int


class Abort(Value, frozen=True, tag=True):
    """Supervisor to worker: keep the present pair, and let go of the other, loaded or not."""

    swap: int


class DescribeAttention(Value, frozen=True, tag=True):
    """Supervisor to worker: say what attention keeps of a stream."""

    query: int
    stream_id: str


class Stop(Value, frozen=True, tag=True):
    """Supervisor to worker: leave, with exit code 0."""


class Ready(Value, frozen=True, tag=True):
    """Worker to supervisor: both sessions are loaded and warm; frames may come."""

    info: DetectorInfo


class BootFailure(Value, frozen=True, tag=True):
    """Worker to supervisor: it could not start, and leaves with its own exit code. `kind` is the error's class."""

    kind: str
    message: str
    traceback: str


class FrameResult(Value, frozen=True, tag=True):
    """Worker to supervisor: the answer to a frame. `queue_ms` is from capture to the worker's start on it."""

    lease: int
    outcome: Outcome
    queue_ms: Milliseconds
    changed: DetectorInfo | None = None
    """What answers from this frame on, where that is no longer what was said last: a provider gave way to another."""


class FrameFailure(Value, frozen=True, tag=True):
    """Worker to supervisor: a frame could not be answered, and why; the worker goes on."""

    lease: int
    reason: Literal["torn", "worker_error"]
    message: str
    traceback: str
    changed: DetectorInfo | None = None
    """As that of a FrameResult."""


class Prepared(Value, frozen=True, tag=True):
    """Worker to supervisor: the other pair is loaded and warm. `load_ms` is all of it, by the clock."""

    swap: int
    info: DetectorInfo
    load_ms: Milliseconds


class PrepareFailed(Value, frozen=True, tag=True):
    """Worker to supervisor: the other pair cannot be used, and why; the present one stays."""

    swap: int
    reason: str


class Committed(Value, frozen=True, tag=True):
    """Worker to supervisor: from now on frames are answered by the other pair."""

    swap: int


class Blind(Value, frozen=True, tag=True):
    """Worker to supervisor: the known pictures are not answered any more as they must be, and why; it leaves."""

    reason: str


class AttentionDescribed(Value, frozen=True, tag=True):
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
    | Blind
)
