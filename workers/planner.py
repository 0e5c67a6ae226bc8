"""What to look at in each frame of one stream, decided from what was found before: pure, values in, values out. Runs in
the worker's main thread. `decide` names a plan, whoever has the pixels runs its crops and hands the boxes to `learn`,
which may ask for another look at the same picture: a check, when a cheap plan's answer is not to be trusted, a search
for somebody who should be there, or a trial, which tells whether a cheap plan would have found everybody.
"""

import math

import numpy as np
from msgspec.structs import replace

from orion.messages import Detections, Known, Region
from workers.boxes import NONE, Boxes, corners, covered, crop_box, cut, overlaps, pair_up, same_people, union
from workers.history import History
from workers.motion import Change
from workers.plans import NEAR_SCALE, Plan, crop_around, scale
from workers.recall import Recall
from workers.rumours import Rumours
from workers.scene import HELD_MARGIN, Observation, Scene
from workers.search import AROUND, Seeking, search_crop
from workers.suggest import suggest_region
from workers.trials import Budget, Confirmation
from workers.vanished import LONG_LOSS_S, Whereabouts

CONFIRMING_IOU = 0.6
"""Overlap from which a cheap plan's box is the rescan's."""
HELD_SHARE = 0.01
"""Most of a person's box that may change while it is held. (With twice that, one held box in ten of people who move
their arms, filmed at 60 frames a second, overlapped the true one by less than 0.85; with this, none.)"""
HELD_IOU = 0.85
"""Overlap below which a held box is wrong."""
EXACT_LIKENESS = 0.92
"""Least likeness of a cheap plan's boxes to a rescan's from which its boxes may be held: room for `HELD_IOU`."""
NEAR_SHARE = 0.06
"""Motion within that share of the frame's longer side of earlier motion goes on there."""
FOLLOWED = 3
"""Of so many looks at motion that goes on, one is a rescan: a newcomer whom only that one shows waits for two more."""


class Planner:
    """Decides for one stream, where its settings leave something to decide. What is counted and spent lasts, and so do
    `whereabouts`, who is known; what is known of the scene ends with `forget`.
    """

    def __init__(self) -> None:
        self.recall = Recall()
        self.budget = Budget()
        self.history = History()
        self.whereabouts = Whereabouts()
        self._before_cut = Known()
        self.answer: Detections = ()
        self.suggested: Region | None = None
        self.forget()

    def forget(self) -> None:
        """Forget the scene: the next frame is looked at as the first."""
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
        self._seeking: Seeking | None = None
        self.answer = ()
        self.suggested = None
        self.history.clear()

    @property
    def people(self) -> Boxes:
        """Who is in the answer, (N, 4) in frame pixels."""
        return self._people

    @property
    def scene(self) -> Scene:
        """The frame with who is in the last answer."""
        suggested = self.history.attended(self._seen.time_s, self._seen.settings)
        return Scene(self._seen, self._people, self._interval_s, suggested)

    def decide(self, seen: Observation) -> Plan:
        """Return what to do with this frame."""
        self.budget.begin_frame(max(1.0, seen.cost_ratio))
        if seen.change is None or seen.time_s < self._last_s:
            self.forget()
        if seen.change is not None and seen.change.cut:
            self._cut(seen.time_s, back=seen.change.back)
        self.whereabouts.begin(seen)
        first = math.isinf(self._last_s)
        self._interval_s = 0.0 if first else seen.time_s - self._last_s
        self._seen, self._last_s = seen, seen.time_s
        self._due, self._doubted, self._seeking = None, None, None
        if first or seen.change is None:
            return self.scene.full("first")
        if seen.change.whole:
            return self.scene.full("scene")
        plan = self._cheapest(seen.change)
        if self._rescan_due():
            self._due = None if plan.full else plan
            return self.scene.full("rescan")
        return plan

    def _cut(self, time_s: float, *, back: bool) -> None:
        """Forget everybody; where the scene is that of before the last cut again, go on with who was known then."""
        before, self._before_cut = self._before_cut, self.whereabouts.known
        self.whereabouts.forget()
        if back and time_s - before.time_s <= LONG_LOSS_S:
            self.whereabouts.adopt(before)

    def learn(self, plan: Plan, found: Detections) -> Plan | None:
        """Take what `plan` found; return what else to run on the same picture, whose boxes come here next, if
        anything. When None is returned `answer` holds the frame's detections.
        """
        following = self._learn(plan, found)
        if following is None:
            seeking = self._seeking
            assert seeking is not None
            self.whereabouts.conclude(self.answer, self.scene.bounds, seeking.source, seeking.turns)
        return following

    def _learn(self, plan: Plan, found: Detections) -> Plan | None:
        self.budget.pay(plan.cost(self._seen.cost_ratio), trial=plan.purpose == "trial")
        if plan.purpose == "search":
            return self._searched(found)
        found = self.whereabouts.admit(found)
        if plan.purpose == "trial":
            return self._tried(plan, found)
        if plan.kind == "held":
            return self._seek(plan, self.answer)
        return self._seek(plan, found) if plan.full else self._looked(plan, found)

    def _seek(self, plan: Plan, found: Detections) -> Plan | None:
        """Look for who is missing in the answer that `plan` found, before it is given."""
        sought = self.whereabouts.sought(found, self.scene.bounds, full=plan.full)
        self._seeking = Seeking(found, sought, plan)
        return self._next_search(self._seeking)

    def _next_search(self, seeking: Seeking) -> Plan | None:
        ratio, places = self._seen.cost_ratio, self.whereabouts
        while (look := seeking.following()) is not None:
            if look.again or places.affords(ratio, self._interval_s, ratio):
                places.pay(ratio, again=look.again)
                crop = look.crop(self._seen.frame_size)
                return replace(self.scene.plan(("crop_640", (crop,)), "vanished"), purpose="search")
        if seeking.source.full:
            return self._rescanned(seeking.found)
        if len(seeking.found) > len(self.answer):
            self._keep(seeking.found, exact=self._exact)
        return None

    def _searched(self, found: Detections) -> Plan | None:
        seeking = self._seeking
        assert seeking is not None
        one = self.whereabouts.found_among(seeking.person, found, seeking.found)
        if one is not None:
            seeking.take(one)
        return self._next_search(seeking)

    def _rescan_due(self) -> bool:
        """Tell whether the next frame, which is as far away as the last one, would be too late for a rescan."""
        period_s = self._seen.settings.rescan_s
        if period_s is None:
            return False
        return self._seen.time_s + self._interval_s > self._last_full_s + period_s / self.recall.closeness + 1e-6

    def _cheapest(self, change: Change) -> Plan:
        scene = self.scene
        beside = scene.movers(change, scene.around_people(HELD_MARGIN))
        still = change.share_inside(self._people) <= HELD_SHARE and len(beside) == 0
        if still and (self._exact or len(self._people) == 0):
            somebody = len(self._people) or self.whereabouts.searches
            return Plan("held", (), "still" if somebody else "empty")
        plan = self._cheap_plan(scene)
        movers = beside
        if plan is not None and len(beside):
            movers = scene.movers(change, scene.explained(plan))
        if len(beside) and covered(self.whereabouts.places, beside).any():
            # A small look is no evidence where somebody vanished.
            plan = scene.full("motion")
        elif len(movers):
            plan = self._follow(scene, movers, plan)
        self._stirred = movers
        if plan is None:
            return scene.full("unconfirmed")
        if not plan.full and not self.budget.allows(plan.cost(self._seen.cost_ratio), self._seen.cost_ratio):
            return scene.full("overdrawn")
        return plan

    def _cheap_plan(self, scene: Scene) -> Plan | None:
        """Return the confirmed plan; where nobody is known, a look at the region that has attention anyway."""
        turned = [one for one in self.whereabouts.people if one.turn and one.hidden_by is None]
        if turned:
            if len(turned) < len(self._people):
                return None
            crops = tuple(search_crop(one, self._seen.frame_size, one.turn, AROUND) for one in turned)
            return scene.plan(("turned_640", crops), "turned")
        options = scene.options()
        if len(self._people) == 0:
            return next((scene.plan(option, "vigil") for option in options if scene.near(option)), None)
        kind = self._confirmation.kind
        return next((scene.plan(option, "confirmed") for option in options if option[0] == kind), None)

    def _follow(self, scene: Scene, movers: Boxes, plan: Plan | None) -> Plan:
        """Return how to look at motion outside of what the plan covers: a rescan at once; where the motion goes on and
        the rescan explained nothing, most of the time only a crop that has it too.
        """
        seen = self._seen
        reach = np.array([-1, -1, 1, 1]) * max(seen.frame_size) * NEAR_SHARE
        goes_on = bool((covered(movers, self._stirred + reach) >= 0.5).all())
        self._followed = (self._followed + 1) % FOLLOWED if goes_on else 0
        if self._followed == 0 or seen.cost_ratio <= 1 or (plan is None and len(self._people)):
            return scene.full("motion")
        crop = crop_around(union(np.concatenate([scene.zones, scene.focus()[0], movers])), seen.frame_size, 320)
        if scale(crop, seen.frame_size) < NEAR_SCALE:
            return plan or scene.full("motion")
        return scene.plan(("crop_320", (crop,)), "follow")

    def _looked(self, plan: Plan, found: Detections) -> Plan | None:
        """Take a cheap plan's boxes as the answer, or ask for a check when they surprise."""
        found = self._rumours.without(found, self._people)
        boxes = corners(found)
        known = len(same_people(self._people, boxes))
        if known < len(self._people) or self.whereabouts.unseen(found, self.scene.bounds):
            reason = "lost"
        elif known < len(boxes):
            reason = "appeared"
        elif cut(boxes, plan.crops, self._seen.frame_size).any():
            reason = "edge"
        else:
            as_good = self._confirmation.likeness >= EXACT_LIKENESS and plan.reason == "confirmed"
            self._keep(found, exact=as_good or plan.kind == "turned_640")
            return self._seek(plan, found)
        self._doubted = (plan, found)
        return replace(self.scene.full(reason), purpose="check")

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
            if (
                self._due.kind != "turned_640"
                and len(boxes)
                and self.budget.allows_trial(self._due.cost(self._seen.cost_ratio))
            ):
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
        assert self._seeking is not None
        options = self.scene.options() if len(self._people) and not self._seeking.turns else []
        if any(kind == self._confirmation.kind for kind, _ in options):
            return None
        self._confirmation.lapse()
        option = self._confirmation.next_trial(options, self._seen.time_s)
        if option is None:
            return None
        plan = replace(self.scene.plan(option, "trial"), purpose="trial")
        return plan if self.budget.allows_trial(plan.cost(self._seen.cost_ratio)) else None

    def _count(self, hits: int) -> None:
        self.recall.count(self._seen.time_s, hits, len(self._people), self._seen.settings.recall_floor)

    def _keep(self, found: Detections, *, exact: bool) -> None:
        seen = self._seen
        self.answer, self._people, self._exact = found, corners(found), exact
        self.suggested = suggest_region(found, seen.frame_size, seen.settings.expansion)
        if self.suggested is not None:
            self.history.add(seen.time_s, self.suggested, seen.settings.history_size)
