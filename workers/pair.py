"""The 320 and 640 sessions that a worker holds, with their buffers, as one value that can be swapped between frames.
`SessionPair.load` runs in the main thread at boot and in a thread of its own for a swap; after that the pair belongs to
the main thread alone.
"""

import statistics
from dataclasses import dataclass

from orion.errors import ModelError
from orion.messages import DetectorInfo, DetectorSpec, SessionSize
from workers.decode import Rules
from workers.letterbox import Letterbox
from workers.session import Session

_RUNS_FOR_RATIO = 5


@dataclass(frozen=True, slots=True)
class Lane:
    """One session with the letterbox that fills its input and the rules that read its output."""

    session: Session
    letterbox: Letterbox
    rules: Rules


class SessionPair:
    """Both sessions loaded and warm; `lanes` has the 640 always and the 320 when the spec names one."""

    def __init__(self, lanes: dict[SessionSize, Lane], info: DetectorInfo) -> None:
        self.lanes = lanes
        self.info = info

    @classmethod
    def load(cls, spec: DetectorSpec) -> "SessionPair":
        """Load and warm the sessions that `spec` names. Raises ModelError with what was expected and what was found."""
        lanes: dict[SessionSize, Lane] = {640: _lane(spec.model_640, 640, spec)}
        if spec.model_320 is not None:
            lanes[320] = _lane(spec.model_320, 320, spec)
            _check_siblings(lanes[640].session, lanes[320].session)
        card = lanes[640].session.card
        info = DetectorInfo(
            model_name=card.model_name,
            model_size=card.model_size,
            sessions=tuple(lane.session.info for lane in lanes.values()),
            cost_ratio=_cost_ratio(lanes),
        )
        return cls(lanes, info)

    def close(self) -> None:
        """Let go of the sessions and their buffers."""
        self.lanes.clear()


def _lane(path: str, size: SessionSize, spec: DetectorSpec) -> Lane:
    session = Session(path, size, spec.threads)
    rules = Rules(session.card.layout, session.card.class_ids(spec.classes), spec.confidence, spec.iou)
    return Lane(session, Letterbox(session.tensor), rules)


def _check_siblings(large: Session, small: Session) -> None:
    for what in ("model_name", "names"):
        expected, found = getattr(large.card, what), getattr(small.card, what)
        if expected != found:
            raise ModelError(f"{small.card.path}: expected the {what} of {large.card.path}, {expected}, found {found}")


def _cost_ratio(lanes: dict[SessionSize, Lane]) -> float:
    if 320 not in lanes:
        return 1.0
    large, small = (
        statistics.median(lanes[size].session.timed_run() for _ in range(_RUNS_FOR_RATIO)) for size in (640, 320)
    )
    return max(1.0, round(large / small * 2) / 2)
