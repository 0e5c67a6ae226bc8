"""Small ONNX models for tests: `placed` answers with boxes that the test chose, whatever it sees; `seeing` finds bright
patches in the picture itself, up to one in each colour channel, so that crops, scales and colours show in its answer;
`counting` answers with as many boxes as there are bright channels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

GREY = 114
"""Background of pictures for `seeing`: it must be that of the letterbox's margins."""

PERSON = ("person",)
COCO_LIKE = ("person", "bicycle", "car")


def placed(
    path: Path,
    side: int,
    boxes: Sequence[Sequence[float]],
    *,
    names: Sequence[str] | None = PERSON,
    layout: str = "grid",
    dynamic: bool = False,
    half: bool = False,
    eight_bit: bool = False,
    description: str = "",
) -> Path:
    """Write a model that always answers `boxes`: x1, y1, x2, y2, score, class, in pixels of its input.

    `layout` is "grid" for (1, 4 + classes, N) or "end2end" for (1, N, 6). `half` makes input and output float16,
    `dynamic` leaves the input's sides open, `eight_bit` keeps the answer as 8-bit integers (scores in steps of 1/128).
    """
    table = np.array(boxes, np.float32).reshape(-1, 6)
    answer = table[None] if layout == "end2end" else _grid(table, len(names or PERSON))
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes, initializers = _constant_answer(answer, np.float16 if half else np.float32, eight_bit)
    sides: list[int | str] = ["height", "width"] if dynamic else [side, side]
    graph = helper.make_graph(
        nodes,
        "placed",
        [helper.make_tensor_value_info("images", kind, [1, 3, *sides])],
        [helper.make_tensor_value_info("output0", kind, list(answer.shape))],
        initializers,
    )
    return _save(graph, path, side, names, description)


def seeing(path: Path, side: int, *, names: Sequence[str] = PERSON, description: str = "") -> Path:
    """Write a grid model that finds the bright patch of each channel (red, green, blue) on grey: its edges to a
    fraction of an input pixel, its score the patch's brightness between grey (0) and full (1).
    """
    centres = (np.arange(side, dtype=np.float32) + 0.5).reshape(1, 1, side)
    initializers = [
        numpy_helper.from_array(value, name)
        for name, value in {
            "grey": np.array(GREY / 255, np.float32),
            "range": np.array(1 - GREY / 255, np.float32),
            "zero": np.array(0, np.float32),
            "one": np.array(1, np.float32),
            "tiny": np.array(1e-6, np.float32),
            "last": np.array([2], np.int64),
            "centres": centres,
            "none": np.zeros((1, len(names) - 1, 3), np.float32),
        }.items()
    ]
    nodes = [
        helper.make_node("Sub", ["images", "grey"], ["above"]),
        helper.make_node("Div", ["above", "range"], ["stretched"]),
        helper.make_node("Clip", ["stretched", "zero", "one"], ["bright"]),
        *_extent("x", 2),
        *_extent("y", 3),
        helper.make_node("ReduceMax", ["profile_x"], ["peak"], axes=[2], keepdims=1),
        helper.make_node("Concat", ["centre_x", "centre_y", "sum_x", "sum_y", "peak"], ["found"], axis=2),
        helper.make_node("Transpose", ["found"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["columns", "none"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "seeing",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4 + len(names), 3])],
        initializers,
    )
    return _save(graph, path, side, names, description)


def counting(path: Path, side: int, boxes: Sequence[Sequence[float]], *, dynamic: bool = False) -> Path:
    """Write an end-to-end model, as one exported with its suppression inside: of the three `boxes` (as those of
    `placed`) it answers those whose channel (red, green, blue) is bright anywhere, in an output (1, K, 6) of open K.
    """
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["peaks"], axes=[0, 2, 3], keepdims=0),
        helper.make_node("Greater", ["peaks", "least"], ["seen"]),
        helper.make_node("Compress", ["boxes", "seen"], ["found"], axis=0),
        helper.make_node("Unsqueeze", ["found", "first"], ["output0"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array(0.9, np.float32), "least"),
        numpy_helper.from_array(np.array(boxes, np.float32), "boxes"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
    ]
    sides: list[int | str] = ["height", "width"] if dynamic else [side, side]
    graph = helper.make_graph(
        nodes,
        "counting",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *sides])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, "found", 6])],
        initializers,
    )
    return _save(graph, path, side, PERSON, "")


def shaped(
    path: Path,
    input_shape: Sequence[int | str],
    output_shape: Sequence[int],
    *,
    names: Sequence[str] | None = PERSON,
    input_type: int = TensorProto.FLOAT,
) -> Path:
    """Write a model with any input and output shape, which answers zeros: for what must be refused."""
    nodes, initializers = _constant_answer(np.zeros(output_shape, np.float32), np.float32, eight_bit=False)
    graph = helper.make_graph(
        nodes,
        "shaped",
        [helper.make_tensor_value_info("images", input_type, list(input_shape))],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(output_shape))],
        initializers,
    )
    return _save(graph, path, 640, names, "")


def picture(width: int, height: int, patches: Sequence[tuple[int, int, int, int]]) -> NDArray[np.uint8]:
    """Return a grey BGR picture with bright patches (x, y, width, height) for `seeing`: red, green, blue in turn."""
    frame = np.full((height, width, 3), GREY, np.uint8)
    for channel, (x, y, w, h) in zip((2, 1, 0), patches, strict=False):
        frame[y : y + h, x : x + w, channel] = 255
    return frame


def _extent(axis: str, other: int) -> list[Any]:
    return [
        helper.make_node("ReduceMax", ["bright"], [f"profile_{axis}"], axes=[other], keepdims=0),
        helper.make_node("ReduceSum", [f"profile_{axis}", "last"], [f"sum_{axis}"], keepdims=1),
        helper.make_node("Mul", [f"profile_{axis}", "centres"], [f"moment_{axis}"]),
        helper.make_node("ReduceSum", [f"moment_{axis}", "last"], [f"moments_{axis}"], keepdims=1),
        helper.make_node("Add", [f"sum_{axis}", "tiny"], [f"mass_{axis}"]),
        helper.make_node("Div", [f"moments_{axis}", f"mass_{axis}"], [f"centre_{axis}"]),
    ]


def _grid(table: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    head = np.zeros((1, 4 + classes, len(table)), np.float32)
    head[0, :2] = (table[:, :2] + table[:, 2:4]).T / 2
    head[0, 2:4] = (table[:, 2:4] - table[:, :2]).T
    head[0, 4 + table[:, 5].astype(int), np.arange(len(table))] = table[:, 4]
    return head


def _constant_answer(answer: NDArray[np.float32], dtype: type, eight_bit: bool) -> tuple[list[Any], list[Any]]:
    if not eight_bit:
        return [helper.make_node("Identity", ["answer"], ["output0"])], [
            numpy_helper.from_array(answer.astype(dtype), "answer")
        ]
    scale = np.abs(answer).max(axis=2).clip(1 / 128).reshape(-1).astype(np.float32) / 127
    packed = np.rint(answer / scale[:, None]).astype(np.int8)
    node = helper.make_node("DequantizeLinear", ["packed", "scale"], ["output0"], axis=1)
    return [node], [numpy_helper.from_array(packed, "packed"), numpy_helper.from_array(scale, "scale")]


def _save(graph: Any, path: Path, side: int, names: Sequence[str] | None, description: str) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    metadata = {"task": "detect", "stride": "32", "imgsz": str([side, side]), "description": description}
    if names is not None:
        metadata["names"] = str(dict(enumerate(names)))
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path
