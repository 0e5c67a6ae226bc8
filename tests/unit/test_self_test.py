"""A provider that runs and does not see is found out, at load and later, and never takes the place of one that does."""

import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scoring import xywh
from models.build_embedded import model_path
from orion.errors import ModelError
from orion.messages import AttentionSettings, Crop, DetectorSpec, DetectRequest
from tests.instances import until
from tests.losing import Around
from tests.models import picture, placed, seeing
from tests.standins import Copying, First, Inventing, Late, Zeros, going_blind, standing_in
from workers import choice, runtime
from workers import expected as expected_module
from workers.cache import Cache
from workers.choice import load_chosen, load_seeing
from workers.expected import Expected, expect, pictures
from workers.lane import load_lanes
from workers.nms import Box
from workers.pair import SessionPair
from workers.person import PersonDetector
from workers.pipeline import infer
from workers.runtime import installed_providers
from workers.self_test import SHARE, PeriodicTest, agree, find_fault, rested_s
from workers.session import Session

HOUR_S = 3600.0
BLIND = {"zeros": Zeros, "first picture": First, "picture before": Late, "invents": Inventing}


@pytest.fixture(autouse=True)
def _nothing_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(expected_module, "_known", {})


def spec(large: Path, small: Path | None = None, provider: str = "cpu", confidence: float = 0.4) -> DetectorSpec:
    path = None if small is None else str(small)
    return DetectorSpec(str(large), path, confidence, 0.45, ("person",), provider, threads=1)


EMBEDDED = model_path(640), model_path(320)
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A pair whose inferences take no time, and which takes the bright things in the known pictures for persons."""
    folder = tmp_path_factory.mktemp("models")
    return seeing(folder / "a.onnx", 640), seeing(folder / "b.onnx", 320)


class Remembering(Cache[str]):
    """A memory that knows one choice for every key."""

    def recall(self, key: str) -> str | None:
        return "openvino"


class Clock:
    """A clock that is set by hand, and by a session whose runs take time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def slow(clock: Clock, takes_s: float, is_blind: Callable[[], bool] = lambda: False) -> Callable[[Any], Around]:
    """Return the sessions whose bound runs take so long by `clock`, and which go blind."""
    blind = going_blind(is_blind)

    class Slow(blind):  # type: ignore[valid-type, misc]
        def run_with_iobinding(self, binding: Any) -> None:
            clock.now_s += takes_s
            super().run_with_iobinding(binding)

    return Slow


def test_the_embedded_model_sees_through_its_buffers() -> None:
    lanes = load_seeing(spec(*EMBEDDED, confidence=0.5), "cpu")
    assert [lane.session.sees for lane in lanes.values()] == [True, True]
    assert [expect(lane).confidence for lane in lanes.values()] == [0.5, 0.5]


@pytest.mark.parametrize("kind", BLIND.values(), ids=BLIND.keys())
def test_a_provider_that_does_not_see_gives_way_with_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[Around]
) -> None:
    standing_in(monkeypatch, kind)
    pair = SessionPair.load(spec(*EMBEDDED, "openvino"))
    for session in pair.info.sessions:
        assert session.provider == "cpu"
        assert session.fallback is not None
        assert session.fallback.startswith("openvino does not see the known pictures: 640, ")
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message.endswith("; going on with cpu")


@pytest.mark.parametrize("kind", BLIND.values(), ids=BLIND.keys())
def test_auto_does_not_take_a_provider_that_does_not_see(
    quick: Pair, monkeypatch: pytest.MonkeyPatch, kind: type[Around]
) -> None:
    standing_in(monkeypatch, kind)
    sessions = SessionPair.load(spec(*quick, "auto")).info.sessions
    assert [(session.provider, session.fallback) for session in sessions] == [("cpu", None)] * 2


@pytest.mark.parametrize("kind", BLIND.values(), ids=BLIND.keys())
def test_one_that_was_chosen_before_and_does_not_see_now_is_chosen_no_more(
    quick: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[Around]
) -> None:
    monkeypatch.setattr(choice, "Cache", Remembering)
    standing_in(monkeypatch, kind)
    lanes = load_chosen(spec(*quick, "auto"))
    assert lanes[640].session.provider == "cpu"
    assert "provider openvino is not taken: openvino does not see" in caplog.text


@pytest.mark.parametrize("kind", [Zeros, First, Late])
def test_where_cpu_sees_nobody_the_faint_boxes_tell(monkeypatch: pytest.MonkeyPatch, kind: type[Around]) -> None:
    """No answer reaches the threshold, so that a blind provider would agree."""
    standing_in(monkeypatch, kind)
    asked = spec(EMBEDDED[0], None, "openvino", confidence=0.99)
    assert not expect(load_lanes(asked, "cpu")[640]).sees
    sessions = SessionPair.load(asked).info.sessions
    assert [(session.provider, session.sees) for session in sessions] == [("cpu", False)]


def test_where_cpu_has_no_box_at_all_another_provider_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing_in(monkeypatch, Around)
    path = placed(tmp_path / "m.onnx", 640, [[0, 0, 0, 0, 0.9, 0]])
    session = SessionPair.load(spec(path, None, "openvino")).info.sessions[0]
    assert session.provider == "cpu"
    assert "cpu finds nothing in a drawn picture by which to tell" in (session.fallback or "")


def test_where_cpu_itself_does_not_see_nothing_is_loaded(quick: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    standing_in(monkeypatch, Zeros, cpu=True)
    for provider in ("cpu", "openvino", "auto"):
        with pytest.raises(ModelError, match=r"cpu does not see the known pictures: 640, drawn person: expected 1"):
            load_chosen(spec(*quick, provider))


def test_a_model_of_no_persons_is_not_asked_for_one(tmp_path: Path) -> None:
    path = placed(tmp_path / "m.onnx", 640, [[0, 0, 50, 60, 0.2, 1]], names=("person", "cat"))
    cats = DetectorSpec(str(path), None, 0.4, 0.45, ("cat",), "cpu", threads=1)
    assert load_seeing(cats, "cpu")[640].session.info.sees
    assert not load_seeing(spec(path), "cpu")[640].session.info.sees


def test_a_binding_that_copies_when_it_is_bound_sees_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing_in(monkeypatch, Copying)
    pair = SessionPair.load(spec(seeing(tmp_path / "m.onnx", 640), None, "openvino"))
    assert pair.info.sessions[0].provider == "openvino"
    for x in (100, 300, 0):
        found, _ = infer(pair, picture(640, 640, [(x, 100, 60, 160)]), Crop(0, 0, 640, 640, 640))
        assert xywh(found).tolist() == [[x, 100, 60, 160]]


@pytest.mark.parametrize("provider", installed_providers())
def test_every_provider_that_is_installed_here_sees_every_frame(provider: str) -> None:
    """With the numbers of bfloat16 the embedded model differs by more than it may, and `cpu` takes over."""
    pair = SessionPair.load(spec(EMBEDDED[0], None, provider))
    assert pair.info.sessions[0].provider == ("cpu" if provider == "openvino-bf16" else provider)
    drawn = pictures()[0].pixels
    for shift_px in (0, 200, 100):
        moved = np.ascontiguousarray(np.roll(drawn, shift_px, axis=1))
        found, _ = infer(pair, moved, Crop(0, 0, 640, 480, 640))
        assert len(found) == 1
        assert abs(found[0].x - 141 - shift_px) <= 25, "the embedded model looks in steps"


def test_another_file_in_the_place_of_the_one_that_was_loaded_is_no_measure(tmp_path: Path) -> None:
    lanes = load_lanes(spec(seeing(tmp_path / "m.onnx", 640)), "cpu")
    placed(tmp_path / "m.onnx", 640, [[0, 0, 50, 60, 0.9, 0]])
    with pytest.raises(ModelError, match="expected the file that was loaded, found another"):
        find_fault(lanes)


def test_the_plain_run_is_made_once_for_a_file(quick: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    real = Session.plain_heads

    def counted(session: Session, tensors: Any) -> Iterator[Any]:
        runs.append(session.card.path)
        return real(session, tensors)

    monkeypatch.setattr(Session, "plain_heads", counted)
    standing_in(monkeypatch, Around)
    for provider in ("cpu", "openvino"):
        load_chosen(spec(*quick, provider))
    monkeypatch.setattr(expected_module, "_known", {})
    load_chosen(spec(*quick, "openvino"))
    assert runs == [str(path) for path in quick]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": [[], 0.4, true]}'])
def test_a_broken_memory_is_none(tmp_path: Path, content: bytes) -> None:
    memory = Cache("expected", Expected)
    path = tmp_path / "cache" / "orion" / "expected.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert memory.recall("a") is None
    known = Expected(((Box(1.5, 2, 3, 4, 0.1 + 0.2, 0),), (), ()), 0.4, sees=True)
    memory.remember("a", known)
    assert Cache("expected", Expected).recall("a") == known
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_is_remembered_is_not_held_against_a_session(quick: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = load_lanes(spec(quick[0]), "cpu")[640]
    right = expect(lane)
    wrong = Expected(right.answers[1:] + right.answers[:1], right.confidence, sees=True)
    monkeypatch.setattr(expected_module, "_known", dict.fromkeys(expected_module._known, wrong))
    assert find_fault({640: lane}) is None
    assert expect(lane) == right


def test_who_does_not_see_at_first_and_then_does_is_not_taken(quick: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([True])
    standing_in(monkeypatch, going_blind(lambda: next(left, False)))
    session = SessionPair.load(spec(*quick, "openvino")).info.sessions[0]
    assert (session.provider, "drawn person" in (session.fallback or "")) == ("cpu", True)


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    memory = Cache("providers", str)
    memory.remember("a", "b")
    assert memory.recall("a") is None


def test_a_user_without_a_home_does_without_memory(quick: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    with pytest.raises(RuntimeError):
        Path.home()
    memory = Cache("providers", str)
    memory.remember("a", "b")
    assert memory.recall("a") is None
    assert load_seeing(spec(*quick), "cpu")[640].session.sees


def test_the_last_of_many_are_kept(tmp_path: Path) -> None:
    memory = Cache("providers", str)
    for number in range(40):
        memory.remember(str(number), "cpu")
    assert [memory.recall(str(number)) for number in (0, 7, 8, 39)] == [None, None, "cpu", "cpu"]


def test_every_step_of_the_test_takes_its_turn(tmp_path: Path) -> None:
    asked = spec(seeing(tmp_path / "m.onnx", 640))
    lanes = load_lanes(asked, "cpu")
    taken: list[str] = []

    class Turn:
        def __enter__(self) -> None:
            taken.append("in")

        def __exit__(self, *_: object) -> None:
            taken.append("out")

    lanes[640].session.turn = Turn
    find_fault(lanes)
    assert taken == ["in", "out"] * (1 + 3 + 3), "the file, the plain runs and the bound ones"


def test_one_picture_at_a_time_when_it_is_due_and_no_more_than_a_hundredth_of_the_time(
    quick: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    standing_in(monkeypatch, slow(clock, 0.05), cpu=True)
    lanes = load_lanes(spec(*quick), "cpu")
    test, began_s, tries = PeriodicTest(lanes, 600, clock), clock.now_s, []
    for _ in range(12):
        clock.now_s = test.due_s
        tries.append(test.due_s - began_s)
        assert test.step() is None
    assert tries[:6] == pytest.approx([600 + 5 * number for number in range(6)])
    assert tries[6:] == pytest.approx([1200 + 5 * number for number in range(6)])


def test_a_period_that_is_too_short_is_stretched(quick: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    standing_in(monkeypatch, slow(clock, 0.05), cpu=True)
    test, began_s = PeriodicTest(load_lanes(spec(*quick), "cpu"), 0.001, clock), clock.now_s
    for _ in range(12):
        clock.now_s = test.due_s
        assert test.step() is None
    assert 12 * 0.05 / (test.due_s - began_s) == pytest.approx(SHARE, rel=1e-3)
    assert rested_s(10.0, 10.5) == 60.0


def test_without_a_period_it_is_never_due(quick: Pair) -> None:
    assert PeriodicTest(load_lanes(spec(*quick), "cpu"), None, Clock()).due_s == float("inf")


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_provider_that_goes_blind_after_an_hour_is_found_out_at_the_next_test(
    quick: Pair, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    clock = Clock()
    blind_s = clock.now_s + HOUR_S
    standing_in(monkeypatch, slow(clock, 0.05, lambda: clock.now_s >= blind_s), cpu=True)
    detector = PersonDetector(spec(*quick, provider), clock)
    tests = 0
    while True:
        clock.now_s += detector.self_test_wait_s
        reason = detector.self_test()
        if reason is not None:
            break
        assert clock.now_s < blind_s + 600
        tests += 1
    assert tests >= 5 * 6, "it was well for an hour"
    assert blind_s <= clock.now_s <= blind_s + 600
    assert "drawn person: expected 1.000 at" in reason
    assert reason.endswith("found nobody")
    detector.close()


def test_a_run_that_fails_is_told_as_a_failure_to_see(quick: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = PersonDetector(spec(*quick), Clock())

    class Broken(Around):
        def run_with_iobinding(self, binding: object) -> None:
            raise RuntimeError("out of memory")

    session = detector._pair.lanes[640].session
    session._session = Broken(session._session)
    assert "onnxruntime cannot run it: out of memory" in (detector.self_test() or "")
    detector.close()


def test_a_provider_that_fails_at_a_known_picture_gives_way_to_cpu_as_at_a_frame(
    quick: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [False]

    class Breaking(Around):
        def run_with_iobinding(self, binding: object) -> None:
            if broken[0]:
                raise RuntimeError("the device was lost")
            self._inner.run_with_iobinding(binding)

    standing_in(monkeypatch, Breaking)
    detector = PersonDetector(spec(*quick, "openvino"), Clock())
    assert [session.provider for session in detector.info.sessions] == ["openvino"] * 2
    broken[0] = True
    assert detector.self_test() is None
    assert detector.self_test_wait_s == math.inf
    frame = picture(640, 480, [(100, 100, 300, 300)])
    request = DetectRequest("cam0", 0.0, settings=AttentionSettings(mode="off"))
    until(lambda: detector._relief is not None and detector._relief.done(), "cpu is loaded")
    with pytest.raises(ModelError, match="cpu answers the frames after this one"):
        detector.process(frame, request)
    assert len(detector.process(frame, request).detections) == 1
    assert [session.provider for session in detector.info.sessions] == ["cpu"] * 2
    detector.close()


def test_frames_between_the_pictures_are_answered_as_ever(tmp_path: Path) -> None:
    """Frames and pictures share the letterbox's buffers."""
    detector = PersonDetector(spec(seeing(tmp_path / "a.onnx", 640), seeing(tmp_path / "b.onnx", 320)), Clock())
    request = DetectRequest("cam0", 0.0, settings=AttentionSettings(mode="off"))
    frame = picture(1920, 1080, [(100, 100, 300, 600), (900, 200, 200, 500)])
    expected = detector.process(frame, request).detections
    assert len(expected) == 2
    for _ in range(7):
        assert detector.self_test() is None
        assert detector.process(frame, request).detections == expected
    detector.close()


def test_what_auto_remembers_is_void_when_build_plugin_or_processor_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, names = spec(seeing(tmp_path / "m.onnx", 640), None, "auto"), ("openvino", "cpu")
    keys = [choice._key(asked, names)]
    monkeypatch.setattr(runtime, "processor", lambda: "another")
    keys.append(choice._key(asked, names))
    monkeypatch.setattr(runtime, "_version", lambda plugin: "99")
    keys.append(choice._key(asked, names))
    monkeypatch.setattr("onnxruntime.get_build_info", lambda: "another")
    keys.append(choice._key(asked, names))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("shift_px", "score", "class_id", "same"),
    [(0, 0.9, 0, True), (1, 0.915, 0, True), (9, 0.9, 0, False), (0, 0.87, 0, False), (0, 0.9, 1, False)],
)
def test_agreement_is_about_place_score_and_class(shift_px: float, score: float, class_id: int, same: bool) -> None:
    expected, found = [Box(100, 50, 200, 250, 0.9, 0)], [Box(100 + shift_px, 50, 200 + shift_px, 250, score, class_id)]
    assert agree(expected, found, 0.5) is same
    assert agree(found, expected, 0.5) is same


def test_agreement_is_of_both_sides_and_of_boxes_that_count() -> None:
    person, faint = Box(100, 50, 200, 250, 0.9, 0), Box(400, 50, 500, 250, 0.3, 0)
    assert not agree([person], [], 0.5)
    assert not agree([], [person], 0.5)
    assert agree([person, faint], [person], 0.5)
    assert agree([], [faint], 0.5)
    assert not agree([], [faint], 0.0)
    edge, under = Box(0, 0, 90, 90, 0.505, 0), Box(0, 0, 90, 90, 0.49, 0)
    assert agree([edge], [under], 0.5)


def test_the_known_pictures_are_no_one_elses() -> None:
    drawn, mirrored, empty = pictures()
    assert (drawn.person, mirrored.person, empty.person) == (True, True, False)
    assert np.array_equal(drawn.pixels[:, ::-1], mirrored.pixels)
    differing = (drawn.pixels != empty.pixels).any(axis=2)
    rows, columns = np.nonzero(differing)
    assert (columns.min() > 100, columns.max() < 300, rows.min() > 100) == (True, True, True), "the figure alone"
