"""What benchmarks measure with when nothing is named: the test data's pair of models, or else the embedded one."""

import os
from pathlib import Path

from orion.config import PersonDetectorConfig
from orion.lookup import ModelPair, find_pair


def testdata() -> Path | None:
    """Return the folder of real models and videos, `ORION_TESTDATA` or beside the repository; None without one."""
    named = os.environ.get("ORION_TESTDATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "testdata"
    return folder if folder.is_dir() else None


def default_pair() -> ModelPair:
    """Return the YOLO11n pair of the test data, or the embedded pair where there is none."""
    folder = testdata()
    if folder is None:
        return find_pair(PersonDetectorConfig())
    models = folder / "models"
    return ModelPair(models / "yolo11n_fp32_640.onnx", models / "yolo11n_fp32_320.onnx")
