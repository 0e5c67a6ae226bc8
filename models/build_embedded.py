"""Builds the embedded model: reads OpenCV 4's people detector, writes both ONNX files and their manifest. Run by hand,
`python -m models.build_embedded`, where `opencv-python-headless<5` is installed (OpenCV 5 no longer has the detector);
stops unless the files' margins agree with OpenCV's own descriptor and SVM on the same windows. `--rebuild` takes the
coefficients from the files that are there instead, and needs no OpenCV.
"""

import argparse
import hashlib
import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from models.hog_graph import (
    COEFFICIENTS,
    STRIDE,
    WINDOW_HEIGHT,
    WINDOW_WIDTH,
    Calibration,
    Floats,
    Level,
    build_model,
    pyramid,
)

FOLDER = Path(__file__).resolve().parent
FIGURES = FOLDER.parent / "tests" / "data" / "hog_windows.npz"
STEPS_TO_THE_OCTAVE = 5
FINEST_SCALE = {320: 2 ** (-1 / STEPS_TO_THE_OCTAVE), 640: 1.0}
"""By input size: people from about 84 and 96 pixels of the input. Finer levels cost more than they find."""
CALIBRATION = Calibration(threshold=0.75, slope=3.25, width=0.55, height=0.73, centre_y=0.47)
"""Measured on five videos against YOLO11n's boxes, and on the demo scene against its own. Of the boxes left after
suppression, sorted by margin, 13 % were right below 0.2, 47 % from 0.6 to 0.8, 88 % from 1.0 to 1.25, all above 2; the
logistic that fits them best has slope 3.25 and its middle at 0.70. The threshold is a little above, for empty rooms to
stay empty. With this box the windows of whole people overlap their tight boxes by 0.79 on average.
"""
TOLERANCE = 1e-2
"""How far a margin may be from OpenCV's."""
LICENCE = (
    "Apache-2.0 (OpenCV, from which the coefficients are taken; in OpenCV before 4.5 under the 3-clause BSD licence)"
)
DESCRIPTION = "Histograms of oriented gradients and a linear SVM for upright people (Dalal and Triggs, CVPR 2005)"
SOURCE = {
    "coefficients": "cv2.HOGDescriptor_getDefaultPeopleDetector() of OpenCV 4, float32, 3780 and a bias",
    "url": "https://github.com/opencv/opencv/blob/4.x/modules/objdetect/src/hog.cpp",
    "method": "N. Dalal, B. Triggs: Histograms of Oriented Gradients for Human Detection, CVPR 2005",
    "built_by": "python -m models.build_embedded",
}


def model_path(size: int, folder: Path = FOLDER) -> Path:
    """Return where the model of an input size is kept."""
    return folder / f"hog_person_{size}.onnx"


def levels(size: int) -> tuple[Level, ...]:
    """Return the scales that the model of an input size looks at."""
    return pyramid(size, FINEST_SCALE[size], STEPS_TO_THE_OCTAVE)


def finished_model(size: int, svm: Floats) -> onnx.ModelProto:
    """Return the model of an input size with the metadata that a YOLO file carries."""
    model = build_model(size, svm, levels(size), CALIBRATION)
    metadata = {
        "description": DESCRIPTION,
        "license": LICENCE,
        "task": "detect",
        "names": "{0: 'person'}",
        "imgsz": f"[{size}, {size}]",
        "stride": str(STRIDE),
        "batch": "1",
        "channels": "3",
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def file_bytes(model: onnx.ModelProto) -> bytes:
    """Return the model as it is written: the same bytes for the same coefficients."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def coefficients_in(model: onnx.ModelProto) -> Floats:
    """Return the SVM (3781,) that a model was built from: OpenCV's vector, the bias last."""
    constants = {constant.name: constant for constant in model.graph.initializer}
    parts = [numpy_helper.to_array(constants[name]) for name in ("svm_coefficients", "svm_bias")]
    return np.concatenate(parts).astype(np.float32)


def manifest(files: dict[int, bytes], outputs: dict[int, list[int]]) -> dict[str, Any]:
    """Return what the manifest says of the files: their digests, shapes, source and licence."""
    entries = [
        {
            "file": model_path(size).name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "input": {"name": "images", "type": "float32", "shape": [1, 3, size, size], "values": "RGB, 0..1"},
            "output": {
                "name": "output0",
                "type": "float32",
                "shape": outputs[size],
                "rows": "centre x, centre y, width, height in input pixels; score of person in 0..1",
            },
        }
        for size, content in files.items()
    ]
    return {"description": DESCRIPTION, "license": LICENCE, "source": SOURCE, "models": entries}


def write_pair(svm: Floats, folder: Path) -> dict[int, onnx.ModelProto]:
    """Write both models and the manifest into `folder`, and return the models by input size."""
    models = {size: finished_model(size, svm) for size in FINEST_SCALE}
    files = {size: file_bytes(model) for size, model in models.items()}
    for size, content in files.items():
        model_path(size, folder).write_bytes(content)
    shapes = {
        size: [axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim]
        for size, model in models.items()
    }
    text = json.dumps(manifest(files, shapes), indent=2)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return models


def margins_of(model: onnx.ModelProto, level: Level, picture: NDArray[np.uint8]) -> Floats:
    """Return the margins (rows, columns) that a model's level gives a picture.

    `picture` (N, N, 3) uint8 BGR, N the level's size, stands in for the level's pixels: what comes before, the scaling,
    is left out. The window at (row, column) starts at pixel 8 * (column, row) - 16.
    """
    runtime = importlib.import_module("onnxruntime")
    whole = onnx.shape_inference.infer_shapes(model)
    part = onnx.utils.Extractor(whole).extract_model([f"pixels_{level.size}"], [f"margins_{level.size}"])
    session = runtime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    tensor = picture[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    margins: Floats = session.run(None, {f"pixels_{level.size}": tensor})[0][0, 0]
    return margins


def sample_picture(rng: np.random.Generator, cv2: Any, size: int) -> NDArray[np.uint8]:
    """Return a picture (size, size, 3) uint8 BGR: coarse to fine colour noise, and a few plain figures before it."""
    picture = np.full((size, size, 3), 110.0, np.float32)
    for cells in (3, 9, 40, size):
        noise = rng.normal(0, 22, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    drawn = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(4):
        tall = int(rng.integers(70, 110))
        x, y = (int(place) for place in rng.integers(0, max(1, size - tall), 2))
        colour = [int(channel) for channel in rng.integers(0, 256, 3)]
        shapes = (
            ((0.25, 0.08), (0.07, 0.08)),
            ((0.25, 0.36), (0.15, 0.21)),
            ((0.18, 0.76), (0.06, 0.25)),
            ((0.33, 0.76), (0.06, 0.25)),
        )
        for (across, down), axes in shapes:
            centre = (x + round(across * tall), y + round(down * tall))
            cv2.ellipse(drawn, centre, [round(axis * tall) for axis in axes], 0, 0, 360, colour, -1, cv2.LINE_AA)
    return drawn


def opencv_margins(cv2: Any, svm: Floats, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return OpenCV's margins (rows, columns) of every window that lies in a picture, 8 pixels apart."""
    size = picture.shape[0]
    descriptors = cv2.HOGDescriptor().compute(picture, winStride=(STRIDE, STRIDE)).reshape(-1, COEFFICIENTS)
    margins: NDArray[np.float64] = descriptors.astype(np.float64) @ svm[:COEFFICIENTS] + svm[COEFFICIENTS]
    return margins.reshape((size - WINDOW_HEIGHT) // STRIDE + 1, (size - WINDOW_WIDTH) // STRIDE + 1)


def compare(models: dict[int, onnx.ModelProto], cv2: Any, svm: Floats) -> float:
    """Print and return the largest difference to OpenCV's margins, over every level that holds a whole window.

    Windows at the picture's edge are left out: there OpenCV mirrors the picture, and the model repeats its edge.
    """
    rng = np.random.default_rng(2005)
    worst = 0.0
    for size, model in models.items():
        for level in levels(size):
            if level.size < WINDOW_HEIGHT + 2 * STRIDE:
                continue
            picture = sample_picture(rng, cv2, level.size)
            theirs = opencv_margins(cv2, svm, picture)[1:-1, 1:-1]
            ours = margins_of(model, level, picture)[3:, 3:][: theirs.shape[0], : theirs.shape[1]]
            apart = float(np.abs(ours - theirs).max(initial=0.0))
            span = f"{theirs.min():+.2f} to {theirs.max():+.2f}" if theirs.size else "none"
            print(f"{size} at {level.size:3}: {theirs.size:5} windows, margins {span}, largest difference {apart:.5f}")
            worst = max(worst, apart)
    return worst


def write_figures(cv2: Any, svm: Floats, path: Path) -> None:
    """Write windows (24, 128, 64, 3) uint8 BGR and OpenCV's margins of them: what the tests compare with."""
    rng = np.random.default_rng(64128)
    windows = []
    for index in range(24):
        picture = sample_picture(rng, cv2, 256)
        # Every other window is the best of its picture, so that figures are among them.
        best = np.unravel_index(opencv_margins(cv2, svm, picture).argmax(), (17, 25)) if index % 2 else (8, 12)
        y, x = (int(place) * STRIDE for place in best)
        windows.append(picture[y : y + WINDOW_HEIGHT, x : x + WINDOW_WIDTH] & 0xF0)
    descriptors = [cv2.HOGDescriptor().compute(np.ascontiguousarray(window)).ravel() for window in windows]
    margins = np.stack(descriptors).astype(np.float64) @ svm[:COEFFICIENTS] + svm[COEFFICIENTS]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, windows=np.stack(windows), margins=margins)


def main() -> None:
    """Build the pair, from OpenCV with the comparison or from the files that are there."""
    parser = argparse.ArgumentParser(description="Build the embedded model.")
    parser.add_argument("--rebuild", action="store_true", help="take the coefficients from the present files")
    if parser.parse_args().rebuild:
        write_pair(coefficients_in(onnx.load(model_path(640))), FOLDER)
        return
    cv2 = importlib.import_module("cv2")
    if not hasattr(cv2, "HOGDescriptor_getDefaultPeopleDetector"):
        raise SystemExit(f"OpenCV {cv2.__version__} has no people detector: install opencv-python-headless<5")
    svm = np.asarray(cv2.HOGDescriptor_getDefaultPeopleDetector(), np.float32).ravel()
    models = write_pair(svm, FOLDER)
    worst = compare(models, cv2, svm)
    print(f"largest difference of all {worst:.5f}, allowed {TOLERANCE}")
    if not math.isfinite(worst) or worst > TOLERANCE:
        raise SystemExit("the model does not agree with OpenCV")
    write_figures(cv2, svm, FIGURES)
    for path in sorted(FOLDER.glob("hog_person_*.onnx")):
        print(f"{path.name}: {path.stat().st_size} bytes, {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
