"""Which made falls the tests play through a detector, and what they ask of the answers."""

from pathlib import Path

from benchmarks.cutouts import load_room
from benchmarks.fall_judge import SOON_S, Verdict, answer, judge, play
from benchmarks.fall_variants import HANDFUL, Variant, variant
from benchmarks.made_falls import frames
from orion.messages import AttentionSettings
from workers.person import PersonDetector

SETTINGS = AttentionSettings(cost_ratio=4.0)
"""A 640 inference over a 320 one with YOLO11n, given to the planner so that every machine decides alike."""


def handful() -> list[Variant]:
    """Return a short variant of every kind and direction."""
    return [variant(seed) for seed in HANDFUL]


def length(made: Variant) -> float:
    """Return about how many frames a variant has while somebody stands, falls and lies in it."""
    return made.fps * (made.stand_s + made.fall_s + made.lying_s)


def verdict(detector: PersonDetector, testdata: Path, made: Variant, settings: AttentionSettings = SETTINGS) -> Verdict:
    """Play a made fall through `detector`, with attention as `settings` say, and return what came of it."""
    stream_id = f"made fall {made.seed}"
    shots = frames(load_room(testdata), made)
    answers = [answer(shot, outcome) for shot, outcome in play(detector, shots, stream_id, settings)]
    detector.forget(stream_id)
    return judge(answers, settings.vanish_s or 0.0)


def assert_nobody_is_lost(made: Variant, found: Verdict) -> None:
    """Fail where results said, for longer than they may, neither who lies nor that somebody vanished."""
    assert found.nobody_s <= SOON_S, f"{made}: said nobody for {found.nobody_s} s while somebody lay"
    assert found.neither == 0, f"{made}: {found.neither} results with neither them nor somebody vanished"
    assert found.left_vanished == 0, f"{made}: {found.left_vanished} results missed somebody who had left"
