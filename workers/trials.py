"""What the planner may spend on finding out, and what it found out: pure. Runs in the worker's main thread, one of each
for a stream. Costs are inferences of the 320 session, times those of the stream.
"""

import math

from workers.plans import Option, PlanKind

TRIAL_SHARE = 0.05
"""Most of all inference that goes into trials, in the long run; the first `FIRST_CREDIT` are on top."""
FIRST_CREDIT = 2.0
MOST_CREDIT = 4.0

OVERHEAD = 1.05
"""Most that a stream may cost, relative to every frame whole through the 640 session."""
FIRST_SURPLUS, MOST_SURPLUS = 4.0, 80.0

FIRST_RETRY_S = 0.05
LAST_RETRY_S = 16.0
_MOST_DOUBLINGS = math.ceil(math.log2(LAST_RETRY_S / FIRST_RETRY_S))
PATIENCE = 3
"""How often in a row a plan must fail before the next one in order is tried in its place."""


class Budget:
    """Keeps trials below their share, and everything together below the cost of attention switched off."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.spent_on_trials = 0.0
        self.earned = 0.0
        """What every frame whole at 640 would have cost."""
        self._credit = FIRST_CREDIT
        self._surplus = FIRST_SURPLUS

    def begin_frame(self, full_cost: float) -> None:
        """Add what the frame may cost: `full_cost` is that of a whole frame at 640."""
        self.earned += full_cost
        self._surplus = min(MOST_SURPLUS, self._surplus + OVERHEAD * full_cost)

    def pay(self, cost: float, *, trial: bool) -> None:
        """Take the cost of an inference that was run."""
        self.spent += cost
        self._surplus -= cost
        if trial:
            self.spent_on_trials += cost
            self._credit -= cost
        self._credit = min(MOST_CREDIT, self._credit + TRIAL_SHARE * cost)

    def allows(self, cost: float, full_cost: float) -> bool:
        """Tell whether a cheap plan may be run although a look at the whole frame may have to follow it."""
        return self._surplus >= cost + full_cost

    def allows_trial(self, cost: float) -> bool:
        """Tell whether a trial of that cost may be made."""
        return self._credit >= cost and self._surplus >= cost


class Confirmation:
    """Which plan has found everybody on the picture of a rescan, and which ones lately did not."""

    def __init__(self) -> None:
        self.kind: PlanKind | None = None
        self.likeness = 0.0
        """Least overlap of its boxes with those of the rescan."""
        self._failed: dict[PlanKind, tuple[int, float]] = {}

    def confirm(self, kind: PlanKind, likeness: float) -> None:
        """Note that a plan found everybody."""
        self.kind = kind
        self.likeness = likeness
        self._failed.pop(kind, None)

    def lapse(self) -> None:
        """Forget the confirmed plan, without holding it against it."""
        self.kind = None

    def fail(self, kind: PlanKind, time_s: float) -> None:
        """Note that a plan missed somebody; it waits twice as long each time before it is tried again."""
        times, _ = self._failed.get(kind, (0, 0.0))
        # A plan may fail for weeks: an unbounded power becomes too large for a float.
        wait_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(times, _MOST_DOUBLINGS))
        self._failed[kind] = (times + 1, time_s + wait_s)
        if kind == self.kind:
            self.kind = None

    def next_trial(self, options: list[Option], time_s: float) -> Option | None:
        """Return which of `options`, in order, should be tried now; None to wait. One that failed `PATIENCE` times in
        a row is waited for no longer, and comes after those that did not.
        """
        records = [(option, *self._failed.get(option[0], (0, -math.inf))) for option in options]
        hopeful = [(option, ready_s) for option, times, ready_s in records if times < PATIENCE]
        if hopeful:
            option, ready_s = hopeful[0]
            return option if time_s >= ready_s else None
        return next((option for option, _, ready_s in records if time_s >= ready_s), None)
