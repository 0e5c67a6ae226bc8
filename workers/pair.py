"""The 320 and 640 sessions that a worker holds, with their buffers, as one value that can be swapped between frames.
`SessionPair.load` runs in the main thread at boot and in a thread of its own for a swap; after that the pair belongs to
the main thread alone.
"""

import time
from collections.abc import Callable

from orion.messages import DetectorInfo, DetectorSpec
from workers.choice import load_chosen, load_on_cpu
from workers.lane import Lanes
from workers.self_test import PeriodicTest
from workers.turns import AT_ONCE, Turn

PERSON = "person"


class SessionPair:
    """Both sessions loaded and warm; `lanes` has the 640 always and the 320 when the spec names one."""

    def __init__(
        self, lanes: Lanes, spec: DetectorSpec, *, rgb: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lanes = lanes
        for lane in lanes.values():
            lane.letterbox.rgb = rgb
        self._spec, self._rgb, self._clock = spec, rgb, clock
        self.info = _describe(lanes)
        """What is loaded, and on which provider."""
        self.confidence = spec.confidence
        """What a box must have to be somebody who appears; who stays may have less."""
        names = lanes[640].session.card.names
        wanted = lanes[640].decoder.rules.class_ids
        self.class_id = names.index(PERSON) if PERSON in spec.classes else wanted[0]
        """The class of those who are known and looked for."""
        self.periodic_test = PeriodicTest(lanes, spec.self_test_s, clock)
        """What tries the known pictures between frames in BGR."""

    @classmethod
    def load(
        cls,
        spec: DetectorSpec,
        *,
        rgb: bool = False,
        turn: Turn = AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> "SessionPair":
        """Load and warm the sessions that `spec` names, each step of it in a `turn`, for frames in BGR or, with
        `rgb`, in RGB.

        Raises ModelError with what was expected and what was found.
        """
        return cls(load_chosen(spec, turn), spec, rgb=rgb, clock=clock)

    def on_cpu(self, reason: str) -> "SessionPair":
        """Load and warm the same pair on `cpu`, in place of this one, whose provider failed for that reason. May be
        called in another thread. Raises ModelError.
        """
        return SessionPair(load_on_cpu(self._spec, reason), self._spec, rgb=self._rgb, clock=self._clock)

    def close(self) -> None:
        """Let go of the sessions and their buffers."""
        self.lanes.clear()


def _describe(lanes: Lanes) -> DetectorInfo:
    large = lanes[640]
    card = large.session.card
    return DetectorInfo(
        model_name=card.model_name,
        model_size=card.model_size,
        cost_ratio=_cost_ratio(lanes),
        sessions=tuple(lane.session.info for lane in lanes.values()),
        labels=tuple((number, card.names[number]) for number in large.decoder.rules.class_ids),
    )


def _cost_ratio(lanes: Lanes) -> float:
    if 320 not in lanes:
        return 1.0
    return max(1.0, round(lanes[640].session.fastest_ms / lanes[320].session.fastest_ms * 2) / 2)
