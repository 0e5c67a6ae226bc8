"""The embedded person detector as an ONNX graph: histograms of oriented gradients and a linear SVM (Dalal and Triggs,
2005) over a pyramid of scales, in ordinary operators. Pure: coefficients in, ModelProto out; run by the build script
and by tests, never while Orion runs.

The descriptor is that of OpenCV 4's default HOGDescriptor: window 64x128, blocks of 2x2 cells every 8 pixels, cells of
8x8 pixels, 9 unsigned orientations, square-root gamma, Gaussian window of sigma 4, L2-Hys at 0.2. What OpenCV does with
an arctangent and a table for each pixel is done here with convolutions, see `orientation_basis`.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]

OPSET = 17
IR_VERSION = 8
STRIDE = 8
WINDOW_WIDTH, WINDOW_HEIGHT = 64, 128
BLOCKS_X, BLOCKS_Y = 7, 15
ORIENTATIONS = 9
COEFFICIENTS = BLOCKS_X * BLOCKS_Y * 4 * ORIENTATIONS
MARGIN_PX = 16
"""Every level is widened by this on each side, its edge repeated: people were trained with so much room around them."""
PROJECTIONS = 18
CHANNELS = 32
"""The projections are filled up to this with zeros: ONNX Runtime's fast convolutions work on 16 channels at a time."""
LETTERBOX_GREY = 114
"""What the detector fills up pictures with that are not square."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a window and its margin become a box and a score.

    `score = 1 / (1 + exp(-slope * (margin - threshold)))`; the box is `width` x `height` of the 64x128 window, its
    centre `centre_y` of the window's height below the window's top, in the middle across.
    """

    threshold: float
    slope: float
    width: float
    height: float
    centre_y: float


@dataclass(frozen=True, slots=True)
class Level:
    """One scale of the pyramid: the picture's size there, and how many pixels of the input one pixel of it covers."""

    size: int
    scale: float

    @property
    def windows(self) -> tuple[int, int]:
        """Return the number of window positions down and across."""
        side = self.size + 2 * MARGIN_PX
        return (side - WINDOW_HEIGHT) // STRIDE + 1, (side - WINDOW_WIDTH) // STRIDE + 1


def pyramid(size: int, smallest: float, steps: int) -> tuple[Level, ...]:
    """Return the levels of an input of `size` pixels, from scale `smallest` in `steps` to the octave.

    The last is the coarsest at which a window still fits: there the person of a window is as tall as the input.
    """
    coarsest = size / (WINDOW_HEIGHT - 2 * MARGIN_PX)
    count = math.floor(math.log2(coarsest / smallest) * steps + 1e-9) + 1
    sizes = [round(size / (smallest * 2 ** (index / steps))) for index in range(count)]
    if sizes[-1] > WINDOW_HEIGHT - 2 * MARGIN_PX:
        sizes.append(WINDOW_HEIGHT - 2 * MARGIN_PX)
    return tuple(Level(side, size / side) for side in sizes)


def orientation_basis() -> tuple[Floats, Floats]:
    """Return directions (32, 2) and a mixture (9, 32): votes are `mixture @ max(directions @ gradient, 0)`.

    A vote is the gradient's length times a tent over its angle: 1 at the bin's centre (10, 30, ... degrees), 0 at its
    neighbours'. A sum of |projections| on directions ten degrees apart has the gradient's length as a factor, and its
    kinks at every multiple of ten degrees, so that weights exist with which it meets the tent there; in between it is
    off by less than 0.2 % of the length. |p| = 2 max(p, 0) - p, where -p is linear in any two of the projections and
    their opposites: two rows more.
    """
    nodes = np.radians(10.0 * np.arange(1, PROJECTIONS + 1))
    directions = np.stack([-np.sin(nodes), np.cos(nodes)], axis=1)
    at_nodes = np.abs(np.sin(nodes[:, None] - nodes[None, :]))
    away = np.abs(nodes[:, None] - np.radians(10.0 + 20.0 * np.arange(ORIENTATIONS))) / np.radians(20.0)
    tents = np.maximum(0.0, 1.0 - np.minimum(away, ORIENTATIONS - away))
    # In between, the sum lies above the tent only; a common factor centres the error.
    weights = np.linalg.solve(at_nodes, tents).T * 2 / (1 + 1 / math.cos(math.radians(5.0)))
    pair = [0, PROJECTIONS // 2]
    linear = weights @ directions @ np.linalg.inv(directions[pair])
    mixture = np.concatenate([2 * weights, linear], axis=1)
    mixture[:, pair] -= linear
    directions = np.concatenate([directions, -directions[pair]])
    spare = CHANNELS - len(directions)
    return _stable(np.pad(directions, ((0, spare), (0, 0)))), _stable(np.pad(mixture, ((0, 0), (0, spare))))


def cell_windows() -> Floats:
    """Return (2, 16): the weight of a pixel at each place of a block, along one axis, for the block's two cells.

    A tent around the cell's centre times the Gaussian of sigma 4 around pixel 8, where OpenCV has the block's centre.
    """
    place = np.arange(2 * STRIDE)
    gaussian = np.exp(-((place - STRIDE) ** 2) / (2 * 4.0**2))
    tents = [np.maximum(0.0, 1.0 - np.abs((place + 0.5) / STRIDE - 0.5 - cell)) for cell in (0, 1)]
    return _stable(np.stack(tents) * gaussian)


def _stable(values: NDArray[np.float64]) -> Floats:
    """Return `values` rounded, so that machines whose last digits differ build the same file."""
    return np.round(values, 7).astype(np.float32) + np.float32(0)


class GraphWriter:
    """Collects nodes and constants under names that are numbered in the order of their making."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._prefix = ""

    def section(self, name: str) -> None:
        """Begin the names of what follows with `name`."""
        self._prefix = f"{name}/"

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant and return its name."""
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: object) -> str:
        """Add a node with one output and return the output's name."""
        return self.add_many(operator, 1, *inputs, name=name, **attributes)[0]

    def add_many(self, operator: str, count: int, *inputs: str, name: str = "", **attributes: object) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        stem = name or f"{self._prefix}{operator.lower()}_{len(self._nodes)}"
        outputs = [stem] if count == 1 else [f"{stem}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=stem, **attributes))
        return outputs

    def graph(self, name: str, given: onnx.ValueInfoProto, wanted: onnx.ValueInfoProto) -> onnx.GraphProto:
        """Return everything collected as a graph."""
        return helper.make_graph(self._nodes, name, [given], [wanted], self._constants)


def _descriptor_constants(writer: GraphWriter) -> None:
    directions, mixture = orientation_basis()
    windows = cell_windows()
    writer.constant("directions", directions[:, :, None, None])
    for cell in range(2):
        writer.constant(f"down_{cell}", np.broadcast_to(windows[cell][None, None, :, None], (CHANNELS, 1, 16, 1)))
        writer.constant(f"across_{cell}", np.broadcast_to(windows[cell][None, None, None, :], (CHANNELS, 1, 1, 16)))
    writer.constant("mixture", np.kron(np.eye(4, dtype=np.float32), mixture)[:, :, None, None])
    border = MARGIN_PX + 1
    writer.constant("border", np.array([0, 0, border, border, 0, 0, border, border], np.int64))
    writer.constant("plane_axes", np.array([2, 3], np.int64))
    for side, (y, x) in {"left": (1, 0), "right": (1, 2), "above": (0, 1), "below": (2, 1)}.items():
        writer.constant(f"{side}_from", np.array([y, x], np.int64))
        writer.constant(f"{side}_to", np.array([y - 2 or 2**31, x - 2 or 2**31], np.int64))
    # 0.1 for each of a block's 36 values, and 0.001 once: as OpenCV keeps empty blocks from being divided by nothing.
    writer.constant("floor_before_clip", np.array(3.6, np.float32))
    writer.constant("clip", np.array(0.2, np.float32))
    writer.constant("floor_after_clip", np.array(1e-3, np.float32))


def _svm_constants(writer: GraphWriter, svm: Floats, calibration: Calibration) -> None:
    """Add the SVM: one row of the window's blocks becomes one output channel, a second convolution adds the rows up.

    As OpenCV lists them: blocks by column, then row; in a block cells by column, then row; then orientations.
    """
    writer.constant("svm_coefficients", svm[:COEFFICIENTS])
    writer.constant("svm_bias", svm[COEFFICIENTS:])
    writer.constant("svm_order", np.array([BLOCKS_X, BLOCKS_Y, 4 * ORIENTATIONS, 1], np.int64))
    writer.constant("svm_rows_sum", np.eye(BLOCKS_Y, dtype=np.float32)[None, :, :, None])
    listed = writer.add("Reshape", "svm_coefficients", "svm_order")
    writer.add("Transpose", listed, name="svm_rows", perm=[1, 2, 3, 0])
    writer.constant("flat", np.array([1, 1, -1], np.int64))
    writer.constant("flat_boxes", np.array([1, 4, -1], np.int64))
    writer.constant("half", np.array(0.5, np.float32))
    writer.constant("four", np.array(4, np.float32))
    writer.constant("slope", np.array(calibration.slope, np.float32))
    writer.constant("threshold", np.array(calibration.threshold, np.float32))


def _without_letterbox(writer: GraphWriter, size: int) -> str:
    """Return the input as 0..255, rows and columns of letterbox grey at its edges replaced by the picture's own edge.

    The step from picture to grey is as long as the picture is wide: to the SVM it looks like feet on a floor, or a
    wall beside a body. A picture that is grey all over stays as it is.
    """
    writer.section("letterbox")
    white = writer.constant("letterbox/white", np.array(255, np.float32))
    grey = writer.constant("letterbox/grey", np.array(LETTERBOX_GREY, np.float32))
    half_a_step = writer.constant("letterbox/half_a_step", np.array(0.5, np.float32))
    places = writer.constant("letterbox/places", np.arange(size, dtype=np.int64))
    pixels = writer.add("Round", writer.add("Mul", "images", white))
    away = writer.add("Abs", writer.add("Sub", pixels, grey))
    for axis, others in ((2, [0, 1, 3]), (3, [0, 1, 2])):
        furthest = writer.add("ReduceMax", away, axes=others, keepdims=0)
        picture = writer.add("Cast", writer.add("Greater", furthest, half_a_step), to=TensorProto.INT32)
        first = writer.add("ArgMax", picture, axis=0, keepdims=1)
        last = writer.add("ArgMax", picture, axis=0, keepdims=1, select_last_index=1)
        nearest = writer.add("Min", writer.add("Max", places, first), last)
        pixels = writer.add("Gather", pixels, nearest, axis=axis)
    return pixels


def _octaves(writer: GraphWriter, picture: str, coarsest: float) -> dict[int, str]:
    """Return the picture, and its halves and quarters as far as scales up to `coarsest` need them, by factor."""
    writer.section("octaves")
    octaves = {1: picture}
    for finer, factor in pairwise((1, 2, 4)):
        if coarsest >= factor:
            octaves[factor] = writer.add("AveragePool", octaves[finer], kernel_shape=[2, 2], strides=[2, 2])
    return octaves


def _level_pixels(writer: GraphWriter, octaves: dict[int, str], size: int, level: Level) -> str:
    """Return the picture at a level's scale: bilinear, from the coarsest octave that is not coarser than the level."""
    factor = max((factor for factor in octaves if factor <= level.scale), default=1)
    name = f"pixels_{level.size}"
    if level.size * factor == size:
        return writer.add("Identity", octaves[factor], name=name)
    sizes = writer.constant(f"{name}/size", np.array([1, 3, level.size, level.size], np.int64))
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return writer.add("Resize", octaves[factor], "", "", sizes, name=name, **attributes)


def _strongest_gradient(writer: GraphWriter, pixels: str) -> str:
    """Return (1, 2, H, W): across and down, of the colour channel in which the gradient is longest at each pixel.

    Of equally long ones blue's counts before green's and red's, as in OpenCV: dark pictures are full of such ties.
    """
    roots = writer.add("Pad", writer.add("Sqrt", pixels), "border", mode="edge")
    left, right, above, below = (
        writer.add("Slice", roots, f"{side}_from", f"{side}_to", "plane_axes")
        for side in ("left", "right", "above", "below")
    )
    across, down = writer.add("Sub", right, left), writer.add("Sub", below, above)
    squares = writer.add("Add", writer.add("Mul", across, across), writer.add("Mul", down, down))
    *other_lengths, length = writer.add_many("Split", 3, squares, axis=1)
    *other_across, best_across = writer.add_many("Split", 3, across, axis=1)
    *other_down, best_down = writer.add_many("Split", 3, down, axis=1)
    for other_length, one_across, one_down in reversed(list(zip(other_lengths, other_across, other_down, strict=True))):
        # Where would say it better, and take four times as long.
        longer = writer.add("Cast", writer.add("Greater", other_length, length), to=TensorProto.FLOAT)
        best_across = _replaced(writer, best_across, one_across, longer)
        best_down = _replaced(writer, best_down, one_down, longer)
        length = writer.add("Max", length, other_length)
    return writer.add("Concat", best_across, best_down, axis=1)


def _replaced(writer: GraphWriter, old: str, new: str, where: str) -> str:
    return writer.add("Add", old, writer.add("Mul", where, writer.add("Sub", new, old)))


def _blocks(writer: GraphWriter, gradient: str) -> str:
    """Return (1, 36, rows, columns): the block histograms, L2-Hys normalized, as OpenCV orders and scales them."""
    projected = writer.add("Relu", writer.add("Conv", gradient, "directions"))
    cells: dict[tuple[int, int], str] = {}
    for row in range(2):
        strip = writer.add("Conv", projected, f"down_{row}", strides=[STRIDE, 1], group=CHANNELS)
        for column in range(2):
            cells[column, row] = writer.add("Conv", strip, f"across_{column}", strides=[1, STRIDE], group=CHANNELS)
    joined = writer.add("Concat", *(cells[order] for order in sorted(cells)), axis=1)
    histograms = _normalized(writer, writer.add("Conv", joined, "mixture"), "floor_before_clip")
    return _normalized(writer, writer.add("Min", histograms, "clip"), "floor_after_clip")


def _normalized(writer: GraphWriter, histograms: str, floor: str) -> str:
    norm = writer.add("ReduceL2", histograms, axes=[1], keepdims=1)
    return writer.add("Div", histograms, writer.add("Add", norm, floor))


def _without_parts(writer: GraphWriter, margins: list[tuple[Level, str]]) -> list[str]:
    """Return the margins (1, 1, windows) of each level, lowered where a window seems to show a part of a body.

    A leg or a trunk looks a little like a body, and its box is too small for suppression by overlap to remove it. The
    margin of a window is lowered when it is less than half of that of a window at a coarser scale around it, whose
    middle is not farther off than 2 cells across and 4 down; every other margin stays as it is.
    """
    lowered = []
    around, coarser = "", None
    for level, margin in reversed(margins):
        writer.section(f"parts_{level.size}")
        kept = margin
        positive = writer.add("Relu", margin)
        near = writer.add("MaxPool", positive, kernel_shape=[9, 5], pads=[4, 2, 4, 2], strides=[1, 1])
        if coarser is not None:
            for axis, length in ((2, WINDOW_HEIGHT), (3, WINDOW_WIDTH)):
                places = writer.constant(f"parts_{level.size}/axis_{axis}", _places(level, coarser, axis - 2, length))
                around = writer.add("Gather", around, places, axis=axis)
            lacking = writer.add("Relu", writer.add("Sub", writer.add("Mul", around, "half"), positive))
            kept = writer.add("Sub", margin, writer.add("Mul", lacking, "four"))
            near = writer.add("Max", near, around)
        around, coarser = near, level
        lowered.append(writer.add("Reshape", kept, "flat"))
    return lowered[::-1]


def _places(level: Level, coarser: Level, axis: int, length: int) -> NDArray[np.int64]:
    """Return for each window position of a level, down (axis 0) or across (1), the nearest one of a coarser level."""
    middle = (np.arange(level.windows[axis]) * STRIDE - MARGIN_PX + length / 2) * level.scale
    nearest = np.rint((middle / coarser.scale - length / 2 + MARGIN_PX) / STRIDE)
    return np.clip(nearest, 0, coarser.windows[axis] - 1).astype(np.int64)


def _boxes(writer: GraphWriter, level: Level, calibration: Calibration) -> str:
    """Return (1, 4, windows): centre and size in input pixels; constant, so the runtime computes it once, at load."""
    down, across = level.windows
    name = f"boxes_{level.size}"
    left = (np.arange(across) * STRIDE - MARGIN_PX) * level.scale
    top = (np.arange(down) * STRIDE - MARGIN_PX) * level.scale
    centre_x = left + 0.5 * WINDOW_WIDTH * level.scale
    centre_y = top + calibration.centre_y * WINDOW_HEIGHT * level.scale
    width = calibration.width * WINDOW_WIDTH * level.scale
    height = calibration.height * WINDOW_HEIGHT * level.scale
    shape = writer.constant(f"{name}/windows", np.array([1, 1, down, across], np.int64))
    values = {
        "x": centre_x.reshape(1, 1, 1, -1),
        "y": centre_y.reshape(1, 1, -1, 1),
        "w": np.reshape(width, (1, 1, 1, 1)),
        "h": np.reshape(height, (1, 1, 1, 1)),
    }
    planes = [
        writer.add("Expand", writer.constant(f"{name}/{key}", value.astype(np.float32)), shape)
        for key, value in values.items()
    ]
    return writer.add("Reshape", writer.add("Concat", *planes, axis=1), "flat_boxes")


def build_model(size: int, svm: Floats, levels: tuple[Level, ...], calibration: Calibration) -> onnx.ModelProto:
    """Return the detector for inputs of `size` x `size` pixels, without metadata.

    `svm` (3781,) float32 is OpenCV's vector: the coefficients in its order, then the bias. Input `images` float32
    (1, 3, size, size), RGB, 0..1. Output `output0` float32 (1, 5, windows): centre x, centre y, width, height in input
    pixels, score in 0..1. Inside, for each level of N pixels, `pixels_N` (1, 3, N, N), 0..255, is the picture at that
    scale, and `margins_N` (1, 1, rows, columns) are the SVM's margins; a margin's window starts at pixel
    8 * (column, row) - 16.
    """
    writer = GraphWriter()
    _descriptor_constants(writer)
    _svm_constants(writer, svm, calibration)
    octaves = _octaves(writer, _without_letterbox(writer, size), max(level.scale for level in levels))
    margins, boxes = [], []
    for level in levels:
        writer.section(f"level_{level.size}")
        pixels = _level_pixels(writer, octaves, size, level)
        rows = writer.add("Conv", _blocks(writer, _strongest_gradient(writer, pixels)), "svm_rows")
        margin = writer.add("Conv", rows, "svm_rows_sum", "svm_bias", name=f"margins_{level.size}")
        margins.append((level, margin))
        boxes.append(_boxes(writer, level, calibration))
    lowered = _without_parts(writer, margins)
    writer.section("output")
    above = writer.add("Sub", writer.add("Concat", *lowered, axis=2), "threshold")
    scores = writer.add("Sigmoid", writer.add("Mul", above, "slope"))
    writer.add("Concat", writer.add("Concat", *boxes, axis=2), scores, name="output0", axis=1)
    count = sum(math.prod(level.windows) for level in levels)
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])
    wanted = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 5, count])
    graph = writer.graph("hog_person", given, wanted)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    return model
