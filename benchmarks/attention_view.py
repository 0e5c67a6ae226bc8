"""How a run of the attention benchmark looks: a figure that shows boxes, crops and plan over time, and videos with both
answers side by side. Runs in the benchmark's main thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from orion.messages import Outcome, Pixels

PLANS = ("held", "crop 320", "crops 320", "whole 320", "crop 640", "check 640", "whole 640", "search 640")
_HUES = ("#bbbbbb", "#4daf4a", "#a6d854", "#377eb8", "#ffb347", "#ff7f00", "#e41a1c", "#984ea3")
COLOURS = dict(zip(PLANS, _HUES, strict=True))
"""The plans, from what costs nothing to what costs most, and how each is painted."""

_GREEN, _ORANGE = (80, 200, 60), (30, 150, 255)
_FILM_FPS = 10.0


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a figure shows of one video, one entry a frame."""

    video: str
    frame_size: tuple[int, int]
    outcomes: Sequence[Outcome]
    plans: Sequence[str]


def draw_timelines(timelines: Sequence[Timeline], path: Path) -> None:
    """Draw all videos one above the other into `path` (png, svg, pdf): over the frames, where across the picture the
    crops (areas, in the plan's colour) and the boxes (lines) are, and below that the plan.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, needed by who wants plots
    from matplotlib.patches import Patch  # noqa: PLC0415

    figure = Figure(figsize=(16, 1 + 3 * len(timelines)), layout="constrained")
    axes = figure.subplots(len(timelines), 1, squeeze=False)[:, 0]
    for timeline, area in zip(timelines, axes, strict=True):
        _draw(area, timeline)
    figure.legend(
        handles=[Patch(color=COLOURS[plan], label=plan) for plan in PLANS], loc="outside upper center", ncols=len(PLANS)
    )
    figure.savefig(path)


def _draw(area: Any, timeline: Timeline) -> None:
    width = timeline.frame_size[0]
    strip = -0.08 * width
    for number, (outcome, plan) in enumerate(zip(timeline.outcomes, timeline.plans, strict=True)):
        colour = COLOURS[plan]
        area.add_patch(_rectangle(number, 2 * strip, -strip, colour, 1.0))
        for crop in outcome.roi_processing.crops if outcome.roi_processing else ():
            area.add_patch(_rectangle(number, crop.x, crop.width, colour, 0.25))
    places = [(number, box) for number, outcome in enumerate(timeline.outcomes) for box in outcome.detections]
    across = [number + 0.5 for number, _ in places]
    area.vlines(across, [box.x for _, box in places], [box.x + box.width for _, box in places], "black", linewidth=0.6)
    area.set(xlim=(0, len(timeline.plans)), ylim=(2.2 * strip, width), xlabel="frame", ylabel="across the picture")
    area.set_title(timeline.video)


def _rectangle(number: int, low: float, height: float, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - imported before by who calls

    return Rectangle((number, low), 1, height, color=colour, alpha=alpha, linewidth=0)


class SideBySide:
    """A video of one source twice: left what the 640 answers on whole frames, right what attention does."""

    def __init__(self, folder: Path, source: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{source.stem}-attention.mp4"
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def add(self, frame: Pixels, always: Outcome, attention: Outcome) -> None:
        """Add one frame with both answers."""
        left, right = _paint(frame, always, ""), _paint(frame, attention, _caption(attention))
        both = np.hstack([left, right])
        if self._writer is None:
            size = both.shape[1], both.shape[0]
            self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), _FILM_FPS, size)
        self._writer.write(both)


def _caption(outcome: Outcome) -> str:
    reason = outcome.roi_processing.reason if outcome.roi_processing else ""
    return f"{outcome.inference} {outcome.model_selected} {reason}"


def _paint(frame: Pixels, outcome: Outcome, caption: str) -> Pixels:
    picture = frame.copy()
    for crop in outcome.roi_processing.crops if outcome.roi_processing else ():
        cv2.rectangle(picture, (crop.x, crop.y), (crop.x + crop.width - 1, crop.y + crop.height - 1), _ORANGE, 2)
    for box in outcome.detections:
        cv2.rectangle(picture, (box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1), _GREEN, 2)
    cv2.putText(picture, caption, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, _ORANGE, 2)
    return picture
