"""Makes a pair of ONNX files, at 320 and 640, from YOLO weights. Runs in the short-lived process of `orion models
export`. Everything is written into a hidden folder beside the models and renamed at the end, so that nothing half-done
is ever picked up.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import pickle
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orion.errors import ModelError
from orion.messages import DetectorSpec, SessionSize
from workers.lane import load_lanes
from workers.session import sha256

LICENCE = (
    "YOLO weights of Ultralytics are licensed under AGPL-3.0 (commercial licences from Ultralytics): "
    "https://ultralytics.com/license"
)
MANIFEST = "manifest.json"
_PLACE = ".venv-export"
_PACKAGES = "ultralytics onnx onnxslim onnxruntime"
_SIZES: tuple[SessionSize, SessionSize] = (640, 320)
_FAILURES = (
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ImportError,
    AssertionError,
    pickle.PickleError,
)
"""What Ultralytics and torch raise, or may, for weights that are not to be had, broken or of another make."""

Exporter = Callable[[str, SessionSize, Path], Path]
"""Writes the ONNX file of a model for one input size into a folder, and returns its path."""


def export(model: str, folder: Path, exporter: Exporter) -> list[Path]:
    """Make `NAME_fp32_640.onnx` and `NAME_fp32_320.onnx` in `folder` from `model`, a name as `yolo11n` or a .pt file.

    Both are loaded and run once before they take their names; files of the same names are replaced, and the folder's
    manifest gets their SHA-256. Raises ModelError when they are no pair that runs, or cannot be put there; then nothing
    has changed. Killed at the wrong moment, it leaves old files in a hidden folder, and never an old beside a new one.
    """
    name = Path(model).stem
    known = _read_manifest(folder / MANIFEST)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as hidden:
            made = {size: _make(name, size, Path(hidden), exporter, model) for size in _SIZES}
            load_lanes(DetectorSpec(str(made[640]), str(made[320]), 0.5, 0.45, (), "cpu", threads=1), "cpu")
            manifest = Path(hidden) / MANIFEST
            manifest.write_text(json.dumps(_with_entries(known, list(made.values())), indent=2) + "\n")
            _put([*made.values(), manifest], folder)
    except OSError as error:
        place = error.filename2 or error.filename or folder
        raise ModelError(f"{place}: cannot be used: {error.strerror or error}") from error
    return [folder / path.name for path in made.values()]


def ultralytics_exporter(model: str, folder: Path) -> Exporter:
    """Return the exporter that Ultralytics provides. Raises ModelError with the commands to type when it is absent."""
    if importlib.util.find_spec("ultralytics") is None:
        why = "expected the package ultralytics, found none"
        how = "it brings torch and another OpenCV, so make the pair in an environment of its own, here or elsewhere"
        raise ModelError("\n".join([f"{why}; {how}:", *commands(model, folder)]))
    return _export_with_ultralytics


def commands(model: str, folder: Path) -> list[str]:
    """Return the shell commands that make the pair, on this or any other machine, without Orion."""
    weights = Path(model if model.endswith(".pt") else f"{model}.pt")
    # Ultralytics writes beside the weights.
    written = shlex.quote(str(weights.with_suffix(".onnx")))
    exports = [
        f"{_PLACE}/bin/yolo export {shlex.quote(f'model={weights}')} format=onnx imgsz={size} && "
        f"mv {written} {shlex.quote(str(folder / f'{weights.stem}_fp32_{size}.onnx'))}"
        for size in _SIZES
    ]
    setup = [
        f"python3 -m venv {_PLACE} && {_PLACE}/bin/pip install {_PACKAGES}",
        f"mkdir -p {shlex.quote(str(folder))}",
    ]
    return [f"  {line}" for line in [*setup, *exports]]


def _make(name: str, size: SessionSize, hidden: Path, exporter: Exporter, model: str) -> Path:
    return exporter(model, size, hidden).replace(hidden / f"{name}_fp32_{size}.onnx")


def _export_with_ultralytics(model: str, size: SessionSize, folder: Path) -> Path:
    # Without these it reports its use to its makers, and installs what it misses. It fetches weights all the same.
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    weights = Path(model)
    # Ultralytics writes beside the weights, and fetches known ones to the path that it is given.
    target = folder / f"{weights.stem}.pt"
    if weights.suffix == ".pt" and not target.exists():
        if not weights.is_file():
            raise ModelError(f"{weights}: expected a file of weights, found none")
        shutil.copy(weights, target)
    try:
        yolo: Any = importlib.import_module("ultralytics").YOLO
        return Path(yolo(str(target)).export(format="onnx", imgsz=size))
    except _FAILURES as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{model}: Ultralytics cannot export it: {reason}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return what the folder's manifest says; what an empty one would where there is none."""
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        return {"models": []}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected a list of models as JSON, found: {error}") from error
    entries = known.get("models", []) if isinstance(known, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f'{path}: expected {{"models": [{{"file": ...}}, ...]}}, found something else')
    return {**known, "models": entries}


def _with_entries(known: dict[str, Any], made: list[Path]) -> dict[str, Any]:
    """Return the manifest `known` with the entries of `made` added or replaced; what else it says stays."""
    fresh = [
        {"file": file.name, "sha256": sha256(str(file)), "bytes": file.stat().st_size, "license": LICENCE}
        for file in made
    ]
    names = [file.name for file in made]
    return {**known, "models": [entry for entry in known["models"] if entry.get("file") not in names] + fresh}


def _put(files: list[Path], folder: Path) -> None:
    """Move `files` from a folder inside `folder` up into it. Those whose names they take are put aside first, and come
    back if any cannot be moved.
    """
    with contextlib.ExitStack() as undo:
        for file in files:
            place, aside = folder / file.name, file.with_name(f"{file.name}.old")
            if place.is_file():
                place.rename(aside)
                undo.callback(aside.rename, place)
        for file in files:
            place = folder / file.name
            file.rename(place)
            undo.callback(place.rename, file)
        undo.pop_all()
