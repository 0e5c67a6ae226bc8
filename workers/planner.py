"""What to look at in each frame of one stream, decided from what was found before: pure, values in, values out. Runs in
the worker's main thread. `decide` names a plan, whoever has the pixels runs its crops and hands the boxes to `learn`,
which may ask for another look at the same picture: a check, when a cheap plan's answer is not to be trusted, or a
trial, which tells whether a cheap plan would have found everybody.
"""

import math
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from orion.messages import AttentionSettings, AttentionSource, Detections, Region
from workers.boxes import (
    NONE,
    Boxes,
    box_region,
    common,
    corners,
    covered,
    crop_box,
    cut,
    overlaps,
    pair_up,
    region_boxes,
    same_people,
    union,
)
from workers.history import History
from workers.motion import Change
from workers.plans import NEAR_SCALE, Option, Plan, crop_around, proposals, scale, whole
from workers.recall import Recall
from workers.rumours import Rumours
from workers.suggest import suggest_region
from workers.trials import Budget, Confirmation

CONFIRMING_IOU = 0.6
"""Overlap from which a cheap plan's box is the rescan's."""
HELD_SHARE = 0.01
"""Most of a person's box that may change while it is held. (With twice that, one held box in ten of people who move
their arms, filmed at 60 frames a second, overlapped the true one by less than 0.85; with this, none.)"""
HELD_MARGIN = 0.06
"""How far beyond the box, in body heights, what changes while a person is held may be a part of the person."""
HELD_IOU = 0.85
"""Overlap below which a held box is wrong."""
EXACT_LIKENESS = 0.92
"""Least likeness of a cheap plan's boxes to a rescan's from which its boxes may be held: room for `HELD_IOU`."""
ZONE_MARGIN = 0.18
"""How far a person's own motion reaches beyond the box, in body heights, between frames that are close in time."""
ZONE_SPEED, MOST_MARGIN = 0.8, 0.5
"""What is added for each second between frames (walking is about 0.8 body heights a second), and the limit."""
NEAR_SHARE = 0.06
"""Motion within that share of the frame's longer side of earlier motion goes on there."""
FOLLOWED = 3
"""Of so many looks at motion that goes on, one is a rescan: a newcomer whom only that one shows waits for two more."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """All that a decision is made from: `frame_size` is (width, height) in pixels, `change` is None when nothing may be
    compared with what was seen earlier, `cost_ratio` is 1 when there is no 320 session.
    """

    time_s: float
    frame_size: tuple[int, int]
    change: Change | None
    settings: AttentionSettings
    regions: tuple[Region, ...]
    cost_ratio: float


class Planner:
    """Decides for one stream, where its settings leave something to decide. What is counted and spent lasts; what is
    known of the scene ends with `forget`.
    """

    def __init__(self) -> None:
        self.recall = Recall()
        self.budget = Budget()
        self.history = History()
        self.answer: Detections = ()
        self.suggested: Region | None = None
        self.forget()

    def forget(self) -> None:
        """Forget everybody: the next frame is the first."""
        self._people = NONE
        self._exact = False
        self._confirmation = Confirmation()
        self._rumours = Rumours()
        self._stirred = NONE
        self._followed = 0
        self._last_full_s = -math.inf
        self._last_s = math.inf
        self._interval_s = 0.0
        self._due: Plan | None = None
        self._doubted: tuple[Plan, Detections] | None = None
        self.answer = ()
        self.suggested = None
        self.history.clear()

    @property
    def people(self) -> Boxes:
        """Who is known, (N, 4) in frame pixels."""
        return self._people

    @property
    def zones(self) -> Boxes:
        """Where the known people may be by now, (N, 4) in frame pixels."""
        return self._around_people(ZONE_MARGIN + ZONE_SPEED * self._interval_s)

    def _around_people(self, margin: float) -> Boxes:
        """Return the people's boxes, widened by `margin` of their heights in all directions."""
        reach = (self._people[:, 3] - self._people[:, 1]) * min(MOST_MARGIN, margin)
        return self._people + np.stack([-reach, -reach, reach, reach], axis=1)

    def decide(self, seen: Observation) -> Plan:
        """Return what to do with this frame."""
        self.budget.begin_frame(max(1.0, seen.cost_ratio))
        if seen.change is None or seen.time_s < self._last_s:
            self.forget()
        first = math.isinf(self._last_s)
        self._interval_s = 0.0 if first else seen.time_s - self._last_s
        self._seen, self._last_s = seen, seen.time_s
        self._due, self._doubted = None, None
        if first or seen.change is None:
            return self._full("first")
        if seen.change.whole:
            return self._full("scene")
        plan = self._cheapest(seen.change)
        if self._rescan_due():
            self._due = None if plan.full else plan
            return self._full("rescan")
        return plan

    def learn(self, plan: Plan, found: Detections) -> Plan | None:
        """Take what `plan` found; return what else to run on the same picture, whose boxes come here next, if
        anything. When None is returned `answer` holds the frame's detections.
        """
        self.budget.pay(plan.cost(self._seen.cost_ratio), trial=plan.purpose == "trial")
        if plan.purpose == "trial":
            return self._tried(plan, found)
        if plan.kind == "held":
            return None
        if plan.full:
            return self._rescanned(found)
        return self._looked(plan, found)

    def _rescan_due(self) -> bool:
        """Tell whether the next frame, which is as far away as the last one, would be too late for a rescan."""
        period_s = self._seen.settings.rescan_s
        if period_s is None:
            return False
        return self._seen.time_s + self._interval_s > self._last_full_s + period_s / self.recall.closeness + 1e-6

    def _cheapest(self, change: Change) -> Plan:
        beside = self._movers(change, self._around_people(HELD_MARGIN))
        still = change.share_inside(self._people) <= HELD_SHARE and len(beside) == 0
        if still and (self._exact or len(self._people) == 0):
            return Plan("held", (), "still" if len(self._people) else "empty")
        plan = self._cheap_plan()
        movers = beside
        if plan is not None and len(beside):
            movers = self._movers(change, self._explained(plan))
        if len(movers):
            plan = self._follow(movers, plan)
        self._stirred = movers
        if plan is None:
            return self._full("unconfirmed")
        if not plan.full and not self.budget.allows(plan.cost(self._seen.cost_ratio), self._seen.cost_ratio):
            return self._full("overdrawn")
        return plan

    def _explained(self, plan: Plan) -> Boxes:
        """Return where motion calls for nothing more than `plan`: all of a crop that shows who else is in it; of what
        is seen smaller only the people themselves, for a small newcomer may be at a big one's side.
        """
        near = [crop_box(crop)[0] for crop in plan.crops if scale(crop, self._seen.frame_size) >= NEAR_SCALE]
        return np.array([*self._around_people(HELD_MARGIN + ZONE_SPEED * self._interval_s / 2), *near])

    def _cheap_plan(self) -> Plan | None:
        """Return the confirmed plan; where nobody is known, a look at the region that has attention anyway."""
        options = self._options()
        if len(self._people) == 0:
            return next((self._plan(option, "vigil") for option in options if self._near(option)), None)
        kind = self._confirmation.kind
        return next((self._plan(option, "confirmed") for option in options if option[0] == kind), None)

    def _follow(self, movers: Boxes, plan: Plan | None) -> Plan:
        """Return how to look at motion outside of what the plan covers: a rescan at once; where the motion goes on and
        the rescan explained nothing, most of the time only a crop that has it too.
        """
        seen = self._seen
        reach = np.array([-1, -1, 1, 1]) * max(seen.frame_size) * NEAR_SHARE
        goes_on = bool((covered(movers, self._stirred + reach) >= 0.5).all())
        self._followed = (self._followed + 1) % FOLLOWED if goes_on else 0
        if self._followed == 0 or seen.cost_ratio <= 1 or (plan is None and len(self._people)):
            return self._full("motion")
        crop = crop_around(union(np.concatenate([self.zones, self._focus()[0], movers])), seen.frame_size, 320)
        if scale(crop, seen.frame_size) < NEAR_SCALE:
            return plan or self._full("motion")
        return self._plan(("crop_320", (crop,)), "follow")

    def _full(self, reason: str) -> Plan:
        """Return the look that others are measured by: the whole frame, or with rescans switched off the external
        regions and who is known there.
        """
        seen = self._seen
        if not self._confined:
            return Plan("whole_640", (whole(seen.frame_size, 640),), reason)
        box = union(np.concatenate([region_boxes(seen.regions, seen.frame_size), self.zones]))
        return self._plan(("crop_640", (crop_around(box, seen.frame_size, 640),)), reason)

    @property
    def _confined(self) -> bool:
        return bool(self._seen.regions) and self._seen.settings.rescan_s is None

    def _movers(self, change: Change, zones: Boxes) -> Boxes:
        movers = change.movers(zones)
        if not self._confined:
            return movers
        return movers[common(movers, region_boxes(self._seen.regions, self._seen.frame_size)).any(axis=1)]

    def _focus(self) -> tuple[Boxes, AttentionSource]:
        """Return the boxes that have attention beside the people's own zones, and where they came from."""
        seen = self._seen
        if seen.regions:
            return region_boxes(seen.regions, seen.frame_size), "external"
        region = self.history.attended(seen.time_s, seen.settings)
        if region is None:
            return NONE, ""
        return region_boxes((region,), seen.frame_size), "python_suggested" if len(self._people) else "auto_history"

    def _options(self) -> list[Option]:
        seen = self._seen
        focus, source = self._focus()
        everything = np.concatenate([self.zones, focus])
        if len(everything) == 0:
            return []
        zones = self.zones if source == "python_suggested" else everything
        around = union(everything)
        return proposals(zones, around, self._people, seen.frame_size, seen.cost_ratio, seen.settings.min_person_px)

    def _near(self, option: Option) -> bool:
        return all(scale(crop, self._seen.frame_size) >= NEAR_SCALE for crop in option[1])

    def _plan(self, option: Option, reason: str) -> Plan:
        kind, crops = option
        size = self._seen.frame_size
        boxes, source = self._focus()
        everything = np.concatenate([boxes, self.zones])
        merged = box_region(union(everything), size) if len(everything) else None
        rois = tuple(box_region(box, size) for box in boxes)
        return Plan(kind, crops, reason, source, rois, merged)

    def _looked(self, plan: Plan, found: Detections) -> Plan | None:
        """Take a cheap plan's boxes as the answer, or ask for a check when they surprise."""
        found = self._rumours.without(found, self._people)
        boxes = corners(found)
        known = len(same_people(self._people, boxes))
        if known < len(self._people):
            reason = "lost"
        elif known < len(boxes):
            reason = "appeared"
        elif cut(boxes, plan.crops, self._seen.frame_size).any():
            reason = "edge"
        else:
            self._keep(found, exact=self._confirmation.likeness >= EXACT_LIKENESS and plan.reason == "confirmed")
            return None
        self._doubted = (plan, found)
        return replace(self._full(reason), purpose="check")

    def _rescanned(self, found: Detections) -> Plan | None:
        """Take a full look's boxes as the answer, and as the measure of the plan in force."""
        before, boxes = self._people, corners(found)
        same = len(same_people(before, boxes)) == len(before) == len(boxes)
        self._last_full_s = self._seen.time_s
        self._rumours = Rumours()
        self._keep(found, exact=True)
        if self._doubted is not None:
            self._judge(*self._doubted)
        elif self._due is not None and self._due.kind == "held":
            self._count(len(pair_up(overlaps(boxes, before), HELD_IOU)))
        elif self._due is not None:
            if len(boxes) and self.budget.allows_trial(self._due.cost(self._seen.cost_ratio)):
                return replace(self._due, purpose="trial")
            crops = np.concatenate([crop_box(crop) for crop in self._due.crops])
            self._count(int((covered(boxes, crops) >= 0.5).sum()))
        if self._doubted is None and not same:
            self._confirmation.lapse()
        return self._next_trial()

    def _tried(self, plan: Plan, found: Detections) -> Plan | None:
        if self._due is not None and plan.reason == self._due.reason:
            self._count(len(pair_up(overlaps(self._people, corners(found)), CONFIRMING_IOU)))
        self._judge(plan, found)
        return self._next_trial()

    def _judge(self, plan: Plan, found: Detections) -> None:
        """Confirm `plan` when on this picture it found everybody whom the full look found, else hold it against it."""
        ratios = overlaps(self._people, corners(found))
        pairs = pair_up(ratios, CONFIRMING_IOU)
        self._rumours = Rumours.of(found, self._people)
        if len(pairs) < len(self._people):
            self._confirmation.fail(plan.kind, self._seen.time_s)
        elif pairs:
            self._confirmation.confirm(plan.kind, min(float(ratios[pair]) for pair in pairs))
        else:
            self._confirmation.lapse()

    def _next_trial(self) -> Plan | None:
        """Return a trial of the plan to confirm next; None when one is confirmed that can still be carried out."""
        options = self._options() if len(self._people) else []
        if any(kind == self._confirmation.kind for kind, _ in options):
            return None
        self._confirmation.lapse()
        option = self._confirmation.next_trial(options, self._seen.time_s)
        if option is None:
            return None
        plan = replace(self._plan(option, "trial"), purpose="trial")
        return plan if self.budget.allows_trial(plan.cost(self._seen.cost_ratio)) else None

    def _count(self, hits: int) -> None:
        self.recall.count(self._seen.time_s, hits, len(self._people), self._seen.settings.recall_floor)

    def _keep(self, found: Detections, *, exact: bool) -> None:
        seen = self._seen
        self.answer, self._people, self._exact = found, corners(found), exact
        self.suggested = suggest_region(found, seen.frame_size, seen.settings.expansion)
        if self.suggested is not None:
            self.history.add(seen.time_s, self.suggested, seen.settings.history_size)
