"""Attention on one stream: what the planner decides about a frame is run here, on views of its pixels. Runs in the
worker's main thread, which owns one `Attention` for each stream.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from orion.messages import (
    AttentionSettings,
    AttentionStats,
    Crop,
    Detections,
    DetectRequest,
    InferenceKind,
    Known,
    Pixels,
    Region,
    RoiProcessing,
    SessionSize,
    Value,
)
from workers.boxes import NONE, Boxes, confidences, corners, covered, crop_box, cut, overlaps, union
from workers.motion import Picture, Watch, picture_step, sample
from workers.people import admitted
from workers.pipeline import Timings
from workers.planner import Planner
from workers.plans import NEAR_SCALE, Plan, scale, whole
from workers.scene import Observation
from workers.suggest import suggest_region

Look = Callable[[Crop], tuple[Detections, Timings]]
"""Runs the session of a crop on it: boxes in frame pixels, and what it took."""

MERGING_IOU = 0.45
CUT_SHARE = 0.6
"""A box that its crop cuts is another crop's person when that much of it lies in that one's box."""


class Attended(Value, frozen=True):
    """What attention made of one frame."""

    detections: Detections
    inference: InferenceKind
    model_selected: SessionSize
    roi_processing: RoiProcessing | None
    suggested_roi: Region | None
    timings: Timings
    known: Known = Known()


@dataclass(slots=True)
class _Counters:
    plans: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    crops: int = 0
    models: Counter[int] = field(default_factory=Counter)
    trials: int = 0


class Attention:
    """Decides and looks, frame by frame, and remembers what was there."""

    def __init__(self) -> None:
        self._planner = Planner()
        self._watch: Watch | None = None
        self._shape: tuple[int, ...] = ()
        self._frame_size = (0, 0)
        self._last_s = 0.0
        self._model: SessionSize = 640
        self._suggested: Region | None = None
        self._counters = _Counters()
        self._settings = AttentionSettings()
        self._regions: tuple[Region, ...] = ()
        self._last: Detections = ()
        """The answer to the last frame, whatever its settings were."""

    def forget(self) -> None:
        """Forget the scene, not who was there and what was counted: the next frame is looked at as the first."""
        self._planner.forget()
        self._watch = None
        self._suggested = None

    def process(
        self,
        frame: Pixels,
        request: DetectRequest,
        look: Look,
        cost_ratio: float,
        *,
        confidence: float = 0.0,
        class_id: int = 0,
    ) -> Attended:
        """Return who is in `frame`; `look` is called for every crop. `cost_ratio` 1 allows no 320 session. People are
        of the class `class_id`; who appears has at least `confidence`, what `look` finds under it are people who stay.
        """
        height, width = frame.shape[:2]
        self._frame_size = (width, height)
        reason = _unplanned(request)
        if reason:
            return self._look_at_all(request, look, reason, confidence, class_id)
        if request.known is not None:
            self._planner.whereabouts.adopt(request.known)
        picture = sample(frame)
        if not request.continuous or request.regions != self._regions or picture.shape != self._shape:
            self.forget()
        passed_s = request.stream_time_s - self._last_s
        change = self._watch.compare(picture, passed_s) if self._watch is not None else None
        self._settings, self._regions, self._shape = request.settings, request.regions, picture.shape
        self._last_s = request.stream_time_s
        observation = Observation(
            time_s=request.stream_time_s,
            frame_size=self._frame_size,
            change=change,
            settings=request.settings,
            regions=request.regions,
            cost_ratio=cost_ratio,
            confidence=confidence,
            class_id=class_id,
            continuous=request.continuous,
        )
        plan, ran, timings = self._look_by_plan(picture, observation, look)
        return self._attended(plan, ran, self._last, self._planner.suggested, timings)

    def _look_by_plan(self, picture: Picture, seen: Observation, look: Look) -> tuple[Plan, tuple[Crop, ...], Timings]:
        """Answer a frame as the planner decides; return the plan that gave the answer, all crops, and what it took."""
        plan = self._planner.decide(seen)
        zones = self._planner.scene.zones
        plan, ran, timings = self._run(plan, look)
        self._last = self._planner.answer
        self._note(picture, plan, zones)
        self._count(plan, ran)
        return plan, ran, timings

    def _look_at_all(
        self, request: DetectRequest, look: Look, reason: str, confidence: float, class_id: int
    ) -> Attended:
        """Answer a frame that goes whole through the 640 session whatever is in it: what changed in it is not asked,
        and nobody is looked for. Of who was there before only the frame before tells.
        """
        if self._watch is not None:
            self.forget()
        self._planner.whereabouts.forget()
        self._settings, self._last_s = request.settings, request.stream_time_s
        crop = whole(self._frame_size, 640)
        plan = Plan("whole_640", (crop,), reason)
        found, timings = look(crop)
        if any(one.confidence < confidence for one in found):
            before = corners(tuple(one for one in self._last if one.class_id == class_id))
            found = admitted(found, before if request.continuous else NONE, confidence, class_id)
        self._last = found
        self._count(plan, plan.crops)
        suggested = suggest_region(found, self._frame_size, request.settings.expansion)
        return self._attended(plan, plan.crops, found, suggested, timings)

    def _run(self, plan: Plan, look: Look) -> tuple[Plan, tuple[Crop, ...], Timings]:
        """Run `plan` and what the planner asks for after it; return the one that gave the answer, and all crops."""
        answering, ran, timings = plan, plan.crops, Timings()
        following: Plan | None = plan
        while following is not None:
            if following.purpose == "trial":
                self._counters.trials += 1
            elif following.purpose == "check":
                answering, ran = following, ran + following.crops
            elif following.purpose == "search":
                ran += following.crops
            parts = []
            for crop in following.crops:
                found, took = look(crop)
                parts.append(found)
                timings += took
            found = merge(parts, following.crops, self._frame_size) if parts else self._planner.answer
            following = self._planner.learn(following, found)
        return answering, ran, timings

    def _note(self, picture: Picture, plan: Plan, zones: Boxes) -> None:
        """Remember how what was looked at looks now."""
        if self._watch is None:
            self._watch = Watch(picture, picture_step(*self._frame_size))
        if plan.full:
            # With rescans off that is the regions alone, and what moves elsewhere is no business of theirs; but the
            # light there is the light to compare with from now on.
            self._watch.look(picture, None, self._planner.people)
        elif plan.kind != "held":
            # A small look at motion that finds nobody has not seen that nobody is there.
            trusted = () if plan.reason in {"vigil", "follow"} else plan.crops
            near = [crop_box(crop)[0] for crop in trusted if scale(crop, self._frame_size) >= NEAR_SCALE]
            looked_at = np.array([*zones, *near]).reshape(-1, 4)
            self._watch.look(picture, looked_at, self._planner.people, self._planner.whereabouts.places)

    def _count(self, plan: Plan, ran: tuple[Crop, ...]) -> None:
        counters = self._counters
        counters.plans[plan.kind] += 1
        counters.reasons[plan.reason] += 1
        for crop in ran:
            counters.models[crop.model] += 1
            counters.crops += not _is_whole(crop, self._frame_size)

    def _attended(
        self, plan: Plan, ran: tuple[Crop, ...], found: Detections, suggested: Region | None, timings: Timings
    ) -> Attended:
        self._model = max((crop.model for crop in ran), default=self._model)
        self._suggested = suggested
        inference: InferenceKind = "roi" if ran else "held"
        if any(_is_whole(crop, self._frame_size) for crop in ran):
            inference = "full"
        if plan.reason in _UNPLANNED:
            roi_processing = None if plan.reason == "off" else self._roi_processing(plan, ran)
            return Attended(found, inference, self._model, roi_processing, suggested, timings)
        known = self._planner.whereabouts.known
        return Attended(found, inference, self._model, self._roi_processing(plan, ran), suggested, timings, known)

    def _roi_processing(self, plan: Plan, ran: tuple[Crop, ...]) -> RoiProcessing:
        around = None
        if ran:
            x1, y1, x2, y2 = (int(edge) for edge in union(np.concatenate([crop_box(crop) for crop in ran])))
            around = (x1, y1, x2 - x1, y2 - y1)
        return RoiProcessing(
            target_size=self._model,
            crop_applied=bool(ran) and not any(_is_whole(crop, self._frame_size) for crop in ran),
            source=plan.source,
            strategy=self._settings.strategy,
            attention_rois=plan.rois,
            merged_roi=plan.merged,
            crops=ran,
            crop=around,
            reason="vanished" if ran and plan.kind == "held" else plan.reason,
        )

    @property
    def stats(self) -> AttentionStats:
        """What was done so far, and what it found out about itself."""
        planner, counters = self._planner, self._counters
        recall, whereabouts = planner.recall, planner.whereabouts
        return AttentionStats(
            plans=tuple(sorted(counters.plans.items())),
            reasons=tuple(sorted(counters.reasons.items())),
            rois_processed=counters.crops,
            model_320_selected=counters.models[320],
            model_640_selected=counters.models[640],
            active_rois=len(self._regions),
            trials=counters.trials,
            trial_share=planner.budget.spent_on_trials / planner.budget.spent if planner.budget.spent else 0.0,
            recall_hits=recall.hits,
            recall_total=recall.total,
            recall_last_hour=recall.last_hour(self._last_s),
            rescan_s=None if self._settings.rescan_s is None else self._settings.rescan_s / recall.closeness,
            history=planner.history.regions,
            suggested_roi=self._suggested,
            searches=whereabouts.looks,
            search_share=whereabouts.budget.spent / planner.budget.earned if planner.budget.earned else 0.0,
            vanished=whereabouts.vanished,
            found_again=whereabouts.found_again,
            exits=whereabouts.exits.places,
        )


def merge(parts: Sequence[Detections], crops: tuple[Crop, ...], frame_size: tuple[int, int]) -> Detections:
    """Return the detections of several crops as those of one frame, best first: of boxes of one class that overlap by
    more than `MERGING_IOU` the better stays, and a box that its crop cuts goes where another crop has it whole.
    """
    if len(parts) == 1:
        return parts[0]
    everything = tuple(chain.from_iterable(parts))
    boxes = corners(everything)
    pieces = np.concatenate([cut(corners(part), (crop,), frame_size) for part, crop in zip(parts, crops, strict=True)])
    rest = boxes[~pieces]
    kept = np.flatnonzero(~pieces | (covered(boxes, rest) < CUT_SHARE))
    order: list[int] = []
    for best in kept[np.argsort(-confidences(everything)[kept], kind="stable")]:
        rivals = [other for other in order if everything[other].class_id == everything[best].class_id]
        if overlaps(boxes[[best]], boxes[rivals]).max(initial=0.0) <= MERGING_IOU:
            order.append(int(best))
    return tuple(everything[one] for one in order)


_UNPLANNED = frozenset({"off", "no_regions"})
"""Why a frame may be looked at as a whole without more ado."""


def _unplanned(request: DetectRequest) -> str:
    """Return why a frame is looked at as a whole without more ado; empty where that is to be decided."""
    settings = request.settings
    if settings.mode == "off":
        return "off"
    return "no_regions" if settings.mode == "external" and not request.regions else ""


def _is_whole(crop: Crop, frame_size: tuple[int, int]) -> bool:
    return (crop.width, crop.height) == frame_size
