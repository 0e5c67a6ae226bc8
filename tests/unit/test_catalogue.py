from pathlib import Path

import pytest

from orion.config import PersonDetectorConfig
from orion.errors import ModelError
from orion.lookup import find_pair
from tests.models import COCO_LIKE, placed, seeing, shaped
from workers import catalogue

BOX = [[10.0, 20.0, 110.0, 220.0, 0.9, 0.0]]


def pair(folder: Path, stem: str) -> tuple[Path, Path]:
    return placed(folder / f"{stem}_640.onnx", 640, BOX), placed(folder / f"{stem}_320.onnx", 320, BOX)


@pytest.mark.parametrize("stem", ["yolo11n", "yolo11n_fp32", "yolov8n", "yolo12n-", "yolov10n", "yolo26n"])
def test_a_pair_is_found_by_name_and_size(tmp_path: Path, stem: str) -> None:
    large, small = pair(tmp_path, stem)
    pair(tmp_path, "yolo11m")
    found = catalogue.resolve(tmp_path, "n")
    assert (found.model_640, found.model_320, found.model_size) == (str(large), str(small), "n")
    assert found.model_name == stem.removesuffix("_fp32").removesuffix("-")


def test_contents_decide_over_names(tmp_path: Path) -> None:
    """The files' names say the opposite of their input sizes, and one says another family than its exporter."""
    description = "Ultralytics YOLO11s model trained on coco.yaml"
    large = seeing(tmp_path / "yolo11n_320.onnx", 640, description=description)
    small = seeing(tmp_path / "yolov8n_640.onnx", 320, description=description)
    found = catalogue.resolve(tmp_path, "s")
    assert (found.model_640, found.model_320, found.model_name) == (str(large), str(small), "yolo11s")


def test_a_folder_without_the_320_has_none(tmp_path: Path) -> None:
    placed(tmp_path / "yolo11n_640.onnx", 640, BOX)
    assert catalogue.resolve(tmp_path, "n").model_320 is None
    assert "runs alone" in str(catalogue.verify(tmp_path)[0].problem)


def test_a_file_of_320_never_passes_for_the_640(tmp_path: Path) -> None:
    placed(tmp_path / "yolo11n_640.onnx", 320, BOX)
    with pytest.raises(
        ModelError, match=r"expected a file with input 640x640, found yolo11n_640.onnx \(yolo11n, 320\)"
    ):
        catalogue.resolve(tmp_path, "n")


def test_a_640_that_is_cut_off_is_named(tmp_path: Path) -> None:
    large, _ = pair(tmp_path, "yolo11n")
    large.write_bytes(large.read_bytes()[:200])
    with pytest.raises(
        ModelError, match=r"found yolo11n_320.onnx \(yolo11n, 320\); unusable: .*/yolo11n_640.onnx: onn"
    ):
        catalogue.resolve(tmp_path, "n")


def test_an_open_input_serves_both_sizes_but_gives_way_to_a_fixed_one(tmp_path: Path) -> None:
    both = placed(tmp_path / "yolo11n.onnx", 640, BOX, dynamic=True)
    found = catalogue.resolve(tmp_path, "n")
    assert (found.model_640, found.model_320) == (str(both), str(both))
    fixed = placed(tmp_path / "yolo11n_320.onnx", 320, BOX)
    found = catalogue.resolve(tmp_path, "n")
    assert (found.model_640, found.model_320) == (str(both), str(fixed))


@pytest.mark.parametrize("second", ["yolo11n_int8", "yolov8n"])
def test_ambiguity_lists_the_candidates(tmp_path: Path, second: str) -> None:
    pair(tmp_path, "yolo11n_fp32")
    pair(tmp_path, second)
    with pytest.raises(ModelError, match=f"(?s)yolo11n_fp32_640.onnx.*{second}_640.onnx.*by path"):
        catalogue.resolve(tmp_path, "n")


def test_different_classes_make_no_pair(tmp_path: Path) -> None:
    placed(tmp_path / "yolo11n_640.onnx", 640, BOX)
    placed(tmp_path / "yolo11n_320.onnx", 320, BOX, names=COCO_LIKE)
    with pytest.raises(ModelError, match="expected one family"):
        catalogue.resolve(tmp_path, "n")


def test_a_broken_file_is_listed_and_harms_no_other(tmp_path: Path) -> None:
    large, _ = pair(tmp_path, "yolo11n")
    whole = large.read_bytes()
    (tmp_path / "yolo11n_cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "yolo11n_empty.onnx").write_bytes(b"")
    (tmp_path / "yolo11n_text.onnx").write_text("not a model")
    (tmp_path / ".yolo11n_640.onnx").write_bytes(whole)
    (tmp_path / "yolo11n_640.onnx.part").write_bytes(whole)
    assert catalogue.resolve(tmp_path, "n").model_640 == str(large)
    entries = catalogue.list_folder(tmp_path)
    assert [Path(entry.path).name for entry in entries if entry.card is None] == [
        "yolo11n_cut.onnx",
        "yolo11n_empty.onnx",
        "yolo11n_text.onnx",
    ]
    assert all(entry.error for entry in entries if entry.card is None)
    verdicts = catalogue.verify(tmp_path)
    assert [verdict.problem is None for verdict in verdicts] == [True, False, False, False]
    assert [session.size for session in verdicts[0].sessions] == [640, 320]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    pair(tmp_path, "yolo11m")
    with pytest.raises(ModelError, match=r"expected a model of size n, found yolo11m_320.onnx \(yolo11m, 320\)"):
        catalogue.resolve(tmp_path, "n")
    with pytest.raises(ModelError, match="expected a folder of models, found none"):
        catalogue.resolve(tmp_path / "absent", "n")


@pytest.mark.parametrize(
    ("name", "input_shape", "output_shape", "names", "found"),
    [
        ("yolox", [1, 3, 640, 640], [1, 8400, 6], None, "no class names"),
        ("yolov5", [1, 3, 640, 640], [1, 25200, 7], ["a", "b"], r"output output0 \(1, 25200, 7\) with 2 classes"),
        ("classifier", [1, 3, 224, 224], [1, 1000], ["a"], r"output output0 \(1, 1000\)"),
        ("segmenter", [1, 3, 640, 640], [1, 37, 8400], ["person"], r"output output0 \(1, 37, 8400\)"),
        ("wide", [1, 3, 384, 640], [1, 5, 5040], ["person"], r"input images \(1, 3, 384, 640\)"),
        ("grey", [1, 1, 640, 640], [1, 5, 8400], ["person"], r"input images \(1, 1, 640, 640\)"),
        ("batch", [4, 3, 640, 640], [4, 5, 8400], ["person"], r"input images \(4, 3, 640, 640\)"),
    ],
)
def test_what_cannot_be_run_is_refused_with_expected_and_found(
    tmp_path: Path, name: str, input_shape: list[int], output_shape: list[int], names: list[str] | None, found: str
) -> None:
    path = shaped(tmp_path / f"{name}.onnx", input_shape, output_shape, names=names)
    with pytest.raises(ModelError, match=f"{name}.onnx: expected a person detector with input .*, found {found}"):
        catalogue.inspect(path)


def test_the_embedded_pair_is_whole() -> None:
    found = find_pair(PersonDetectorConfig())
    assert found.embedded
    assert found.model_320 is not None
    large, small = catalogue.inspect(found.model_640), catalogue.inspect(found.model_320)
    assert (large.model_name, large.names, large.side) == ("hog-person", ("person",), 640)
    assert (small.model_name, small.names, small.side) == ("hog-person", ("person",), 320)


def test_real_models_are_known(testdata: Path) -> None:
    card = catalogue.inspect(testdata / "models" / "yolo11n_fp32_640.onnx")
    assert (card.model_name, card.model_size, card.side, card.layout, len(card.names)) == (
        "yolo11n",
        "n",
        640,
        "grid",
        80,
    )
