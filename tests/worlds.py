"""A small world for testing attention without a model: people are plain rectangles that can be seen, and a `look` that
answers from where they are, as far as the crop's scale lets a person be found.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orion.messages import AttentionSettings, Crop, Detection, Detections, DetectRequest, Known, Pixels, Region, Turn
from workers.attention import Attended, Attention
from workers.pipeline import Timings

WIDTH, HEIGHT = 960, 540
WALL = 100


@dataclass
class Person:
    """A rectangle, x, y, width, height in pixels. `grey` is how bright it is; `least_px` how tall it must be in a
    session's input to be found, `turn` how a look must be turned for that, None if no look finds them.
    """

    x: float
    y: float
    width: float = 60
    height: float = 160
    grey: int = 220
    least_px: float = 20
    confidence: float = 0.8
    turn: Turn | None = 0

    @property
    def box(self) -> NDArray[np.float64]:
        """Corners, clipped to the frame."""
        corners = [self.x, self.y, self.x + self.width, self.y + self.height]
        return np.clip(corners, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])


@dataclass
class World:
    """Who is there, the light, and what was looked at."""

    people: list[Person] = field(default_factory=list)
    light: float = 1.0
    looks: list[Crop] = field(default_factory=list)
    texture: int = 0
    scene: int = 0
    """Which furniture stands about; none is 0."""

    def draw(self) -> Pixels:
        """Return the picture of this moment."""
        frame = np.full((HEIGHT, WIDTH, 3), WALL + self.texture, np.float32)
        random = np.random.default_rng(self.scene)
        for left, top in random.integers(0, [WIDTH - 60, HEIGHT - 60], (60, 2)) if self.scene else ():
            frame[top : top + 110, left : left + 90] = random.integers(40, 160)
        for person in self.people:
            x1, y1, x2, y2 = (round(edge) for edge in person.box)
            frame[y1:y2, x1:x2] = person.grey
        return np.asarray(np.clip(frame * self.light, 0, 255), np.uint8)

    def look(self, crop: Crop) -> tuple[Detections, Timings]:
        """Return the parts inside `crop` of everybody who is tall enough there and of whom it has a third."""
        self.looks.append(crop)
        parts = [(one.confidence, box) for one in self.people if (box := _part(one, crop)) is not None]
        found = [
            Detection(int(x1), int(y1), int(x2) - int(x1), int(y2) - int(y1), confidence, 0)
            for confidence, (x1, y1, x2, y2) in parts
        ]
        return tuple(sorted(found, key=lambda one: -one.confidence)), Timings()


def _part(person: Person, crop: Crop) -> NDArray[np.float64] | None:
    box = person.box
    edges = [crop.x, crop.y, crop.x + crop.width, crop.y + crop.height]
    part = np.concatenate([np.maximum(box[:2], edges[:2]), np.minimum(box[2:], edges[2:])])
    inside = np.clip(part[2:] - part[:2], 0, None).prod()
    tall = person.height * crop.model / max(crop.width, crop.height)
    enough = inside > 0 and inside * 3 >= person.width * person.height
    return np.rint(part) if enough and tall >= person.least_px and crop.turn == person.turn else None


@dataclass
class Stream:
    """A stream of the world through attention, ten frames a second unless told otherwise."""

    world: World
    settings: AttentionSettings = field(default_factory=AttentionSettings)
    regions: tuple[Region, ...] = ()
    ratio: float = 4.0
    step_s: float = 0.1
    attention: Attention = field(default_factory=Attention)
    frames: int = 0
    confidence: float = 0.5

    @property
    def time_s(self) -> float:
        """When the next frame comes."""
        return self.frames * self.step_s

    def frame(self, *, continuous: bool = True, known: Known | None = None) -> Attended:
        """Process the world as it is now."""
        request = DetectRequest("cam0", self.time_s, continuous, self.settings, self.regions, known)
        self.frames += 1
        return self.attention.process(
            self.world.draw(), request, self.world.look, self.ratio, confidence=self.confidence
        )

    def run(self, count: int, walker: Person | None = None, dx: float = 6.0) -> list[Attended]:
        """Process `count` frames; `walker` walks by `dx` pixels before each."""
        answers = []
        for _ in range(count):
            if walker is not None:
                walker.x += dx
            answers.append(self.frame())
        return answers

    def cost(self) -> float:
        """Return what was spent, in inferences of the 320 session."""
        return sum(self.ratio if crop.model == 640 else 1.0 for crop in self.world.looks)


def reasons(answers: list[Attended]) -> list[str]:
    """Return the reason of each answer; `off` for none."""
    return ["off" if answer.roi_processing is None else answer.roi_processing.reason for answer in answers]
