"""The 320 and 640 sessions that a worker holds, with their buffers, as one value that can be swapped between frames.
`SessionPair.load` runs in the main thread at boot and in a thread of its own for a swap; after that the pair belongs to
the main thread alone.
"""

import ctypes
import gc

from orion.messages import DetectorInfo, DetectorSpec
from workers.choice import load_chosen
from workers.lane import Lanes
from workers.turns import AT_ONCE, Turn


class SessionPair:
    """Both sessions loaded and warm; `lanes` has the 640 always and the 320 when the spec names one."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self._cost_ratio = _cost_ratio(lanes)
        self._info = self._describe()

    @classmethod
    def load(cls, spec: DetectorSpec, *, rgb: bool = False, turn: Turn = AT_ONCE) -> "SessionPair":
        """Load and warm the sessions that `spec` names, each step of it in a `turn`, for frames in BGR or, with
        `rgb`, in RGB.

        Raises ModelError with what was expected and what was found.
        """
        lanes = load_chosen(spec, turn)
        for lane in lanes.values():
            lane.letterbox.rgb = rgb
        return cls(lanes)

    @property
    def info(self) -> DetectorInfo:
        """What is loaded, and on which provider it runs now: the same object until a provider gives way."""
        known = tuple(session.provider for session in self._info.sessions)
        if known != tuple(lane.session.provider for lane in self.lanes.values()):
            self._info = self._describe()
        return self._info

    def _describe(self) -> DetectorInfo:
        large = self.lanes[640]
        card = large.session.card
        return DetectorInfo(
            model_name=card.model_name,
            model_size=card.model_size,
            sessions=tuple(lane.session.info for lane in self.lanes.values()),
            cost_ratio=self._cost_ratio,
            labels=tuple((number, card.names[number]) for number in large.rules.class_ids),
        )

    def close(self) -> None:
        """Let go of the sessions and their buffers."""
        self.lanes.clear()


def trim_memory() -> None:
    """Hand the memory of closed sessions back to the system, where the C library can."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _cost_ratio(lanes: Lanes) -> float:
    if 320 not in lanes:
        return 1.0
    return max(1.0, round(lanes[640].fastest_ms() / lanes[320].fastest_ms() * 2) / 2)
