import io
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from benchmarks.scoring import xywh
from orion.errors import ModelError
from orion.messages import AttentionSettings, Crop, DetectorSpec, DetectRequest, Pixels
from tests.models import COCO_LIKE, counting, picture, placed, seeing
from workers import choice, framing
from workers import pair as pair_module
from workers.choice import load_chosen, load_on_cpu
from workers.dropin import Dropin
from workers.lane import Lanes, load_lanes
from workers.pair import SessionPair
from workers.person import PersonDetector
from workers.pipeline import infer
from workers.runtime import installed_providers
from workers.session import ProviderError, Session, describe
from workers.turns import AT_ONCE, Turn

BOXES = [[100.0, 200.0, 180.0, 300.0, 0.9, 0.0], [300.0, 200.0, 380.0, 300.0, 0.8, 2.0]]
FRAME = np.zeros((640, 640, 3), np.uint8)


def spec(large: Path, small: Path | None = None, provider: str = "cpu", *classes: str) -> DetectorSpec:
    return DetectorSpec(
        str(large), None if small is None else str(small), 0.4, 0.45, classes or ("person",), provider, threads=1
    )


@pytest.mark.parametrize("layout", ["grid", "end2end"])
@pytest.mark.parametrize("form", ["plain", "half", "dynamic"])
def test_every_kind_of_export_gives_the_same_boxes(tmp_path: Path, layout: str, form: str) -> None:
    half, dynamic = form == "half", form == "dynamic"
    path = placed(tmp_path / "m.onnx", 640, BOXES, names=COCO_LIKE, layout=layout, half=half, dynamic=dynamic)
    detector = PersonDetector(spec(path, None, "cpu", "person", "car"))
    found = detector.process(FRAME, DetectRequest("cam0", 0.0)).detections
    assert xywh(found).tolist() == [[100, 200, 80, 100], [300, 200, 80, 100]]
    assert [one.confidence for one in found] == pytest.approx([0.9, 0.8], abs=0.001)
    assert [one.class_id for one in found] == [0, 2]
    assert detector.info.labels == ((0, "person"), (2, "car"))
    card = describe(str(path))
    assert (card.layout, card.half, card.side) == (layout, half, None if dynamic else 640)


def test_an_eight_bit_file_runs(tmp_path: Path) -> None:
    """Its head has one scale a row: places in steps of 2.7 pixels."""
    path = placed(tmp_path / "m.onnx", 640, BOXES, names=COCO_LIKE, eight_bit=True)
    found = PersonDetector(spec(path)).process(FRAME, DetectRequest("cam0", 0.0)).detections
    assert np.abs(xywh(found) - [[100, 200, 80, 100]]).max() <= 3
    assert [one.confidence for one in found] == pytest.approx([0.9], abs=0.01)


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_picture_may_decide_how_many_boxes_there_are(tmp_path: Path, *, dynamic: bool) -> None:
    boxes = [[100.0 * n, 200.0, 100.0 * n + 80, 300.0, 0.9 - n / 10, 0.0] for n in range(3)]
    pair = SessionPair.load(spec(counting(tmp_path / "m.onnx", 640, boxes, dynamic=dynamic)))
    patches = [(20, 20, 60, 160)] * 3
    answers = [
        infer(pair, picture(640, 640, patches[:count]), Crop(0, 0, 640, 640, 640))[0] for count in (0, 2, 1, 3, 0)
    ]
    assert [len(answer) for answer in answers] == [0, 2, 1, 3, 0]
    assert xywh(answers[3]).tolist() == [[0, 200, 80, 100], [100, 200, 80, 100], [200, 200, 80, 100]]
    assert xywh(answers[1]).tolist() == xywh(answers[3]).tolist()[:2]


def test_a_class_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = placed(tmp_path / "cats.onnx", 640, BOXES[:1], names=("cat", "dog"))
    with pytest.raises(ModelError, match=r"cats.onnx: expected a class named 'person', found cat, dog"):
        SessionPair.load(spec(path))


def test_a_pair_is_of_one_family_and_of_the_right_sizes(tmp_path: Path) -> None:
    large, small = seeing(tmp_path / "yolo11n_640.onnx", 640), seeing(tmp_path / "yolo11n_320.onnx", 320)
    pair = SessionPair.load(spec(large, small))
    assert [(session.size, session.path) for session in pair.info.sessions] == [(640, str(large)), (320, str(small))]
    assert all(len(session.sha256) == 64 and session.warm_ms > 0 for session in pair.info.sessions)
    assert pair.info.cost_ratio >= 1
    with pytest.raises(ModelError, match=r"yolo11n_320.onnx: expected an input of 640x640, found 320x320"):
        SessionPair.load(spec(small, large))
    stranger = seeing(tmp_path / "yolov8n_320.onnx", 320)
    with pytest.raises(ModelError, match=r"yolov8n_320.onnx: expected yolo11n as .*, found yolov8n"):
        SessionPair.load(spec(large, stranger))
    other = placed(tmp_path / "small.onnx", 320, BOXES, names=COCO_LIKE)
    with pytest.raises(ModelError, match=r"small.onnx: expected the classes of .*, found person, bicycle, car"):
        SessionPair.load(spec(large, other))
    assert len(SessionPair.load(spec(large, seeing(tmp_path / "mine.onnx", 320))).info.sessions) == 2


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = seeing(tmp_path / "whole.onnx", 640).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[:-200])
    with pytest.raises(ModelError, match=r"cut.onnx: onnxruntime cannot use it"):
        Session(str(tmp_path / "cut.onnx"), 640, "cpu", threads=1)


def test_the_output_is_kept_and_overwritten(tmp_path: Path) -> None:
    session = Session(str(seeing(tmp_path / "m.onnx", 320)), 320, "cpu", threads=1)
    first = session.run()
    before = first.copy()
    session.tensor[0, 0, 100:200, 50:150] = 255
    assert session.run() is first
    assert not np.array_equal(first, before)


def test_a_swap_changes_the_model_between_frames(tmp_path: Path) -> None:
    detector = PersonDetector(spec(placed(tmp_path / "yolo11n.onnx", 640, BOXES[:1])))
    other = SessionPair.load(spec(placed(tmp_path / "yolo11s.onnx", 640, [[0, 0, 50, 60, 0.7, 0]])))
    assert detector.info.model_name == "yolo11n"
    detector.swap(other)
    assert detector.info.model_name == "yolo11s"
    assert xywh(detector.process(FRAME, DetectRequest("cam0", 0.0)).detections).tolist() == [[0, 0, 50, 60]]
    detector.close()


def test_a_pair_is_loaded_beside_running_frames_and_swapped_in(tmp_path: Path) -> None:
    detector = PersonDetector(spec(placed(tmp_path / "yolo11n.onnx", 640, BOXES[:1])))
    following = spec(placed(tmp_path / "yolo11s.onnx", 640, [[0, 0, 50, 60, 0.7, 0]]))
    with ThreadPoolExecutor(1) as loader:
        loading = loader.submit(SessionPair.load, following)
        while not loading.done():
            assert len(detector.process(FRAME, DetectRequest("cam0", 0.0)).detections) == 1
        detector.swap(loading.result())
    assert xywh(detector.process(FRAME, DetectRequest("cam0", 0.0)).detections).tolist() == [[0, 0, 50, 60]]
    detector.close()


def test_a_frame_allocates_nothing_large(tmp_path: Path) -> None:
    pair = SessionPair.load(spec(seeing(tmp_path / "m.onnx", 640)))
    frame = picture(1920, 1080, [(100, 100, 300, 600), (900, 200, 200, 500)])
    crop = Crop(0, 0, 1920, 1080, 640)
    assert len(infer(pair, frame, crop)[0]) == 2
    tracemalloc.start()
    infer(pair, frame, crop)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000, "a canvas or a tensor has millions of bytes"


class Failing:
    """A provider's session after its device was lost."""

    def run_with_iobinding(self, binding: object) -> None:
        raise RuntimeError("the device was lost\nand more")


LOST = "openvino failed while running: the device was lost"


def lose_provider(pair: SessionPair) -> None:
    """Make of a pair on `cpu` one on a provider that fails."""
    for lane in pair.lanes.values():
        lane.session.provider, lane.session._session = "openvino", Failing()


def test_a_failure_of_cpu_is_told_from_that_of_another_provider(tmp_path: Path) -> None:
    pair = SessionPair.load(spec(seeing(tmp_path / "m.onnx", 640)))
    session = pair.lanes[640].session
    session._session = Failing()
    with pytest.raises(ModelError, match="onnxruntime cannot run it: the device was lost") as caught:
        session.run()
    assert not isinstance(caught.value, ProviderError)
    lose_provider(pair)
    with pytest.raises(ProviderError, match=f"^{LOST}$"):
        session.run()


def test_a_provider_that_fails_gives_way_while_frames_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No frame waits for the pair to be loaded, however long that takes."""
    loading = threading.Event()

    def held_back(asked: DetectorSpec, reason: str) -> Lanes:
        assert loading.wait(10)
        return load_on_cpu(asked, reason)

    monkeypatch.setattr(pair_module, "load_on_cpu", held_back)
    detector = PersonDetector(spec(seeing(tmp_path / "a.onnx", 640), seeing(tmp_path / "b.onnx", 320)))
    frame = picture(640, 640, [(100, 100, 60, 160)])
    request = DetectRequest("cam0", 0.0, settings=AttentionSettings(mode="off"))
    expected = detector.process(frame, request).detections
    lose_provider(detector._pair)
    before = detector.info
    for _ in range(3):
        with pytest.raises(ModelError, match="the provider failed; cpu is being loaded in its place"):
            detector.process(frame, request)
    assert detector.info is before
    loading.set()
    assert failures(detector, frame)[-1] == "the provider failed; cpu answers the frames after this one"
    after = detector.info
    assert [(session.provider, session.fallback) for session in after.sessions] == [("cpu", LOST)] * 2
    assert all(new.warm_ms != old.warm_ms for new, old in zip(after.sessions, before.sessions, strict=True))
    assert detector.process(frame, request).detections == expected
    assert [record.message for record in caplog.records] == [f"provider {LOST}; going on with cpu"]
    detector.close()


def failures(detector: PersonDetector, frame: Pixels) -> list[str]:
    """Process `frame` as often as it fails, with what was said each time, while another pair comes."""
    pair, said = detector._pair, list[str]()
    while detector._pair is pair:
        assert len(said) < 100
        with pytest.raises(ModelError) as caught:
            detector.process(frame, DetectRequest("cam0", 0.0))
        said.append(str(caught.value))
    return said


def test_a_pair_that_cpu_cannot_load_either_is_tried_again_with_a_later_frame(tmp_path: Path) -> None:
    path = seeing(tmp_path / "m.onnx", 640)
    detector = PersonDetector(spec(path))
    lose_provider(detector._pair)
    path.rename(tmp_path / "away.onnx")
    frame = picture(640, 640, [])
    said = ""
    while "being loaded" in said or not said:
        with pytest.raises(ModelError) as caught:
            detector.process(frame, DetectRequest("cam0", 0.0))
        said = str(caught.value)
    assert said == f"{path}: expected an ONNX file, found none"
    (tmp_path / "away.onnx").rename(path)
    assert "cpu answers" in failures(detector, frame)[-1]
    detector.close()


def test_a_pair_that_is_swapped_in_needs_no_relief(tmp_path: Path) -> None:
    detector = PersonDetector(spec(placed(tmp_path / "yolo11n.onnx", 640, BOXES[:1])))
    other = SessionPair.load(spec(placed(tmp_path / "yolo11s.onnx", 640, [[0, 0, 50, 60, 0.7, 0]])))
    lose_provider(detector._pair)
    with pytest.raises(ModelError):
        detector.process(FRAME, DetectRequest("cam0", 0.0))
    detector.swap(other)
    assert xywh(detector.process(FRAME, DetectRequest("cam0", 0.0)).detections).tolist() == [[0, 0, 50, 60]]
    assert detector.info.model_name == "yolo11s"
    detector.close()


def test_the_drop_in_answers_the_frame_on_which_a_provider_failed(tmp_path: Path) -> None:
    sink = io.BytesIO()
    worker = Dropin(spec(seeing(tmp_path / "m.onnx", 640)), io.BytesIO(), sink)
    lose_provider(worker._pair)
    pixels = np.ascontiguousarray(picture(640, 640, [(100, 100, 60, 160)])[:, :, ::-1])
    frame = {"frame_data": pixels.tobytes(), "width": 640, "height": 640, "meta": {}}
    worker._source = io.BytesIO(framing.pack(frame))
    worker.run()
    (answer,) = msgpack.Unpacker(io.BytesIO(sink.getvalue()[4:]))
    assert answer["data"]["metadata"]["provider"] == "cpu"
    assert [one["bbox"] for one in answer["data"]["detections"]] == [{"x": 100, "y": 100, "width": 60, "height": 160}]


def failing_from(run: int, load: Callable[..., Lanes]) -> Callable[..., Lanes]:
    """Return `load`, with every provider but `cpu` one that fails at the `run`-th inference after its warm-up."""

    def loaded(asked: DetectorSpec, provider: str, turn: Turn = AT_ONCE) -> Lanes:
        lanes = load(asked, "cpu", turn)
        if provider != "cpu":
            for lane in lanes.values():
                lane.session.provider = provider
                lane.session._session = FailingLater(lane.session._session, run)
        return lanes

    return loaded


class FailingLater(Failing):
    def __init__(self, session: Any, run: int) -> None:
        self._session, self._left = session, run

    def run_with_iobinding(self, binding: object) -> None:
        self._left -= 1
        if self._left <= 0:
            super().run_with_iobinding(binding)
        self._session.run_with_iobinding(binding)


@pytest.mark.parametrize("run", [1, 3])
@pytest.mark.parametrize("asked", ["auto", "openvino"])
def test_a_provider_that_fails_while_it_is_measured_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, run: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "installed_providers", lambda: ("openvino", "cpu"))
    monkeypatch.setattr(choice, "why_absent", lambda name: None)
    monkeypatch.setattr(choice, "load_lanes", failing_from(run, load_lanes))
    large, small = seeing(tmp_path / "m.onnx", 640), seeing(tmp_path / "n.onnx", 320)
    for _ in range(2):
        sessions = SessionPair.load(spec(large, small, asked)).info.sessions
        assert [session.provider for session in sessions] == ["cpu", "cpu"]
        assert [session.fallback for session in sessions] == [None if asked == "auto" else LOST] * 2


def test_cpu_is_always_there_and_last() -> None:
    assert installed_providers()[-1] == "cpu"


def test_a_provider_that_is_not_installed_gives_way_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if "tensorrt" in installed_providers():
        pytest.skip("this onnxruntime has TensorRT")
    lanes = load_chosen(spec(seeing(tmp_path / "m.onnx", 640), None, "tensorrt"))
    assert lanes[640].session.info.provider == "cpu"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with pytest.raises(ModelError, match=r"expected a provider among auto, .*, found 'quantum'"):
        load_chosen(spec(seeing(tmp_path / "m.onnx", 640), None, "quantum"))


def test_auto_chooses_what_agrees_with_cpu_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With whatever is installed here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = spec(seeing(tmp_path / "m.onnx", 640), None, "auto")
    first = load_chosen(asked)[640].session.info.provider
    assert first in installed_providers()
    assert load_chosen(asked)[640].session.info.provider == first
    assert (tmp_path / "cache").exists() == (len(installed_providers()) > 1)
