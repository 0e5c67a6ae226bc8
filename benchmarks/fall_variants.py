"""Which falls are made: each a frozen value that a seed decides, and nothing else. Pure; runs in the main thread of a
benchmark or a test.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Phase = Literal["up", "falling", "lying", "rising", "gone"]
Direction = Literal["left", "right"]
Cover = Literal["none", "furniture", "sheet"]
Part = Literal["head", "legs", "side"]
Edge = Literal["none", "side", "bottom"]
After = Literal["stays", "rises", "leaves"]
Movement = Literal["still", "small"]
Light = Literal["steady", "drift", "step"]

COUNT = 200
HANDFUL = (154, 149, 42, 155, 121, 196, 163, 198)
"""Seeds of the falls to take where all would take too long: of every kind and direction the shortest that has fewer
than 15 frames a second.
"""
_MINUTES_EVERY, _MINUTES_AT = 23, 7
"""Every such variant lies for more than two minutes."""
_KINDS: tuple[tuple[Cover, bool], ...] = (
    ("none", False),
    ("furniture", False),
    ("none", False),
    ("sheet", False),
    ("none", True),
)
"""Cover, and whether at the frame's edge, in turns."""
_RATES = (5.0, 8.0, 10.0, 15.0, 25.0, 30.0)
_RATE_SHARES = (0.3, 0.15, 0.25, 0.15, 0.09, 0.06)


@dataclass(frozen=True, slots=True)
class Variant:
    """One made fall. Lengths are pixels of the room's frame, times seconds."""

    seed: int
    fps: float
    person: int
    """Which of the room's cut-outs, by its place modulo their number."""
    mirrored: bool
    scale: float
    """Size against that in the video."""
    foot: tuple[float, float]
    """Where the feet are to stand, moved no further than needed for the fall to be in view, or at the edge."""
    direction: Direction
    entry: Literal["left", "right", "in view"]
    speed: float
    """Pixels a second while they walk."""
    stand_s: float
    fall_s: float
    lying_s: float
    after: After
    cover: Cover
    part: Part
    """What is covered: the head's end, the legs' end or, by furniture, the side that is nearer to the camera."""
    covered: float
    """Share of the body, along its length or across, that the cover hides."""
    edge: Edge
    inside: float
    """Share of the body's length, or breadth, that is inside the frame at an edge."""
    movement: Movement
    noise: float
    """Standard deviation of what is added to every pixel."""
    light: Light

    @property
    def kind(self) -> str:
        """Return what distinguishes it for who looks: `free`, `furniture`, `sheet` or `edge`."""
        if self.edge != "none":
            return "edge"
        return "free" if self.cover == "none" else self.cover


def variants(count: int = COUNT, first: int = 0) -> list[Variant]:
    """Return the made falls of `count` seeds from `first` on."""
    return [variant(seed) for seed in range(first, first + count)]


def variant(seed: int) -> Variant:
    """Return the made fall of one seed."""
    random = np.random.default_rng([20, seed])
    cover, at_edge = _KINDS[seed % len(_KINDS)]
    minutes = seed % _MINUTES_EVERY == _MINUTES_AT
    fps = 5.0 if minutes else float(random.choice(_RATES, p=_RATE_SHARES))
    longest = 20.0 if fps < 25 else 12.0
    parts = get_args(Part) if cover == "furniture" else ("legs", "legs", "head")
    return Variant(
        seed=seed,
        fps=fps,
        person=int(random.integers(0, 2**16)),
        mirrored=bool(random.random() < 0.5),
        scale=float(random.uniform(0.55, 0.9)),
        foot=(float(random.uniform(170, 620)), float(random.uniform(325, 392))),
        direction="right" if seed // len(_KINDS) % 2 else "left",
        entry=("left", "right", "in view")[int(random.integers(0, 3))],
        speed=float(random.uniform(110, 220)),
        stand_s=float(random.uniform(3, 5)),
        fall_s=float(random.uniform(0.3, 1.5)),
        lying_s=float(random.uniform(132, 150) if minutes else random.uniform(8, longest)),
        after=("stays", "stays", "rises", "leaves")[int(random.integers(0, 4))],
        cover=cover,
        part=parts[int(random.integers(0, 3))],
        covered=float(random.uniform(0.35, 0.6)),
        edge=("side", "side", "bottom")[int(random.integers(0, 3))] if at_edge else "none",
        inside=float(random.uniform(0.4, 0.75)),
        movement=("still", "small")[int(random.integers(0, 2))],
        noise=float(random.choice((0.0, 2.0, 4.0, 7.0))),
        light=("steady", "steady", "drift", "step")[int(random.integers(0, 4))],
    )
