from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.models import seeing, shaped
from workers.byte_input import PIXELS, with_byte_input
from workers.session import Session, describe

SIDE = 32
PICTURE = np.random.default_rng(3).integers(0, 256, (1, 3, SIDE, SIDE), np.uint8)


def summing(*, half: bool = False, dynamic: bool = False, opset: int = 17, listed: bool = False) -> onnx.ModelProto:
    """Return a detector whose head is a convolution; `listed` names the weights among the inputs, as old files do."""
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    weights = (np.random.default_rng(4).random((5, 3, 8, 8)) / 64).astype(dtype)
    sides: list[int | str] = ["height", "width"] if dynamic else [SIDE, SIDE]
    given = [helper.make_tensor_value_info("images", kind, [1, 3, *sides])]
    weight_input = helper.make_tensor_value_info("weights", kind, weights.shape)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "weights"], ["cells"], strides=[8, 8]),
            helper.make_node("Reshape", ["cells", "shape"], ["output0"]),
        ],
        "summing",
        [weight_input, *given] if listed else given,
        [helper.make_tensor_value_info("output0", kind, [1, 5, "cells" if dynamic else 16])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1, 5, -1]), "shape")],
    )
    if listed:
        graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [3]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if listed else 8)
    helper.set_model_props(model, {"names": str({0: "person"})})
    return model


def run(model: bytes, name: str, value: NDArray[np.generic]) -> NDArray[np.floating]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    answer: NDArray[np.floating] = session.run(None, {name: value})[0]
    return answer


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("opset", [11, 17, 20])
def test_bytes_give_the_answer_of_floats(half: bool, dynamic: bool, opset: int) -> None:
    original = summing(half=half, dynamic=dynamic, opset=opset)
    edited, own = with_byte_input(original.SerializeToString())
    assert own == ("images", "tensor(float16)" if half else "tensor(float)")
    onnx.checker.check_model(onnx.load_from_string(edited), full_check=True)
    unit = (PICTURE / np.float32(255)).astype(np.float16 if half else np.float32)
    expected = run(original.SerializeToString(), "images", unit)
    assert np.abs(run(edited, PIXELS, PICTURE) - expected).max() <= (4e-3 if half else 1e-5)


def test_weights_that_are_listed_as_inputs_stay_weights() -> None:
    original = summing(listed=True).SerializeToString()
    edited, own = with_byte_input(original)
    assert own == ("images", "tensor(float)")
    unit = PICTURE / np.float32(255)
    assert np.abs(run(edited, PIXELS, PICTURE) - run(original, "images", unit)).max() <= 1e-5


def test_weights_beside_the_model_are_found(tmp_path: Path) -> None:
    model = summing()
    whole = model.SerializeToString()
    path = tmp_path / "yolo11n_640.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=1000)
    assert (tmp_path / "weights.bin").exists()
    assert describe(str(path)).side == SIDE
    session = Session(str(path), SIDE, "cpu", threads=1)  # type: ignore[arg-type]
    session.tensor[:] = PICTURE
    expected = run(whole, "images", PICTURE / np.float32(255))
    assert np.abs(session.run() - expected).max() <= 1e-5


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.UINT8, TensorProto.DOUBLE])
def test_an_input_of_another_type_stays(tmp_path: Path, kind: int) -> None:
    content = shaped(tmp_path / "m.onnx", [1, 3, 640, 640], [1, 5, 10], input_type=kind).read_bytes()
    assert with_byte_input(content) == (content, None)


def test_two_inputs_stay() -> None:
    model = summing()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    content = model.SerializeToString()
    assert with_byte_input(content) == (content, None)


@settings(max_examples=60)
@given(st.data())
def test_what_is_no_model_stays(data: st.DataObject) -> None:
    """Cut anywhere, or with bytes overwritten: either a whole message or what came in, and never another error."""
    whole = summing().SerializeToString()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    edited, own = with_byte_input(cut)
    assert own is not None or edited == cut
    place, noise = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.binary(min_size=1, max_size=8))
    broken = whole[:place] + noise + whole[place + len(noise) :]
    edited, own = with_byte_input(broken)
    assert own is not None or edited == broken


def test_a_picture_is_seen_alike(tmp_path: Path) -> None:
    path = seeing(tmp_path / "m.onnx", 320)
    session = Session(str(path), 320, "cpu", threads=1)
    session.tensor[:] = 114
    session.tensor[0, 0, 50:90, 30:200] = 255
    expected = run(path.read_bytes(), "images", session.tensor / np.float32(255))
    # The other two columns are those of channels without a patch.
    assert np.abs(session.run()[0, :, 0] - expected[0, :, 0]).max() <= 1e-3
    assert session.run()[0, :, 0] == pytest.approx([115, 70, 170, 40, 1], abs=0.01)
