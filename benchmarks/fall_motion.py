"""How somebody moves who falls: where the feet stand and how the body is turned at every time of a made fall. Pure;
runs in the main thread of a benchmark or a test.
"""

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.fall_variants import Phase, Variant

_LOOK_UP_S = 1.5
"""How long somebody stands who has got up, before they leave."""
_EMPTY_S = 5.0
"""How long the room is shown empty after somebody left."""
_SWAYS_S = 3.0
_SWAY_DEG = 0.8
_STEP_S = 0.55
_BREATH_S, _BREATH = 4.0, 0.012
_ARM_EVERY_S, _ARM_S, _ARM_PX = 6.0, 1.2, 9.0
_SHIFT_EVERY_S, _SHIFT_S, _SHIFT_PX, _SHIFT_DEG = 4.0, 0.4, 3.5, 1.5


@dataclass(frozen=True, slots=True)
class Pose:
    """How somebody is at one time: feet in pixels of the frame, degrees clockwise from upright, breadth (1 is the
    cut-out's), how far an arm is moved in pixels, and what share of its way a sheet has come.
    """

    phase: Phase
    foot: tuple[float, float]
    angle: float = 0.0
    breadth: float = 1.0
    arm: float = 0.0
    sheet: float = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """When each part of a made fall begins, in seconds, and where its walks begin and end."""

    variant: Variant
    foot: tuple[float, float]
    entry_x: float
    exit_x: float
    stands_s: float
    falls_s: float
    lies_s: float
    rises_s: float
    risen_s: float
    leaves_s: float
    gone_s: float
    end_s: float

    @property
    def count(self) -> int:
        """How many frames it has."""
        return math.floor(self.end_s * self.variant.fps)

    def pose(self, time_s: float) -> Pose:
        """Return how they are at that time."""
        if time_s < self.stands_s:
            return self._walk(self.entry_x, self.foot[0], time_s / self.stands_s, time_s)
        if time_s < self.falls_s:
            return self._stand(time_s - self.stands_s, self.falls_s - self.stands_s)
        if time_s < self.lies_s:
            return self._turning("falling", ((time_s - self.falls_s) / (self.lies_s - self.falls_s)) ** 2)
        if time_s < self.rises_s:
            return self._lie(time_s)
        if time_s < self.risen_s:
            passed = (time_s - self.rises_s) / (self.risen_s - self.rises_s)
            return self._turning("rising", 1 - (1 - math.cos(math.pi * passed)) / 2)
        if time_s < self.leaves_s:
            return self._stand(time_s - self.risen_s, self.leaves_s - self.risen_s)
        if time_s < self.gone_s:
            passed = (time_s - self.leaves_s) / (self.gone_s - self.leaves_s)
            return self._walk(self.foot[0], self.exit_x, passed, time_s)
        return Pose("gone", (self.exit_x, self.foot[1]))

    def _walk(self, begin: float, end: float, passed: float, time_s: float) -> Pose:
        stride = math.sin(2 * math.pi * time_s / (2 * _STEP_S))
        # The tilt is nothing where a walk begins or ends.
        tilt = 2.0 * stride * min(1.0, 4 * passed, 4 * (1 - passed))
        return Pose("up", (begin + (end - begin) * passed, self.foot[1] - abs(stride)), tilt)

    def _stand(self, passed_s: float, of_s: float) -> Pose:
        sways = max(1, round(of_s / _SWAYS_S))
        return Pose("up", self.foot, _SWAY_DEG * math.sin(2 * math.pi * sways * passed_s / of_s))

    def _turning(self, phase: Phase, turned: float) -> Pose:
        side = 1 if self.variant.direction == "right" else -1
        return Pose(phase, self.foot, side * 90 * turned, sheet=max(0.0, 2 * turned - 1))

    def _lie(self, time_s: float) -> Pose:
        still = self._turning("lying", 1.0)
        if self.variant.movement == "still":
            return still
        passed_s, of_s = time_s - self.lies_s, self.rises_s - self.lies_s
        across, down, turned = _shift(self.variant.seed, passed_s, of_s)
        place = (still.foot[0] + across, still.foot[1] + down)
        breadth = 1 + _BREATH * math.sin(2 * math.pi * passed_s / _BREATH_S)
        into = passed_s % _ARM_EVERY_S
        arm = _ARM_PX * math.sin(math.pi * into / _ARM_S) ** 2 if into < _ARM_S < passed_s else 0.0
        return Pose("lying", place, still.angle + turned, breadth, arm, 1.0)


def write_script(variant: Variant, foot: tuple[float, float], beyond: float, frame_width: int) -> Script:
    """Return the script of a fall whose feet stand at `foot`; `beyond` the edge by so much nobody is to be seen."""
    edges = {"left": -beyond, "right": frame_width + beyond, "in view": foot[0]}
    exit_x = -beyond if foot[0] < frame_width / 2 else frame_width + beyond
    entry_x = edges[variant.entry]
    stands = max(abs(entry_x - foot[0]) / variant.speed, 1e-6)
    falls = stands + variant.stand_s
    lies = falls + variant.fall_s
    rises = lies + variant.lying_s
    rises_at_all, leaves_at_all = variant.after != "stays", variant.after == "leaves"
    risen = rises + 2.0 * rises_at_all
    leaves = risen + _LOOK_UP_S * rises_at_all
    gone = leaves + abs(exit_x - foot[0]) / variant.speed * leaves_at_all
    return Script(
        variant, foot, entry_x, exit_x, stands, falls, lies, rises, risen, leaves, gone, gone + _EMPTY_S * leaves_at_all
    )


def _shift(seed: int, passed_s: float, of_s: float) -> tuple[float, float, float]:
    """Return how far who lies has moved: pixels across and down, and degrees; back at nothing in the end."""
    moves = max(1, int(of_s / _SHIFT_EVERY_S))
    begins = np.arange(1, moves + 1) * of_s / (moves + 1)
    limits = (_SHIFT_PX, _SHIFT_PX, _SHIFT_DEG)
    places = np.random.default_rng([21, seed]).uniform(-1, 1, (moves, 3)) * limits
    places[-1] = 0
    before = np.concatenate([np.zeros((1, 3)), places[:-1]])
    times = np.stack([begins, begins + _SHIFT_S], axis=1).ravel()
    knots = np.stack([before, places], axis=1).reshape(-1, 3)
    across, down, turned = (float(np.interp(passed_s, times, knots[:, axis])) for axis in range(3))
    return across, down, turned
