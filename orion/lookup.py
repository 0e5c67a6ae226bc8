"""Which model files make the pair: the ones that are named, the embedded ones, or what a short-lived child finds in a
folder. Runs at start in the main thread; the long-lived process never loads the catalogue.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orion.config import PersonDetectorConfig
from orion.errors import ModelError

EMBEDDED_HINT = (
    "using the embedded model: it finds upright people, whole bodies, good contrast. For real use get YOLO11: "
    "pip install 'orion-sensor[export]' && orion models export yolo11n, then run with --model-dir models"
)
_LOOKUP_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class ModelPair:
    """The files of a pair; without `model_320` the 640 runs alone."""

    model_640: Path
    model_320: Path | None
    embedded: bool = False


def is_embedded(model: PersonDetectorConfig) -> bool:
    """Return whether nothing but the embedded model is configured."""
    return model.model_path is None and model.model_dir is None


def find_pair(model: PersonDetectorConfig) -> ModelPair:
    """Return the configured pair. Raises ModelError when the folder does not hold it."""
    if model.model_path is not None:
        return ModelPair(model.model_path, model.model_path_320)
    if model.model_dir is not None:
        return _ask_catalogue(model.model_dir, model.size)
    package = find_spec("models")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(next(iter(package.submodule_search_locations)))
    return ModelPair(folder / "hog_person_640.onnx", folder / "hog_person_320.onnx", embedded=True)


def _ask_catalogue(folder: Path, size: str) -> ModelPair:
    command = [sys.executable, "-m", "workers.catalogue", "resolve", str(folder), size]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOOKUP_LIMIT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"models.person_detector.model_dir: {folder} could not be read in time") from error
    if done.returncode != 0:
        raise ModelError(f"models.person_detector.model_dir: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    small = found["model_320"]
    return ModelPair(Path(found["model_640"]), Path(small) if small else None)
