"""The embedded model: its margins against stored ones of OpenCV's, its files against manifest, limits and rebuild."""

import ast
import configparser
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from models.build_embedded import (
    CALIBRATION,
    FIGURES,
    FINEST_SCALE,
    FOLDER,
    TOLERANCE,
    coefficients_in,
    levels,
    margins_of,
    model_path,
    write_pair,
)
from models.hog_graph import MARGIN_PX, STRIDE, Level, cell_windows, orientation_basis

SIZES = sorted(FINEST_SCALE)
NAMES = [model_path(size).name for size in SIZES]
PLACE = 5
"""Row and column at which a stored window is laid into a picture: away from the edges."""


@pytest.fixture(scope="module", params=SIZES)
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def model(size: int) -> onnx.ModelProto:
    return onnx.load(model_path(size))


@pytest.fixture(scope="module")
def session(size: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model_path(size), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def figures() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    with np.load(FIGURES) as stored:
        return stored["windows"], stored["margins"]


def laid_into(window: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a grey picture with the window at `PLACE`, and around it the one pixel that OpenCV mirrors there."""
    picture = np.full((side, side, 3), 90, np.uint8)
    start = PLACE * STRIDE - MARGIN_PX - 1
    mirrored = np.pad(window, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    picture[start : start + mirrored.shape[0], start : start + mirrored.shape[1]] = mirrored
    return picture


def test_stored_windows_are_worth_comparing(figures: tuple[NDArray[np.uint8], NDArray[np.float64]]) -> None:
    windows, margins = figures
    assert windows.shape == (24, 128, 64, 3)
    assert margins.min() < -3
    assert margins.max() > CALIBRATION.threshold


def test_margins_agree_with_opencv(
    size: int, model: onnx.ModelProto, figures: tuple[NDArray[np.uint8], NDArray[np.float64]]
) -> None:
    wide_enough = [level for level in levels(size) if level.size >= 240]
    for index, (window, expected) in enumerate(zip(*figures, strict=True)):
        level = wide_enough[index % len(wide_enough)]
        found = margins_of(model, level, laid_into(window, level.size))[PLACE, PLACE]
        assert found == pytest.approx(expected, abs=TOLERANCE), f"window {index} at level {level.size}"


def test_score_and_box_of_the_best_window(size: int, session: onnxruntime.InferenceSession) -> None:
    """The whole model, from 0..1 pixels: the strongest stored window is found where it was laid."""
    with np.load(FIGURES) as stored:
        best = int(stored["margins"].argmax())
        window, margin = stored["windows"][best], float(stored["margins"][best])
    picture = laid_into(window, size)
    output = session.run(None, {"images": picture[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255})[0]
    x, y = PLACE * STRIDE - MARGIN_PX + 32, PLACE * STRIDE - MARGIN_PX + CALIBRATION.centre_y * 128
    expected = [x, y, CALIBRATION.width * 64, CALIBRATION.height * 128]
    (there,) = np.nonzero(np.abs(output[0, :4].T - expected).max(axis=1) < 1e-3)[0]
    score = 1 / (1 + np.exp(-CALIBRATION.slope * (margin - CALIBRATION.threshold)))
    assert output[0, 4, there] == pytest.approx(score, abs=CALIBRATION.slope / 4 * TOLERANCE)


def test_letterbox_is_as_if_it_were_not_there(size: int, session: onnxruntime.InferenceSession) -> None:
    """A step from the picture to grey gives the same answer as the picture's edge going on."""
    rng = np.random.default_rng(3)
    edge = size // 5
    coarse = rng.integers(0, 256, (3, size // 10, size // 10))
    picture = np.kron(coarse, np.ones((1, 10, 10))).astype(np.float32) / 255
    boxed, going_on = picture.copy(), picture.copy()
    boxed[:, :edge] = boxed[:, -edge:] = np.float32(114 / 255)
    going_on[:, :edge] = picture[:, edge : edge + 1]
    going_on[:, -edge:] = picture[:, -edge - 1 : -edge]
    answers = [session.run(None, {"images": tensor[None]})[0] for tensor in (boxed, going_on, picture)]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - answers[2]).max() > 1e-3


@pytest.mark.parametrize("value", [0.0, 114 / 255, 1.0])
def test_a_plain_picture_holds_nobody(size: int, session: onnxruntime.InferenceSession, value: float) -> None:
    output = session.run(None, {"images": np.full((1, 3, size, size), value, np.float32)})[0]
    assert np.isfinite(output).all()
    assert output[0, 4].max() < 0.01


def test_output_is_like_that_of_a_yolo_file(size: int, session: onnxruntime.InferenceSession) -> None:
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(float)", [1, 3, size, size])
    windows = sum(down * across for down, across in (level.windows for level in levels(size)))
    assert (wanted.name, wanted.type, wanted.shape) == ("output0", "tensor(float)", [1, 5, windows])
    noise = np.random.default_rng(1).random((1, 3, size, size), dtype=np.float32)
    output = session.run(None, {"images": noise})[0]
    assert output.shape == (1, 5, windows)
    assert output[0, 4].min() >= 0
    assert output[0, 4].max() <= 1
    assert (output[0, 2:4] > 0).all()


def test_windows_reach_people_as_tall_as_the_input(size: int) -> None:
    coarsest = levels(size)[-1]
    assert coarsest.windows[0] >= 1
    assert 96 * coarsest.scale == pytest.approx(size)
    assert min(level.scale for level in levels(size)) <= 1


def test_metadata_is_that_of_a_yolo_file(size: int, session: onnxruntime.InferenceSession) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    assert ast.literal_eval(metadata["names"]) == {0: "person"}
    assert ast.literal_eval(metadata["imgsz"]) == [size, size]
    assert metadata["task"] == "detect"
    assert int(metadata["stride"]) == STRIDE
    assert "Apache-2.0" in metadata["license"]


def own_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest without what was exported into the same folder."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {**manifest, "models": [entry for entry in manifest["models"] if entry["file"] in NAMES]}


def test_manifest_describes_the_files() -> None:
    manifest = own_manifest(FOLDER)
    assert [entry["file"] for entry in manifest["models"]] == NAMES
    for entry in manifest["models"]:
        content = model_path(SIZES[0]).with_name(entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert len(content) == entry["bytes"] < 300_000
    assert "OpenCV" in manifest["license"]
    assert "HOGDescriptor_getDefaultPeopleDetector" in manifest["source"]["coefficients"]


def test_rebuilding_gives_the_same_bytes(tmp_path: Path) -> None:
    coefficients = coefficients_in(onnx.load(model_path(SIZES[0])))
    assert coefficients.shape == (3781,)
    write_pair(coefficients, tmp_path)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name
    assert own_manifest(tmp_path) == own_manifest(FOLDER)


def test_a_package_has_these_files_and_none_that_was_exported_beside_them() -> None:
    setup = configparser.ConfigParser()
    setup.read(FOLDER.parent / "setup.cfg")
    packaged = setup["options.package_data"]["models"].split(", ")
    assert packaged == [*NAMES, "manifest.json"]


def test_both_files_hold_the_same_coefficients() -> None:
    first, second = (coefficients_in(onnx.load(model_path(size))) for size in SIZES)
    np.testing.assert_array_equal(first, second)


def test_votes_are_tents_over_the_angle() -> None:
    directions, mixture = orientation_basis()
    angles = np.radians(np.arange(0.0, 360.0, 0.5))
    gradients = np.stack([np.cos(angles), np.sin(angles)])
    votes = mixture @ np.maximum(directions @ gradients, 0)
    away = np.abs((np.degrees(angles)[None, :] - (10 + 20 * np.arange(9))[:, None] + 90) % 180 - 90)
    np.testing.assert_allclose(votes, np.maximum(0, 1 - away / 20), atol=2.5e-3)


def test_cell_weights_mirror_but_for_the_middle() -> None:
    """OpenCV's Gaussian lies around pixel 8 of 0 to 15, half a pixel off the middle: the cells are not symmetric."""
    first, second = cell_windows()
    assert first[12:].max() == 0
    assert second[:4].max() == 0
    assert first.sum() < second.sum()


def test_levels_know_their_windows() -> None:
    assert Level(96, 10 / 3).windows == (1, 9)
    assert Level(320, 1.0).windows == (29, 37)
