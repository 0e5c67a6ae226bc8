"""What can be done with a frame, what that costs, and which of it may be tried: pure. Costs are inferences of the 320
session; one of the 640 session costs the ratio that the planner is given.
"""

import math
from typing import Literal

import numpy as np

from orion.messages import AttentionSource, Crop, Region, SessionSize, Value
from workers.boxes import Boxes, areas, crop_box, union

PlanKind = Literal["held", "crop_320", "crops_320", "whole_320", "turned_640", "crop_640", "whole_640"]
NEAR_SCALE = 0.75
"""Scale, relative to a whole frame at 640, from which a crop shows who else is in it."""
WORTHWHILE_SCALE = 0.6
"""Scale below which a crop is no better than the whole frame through the same session, which has 0.5."""

Purpose = Literal["answer", "check", "search", "trial"]
"""Why a plan is run: for the frame's answer; to correct the answer that a cheap plan gave on the same picture; to find
somebody whom the answer lacks; or only to learn whether it would have done."""

SMALL_AREA = 102_400
"""Square pixels of a crop below which the 320 session is proposed first (320 x 320: nothing is lost by it)."""


class Plan(Value, frozen=True):
    """What to do with one frame: the crops to run (none when the last answer is held), and why.

    `source` and `rois` say where attention came from, `merged` is the region (normalized) that the crops were made for.
    """

    kind: PlanKind
    crops: tuple[Crop, ...]
    reason: str
    source: AttentionSource = ""
    rois: tuple[Region, ...] = ()
    merged: Region | None = None
    purpose: Purpose = "answer"

    @property
    def full(self) -> bool:
        """Whether its answer is the measure of others: everything that is attended to, through the 640 session."""
        return self.kind in {"whole_640", "crop_640"}

    def cost(self, ratio: float) -> float:
        """Return its cost in inferences of the 320 session, of which one of the 640 session costs `ratio`."""
        return cost(self.crops, ratio)


def cost(crops: tuple[Crop, ...], ratio: float) -> float:
    """Return the cost of running `crops` in inferences of the 320 session."""
    return sum(ratio if crop.model == 640 else 1.0 for crop in crops)


def whole(frame_size: tuple[int, int], model: SessionSize) -> Crop:
    """Return the crop that is the whole frame."""
    return Crop(0, 0, *frame_size, model)


def full_scale_side(frame_size: tuple[int, int]) -> int:
    """Return the longest side of a crop that the 320 session sees as large as the 640 session sees the whole frame."""
    return max(1, max(frame_size) // 2)


def scale(crop: Crop, frame_size: tuple[int, int]) -> float:
    """Return how large things in `crop` are seen, relative to a whole frame at 640."""
    return crop.model * max(frame_size) / (640 * max(crop.width, crop.height))


def crop_around(box: Boxes, frame_size: tuple[int, int], model: SessionSize) -> Crop:
    """Return the crop for `box` (4,): grown on both sides alike to `full_scale_side` where it is smaller, and moved
    inside the frame where it sticks out.
    """
    side = full_scale_side(frame_size)
    edges = []
    limits = np.array([*frame_size, *frame_size])
    inside = np.clip(box, 0, limits)
    for low, high, length in zip(inside[:2], inside[2:], frame_size, strict=True):
        size = min(length, max(side, math.ceil(high) - math.floor(low)))
        start = min(max(0, math.floor((float(low) + float(high) - size) / 2)), length - size)
        edges.append((start, size))
    (x, width), (y, height) = edges
    return Crop(x, y, width, height, model)


Option = tuple[PlanKind, tuple[Crop, ...]]


def proposals(
    zones: Boxes, around: Boxes, people: Boxes, frame_size: tuple[int, int], ratio: float, min_person_px: int
) -> list[Option]:
    """Return the plans that are cheaper than a whole frame at 640, in the order in which to try them.

    `zones` (N, 4), N > 0, are what must be seen, `around` (4,) is what a single crop is made for (all of them and what
    the strategy adds), `people` (M, 4) who is known there. A crop that loses little scale
    comes first, then the whole frame, then other crops; those that would show somebody less than `min_person_px` tall
    come last.
    """
    one = (crop_around(around, frame_size, 320),)
    options: list[Option] = [("whole_320", (whole(frame_size, 320),))]
    if scale(one[0], frame_size) >= WORTHWHILE_SCALE:
        options.append(("crop_320", one))
        if scale(one[0], frame_size) >= NEAR_SCALE or areas(crop_box(one[0]))[0] < SMALL_AREA:
            options.reverse()
    several = clusters(zones, frame_size)
    if 1 < len(several) < ratio:
        options.append(("crops_320", several))
    affordable = [option for option in options if cost(option[1], ratio) < ratio]
    shortest = min((float(box[3] - box[1]) for box in people), default=math.inf)
    return sorted(affordable, key=lambda option: shortest * _input_pixels(option[1]) < min_person_px)


def clusters(zones: Boxes, frame_size: tuple[int, int]) -> tuple[Crop, ...]:
    """Return crops at full scale that cover all zones, as few as joining neighbours greedily gives; crops of zones too
    large for that are as large as they must be.
    """
    side = full_scale_side(frame_size)
    groups: list[Boxes] = []
    for zone in sorted(zones, key=lambda box: (float(box[0]), float(box[1]))):
        for place, group in enumerate(groups):
            joined = union(np.stack([group, zone]))
            if (joined[2:] - joined[:2]).max() <= side:
                groups[place] = joined
                break
        else:
            groups.append(zone)
    return tuple(crop_around(group, frame_size, 320) for group in groups)


def _input_pixels(crops: tuple[Crop, ...]) -> float:
    """Return how many pixels of a session's input one pixel of the frame gets in the coarsest of `crops`."""
    return min(crop.model / max(crop.width, crop.height) for crop in crops)
