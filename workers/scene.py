"""One frame as the planner sees it: who is known in it, where they may be by now, where else there is motion, and which
plans that allows. Pure, values in, values out; made anew in the worker's main thread whenever who is known changes.
"""

from dataclasses import dataclass

import numpy as np

from orion.messages import AttentionSettings, AttentionSource, Region
from workers.boxes import NONE, Boxes, box_region, common, crop_box, region_boxes, union
from workers.motion import Change
from workers.plans import NEAR_SCALE, Option, Plan, crop_around, proposals, scale, whole

HELD_MARGIN = 0.06
"""How far beyond the box, in body heights, what changes while a person is held may be a part of the person."""
ZONE_MARGIN = 0.18
"""How far a person's own motion reaches beyond the box, in body heights, between frames that are close in time."""
ZONE_SPEED, MOST_MARGIN = 0.8, 0.5
"""What is added for each second between frames (walking is about 0.8 body heights a second), and the limit."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """All that a decision is made from: `frame_size` is (width, height) in pixels, `change` is None when nothing may be
    compared with what was seen earlier, `cost_ratio` is 1 when there is no 320 session. Boxes from `confidence` on are
    people who appear, fainter ones only people who stay; those are of the class `class_id`.
    """

    time_s: float
    frame_size: tuple[int, int]
    change: Change | None
    settings: AttentionSettings
    regions: tuple[Region, ...]
    cost_ratio: float
    confidence: float = 0.0
    class_id: int = 0
    continuous: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What is seen, who is known in it, (N, 4) in frame pixels, and what has attention beside: `suggested` is what the
    strategy makes of the frames before, None without any. `interval_s` passed since the last frame.
    """

    seen: Observation
    people: Boxes
    interval_s: float
    suggested: Region | None

    @property
    def zones(self) -> Boxes:
        """Where the known people may be by now, (N, 4) in frame pixels."""
        return self.around_people(ZONE_MARGIN + ZONE_SPEED * self.interval_s)

    def around_people(self, margin: float) -> Boxes:
        """Return the people's boxes, widened by `margin` of their heights in all directions."""
        reach = (self.people[:, 3] - self.people[:, 1]) * min(MOST_MARGIN, margin)
        return self.people + np.stack([-reach, -reach, reach, reach], axis=1)

    def explained(self, plan: Plan) -> Boxes:
        """Return where motion calls for nothing more than `plan`: all of a crop that shows who else is in it; of what
        is seen smaller only the people themselves, for a small newcomer may be at a big one's side.
        """
        near = [crop_box(crop)[0] for crop in plan.crops if scale(crop, self.seen.frame_size) >= NEAR_SCALE]
        return np.array([*self.around_people(HELD_MARGIN + ZONE_SPEED * self.interval_s / 2), *near])

    def movers(self, change: Change, zones: Boxes) -> Boxes:
        """Return what moves outside `zones` and is attended to, (N, 4) in frame pixels."""
        movers = change.movers(zones)
        if not self.confined:
            return movers
        return movers[common(movers, region_boxes(self.seen.regions, self.seen.frame_size)).any(axis=1)]

    @property
    def confined(self) -> bool:
        """Whether nothing but the external regions is ever looked at."""
        return bool(self.seen.regions) and self.seen.settings.rescan_s is None

    def full(self, reason: str) -> Plan:
        """Return the look that others are measured by: the whole frame, or with rescans switched off the external
        regions and who is known there.
        """
        seen = self.seen
        if not self.confined:
            return Plan("whole_640", (whole(seen.frame_size, 640),), reason)
        box = union(np.concatenate([region_boxes(seen.regions, seen.frame_size), self.zones]))
        return self.plan(("crop_640", (crop_around(box, seen.frame_size, 640),)), reason)

    @property
    def bounds(self) -> Boxes:
        """What a full look sees, (4,) in frame pixels; who leaves it has left."""
        bounds: Boxes = crop_box(self.full("bounds").crops[0])[0]
        return bounds

    def focus(self) -> tuple[Boxes, AttentionSource]:
        """Return the boxes that have attention beside the people's own zones, and where they came from."""
        seen = self.seen
        if seen.regions:
            return region_boxes(seen.regions, seen.frame_size), "external"
        if self.suggested is None:
            return NONE, ""
        source: AttentionSource = "python_suggested" if len(self.people) else "auto_history"
        return region_boxes((self.suggested,), seen.frame_size), source

    def options(self) -> list[Option]:
        """Return what is cheaper than a full look, in the order in which to try it."""
        seen = self.seen
        focus, source = self.focus()
        everything = np.concatenate([self.zones, focus])
        if len(everything) == 0:
            return []
        zones = self.zones if source == "python_suggested" else everything
        around = union(everything)
        return proposals(zones, around, self.people, seen.frame_size, seen.cost_ratio, seen.settings.min_person_px)

    def near(self, option: Option) -> bool:
        """Return whether an option shows who else is in its crops."""
        return all(scale(crop, self.seen.frame_size) >= NEAR_SCALE for crop in option[1])

    def plan(self, option: Option, reason: str) -> Plan:
        """Return the plan that carries out an option."""
        kind, crops = option
        size = self.seen.frame_size
        boxes, source = self.focus()
        everything = np.concatenate([boxes, self.zones])
        merged = box_region(union(everything), size) if len(everything) else None
        rois = tuple(box_region(box, size) for box in boxes)
        return Plan(kind, crops, reason, source, rois, merged)
