"""What the attention benchmark computes from answers and references."""

import json

import numpy as np
from numpy.typing import NDArray

from benchmarks.attention import bars, motion_check
from benchmarks.attention_rows import Run, by_height, newcomer_delays, plan_of, summary
from benchmarks.report import Report
from orion.messages import Crop, InferenceKind, Known, Outcome, RoiProcessing, Search, VanishedPerson
from workers.boxes import NONE, Boxes


def people(*lefts: float, confidence: float = 0.9) -> NDArray[np.float64]:
    return np.array([[left, 100, 50, 150, confidence] for left in lefts], np.float64).reshape(-1, 5)


def boxes(*lefts: float) -> Boxes:
    return np.array([[left, 100, left + 50, 250] for left in lefts], np.float64).reshape(-1, 4)


def test_newcomers_are_followed_until_an_answer_has_them() -> None:
    reference = [people(0), people(0, 300), people(0, 310), people(0, 320), people(0, 330)]
    prompt = [boxes(0), boxes(0, 300), boxes(0, 310), boxes(0, 320), boxes(0, 330)]
    late = [boxes(0), boxes(0), boxes(0), boxes(0, 320), boxes(0, 330)]
    assert newcomer_delays(prompt, reference) == [0]
    assert newcomer_delays(late, reference) == [2]
    assert newcomer_delays([boxes(0)] * 5, reference) == [4]


def test_who_was_faintly_there_before_is_no_newcomer() -> None:
    reference = [np.concatenate([people(0), people(300, confidence=0.3)]), people(0, 300)]
    assert newcomer_delays([boxes(0), boxes(0)], reference) == []


def outcome(kind: InferenceKind, *crops: Crop, reason: str = "", known: Known | None = None) -> Outcome:
    processing = RoiProcessing(640, False, "", "simple", (), None, crops, None, reason)
    return Outcome((), kind, 640, processing, None, 0, 0, 0, 0, known or Known())


def missing(since_s: float) -> Known:
    return Known(searches=(Search(VanishedPerson(0, 100, 50, 150, since_s), 0, 0.0),))


def test_the_plan_of_a_frame_is_told_from_its_crops() -> None:
    size = (640, 480)
    whole, small, part = Crop(0, 0, 640, 480, 640), Crop(0, 0, 640, 480, 320), Crop(0, 0, 320, 320, 320)
    assert plan_of(outcome("held"), size) == "held"
    assert plan_of(outcome("full", whole), size) == "whole 640"
    assert plan_of(outcome("full", small), size) == "whole 320"
    assert plan_of(outcome("roi", part), size) == "crop 320"
    assert plan_of(outcome("roi", part, part), size) == "crops 320"
    assert plan_of(outcome("full", part, whole), size) == "check 640"
    assert plan_of(outcome("full", small, whole), size) == "check 640"
    around, turned = Crop(0, 0, 320, 320, 640), Crop(0, 0, 320, 320, 640, 90)
    assert plan_of(outcome("roi", turned), size) == "crop 640"
    assert plan_of(outcome("full", whole, around, turned), size) == "search 640"
    assert plan_of(outcome("full", part, whole, around), size) == "search 640"
    assert plan_of(outcome("roi", around, turned, reason="vanished"), size) == "search 640"


def test_recall_is_counted_by_plan_and_height() -> None:
    run = Run("clip", (640, 480))
    run.plans = ["held", "crop 320"]
    run.answers = [boxes(0), NONE]
    run.reference = [people(8), people(0)]
    rows = {row["what"]: (row["people"], row["recall"]) for row in by_height([run])}
    assert rows == {"crop 320, 30% to 50% tall": (1, 0.0), "held, 30% to 50% tall": (1, 0.0)}


def test_the_motion_check_is_measured_and_held_to_its_limit() -> None:
    row = motion_check(rounds=3)
    assert 0 < row["p50_ms"] <= row["p95_ms"]
    report = json.loads(Report("attention", {}, [row], bars([row]), {}).as_json())
    assert [bar["limit"] for bar in report["bars"]] == [0.3]


def test_everybody_who_vanished_is_counted_once_and_held_to_the_limit() -> None:
    run = Run("one_by_one_person", (640, 480))
    run.plans, run.answers, run.reference = ["held"] * 4, [boxes(0)] * 4, [people(0)] * 4
    run.outcomes = [outcome("held", known=known) for known in (missing(1), missing(1), missing(2), None)]
    run.inference_ms, run.wall_ms, run.cost_saved = ({"attention": 1.0, "always": 8.0},) * 2 + (8.0,)
    row = summary(run)
    assert (row["vanished"], row["kept"], row["extra"]) == (2, 0, 0)
    met = {bar.name: bar.met for bar in bars([row])}
    assert met.pop("one_by_one_person: people said to have vanished") is False
    assert len(met) == 4
    assert all(met.values())
